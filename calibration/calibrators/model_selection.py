"""Which map to use for a metric: by how well each predicts items that it was not fitted on.

Out of fold means: groups (scenarios) left out, five folds; and from five sources on, a source left out at a time, which
is the headline, for a calibration is mostly used on systems that nobody has rated.

Predictions of different folds come from different fits, so pooling them lowers correlations by itself. The judge's
raw scores and the constant therefore stand beside, and what is chosen is chosen by squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from calibration.calibrators.features import FOLDS, Items, Ratings, group_folds, training
from calibration.calibrators.maps import KINDS, unavailable
from calibration.pairing import Paired, Pairing
from calibration.stats.intervals import Floats, Labels, codes

CANNOT_RANK = "cannot rank systems on this metric"


BLOCKS = 50
"""Groups are merged into this many at most before each is left out in turn for a standard error."""


MIN_SOURCES = 5


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

    Against the items' mean ratings, without naming a rater; ``rmse_ratings`` is against each rating, with its rater
    named.
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
    """Kind -> shape (items,), for a rater that is not named."""
    rated: dict[str, Floats]
    """Kind -> shape (items, annotators), for each annotator by name."""
    evaluations: dict[str, Evaluation]


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen for a metric, and by what."""

    metric: str
    chosen: str
    """For an item's mean rating, no rater named."""
    why: str
    chosen_named: str
    """For the rating of a rater who is named."""
    why_named: str
    headline: OutOfFold | None
    """None where nothing could be left out."""
    others: tuple[OutOfFold, ...]
    skipped: dict[str, str]
    """Kinds that could not be fitted, and why."""
    remarks: tuple[str, ...]


def select(pairing: Pairing, metric: str, kinds: Iterable[str] | None = None, seed: int = 0) -> Selection:
    """Fit every kind out of fold, and choose the simplest within one standard error of the best.

    The standard error is that of the difference in squared error from the best, over the groups (sources) left out:
    what the items have in common is then no part of it. Raises ValueError for an unknown kind.
    """
    paired, items, ratings = training(pairing, metric)
    wanted = [kind for kind in KINDS if kind in _known(kinds)]
    skipped = {kind: reason for kind in wanted if (reason := unavailable(kind, items)) is not None}
    able = [kind for kind in wanted if kind not in skipped] or ["constant"]
    ways = [_out_of_fold(way, paired, items, ratings, able, seed) for way in _ways(paired, seed)]
    if not ways:
        return _unchecked(metric, able[0], skipped)
    headline, mean = ways[0], ratings.mean
    of_items = {kind: (headline.predicted[kind] - mean) ** 2 for kind in able}
    of_ratings = {kind: np.nanmean((headline.rated[kind] - ratings.scores) ** 2, axis=1) for kind in able}
    choices = [_choose(losses, ratings.weights, headline) for losses in (of_items, of_ratings)]
    remarks = _remarks(choices[0][0], headline)
    return Selection(metric, *choices[0], *choices[1], headline, tuple(ways[1:]), skipped, remarks)


def jackknife(statistic: Statistic, groups: Labels) -> float | None:
    """The standard error of a statistic by leaving out a group at a time; None with one group or an undefined value.

    Over 50 groups are merged into 50 of about one size. Quenouille's and Tukey's: sqrt((k - 1) / k sum (t_i - t)^2).
    """
    blocks = codes(groups)
    k = min(int(blocks.max()) + 1, BLOCKS)
    if k < 2:
        return None
    blocks = np.random.default_rng(0).permutation(np.arange(int(blocks.max()) + 1) % k)[blocks]
    left = np.array([statistic(blocks != block) for block in range(k)])
    return float(np.sqrt((k - 1) / k * ((left - left.mean()) ** 2).sum())) if np.isfinite(left).all() else None


# Leaving out


@dataclass(frozen=True, slots=True)
class _Way:
    scheme: str
    folds: NDArray[np.intp]
    left_out: Labels


def _ways(paired: Paired, seed: int) -> list[_Way]:
    """The ways of leaving out that the data allow, the headline first."""
    ways = []
    if (count := len(np.unique(paired.sources))) >= MIN_SOURCES:
        ways.append(_Way(f"leaving one of {count} sources out", codes(paired.sources), paired.sources))
    folds = group_folds(paired.groups, seed)
    if (count := int(folds.max()) + 1) > 1:
        few = "" if count == FOLDS else " (there are no more groups)"
        ways.append(_Way(f"{count} folds by group{few}", folds, paired.groups))
    return ways


def _out_of_fold(way: _Way, paired: Paired, items: Items, ratings: Ratings, kinds: list[str], seed: int) -> OutOfFold:
    predicted = {"raw": paired.judge.copy()}
    rated = {"raw": np.broadcast_to(paired.judge[:, None], ratings.scores.shape)}
    for kind in kinds:
        predicted[kind], rated[kind] = _predictions(kind, way.folds, paired.scale, items, ratings, seed)
    found = OutOfFold(way.scheme, way.left_out, predicted, rated, {})
    return replace(found, evaluations={kind: _evaluation(found, kind, paired, ratings) for kind in predicted})


def _predictions(
    kind: str, folds: NDArray[np.intp], scale: tuple[float, float], items: Items, ratings: Ratings, seed: int
) -> tuple[Floats, Floats]:
    """Shapes (items,) and (items, annotators): for nobody by name, and for each annotator."""
    predicted, rated = np.empty(len(items.judge)), np.empty(ratings.scores.shape)
    for fold in np.unique(folds):
        held = folds == fold
        calibrator = KINDS[kind](scale, seed).fit(items.at(~held), ratings.at(~held))
        predicted[held] = calibrator.predict(items.at(held))
        for column, annotator in enumerate(ratings.annotators):
            rated[held, column] = calibrator.predict(items.at(held), annotator)
    return predicted, rated


# Figures


def _evaluation(found: OutOfFold, kind: str, paired: Paired, ratings: Ratings) -> Evaluation:
    human, weights, predicted = ratings.mean, ratings.weights, found.predicted[kind]
    error, each = predicted - human, found.rated[kind] - ratings.scores
    square = np.nansum(each**2, axis=1)
    counts = np.isfinite(each).sum(axis=1)

    def figure(statistic: Statistic) -> Figure:
        return Figure(statistic(np.full(len(human), True)), jackknife(statistic, found.left_out))

    def correlation(of: Callable[[Floats, Floats], float]) -> Figure:
        if reason := _unrankable(kind, predicted, human):
            return Figure(None, reason=reason)
        return figure(lambda kept: of(predicted[kept], human[kept]))

    return Evaluation(
        rmse=figure(lambda kept: float(np.average(error[kept] ** 2, weights=weights[kept]) ** 0.5)),
        mae=figure(lambda kept: float(np.average(np.abs(error[kept]), weights=weights[kept]))),
        pearson=correlation(_pearson),
        spearman=correlation(lambda one, other: _pearson(stats.rankdata(one), stats.rankdata(other))),
        rmse_ratings=figure(lambda kept: float((weights[kept] @ square[kept] / (weights * counts)[kept].sum()) ** 0.5)),
        system_spread_ratio=Figure(0.0) if kind == "constant" else _spread_ratio(predicted, human, paired),
    )


def _unrankable(kind: str, predicted: Floats, human: Floats) -> str | None:
    """Why two columns have no correlation."""
    if kind == "constant":
        return "one number for every item ranks nothing"
    if np.ptp(human) == 0:
        return "people rated every item the same"
    return "every item is predicted the same" if np.ptp(predicted) == 0 else None


def _pearson(one: Floats, other: Floats) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / size if size > 0 else float("nan")


def _spread_ratio(predicted: Floats, human: Floats, paired: Paired) -> Figure:
    sources = codes(paired.sources)
    if sources.max() == 0:
        return Figure(None, reason="there is one source only")
    total = np.bincount(sources, weights=paired.weights)
    means = [np.bincount(sources, weights=paired.weights * values) / total for values in (predicted, human)]
    if np.ptp(means[1]) == 0:
        return Figure(None, reason="people's means of the sources are all the same")
    return Figure(float(np.std(means[0]) / np.std(means[1])))


# The choice


def _known(kinds: Iterable[str] | None) -> set[str]:
    wanted = set(KINDS) if kinds is None else set(kinds)
    if unknown := sorted(wanted - set(KINDS)):
        raise ValueError(f"no calibrator {', '.join(unknown)} (there are {', '.join(KINDS)})")
    return wanted


def _choose(losses: Mapping[str, Floats], weights: Floats, found: OutOfFold) -> tuple[str, str]:
    """The simplest kind whose squared error, shape (items,), is within one standard error of the best; and why."""
    best = min(losses, key=lambda kind: np.average(losses[kind], weights=weights))
    chosen = next(kind for kind in losses if _is_as_good(losses[kind] - losses[best], weights, found.left_out))
    reason = "the best" if chosen == best else f"the simplest within one standard error of the best ({best})"
    return chosen, f"{chosen}: {reason}, {found.scheme}"


def _is_as_good(worse_by: Floats, weights: Floats, groups: Labels) -> bool:
    def mean(kept: NDArray[np.bool_]) -> float:
        return float(np.average(worse_by[kept], weights=weights[kept]))

    return mean(np.full(len(weights), True)) <= (jackknife(mean, groups) or 0.0)


def _unchecked(metric: str, simplest: str, skipped: Mapping[str, str]) -> Selection:
    why = f"{simplest}: the simplest, for all items are of one group and nothing can be left out to compare by"
    remarks = (CANNOT_RANK,) if simplest == "constant" else ()
    remarks = ("not checked on items left out", *remarks)
    return Selection(metric, simplest, why, simplest, why, None, (), dict(skipped), remarks)


def _remarks(chosen: str, found: OutOfFold) -> tuple[str, ...]:
    if chosen == "constant":
        return (CANNOT_RANK,)
    ratio = found.evaluations[chosen].system_spread_ratio.value
    if ratio is not None and ratio < 0.5:
        return (f"draws systems together to {ratio:.2f} of the spread that people see between them",)
    return ()
