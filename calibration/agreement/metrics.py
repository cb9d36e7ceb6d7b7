"""Agreement of a judge with human ratings on one metric, between metrics, and with published means of systems.

All of it works on a ``Paired`` or on tables of means. It knows nothing of how good annotators are themselves
(``reliability``) and gives no verdict (``assess``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import permutations

import numpy as np
import pandas as pd

from calibration.agreement.single_ratings import agreement_of_people, agreement_with_constant, agreement_with_ratings
from calibration.pairing import Paired
from calibration.stats.correlation import (
    ASSOCIATIONS,
    CONSTANT,
    MIN_CORRELATED,
    association,
    associations_by_row,
    pearson,
    spearman,
    within_groups,
)
from calibration.stats.intervals import Estimate, Floats, Resampler, clustered_mean, codes

Estimates = dict[str, Estimate]


STRATA = {"the same rating": (0.0, 0.0), "at most one apart": (1e-9, 1.0), "more than one apart": (1.0 + 1e-9, np.inf)}
"""Items by how far apart their highest and lowest ratings are, in points of the scale."""


STRATA_COLUMNS = ["people", "items", "bias", "mae", "spearman"]


MOST_PERMUTED = 8
"""With more systems than this the permutations are too many to list."""


# One metric


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a judge agrees with human ratings on one metric."""

    metric: str
    items: int
    groups: int
    sources: int
    """How many systems."""
    scale: tuple[float, float]
    """Lowest and highest score."""
    step: float | None
    """How far apart neighbouring scores are, by the ratings; None where they lie in no even steps."""
    off_step: int
    """How many ratings lie between the steps, and are left out of comparisons with single ratings."""
    judge: Estimates
    """Over items. With each rating: ``exact, within_one, qwk, rps, log_loss``. With the mean rating of an item:
    ``bias, mae, rmse, pearson, spearman, kendall, pairwise_accuracy``. Differences are in points of the scale."""
    constant: Estimates
    """The same of the constant predictor, which has no correlation and a kappa of 0."""
    people: Estimates
    """``exact, within_one, qwk`` of one annotator with another."""
    within: Estimates
    """The measures of association within each group, averaged over groups; each group counts the same."""
    systems: Estimates
    """The measures of association over the systems' means."""
    strata: pd.DataFrame = field(repr=False)
    """``people, items, bias, mae, spearman``: by how far apart the ratings of an item are."""
    length: Estimates = field(default_factory=dict)
    """Spearman with length: ``judge``, ``people`` (the mean rating), and ``partial``: of both, given length."""
    is_nominal: bool = False
    """Whether scores are names of kinds; then ``judge`` and ``people`` also have ``kappa``, Cohen's (1960)."""


def agreement(paired: Paired, *, characters: bool = False, seed: int = 0) -> Agreement:
    """Every measure of agreement on one metric.

    Args:
        paired: the metric; at least one item must be rated, and items without ratings are left out.
        characters: intervals that hold for other characters too, not only for other groups.
        seed: random seed of the bootstrap.

    Raises:
        ValueError: no item was rated, or characters are asked for and not known.
    """
    paired = paired.labelled
    if not len(paired.items):
        raise ValueError(f"nobody rated an item on {paired.metric!r}")
    if characters and paired.characters is None:
        raise ValueError("no column 'character' to generalise over; leave it out")
    resampler = Resampler(paired.groups, paired.characters if characters else None, seed=seed)
    mean_rating = np.full(len(paired.items), np.average(paired.human, weights=paired.weights))
    if len(paired.items) < MIN_CORRELATED:
        over_items = dict.fromkeys(ASSOCIATIONS, Estimate(None, reason=f"under {MIN_CORRELATED} items"))
    else:
        over_items = association(paired.judge, paired.human, paired.weights, resampler)
    return Agreement(
        metric=paired.metric,
        items=len(paired.items),
        groups=len(np.unique(paired.groups)),
        sources=len(np.unique(paired.sources)),
        scale=paired.scale,
        step=paired.step,
        off_step=int(paired.off_step.sum()) if paired.step is not None else 0,
        judge={
            **agreement_with_ratings(paired, resampler, characters),
            **_differences(paired, paired.judge, characters),
            **over_items,
        },
        constant={
            **agreement_with_constant(paired, characters),
            **_differences(paired, mean_rating, characters),
        },
        people=agreement_of_people(paired),
        within=_within_groups(paired),
        systems=_over_systems(paired, resampler),
        strata=_by_stratum(paired),
        length=_with_length(paired),
    )


def system_means(paired: Paired) -> pd.DataFrame:
    """The weighted means over the rated items of each system: ``source, items, judge, human``."""
    paired = paired.labelled
    frame = pd.DataFrame({"source": paired.sources, "judge": paired.judge, "human": paired.human, "w": paired.weights})
    sums = frame.assign(judge=frame["judge"] * frame["w"], human=frame["human"] * frame["w"]).groupby("source").sum()
    items = frame.groupby("source").size()
    return pd.DataFrame({"items": items, **{name: sums[name] / sums["w"] for name in ("judge", "human")}}).reset_index()


def _differences(paired: Paired, scores: Floats, characters: bool) -> Estimates:
    """Bias, mean absolute and root mean squared difference from the mean rating."""
    apart = scores - paired.human
    bias, mae, squared = (
        clustered_mean(values, paired.groups, paired.weights, paired.characters if characters else None)
        for values in (apart, np.abs(apart), apart**2)
    )
    # The interval of the root is the root of the interval; its lower end may lie below 0, as it is symmetric.
    value, low, high = (
        None if end is None else max(end, 0.0) ** 0.5 for end in (squared.value, squared.low, squared.high)
    )
    return {"bias": bias, "mae": mae, "rmse": Estimate(value, low, high, squared.reason)}


def _within_groups(paired: Paired) -> Estimates:
    """Association within groups of at least three items, averaged over the groups in which it is defined."""
    group = codes(paired.groups)
    order = np.argsort(group, kind="stable")
    parts = [part for part in np.split(order, np.cumsum(np.bincount(group))[:-1]) if len(part) >= MIN_CORRELATED]
    if not parts:
        return dict.fromkeys(ASSOCIATIONS, Estimate(None, reason=f"no scenario has {MIN_CORRELATED} rated items"))
    found = within_groups(paired.judge, paired.human, paired.weights, parts)
    # Each group is one value of its own, so its label is its place; the interval is over groups as everywhere.
    labels = np.arange(len(parts)).astype(str).astype(object)
    return {
        name: clustered_mean(column, labels)
        if np.isfinite(column).any()
        else Estimate(None, reason="one side is constant within every scenario")
        for name, column in zip(ASSOCIATIONS, found.T, strict=True)
    }


def _over_systems(paired: Paired, resampler: Resampler) -> Estimates:
    """Association over the means of systems, which are computed anew in every draw of groups."""
    source = codes(paired.sources)
    count = int(source.max()) + 1
    if count < MIN_CORRELATED:
        reason = f"{count} rated system(s); give at least {MIN_CORRELATED}"
        return dict.fromkeys(ASSOCIATIONS, Estimate(None, reason=reason))
    # Means are ratios of sums, and sums of a draw are a product with its weights: three columns for each system hold
    # the weight, the weighted scores and the weighted ratings of its items.
    one = np.eye(count)[source] * paired.weights[:, None]
    columns = np.concatenate([one, one * paired.judge[:, None], one * paired.human[:, None]], axis=1)

    def measures(sums: Floats) -> list[Floats]:
        weights, judge, human = np.split(sums, 3, axis=1)
        there = np.where(weights > 0, weights, np.nan)  # a draw that lacks a system has no value
        x, y = np.round(judge / there, 9), np.round(human / there, 9)  # so that equal means are ties
        return associations_by_row(x, y)

    values, draws = measures(columns.sum(axis=0, keepdims=True)), measures(resampler.sums(columns))
    return {
        name: resampler.estimate(float(value[0]), found, "all systems have the same mean")
        for name, value, found in zip(ASSOCIATIONS, values, draws, strict=True)
    }


def _by_stratum(paired: Paired) -> pd.DataFrame:
    """How the judge does where annotators agree and where they do not; items with two ratings or more."""
    several = paired.at(paired.counts > 1)  # with one rating there is nothing to be apart
    ends = [end(several.ratings, axis=1) if len(several.items) else np.zeros(0) for end in (np.nanmin, np.nanmax)]
    rows = []
    for name, (low, high) in STRATA.items():
        part = several.at((ends[1] - ends[0] >= low) & (ends[1] - ends[0] <= high))
        if n := len(part.items):
            apart = part.judge - part.human
            bias, mae = (float(np.average(values, weights=part.weights)) for values in (apart, np.abs(apart)))
            rank = float(spearman(part.judge, part.human, part.weights)) if n >= MIN_CORRELATED else np.nan
            rows.append((name, n, bias, mae, rank))
    return pd.DataFrame(rows, columns=STRATA_COLUMNS)


def _with_length(paired: Paired) -> Estimates:
    """Length as a covariate: the partial correlation is Kendall's (1942) formula on Spearman's coefficients."""
    if paired.lengths is None or len(paired.items) < MIN_CORRELATED:
        return {}
    sides = ((paired.judge, paired.lengths), (paired.human, paired.lengths), (paired.judge, paired.human))
    judge, people, both = (float(spearman(x, y, paired.weights)) for x, y in sides)
    rest = (1 - judge**2) * (1 - people**2)
    is_known = rest > 1e-12  # below, a side is a function of length, up to rounding; NaN if one is constant
    partial = (both - judge * people) / np.sqrt(rest) if is_known else np.nan
    reason = "one side goes with length in full" if rest <= 1e-12 else CONSTANT
    values = {"judge": judge, "people": people, "partial": float(partial)}
    return {n: Estimate(v) if np.isfinite(v) else Estimate(None, reason=reason) for n, v in values.items()}


# Between metrics


@dataclass(frozen=True, slots=True)
class Discriminant:
    """The multitrait matrix of judge and annotators (Campbell and Fiske 1959): Spearman's correlations over items."""

    matrix: pd.DataFrame
    """Judge's metrics by metrics of human ratings; NaN where under three items have both, or one side is constant."""
    own_is_highest: float | None
    """The share of the judge's metrics that correlate with human ratings of the same metric more than of any other."""
    judge_halo: float | None
    """The mean correlation among the judge's metrics."""
    human_halo: float | None
    """The mean correlation among metrics of human ratings."""


def discriminant_validity(metrics: Mapping[str, Paired]) -> Discriminant | None:
    """The multitrait matrix over rated items; None for a single metric, which has no other to be told from."""
    rated = {name: paired.labelled for name, paired in metrics.items()}
    if len(rated) < 2:
        return None
    judge = pd.DataFrame({name: pd.Series(one.judge, one.items) for name, one in rated.items()})
    human = pd.DataFrame({name: pd.Series(one.human, one.items) for name, one in rated.items()})
    # An item's weight may differ between metrics, as it may be drawn with another chance on each.
    weights = pd.DataFrame({name: pd.Series(one.weights, one.items) for name, one in rated.items()}).max(axis=1)

    def correlation(x: pd.Series[float], y: pd.Series[float]) -> float:
        both = (x.notna() & y.notna()).to_numpy()
        if both.sum() < MIN_CORRELATED:
            return math.nan
        return float(spearman(*(np.asarray(column, dtype=np.float64)[both] for column in (x, y, weights))))

    matrix, among_judge, among_human = (
        pd.DataFrame([[correlation(rows[x], columns[y]) for y in columns] for x in rows], list(rows), list(columns))
        for rows, columns in ((judge, human), (judge, judge), (human, human))
    )
    known = {str(name): row.dropna() for name, row in matrix.iterrows()}
    highest = [row[name] > row.drop(name).max() for name, row in known.items() if name in row.index and len(row) > 1]
    others = [table.to_numpy()[~np.eye(len(rated), dtype=bool)] for table in (among_judge, among_human)]
    halo = [float(np.nanmean(values)) if np.isfinite(values).any() else None for values in others]
    return Discriminant(matrix, float(np.mean(highest)) if highest else None, *halo)


# With published means


def chatanime_means() -> pd.DataFrame:
    """The published means of ChatAnime's ratings: ``source, metric, mean, tolerance``; 6 systems, 10 metrics."""
    with (files("calibration") / "reference" / "chatanime_means.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def agreement_with_published(means: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Agreement of a judge's system means with published ones, where no single rating was published.

    A figure that was read off a chart is known to a tolerance only. So only those pairs of systems are counted whose
    published means differ by more than both tolerances together: they are ``decided``.

    Args:
        means: ``source, metric, mean`` of the judge; NaN where it has none.
        published: ``source, metric, mean, tolerance``.

    Returns:
        ``metric, sources, pairs, decided, alike, accuracy, p_value, spearman, pearson``, one metric a row. ``alike``
        are the decided pairs in the judge's order too (a tie of the judge counts half). ``p_value`` is exact and
        one-sided: the share of all permutations of the judge's means that do as well or better. It is NaN with no
        decided pair, for a judge whose means are all the same, and with over eight systems.
    """
    both = published.merge(means.dropna(subset="mean"), on=["source", "metric"], suffixes=("", "_judge"))
    rows = []
    for metric, table in both.groupby("metric", sort=False):
        human, judge, tolerance = (table[name].to_numpy(float) for name in ("mean", "mean_judge", "tolerance"))
        count, ones = len(human), np.ones(len(human))
        if count < MIN_CORRELATED:
            continue
        first, second = np.triu_indices(count, 1)
        apart = human[first] - human[second]
        decided = np.abs(apart) > tolerance[first] + tolerance[second] + 1e-9
        first, second, apart = first[decided], second[decided], apart[decided]
        # All orders of the systems at once, the judge's own first: shape (orders, systems). Too many are not tried.
        is_known = len(first) > 0 and np.ptp(judge) > 0 and count <= MOST_PERMUTED
        means = judge[np.array(list(permutations(range(count))) if is_known else [range(count)])]
        alike = (np.sign(means[:, first] - means[:, second]) * np.sign(apart) + 1).sum(axis=1) / 2
        found = float(alike[0])
        rows.append(
            {
                "metric": metric,
                "sources": count,
                "pairs": math.comb(count, 2),
                "decided": len(first),
                "alike": found,
                "accuracy": found / len(first) if len(first) else math.nan,
                "p_value": float(np.mean(alike >= found)) if is_known else math.nan,
                "spearman": float(spearman(judge, human, ones)),
                "pearson": float(pearson(judge, human, ones)),
            }
        )
    columns = ["metric", "sources", "pairs", "decided", "alike", "accuracy", "p_value", "spearman", "pearson"]
    return pd.DataFrame(rows, columns=columns)
