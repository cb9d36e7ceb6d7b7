"""Maps from a judge's scores to the human scale, of items: each with ``fit`` and ``predict``.

They make an item's score comparable with people's. They do not rank systems: all but ``shift`` draw scores together,
and the better they predict single items, the more they flatten the differences of systems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from calibration.calibrators.items import Items, Ratings, log_odds
from calibration.calibrators.plain import from_plain, to_plain
from calibration.calibrators.rater_model import Raters
from calibration.calibrators.ridge import Standardiser, best_penalties, group_folds, ridge
from calibration.resampling import Floats

__all__ = [
    "KINDS",
    "Calibrator",
    "Constant",
    "Isotonic",
    "Linear",
    "Ordinal",
    "Raters",
    "Shift",
    "calibrator_from_dict",
    "calibrator_to_dict",
    "in_range",
    "unavailable",
]

PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""What ``ordinal`` tries."""


@dataclass(slots=True)
class Constant:
    """The mean of people's item means, whatever the judge says: what every other map has to beat."""

    scale: tuple[float, float]
    seed: int = 0
    name: ClassVar[str] = "constant"
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
    """The judge's score plus what people rate higher on average."""

    scale: tuple[float, float]
    seed: int = 0
    name: ClassVar[str] = "shift"
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
    """The weighted least-squares line, never falling: a line that reverses the judge's order is drawn flat."""

    scale: tuple[float, float]
    seed: int = 0
    name: ClassVar[str] = "linear"
    slope_: float = 0.0
    intercept_: float = 0.0

    def fit(self, items: Items, ratings: Ratings) -> Linear:
        """Learn slope and intercept; slope 0 where the judge's scores do not vary."""
        human, weights = ratings.mean, ratings.weights
        centre, level = np.average(items.judge, weights=weights), np.average(human, weights=weights)
        spread = float(weights @ (items.judge - centre) ** 2)
        shared = float(weights @ ((items.judge - centre) * (human - level)))
        self.slope_ = max(0.0, shared / spread) if spread > 1e-12 * weights.sum() else 0.0
        self.intercept_ = float(level - self.slope_ * centre)
        return self

    def predict(self, items: Items, annotator: str | None = None) -> Floats:
        """Shape (items,)."""
        return _clipped(self.intercept_ + self.slope_ * items.judge, self.scale)


@dataclass(slots=True)
class Isotonic:
    """The best rising step line (scikit-learn's IsotonicRegression), level outside the range seen."""

    scale: tuple[float, float]
    seed: int = 0
    name: ClassVar[str] = "isotonic"
    x_: Floats = field(default_factory=lambda: np.zeros(1))
    y_: Floats = field(default_factory=lambda: np.zeros(1))

    def fit(self, items: Items, ratings: Ratings) -> Isotonic:
        """Learn the steps' corners."""
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

    scale: tuple[float, float]
    seed: int = 0
    name: ClassVar[str] = "ordinal"
    standardiser_: Standardiser = field(default_factory=Standardiser)
    intercept_: float = 0.0
    coefficients_: Floats = field(default_factory=lambda: np.zeros(0))

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


Calibrator = Constant | Shift | Linear | Isotonic | Ordinal | Raters
KINDS: Mapping[str, type[Calibrator]] = {
    kind.name: kind for kind in (Constant, Shift, Linear, Isotonic, Ordinal, Raters)
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


def calibrator_to_dict(calibrator: Calibrator) -> dict[str, Any]:
    """What was learned, for JSON, with its kind."""
    return {"kind": calibrator.name, **to_plain(calibrator)}


def calibrator_from_dict(saved: Mapping[str, Any]) -> Calibrator:
    """The one that ``calibrator_to_dict`` was taken of. Raises KeyError, TypeError or ValueError for anything else."""
    rest = {name: value for name, value in saved.items() if name != "kind"}
    return from_plain(KINDS[saved["kind"]]((0.0, 0.0)), rest)


def _clipped(values: Floats, scale: tuple[float, float]) -> Floats:
    return np.asarray(np.clip(values, scale[0], scale[1]))


def _odds(items: Items) -> Floats:
    if items.levels is None or not np.isfinite(items.levels).all():
        raise ValueError("the level probabilities (p1, p2, ...) are missing")
    return log_odds(items.levels)
