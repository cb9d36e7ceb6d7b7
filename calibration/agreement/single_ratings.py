"""Agreement with single ratings: exact, within one, weighted kappa, and scores of the whole distribution.

What is compared with every rating is a score of the scale, and the probability of each score where there is one. Every
rating counts once, with its item's weight. All this is for ratings in steps (``Paired.step``), and distributions for
whole numbers. The module knows of a predictor (a judge, or a constant) no more than its scores and probabilities.
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


NO_STEPS = "ratings lie in no even steps"


NOT_WHOLE = "ratings are not whole numbers"


ALL_SAME = "all scores are the same"


LEAST_PROBABILITY = 1e-12
"""The smallest probability that log loss takes, so that one rating cannot make it infinite."""


@dataclass(frozen=True, slots=True)
class _Ratings:
    """All ratings of one metric, as arrays of shape (ratings,)."""

    value: Floats
    item: NDArray[np.intp]
    """The place of each rating's item in ``paired``."""
    paired: Paired
    step: float | None
    """How far apart neighbouring scores are; None where ratings lie in no even steps."""

    @property
    def weights(self) -> Floats:
        return self.paired.weights[self.item]

    def measures(
        self, rounded: Floats, levels: Floats | None, qwk: Estimate, characters: bool = False
    ) -> dict[str, Estimate]:
        """Each of ``RATING_MEASURES`` of a predictor, with intervals over groups where it is a mean over ratings.

        Args:
            rounded: shape (ratings,), the score of the scale predicted for the item of each rating.
            levels: shape (items, K), the probability of each score of the scale; None where there are none.
            qwk: the weighted kappa, which is no mean over ratings.
        """
        paired, item = self.paired, self.item
        over = paired.characters[item] if characters and paired.characters is not None else None

        def mean(values: Floats) -> Estimate:
            return clustered_mean(values, paired.groups[item], self.weights, over)

        if self.step is None:
            whole = dict.fromkeys(("exact", "within_one"), Estimate(None, reason=NO_STEPS))
        else:
            steps = np.abs(rounded - self.value) / self.step
            whole = {"exact": mean((steps < 0.5).astype(float)), "within_one": mean((steps < 1.5).astype(float))}
        if levels is None or levels.shape[1] != len(paired.values):
            of_distribution = dict.fromkeys(("rps", "log_loss"), Estimate(None, reason=NO_LEVELS))
        elif self.step is None or self.step < 1:
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

    ``exact`` and ``within_one`` (one step) are shares of ratings, with the judge's expected score rounded half up to
    the scale's steps. ``qwk`` is Cohen's (1968) kappa with quadratic weights over all scores of the scale, seen or not.
    ``rps`` is the ranked probability score over K - 1 (Epstein 1969; 0 is best, 1 worst), and ``log_loss`` the mean of
    -ln p of the rating.

    Args:
        paired: items with at least one rating.
        resampler: of the same items.
        characters: intervals that hold for other characters too.
    """
    ratings = _ratings(paired)
    rounded = paired.in_steps(paired.judge)[ratings.item]
    qwk = _kappa(ratings, rounded)
    if qwk.value is not None:
        draws = kappa_draws(rounded, ratings.value, ratings.weights, resampler.at(ratings.item))
        qwk = Estimate(qwk.value, *resampler.interval(qwk.value, draws))
    return ratings.measures(rounded, paired.levels, qwk, characters)


def agreement_with_constant(paired: Paired, characters: bool = False) -> dict[str, Estimate]:
    """The same measures of a predictor that gives every item the mean rating, and the share of each score.

    It is taken from the ratings it predicts, so it does a little better on them than it would on new ones. Shares are
    used only where the judge has probabilities too.
    """
    ratings = _ratings(paired)
    weights = ratings.weights
    # Rounded as a judge's expected score is, so that both are compared in scores of the scale.
    rounded = paired.in_steps(np.full(len(ratings.value), np.average(ratings.value, weights=weights)))
    levels = None
    if paired.levels is not None:
        shares = [np.average(ratings.value == value, weights=weights) for value in paired.values]
        levels = np.tile(shares, (len(paired.items), 1))
    return ratings.measures(rounded, levels, _kappa(ratings, rounded), characters)


def agreement_of_people(paired: Paired) -> dict[str, Estimate]:
    """``exact``, ``within_one`` and ``qwk`` of one annotator with another, over all pairs of ratings of an item."""
    ratings = _ratings(paired)
    counts = ratings.paired.counts
    names = ("exact", "within_one", "qwk")
    if counts.max() < 2:
        return dict.fromkeys(names, Estimate(None, reason="no item has two ratings"))
    if ratings.step is None:
        return dict.fromkeys(names, Estimate(None, reason=NO_STEPS))
    one, other, weights = pairs_of_ratings(ratings.paired)
    steps = np.abs(one - other) / ratings.step
    # Neither of the two is the first, so each pair is taken both ways round.
    qwk = kappa(np.append(one, other), np.append(other, one), np.append(weights, weights))
    return {
        "exact": Estimate(float(np.average(steps < 0.5, weights=weights))),
        "within_one": Estimate(float(np.average(steps < 1.5, weights=weights))),
        "qwk": Estimate(qwk) if np.isfinite(qwk) else Estimate(None, reason=ALL_SAME),
    }


def pairs_of_ratings(paired: Paired) -> tuple[Floats, Floats, Floats]:
    """Every two ratings of an item, neither of them the first, and the weight of each pair: shape (pairs,) each.

    A pair has the weight of its item over the number of the item's ratings less one, so that a rating counts once.
    """
    item, _, value = paired.one_by_one
    counts = paired.counts
    shared = counts[item] > 1
    value, item = value[shared], item[shared]
    # The ratings of an item stand side by side, so any two of them are fewer than its number of ratings apart.
    firsts = [np.flatnonzero(item[lag:] == item[:-lag]) for lag in range(1, int(counts.max()))]
    first = np.concatenate(firsts)
    second = np.concatenate([places + lag for lag, places in enumerate(firsts, 1)])
    return value[first], value[second], (paired.weights / np.maximum(counts - 1, 1))[item[first]]


def _ratings(paired: Paired) -> _Ratings:
    """All ratings; without the few between the steps (means of repeats, say) where there are steps."""
    step = paired.step
    if step is not None and (off := paired.off_step).any():
        paired = replace(paired, ratings=np.where(off, np.nan, paired.ratings))
    item, _, value = paired.one_by_one
    return _Ratings(value, item, paired, step)


def _kappa(ratings: _Ratings, rounded: Floats) -> Estimate:
    """The weighted kappa of predicted scores of the scale with the ratings, without an interval."""
    if ratings.step is None:
        return Estimate(None, reason=NO_STEPS)
    value = kappa(rounded, ratings.value, ratings.weights)
    return Estimate(value) if np.isfinite(value) else Estimate(None, reason=ALL_SAME)
