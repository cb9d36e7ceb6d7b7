"""The drift check: anchor items kept with a calibration show later whether the judge still scores them the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.pairing import Pairing
from calibration.stats.intervals import codes

Anchor = tuple[str, str, float]
"""An item, a metric, and the judge's score of it."""


MOST_ANCHORS = 50
"""Items that are kept at most."""


TOLERANCE = 0.02
"""A score has moved when it differs by more than this, in points of the scale, or by more than ``SHARE``.

Between engines and batch sizes scores differ by less; with another model, prompt or template by more.
"""


SHARE = 0.005
"""The part of the scale's length that takes the place of ``TOLERANCE`` where it is more: on long scales."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the judge has moved from the scores of a calibration's anchor items."""

    compared: int
    """Judgments compared."""
    absent: int
    """Anchor judgments that were not there to compare."""
    largest: dict[str, float]
    """Metric -> largest absolute difference."""
    mean: dict[str, float]
    moved: bool
    """Whether any score has moved: then the calibration is not for this judge."""


def anchor_of(pairing: Pairing, seed: int = 0) -> list[Anchor]:
    """The judge's scores of up to 50 rated items, as evenly from sources and characters as there are."""
    tables = []
    for one in (paired.labelled for paired in pairing.metrics.values()):
        characters = np.full(len(one.items), "") if one.characters is None else one.characters
        tables.append(pd.DataFrame({"item_id": one.items, "source": one.sources, "character": characters}))
    items = pd.concat(tables).drop_duplicates("item_id").sort_values("item_id", ignore_index=True)
    # Item by item, always from the system that has the fewest so far, and of its items from the character that has the
    # fewest; at random among equals.
    source, character = (codes(items[name].to_numpy(dtype=object)) for name in ("source", "character"))
    lot = np.random.default_rng(seed).permutation(len(items))
    taken: list[int] = []
    for _ in range(min(MOST_ANCHORS, len(items))):
        order = np.lexsort((lot, _counts(character, taken), _counts(source, taken)))
        taken.append(next(int(row) for row in order if row not in taken))
    chosen = set(items["item_id"].iloc[taken])
    rows = [
        (str(item), metric, float(score))
        for metric, one in pairing.metrics.items()
        for item, score in zip(one.items, one.judge, strict=True)
        if item in chosen
    ]
    return sorted(rows)


def drift_of(anchor: Sequence[Anchor], scores: pd.DataFrame, scales: Mapping[str, tuple[float, float]]) -> Drift:
    """Compare scores (columns item_id, metric, score) with those of the anchor.

    Raises ValueError where none of the anchor's judgments is among them.
    """
    before = pd.DataFrame(list(anchor), columns=["item_id", "metric", "before"])
    now = scores.loc[scores["score"].notna(), ["item_id", "metric", "score"]]
    both = before.merge(now.astype({"item_id": str, "metric": str}), on=["item_id", "metric"])
    if both.empty:
        raise ValueError(
            f"none of the {len(anchor)} anchor judgments is among the scores; score those items to compare"
        )
    both["apart"] = (both["score"] - both["before"]).abs()
    apart = both.groupby("metric")["apart"]
    largest = {str(metric): float(value) for metric, value in apart.max().items()}
    mean = {str(metric): float(value) for metric, value in apart.mean().items()}
    lengths = {metric: high - low for metric, (low, high) in scales.items()}
    # The last addend is for rounding: a score that lies exactly at the bound has not moved.
    moved = any(value > max(TOLERANCE, SHARE * lengths[metric]) + 1e-9 for metric, value in largest.items())
    absent = len(anchor) - len(both.drop_duplicates(["item_id", "metric"]))
    return Drift(len(both), absent, largest, mean, moved)


def _counts(labels: NDArray[np.intp], taken: list[int]) -> NDArray[np.intp]:
    """Shape (items,): how many of each item's label were taken."""
    return np.bincount(labels[taken], minlength=int(labels.max()) + 1)[labels]
