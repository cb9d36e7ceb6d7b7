"""What calibrators learn from: what a judge said of some items, on every metric, and what people rated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.paired import Paired, Pairing
from calibration.resampling import Floats, Labels

__all__ = ["Items", "Ratings", "features", "log_odds", "signals", "training"]

FLOOR = 1e-3
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken."""

Chosen = NDArray[np.bool_] | NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Items:
    """What a judge said of some items, for the map of one metric."""

    judge: Floats
    """Shape (items,): the score on this metric, never NaN."""
    levels: Floats | None = None
    """Shape (items, K): the probability of each level on this metric; None where the table has none."""
    features: Floats | None = None
    """Shape (items, 2 x metrics): of every metric the score and the log-odds (``features``), NaN where missing."""

    def at(self, chosen: Chosen) -> Items:
        """Some of the items."""
        levels = None if self.levels is None else self.levels[chosen]
        return Items(self.judge[chosen], levels, None if self.features is None else self.features[chosen])

    @property
    def signals(self) -> Floats:
        """Shape (items, columns): the features; those of this metric alone where there are no others."""
        if self.features is not None:
            return self.features
        return signals(self.judge, self.levels)


@dataclass(frozen=True, slots=True)
class Ratings:
    """What people rated of the same items on one metric; every item was rated by somebody."""

    scores: Floats
    """Shape (items, annotators), NaN where an annotator did not rate an item."""
    annotators: tuple[str, ...]
    weights: Floats
    """Shape (items,): 1 / inclusion probability, 1 where nothing was sampled."""
    groups: Labels
    """Shape (items,): items of a group are never split between training and testing."""

    @property
    def mean(self) -> Floats:
        """Shape (items,): the mean rating of each item."""
        return np.asarray(np.nanmean(self.scores, axis=1))

    def at(self, chosen: Chosen) -> Ratings:
        """Some of the items."""
        weights, groups = self.weights[chosen], self.groups[chosen]
        return replace(self, scores=self.scores[chosen], weights=weights, groups=groups)


def training(pairing: Pairing, metric: str) -> tuple[Paired, Items, Ratings]:
    """The rated items of a metric: as paired, as the judge's side and as people's side."""
    paired = pairing.metrics[metric].labelled
    tables = {name: _table(one.items, one.judge, one.levels) for name, one in pairing.metrics.items()}
    items = Items(paired.judge, paired.levels, features(tables, paired.items))
    return paired, items, Ratings(paired.ratings, paired.annotators, paired.weights, paired.groups)


def log_odds(levels: Floats) -> Floats:
    """Shape (items, K - 1): log P(score > k) / P(score <= k) for each level k but the last, from (items, K).

    Probabilities are first kept within 0.001 and 0.999.
    """
    above = 1 - np.cumsum(levels, axis=1)[:, :-1]
    above = np.clip(above, FLOOR, 1 - FLOOR)
    return np.asarray(np.log(above / (1 - above)))


def signals(judge: Floats, levels: Floats | None) -> Floats:
    """Shape (items, 2): the score, and the mean of its cumulative log-odds (NaN where there are no levels).

    The second tells apart scores that are all but at an end of the scale, where an over-lenient judge crowds.
    """
    if levels is None or levels.shape[1] < 2:
        return np.column_stack([judge, np.full(len(judge), np.nan)])
    return np.column_stack([judge, log_odds(levels).mean(axis=1)])


def features(tables: Mapping[str, pd.DataFrame], items: Labels) -> Floats:
    """Shape (items, 2 x metrics): the signals of every metric, NaN where an item was not judged on it."""
    return np.hstack([table.reindex(items).to_numpy(float) for table in tables.values()])


def _table(items: Labels, judge: Floats, levels: Floats | None) -> pd.DataFrame:
    return pd.DataFrame(signals(judge, levels), index=pd.Index(items))
