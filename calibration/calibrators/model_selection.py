"""Which map to use for a metric: by how well each predicts items that it was not fitted on.

Items are left out in every way that the data allow. The hardest is the headline (a system at a time where there are
five or more), for a calibration is mostly used on systems that nobody has rated.

Predictions of different folds come from different fits, so pooling them lowers correlations by itself. The judge's
raw scores and the constant are therefore reported too, and the choice is made by squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.calibrators.cross_validation import (
    FEWEST_LEFT_OUT,
    Split,
    simplest_within_one_standard_error,
    splits,
)
from calibration.calibrators.features import Items, Ratings, training
from calibration.calibrators.maps import KINDS, unavailable
from calibration.pairing import Paired, Pairing
from calibration.stats.correlation import pearson, spearman
from calibration.stats.intervals import Floats, Labels, codes

CANNOT_RANK = "cannot rank systems on this metric"
"""The warning where the constant was chosen."""


BLOCKS = 50
"""Groups are merged into this many at most before each is left out in turn for a standard error."""


FEWEST_SYSTEMS = FEWEST_LEFT_OUT + 1
"""With fewer systems (or blocks) only groups are left out: a map fitted without one has to leave another out itself."""


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

    split: Split
    predicted: dict[str, Floats]
    """Kind -> shape (repeats, items), for an annotator who is not named."""
    rated: dict[str, Floats]
    """Kind -> shape (repeats, ratings), for each rating's annotator by name."""
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

    The standard error is that of the difference in squared error from the best kind, over the systems (blocks, groups)
    left out.

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
    headline = ways[0]
    of_items = {kind: ((headline.predicted[kind] - ratings.mean) ** 2).mean(axis=0) for kind in able}
    of_ratings = {kind: ((headline.rated[kind] - ratings.scores) ** 2).mean(axis=0) for kind in able}
    weights, split = ratings.weights, headline.split
    choices = (
        _choose(of_items, weights, split.labels, split.scheme),
        _choose(of_ratings, weights[ratings.item], split.labels[ratings.item], split.scheme),
    )
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
    """Each kind's predictions of items that it was not fitted on, by every way of leaving out, the hardest first."""
    every = []
    found = splits(ratings.sources, ratings.blocks, ratings.groups, seed=seed, fewest=FEWEST_SYSTEMS)
    # Only what is chosen by has to be the same with any seed.
    for split in [*found[:1], *(replace(other, folds=other.folds[:1]) for other in found[1:])]:
        repeats = len(split.folds)
        predicted = {"raw": np.tile(paired.judge, (repeats, 1))}
        rated = {"raw": np.tile(paired.judge[ratings.item], (repeats, 1))}
        for kind in kinds:
            predicted[kind] = np.empty((repeats, len(items.judge)))
            rated[kind] = np.empty((repeats, len(ratings.item)))
        for repeat, folds in enumerate(split.folds):
            for fold in np.unique(folds):
                held = folds == fold
                of_held = ratings.of(held)
                known, rest = (items.at(~held), ratings.at(~held)), items.at(held)
                asked = items.at(ratings.item[of_held])
                who = [ratings.annotators[place] for place in ratings.annotator[of_held]]
                for kind in kinds:
                    calibrator = KINDS[kind](paired.scale, seed).fit(*known)
                    predicted[kind][repeat, held] = calibrator.predict(rest)
                    rated[kind][repeat, of_held] = calibrator.predict(asked, who)
        one = OutOfFold(split, predicted, rated, {})
        every.append(replace(one, evaluations={kind: _evaluation(one, kind, paired, ratings) for kind in predicted}))
    return every


# Figures


def _evaluation(found: OutOfFold, kind: str, paired: Paired, ratings: Ratings) -> Evaluation:
    """The figures of one kind, each with its jackknife standard error over what was left out."""
    human, weights, predicted = ratings.mean, ratings.weights, found.predicted[kind]
    error, each = predicted - human, found.rated[kind] - ratings.scores
    counts = np.bincount(ratings.item)
    square = np.bincount(ratings.item, (each**2).mean(axis=0))

    def figure(statistic: Statistic) -> Figure:
        return Figure(statistic(np.full(len(human), True)), jackknife(statistic, found.split.labels))

    if kind == "constant":
        reason = "one number for every item ranks nothing"
    elif np.ptp(human) == 0:
        reason = "annotators rated every item the same"
    else:
        reason = "every item is predicted the same" if (np.ptp(predicted, axis=1) == 0).any() else ""

    def correlation(of: Callable[[Floats, Floats, Floats], Floats]) -> Figure:
        if reason:
            return Figure(None, reason=reason)

        # Every item counts once, whatever its chance of being rated.
        def mean(kept: NDArray[np.bool_]) -> float:
            return float(np.mean([of(one[kept], human[kept], np.ones(kept.sum())) for one in predicted]))

        return figure(mean)

    squared, absolute = (error**2).mean(axis=0), np.abs(error).mean(axis=0)
    return Evaluation(
        rmse=figure(lambda kept: float(np.average(squared[kept], weights=weights[kept]) ** 0.5)),
        mae=figure(lambda kept: float(np.average(absolute[kept], weights=weights[kept]))),
        pearson=correlation(pearson),
        spearman=correlation(spearman),
        rmse_ratings=figure(lambda kept: float((weights[kept] @ square[kept] / (weights * counts)[kept].sum()) ** 0.5)),
        system_spread_ratio=Figure(0.0) if kind == "constant" else _spread_ratio(predicted.mean(axis=0), human, paired),
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


def _choose(losses: Mapping[str, Floats], weights: Floats, labels: Labels, scheme: str) -> tuple[str, str]:
    """The simplest kind whose squared error, shape (rows,), is within one standard error of the best; and why."""
    kinds = list(losses)  # the simplest first
    place, best = simplest_within_one_standard_error(list(losses.values()), weights, labels)
    reason = "the best" if place == best else f"the simplest within one standard error of the best ({kinds[best]})"
    return kinds[place], f"{kinds[place]}: {reason}, {scheme}"
