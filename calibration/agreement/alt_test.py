"""The alternative annotator test: may the judge stand in for one of the annotators?

Each annotator in turn is left out. On every item the judge and the one left out are compared with the other annotators:
who is nearer to them wins, and on a tie both do. The judge beats an annotator if it loses to them by less than epsilon,
which is what its being cheap is worth. It passes if it beats half of them or more (Calderon, Reichart and Dror 2025,
"The Alternative Annotator Test for LLM-as-a-Judge", arXiv 2501.10970, section 3). The authors take items to be
independent; beside their p-values stand some that allow for groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from calibration.pairing import MOST_LISTED, Paired
from calibration.stats.intervals import MIN_GROUPS, Floats, Labels, clustered_variance, t_chance

Scoring = Literal["rmse", "accuracy"]


EPSILON = {"expert": 0.2, "skilled": 0.15, "crowd": 0.1}
"""What a judge may lose by, for each kind of annotators (section 3.4 of the paper): a difference of win rates."""


PASS = 0.5
"""The winning rate from which a judge passes."""


MIN_ITEMS = 30
"""Items that an annotator must have rated beside others, for the test's normal approximation to hold."""


TIE = 1e-9
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
    """How often the judge is as near to the others as the annotator left out, or nearer: a mean over annotators."""
    passed: bool | None
    epsilon: float
    scoring: str
    by_annotator: pd.DataFrame
    """annotator, items, advantage_probability (the judge's), human_advantage_probability, p_value, and rejected:
    whether it is rejected that the judge is worse by epsilon or more, so that the judge beats the annotator.
    p_value_by_group and rejected_by_group do not take the items of a group to be independent. NaN and NA for an
    annotator who was skipped."""
    winning_rate_by_group: float | None
    """As ``winning_rate``, by the p-values that allow for groups; None where no annotator rated 8 groups."""
    reason: str | None
    """Why the test was refused, in words that end a sentence."""
    remarks: tuple[str, ...] = ()
    """Warnings, a sentence each."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The judge and one annotator on the items that another annotator rated too; arrays have shape (items,)."""

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
    min_items: int = MIN_ITEMS,
) -> AltTest:
    """Test a judge against the annotators of one metric.

    Args:
        paired: the metric. Items count by their weight.
        scoring: "rmse" (the negative of it, from the others' ratings) or "accuracy" (how many of the others gave the
            same score; the judge's is rounded to the scale's steps, half up).
        epsilon: what the judge may lose by; by default that of the ``kind`` of annotators.
        raters: "slots" is refused, as nobody in particular stands behind a slot.
        q: the false discovery rate over annotators (Benjamini and Yekutieli 2001).
        min_items: an annotator who has fewer items that another rated too is skipped. The test is refused where that is
            everyone, and where nobody has as many that two others rated: with one other it would only say which of the
            two annotators the judge is more like.

    Raises:
        ValueError: ``min_items`` is under 2.
    """
    if min_items < 2:
        raise ValueError(f"min_items is {min_items}; give 2 or more")
    epsilon = EPSILON[kind] if epsilon is None else epsilon
    if scoring == "accuracy":
        paired = paired.judged_by(paired.in_steps(paired.judge))  # an expected score would never equal a rating
    item, annotator, _ = paired.one_by_one
    beside_others = paired.counts[item] > 1
    compared = {
        paired.annotators[column]: _compared(paired, int(column), item[beside_others & (annotator == column)], scoring)
        for column in np.unique(annotator)
    }
    reason = _refusal(compared, raters, min_items)
    if reason is not None:
        nothing = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)
        return AltTest(paired.metric, None, None, None, epsilon, scoring, nothing, None, reason)
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
        remarks=tuple(_warnings(table, compared, min_items)),
    )


def _compared(paired: Paired, column: int, rated: NDArray[np.intp], scoring: Scoring) -> _Comparison:
    """The judge beside the annotator in a column of the ratings: which of them is nearer to the others.

    ``rated`` are the places of the annotator's items that others rated too.
    """
    items = paired.at(rated)
    others = np.delete(items.ratings, column, axis=1)
    known = np.isfinite(others)
    count = known.sum(axis=1)

    def alignment(scores: Floats) -> Floats:
        """How near scores, shape (items,), are to the others' ratings: higher is nearer."""
        apart = np.where(known, others - scores[:, None], np.inf)  # a missing rating agrees with no score
        if scoring == "accuracy":
            return np.asarray((np.abs(apart) < TIE).sum(axis=1) / count)
        return np.asarray(-np.sqrt((np.where(known, apart, 0.0) ** 2).sum(axis=1) / count))

    of_judge, of_annotator = alignment(items.judge), alignment(items.ratings[:, column])
    return _Comparison(
        wins=of_judge >= of_annotator - TIE,
        losses=of_annotator >= of_judge - TIE,
        others=count,
        groups=items.groups,
        weights=items.weights,
    )


def _refusal(compared: dict[str, _Comparison], raters: str, min_items: int) -> str | None:
    """Why there can be no test; None where there can."""
    if raters == "slots":
        return "the annotators are slots that different persons fill, so that there is nobody to stand in for"
    if len(compared) < 2:
        return "one annotator rated" if compared else "nobody rated"
    most = max(len(one.wins) for one in compared.values())
    if most < min_items:
        return f"nobody rated {min_items} items that another rated too (at most {most})"
    # With one other annotator only, "nearer to the others" would say which of two the judge is more like.
    most = max(int((one.others > 1).sum()) for one in compared.values() if len(one.wins) >= min_items)
    if most < min_items:
        return f"nobody rated {min_items} items that two others rated too (at most {most})"
    return None


def _by_annotator(compared: dict[str, _Comparison], epsilon: float, q: float, min_items: int) -> pd.DataFrame:
    """A row for each annotator, as ``AltTest.by_annotator``."""
    rows = []
    for name, one in compared.items():
        row = {"annotator": name, "items": len(one.wins)}
        if len(one.wins) >= min_items:
            # 1 where the judge loses, -1 where it wins, 0 on a tie: its mean is what epsilon is held against.
            losing = one.losses.astype(float) - one.wins
            each_its_own = np.arange(len(losing)).astype(str).astype(object)
            enough = len(np.unique(one.groups)) >= MIN_GROUPS
            row |= {
                "advantage_probability": np.average(one.wins, weights=one.weights),
                "human_advantage_probability": np.average(one.losses, weights=one.weights),
                "p_value": _p_value(losing, one.weights, each_its_own, epsilon),
                "p_value_by_group": _p_value(losing, one.weights, one.groups, epsilon) if enough else float("nan"),
            }
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    for which in ("", "_by_group"):
        # Benjamini and Yekutieli's control holds whatever the dependence: all tests share the judge and the items.
        p_values = table[f"p_value{which}"].dropna()
        rejected = pd.Series(pd.NA, index=table.index, dtype="boolean")
        if len(p_values):
            rejected[p_values.index] = stats.false_discovery_control(p_values, method="by") <= q
        table[f"rejected{which}"] = rejected
    return table


def _p_value(losing: Floats, weights: Floats, groups: Labels, epsilon: float) -> float:
    """Student's one-sided t test that the mean of ``losing``, shape (items,), is under epsilon.

    The variance is that of the linearised weighted mean, as in ``clustered_mean``. With each item a group of its own it
    is the authors' test; with groups of one size it is the test of their means. Degrees of freedom: groups - 1.
    """
    mean = float(np.average(losing, weights=weights))
    variance, count = clustered_variance(weights * (losing - mean) / weights.sum(), groups)
    if variance**0.5 < TIE:  # the differences do not vary, so t is infinite
        return 0.0 if mean < epsilon else 1.0
    return t_chance((mean - epsilon) / variance**0.5, count - 1)


def _warnings(table: pd.DataFrame, compared: dict[str, _Comparison], min_items: int) -> list[str]:
    """What a reader has to know of the test: who is not in it, and how thin some of its evidence is."""

    def names(rows: pd.Series) -> str:
        chosen = list(table.loc[rows, "annotator"])
        more = f" and {len(chosen) - MOST_LISTED} more" if len(chosen) > MOST_LISTED else ""
        return ", ".join(chosen[:MOST_LISTED]) + more

    warnings = []
    skipped = table["p_value"].isna()
    if skipped.any():
        warnings.append(f"Skipped, with fewer than {min_items} items that another rated too: {names(skipped)}.")
    few = table["p_value_by_group"].isna() & ~skipped
    if few.any():
        warnings.append(f"No p-value by group, with fewer than {MIN_GROUPS} groups: {names(few)}.")
    alone = sum(int((one.others == 1).sum()) for one in compared.values())
    if alone:
        total = sum(len(one.wins) for one in compared.values())
        warnings.append(f"{alone:,} of {total:,} comparisons are with one other annotator only.")
    return warnings
