"""What a reader should know of a pairing, a sentence each: what was left out, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from calibration.matching import MOST_LISTED, level_names, levels_of
from calibration.paired import Paired, Pairing

__all__ = ["remarks"]

ROUNDING = 1e-6


def remarks(pairing: Pairing, ratings: pd.DataFrame, scores: pd.DataFrame) -> Iterator[str]:
    """What to know of two tables beside what became of them."""
    if repeats := int(ratings.duplicated(["item_id", "metric", "annotator"]).sum()):
        yield f"{repeats:,} ratings repeat one by the same annotator; they were averaged."
    if lost := len(pairing.unjudged):
        first = ", ".join(pairing.unjudged["item_id"].drop_duplicates()[:MOST_LISTED])
        yield f"{lost:,} of {len(ratings):,} ratings have no score of the judge (first items: {first})."
    if len(pairing.missing):
        yield f"{len(pairing.missing):,} judgments are missing and left out."
    judged, rated = set(scores["metric"]), set(ratings["metric"])
    if judged - rated:
        yield f"Nobody rated {', '.join(sorted(judged - rated))}."
    if only := judged & rated - set(pairing.metrics):
        yield f"No rated item was judged on {', '.join(sorted(only))}."
    for one in pairing.metrics.values():
        yield from _unused(one, scores[scores["metric"] == one.metric])
        yield from _on_scales(one)


def _unused(one: Paired, scores: pd.DataFrame) -> Iterator[str]:
    """What the scores tell and was not used; ``scores`` has no rows where the metric is a composite."""
    low, high = one.scale
    if len(scores) and one.levels is None and levels_of(scores[scores["score"].notna()]) is not None:
        yield (
            f"On {one.metric} p1..p{len(level_names(scores))} are not the whole scores from {low:g} to {high:g}: they "
            "were not used (name the scale if p1 is not of 1)."
        )
    if "length" in scores and one.lengths is None:
        yield f"On {one.metric} the column 'length' does not hold a number for every item: it was not used."


def _on_scales(one: Paired) -> Iterator[str]:
    """Whether judge and people seem to be on one scale."""
    low, high, known = one.judge.min(), one.judge.max(), one.ratings[np.isfinite(one.ratings)]
    said = f"On {one.metric} the judge's scores ({low:.2f} to {high:.2f})"
    if low > known.max() or high < known.min():
        yield (
            f"{said} and people's ratings ({known.min():g} to {known.max():g}) do not overlap: if they are on "
            "different scales, differences mean nothing; correlations may."
        )
    elif low < one.scale[0] - ROUNDING or high > one.scale[1] + ROUNDING:
        yield (
            f"{said} leave the scale of {one.scale[0]:g} to {one.scale[1]:g}: if they are on another than people's, "
            "differences mean nothing; correlations may."
        )
    if known.min() < one.scale[0] or known.max() > one.scale[1]:
        yield (
            f"On {one.metric} people's ratings ({known.min():g} to {known.max():g}) leave the scale of "
            f"{one.scale[0]:g} to {one.scale[1]:g}."
        )
