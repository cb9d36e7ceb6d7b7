"""Weighted ridge regression with a penalty for each column, chosen by cross-validation over groups.

scikit-learn's Ridge has one penalty for all columns; partial pooling of raters needs another for them than for items.
The penalties are in units of observations: a column of variance 1 with penalty 10 is shrunk to half by 10 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from calibration.resampling import Floats, Labels

__all__ = ["FOLDS", "Standardiser", "best_penalties", "group_folds", "ridge"]

FOLDS = 5


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
    """Which of the candidates predicts held-out folds best; the last, meant to be the strongest, with one fold."""
    if folds.max() == 0:
        return len(candidates) - 1
    return int(np.argmin(_losses(design, target, weights / weights.mean(), folds, candidates)))


def _losses(
    design: Floats, target: Floats, weights: Floats, folds: NDArray[np.intp], candidates: Sequence[Floats]
) -> Floats:
    """Shape (candidates,): the weighted sum of squared errors out of fold."""
    losses = np.zeros(len(candidates))
    gram, moment = _normal(design, target, weights)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        held_gram, held_moment = _normal(design[held], target[held], weights[held])
        for index, penalties in enumerate(candidates):
            learned = _solve(gram - held_gram, moment - held_moment, penalties)
            losses[index] += weights[held] @ (target[held] - design[held] @ learned) ** 2
    return losses


def _normal(design: Floats, target: Floats, weights: Floats) -> tuple[Floats, Floats]:
    weighted = design * weights[:, None]
    return weighted.T @ design, weighted.T @ target


def _solve(gram: Floats, moment: Floats, penalties: Floats) -> Floats:
    return np.asarray(np.linalg.solve(gram + np.diag(penalties), moment))


@dataclass(slots=True)
class Standardiser:
    """Columns kept within the range seen in training, at mean 0 and SD 1, and what is missing at the mean.

    A column that had gaps in training gets a second one that says where (1 missing, 0 not); a column that never had a
    value is left out.
    """

    low_: Floats = field(default_factory=lambda: np.zeros(0))
    high_: Floats = field(default_factory=lambda: np.zeros(0))
    mean_: Floats = field(default_factory=lambda: np.zeros(0))
    sd_: Floats = field(default_factory=lambda: np.zeros(0))
    used_: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    gaps_: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

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
        self.sd_ = np.where(variance > 1e-18, np.sqrt(variance), 1.0)
        return self

    def transform(self, columns: Floats) -> Floats:
        """Shape (items, columns used + columns with gaps)."""
        used = np.clip(columns[:, self.used_], self.low_, self.high_)
        scaled = np.where(np.isfinite(used), (used - self.mean_) / self.sd_, 0.0)
        return np.hstack([scaled, ~np.isfinite(columns[:, self.gaps_])])
