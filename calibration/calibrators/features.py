"""What the maps learn from: the judge's side and the annotators' side of rated items.

Files and tables of the user are unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator

from calibration.pairing import Paired, Pairing
from calibration.stats.intervals import Floats, Labels

LEAST_PROBABILITY = 1e-3
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken."""


def as_array(saved: Any, kind: type[np.generic]) -> NDArray[Any]:
    """An array from the list that a file holds in its place. Raises ValueError where it is no such list."""
    try:
        return np.array(saved, dtype=kind)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not a list of numbers ({error})") from error


LearnedFloats = Annotated[
    Floats, PlainValidator(lambda saved: as_array(saved, np.float64)), PlainSerializer(lambda array: array.tolist())
]
"""An array of a fitted map; a list in a calibration file."""


LearnedPlaces = Annotated[
    NDArray[np.intp],
    PlainValidator(lambda saved: as_array(saved, np.intp)),
    PlainSerializer(lambda array: array.tolist()),
]
"""The same of column numbers."""


Chosen = NDArray[np.bool_] | NDArray[np.intp]
"""Which items: a mask, or row numbers."""


@dataclass(frozen=True, slots=True)
class Items:
    """What a judge said of some items, for the map of one metric."""

    judge: Floats
    """Shape (items,): the score on this metric, never NaN."""
    levels: Floats | None = None
    """Shape (items, K): the probability of each level on this metric; None where the table has none."""
    features: Floats | None = None
    """Shape (items, 2 x metrics): of every metric the score and the log-odds (``features``), NaN where missing."""
    metric: int = 0
    """The place of this metric among those of the features."""

    def at(self, chosen: Chosen) -> Items:
        """Some of the items."""
        levels = None if self.levels is None else self.levels[chosen]
        columns = None if self.features is None else self.features[chosen]
        return Items(self.judge[chosen], levels, columns, self.metric)

    @property
    def signals(self) -> Floats:
        """Shape (items, columns): the features; those of this metric alone where there are no others."""
        if self.features is not None:
            return self.features
        return signals(self.judge, self.levels)


@dataclass(frozen=True, slots=True)
class Ratings:
    """The human ratings of the same items on one metric, one by one; every item has at least one."""

    item: NDArray[np.intp]
    """Shape (ratings,): the place of each rating's item."""
    annotator: NDArray[np.intp]
    """Shape (ratings,): the place of its annotator."""
    scores: Floats
    """Shape (ratings,)."""
    annotators: tuple[str, ...]
    weights: Floats
    """Shape (items,): 1 / inclusion probability, 1 where nothing was sampled."""
    sources: Labels
    """Shape (items,): the system that produced each."""
    groups: Labels
    """Shape (items,): items of a group are never split between training and testing."""
    blocks: Labels | None = None
    """Shape (items,): the version or period that each is of; None where none are known."""

    @property
    def mean(self) -> Floats:
        """Shape (items,): the mean rating of each item."""
        return np.bincount(self.item, self.scores) / np.bincount(self.item)

    def of(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Shape (ratings,): which ratings are of some of the items."""
        return chosen[self.item]

    def at(self, chosen: NDArray[np.bool_]) -> Ratings:
        """Some of the items."""
        kept, place = chosen[self.item], np.cumsum(chosen) - 1
        return replace(
            self,
            item=place[self.item[kept]],
            annotator=self.annotator[kept],
            scores=self.scores[kept],
            weights=self.weights[chosen],
            sources=self.sources[chosen],
            groups=self.groups[chosen],
            blocks=None if self.blocks is None else self.blocks[chosen],
        )


def training(pairing: Pairing, metric: str) -> tuple[Paired, Items, Ratings]:
    """The rated items of a metric: as paired, the judge's side and the annotators' side."""
    paired = pairing.metrics[metric].labelled
    tables = {name: signals_table(one.items, one.judge, one.levels) for name, one in pairing.metrics.items()}
    own = list(tables).index(metric)
    items = Items(paired.judge, paired.levels, features(tables, paired.items), own)
    item, annotator, scores = paired.one_by_one
    names, weights = paired.annotators, paired.weights
    return paired, items, Ratings(item, annotator, scores, names, weights, paired.sources, paired.groups, paired.blocks)


def log_odds(levels: Floats) -> Floats:
    """Shape (items, K - 1): log P(score > k) / P(score <= k) for each level k but the last, from (items, K).

    Probabilities are first kept within 0.001 and 0.999.
    """
    above = 1 - np.cumsum(levels, axis=1)[:, :-1]
    above = np.clip(above, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.asarray(np.log(above / (1 - above)))


def signals(judge: Floats, levels: Floats | None) -> Floats:
    """Shape (items, 2): the score, and the mean of its cumulative log-odds (NaN where there are no levels).

    A lenient judge crowds its scores at the upper end of the scale; the log-odds still tell such scores apart.
    """
    if levels is None or levels.shape[1] < 2:
        return np.column_stack([judge, np.full(len(judge), np.nan)])
    return np.column_stack([judge, log_odds(levels).mean(axis=1)])


def features(tables: Mapping[str, pd.DataFrame], items: Labels) -> Floats:
    """Shape (items, 2 x metrics): the signals of every metric, NaN where an item was not judged on it."""
    return np.hstack([table.reindex(items).to_numpy(float) for table in tables.values()])


def signals_table(items: Labels, judge: Floats, levels: Floats | None) -> pd.DataFrame:
    """The signals of one metric, a row an item id, as ``features`` takes them."""
    return pd.DataFrame(signals(judge, levels), index=pd.Index(items))


@dataclass(slots=True)
class Standardiser:
    """Brings columns to mean 0 and SD 1, clipped to the range seen in training; missing values take the mean.

    A column that had gaps in training gets a second one that says where (1 missing, 0 not); a column that never had a
    value is left out.
    """

    low_: LearnedFloats = field(default_factory=lambda: np.zeros(0))
    high_: LearnedFloats = field(default_factory=lambda: np.zeros(0))
    mean_: LearnedFloats = field(default_factory=lambda: np.zeros(0))
    sd_: LearnedFloats = field(default_factory=lambda: np.zeros(0))
    used_: LearnedPlaces = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    gaps_: LearnedPlaces = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    def fit(self, columns: Floats, weights: Floats) -> Standardiser:
        """Learn from shape (items, columns), NaN where missing, and weights of shape (items,)."""
        known = np.isfinite(columns)
        self.used_ = np.flatnonzero(known.any(axis=0))
        self.gaps_ = np.flatnonzero(known.any(axis=0) & ~known.all(axis=0))
        used, there = columns[:, self.used_], known[:, self.used_]
        self.low_, self.high_ = np.nanmin(used, axis=0), np.nanmax(used, axis=0)
        weight = there * weights[:, None]
        total = weight.sum(axis=0)
        self.mean_ = (weight * np.where(there, used, 0)).sum(axis=0) / total
        variance = (weight * np.where(there, used - self.mean_, 0) ** 2).sum(axis=0) / total
        # A column that never varies is left as it is: its variance is rounding, and dividing by that would blow it up.
        self.sd_ = np.where(variance > 1e-18, np.sqrt(variance), 1.0)
        return self

    def distance(self, columns: Floats) -> Floats:
        """Shape (items,): the root mean square of an item's values, in SDs from the mean, not clipped."""
        used = columns[:, self.used_]
        apart = np.where(np.isfinite(used), (used - self.mean_) / self.sd_, 0.0)
        return np.asarray(np.sqrt((apart**2).mean(axis=1)))

    def transform(self, columns: Floats) -> Floats:
        """Shape (items, columns used + columns with gaps)."""
        used = np.clip(columns[:, self.used_], self.low_, self.high_)
        scaled = np.where(np.isfinite(used), (used - self.mean_) / self.sd_, 0.0)
        return np.hstack([scaled, ~np.isfinite(columns[:, self.gaps_])])
