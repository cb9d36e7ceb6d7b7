"""Agreement with single ratings: exact, within one, weighted kappa, and scores of the whole distribution.

What is compared with every rating is a whole score, and the probability of each score where there is one. Every rating
counts once, with its item's weight. All this is for ratings in whole numbers. The module knows of a predictor (a judge,
or a constant) no more than its scores and probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.pairing import Paired
from calibration.stats.correlation import kappa, kappa_draws
from calibration.stats.intervals import Estimate, Floats, Resampler, clustered_mean

RATING_MEASURES = ("exact", "within_one", "qwk", "rps", "log_loss")


NO_LEVELS = "the table has no probabilities p1..pK of the scale's scores"


OFF_SCALE = "a rating is off the scale"


NOT_WHOLE = "ratings are not whole numbers"


ALL_SAME = "all scores are the same"


MOST_BROKEN = 0.1
"""Up to this share of ratings that are not whole are left out; with more, no measure here is given."""


LEAST_PROBABILITY = 1e-12
"""The smallest probability that log loss takes, so that one rating cannot make it infinite."""


@dataclass(frozen=True, slots=True)
class _Ratings:
    """All ratings of one metric, as arrays of shape (ratings,)."""

    value: Floats
    item: NDArray[np.intp]
    """The place of each rating's item in ``paired``."""
    paired: Paired
    is_whole: bool
    """Whether all ratings are whole numbers."""

    @property
    def weights(self) -> Floats:
        return self.paired.weights[self.item]

    def measures(
        self, rounded: Floats, levels: Floats | None, qwk: Estimate, characters: bool = False
    ) -> dict[str, Estimate]:
        """Each of ``RATING_MEASURES`` of a predictor, with intervals over groups where it is a mean over ratings.

        Args:
            rounded: shape (ratings,), the whole score predicted for the item of each rating.
            levels: shape (items, K), the probability of each score of the scale; None where there are none.
            qwk: the weighted kappa, which is no mean over ratings.
        """
        paired, item = self.paired, self.item
        over = paired.characters[item] if characters and paired.characters is not None else None

        def mean(values: Floats) -> Estimate:
            return clustered_mean(values, paired.groups[item], self.weights, over)

        if not self.is_whole:
            whole = dict.fromkeys(("exact", "within_one"), Estimate(None, reason=NOT_WHOLE))
        else:
            apart = np.abs(rounded - self.value)
            whole = {"exact": mean((apart == 0).astype(float)), "within_one": mean((apart <= 1).astype(float))}
        if levels is None or levels.shape[1] != len(paired.values):
            of_distribution = dict.fromkeys(("rps", "log_loss"), Estimate(None, reason=NO_LEVELS))
        elif not self.is_whole:
            of_distribution = dict.fromkeys(("rps", "log_loss"), Estimate(None, reason=NOT_WHOLE))
        elif not np.isin(self.value, paired.values).all():
            of_distribution = dict.fromkeys(("rps", "log_loss"), Estimate(None, reason=OFF_SCALE))
        else:
            given = levels[item]
            # Both as cumulative distributions, of which that of a rating is a step; the last place is 1 in both.
            step = (self.value[:, None] <= paired.values[:-1]).astype(float)
            squares = ((np.cumsum(given, axis=1)[:, :-1] - step) ** 2).sum(axis=1)
            place = (self.value - paired.values[0]).astype(np.intp)
            chance = given[np.arange(len(place)), place]
            of_distribution = {
                "rps": mean(squares / (len(paired.values) - 1)),
                "log_loss": mean(-np.log(np.maximum(chance, LEAST_PROBABILITY))),
            }
        return {**whole, "qwk": qwk, **of_distribution}


def agreement_with_ratings(paired: Paired, resampler: Resampler, characters: bool = False) -> dict[str, Estimate]:
    """How a judge's scores agree with each rating.

    ``exact`` and ``within_one`` are shares of ratings, with the judge's expected score rounded half up. ``qwk`` is
    Cohen's (1968) kappa with quadratic weights over all whole scores of the scale, seen or not. ``rps`` is the ranked
    probability score over K - 1 (Epstein 1969; 0 is best, 1 worst), and ``log_loss`` the mean of -ln p of the rating.

    Args:
        paired: items with at least one rating.
        resampler: of the same items.
        characters: intervals that hold for other characters too.
    """
    ratings = _ratings(paired)
    ends = np.floor(paired.scale[0]), np.ceil(paired.scale[1])
    rounded = np.clip(np.floor(paired.judge + 0.5), *ends)[ratings.item]
    qwk = _kappa(ratings, rounded)
    if qwk.value is not None:
        draws = kappa_draws(rounded, ratings.value, ratings.weights, resampler.at(ratings.item))
        qwk = Estimate(qwk.value, *resampler.interval(draws))
    return ratings.measures(rounded, paired.levels, qwk, characters)


def agreement_with_constant(paired: Paired, characters: bool = False) -> dict[str, Estimate]:
    """The same measures of a predictor that gives every item the mean rating, and the share of each score.

    It is taken from the ratings it predicts, so it does a little better on them than it would on new ones. Shares are
    used only where the judge has probabilities too.
    """
    ratings = _ratings(paired)
    weights = ratings.weights
    # Rounded as a judge's expected score is, so that both are compared in whole scores.
    rounded = np.full(len(ratings.value), np.floor(np.average(ratings.value, weights=weights) + 0.5))
    levels = None
    if paired.levels is not None:
        shares = [np.average(ratings.value == value, weights=weights) for value in paired.values]
        levels = np.tile(shares, (len(paired.items), 1))
    return ratings.measures(rounded, levels, _kappa(ratings, rounded), characters)


def agreement_of_people(paired: Paired) -> dict[str, Estimate]:
    """``exact``, ``within_one`` and ``qwk`` of one annotator's rating with another's of the same item, over all pairs.

    A pair of ratings has the weight of its item over the number of the item's ratings less one, so that a rating counts
    once.
    """
    ratings = _ratings(paired)
    counts = ratings.paired.counts
    names = ("exact", "within_one", "qwk")
    if counts.max() < 2:
        return dict.fromkeys(names, Estimate(None, reason="no item has two ratings"))
    shared = counts[ratings.item] > 1
    value, item = ratings.value[shared], ratings.item[shared]
    if not np.all(value == np.round(value)):
        return dict.fromkeys(names, Estimate(None, reason=NOT_WHOLE))
    # The ratings of an item stand side by side, so any two of them are fewer than its number of ratings apart.
    firsts = [np.flatnonzero(item[lag:] == item[:-lag]) for lag in range(1, int(counts.max()))]
    first = np.concatenate(firsts)
    one, other = value[first], value[np.concatenate([places + lag for lag, places in enumerate(firsts, 1)])]
    weights = (ratings.paired.weights / np.maximum(counts - 1, 1))[item[first]]
    apart = np.abs(one - other)
    # Neither of the two is the first, so each pair is taken both ways round.
    qwk = kappa(np.append(one, other), np.append(other, one), np.append(weights, weights))
    return {
        "exact": Estimate(float(np.average(apart == 0, weights=weights))),
        "within_one": Estimate(float(np.average(apart <= 1, weights=weights))),
        "qwk": Estimate(qwk) if np.isfinite(qwk) else Estimate(None, reason=ALL_SAME),
    }


def _ratings(paired: Paired) -> _Ratings:
    """All ratings; without those that are not whole (means of repeats, say) where these are few."""
    known = np.isfinite(paired.ratings)
    broken = known & (paired.ratings != np.round(paired.ratings))
    is_few = broken.sum() <= MOST_BROKEN * known.sum()
    if is_few:
        paired = replace(paired, ratings=np.where(broken, np.nan, paired.ratings))
    item, annotator = np.nonzero(np.isfinite(paired.ratings))
    return _Ratings(paired.ratings[item, annotator], item, paired, bool(is_few))


def _kappa(ratings: _Ratings, rounded: Floats) -> Estimate:
    """The weighted kappa of predicted whole scores with the ratings, without an interval."""
    if not ratings.is_whole:
        return Estimate(None, reason=NOT_WHOLE)
    value = kappa(rounded, ratings.value, ratings.weights)
    return Estimate(value) if np.isfinite(value) else Estimate(None, reason=ALL_SAME)
