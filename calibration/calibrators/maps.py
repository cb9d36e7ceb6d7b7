"""Maps from a judge's scores of items to the human scale, each with ``fit`` and ``predict``.

They make an item's score comparable with human ratings. They do not rank systems: all but ``shift`` draw scores
together, and the better they predict single items, the more they flatten the differences between systems.

A map is a dataclass of what it learned, so a calibration file holds its fields; ``kind`` says which map it is. Which
map is used, and how well it does, is decided elsewhere (``model_selection``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Discriminator
from sklearn.isotonic import IsotonicRegression

from calibration.calibrators.features import Items, LearnedFloats, Ratings, Standardiser, log_odds
from calibration.calibrators.penalties import Problem
from calibration.stats.intervals import LEVEL, Floats

COEFFICIENTS = (np.inf, 3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0)
"""Penalties that ``raters`` and ``ordinal`` try for the coefficients of items, in observations; the strongest first."""


SEVERITIES = (30.0, 10.0, 5.0, 2.0)
"""Those that ``raters`` tries for how much higher or lower an annotator rates."""


SLOPES = (np.inf, 50.0, 15.0, 5.0)
"""Those it tries for how much more or less of the scale an annotator uses; infinity means no slopes at all."""


USUAL = 300.0
"""The penalty of items' coefficients while that of annotators is chosen."""


@dataclass(slots=True)
class Raters:
    """The line of ``linear``, ridge regression on the signals of every metric, and each annotator's severity and slope.

    The strongest penalties leave the line. Weaker ones are taken where they predict what was left out (the hardest that
    the data allow) better by more than a standard error. Where the judge's score on this metric rises and all else
    stays, no prediction falls. ``predict`` without an annotator, or with one that was not seen, is for the average
    annotator.
    """

    kind: Literal["raters"] = field(default="raters", kw_only=True)
    scale: tuple[float, float]
    seed: int = 0
    standardiser_: Standardiser = field(default_factory=Standardiser)
    score_: Standardiser = field(default_factory=Standardiser)
    intercept_: float = 0.0
    slope_: float = 0.0
    """On the score of this metric."""
    coefficients_: LearnedFloats = field(default_factory=lambda: np.zeros(0))
    """Of the signals."""
    severities_: dict[str, float] = field(default_factory=dict)
    slopes_: dict[str, float] = field(default_factory=dict)
    penalties_: dict[str, float | None] = field(default_factory=dict)
    """Of coefficients, severity and slope as chosen; None for an infinite one, which leaves that part out."""
    reach_: float = 0.0
    """How far from their mean the signals of 95% of the items lie (``Standardiser.distance``)."""

    def fit(self, items: Items, ratings: Ratings) -> Raters:
        """Learn from all ratings, each with its item's weight."""
        columns = self.standardiser_.fit(items.signals, ratings.weights).transform(items.signals)
        self.reach_ = usual_range(self.standardiser_.distance(items.signals), ratings.weights)[1]
        score = self.score_.fit(items.judge[:, None], ratings.weights).transform(items.judge[:, None])
        own = np.isin(self.standardiser_.used_, [2 * items.metric, 2 * items.metric + 1])
        gaps = np.zeros(columns.shape[1] - len(own), dtype=bool)
        problem = Problem.of(np.hstack([np.ones_like(score), score, columns]), score[:, 0], ratings, self.seed)
        rising = np.concatenate([[False, True], own, gaps])
        penalties = partial(_penalties, columns.shape[1])

        # One after the other, the strongest first: all together would be chosen by chance more often.
        severity = SEVERITIES[problem.choose([(penalties(USUAL), one, np.inf, rising) for one in SEVERITIES])]
        of_items = COEFFICIENTS[problem.choose([(penalties(one), severity, np.inf, rising) for one in COEFFICIENTS])]
        slope = SLOPES[problem.choose([(penalties(of_items), severity, one, rising) for one in SLOPES])]
        found = problem.whole.solve(penalties(of_items), severity, slope, rising)
        self.intercept_, self.slope_, self.coefficients_ = float(found.items[0]), float(found.items[1]), found.items[2:]
        # The average annotator is that of the ratings: one who gave many counts as many.
        share = np.bincount(ratings.annotator, problem.weights, len(ratings.annotators)) / problem.weights.sum()
        self.intercept_ += float(share @ found.severity)
        severities = found.severity - share @ found.severity
        self.severities_ = dict(zip(ratings.annotators, severities.tolist(), strict=True))
        if np.isfinite(slope):
            # An annotator's own slope may take all of the slope away, and not turn it round.
            of_score = self.standardiser_.used_ == 2 * items.metric
            least = -self.slope_ - float(self.coefficients_[: len(own)][of_score].sum())
            slopes = np.maximum(found.slope, least)
            self.slope_ += float(share @ slopes)
            self.slopes_ = dict(zip(ratings.annotators, (slopes - share @ slopes).tolist(), strict=True))
        chosen = {"coefficients": of_items, "severity": severity, "slope": slope}
        self.penalties_ = {name: value if np.isfinite(value) else None for name, value in chosen.items()}
        return self

    def predict(self, items: Items, annotators: Sequence[str] | None = None) -> Floats:
        """Shape (items,): each annotator's rating of the item, or that of the average annotator, on the scale."""
        # Severities and slopes are from the average annotator's, so that without a name they are left out.
        score = self.score_.transform(items.judge[:, None])[:, 0]
        found = self.intercept_ + self.slope_ * score + self.standardiser_.transform(items.signals) @ self.coefficients_
        if annotators is not None:
            severity = np.array([self.severities_.get(name, 0.0) for name in annotators])
            slope = np.array([self.slopes_.get(name, 0.0) for name in annotators])
            found = found + severity + slope * score
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

    def predict(self, items: Items, annotators: Sequence[str] | None = None) -> Floats:
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

    def predict(self, items: Items, annotators: Sequence[str] | None = None) -> Floats:
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

    def predict(self, items: Items, annotators: Sequence[str] | None = None) -> Floats:
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

    def predict(self, items: Items, annotators: Sequence[str] | None = None) -> Floats:
        """Shape (items,): straight between corners."""
        return _clipped(np.interp(items.judge, self.x_, self.y_), self.scale)


@dataclass(slots=True)
class Ordinal:
    """The line of ``linear``, and ridge regression on the cumulative log-odds of the judge's levels.

    Each level boundary has a coefficient, so how far apart the judge's levels are is learned, not taken for granted.
    None is below 0: a judge that is surer of a high level is never mapped to less. The penalty is chosen as that of
    ``raters``.
    """

    kind: Literal["ordinal"] = field(default="ordinal", kw_only=True)
    scale: tuple[float, float]
    seed: int = 0
    standardiser_: Standardiser = field(default_factory=Standardiser)
    score_: Standardiser = field(default_factory=Standardiser)
    intercept_: float = 0.0
    slope_: float = 0.0
    coefficients_: LearnedFloats = field(default_factory=lambda: np.zeros(0))

    def fit(self, items: Items, ratings: Ratings) -> Ordinal:
        """Learn a coefficient for each boundary. Raises ValueError where there are no levels."""
        odds = _odds(items)
        columns = self.standardiser_.fit(odds, ratings.weights).transform(odds)
        score = self.score_.fit(items.judge[:, None], ratings.weights).transform(items.judge[:, None])
        # Each item's mean rating as the only one, of nobody in particular.
        place = np.arange(len(columns))
        nobody = np.zeros_like(place)
        means = replace(ratings, item=place, annotator=nobody, scores=ratings.mean, annotators=("",))
        problem = Problem.of(np.hstack([np.ones_like(score), score, columns]), score[:, 0], means, self.seed)
        rising = np.append(False, np.full(1 + columns.shape[1], True))
        candidates = [(_penalties(columns.shape[1], one), np.inf, np.inf, rising) for one in COEFFICIENTS]
        learned = problem.whole.solve(*candidates[problem.choose(candidates)]).items
        self.intercept_, self.slope_, self.coefficients_ = float(learned[0]), float(learned[1]), learned[2:]
        return self

    def predict(self, items: Items, annotators: Sequence[str] | None = None) -> Floats:
        """Shape (items,). Raises ValueError where there are no levels, or another number of them."""
        odds = _odds(items)
        if odds.shape[1] != len(self.coefficients_):
            raise ValueError(f"{odds.shape[1] + 1} levels, but fitted on {len(self.coefficients_) + 1}")
        score = self.score_.transform(items.judge[:, None])[:, 0]
        found = self.intercept_ + self.slope_ * score + self.standardiser_.transform(odds) @ self.coefficients_
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


def usual_range(values: Floats, weights: Floats) -> tuple[float, float]:
    """The lowest and highest of shape (items,) between which the middle 95% of the weight lies, both included."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = np.searchsorted(share, [(1 - LEVEL) / 2 + 1e-12, (1 + LEVEL) / 2 - 1e-12])
    return float(values[order][low]), float(values[order][high])


def _penalties(columns: int, penalty: float) -> Floats:
    """Shape (2 + columns,): none for intercept and score, which are the line, and one for all other columns."""
    return np.append([0.0, 0.0], np.full(columns, penalty))


def _clipped(values: Floats, scale: tuple[float, float]) -> Floats:
    return np.asarray(np.clip(values, scale[0], scale[1]))


def _odds(items: Items) -> Floats:
    """Shape (items, K - 1): see ``log_odds``. Raises ValueError where a level probability is missing."""
    if items.levels is None or not np.isfinite(items.levels).all():
        raise ValueError("the level probabilities (p1, p2, ...) are missing")
    return log_odds(items.levels)
