"""A panel of several judges: one score an item out of all of theirs, and what that gains on the best single judge.

A panel is the mean of the judges' scores, or an additive stacker: the line on that mean, and ridge regression on each
judge's log-odds (Wolpert 1992, "Stacked generalization"), with no coefficient below 0 (Breiman 1996, "Stacked
regressions"). The strongest penalty leaves the mean alone, so the choice between the two is that of a penalty.

What a panel gains is measured out of fold. The best single judge is picked by the same rule on the same training items,
as it would have to be in use: the best of several on all items was picked by the very ratings it is measured with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.calibrators.cross_validation import Split, splits
from calibration.calibrators.features import (
    LEAST_PROBABILITY,
    LearnedFloats,
    Ratings,
    Standardiser,
    log_odds,
)
from calibration.calibrators.model_selection import FEWEST_SYSTEMS
from calibration.calibrators.mixed_ridge import TINY
from calibration.calibrators.penalties import Candidate, Problem
from calibration.errors import InputError
from calibration.pairing import KEY, Paired, Pairing
from calibration.stats.correlation import CONSTANT, MIN_CORRELATED, spearman, spearman_draws
from calibration.stats.intervals import MIN_GROUPS, Estimate, Floats, Labels, Resampler, clustered_mean

PANEL = "panel"
"""What the mean of several judges is called where it stands beside them."""


ALIKE = 2.0
"""Judges' scales of which none is more than so many times as long as another are one: scores are averaged in points."""


MOST_STEPS = 10.0
"""A judge without a distribution is taken to tell at most so many levels and one apart."""


PENALTIES = (np.inf, 1000.0, 100.0, 10.0)
"""Of the log-odds, in observations, the strongest first: an infinite one leaves the line on the mean."""


# What several judges said of the same items


@dataclass(frozen=True, slots=True)
class Reading:
    """How several judges' scores of one metric are read."""

    scale: tuple[float, float]
    """Of the panel: the shortest of the judges' scales."""
    scales: tuple[tuple[float, float], ...]
    """Lowest and highest score of each judge."""
    levels: tuple[int, ...]
    """Of how many levels each judge gives the probabilities; 0 where it gives none."""

    @property
    def is_alike(self) -> bool:
        """Whether the scales are taken for one."""
        lengths = [high - low for low, high in self.scales]
        return max(lengths) <= ALIKE * min(lengths)

    def mean(self, scores: Floats) -> Floats:
        """Shape (items,): the mean of scores of shape (items, judges).

        In points where scales are alike; else of how far up its own scale each judge is, on the panel's scale.
        """
        if self.is_alike:
            return np.asarray(scores.mean(axis=1))
        low, high = self.scale
        return np.asarray(low + (high - low) * self._shares(scores).mean(axis=1))

    def columns(self, scores: Floats, levels: Sequence[Floats | None]) -> Floats:
        """Shape (items, 1 + 2 judges): the mean, each judge's score, each judge's log-odds.

        The log-odds are the mean of those of a judge's distribution. Where there is none they are those of how far up
        its scale the score is, half a level beyond either end, so that the ends are no infinities.

        Args:
            scores: shape (items, judges).
            levels: of each judge shape (items, levels); None where it gives none.
        """
        lengths = np.array([high - low for low, high in self.scales])
        steps = np.clip(lengths, 1.0, MOST_STEPS)
        inside = (self._shares(scores) * steps + 0.5) / (steps + 1)
        inside = np.clip(inside, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        odds = np.log(inside / (1 - inside))
        for place, given in enumerate(levels):
            if given is not None:
                odds[:, place] = log_odds(given).mean(axis=1)
        return np.column_stack([self.mean(scores), scores, odds])

    def _shares(self, scores: Floats) -> Floats:
        """How far up its own scale each score is, from 0 to 1."""
        low, high = np.array(self.scales).T
        return np.asarray(np.where(high > low, (scores - low) / np.where(high > low, high - low, 1.0), 0.5))


@dataclass(frozen=True, slots=True)
class Together:
    """One metric by several judges, over the items that all of them scored."""

    judges: tuple[str, ...]
    reading: Reading
    paired: Paired
    """With the mean of the judges in the judge's place."""
    columns: Floats
    """Shape (items, 1 + 2 judges): see ``Reading.columns``."""
    left_out: int
    """Rated items that some judges scored and others did not."""

    @property
    def training(self) -> tuple[Floats, Ratings]:
        """The columns and the mean ratings of the rated items; each mean as the only rating, of nobody in particular."""
        rated, one = self.paired.counts > 0, self.paired.labelled
        place = np.arange(len(one.items))
        means = Ratings(
            item=place,
            annotator=np.zeros_like(place),
            scores=one.human,
            annotators=("",),
            weights=one.weights,
            sources=one.sources,
            groups=one.groups,
            blocks=one.blocks,
        )
        return self.columns[rated], means


def together(pairings: Mapping[str, Pairing], metric: str) -> Together:
    """One metric by several judges.

    Args:
        pairings: by judge, of the same human ratings; each has the metric.

    Raises:
        InputError: no item was scored by all of them.
    """
    sides = [one.metrics[metric] for one in pairings.values()]
    shared = pd.Index(sides[0].items)
    for side in sides[1:]:
        shared = shared[shared.isin(side.items)]
    if shared.empty:
        raise InputError(f"no item was scored by all of {', '.join(pairings)} on {metric!r}; give runs of the same items")
    at = [side.at(pd.Index(side.items).get_indexer(shared)) for side in sides]
    rated = {str(item) for side in sides for item in side.labelled.items}
    levels = [one.levels for one in at]
    scales = tuple(one.scale for one in at)
    reading = Reading(
        scale=min(scales, key=lambda ends: ends[1] - ends[0]),
        scales=scales,
        levels=tuple(0 if one is None else one.shape[1] for one in levels),
    )
    scores = np.column_stack([one.judge for one in at])
    # A table may lack the groups that another has: the coarsest are taken, for they can only widen an interval.
    coarsest = min(at, key=lambda one: len(set(one.groups)))
    pooled = None
    if len(set(reading.levels)) == 1 and len(set(scales)) == 1 and reading.levels[0]:
        pooled = np.mean([one for one in levels if one is not None], axis=0)
    return Together(
        judges=tuple(pairings),
        reading=reading,
        paired=replace(coarsest, judge=reading.mean(scores), levels=pooled, scale=reading.scale),
        columns=reading.columns(scores, levels),
        left_out=len(rated - set(shared.astype(str))),
    )


def mean_panel(pairings: Mapping[str, Pairing], *, nominal: Iterable[str] = ()) -> Pairing:
    """The mean of several judges as a judge of its own, of all items that all of them scored, rated or not.

    It is fitted to nothing, so it may stand wherever a judge may. Where all judges give distributions over the same
    levels, it gives their mean (Stone 1961, the linear opinion pool).

    Args:
        pairings: by judge, of the same human ratings.
        nominal: metrics whose scores are names of kinds: these have no mean and are left out.

    Raises:
        InputError: there is no metric, or of one no item, that all of them scored.
    """
    names, every = set(nominal), list(pairings.values())
    shared = [name for name in every[0].metrics if all(name in one.metrics for one in every) and name not in names]
    if not shared:
        raise InputError(f"no metric with a mean was scored by all of {', '.join(pairings)}; give judges of the same")
    found = {name: together(pairings, name) for name in shared}
    tables = [pd.concat([getattr(one, which) for one in every]) for which in ("unjudged", "missing")]
    return Pairing(
        judge=f"{PANEL} of {', '.join(pairings)}",
        metrics={name: one.paired for name, one in found.items()},
        unjudged=tables[0].drop_duplicates(ignore_index=True),
        missing=tables[1].drop_duplicates(KEY, ignore_index=True),
        unrated={name: int((one.paired.counts == 0).sum()) for name, one in found.items()},
        remarks=(*_common_remarks(pairings), *(text for one in found.values() for text in panel_remarks(one))),
    )


def _common_remarks(pairings: Mapping[str, Pairing]) -> list[str]:
    """The warnings about each judge's pairing, once, with whose they are where they are not everybody's."""
    whose: dict[str, list[str]] = {}
    for judge, one in pairings.items():
        for text in one.remarks:
            whose.setdefault(text, []).append(judge)
    return [("" if len(of) == len(pairings) else f"{', '.join(of)}: ") + text for text, of in whose.items()]


def panel_remarks(found: Together) -> list[str]:
    """What is to be known of how several judges were put together, a sentence each."""
    said, metric = [], found.paired.metric
    if found.left_out:
        said.append(f"On {metric} {found.left_out:,} rated items were not scored by all judges: the panel is without them.")
    if not found.reading.is_alike:
        listed = ", ".join(f"{low:g} to {high:g}" for low, high in found.reading.scales)
        said.append(f"On {metric} the judges' scales differ ({listed}): the panel's mean is of how far up its own each is.")
    return said


# The map


@dataclass(frozen=True, slots=True)
class Additive:
    """A weighted sum of what several judges said, on the human scale."""

    standardiser: Standardiser
    coefficients: LearnedFloats
    """Shape (2 + 2 judges,): of 1, the mean, each score and each log-odds, in SDs; none but the first below 0."""
    penalty: float | None
    """Of the log-odds, in observations; None where they are left out."""

    @property
    def how(self) -> Literal["mean", "stacker"]:
        """Which panel it is."""
        return "mean" if self.penalty is None else "stacker"

    @property
    def weights(self) -> Floats | None:
        """Shape (judges,): each judge's part in the sum, by the SDs of what it says; None where all is left out."""
        count = (len(self.coefficients) - 2) // 2
        sd = self.standardiser.sd_
        own = self.coefficients[1] * sd[1 : 1 + count] / sd[0] / count + self.coefficients[2 + count :]
        return own / own.sum() if own.sum() > 0 else None

    def predict(self, columns: Floats) -> Floats:
        """Shape (items,), from ``Reading.columns``; it may leave the scale."""
        return np.asarray(self.coefficients[0] + self.standardiser.transform(columns) @ self.coefficients[1:])


@dataclass(frozen=True, slots=True)
class Fitted:
    """The panel's map, and one like it for each judge alone, of the same items."""

    panel: Additive
    singles: tuple[Additive, ...]
    best: int
    """The place of the judge whose own map predicts best what was left out."""


def fit_panel(columns: Floats, ratings: Ratings, levels: Sequence[int], seed: int = 0) -> Fitted:
    """Fit a panel and every judge alone, each with the simplest penalty within one standard error of the best.

    A judge alone gets what the panel gets: a line on its score and, where it gives a distribution, ridge regression on
    its log-odds.

    Args:
        columns: shape (items, 1 + 2 judges), as ``Reading.columns`` gives them.
        ratings: one of each item.
        levels: shape (judges,), as ``Reading`` has them.
        seed: of the folds.
    """
    judges = (columns.shape[1] - 1) // 2
    standardiser = Standardiser().fit(columns, ratings.weights)
    scaled = standardiser.transform(columns)
    design = np.hstack([np.ones((len(columns), 1)), scaled])
    problem = Problem.of(design, np.zeros(len(columns)), ratings, seed)
    rising = np.append(False, np.full(columns.shape[1], True))

    def candidates(line: int, odds: Sequence[int]) -> list[Candidate]:
        """A line on one column, and each penalty for some log-odds; all else is left out."""
        found = []
        for penalty in PENALTIES if odds else PENALTIES[:1]:
            penalties = np.full(design.shape[1], np.inf)
            penalties[[0, line]] = 0.0
            penalties[list(odds)] = penalty
            found.append((penalties, np.inf, np.inf, rising))
        return found

    fits, losses = [], []
    # Columns of the design are 1, the mean, the scores, the log-odds. Log-odds of a single score are that score again.
    score, odd = 2, 2 + judges
    alone = [(score + judge, [odd + judge] if levels[judge] else []) for judge in range(judges)]
    for line, odds in [(1, list(range(odd, odd + judges))), *alone]:
        tried = candidates(line, odds)
        errors = problem.losses(tried)
        place = problem.simplest(errors)
        penalty = PENALTIES[place]
        fits.append(
            Additive(standardiser, problem.whole.solve(*tried[place]).items, penalty if np.isfinite(penalty) else None)
        )
        losses.append(float(np.average(errors[place], weights=problem.weights)))
    return Fitted(fits[0], tuple(fits[1:]), int(np.argmin(losses[1:])))


# What it gains


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What panel and judges say of items that they were not fitted on."""

    split: Split
    panel: Floats
    """Shape (repeats, items)."""
    singles: Floats
    """Shape (judges, repeats, items)."""
    picked: NDArray[np.intp]
    """Shape (repeats, items): the judge that was the best on the items that this one was not among."""
    panel_order: Floats
    """As ``panel``, brought to mean 0 and SD 1 by what the same map gives all the items: maps of different folds differ in
    level and slope, which says nothing of how they order items, and would break ties and lower correlations."""
    singles_order: Floats


def out_of_fold(columns: Floats, ratings: Ratings, levels: Sequence[int], seed: int = 0) -> OutOfFold | None:
    """Leave out the hardest that the data allow and fit everything, choices included, without it.

    None where nothing can be left out. Arguments as for ``fit_panel``.
    """
    ways = splits(ratings.sources, ratings.blocks, ratings.groups, seed=seed, fewest=FEWEST_SYSTEMS)
    if not ways:
        return None
    split, judges = ways[0], (columns.shape[1] - 1) // 2
    values = np.empty((2, 1 + judges, *split.folds.shape))  # predictions, and orders
    picked = np.empty(split.folds.shape, dtype=np.intp)
    for repeat, folds in enumerate(split.folds):
        for fold in np.unique(folds):
            held = folds == fold
            fitted = fit_panel(columns[~held], ratings.at(~held), levels, seed)
            picked[repeat, held] = fitted.best
            for place, one in enumerate((fitted.panel, *fitted.singles)):
                predicted = one.predict(columns)
                spread = float(predicted.std())
                order = (predicted - predicted.mean()) / spread if spread > TINY else np.zeros(len(predicted))
                values[:, place, repeat, held] = predicted[held], order[held]
    return OutOfFold(split, values[0, 0], values[0, 1:], picked, values[1, 0], values[1, 1:])


@dataclass(frozen=True, slots=True)
class PanelGain:
    """What a panel of several judges gains on the best single one, on one metric; all of it out of fold."""

    metric: str
    judges: tuple[str, ...]
    items: int
    """Rated items that all judges scored."""
    left_out: int
    """Rated items that some judges scored and others did not."""
    how: Literal["mean", "stacker"]
    """The panel as chosen on all items; in each fold it is chosen anew."""
    weights: dict[str, float] | None
    """Each judge's part in it."""
    scheme: str | None
    """How items were left out; None where nothing could be."""
    best: str
    """The best single judge, picked on all items."""
    panel: dict[str, Estimate]
    """``spearman`` and ``mae`` with the mean ratings."""
    single: dict[str, Estimate]
    """The same of the best single judge, picked anew in each fold, with a map of its own."""
    gain: dict[str, Estimate]
    """``panel`` less ``single``, with paired intervals: a gain is above 0 for ``spearman`` and below 0 for ``mae``."""
    gain_on_best: dict[str, Estimate]
    """``panel`` less the judge ``best``, whose being the best was seen on these very items: this favours the judge."""

    @property
    def gains(self) -> bool | None:
        """Whether the interval of Spearman's gain lies above 0; None where there is none."""
        low = self.gain["spearman"].low
        return None if low is None else low > 0

    @property
    def sentence(self) -> str:
        """Whether the panel gains, to quote."""
        found = self.gain["spearman"]
        which = f"the {self.how} of {len(self.judges)} judges"
        if found.value is None or found.low is None or found.high is None:
            why = found.reason or f"there are under {MIN_GROUPS} groups"
            return f"On {self.metric} it cannot be said whether a panel ({which}) gains on the best single judge: {why}."
        apart = f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        over = f"over {self.items:,} items, out of fold"
        if found.low > 0:
            return f"On {self.metric} the panel ({which}) gains on the best single judge: Spearman {apart} {over}."
        if found.high < 0:
            return f"On {self.metric} the panel ({which}) loses to the best single judge: Spearman {apart} {over}; use {self.best} alone."
        return f"On {self.metric} the panel ({which}) does not gain on the best single judge: Spearman {apart} {over}; {self.best} alone will do."

    def to_dict(self) -> dict[str, Any]:
        """What programs read of it."""
        return {**asdict(self), "gains": self.gains, "sentence": self.sentence}

    @property
    def table(self) -> pd.DataFrame:
        """One number a row: ``metric, of, statistic, value, low, high, reason``."""
        rows = [
            {"metric": self.metric, "of": f"{of}_out_of_fold", "statistic": statistic, **asdict(estimate)}
            for of in ("panel", "single", "gain", "gain_on_best")
            for statistic, estimate in getattr(self, of).items()
        ]
        return pd.DataFrame(rows)


def panel_gains(
    pairings: Mapping[str, Pairing], *, nominal: Iterable[str] = (), characters: bool = False, seed: int = 0
) -> list[PanelGain]:
    """What a panel gains on every metric that all judges have.

    Args:
        pairings: by judge, of the same human ratings.
        nominal: metrics whose scores are names of kinds: of these there is no panel.
        characters: intervals that hold for other characters too.
        seed: of folds and bootstrap.
    """
    metrics = mean_panel(pairings, nominal=nominal).metrics
    return [panel_gain(together(pairings, metric), characters=characters, seed=seed) for metric in metrics]


def panel_gain(found: Together, *, characters: bool = False, seed: int = 0) -> PanelGain:
    """What a panel gains on one metric; see ``panel_gains``."""
    columns, ratings = found.training
    levels = found.reading.levels
    fitted = fit_panel(columns, ratings, levels, seed) if len(columns) else None
    folds = out_of_fold(columns, ratings, levels, seed) if len(columns) else None
    return gain_of(found, fitted, folds, characters=characters, seed=seed)


def gain_of(
    found: Together, fitted: Fitted | None, folds: OutOfFold | None, *, characters: bool = False, seed: int = 0
) -> PanelGain:
    """The same where panel and predictions out of fold are there already."""
    paired = found.paired.labelled
    how, weights, best = "mean", None, 0
    if fitted is not None:
        how, weights, best = fitted.panel.how, fitted.panel.weights, fitted.best
    about = {
        "metric": paired.metric,
        "judges": found.judges,
        "items": len(paired.items),
        "left_out": found.left_out,
        "how": how,
        "weights": None if weights is None else dict(zip(found.judges, weights.tolist(), strict=True)),
        "best": found.judges[best],
    }
    if folds is None:
        reason = "no rated item was scored by all" if fitted is None else "all rated items are of one group"
        none = dict.fromkeys(("spearman", "mae"), Estimate(None, reason=reason))
        return PanelGain(**about, scheme=None, panel=none, single=none, gain=none, gain_on_best=none)
    over = paired.characters if characters else None
    human, weight, (low, high) = paired.human, paired.weights, paired.scale
    picked = np.expand_dims(folds.picked, 0)
    sides = {
        "panel": (folds.panel, folds.panel_order),
        "single": tuple(np.take_along_axis(each, picked, 0)[0] for each in (folds.singles, folds.singles_order)),
        "best": (folds.singles[best], folds.singles_order[best]),
    }
    errors = {name: np.abs(np.clip(side[0], low, high) - human).mean(axis=0) for name, side in sides.items()}
    orders = {name: np.round(side[1], 9) for name, side in sides.items()}  # so that equal predictions are ties
    resampler = Resampler(paired.groups, over, seed=seed)
    ranks = {name: _mean_spearman(order, human, weight, resampler) for name, order in orders.items()}

    def difference(of: str, other: str | None = None) -> dict[str, Estimate]:
        apart = errors[of] - (0.0 if other is None else errors[other])
        value, draws = ranks[of]
        if other is not None:
            value, draws = value - ranks[other][0], None if draws is None else draws - ranks[other][1]
        reason = f"under {MIN_CORRELATED} items" if len(human) < MIN_CORRELATED else CONSTANT
        return {
            "spearman": resampler.estimate(value, draws, reason),
            "mae": clustered_mean(apart, paired.groups, weight, over),
        }

    return PanelGain(
        **about,
        scheme=folds.split.scheme,
        panel=difference("panel"),
        single=difference("single"),
        gain=difference("panel", "single"),
        gain_on_best=difference("panel", "best"),
    )


def _mean_spearman(
    orders: Floats, human: Floats, weights: Floats, resampler: Resampler
) -> tuple[float, Floats | None]:
    """Spearman's correlation, a mean over repeats of shape (repeats, items); and the same in every draw of groups."""
    if len(human) < MIN_CORRELATED:
        return float("nan"), None
    value = float(np.mean([spearman(one, human, weights) for one in orders]))
    if not resampler.is_enough or not np.isfinite(value):
        return value, None
    return value, np.mean([spearman_draws(one, human, weights, resampler) for one in orders], axis=0)
