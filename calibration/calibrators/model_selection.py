"""Which map to use for a metric: by how well each predicts items that it was not fitted on.

Items are left out in two ways: groups (scenarios) in five folds and, where there are five systems or more, one system
at a time. The second is the headline, for a calibration is mostly used on systems that nobody has rated.

Predictions of different folds come from different fits, so pooling them lowers correlations by itself. The judge's
raw scores and the constant are therefore reported too, and the choice is made by squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from calibration.calibrators.features import FOLDS, Items, Ratings, group_folds, training
from calibration.calibrators.maps import KINDS, unavailable
from calibration.pairing import Paired, Pairing
from calibration.stats.correlation import pearson, spearman
from calibration.stats.intervals import Floats, Labels, codes

CANNOT_RANK = "cannot rank systems on this metric"
"""The warning where the constant was chosen."""


BLOCKS = 50
"""Groups are merged into this many at most before each is left out in turn for a standard error."""


MIN_SYSTEMS_TO_LEAVE_ONE_OUT = 5
"""With fewer systems, only groups are left out."""


Statistic = Callable[[NDArray[np.bool_]], float]
"""A number from the items that are kept."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its standard error over groups; ``value`` is None where it cannot be said, and ``reason`` why."""

    value: float | None
    se: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well one kind predicts items that it was not fitted on; ``raw`` is the judge's score as it is.

    Against the items' mean ratings, without naming an annotator; ``rmse_ratings`` is against each rating, with its
    annotator named.
    """

    rmse: Figure
    mae: Figure
    pearson: Figure
    spearman: Figure
    rmse_ratings: Figure
    system_spread_ratio: Figure
    """SD of the predicted means of sources over the SD of their human means: under 1, systems are drawn together."""


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Every kind's predictions of items that it was not fitted on, by one way of leaving out."""

    scheme: str
    """How: a phrase such as ``5 folds by group``."""
    left_out: Labels
    """Shape (items,): the source or group that standard errors are over."""
    predicted: dict[str, Floats]
    """Kind -> shape (items,), for an annotator who is not named."""
    rated: dict[str, Floats]
    """Kind -> shape (items, annotators), for each annotator by name."""
    evaluations: dict[str, Evaluation]


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen for a metric, and by what."""

    metric: str
    chosen: str
    """For an item's mean rating, no annotator named."""
    why: str
    chosen_named: str
    """For the rating of an annotator who is named."""
    why_named: str
    headline: OutOfFold | None
    """None where nothing could be left out."""
    others: tuple[OutOfFold, ...]
    skipped: dict[str, str]
    """Kinds that could not be fitted, and why."""
    remarks: tuple[str, ...]


def select(pairing: Pairing, metric: str, kinds: Iterable[str] | None = None, seed: int = 0) -> Selection:
    """Fit every kind out of fold, and choose the simplest within one standard error of the best.

    The standard error is that of the difference in squared error from the best kind, over the groups (or systems) left
    out. Both kinds predict the same items, so what makes an item hard for both is no part of it.

    Raises:
        ValueError: a kind is unknown.
    """
    paired, items, ratings = training(pairing, metric)
    named = set(KINDS) if kinds is None else set(kinds)
    if unknown := sorted(named - set(KINDS)):
        raise ValueError(f"no calibrator {', '.join(unknown)} (there are {', '.join(KINDS)})")
    wanted = [kind for kind in KINDS if kind in named]
    skipped = {kind: reason for kind in wanted if (reason := unavailable(kind, items)) is not None}
    able = [kind for kind in wanted if kind not in skipped] or ["constant"]
    ways = _out_of_fold(paired, items, ratings, able, seed)
    if not ways:
        simplest = able[0]
        why = f"{simplest}: the simplest, for all items are of one group and nothing can be left out to compare by"
        warnings: tuple[str, ...] = (
            "not checked on items left out",
            *((CANNOT_RANK,) if simplest == "constant" else ()),
        )
        return Selection(metric, simplest, why, simplest, why, None, (), skipped, warnings)
    headline, mean = ways[0], ratings.mean
    of_items = {kind: (headline.predicted[kind] - mean) ** 2 for kind in able}
    of_ratings = {kind: np.nanmean((headline.rated[kind] - ratings.scores) ** 2, axis=1) for kind in able}
    choices = [_choose(losses, ratings.weights, headline) for losses in (of_items, of_ratings)]
    ratio = headline.evaluations[choices[0][0]].system_spread_ratio.value
    if choices[0][0] == "constant":
        warnings = (CANNOT_RANK,)
    elif ratio is not None and ratio < 0.5:
        warnings = (f"draws systems together to {ratio:.2f} of the spread that annotators see between them",)
    else:
        warnings = ()
    return Selection(metric, *choices[0], *choices[1], headline, tuple(ways[1:]), skipped, warnings)


def jackknife(statistic: Statistic, groups: Labels) -> float | None:
    """The standard error of a statistic by leaving out a group at a time; None with one group or an undefined value.

    Over 50 groups are merged into 50 of about one size. Quenouille's and Tukey's: sqrt((k - 1) / k sum (t_i - t)^2).
    """
    blocks = codes(groups)
    k = min(int(blocks.max()) + 1, BLOCKS)
    if k < 2:
        return None
    # Merged at random, and always in the same way, so that a calibration is the same every time.
    blocks = np.random.default_rng(0).permutation(np.arange(int(blocks.max()) + 1) % k)[blocks]
    left = np.array([statistic(blocks != block) for block in range(k)])
    return float(np.sqrt((k - 1) / k * ((left - left.mean()) ** 2).sum())) if np.isfinite(left).all() else None


# Leaving out


def _out_of_fold(paired: Paired, items: Items, ratings: Ratings, kinds: list[str], seed: int) -> list[OutOfFold]:
    """Each kind's predictions of items that it was not fitted on, by every way of leaving out that the data allow.

    The headline comes first; the list is empty where all items are of one group.
    """
    ways = []  # each with its name, the fold of each item, and the group or system of each item
    if (count := len(np.unique(paired.sources))) >= MIN_SYSTEMS_TO_LEAVE_ONE_OUT:
        ways.append((f"leaving one of {count} sources out", codes(paired.sources), paired.sources))
    folds = group_folds(paired.groups, seed)
    if (count := int(folds.max()) + 1) > 1:
        few = "" if count == FOLDS else " (there are no more groups)"
        ways.append((f"{count} folds by group{few}", folds, paired.groups))
    every = []
    for scheme, folds, left_out in ways:
        predicted = {"raw": paired.judge.copy()}
        rated = {"raw": np.broadcast_to(paired.judge[:, None], ratings.scores.shape)}
        for kind in kinds:
            predicted[kind], rated[kind] = np.empty(len(items.judge)), np.empty(ratings.scores.shape)
            for fold in np.unique(folds):
                held = folds == fold
                calibrator = KINDS[kind](paired.scale, seed).fit(items.at(~held), ratings.at(~held))
                predicted[kind][held] = calibrator.predict(items.at(held))
                for column, annotator in enumerate(ratings.annotators):
                    rated[kind][held, column] = calibrator.predict(items.at(held), annotator)
        found = OutOfFold(scheme, left_out, predicted, rated, {})
        every.append(
            replace(found, evaluations={kind: _evaluation(found, kind, paired, ratings) for kind in predicted})
        )
    return every


# Figures


def _evaluation(found: OutOfFold, kind: str, paired: Paired, ratings: Ratings) -> Evaluation:
    """The figures of one kind, each with its jackknife standard error over what was left out."""
    human, weights, predicted = ratings.mean, ratings.weights, found.predicted[kind]
    error, each = predicted - human, found.rated[kind] - ratings.scores
    square = np.nansum(each**2, axis=1)
    counts = np.isfinite(each).sum(axis=1)

    def figure(statistic: Statistic) -> Figure:
        return Figure(statistic(np.full(len(human), True)), jackknife(statistic, found.left_out))

    if kind == "constant":
        reason = "one number for every item ranks nothing"
    elif np.ptp(human) == 0:
        reason = "annotators rated every item the same"
    else:
        reason = "every item is predicted the same" if np.ptp(predicted) == 0 else ""

    def correlation(of: Callable[[Floats, Floats, Floats], Floats]) -> Figure:
        if reason:
            return Figure(None, reason=reason)
        # Every item counts once, whatever its chance of being rated.
        return figure(lambda kept: float(of(predicted[kept], human[kept], np.ones(kept.sum()))))

    return Evaluation(
        rmse=figure(lambda kept: float(np.average(error[kept] ** 2, weights=weights[kept]) ** 0.5)),
        mae=figure(lambda kept: float(np.average(np.abs(error[kept]), weights=weights[kept]))),
        pearson=correlation(pearson),
        spearman=correlation(spearman),
        rmse_ratings=figure(lambda kept: float((weights[kept] @ square[kept] / (weights * counts)[kept].sum()) ** 0.5)),
        system_spread_ratio=Figure(0.0) if kind == "constant" else _spread_ratio(predicted, human, paired),
    )


def _spread_ratio(predicted: Floats, human: Floats, paired: Paired) -> Figure:
    """``Evaluation.system_spread_ratio``, from columns of shape (items,)."""
    sources = codes(paired.sources)
    if sources.max() == 0:
        return Figure(None, reason="there is one system only")
    total = np.bincount(sources, weights=paired.weights)
    means = [np.bincount(sources, weights=paired.weights * values) / total for values in (predicted, human)]
    if np.ptp(means[1]) == 0:
        return Figure(None, reason="the human means of the systems are all the same")
    return Figure(float(np.std(means[0]) / np.std(means[1])))


# The choice


def _choose(losses: Mapping[str, Floats], weights: Floats, found: OutOfFold) -> tuple[str, str]:
    """The simplest kind whose squared error, shape (items,), is within one standard error of the best; and why."""
    # Kinds come the simplest first: the first within reach of the best is taken.
    best = min(losses, key=lambda kind: np.average(losses[kind], weights=weights))
    everything = np.full(len(weights), True)

    def worse_by(kind: str, kept: NDArray[np.bool_]) -> float:
        return float(np.average((losses[kind] - losses[best])[kept], weights=weights[kept]))

    chosen = next(
        kind
        for kind in losses
        if worse_by(kind, everything) <= (jackknife(partial(worse_by, kind), found.left_out) or 0.0)
    )
    reason = "the best" if chosen == best else f"the simplest within one standard error of the best ({best})"
    return chosen, f"{chosen}: {reason}, {found.scheme}"
