"""Maps from a judge's scores to the human scale, of items: each with ``fit`` and ``predict``.

They make an item's score comparable with people's. They do not rank systems: all but ``shift`` draw scores together,
and the better they predict single items, the more they flatten the differences of systems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from calibration.calibrators.features import Items, Ratings, Standardiser, best_penalties, group_folds, log_odds, ridge
from calibration.stats.intervals import Floats

Kind = TypeVar("Kind")


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts, arrays and tuples as lists, numbers as Python's; raises ValueError for one not finite."""
    if is_dataclass(value):
        return {one.name: to_plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot be saved")
    return value


def from_plain(like: Kind, saved: Mapping[str, Any]) -> Kind:
    """A dataclass of the kind of ``like`` with what ``to_plain`` gave of another; raises KeyError or TypeError."""
    parts = {one.name: _as(getattr(like, one.name), saved[one.name]) for one in fields(like)}  # type: ignore[arg-type]
    return type(like)(**parts)


def _as(like: Any, saved: Any) -> Any:
    """What was saved, as the type of what stands in its place."""
    if isinstance(like, np.ndarray):
        return np.array(saved, dtype=like.dtype)
    if is_dataclass(like):
        return from_plain(like, saved)
    if isinstance(like, tuple):
        return tuple(saved)
    return saved if saved is None else type(like)(saved)


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
