"""Agreement with published means of systems, where no single rating was published.

A figure that was read off a chart is known to a tolerance only. So only the pairs of sources that this tolerance can
decide are counted, and the p-value is exact: over all ways to hand the judge's means to the sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import permutations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.agreement.single_ratings import agreement_of_people, agreement_with_constant, agreement_with_ratings
from calibration.pairing import Paired
from calibration.stats.correlation import (
    ASSOCIATIONS,
    CONSTANT,
    association,
    pearson,
    spearman,
    tau_and_accuracy,
    within_groups,
)
from calibration.stats.intervals import Estimate, Floats, Resampler, clustered_mean, codes

Estimates = dict[str, Estimate]


MIN_SYSTEMS = 3
"""Under so many sources a correlation over systems says nothing."""


MIN_ITEMS = 3


ROUNDING = 1e-12


STRATA = {"the same rating": (0.0, 0.0), "at most one apart": (1e-9, 1.0), "more than one apart": (1.0 + 1e-9, np.inf)}
"""Items by how far apart their highest and lowest ratings are."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge beside people on one metric."""

    metric: str
    items: int
    groups: int
    sources: int
    judge: Estimates
    """Over items: against each rating ``exact, within_one, qwk, rps, log_loss``; against the mean rating of an item
    ``bias, mae, rmse, pearson, spearman, kendall, pairwise_accuracy``. Differences are in points of the scale."""
    constant: Estimates
    """The same of the constant predictor, which has no correlation and a kappa of 0."""
    people: Estimates
    """``exact, within_one, qwk`` of one person with another."""
    within: Estimates
    """The measures of association, within each group, then averaged over groups, which count alike."""
    systems: Estimates
    """The measures of association over the sources' means."""
    strata: pd.DataFrame = field(repr=False)
    """``people, items, bias, mae, spearman``: by how far people are apart."""
    length: Estimates = field(default_factory=dict)
    """Spearman with length: ``judge``, ``people``, and ``partial``, that of judge and people given length."""


def agreement(paired: Paired, *, characters: bool = False, seed: int = 0) -> Agreement:
    """Every measure of agreement on one metric.

    Args:
        paired: rated items, at least one; others are left out.
        characters: generalise over characters too, not over groups only.
        seed: of the bootstrap.

    Raises:
        ValueError: no item was rated, or characters are asked for and not known.
    """
    paired = paired.labelled
    if not len(paired.items):
        raise ValueError(f"nobody rated an item on {paired.metric!r}")
    if characters and paired.characters is None:
        raise ValueError("no column 'character' to generalise over; leave it out")
    resampler = Resampler(paired.groups, paired.characters if characters else None, seed=seed)
    return Agreement(
        metric=paired.metric,
        items=len(paired.items),
        groups=len(np.unique(paired.groups)),
        sources=len(np.unique(paired.sources)),
        judge={
            **agreement_with_ratings(paired, resampler, characters),
            **_differences(paired, paired.judge, characters),
            **_associations(paired, resampler),
        },
        constant={
            **agreement_with_constant(paired, characters),
            **_differences(paired, _constant(paired), characters),
        },
        people=agreement_of_people(paired),
        within=_within(paired),
        systems=_systems(paired, resampler),
        strata=_strata(paired),
        length=_length(paired),
    )


def system_means(paired: Paired) -> pd.DataFrame:
    """The mean of judge and people over the rated items of each source: ``source, items, judge, human``."""
    paired = paired.labelled
    frame = pd.DataFrame({"source": paired.sources, "judge": paired.judge, "human": paired.human, "w": paired.weights})
    sums = frame.assign(judge=frame["judge"] * frame["w"], human=frame["human"] * frame["w"]).groupby("source").sum()
    items = frame.groupby("source").size()
    return pd.DataFrame({"items": items, **{name: sums[name] / sums["w"] for name in ("judge", "human")}}).reset_index()


def _constant(paired: Paired) -> Floats:
    return np.full(len(paired.items), np.average(paired.human, weights=paired.weights))


def _differences(paired: Paired, scores: Floats, characters: bool) -> Estimates:
    """Bias, mean absolute and root mean squared difference from the mean rating."""
    apart = scores - paired.human
    bias, mae, squared = (
        clustered_mean(values, paired.groups, paired.weights, paired.characters if characters else None)
        for values in (apart, np.abs(apart), apart**2)
    )
    return {"bias": bias, "mae": mae, "rmse": _root(squared)}


def _root(squared: Estimate) -> Estimate:
    """The root of a mean of squares, and of the ends of its interval."""
    value, low, high = (
        None if end is None else max(end, 0.0) ** 0.5 for end in (squared.value, squared.low, squared.high)
    )
    return Estimate(value, low, high, squared.reason)


def _associations(paired: Paired, resampler: Resampler) -> Estimates:
    if len(paired.items) < MIN_ITEMS:
        return dict.fromkeys(ASSOCIATIONS, Estimate(None, reason=f"under {MIN_ITEMS} items"))
    return association(paired.judge, paired.human, paired.weights, resampler)


def _within(paired: Paired) -> Estimates:
    """Association within groups of at least three items, averaged over the groups for which it is defined."""
    group = codes(paired.groups)
    order = np.argsort(group, kind="stable")
    parts = [part for part in np.split(order, np.cumsum(np.bincount(group))[:-1]) if len(part) >= MIN_ITEMS]
    if not parts:
        return dict.fromkeys(ASSOCIATIONS, Estimate(None, reason=f"no scenario has {MIN_ITEMS} rated items"))
    found = within_groups(paired.judge, paired.human, paired.weights, parts)
    labels = np.arange(len(parts)).astype(str).astype(object)
    return {
        name: clustered_mean(column, labels)
        if np.isfinite(column).any()
        else Estimate(None, reason="one side is constant within every scenario")
        for name, column in zip(ASSOCIATIONS, found.T, strict=True)
    }


def _systems(paired: Paired, resampler: Resampler) -> Estimates:
    """Association over the means of sources, which are computed anew in every draw of groups."""
    source = codes(paired.sources)
    count = int(source.max()) + 1
    if count < MIN_SYSTEMS:
        return dict.fromkeys(
            ASSOCIATIONS, Estimate(None, reason=f"{count} rated source(s); give at least {MIN_SYSTEMS}")
        )
    one = np.eye(count)[source] * paired.weights[:, None]
    columns = np.concatenate([one, one * paired.judge[:, None], one * paired.human[:, None]], axis=1)
    values = _over_systems(columns.sum(axis=0, keepdims=True), count)
    draws = _over_systems(resampler.sums(columns), count)
    return {
        name: resampler.estimate(float(value[0]), found, "all sources have the same mean")
        for name, value, found in zip(ASSOCIATIONS, values, draws, strict=True)
    }


def _over_systems(sums: Floats, count: int) -> list[Floats]:
    """Each measure from sums of weights, judge and people by source, shape (draws, 3 x sources)."""
    weights, judge, human = np.split(sums, 3, axis=1)
    there = np.where(weights > 0, weights, np.nan)
    x, y = np.round(judge / there, 9), np.round(human / there, 9)  # so that equal means are ties
    ones = np.ones(count)
    ranks_x, ranks_y = ((np.sign(a[:, :, None] - a[:, None, :])).sum(axis=2) for a in (x, y))
    return [pearson(x, y, ones), pearson(ranks_x, ranks_y, ones), *tau_and_accuracy(x, y, ones)]


def _strata(paired: Paired) -> pd.DataFrame:
    """How the judge does where people agree and where they do not; items with two ratings or more."""
    several = paired.at(paired.counts > 1)
    apart = (
        np.nanmax(several.ratings, axis=1) - np.nanmin(several.ratings, axis=1) if len(several.items) else np.zeros(0)
    )
    rows = []
    for name, (low, high) in STRATA.items():
        part = several.at((apart >= low) & (apart <= high))
        if len(part.items):
            rows.append({"people": name, "items": len(part.items), **_stratum(part)})
    return pd.DataFrame(rows, columns=["people", "items", "bias", "mae", "spearman"])


def _stratum(part: Paired) -> dict[str, float]:
    apart = part.judge - part.human
    return {
        "bias": float(np.average(apart, weights=part.weights)),
        "mae": float(np.average(np.abs(apart), weights=part.weights)),
        "spearman": float(spearman(part.judge, part.human, part.weights)) if len(part.items) >= MIN_ITEMS else np.nan,
    }


def _length(paired: Paired) -> Estimates:
    """Length as a covariate: the partial correlation is Kendall's (1942) formula on Spearman's coefficients."""
    if paired.lengths is None or len(paired.items) < MIN_ITEMS:
        return {}
    sides = {
        "judge": (paired.judge, paired.lengths),
        "people": (paired.human, paired.lengths),
        "both": (paired.judge, paired.human),
    }
    found = {name: float(spearman(x, y, paired.weights)) for name, (x, y) in sides.items()}
    rest = (1 - found["judge"] ** 2) * (1 - found["people"] ** 2)
    partial = (found["both"] - found["judge"] * found["people"]) / np.sqrt(rest) if rest > ROUNDING else np.nan
    values = {"judge": found["judge"], "people": found["people"], "partial": float(partial)}
    reason = "one side goes with length in full" if rest <= ROUNDING else CONSTANT
    return {n: Estimate(v) if np.isfinite(v) else Estimate(None, reason=reason) for n, v in values.items()}


MIN_DISCRIMINANT_ITEMS = 3


@dataclass(frozen=True, slots=True)
class Discriminant:
    """The multitrait matrix of a judge and people (Campbell and Fiske 1959), in Spearman correlations over items."""

    matrix: pd.DataFrame
    """Judge's metrics by people's metrics; NaN where under three items have both or one side is constant."""
    own_is_highest: float | None
    """The share of the judge's metrics that go with people's same metric more than with any other."""
    judge_halo: float | None
    """The mean correlation among the judge's metrics."""
    human_halo: float | None
    """That among people's."""


def discriminant_validity(metrics: Mapping[str, Paired]) -> Discriminant | None:
    """The matrix over rated items; None for a single metric, which has nothing to be told from."""
    rated = {name: paired.labelled for name, paired in metrics.items()}
    if len(rated) < 2:
        return None
    judge = pd.DataFrame({name: pd.Series(one.judge, one.items) for name, one in rated.items()})
    human = pd.DataFrame({name: pd.Series(one.human, one.items) for name, one in rated.items()})
    weights = pd.DataFrame({name: pd.Series(one.weights, one.items) for name, one in rated.items()}).max(axis=1)
    matrix = _matrix(judge, human, weights)
    return Discriminant(matrix, _own_is_highest(matrix), *(_halo(_matrix(one, one, weights)) for one in (judge, human)))


def _matrix(rows: pd.DataFrame, columns: pd.DataFrame, weights: pd.Series[float]) -> pd.DataFrame:
    cells = [[_correlation(rows[row], columns[column], weights) for column in columns] for row in rows]
    return pd.DataFrame(cells, index=list(rows), columns=list(columns))


def _correlation(x: pd.Series[float], y: pd.Series[float], weights: pd.Series[float]) -> float:
    both = (x.notna() & y.notna()).to_numpy()
    if both.sum() < MIN_DISCRIMINANT_ITEMS:
        return float("nan")
    return float(spearman(*(_floats(one)[both] for one in (x, y, weights))))


def _floats(column: pd.Series[float]) -> Floats:
    return np.asarray(column, dtype=float)


def _own_is_highest(matrix: pd.DataFrame) -> float | None:
    """Over the metrics that can be compared with their own and with another."""
    rows = {str(name): row.dropna() for name, row in matrix.iterrows()}
    told = [row[name] > row.drop(name).max() for name, row in rows.items() if name in row.index and len(row) > 1]
    return float(np.mean(told)) if told else None


def _halo(matrix: pd.DataFrame) -> float | None:
    others = matrix.to_numpy()[~np.eye(len(matrix), dtype=bool)]
    return float(np.nanmean(others)) if np.isfinite(others).any() else None


MIN_SOURCES = 3


MOST_PERMUTED = 8
"""Of more sources than this the permutations are too many to list."""


def chatanime_means() -> pd.DataFrame:
    """What is published of ChatAnime's ratings: ``source, metric, mean, tolerance``; 6 sources, 10 metrics."""
    with (files("calibration") / "reference" / "chatanime_means.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def agreement_with_published(means: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """A judge's system means beside published ones, a row a metric.

    Args:
        means: ``source, metric, mean`` of the judge; NaN where it has none.
        published: ``source, metric, mean, tolerance``; a pair is decided where two means differ by more than the
            tolerances of both together.

    Returns:
        ``metric, sources, pairs, decided, alike, accuracy, p_value, spearman, pearson``: of the ``decided`` pairs,
        ``alike`` are in the judge's order too (a tie of the judge's counts half). ``p_value`` is the share of all
        permutations of the judge's means that do as well or better, so one-sided and exact; NaN with no decided pair, a
        judge that gives all the same, or over eight sources.
    """
    both = published.merge(means.dropna(subset="mean"), on=["source", "metric"], suffixes=("", "_judge"))
    tables = [(metric, table) for metric, table in both.groupby("metric", sort=False) if len(table) >= MIN_SOURCES]
    columns = ["metric", "sources", "pairs", "decided", "alike", "accuracy", "p_value", "spearman", "pearson"]
    return pd.DataFrame([{"metric": metric, **_metric(table)} for metric, table in tables], columns=columns)


def _metric(table: pd.DataFrame) -> dict[str, float]:
    human, judge, tolerance = (table[name].to_numpy(float) for name in ("mean", "mean_judge", "tolerance"))
    first, second = np.triu_indices(len(human), 1)
    decided = np.abs(human[first] - human[second]) > tolerance[first] + tolerance[second] + 1e-9
    pairs = first[decided], second[decided]
    alike, ones = _alike(judge, human, *pairs), np.ones(len(human))
    return {
        "sources": len(human),
        "pairs": math.comb(len(human), 2),
        "decided": len(pairs[0]),
        "alike": alike,
        "accuracy": alike / len(pairs[0]) if len(pairs[0]) else math.nan,
        "p_value": _p_value(judge, human, alike, *pairs),
        "spearman": float(spearman(judge, human, ones)),
        "pearson": float(pearson(judge, human, ones)),
    }


def _alike(judge: Floats, human: Floats, first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    same = np.sign(judge[first] - judge[second]) * np.sign(human[first] - human[second])
    return float((same + 1).sum() / 2)


def _p_value(judge: Floats, human: Floats, alike: float, first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    if not len(first) or np.ptp(judge) == 0 or len(judge) > MOST_PERMUTED:
        return math.nan
    found = [_alike(judge[list(order)], human, first, second) for order in permutations(range(len(judge)))]
    return float(np.mean(np.array(found) >= alike))
