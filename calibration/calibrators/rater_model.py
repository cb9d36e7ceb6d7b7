"""Every metric's judgment of an item, and who rates it, to the rating: a mixed model by ridge regression.

    rating = intercept + item @ coefficients + severity[rater] + slope[rater] * score + noise

Coefficients, severities and slopes are each shrunk to 0 by a penalty of their own, which is the same as random effects
of normal distribution (Henderson's mixed model equations; Robinson 1991, "That BLUP is a good thing"), only that the
variances are chosen by cross-validation over groups. Slopes are there only where held-out groups are better for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from calibration.calibrators.items import Items, Ratings
from calibration.calibrators.ridge import Standardiser, best_penalties, group_folds, ridge
from calibration.resampling import Floats

__all__ = ["Raters"]

COEFFICIENTS = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
SEVERITIES = (2.0, 5.0, 10.0, 30.0)
SLOPES = (5.0, 15.0, 50.0, np.inf)
"""Penalties that are tried; an infinite one is no slopes at all."""


@dataclass(slots=True)
class Raters:
    """The rater-aware calibrator of several metrics.

    ``predict`` without an annotator, or with one that was not seen, is for the average of raters like those seen.
    """

    scale: tuple[float, float]
    seed: int = 0
    name: ClassVar[str] = "raters"
    standardiser_: Standardiser = field(default_factory=Standardiser)
    slope_on_: Standardiser = field(default_factory=Standardiser)
    intercept_: float = 0.0
    coefficients_: Floats = field(default_factory=lambda: np.zeros(0))
    severity_: dict[str, float] = field(default_factory=dict)
    slope_: dict[str, float] = field(default_factory=dict)
    penalties_: dict[str, float | None] = field(default_factory=dict)
    """Of coefficients, severity and slope as chosen; None for no slopes."""

    def fit(self, items: Items, ratings: Ratings) -> Raters:
        """Learn from all ratings, each with its item's weight; penalties by cross-validation over groups."""
        item, rater = np.nonzero(np.isfinite(ratings.scores))
        design, width = self._design(items, ratings, item, rater)
        target, weights = ratings.scores[item, rater], ratings.weights[item]
        pick = partial(best_penalties, design, target, weights, group_folds(ratings.groups, self.seed)[item])
        spread = partial(_spread, width, len(ratings.annotators))
        pairs = [(of_item, severity, np.inf) for of_item in COEFFICIENTS for severity in SEVERITIES]
        penalties = pairs[pick([spread(*one) for one in pairs])]
        with_slopes = [(*penalties[:2], slope) for slope in SLOPES]
        penalties = with_slopes[pick([spread(*one) for one in with_slopes])]
        learned = ridge(design, target, weights, spread(*penalties))
        self._keep(learned, penalties, width, ratings.annotators)
        return self

    def predict(self, items: Items, annotator: str | None = None) -> Floats:
        """Shape (items,): the annotator's rating, or that of the average rater, on the scale."""
        found = self.intercept_ + self.standardiser_.transform(items.signals) @ self.coefficients_
        if annotator is not None:
            score = self.slope_on_.transform(items.judge[:, None])[:, 0]
            found = found + self.severity_.get(annotator, 0.0) + self.slope_.get(annotator, 0.0) * score
        return np.asarray(np.clip(found, *self.scale))

    def _design(
        self, items: Items, ratings: Ratings, item: NDArray[np.intp], rater: NDArray[np.intp]
    ) -> tuple[Floats, int]:
        """Shape (ratings, 1 + width + 2 x annotators), and the width: how many columns are of items."""
        columns = self.standardiser_.fit(items.signals, ratings.weights).transform(items.signals)
        score = self.slope_on_.fit(items.judge[:, None], ratings.weights).transform(items.judge[:, None])
        who = np.eye(len(ratings.annotators))[rater]
        return np.hstack([np.ones((len(item), 1)), columns[item], who, who * score[item]]), columns.shape[1]

    def _keep(self, learned: Floats, penalties: tuple[float, ...], width: int, annotators: tuple[str, ...]) -> None:
        """Take the coefficients apart."""
        self.intercept_ = float(learned[0])
        self.coefficients_ = learned[1 : 1 + width]
        severity, slope = np.split(learned[1 + width :], 2)
        self.severity_ = dict(zip(annotators, severity.tolist(), strict=True))
        self.slope_ = dict(zip(annotators, slope.tolist(), strict=True)) if np.isfinite(penalties[2]) else {}
        chosen = zip(("coefficients", "severity", "slope"), penalties, strict=True)
        self.penalties_ = {name: value if np.isfinite(value) else None for name, value in chosen}


def _spread(width: int, annotators: int, of_item: float, severity: float, slope: float) -> Floats:
    """A penalty a column; no slopes is a penalty too great to have any."""
    columns = [(1, 0.0), (width, of_item), (annotators, severity), (annotators, min(slope, 1e12))]
    return np.concatenate([np.full(count, penalty) for count, penalty in columns])
