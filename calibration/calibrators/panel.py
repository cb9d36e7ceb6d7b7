"""A panel of several judges: one score an item out of all of theirs, and what that gains on the best single judge.

A panel is the mean of the judges' scores, or an additive stacker: the line on that mean, and ridge regression on each
judge's log-odds (Wolpert 1992, "Stacked generalization"), with no coefficient below 0 (Breiman 1996, "Stacked
regressions"). The strongest penalty leaves the mean alone, so the choice between the two is that of a penalty.

What a panel gains is measured out of fold. The best single judge is picked on the same training items, as it would have
to be in use: the best of several on all items was picked by the very ratings it is measured with.
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
    LearnedFloats,
    Ratings,
    Standardiser,
    log_odds,
)
from calibration.calibrators.mixed_ridge import TINY
from calibration.calibrators.model_selection import FEWEST_SYSTEMS
from calibration.calibrators.penalties import Candidate, Problem
from calibration.errors import InputError
from calibration.pairing import KEY, Paired, Pairing
from calibration.stats.correlation import CONSTANT, MIN_CORRELATED, spearman, spearman_draws
from calibration.stats.intervals import MIN_GROUPS, Estimate, Floats, Resampler, clustered_mean

PANEL = "panel"
"""What the mean of several judges is called where it stands beside them."""


ALIKE = 2.0
"""Judges' scales of which none is more than so many times as long as another are one: scores are averaged in points."""


How = Literal["mean", "single", "stacker"]
"""What a panel was chosen to be: the mean of the judges, the best of them alone, or a weighted sum."""


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
        inside = (np.clip(self._shares(scores), 0, 1) * steps + 0.5) / (steps + 1)
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
        """The columns and mean ratings of the rated items; each mean as the only rating, of nobody in particular."""
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


def together(pairings: Mapping[str, Pairing], metric: str) -> Together | None:
    """One metric by several judges; None where no item was scored by all of them.

    Args:
        pairings: by judge, of the same human ratings; each has the metric.
    """
    sides = [one.metrics[metric] for one in pairings.values()]
    shared = pd.Index(sides[0].items)
    for side in sides[1:]:
        shared = shared[shared.isin(side.items)]
    if shared.empty:
        return None
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
    metrics = [name for name in every[0].metrics if all(name in one.metrics for one in every) and name not in names]
    found = {name: one for name in metrics if (one := together(pairings, name)) is not None}
    if not found:
        raise InputError(f"no item of a metric with a mean was scored by all of {', '.join(pairings)}")
    apart = [f"On {name} no item was scored by all judges: there is no panel." for name in metrics if name not in found]
    tables = [pd.concat([getattr(one, which) for one in every]) for which in ("unjudged", "missing")]
    return Pairing(
        judge=f"{PANEL} of {', '.join(pairings)}",
        metrics={name: one.paired for name, one in found.items()},
        unjudged=tables[0].drop_duplicates(ignore_index=True),
        missing=tables[1].drop_duplicates(KEY, ignore_index=True),
        unrated={name: int((one.paired.counts == 0).sum()) for name, one in found.items()},
        remarks=(
            *common_remarks({name: one.remarks for name, one in pairings.items()}),
            *apart,
            *(text for one in found.values() for text in panel_remarks(one)),
        ),
        composites=tuple(name for name in every[0].composites if name in found),
    )


def common_remarks(remarks: Mapping[str, Iterable[str]]) -> list[str]:
    """The warnings about each judge, once, with whose they are where they are not everybody's."""
    whose: dict[str, list[str]] = {}
    for judge, texts in remarks.items():
        for text in texts:
            whose.setdefault(text, []).append(judge)
    return [("" if len(of) == len(remarks) else f"{', '.join(of)}: ") + text for text, of in whose.items()]


def panel_remarks(found: Together) -> list[str]:
    """What is to be known of how several judges were put together, a sentence each."""
    said, metric = [], found.paired.metric
    if found.left_out:
        said.append(
            f"On {metric} {found.left_out:,} rated items were not scored by all judges: the panel is without them."
        )
    if not found.reading.is_alike:
        listed = ", ".join(f"{low:g} to {high:g}" for low, high in found.reading.scales)
        said.append(
            f"On {metric} the judges' scales differ ({listed}): the panel's mean is of how far up its own each is."
        )
    return said


# The map


@dataclass(frozen=True, slots=True)
class Additive:
    """A weighted sum of what several judges said, on the human scale."""

    how: How
    standardiser: Standardiser
    coefficients: LearnedFloats
    """Shape (2 + 2 judges,): of 1, the mean, each score and each log-odds, in SDs; none but the first below 0."""

    @property
    def weights(self) -> Floats | None:
        """Shape (judges,): each judge's part in the sum, by the SDs of what it says; None where all is left out."""
        count, sd = (len(self.coefficients) - 2) // 2, self.standardiser.sd_
        of_mean, of_scores, of_odds = np.split(self.coefficients[1:], [1, 1 + count])
        own = of_mean * sd[1 : 1 + count] / sd[0] / count + of_scores + of_odds
        return own / own.sum() if own.sum() > 0 else None

    def predict(self, columns: Floats) -> Floats:
        """Shape (items,), from ``Reading.columns``; it may leave the scale."""
        return np.asarray(self.coefficients[0] + self.standardiser.transform(columns) @ self.coefficients[1:])


@dataclass(frozen=True, slots=True)
class Fitted:
    """All maps that a panel may be, fitted to the same items."""

    maps: tuple[Additive, ...]
    """The mean, a stacker for each penalty, and each judge alone."""
    chosen: int
    """The place of the panel among them."""
    best: int
    """The place among the judges of the one whose own map predicts best what was left out."""

    @property
    def panel(self) -> Additive:
        """The map that was chosen."""
        return self.maps[self.chosen]


def fit_panel(columns: Floats, ratings: Ratings, levels: Sequence[int], seed: int = 0) -> Fitted:
    """Fit every judge alone and a panel, each the simplest within one standard error of the best by what is left out.

    A judge alone is a line on its score and, where it gives a distribution, ridge regression on its log-odds. The panel
    is the mean, else the best judge alone, else a stacker with the strongest penalty that will do.

    Args:
        columns: shape (items, 1 + 2 judges), as ``Reading.columns`` gives them.
        ratings: one of each item.
        levels: shape (judges,), as ``Reading`` has them.
        seed: of the folds.
    """
    judges = (columns.shape[1] - 1) // 2
    standardiser = Standardiser().fit(columns, ratings.weights)
    design = np.hstack([np.ones((len(columns), 1)), standardiser.transform(columns)])
    problem = Problem.of(design, np.zeros(len(columns)), ratings, seed)
    rising = np.append(False, np.full(columns.shape[1], True))

    def candidate(line: int, odds: Sequence[int], penalty: float) -> Candidate:
        """A line on one column, and a penalty for some log-odds; all else is left out."""
        penalties = np.full(design.shape[1], np.inf)
        penalties[[0, line]] = 0.0
        penalties[list(odds)] = penalty
        return penalties, np.inf, np.inf, rising

    # Columns of the design are 1, the mean, the scores, the log-odds. With an infinite penalty a stacker is the mean.
    score, odd = 2, 2 + judges
    tried = [candidate(1, range(odd, odd + judges), penalty) for penalty in PENALTIES]
    errors = problem.losses(tried)
    for judge in range(judges):
        # Without a distribution the log-odds are those of the score: the score once more, so the line is all there is.
        odds = [odd + judge] if levels[judge] else []
        own = [candidate(score + judge, odds, penalty) for penalty in (PENALTIES if odds else PENALTIES[:1])]
        of_own = problem.losses(own)
        place = problem.simplest(of_own)
        tried.append(own[place])
        errors.append(of_own[place])
    panels = len(PENALTIES)
    best = int(np.argmin([np.average(one, weights=problem.weights) for one in errors[panels:]]))
    # A single judge stands before the stackers, which have as many weights as there are judges.
    order = [0, panels + best, *range(1, panels)]
    chosen = order[problem.simplest([errors[place] for place in order])]
    kinds: list[How] = ["mean", *["stacker"] * (panels - 1), *["single"] * judges]  # type: ignore[list-item]
    maps = (Additive(how, standardiser, problem.whole.solve(*one).items) for how, one in zip(kinds, tried, strict=True))
    return Fitted(tuple(maps), chosen, best)


# What it gains


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What every map says of items that it was not fitted on, and what was chosen without them."""

    split: Split
    predicted: Floats
    """Shape (maps, repeats, items), the maps as ``Fitted`` has them."""
    order: Floats
    """The same brought to mean 0 and SD 1 by what the same map gives all the items: maps of different folds differ in
    level and slope, which says nothing of how they order items, and would break ties and lower correlations."""
    chosen: NDArray[np.intp]
    """Shape (repeats, items): the place of the map that was the panel without the item."""
    best: NDArray[np.intp]
    """Shape (repeats, items): the place among the maps of the best single judge without the item."""

    @property
    def panel(self) -> Floats:
        """Shape (repeats, items): what the panel that was chosen without the item says of it."""
        return np.asarray(np.take_along_axis(self.predicted, self.chosen[None], axis=0)[0])


def out_of_fold(columns: Floats, ratings: Ratings, levels: Sequence[int], seed: int = 0) -> OutOfFold | None:
    """Leave out the hardest that the data allow and fit everything, choices included, without it.

    None where nothing can be left out. Arguments as for ``fit_panel``.
    """
    ways = splits(ratings.sources, ratings.blocks, ratings.groups, seed=seed, fewest=FEWEST_SYSTEMS)
    if not ways:
        return None
    split = ways[0]
    shape, maps = split.folds.shape, len(PENALTIES) + (columns.shape[1] - 1) // 2
    predicted, order = np.empty((maps, *shape)), np.zeros((maps, *shape))
    chosen, best = np.empty(shape, dtype=np.intp), np.empty(shape, dtype=np.intp)
    for repeat, folds in enumerate(split.folds):
        for fold in np.unique(folds):
            held = folds == fold
            fitted = fit_panel(columns[~held], ratings.at(~held), levels, seed)
            chosen[repeat, held], best[repeat, held] = fitted.chosen, len(PENALTIES) + fitted.best
            for place, one in enumerate(fitted.maps):
                values = one.predict(columns)
                predicted[place, repeat, held] = values[held]
                if (spread := float(values.std())) > TINY:
                    order[place, repeat, held] = (values[held] - values.mean()) / spread
    return OutOfFold(split, predicted, order, chosen, best)


@dataclass(frozen=True, slots=True)
class PanelGain:
    """What a panel of several judges gains on the best single one, on one metric; all of it out of fold."""

    metric: str
    judges: tuple[str, ...]
    items: int
    """Rated items that all judges scored."""
    left_out: int
    """Rated items that some judges scored and others did not."""
    how: How
    """The panel as chosen on all items; in each fold it is chosen anew."""
    weights: dict[str, float] | None
    """Each judge's part in it."""
    scheme: str | None
    """How items were left out; None where nothing could be."""
    best: str
    """The best single judge, picked on all items."""
    picked: dict[str, float] | None
    """By judge, the share of items left out without which it was the best single one."""
    panel: dict[str, Estimate]
    """``spearman`` and ``mae`` with the mean ratings."""
    single: dict[str, Estimate]
    """The same of the best single judge: each judge with a map of its own, a mean over judges by ``picked``."""
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
        found, metric = self.gain["spearman"], self.metric
        if found.value is None or found.low is None or found.high is None:
            why = found.reason or f"there are under {MIN_GROUPS} groups"
            return f"On {metric} it cannot be said whether a panel gains on the best single judge: {why}."
        which = "a stacker" if self.how == "stacker" else "the mean"
        apart = f"Spearman {found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        over = f"over {self.items:,} items, out of fold"
        if self.how == "single":  # what is not 0 then is the choices of folds that chose otherwise
            down = f"On {metric} the panel does not gain on the best single judge: it comes down to {self.best} alone"
            return f"{down} ({apart} {over}, as the choice is made anew in each)."
        if found.low > 0:
            return f"On {metric} the panel ({which}) gains on the best single judge: {apart} {over}."
        if found.high < 0:
            return (
                f"On {metric} the panel ({which}) is worse than the best single judge: {apart} {over}; use {self.best}."
            )
        text = f"On {metric} the panel ({which}) does not gain on the best single judge: {apart} {over};"
        return f"{text} {self.best} will do."

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
    found = (together(pairings, metric) for metric in mean_panel(pairings, nominal=nominal).metrics)
    return [panel_gain(one, characters=characters, seed=seed) for one in found if one is not None]


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
    how: How = "mean"
    weights, best = None, 0
    if fitted is not None:
        how, weights, best = fitted.panel.how, fitted.panel.weights, fitted.best
    about: dict[str, Any] = {
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
        return PanelGain(**about, scheme=None, picked=None, panel=none, single=none, gain=none, gain_on_best=none)
    over = paired.characters if characters else None
    human, weight, (low, high) = paired.human, paired.weights, paired.scale
    resampler = Resampler(paired.groups, over, seed=seed)

    # Each map is looked at as a whole, and counts by how often it was chosen. Items put together from different maps,
    # as folds differ in what they choose, would be worse than any of them: a fold that is hard for a judge is the one
    # without which it is chosen.
    shares = [np.bincount(of.ravel(), minlength=len(folds.order)) / of.size for of in (folds.chosen, folds.best)]
    picked, place_of_best = shares[1][len(PENALTIES) :], len(PENALTIES) + best
    sides = {}
    for place in {*np.flatnonzero(shares[0] + shares[1]).tolist(), place_of_best}:
        errors = np.abs(np.clip(folds.predicted[place], low, high) - human).mean(axis=0)
        order = np.round(folds.order[place], 9)  # so that equal predictions are ties
        sides[place] = _Side(errors, *_mean_spearman(order, human, weight, resampler))
    panel, single = (_mixed(sides, share) for share in shares)

    def estimates(side: _Side, other: _Side | None = None) -> dict[str, Estimate]:
        value, draws, errors = side.spearman, side.draws, side.errors
        if other is not None:
            value, errors = value - other.spearman, errors - other.errors
            draws = None if draws is None or other.draws is None else draws - other.draws
        reason = f"under {MIN_CORRELATED} items" if len(human) < MIN_CORRELATED else CONSTANT
        return {
            "spearman": resampler.estimate(value, draws, reason),
            "mae": clustered_mean(errors, paired.groups, weight, over),
        }

    return PanelGain(
        **about,
        scheme=folds.split.scheme,
        picked=dict(zip(found.judges, picked.tolist(), strict=True)),
        panel=estimates(panel),
        single=estimates(single),
        gain=estimates(panel, single),
        gain_on_best=estimates(panel, sides[place_of_best]),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """How well one panel or judge does out of fold."""

    errors: Floats
    """Shape (items,): absolute errors, means over repeats."""
    spearman: float
    draws: Floats | None
    """Shape (draws,): Spearman in every draw of groups; None where there are too few groups, or there is no value."""


def _mixed(sides: Mapping[int, _Side], shares: Floats) -> _Side:
    """What several maps do on average, each counting by its share."""
    there = {place: float(share) for place, share in enumerate(shares) if share}
    draws = [share * each for place, share in there.items() if (each := sides[place].draws) is not None]
    return _Side(
        errors=np.asarray(sum(share * sides[place].errors for place, share in there.items())),
        spearman=sum(share * sides[place].spearman for place, share in there.items()),
        draws=np.asarray(sum(draws)) if len(draws) == len(there) else None,
    )


def _mean_spearman(orders: Floats, human: Floats, weights: Floats, resampler: Resampler) -> tuple[float, Floats | None]:
    """Spearman's correlation, a mean over repeats of shape (repeats, items); and the same in every draw of groups."""
    if len(human) < MIN_CORRELATED:
        return float("nan"), None
    value = float(np.mean([spearman(one, human, weights) for one in orders]))
    if not resampler.is_enough or not np.isfinite(value):
        return value, None
    return value, np.mean([spearman_draws(one, human, weights, resampler) for one in orders], axis=0)
