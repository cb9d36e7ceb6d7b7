"""Maps from a judge's scores of items to the human scale, each with ``fit`` and ``predict``.

They make an item's score comparable with human ratings. They do not rank systems: all but ``shift`` draw scores
together, and the better they predict single items, the more they flatten the differences between systems.

A map is a dataclass of what it learned, so a calibration file holds its fields; ``kind`` says which map it is. Which
map is used, and how well it does, is decided elsewhere (``model_selection``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator
from sklearn.isotonic import IsotonicRegression

from calibration.calibrators.features import (
    Items,
    LearnedFloats,
    Ratings,
    Standardiser,
    best_penalties,
    group_folds,
    log_odds,
    ridge,
)
from calibration.stats.intervals import Floats

COEFFICIENTS = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Penalties that ``raters`` tries for the coefficients of items, in observations."""


SEVERITIES = (2.0, 5.0, 10.0, 30.0)
"""Those it tries for how much higher or lower an annotator rates."""


SLOPES = (5.0, 15.0, 50.0, np.inf)
"""Those it tries for how much more or less of the scale an annotator uses; infinity means no slopes at all."""


PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Those that ``ordinal`` tries."""


@dataclass(slots=True)
class Raters:
    """Ridge regression on the signals of every metric, with a severity and a slope for each annotator.

    ``predict`` without an annotator, or with one that was not seen, is for the average of annotators like those seen.
    """

    kind: Literal["raters"] = field(default="raters", kw_only=True)
    scale: tuple[float, float]
    seed: int = 0
    standardiser_: Standardiser = field(default_factory=Standardiser)
    slope_on_: Standardiser = field(default_factory=Standardiser)
    intercept_: float = 0.0
    coefficients_: LearnedFloats = field(default_factory=lambda: np.zeros(0))
    severity_: dict[str, float] = field(default_factory=dict)
    slope_: dict[str, float] = field(default_factory=dict)
    penalties_: dict[str, float | None] = field(default_factory=dict)
    """Of coefficients, severity and slope as chosen; None for no slopes."""

    def fit(self, items: Items, ratings: Ratings) -> Raters:
        """Learn from all ratings, each with its item's weight; penalties by cross-validation over groups."""
        item, rater = np.nonzero(np.isfinite(ratings.scores))
        target, weights = ratings.scores[item, rater], ratings.weights[item]
        # A row a rating; columns: 1, the signals of the item, who rated, who rated times the judge's score.
        columns = self.standardiser_.fit(items.signals, ratings.weights).transform(items.signals)
        score = self.slope_on_.fit(items.judge[:, None], ratings.weights).transform(items.judge[:, None])
        width, annotators = columns.shape[1], len(ratings.annotators)
        who = np.eye(annotators)[rater]
        design = np.hstack([np.ones((len(item), 1)), columns[item], who, who * score[item]])

        def by_column(of_item: float, severity: float, slope: float) -> Floats:
            # The solver takes no infinity: no slopes is a penalty too great to leave any.
            return np.repeat([0.0, of_item, severity, min(slope, 1e12)], [1, width, annotators, annotators])

        # Trying all three penalties with each other takes four times as long: slopes are chosen after the other two.
        pick = partial(best_penalties, design, target, weights, group_folds(ratings.groups, self.seed)[item])
        pairs = [(of_item, severity, np.inf) for of_item in COEFFICIENTS for severity in SEVERITIES]
        penalties = pairs[pick([by_column(*one) for one in pairs])]
        with_slopes = [(*penalties[:2], slope) for slope in SLOPES]
        penalties = with_slopes[pick([by_column(*one) for one in with_slopes])]

        learned = ridge(design, target, weights, by_column(*penalties))
        self.intercept_, self.coefficients_ = float(learned[0]), learned[1 : 1 + width]
        severities, slopes = np.split(learned[1 + width :], 2)
        self.severity_ = dict(zip(ratings.annotators, severities.tolist(), strict=True))
        has_slopes = np.isfinite(penalties[2])
        self.slope_ = dict(zip(ratings.annotators, slopes.tolist(), strict=True)) if has_slopes else {}
        chosen = zip(("coefficients", "severity", "slope"), penalties, strict=True)
        self.penalties_ = {name: value if np.isfinite(value) else None for name, value in chosen}
        return self

    def predict(self, items: Items, annotator: str | None = None) -> Floats:
        """Shape (items,): the annotator's rating, or that of the average annotator, on the scale."""
        # Severities and slopes are shrunk towards 0, which is the average annotator: without a name they are left out.
        found = self.intercept_ + self.standardiser_.transform(items.signals) @ self.coefficients_
        if annotator is not None:
            score = self.slope_on_.transform(items.judge[:, None])[:, 0]
            found = found + self.severity_.get(annotator, 0.0) + self.slope_.get(annotator, 0.0) * score
        return _clipped(found, self.scale)


@dataclass(slots=True)
class Constant:
    """The mean of the items' mean ratings, whatever the judge says: what every other map has to beat."""

    kind: Literal["constant"] = field(default="constant", kw_only=True)
    scale: tuple[float, float]
    seed: int = 0
    mean_: float = 0.0

    def fit(self, items: Items, ratings: Ratings) -> Constant:
        """Learn the weighted mean."""
        self.mean_ = float(np.average(ratings.mean, weights=ratings.weights))
        return self

    def predict(self, items: Items, annotator: str | None = None) -> Floats:
        """Shape (items,)."""
        return _clipped(np.full(len(items.judge), self.mean_), self.scale)


@dataclass(slots=True)
class Shift:
    """The judge's score plus how much higher annotators rate on average."""

    kind: Literal["shift"] = field(default="shift", kw_only=True)
    scale: tuple[float, float]
    seed: int = 0
    shift_: float = 0.0

    def fit(self, items: Items, ratings: Ratings) -> Shift:
        """Learn the weighted mean of human less judge."""
        self.shift_ = float(np.average(ratings.mean - items.judge, weights=ratings.weights))
        return self

    def predict(self, items: Items, annotator: str | None = None) -> Floats:
        """Shape (items,)."""
        return _clipped(items.judge + self.shift_, self.scale)


@dataclass(slots=True)
class Linear:
    """The weighted least-squares line. Where it would fall, and so reverse the judge's order, it is level instead."""

    kind: Literal["linear"] = field(default="linear", kw_only=True)
    scale: tuple[float, float]
    seed: int = 0
    slope_: float = 0.0
    intercept_: float = 0.0

    def fit(self, items: Items, ratings: Ratings) -> Linear:
        """Learn slope and intercept; slope 0 where the judge's scores do not vary."""
        human, weights = ratings.mean, ratings.weights
        centre, level = np.average(items.judge, weights=weights), np.average(human, weights=weights)
        spread = float(weights @ (items.judge - centre) ** 2)
        shared = float(weights @ ((items.judge - centre) * (human - level)))
        # A spread of rounding errors only is none: dividing by it would give any slope.
        self.slope_ = max(0.0, shared / spread) if spread > 1e-12 * weights.sum() else 0.0
        self.intercept_ = float(level - self.slope_ * centre)
        return self

    def predict(self, items: Items, annotator: str | None = None) -> Floats:
        """Shape (items,)."""
        return _clipped(self.intercept_ + self.slope_ * items.judge, self.scale)


@dataclass(slots=True)
class Isotonic:
    """The best rising step line (scikit-learn's IsotonicRegression), level outside the range seen."""

    kind: Literal["isotonic"] = field(default="isotonic", kw_only=True)
    scale: tuple[float, float]
    seed: int = 0
    x_: LearnedFloats = field(default_factory=lambda: np.zeros(1))
    y_: LearnedFloats = field(default_factory=lambda: np.zeros(1))

    def fit(self, items: Items, ratings: Ratings) -> Isotonic:
        """Learn the corners of the steps."""
        model = IsotonicRegression(out_of_bounds="clip")
        model.fit(items.judge, ratings.mean, sample_weight=ratings.weights)
        self.x_, self.y_ = np.asarray(model.X_thresholds_), np.asarray(model.y_thresholds_)
        return self

    def predict(self, items: Items, annotator: str | None = None) -> Floats:
        """Shape (items,): straight between corners."""
        return _clipped(np.interp(items.judge, self.x_, self.y_), self.scale)


@dataclass(slots=True)
class Ordinal:
    """Ridge regression on the cumulative log-odds of the judge's levels; its penalty by cross-validation over groups.

    Each level boundary has a coefficient, so how far apart the judge's levels are is learned, not taken for granted.
    """

    kind: Literal["ordinal"] = field(default="ordinal", kw_only=True)
    scale: tuple[float, float]
    seed: int = 0
    standardiser_: Standardiser = field(default_factory=Standardiser)
    intercept_: float = 0.0
    coefficients_: LearnedFloats = field(default_factory=lambda: np.zeros(0))

    def fit(self, items: Items, ratings: Ratings) -> Ordinal:
        """Learn a coefficient for each boundary. Raises ValueError where there are no levels."""
        odds = _odds(items)
        columns = self.standardiser_.fit(odds, ratings.weights).transform(odds)
        design = np.hstack([np.ones((len(columns), 1)), columns])
        candidates = [np.append(0, np.full(columns.shape[1], penalty)) for penalty in PENALTIES]
        folds = group_folds(ratings.groups, self.seed)
        best = candidates[best_penalties(design, ratings.mean, ratings.weights, folds, candidates)]
        learned = ridge(design, ratings.mean, ratings.weights, best)
        self.intercept_, self.coefficients_ = float(learned[0]), learned[1:]
        return self

    def predict(self, items: Items, annotator: str | None = None) -> Floats:
        """Shape (items,). Raises ValueError where there are no levels, or another number of them."""
        odds = _odds(items)
        if odds.shape[1] != len(self.coefficients_):
            raise ValueError(f"{odds.shape[1] + 1} levels, but fitted on {len(self.coefficients_) + 1}")
        found = self.intercept_ + self.standardiser_.transform(odds) @ self.coefficients_
        return _clipped(found, self.scale)


Calibrator = Annotated[Constant | Shift | Linear | Isotonic | Ordinal | Raters, Discriminator("kind")]
"""Any map; in a file told apart by its ``kind``."""


KINDS: Mapping[str, type[Constant | Shift | Linear | Isotonic | Ordinal | Raters]] = {
    "constant": Constant,
    "shift": Shift,
    "linear": Linear,
    "isotonic": Isotonic,
    "ordinal": Ordinal,
    "raters": Raters,
}
"""By name, the simplest first."""


def unavailable(kind: str, items: Items) -> str | None:
    """Why a kind cannot be fitted on these items; None where it can."""
    if kind == "ordinal" and (items.levels is None or items.levels.shape[1] < 2):
        return "the judge's table has no level probabilities (p1, p2, ...)"
    return None


def in_range(scores: Floats, trained: tuple[float, float]) -> NDArray[np.bool_]:
    """Which scores lie within the range seen in training (to 1e-9): outside it a map is a guess."""
    return np.asarray((scores >= trained[0] - 1e-9) & (scores <= trained[1] + 1e-9))


def _clipped(values: Floats, scale: tuple[float, float]) -> Floats:
    return np.asarray(np.clip(values, scale[0], scale[1]))


def _odds(items: Items) -> Floats:
    """Shape (items, K - 1): see ``log_odds``. Raises ValueError where a level probability is missing."""
    if items.levels is None or not np.isfinite(items.levels).all():
        raise ValueError("the level probabilities (p1, p2, ...) are missing")
    return log_odds(items.levels)
