"""Intervals over groups: Student's t for means, the cluster bootstrap for the rest.

Items of one group (a scenario, say) resemble each other, so what is drawn again is whole groups, never items. Where
claims are about other characters too, characters are drawn as well, independently of the groups (Owen and Eckles
2012, "Bootstrapping data arrays of arbitrary order": weights of the two ways are multiplied).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


Labels = NDArray[np.object_]


LEVEL = 0.95
"""The nominal coverage of every interval."""


DRAWS = 2000
"""Bootstrap draws."""


MIN_GROUPS = 8
"""Under so many groups there is no interval: it would rest on too few (a nominal 95% covers 81% with four)."""


MOST_GROUPS = 1000
"""More groups than this are merged at random for the bootstrap, which keeps its validity and bounds its cost."""


CHUNK = 250_000
"""Numbers of an array of items by draws that are worked on at a time, about as many as a processor's cache holds."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval.

    ``low`` and ``high`` are None where there are too few groups for one; ``value`` is None where it cannot be said,
    and ``reason`` why, in words that end a sentence.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resampler:
    """Draws groups of items again, and characters too where they are given.

    Args:
        groups: shape (items,), what is resampled together.
        characters: shape (items,), the second way; None to generalise over groups only.
        draws: how often.
        seed: the same seed gives the same draws.
    """

    groups: Labels
    characters: Labels | None = None
    draws: int = DRAWS
    seed: int = 0
    cells: NDArray[np.intp] = field(init=False)
    """Shape (items,): the cell (group, or group and character) of each item; items of a cell weigh the same."""
    weights: Floats = field(init=False, repr=False)
    """Shape (draws, cells): how often each cell was drawn."""
    is_enough: bool = field(init=False)
    """Whether there are groups (and characters) enough for an interval."""

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        ways = [codes(self.groups)] + ([] if self.characters is None else [codes(self.characters)])
        object.__setattr__(self, "is_enough", all(int(way.max()) + 1 >= MIN_GROUPS for way in ways))
        ways = [_merged(way, generator) for way in ways]
        drawn = [_multinomial(int(way.max()) + 1, self.draws, generator) for way in ways]
        found, cells = np.unique(np.stack(ways), axis=1, return_inverse=True)
        object.__setattr__(self, "cells", cells.reshape(-1))
        weights = np.prod([counts[:, way] for counts, way in zip(drawn, found, strict=True)], axis=0)
        object.__setattr__(self, "weights", weights.astype(float))

    def sums(self, values: Floats) -> Floats:
        """Weighted sums over items in every draw: shape (draws, columns) from (items, columns)."""
        totals = np.zeros((self.weights.shape[1], values.shape[1]))
        np.add.at(totals, self.cells, values)
        return np.asarray(self.weights @ totals)

    def parts(self) -> Iterator[Floats]:
        """How often each cell was drawn, some draws at a time: shape (cells, some draws)."""
        step = max(1, CHUNK // max(1, len(self.cells)))
        for start in range(0, self.draws, step):
            yield np.ascontiguousarray(self.weights[start : start + step].T)

    def interval(self, draws: Floats) -> tuple[float | None, float | None]:
        """The percentile interval of a statistic from its draws, shape (draws,); draws without a value are left out.

        None, None where there are too few groups, or over a tenth of the draws have no value.
        """
        known = draws[np.isfinite(draws)]
        if not self.is_enough or len(known) < 0.9 * len(draws):
            return None, None
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def estimate(self, value: float, draws: Floats | None, undefined: str) -> Estimate:
        """A value with its interval from draws (None for none); ``undefined`` says why there is no value, if NaN."""
        if not np.isfinite(value):
            return Estimate(None, reason=undefined)
        return Estimate(float(value), *(self.interval(draws) if draws is not None else (None, None)))


def clustered_mean(
    values: Floats, groups: Labels, weights: Floats | None = None, characters: Labels | None = None
) -> Estimate:
    """The weighted mean of values, with Student's t interval from the spread of its groups.

    The variance is that of the linearised ratio, summed within groups before squaring, times k / (k - 1); with groups
    of one size and equal weights it is the variance of the mean of group means, and t has k - 1 degrees of freedom.
    With characters it is that of groups plus that of characters less that of cells (Cameron, Gelbach and Miller 2011,
    eq. 2.11; never less than the greater of the two), on the smaller number of degrees of freedom.

    Args:
        values, groups, weights, characters: shape (items,); values that are NaN are left out.
    """
    known = np.isfinite(values)
    if not known.any():
        return Estimate(None, reason="there is no item to take it over")
    weight = (np.ones(len(values)) if weights is None else weights)[known]
    mean = float(np.average(values[known], weights=weight))
    influence = weight * (values[known] - mean) / weight.sum()
    variance, fewest = clustered_variance(influence, groups[known], None if characters is None else characters[known])
    return student(mean, variance, fewest)


def clustered_variance(influence: Floats, groups: Labels, characters: Labels | None = None) -> tuple[float, int]:
    """The variance of a sum of influences, shape (items,), that are dependent within groups, and within characters
    where they are given; and how many groups there are (characters, where they are fewer). NaN for one group.
    """
    variance, fewest = _variance(influence, groups)
    if characters is None:
        return variance, fewest
    other, number = _variance(influence, characters)
    both, _ = _variance(influence, groups + "\0" + characters)
    return max(variance + other - both, variance, other), min(fewest, number)


def student(value: float, variance: float, fewest: int) -> Estimate:
    """A value with Student's t interval on ``fewest`` - 1 degrees of freedom; none under ``MIN_GROUPS``."""
    if fewest < MIN_GROUPS:
        return Estimate(value)
    half = t_quantile(fewest - 1) * variance**0.5
    return Estimate(value, value - half, value + half)


def t_quantile(freedom: float, chance: float = (1 + LEVEL) / 2) -> float:
    """A quantile of Student's t; by default half the width of an interval in standard errors. NaN for NaN."""
    return float(special.stdtrit(freedom, chance))  # scipy.stats.t.ppf is this, behind a hundred microseconds of checks


def codes(labels: Labels) -> NDArray[np.intp]:
    """Labels as numbers from 0, in their sorted order."""
    return np.asarray(pd.factorize(labels, sort=True)[0], dtype=np.intp)


def _variance(influence: Floats, groups: Labels) -> tuple[float, int]:
    """The variance of a sum of influences that are dependent within groups; how many groups there are."""
    sums = np.bincount(codes(groups), weights=influence)
    k = len(sums)
    return float((sums**2).sum() * k / (k - 1)) if k > 1 else float("nan"), k


def _merged(groups: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.intp]:
    """Groups as they are, or merged at random into ``MOST_GROUPS`` of about one size."""
    count = int(groups.max()) + 1
    if count <= MOST_GROUPS:
        return groups
    return np.asarray(generator.permutation(np.arange(count) % MOST_GROUPS)[groups], dtype=np.intp)


def _multinomial(count: int, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How often each of ``count`` groups is drawn when ``count`` are, with replacement: shape (draws, count)."""
    return generator.multinomial(count, np.full(count, 1 / count), size=draws)
