"""The items that can be rated, with all that is known of each: what a plan is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.resampling import Floats

__all__ = ["Frame", "frame"]


@dataclass(frozen=True, slots=True)
class Frame:
    """All items that the judge scored on some metric, in the order of the scores; NaN where something is not known."""

    items: pd.DataFrame
    """item_id, source, character and scenario where known, group."""
    metrics: tuple[str, ...]
    judge: Floats
    """Shape (items, metrics), as ``doubt`` and ``human``."""
    doubt: Floats
    """The variance of the judge's distribution over levels."""
    human: Floats
    """The mean rating."""
    weights: Floats
    """Shape (items,): 1 / inclusion probability of those rated, 1 of the others."""
    sampled: bool
    """Whether the ratings came with inclusion probabilities."""

    @property
    def rated(self) -> NDArray[np.bool_]:
        """Shape (items,): whether an item was rated on some metric."""
        return np.asarray(np.isfinite(self.human).any(axis=1))


def frame(scores: pd.DataFrame, ratings: pd.DataFrame | None = None) -> Frame:
    """The frame of ``scores`` (as ``read_scores`` gives them) and ``ratings`` (as ``read_ratings`` does, if any)."""
    known = scores[scores["score"].notna()]
    names = [name for name in ("item_id", "source", "character", "scenario", "group") if name in known]
    items = known[names].drop_duplicates("item_id").reset_index(drop=True)
    index, metrics = pd.Index(items["item_id"]), tuple(map(str, dict.fromkeys(known["metric"])))
    judge = _wide(known, "score", index, metrics)
    doubt = _wide(known.assign(doubt=_level_variance(known)), "doubt", index, metrics)
    if ratings is None or ratings.empty:
        return Frame(items, metrics, judge, doubt, np.full(judge.shape, np.nan), np.ones(len(index)), False)
    human = np.where(np.isfinite(judge), _wide(ratings, "score", index, metrics), np.nan)
    weights = np.ones(len(index))
    if sampled := "inclusion_probability" in ratings:
        weights = 1 / ratings.groupby("item_id")["inclusion_probability"].first().reindex(index).fillna(1.0).to_numpy(
            float
        )
    return Frame(items, metrics, judge, doubt, human, weights, sampled)


def _wide(table: pd.DataFrame, column: str, index: pd.Index, metrics: tuple[str, ...]) -> Floats:
    """Shape (items, metrics): the mean of a column for each item and metric."""
    means = table.groupby(["item_id", "metric"])[column].mean().unstack("metric")
    return means.reindex(index=index, columns=list(metrics)).to_numpy(float)


def _level_variance(scores: pd.DataFrame) -> Floats:
    """Shape (rows,): the variance of p1..pK over the levels 1..K; NaN without them."""
    names: list[str] = []
    while f"p{len(names) + 1}" in scores:
        names.append(f"p{len(names) + 1}")
    if not names:
        return np.full(len(scores), np.nan)
    chances, levels = scores[names].to_numpy(float), np.arange(1, len(names) + 1)
    return np.asarray(np.maximum(chances @ levels**2 - (chances @ levels) ** 2, 0.0))
