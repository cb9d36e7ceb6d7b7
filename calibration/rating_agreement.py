"""Agreement with single ratings: exact, within one, weighted kappa, and scores of the whole distribution.

A predictor here is what it says of every rating: a whole score, and probabilities of the scores where it has them.
Every rating counts once, with its item's weight. All this is for ratings in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.pairing import Paired
from calibration.resampling import Estimate, Floats, Resampler, clustered_mean

__all__ = ["RATING_MEASURES", "agreement_of_people", "agreement_with_constant", "agreement_with_ratings", "kappa"]

RATING_MEASURES = ("exact", "within_one", "qwk", "rps", "log_loss")
NO_LEVELS = "the table has no probabilities p1..pK of the scale's scores"
NOT_WHOLE = "ratings are not whole numbers"
MOST_BROKEN = 0.1
"""Up to this share of ratings that are not whole are left out; with more, nothing here is said."""
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

    It is taken from the ratings it predicts, so it is the best constant there is, and a little better than on new ones.
    """
    ratings = _ratings(paired)
    constant = np.floor(np.average(ratings.value, weights=ratings.weights) + 0.5)
    shares = np.array([np.average(ratings.value == value, weights=ratings.weights) for value in paired.values])
    levels = np.tile(shares, (len(paired.items), 1)) if paired.levels is not None else None
    return {
        **_whole(ratings, np.full(len(ratings.value), constant), characters),
        "qwk": Estimate(0.0),
        **_of_distribution(ratings, levels, characters),
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
    table = _coincidences(several)
    apart = np.abs(np.subtract.outer(several.values, several.values))
    total = table.sum()
    return {
        "exact": Estimate(float(table[apart == 0].sum() / total)),
        "within_one": Estimate(float(table[apart <= 1].sum() / total)),
        "qwk": _estimate_or_reason(kappa(table)),
    }


def kappa(tables: Floats) -> Floats:
    """Cohen's kappa with quadratic weights from tables of two raters' scores, shape (..., K, K); NaN if undefined."""
    size = tables.shape[-1]
    apart = np.subtract.outer(np.arange(size), np.arange(size)) ** 2.0
    total = tables.sum(axis=(-1, -2))
    expected = tables.sum(axis=-1)[..., :, None] * tables.sum(axis=-2)[..., None, :]
    seen, by_chance = (tables * apart).sum(axis=(-1, -2)) * total, (expected * apart).sum(axis=(-1, -2))
    return np.where(by_chance > 0, 1 - seen / np.where(by_chance > 0, by_chance, 1), np.nan)


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
    return np.clip(scores, paired.values[0], paired.values[-1])


def _whole(ratings: _Ratings, rounded: Floats, characters: bool) -> dict[str, Estimate]:
    if not _is_whole(ratings.paired):
        return dict.fromkeys(("exact", "within_one"), Estimate(None, reason=NOT_WHOLE))
    apart = np.abs(rounded - ratings.value)
    return {
        "exact": ratings.mean((apart == 0).astype(float), characters),
        "within_one": ratings.mean((apart <= 1).astype(float), characters),
    }


def _kappa(ratings: _Ratings, rounded: Floats, resampler: Resampler) -> Estimate:
    """Kappa with a bootstrap interval, from a table of scores per cell."""
    if not _is_whole(ratings.paired):
        return Estimate(None, reason=NOT_WHOLE)
    lowest, size = ratings.paired.values[0], len(ratings.paired.values)
    place = ((rounded - lowest) * size + ratings.value - lowest).astype(np.intp)
    cells = resampler.cells[ratings.item]
    tables = np.zeros((resampler.weights.shape[1], size * size))
    np.add.at(tables, (cells, place), ratings.weights)
    found = _estimate_or_reason(kappa(tables.sum(axis=0).reshape(size, size)))
    if found.value is None or not resampler.is_enough:
        return found
    draws = kappa((resampler.weights @ tables).reshape(-1, size, size))
    return Estimate(found.value, *resampler.interval(draws))


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
    given = levels[ratings.item]
    below = (ratings.value[:, None] <= paired.values[:-1]).astype(float)
    scores = ((np.cumsum(given, axis=1)[:, :-1] - below) ** 2).sum(axis=1) / (len(paired.values) - 1)
    place = (ratings.value - paired.values[0]).astype(np.intp)
    chance = given[np.arange(len(place)), place]
    return {
        "rps": ratings.mean(scores, characters),
        "log_loss": ratings.mean(-np.log(np.maximum(chance, LEAST)), characters),
    }


def _coincidences(paired: Paired) -> Floats:
    """Pairs of ratings of one item by two people, shape (K, K): each item's ordered pairs over its ratings less one."""
    counts = np.stack([(paired.ratings == value).sum(axis=1) for value in paired.values], axis=1).astype(float)
    each = paired.weights / (counts.sum(axis=1) - 1)
    return np.asarray(np.einsum("i,ic,ik->ck", each, counts, counts) - np.diag(each @ counts))
