"""Agreement with single ratings: exact, within one, weighted kappa, and scores of the whole distribution.

A predictor here is what it says of every rating: a whole score, and probabilities of the scores where it has them.
Every rating counts once, with its item's weight. All this is for ratings in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.pairing import Paired
from calibration.stats.intervals import Estimate, Floats, Resampler, clustered_mean

RATING_MEASURES = ("exact", "within_one", "qwk", "rps", "log_loss")


NO_LEVELS = "the table has no probabilities p1..pK of the scale's scores"


OFF_SCALE = "a rating is off the scale"


NOT_WHOLE = "ratings are not whole numbers"


MOST_BROKEN = 0.1
"""Up to this share of ratings that are not whole are left out; with more, nothing here is said."""


ROUNDING = 1e-12


LEAST = 1e-12
"""The smallest probability that log loss takes, so that one rating cannot make it infinite."""


@dataclass(frozen=True, slots=True)
class _Ratings:
    """All ratings of one metric, a row each."""

    value: Floats
    item: NDArray[np.intp]
    paired: Paired

    @property
    def weights(self) -> Floats:
        return self.paired.weights[self.item]

    def mean(self, values: Floats, characters: bool) -> Estimate:
        """The mean over ratings, with an interval over groups."""
        ways = self.paired.characters if characters else None
        return clustered_mean(
            values, self.paired.groups[self.item], self.weights, None if ways is None else ways[self.item]
        )


def agreement_with_ratings(paired: Paired, resampler: Resampler, characters: bool = False) -> dict[str, Estimate]:
    """How a judge's scores agree with each rating.

    ``exact`` and ``within_one`` are shares of ratings, the judge's expected score rounded half up; ``qwk`` is Cohen's
    (1968) kappa with quadratic weights over all whole scores of the scale, whether seen or not; ``rps`` is the ranked
    probability score over K - 1 (Epstein 1969; 0 best, 1 worst) and ``log_loss`` the mean of -ln p of the rating given.

    Args:
        paired: items that somebody rated.
    """
    ratings = _ratings(paired)
    rounded = _on_scale(np.floor(paired.judge + 0.5), paired)[ratings.item]
    return {
        **_whole(ratings, rounded, characters),
        "qwk": _kappa(ratings, rounded, resampler),
        **_of_distribution(ratings, paired.levels, characters),
    }


def agreement_with_constant(paired: Paired, characters: bool = False) -> dict[str, Estimate]:
    """The same of a predictor that says of every item what people say on average: their mean, and their shares.

    It is taken from the ratings it predicts, so it does a little better on them than it would on new ones.
    """
    ratings = _ratings(paired)
    constant = np.floor(np.average(ratings.value, weights=ratings.weights) + 0.5)
    rounded = np.full(len(ratings.value), constant)
    sums = _sums(ratings.value, rounded, ratings.weights).sum(axis=0)
    return {
        **_whole(ratings, rounded, characters),
        "qwk": _estimate_or_reason(kappa(sums)) if _is_whole(ratings.paired) else Estimate(None, reason=NOT_WHOLE),
        **_of_distribution(ratings, _shares(ratings), characters),
    }


def agreement_of_people(paired: Paired) -> dict[str, Estimate]:
    """``exact``, ``within_one`` and ``qwk`` of one person's rating with another's of the same item, over all pairs.

    Items count by their number of pairs over the number of their ratings less one, so that a rating counts once.
    """
    paired = _without_broken(paired)
    several = paired.at(paired.counts > 1)
    if not len(several.items):
        return dict.fromkeys(("exact", "within_one", "qwk"), Estimate(None, reason="no item has two ratings"))
    if not _is_whole(several):
        return dict.fromkeys(("exact", "within_one", "qwk"), Estimate(None, reason=NOT_WHOLE))
    one, other, weights = _pairs(several)
    apart = np.abs(one - other)
    both = _sums(np.append(one, other), np.append(other, one), np.append(weights, weights))
    return {
        "exact": Estimate(float(np.average(apart == 0, weights=weights))),
        "within_one": Estimate(float(np.average(apart <= 1, weights=weights))),
        "qwk": _estimate_or_reason(kappa(both.sum(axis=0))),
    }


def kappa(sums: Floats) -> Floats:
    """Cohen's kappa with quadratic weights from the sums of ``_sums`` along the last axis; NaN where undefined.

    One less the mean squared difference over that of independent scores with the same margins (Fleiss and Cohen 1973),
    so that no table is needed, and it is no matter which scores of the scale were seen.
    """
    n, x, y, squares, apart = np.moveaxis(sums, -1, 0)
    by_chance = n * squares - 2 * x * y
    known = by_chance > ROUNDING * n * squares
    return np.where(known, 1 - n * apart / np.where(known, by_chance, 1), np.nan)


def _ratings(paired: Paired) -> _Ratings:
    paired = _without_broken(paired)
    item, annotator = np.nonzero(np.isfinite(paired.ratings))
    return _Ratings(paired.ratings[item, annotator], item, paired)


def _without_broken(paired: Paired) -> Paired:
    """Without the ratings that are not whole (means of repeats, say), where those are few."""
    broken = np.isfinite(paired.ratings) & (paired.ratings != np.round(paired.ratings))
    if broken.sum() > MOST_BROKEN * np.isfinite(paired.ratings).sum():
        return paired
    return replace(paired, ratings=np.where(broken, np.nan, paired.ratings))


def _is_whole(paired: Paired) -> bool:
    known = paired.ratings[np.isfinite(paired.ratings)]
    return bool(np.all(known == np.round(known)))


def _on_scale(scores: Floats, paired: Paired) -> Floats:
    return np.clip(scores, np.floor(paired.scale[0]), np.ceil(paired.scale[1]))


def _shares(ratings: _Ratings) -> Floats | None:
    """The share of each whole score among the ratings, for every item; None where the judge gives none."""
    if ratings.paired.levels is None:
        return None
    shares = [np.average(ratings.value == value, weights=ratings.weights) for value in ratings.paired.values]
    return np.tile(shares, (len(ratings.paired.items), 1))


def _sums(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Shape (scores, 5): weight times 1, x, y, x² + y² and (x - y)², both from the middle of x."""
    middle = (x.min() + x.max()) / 2
    x, y = x - middle, y - middle
    return np.stack([np.ones(len(x)), x, y, x**2 + y**2, (x - y) ** 2], axis=1) * weights[:, None]


def _whole(ratings: _Ratings, rounded: Floats, characters: bool) -> dict[str, Estimate]:
    if not _is_whole(ratings.paired):
        return dict.fromkeys(("exact", "within_one"), Estimate(None, reason=NOT_WHOLE))
    apart = np.abs(rounded - ratings.value)
    return {
        "exact": ratings.mean((apart == 0).astype(float), characters),
        "within_one": ratings.mean((apart <= 1).astype(float), characters),
    }


def _kappa(ratings: _Ratings, rounded: Floats, resampler: Resampler) -> Estimate:
    """Kappa with a bootstrap interval."""
    if not _is_whole(ratings.paired):
        return Estimate(None, reason=NOT_WHOLE)
    sums = np.zeros((len(ratings.paired.items), 5))
    np.add.at(sums, ratings.item, _sums(ratings.value, rounded, ratings.weights))
    found = _estimate_or_reason(kappa(sums.sum(axis=0)))
    if found.value is None:
        return found
    return Estimate(found.value, *resampler.interval(kappa(resampler.sums(sums))))


def _estimate_or_reason(value: Floats) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, reason="all scores are the same")
    return Estimate(float(value))


def _of_distribution(ratings: _Ratings, levels: Floats | None, characters: bool) -> dict[str, Estimate]:
    paired = ratings.paired
    if levels is None or levels.shape[1] != len(paired.values):
        return dict.fromkeys(("rps", "log_loss"), Estimate(None, reason=NO_LEVELS))
    if not _is_whole(paired):
        return dict.fromkeys(("rps", "log_loss"), Estimate(None, reason=NOT_WHOLE))
    if not np.isin(ratings.value, paired.values).all():
        return dict.fromkeys(("rps", "log_loss"), Estimate(None, reason=OFF_SCALE))
    given = levels[ratings.item]
    below = (ratings.value[:, None] <= paired.values[:-1]).astype(float)
    scores = ((np.cumsum(given, axis=1)[:, :-1] - below) ** 2).sum(axis=1) / (len(paired.values) - 1)
    place = (ratings.value - paired.values[0]).astype(np.intp)
    chance = given[np.arange(len(place)), place]
    return {
        "rps": ratings.mean(scores, characters),
        "log_loss": ratings.mean(-np.log(np.maximum(chance, LEAST)), characters),
    }


def _pairs(paired: Paired) -> tuple[Floats, Floats, Floats]:
    """Every two ratings of an item by two people, and their weight: the item's over the number of its ratings less one.

    The ratings of an item stand side by side, so two of them are fewer than its number of ratings places apart.
    """
    item, annotator = np.nonzero(np.isfinite(paired.ratings))
    value, each = paired.ratings[item, annotator], paired.weights / (paired.counts - 1)
    lags = [(lag, np.flatnonzero(item[lag:] == item[:-lag])) for lag in range(1, int(paired.counts.max()))]
    one = np.concatenate([first for _, first in lags])
    other = np.concatenate([first + lag for lag, first in lags])
    return value[one], value[other], each[item[one]]
