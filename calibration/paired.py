"""Ratings and judge scores of the same items, metric by metric, as arrays: what every statistic here takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.resampling import Floats, Labels

__all__ = ["Paired", "Pairing"]


@dataclass(frozen=True, slots=True)
class Paired:
    """One metric: a judge's scores of some items, and what people rated of them.

    ``judge`` is never NaN; ``ratings`` is NaN where an annotator did not rate an item, and a row of NaN is an item that
    nobody rated. ``weights`` is 1 / inclusion probability (1 where none is given).
    """

    metric: str
    scale: tuple[float, float]
    """Lowest and highest score."""
    items: Labels
    sources: Labels
    groups: Labels
    """Shape (items,), as ``items`` and ``sources``: what is resampled together."""
    characters: Labels | None
    judge: Floats
    """Shape (items,): the judge's expected score."""
    levels: Floats | None
    """Shape (items, K): the probability of each whole score of the scale; None where the table has none."""
    ratings: Floats
    """Shape (items, annotators)."""
    annotators: tuple[str, ...]
    weights: Floats
    lengths: Floats | None = None
    """Shape (items,): how long what was judged is, in any unit; None where the table does not say."""

    @property
    def human(self) -> Floats:
        """Shape (items,): the mean rating of each item; NaN where nobody rated it.

        Rounded to 9 decimals, so that equal means are ties.
        """
        means = np.nansum(self.ratings, axis=1) / np.maximum(self.counts, 1)
        return np.where(self.counts > 0, np.round(means, 9), np.nan)

    @property
    def counts(self) -> NDArray[np.intp]:
        """Shape (items,): how many people rated each item."""
        return np.asarray(np.isfinite(self.ratings).sum(axis=1), dtype=np.intp)

    @property
    def labelled(self) -> Paired:
        """The items that somebody rated."""
        return self.at(self.counts > 0)

    @property
    def values(self) -> Floats:
        """The whole scores of the scale."""
        return np.arange(np.floor(self.scale[0]), np.ceil(self.scale[1]) + 1)

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Paired:
        """Some of the items."""
        return replace(
            self,
            items=self.items[chosen],
            sources=self.sources[chosen],
            groups=self.groups[chosen],
            characters=None if self.characters is None else self.characters[chosen],
            judge=self.judge[chosen],
            levels=None if self.levels is None else self.levels[chosen],
            ratings=self.ratings[chosen],
            weights=self.weights[chosen],
            lengths=None if self.lengths is None else self.lengths[chosen],
        )

    def judged_by(self, scores: Floats) -> Paired:
        """The same items with other scores in the judge's place, and no distribution."""
        return replace(self, judge=scores, levels=None)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Every metric that both people and the judge scored, and what has no counterpart.

    ``metrics`` holds all items the judge scored, rated or not. ``unjudged`` are ratings without a score of the judge,
    ``missing`` judgments that could not be made: each a table with ``item_id`` and ``metric``.
    """

    judge: str | None
    """The judge's name, where the table of scores tells it."""
    metrics: dict[str, Paired]
    unjudged: pd.DataFrame
    missing: pd.DataFrame
    unrated: dict[str, int]
    """How many judged items of each metric nobody rated."""
    remarks: tuple[str, ...]
    """What a reader should know of the pairing, a sentence each."""
