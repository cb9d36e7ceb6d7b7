"""What the maps learn from: the judge's side and the annotators' side of rated items, and weighted ridge regression.

scikit-learn's Ridge has one penalty for all columns. Partial pooling of annotators needs another penalty for them than
for items, so the regression here takes a penalty for each column. Penalties are in units of observations: a column of
variance 1 with penalty 10 is shrunk to half by 10 observations. Files and tables of the user are unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator
from sklearn.model_selection import GroupKFold

from calibration.pairing import Paired, Pairing
from calibration.stats.intervals import Floats, Labels

LEAST_PROBABILITY = 1e-3
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken."""


FOLDS = 5
"""Folds of cross-validation over groups, where there are as many groups."""


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
    """The human ratings of the same items on one metric; every item has at least one."""

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
    """The rated items of a metric: as paired, the judge's side and the annotators' side."""
    paired = pairing.metrics[metric].labelled
    tables = {name: signals_table(one.items, one.judge, one.levels) for name, one in pairing.metrics.items()}
    items = Items(paired.judge, paired.levels, features(tables, paired.items))
    return paired, items, Ratings(paired.ratings, paired.annotators, paired.weights, paired.groups)


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


def group_folds(groups: Labels, seed: int, most: int = FOLDS) -> NDArray[np.intp]:
    """Shape (items,): the fold of each item, whole groups to a fold; ``most`` folds, or as many as there are groups."""
    folds = np.zeros(len(groups), dtype=np.intp)
    count = min(most, len(np.unique(groups)))
    if count > 1:
        splitter = GroupKFold(count, shuffle=True, random_state=seed)
        for fold, (_, held) in enumerate(splitter.split(folds, groups=groups)):
            folds[held] = fold
    return folds


def ridge(design: Floats, target: Floats, weights: Floats, penalties: Floats) -> Floats:
    """Coefficients that minimise the weighted squared error plus the sum of penalty times coefficient squared.

    Args:
        design: shape (rows, columns), the first of them 1 for the intercept.
        target, weights: shape (rows,); weights are taken relative to their mean.
        penalties: shape (columns,), 0 for the intercept.
    """
    return _solve(*_normal(design, target, weights / weights.mean()), penalties)


def best_penalties(
    design: Floats, target: Floats, weights: Floats, folds: NDArray[np.intp], candidates: Sequence[Floats]
) -> int:
    """Which of the candidates (penalties, see ``ridge``) has the least squared error on held-out folds.

    With one fold nothing can be held out, and it is the last, which should be the strongest.

    Args:
        design, target, weights: as in ``ridge``.
        folds: shape (rows,), numbered from 0.
        candidates: of shape (columns,) each.
    """
    if folds.max() == 0:
        return len(candidates) - 1
    weights = weights / weights.mean()
    losses = np.zeros(len(candidates))
    # The normal equations of the other folds are those of all rows less those of the fold: each is summed only once.
    gram, moment = _normal(design, target, weights)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        held_gram, held_moment = _normal(design[held], target[held], weights[held])
        for index, penalties in enumerate(candidates):
            learned = _solve(gram - held_gram, moment - held_moment, penalties)
            losses[index] += weights[held] @ (target[held] - design[held] @ learned) ** 2
    return int(np.argmin(losses))


def _normal(design: Floats, target: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The weighted normal equations: X'WX, shape (columns, columns), and X'Wy, shape (columns,)."""
    weighted = design * weights[:, None]
    return weighted.T @ design, weighted.T @ target


def _solve(gram: Floats, moment: Floats, penalties: Floats) -> Floats:
    """The ridge coefficients from normal equations."""
    return np.asarray(np.linalg.solve(gram + np.diag(penalties), moment))


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

    def transform(self, columns: Floats) -> Floats:
        """Shape (items, columns used + columns with gaps)."""
        used = np.clip(columns[:, self.used_], self.low_, self.high_)
        scaled = np.where(np.isfinite(used), (used - self.mean_) / self.sd_, 0.0)
        return np.hstack([scaled, ~np.isfinite(columns[:, self.gaps_])])
