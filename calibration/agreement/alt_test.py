"""The alternative annotator test: may the judge stand in for one of the annotators?

Each annotator in turn is left out, and on every item the judge and the one left out are compared with the rest: who is
nearer to them wins, and on a tie both do. The judge beats an annotator if it loses to them by less than epsilon, which
is what its being cheap is worth; it passes if it beats half of them or more (Calderon, Reichart and Dror 2025, "The
Alternative Annotator Test for LLM-as-a-Judge", arXiv 2501.10970, section 3). The authors take items for independent;
beside their p-values are those that allow for groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from calibration.pairing import MOST_LISTED, Paired
from calibration.stats.intervals import MIN_GROUPS, Floats, Labels, codes

Scoring = Literal["rmse", "accuracy"]


EPSILON = {"expert": 0.2, "skilled": 0.15, "crowd": 0.1}
"""What a judge may lose by, by kind of annotators (section 3.4 of the paper)."""


PASS = 0.5
"""The winning rate from which a judge passes."""


ROUNDING = 1e-9
"""Alignments that differ by less are a tie: sums of the same numbers differ by rounding."""


COLUMNS: dict[str, Literal["object", "int64", "float64", "boolean"]] = {
    "annotator": "object",
    "items": "int64",
    "advantage_probability": "float64",
    "human_advantage_probability": "float64",
    "p_value": "float64",
    "rejected": "boolean",
    "p_value_by_group": "float64",
    "rejected_by_group": "boolean",
}


@dataclass(frozen=True, slots=True)
class AltTest:
    """The test's outcome on one metric; None where it was refused, for the ``reason``."""

    metric: str
    winning_rate: float | None
    """The share of annotators whom the judge beats."""
    advantage_probability: float | None
    """How often the judge is as near to the rest as the annotator left out, or nearer: a mean over annotators."""
    passed: bool | None
    epsilon: float
    scoring: str
    by_annotator: pd.DataFrame
    """annotator, items, advantage_probability (the judge's), human_advantage_probability, p_value, rejected (that the
    judge is worse by epsilon or more: the judge beats them), and p_value_by_group and rejected_by_group, where items of
    a group are not taken for independent. NaN and NA for annotators who were skipped.
    """
    winning_rate_by_group: float | None
    """As ``winning_rate``, by the p-values that allow for groups; None where nobody rated 8 groups."""
    reason: str | None
    """Why the test was refused, in words that end a sentence."""
    remarks: tuple[str, ...] = ()
    """What a reader should know, a sentence each."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The judge and one annotator, on the items that somebody else rated too; arrays have shape (items,)."""

    wins: NDArray[np.bool_]
    """Whether the judge is as near to the others as the annotator, or nearer."""
    losses: NDArray[np.bool_]
    """Whether the annotator is as near as the judge, or nearer."""
    others: NDArray[np.intp]
    """How many others rated the item."""
    groups: Labels
    weights: Floats


def alternative_annotator_test(
    paired: Paired,
    *,
    scoring: Scoring = "rmse",
    epsilon: float | None = None,
    kind: Literal["expert", "skilled", "crowd"] = "expert",
    raters: Literal["people", "slots"] = "people",
    q: float = 0.05,
    min_items: int = 30,
) -> AltTest:
    """Test a judge against the annotators of one metric.

    Args:
        paired: the metric. Items count by their weight.
        scoring: "rmse" (the negative of it, from the others' ratings) or "accuracy" (how many of the others gave the
            same score; the judge's is rounded to whole scores of the scale, half up).
        epsilon: what the judge may lose by; by default that of the ``kind`` of annotators.
        raters: "slots" is refused: a slot is nobody to stand in for.
        q: the false discovery rate over annotators (Benjamini and Yekutieli 2001).
        min_items: an annotator who has fewer items that another rated too is skipped. The test is refused where that is
            everyone, and where nobody has as many that two others rated: with one other it would only say which of the
            two people the judge is more like.

    Raises:
        ValueError: ``min_items`` is under 2.
    """
    if min_items < 2:
        raise ValueError(f"min_items is {min_items}; give 2 or more")
    epsilon = EPSILON[kind] if epsilon is None else epsilon
    active = np.flatnonzero(np.isfinite(paired.ratings).any(axis=0))
    compared = {paired.annotators[column]: _compared(paired, int(column), scoring) for column in active}
    reason = _refusal(compared, raters, min_items)
    if reason is not None:
        return AltTest(paired.metric, None, None, None, epsilon, scoring, _table([]), None, reason)
    table = _by_annotator(compared, epsilon, q, min_items)
    rate = float(table["rejected"].mean())
    by_group = table["rejected_by_group"].dropna()
    return AltTest(
        metric=paired.metric,
        winning_rate=rate,
        advantage_probability=float(table["advantage_probability"].mean()),
        passed=rate >= PASS,
        epsilon=epsilon,
        scoring=scoring,
        by_annotator=table,
        winning_rate_by_group=float(by_group.mean()) if len(by_group) else None,
        reason=None,
        remarks=tuple(_remarks(table, compared, min_items)),
    )


# Who is nearer to the others


def _compared(paired: Paired, column: int, scoring: Scoring) -> _Comparison:
    """The judge beside the annotator in a column of the ratings."""
    items = paired.at(np.isfinite(paired.ratings[:, column]) & (paired.counts > 1))
    others = np.delete(items.ratings, column, axis=1)
    judge = _rounded(items.judge, items.scale) if scoring == "accuracy" else items.judge
    of_judge, of_person = _alignment(judge, others, scoring), _alignment(items.ratings[:, column], others, scoring)
    return _Comparison(
        wins=of_judge >= of_person - ROUNDING,
        losses=of_person >= of_judge - ROUNDING,
        others=np.isfinite(others).sum(axis=1),
        groups=items.groups,
        weights=items.weights,
    )


def _alignment(scores: Floats, others: Floats, scoring: Scoring) -> Floats:
    """How near scores, shape (items,), are to ratings, shape (items, others): higher is nearer."""
    known = np.isfinite(others)
    count = known.sum(axis=1)
    apart = np.where(known, others - scores[:, None], np.inf)
    if scoring == "accuracy":
        return np.asarray((apart == 0).sum(axis=1) / count)
    return np.asarray(-np.sqrt((np.where(known, apart, 0.0) ** 2).sum(axis=1) / count))


def _rounded(scores: Floats, scale: tuple[float, float]) -> Floats:
    """Whole scores of the scale, half up."""
    return np.clip(np.floor(scores + 0.5), *scale)


# Who is beaten


def _by_annotator(compared: dict[str, _Comparison], epsilon: float, q: float, min_items: int) -> pd.DataFrame:
    """A row for each annotator, as ``AltTest.by_annotator``."""
    rows = []
    for name, one in compared.items():
        row = {"annotator": name, "items": len(one.wins)}
        if len(one.wins) >= min_items:
            losing = one.losses.astype(float) - one.wins
            row |= {
                "advantage_probability": np.average(one.wins, weights=one.weights),
                "human_advantage_probability": np.average(one.losses, weights=one.weights),
                "p_value": _p_value(losing, one.weights, np.arange(len(losing)), epsilon),
                "p_value_by_group": _p_value_by_group(losing, one.weights, one.groups, epsilon),
            }
        rows.append(row)
    table = _table(rows)
    for which in ("", "_by_group"):
        table[f"rejected{which}"] = _rejected(table[f"p_value{which}"], q)
    return table


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _p_value_by_group(losing: Floats, weights: Floats, groups: Labels, epsilon: float) -> float:
    """As ``_p_value``; NaN where there are too few groups."""
    cluster = codes(groups)
    return _p_value(losing, weights, cluster, epsilon) if cluster.max() + 1 >= MIN_GROUPS else float("nan")


def _p_value(losing: Floats, weights: Floats, cluster: NDArray[np.intp], epsilon: float) -> float:
    """Student's one-sided t test that the mean of ``losing`` is under epsilon, with independent clusters.

    The variance is that of the linearised weighted mean, as in ``resampling.clustered_mean``: with each item a cluster
    it is the authors' test, with clusters of one size the test of their means. Degrees of freedom: clusters - 1.
    """
    mean = float(np.average(losing, weights=weights))
    sums = np.bincount(cluster, weights * (losing - mean) / weights.sum())
    k = len(sums)
    error = float((sums**2).sum() * k / (k - 1)) ** 0.5
    if error < ROUNDING:
        return 0.0 if mean < epsilon else 1.0
    return float(stats.t.cdf((mean - epsilon) / error, k - 1))


def _rejected(p_values: pd.Series, q: float) -> pd.Series:
    """Which hypotheses fall at a false discovery rate of q, whatever their dependence; NA without a p-value."""
    known = p_values.notna()
    rejected = pd.Series(pd.NA, index=p_values.index, dtype="boolean")
    if known.any():
        rejected[known] = stats.false_discovery_control(p_values[known], method="by") <= q
    return rejected


# What to say


def _refusal(compared: dict[str, _Comparison], raters: str, min_items: int) -> str | None:
    """Why there can be no test; None where there can."""
    if raters == "slots":
        return "the raters are slots that different persons fill, so that there is nobody to stand in for"
    if len(compared) < 2:
        return "one person rated" if compared else "nobody rated"
    most = max(len(one.wins) for one in compared.values())
    if most < min_items:
        return f"nobody rated {min_items} items that another rated too (at most {most})"
    most = max(int((one.others > 1).sum()) for one in compared.values() if len(one.wins) >= min_items)
    if most < min_items:
        return f"nobody rated {min_items} items that two others rated too (at most {most})"
    return None


def _remarks(table: pd.DataFrame, compared: dict[str, _Comparison], min_items: int) -> list[str]:
    remarks = []
    skipped = table["p_value"].isna()
    if skipped.any():
        remarks.append(f"Skipped, with fewer than {min_items} items that another rated too: {_names(table[skipped])}.")
    few = table["p_value_by_group"].isna() & ~skipped
    if few.any():
        remarks.append(f"No p-value by group, with fewer than {MIN_GROUPS} groups: {_names(table[few])}.")
    alone = sum(int((one.others == 1).sum()) for one in compared.values())
    if alone:
        total = sum(len(one.wins) for one in compared.values())
        remarks.append(f"{alone:,} of {total:,} comparisons are with one other person only.")
    return remarks


def _names(rows: pd.DataFrame) -> str:
    """The annotators of some rows, the first few by name."""
    names = list(rows["annotator"])
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
