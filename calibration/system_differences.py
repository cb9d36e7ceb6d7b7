"""Is one system better than another: differences of two, and how far a ranking of all can be trusted."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.pairing import Paired
from calibration.stats.intervals import (
    LEVEL,
    MIN_GROUPS,
    Floats,
    Resampler,
    clustered_variance,
    student,
    t_chance,
    t_quantile,
)
from calibration.stats.prediction_powered import labelled_variance, powered_mean
from calibration.system_means import JUDGE_MEAN, LABELLED, by_source, human_mean

POWER = 0.8
"""The chance of settling a difference with the number of groups that ``needed`` names."""


MOST_NEEDED = 10**9


TINY = 1e-12
"""A smaller number is rounding error."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One system's mean less another's, with Student's t interval over groups and the p value of no difference."""

    target: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    groups: int
    """How many groups (or characters, where they are fewer) it rests on."""
    needed: int | None
    """How many groups of this kind would settle a difference like the one observed, at a power of .8."""
    reason: str = ""
    """What cannot be said and why; empty where nothing is missing."""

    @property
    def settled(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    @property
    def outlook(self) -> str:
        """What it would take to settle it, in words."""
        if self.settled:
            return "settled"
        if self.needed is not None:
            return f"not settled; about {self.needed:,} groups like these would settle a difference of this size"
        return "never, at a difference of 0" if self.value == 0 else f"not settled: {self.reason}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """System ``a`` less system ``b`` on one metric, by the judge and by human ratings."""

    metric: str
    a: str
    b: str
    judge: Difference
    human: Difference


def compare(paired: Paired, a: str, b: str, *, characters: bool = False) -> Comparison:
    """Compare two systems over the groups that both have.

    By the judge it is a paired difference. Within a group the two are compared over the characters that both have there
    (over all items of the group, where no characters are known); every group counts the same. By human ratings it is
    the difference of the prediction-powered means, where both systems have labels.

    Args:
        paired: one metric.
        a, b: two of its sources.
        characters: whether the interval is to hold for other characters too.

    Raises:
        ValueError: a source is not there; characters are to count and are not known.
    """
    for source in (a, b):
        if source not in set(paired.sources):
            raise ValueError(f"no source {source!r} (found: {', '.join(sorted(set(paired.sources)))})")
    if characters and paired.characters is None:
        raise ValueError(f"the scores of {paired.metric!r} have no column 'character': leave characters=True out")
    shared = set(paired.groups[paired.sources == a]) & set(paired.groups[paired.sources == b])
    here = paired.at(np.array([group in shared for group in paired.groups], dtype=bool))
    pairs = [here.at(here.sources == source) for source in (a, b)]
    return Comparison(
        paired.metric, a, b, _by_judge(here, a, b, characters), _by_people(pairs[0], pairs[1], characters)
    )


def _by_judge(here: Paired, a: str, b: str, characters: bool) -> Difference:
    """The judge's paired difference, over cells: a group, or a group and a character."""
    who = here.groups if here.characters is None else here.characters
    table = pd.DataFrame({"group": here.groups, "who": who, "source": here.sources, "judge": here.judge})
    cells = table.pivot_table(index=["group", "who"], columns="source", values="judge").reindex(columns=[a, b]).dropna()
    if cells.empty:
        return _unknown(JUDGE_MEAN, "they share no group (with the same character in it)")
    groups, whos = (cells.index.get_level_values(name).to_numpy(dtype=object) for name in ("group", "who"))
    # A group's cells share its weight, so that a group with many characters counts no more than one with few.
    size = cells.groupby(level="group")[a].transform("size").to_numpy(float)
    share = 1 / size / len(set(groups))
    difference = cells[a].to_numpy(float) - cells[b].to_numpy(float)
    value = float(share @ difference)
    variance, fewest = clustered_variance(share * (difference - value), groups, whos if characters else None)
    return _difference(JUDGE_MEAN, value, variance, fewest)


def _by_people(one: Paired, other: Paired, characters: bool) -> Difference:
    """The difference of two prediction-powered means."""
    first, second = human_mean(one, characters), human_mean(other, characters)
    if first.estimate.value is None or second.estimate.value is None:
        return _unknown(LABELLED, "nobody rated an item of both in the groups they share")
    # Both systems answer the same scenarios, so their errors depend on each other: what items add to the difference
    # is summed within a group over both systems, before it is squared.
    influence = np.concatenate([first.influence, -second.influence])
    groups = np.concatenate([one.groups, other.groups])
    who = None
    if characters and one.characters is not None and other.characters is not None:
        who = np.concatenate([one.characters, other.characters])
    fewest = min(first.groups, second.groups)
    variance = labelled_variance(influence, groups, who, fewest)
    return _difference(LABELLED, first.estimate.value - second.estimate.value, variance, fewest)


def _unknown(target: str, reason: str) -> Difference:
    """A difference that cannot be given, and why."""
    return Difference(target, None, None, None, None, 0, None, reason)


def _difference(target: str, value: float, variance: float, fewest: int) -> Difference:
    """A difference with its interval, p value and the number of groups that would settle it."""
    if fewest < MIN_GROUPS:
        reason = f"it rests on {fewest} groups (or characters); an interval needs {MIN_GROUPS}"
        return Difference(target, value, None, None, None, fewest, None, reason)
    if variance <= (TINY * max(1.0, abs(value))) ** 2:
        reason = "it is the same in every group, so there is no spread to judge it by"
        return Difference(target, value, None, None, None, fewest, None, reason)
    interval = student(value, variance, fewest)
    p = 2 * t_chance(-abs(value) / variance**0.5, fewest - 1)
    needed = groups_needed(value, np.sqrt(variance * fewest))
    return Difference(target, value, interval.low, interval.high, p, fewest, needed)


def groups_needed(difference: float, spread: float) -> int | None:
    """How many groups give a chance of .8 that the interval leaves 0 out, at this difference and SD between groups.

    The smallest n with ``(t(.975) + t(.8)) spread / sqrt(n) <= difference``, both on n - 1 degrees of freedom; at least
    eight, for there is no interval under that; None at a difference of 0, or over a billion.
    """

    def enough(number: int) -> bool:
        both = t_quantile(number - 1) + t_quantile(number - 1, POWER)
        return bool(both * spread <= abs(difference) * np.sqrt(number))

    if abs(difference) < TINY or not enough(MOST_NEEDED):
        return None
    # The more groups, the narrower the interval: so the smallest number that is enough is found by bisection.
    return MIN_GROUPS + bisect_left(range(MIN_GROUPS, MOST_NEEDED), True, key=enough)


def rank_ranges(paired: Paired, *, human: bool = False, seed: int = 0) -> pd.DataFrame:
    """The rank of each source and the ranks it may have: all ranges hold at once, at 95%.

    Two sources are told apart where their studentised difference is over the 95% quantile of the greatest of all
    pairs, in 2,000 draws of groups (Romano and Wolf 2005, "Exact and approximate stepdown methods for multiple
    hypothesis testing"; in one step). A source's range goes from 1 + the number of sources told to be above it, to all
    less the number told to be below it.

    Args:
        paired: one metric.
        human: rank by the human (prediction-powered) means, where sources have labels, not by the judge's.
        seed: of the draws.

    Returns:
        Columns source, mean, rank (equal means share the better one), rank_low, rank_high, target, reason; best first,
        and last, without a rank, those with items (or labels) in under eight groups.
    """
    every = {}
    for source, one in by_source(paired):
        rated, weights = (one.human, one.weights) if human else (one.judge, np.ones(len(one.items)))
        found = powered_mean(rated, one.judge, one.groups, weights=weights)
        influence = pd.Series(found.influence).groupby(pd.Index(one.groups)).sum()
        every[source] = _Centred(found.estimate.value, influence, found.groups)
    ranked = {source: one for source, one in every.items() if one.groups >= MIN_GROUPS}
    table = pd.DataFrame({"source": list(every), "mean": [one.mean for one in every.values()]}).astype({"mean": float})
    few = [
        f"only {one.groups} groups have {'labels' if human else 'items'}; a rank needs {MIN_GROUPS}"
        for one in every.values()
    ]
    table["reason"] = ["" if source in ranked else why for source, why in zip(every, few, strict=True)]
    table["target"] = LABELLED if human else JUDGE_MEAN
    ranks = _ranks(ranked, seed).reindex(table["source"]).reset_index(drop=True)
    table = pd.concat([table, ranks], axis=1).sort_values(["rank", "source"], ignore_index=True)
    return table[["source", "mean", "rank", "rank_low", "rank_high", "target", "reason"]]


@dataclass(frozen=True, slots=True)
class _Centred:
    """A source's mean, and what the items of each group add to the error of it."""

    mean: float | None
    influence: pd.Series[float]
    groups: int


def _ranks(sources: dict[str, _Centred], seed: int) -> pd.DataFrame:
    """``rank, rank_low, rank_high`` by source."""
    if not sources:
        return pd.DataFrame(columns=["rank", "rank_low", "rank_high"], dtype="Int64")
    means = pd.Series({name: one.mean for name, one in sources.items()}, dtype=float)
    # A source without items in a group adds nothing to its error there.
    influence = pd.DataFrame({name: one.influence for name, one in sources.items()}).fillna(0.0)
    resampler = Resampler(influence.index.to_numpy(object), seed=seed)
    above = _told_above(np.asarray(means, dtype=float), np.asarray(influence, dtype=float), resampler)
    ranks = {"rank": means.rank(method="min", ascending=False)}
    ranks |= {"rank_low": 1 + above.sum(axis=0), "rank_high": len(means) - above.sum(axis=1)}
    return pd.DataFrame(ranks, index=means.index).astype("Int64")


def _told_above(means: Floats, influence: Floats, resampler: Resampler) -> NDArray[np.bool_]:
    """Whether each source (rows) is told to be above each other one (columns): shape (sources, sources).

    Args:
        means: shape (sources,).
        influence: shape (groups, sources), what each group adds to the error of each mean.
        resampler: of the groups.
    """
    first, second = np.triu_indices(len(means), 1)
    pairs = influence[:, first] - influence[:, second]
    value = means[first] - means[second]
    spread = np.sqrt((pairs**2).sum(axis=0))
    # The greatest studentised error of all pairs in a draw: under its 95% quantile no pair is told apart by chance,
    # however many pairs there are. A pair that differs by the same in every group has no error to draw.
    critical, varying = 0.0, pairs[:, spread > TINY]
    if varying.shape[1]:
        sums, squares = resampler.sums(varying), resampler.sums(varying**2)
        drawn = np.sqrt(np.maximum(squares - sums**2 / len(varying), TINY**2))
        critical = float(np.quantile(np.abs(sums / drawn).max(axis=1), LEVEL))
    told = np.abs(value) > critical * np.maximum(spread, TINY)
    above = np.zeros((len(means), len(means)), dtype=bool)
    above[first, second], above[second, first] = told & (value > 0), told & (value < 0)
    return above
