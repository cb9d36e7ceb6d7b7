"""Scores before and after a change of what was judged: how far they moved, with intervals over groups.

A judgment that is missing before or after has no change: it is counted, and never taken for 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from calibration.resampling import Labels, clustered_mean

__all__ = ["mean_changes", "score_changes"]

PAIRED_BY = ("item_id", "metric")
RAISED = 1.0
"""From this change on a score counts as raised, or down from its negative as lowered."""
TOP = 4.5
"""From this score on a judgment is at the top of a scale from 1 to 5."""


def score_changes(before: pd.DataFrame, after: pd.DataFrame, on: Sequence[str] = PAIRED_BY) -> pd.DataFrame:
    """Every judgment after the change, with the one before beside it.

    Args:
        before: a row per item and metric: ``item_id, metric, score`` and optionally ``mass``.
        after: the same with any other columns (of what was changed, say), any number of rows per item and metric.
        on: what tells which rows go together.

    Returns:
        The rows of ``after``, in order, with ``before``, ``change`` (after less before; NaN where either is missing)
        and, where both tables have a mass, ``mass_change``.

    Raises:
        ValueError: ``before`` has two rows for one item and metric.
    """
    keys = list(on)
    has_mass = "mass" in before and "mass" in after
    known = before[[*keys, "score", *(["mass"] if has_mass else [])]]
    known = known.rename(columns={"score": "before", "mass": "mass_before"})
    table = after.merge(known, on=keys, how="left", validate="many_to_one")
    table["change"] = table["score"].astype(float) - table["before"].astype(float)
    if has_mass:
        table["mass_change"] = table["mass"].astype(float) - table.pop("mass_before").astype(float)
    return table


def mean_changes(changed: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How far scores moved on the average, for each combination of the columns ``by``, in the order they come.

    Args:
        changed: from ``score_changes``, with the column ``group``: what is resampled together, a scenario, say.
        by: columns, for instance ``["family", "metric"]``.

    Returns:
        The columns ``by``, and of the pairs that have both scores: ``n``; ``groups``; ``before`` and ``after``, mean
        scores; ``change``, the mean change, with its 95% interval over groups ``low, high`` (Student's t, see
        ``resampling.clustered_mean``; missing under eight groups); ``raised`` and ``lowered``, the shares that moved by
        at least 1; ``to_top``, the share of those under 4.5 before that reach it after; ``mass_change``, the mean
        change of the level mass, where the table has one. And ``missing``, the pairs that lack a score.
    """
    rows = [
        {**dict(zip(by, names, strict=True)), **_row(part)}
        for names, part in changed.groupby(list(by), sort=False, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*by, *_row(changed.iloc[:0])] if not rows else None)


def _row(part: pd.DataFrame) -> dict[str, float | int | None]:
    known = part[part["change"].notna()]
    change = known["change"].to_numpy(float)
    groups: Labels = known["group"].astype(str).to_numpy(dtype=object)
    mean = clustered_mean(change, groups)
    below = known[known["before"] < TOP]
    masses = {"mass_change": _mean(known["mass_change"].to_numpy(float))} if "mass_change" in part else {}
    return {
        "n": len(known),
        "groups": len(set(groups)),
        "before": _mean(known["before"].to_numpy(float)),
        "after": _mean(known["score"].to_numpy(float)),
        "change": mean.value,
        "low": mean.low,
        "high": mean.high,
        "raised": _mean(change >= RAISED),
        "lowered": _mean(change <= -RAISED),
        "to_top": _mean(below["score"].to_numpy(float) >= TOP),
        **masses,
        "missing": len(part) - len(known),
    }


def _mean(values: np.ndarray) -> float | None:
    """The mean; None of nothing."""
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return float(known.mean()) if len(known) else None
