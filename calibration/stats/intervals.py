"""Confidence intervals over groups: Student's t for means, the cluster bootstrap for everything else.

Items of one group (a scenario, say) resemble each other, so the bootstrap draws whole groups and never single items.
Where claims are about other characters too, characters are drawn as well, independently of the groups (Owen and Eckles
2012, "Bootstrapping data arrays of arbitrary order": the weights of the two ways are multiplied). The module works on
plain arrays and knows nothing of judges, annotators or tables.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


Labels = NDArray[np.object_]


LEVEL = 0.95
"""The nominal coverage of every confidence interval."""


DRAWS = 2000
"""Bootstrap draws."""


MIN_GROUPS = 8
"""With fewer groups there is no interval, as it would rest on too few: a nominal 95% covers 81% with four groups."""


MOST_GROUPS = 1000
"""More groups than this are merged at random for the bootstrap. It stays valid, and its cost is bounded."""


CHUNK = 250_000
"""Numbers in an array of items by draws that are worked on at a time: about as many as a processor's cache holds."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% confidence interval.

    ``low`` and ``high`` are None where there are too few groups for an interval. ``value`` is None where the number is
    undefined; ``reason`` then says why, in words that can end a sentence.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resampler:
    """Bootstrap draws of groups, and of characters too where they are given.

    A draw is a weight for each cell (a group, or a group and character together): how often the cell was drawn.

    Args:
        groups: shape (items,), the label of what is resampled together.
        characters: shape (items,), the second way of resampling; None to generalise over groups only.
        draws: how many bootstrap draws.
        seed: random seed; the same seed gives the same draws.
    """

    groups: Labels
    characters: Labels | None = None
    draws: int = DRAWS
    seed: int = 0
    cells: NDArray[np.intp] = field(init=False)
    """Shape (items,): the number of each item's cell; items of one cell have the same weight in every draw."""
    weights: Floats = field(init=False, repr=False)
    """Shape (draws, cells): how often each cell was drawn."""
    is_enough: bool = field(init=False)
    """Whether there are groups (and characters) enough for an interval."""

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        ways = [codes(self.groups)] + ([] if self.characters is None else [codes(self.characters)])
        counts = [int(way.max()) + 1 for way in ways]
        object.__setattr__(self, "is_enough", all(count >= MIN_GROUPS for count in counts))
        # Too many groups are merged into MOST_GROUPS of about one size. Both ways are merged before either is drawn:
        # the order of the random numbers is part of what a seed stands for.
        ways = [
            generator.permutation(np.arange(count) % MOST_GROUPS)[way] if count > MOST_GROUPS else way
            for way, count in zip(ways, counts, strict=True)
        ]
        drawn = [
            generator.multinomial(count, np.full(count, 1 / count), size=self.draws)
            for count in (min(count, MOST_GROUPS) for count in counts)
        ]
        # Cells are the combinations that occur; the weight of a cell is the product of the weights of its ways.
        found, cells = np.unique(np.stack(ways), axis=1, return_inverse=True)
        weights = np.prod([times[:, way] for times, way in zip(drawn, found, strict=True)], axis=0)
        object.__setattr__(self, "cells", cells.reshape(-1))
        object.__setattr__(self, "weights", weights.astype(float))

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Resampler:
        """The same draws for some of the items, or for items in another order or repeated; without unused cells."""
        used, cells = np.unique(self.cells[chosen], return_inverse=True)
        part = copy.copy(self)  # not the constructor, which would draw anew
        object.__setattr__(part, "groups", self.groups[chosen])
        object.__setattr__(part, "characters", None if self.characters is None else self.characters[chosen])
        object.__setattr__(part, "cells", cells)
        object.__setattr__(part, "weights", self.weights[:, used])
        return part

    def sums(self, values: Floats) -> Floats:
        """Sums over the drawn items: shape (draws, columns) from values of shape (items, columns)."""
        totals = np.zeros((self.weights.shape[1], values.shape[1]))
        np.add.at(totals, self.cells, values)
        return np.asarray(self.weights @ totals)

    def parts(self) -> Iterator[Floats]:
        """How often each cell was drawn, for some draws at a time: shape (cells, some draws)."""
        step = max(1, CHUNK // max(1, len(self.cells)))
        for start in range(0, self.draws, step):
            yield np.ascontiguousarray(self.weights[start : start + step].T)

    def interval(self, value: float, draws: Floats, *, centred: bool = False) -> tuple[float | None, float | None]:
        """The percentile interval of a statistic from its draws, shape (draws,); NaN draws are left out.

        It contains the value: it is widened to it or, ``centred``, moved so that the median of the draws is the value.
        That is for statistics for which draws are biased, as a correlation over few items, some of them drawn twice.

        None, None where there are too few groups, or where more than a tenth of the draws are NaN.
        """
        known = draws[np.isfinite(draws)]
        # A draw may lack a system, or be constant; an interval over the few others would be of another population.
        if not self.is_enough or len(known) < 0.9 * len(draws):
            return None, None
        low, median, high = np.quantile(known, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        if centred:
            return float(low + value - median), float(high + value - median)
        return min(float(low), value), max(float(high), value)

    def estimate(self, value: float, draws: Floats | None, undefined: str, *, centred: bool = False) -> Estimate:
        """A value with its interval from draws (None for no interval); ``undefined`` is the reason if it is NaN."""
        if not np.isfinite(value):
            return Estimate(None, reason=undefined)
        ends = (None, None) if draws is None else self.interval(float(value), draws, centred=centred)
        return Estimate(float(value), *ends)


def clustered_mean(
    values: Floats, groups: Labels, weights: Floats | None = None, characters: Labels | None = None
) -> Estimate:
    """The weighted mean of values, with Student's t interval from the spread between groups.

    The variance is that of the linearised ratio, summed within groups before squaring, times k / (k - 1). With groups
    of one size and equal weights it is the variance of the mean of group means, and t has k - 1 degrees of freedom.

    Args:
        values, groups, weights, characters: shape (items,); values that are NaN are left out. For the role of
            characters see ``clustered_variance``.
    """
    known = np.isfinite(values)
    if not known.any():
        return Estimate(None, reason="there is no item to take it over")
    weight = (np.ones(len(values)) if weights is None else weights)[known]
    mean = float(np.average(values[known], weights=weight))
    # What each item adds to the error of the mean, to first order: with it a weighted mean has the variance of a sum.
    influence = weight * (values[known] - mean) / weight.sum()
    variance, fewest = clustered_variance(influence, groups[known], None if characters is None else characters[known])
    return student(mean, variance, fewest)


def clustered_variance(influence: Floats, groups: Labels, characters: Labels | None = None) -> tuple[float, int]:
    """The variance of a sum of influences that are dependent within groups, and within characters where given.

    With characters it is the variance over groups plus that over characters less that over cells (Cameron, Gelbach and
    Miller 2011, eq. 2.11), and never less than the greater of the first two.

    Args:
        influence, groups, characters: shape (items,).

    Returns:
        The variance, NaN for a single group; and the number of groups, or of characters where they are fewer.
    """
    variance, fewest = _one_way_variance(influence, groups)
    if characters is None:
        return variance, fewest
    other, number = _one_way_variance(influence, characters)
    # What items of one group and one character add is in both sums, so it is taken off once.
    both, _ = _one_way_variance(influence, groups + "\0" + characters)
    return max(variance + other - both, variance, other), min(fewest, number)


def _one_way_variance(influence: Floats, groups: Labels) -> tuple[float, int]:
    """The variance of a sum of influences that are dependent within groups, and the number of groups."""
    # Summed within groups before squaring, so that what items of a group have in common counts in full. The mean was
    # estimated from the same k groups, which makes their squares too small by (k - 1) / k.
    sums = np.bincount(codes(groups), weights=influence)
    k = len(sums)
    return float((sums**2).sum() * k / (k - 1)) if k > 1 else float("nan"), k


def student(value: float, variance: float, fewest: int, effective: float | None = None) -> Estimate:
    """A value with Student's t interval on ``fewest`` - 1 degrees of freedom; no interval under ``MIN_GROUPS``.

    ``effective`` is how many groups of one size would do as well as these, where they are of unlike sizes.
    """
    if fewest < MIN_GROUPS:
        return Estimate(value)
    half = t_quantile(max((fewest if effective is None else effective) - 1, 1)) * variance**0.5
    return Estimate(value, value - half, value + half)


def t_quantile(freedom: float, chance: float = (1 + LEVEL) / 2) -> float:
    """A quantile of Student's t; by default half the width of an interval in standard errors. NaN for NaN."""
    return float(special.stdtrit(freedom, chance))  # scipy.stats.t.ppf is this, behind a hundred microseconds of checks


def t_chance(value: float, freedom: float) -> float:
    """The chance that Student's t is at most a value."""
    return float(special.stdtr(freedom, value))


def codes(labels: Labels) -> NDArray[np.intp]:
    """Labels as numbers from 0, in their sorted order."""
    return np.asarray(pd.factorize(labels, sort=True)[0], dtype=np.intp)


def ratio(above: Floats, below: Floats) -> Floats:
    """The quotient of two arrays; NaN where ``below`` is not positive."""
    out = np.full(np.broadcast_shapes(np.shape(above), np.shape(below)), np.nan)
    return np.asarray(np.divide(above, below, out=out, where=below > 0))
