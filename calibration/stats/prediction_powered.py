"""Prediction-powered means: a few human ratings that reach further with a judge's scores of all items.

Where some items are rated and a judge scored all, the mean of the ratings is corrected by the difference between the
judge's mean of the rated items and its mean of all items: Angelopoulos, Duchi and Zrnic 2023, "PPI++: Efficient
Prediction-Powered Inference" (arXiv 2311.01453). Items of a group (a scenario, say) resemble each other, rated or not,
so what they add to the error is summed within groups before it is squared. The module works on plain arrays.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy import stats

from calibration.stats.intervals import (
    LEVEL,
    Estimate,
    Floats,
    Labels,
    clustered_variance,
    codes,
    ratio,
    student,
    t_quantile,
)

NO_LABELS = "nobody rated an item of it"


@dataclass(frozen=True, slots=True)
class Powered:
    """A prediction-powered mean and what it is made of."""

    estimate: Estimate
    lambda_: float
    """How much of the judge's differences between items is used, from 0 (the mean of the ratings alone) to 1."""
    influence: Floats
    """Shape (items,): what each item adds to the error of the mean, to first order."""
    variance: float
    """The variance of the mean; NaN with labels in one group only."""
    groups: int
    """In how many groups there are labels (of how many characters, where they are fewer)."""
    effective_groups: float
    """How many groups with the same share of the labels would do as well: 1 / the sum of squared shares (Kish 1965)."""


def powered_mean(
    human: Floats,
    judge: Floats,
    groups: Labels | None = None,
    *,
    weights: Floats | None = None,
    characters: Labels | None = None,
    lambda_: float | None = None,
) -> Powered:
    """The human mean of all items, from ratings of some and a judge's scores of all.

    The mean is ``mean(human) + lambda (mean(judge) - mean of judge where rated)``. The variance is times k / (k - 1), k
    being the number of groups with labels, and the interval Student's t with one degree of freedom less than groups of
    one size would be as good as these (simulated in ``benchmarks/coverage.py``).

    Args:
        human: shape (items,), NaN where nobody rated the item.
        judge: shape (items,).
        groups: shape (items,), what is dependent; None for independent items, with the paper's normal interval.
        weights: shape (items,), 1 / inclusion probability of those rated: means of rated items are then weighted
            (Hajek) and the judge's mean is over all items. None for the paper's two samples: the judge's mean is over
            the items that nobody rated. With equal weights the two differ only in the scale of lambda, by
            1 + rated / unrated.
        characters: shape (items,), for an interval that holds for other characters too.
        lambda_: from 0 to 1; None chooses it: for independent items by the paper's power tuning (for a mean the slope
            of human on judge), with groups by what groups add to the error (``_tuned``).
    """
    rated = np.isfinite(human)
    if not rated.any():
        return Powered(Estimate(None, reason=NO_LABELS), 0.0, np.zeros(len(human)), float("nan"), 0, 0.0)
    known = np.where(rated, human, 0.0)
    # What each item counts in the means of rated items, and in the judge's mean; each sums to 1.
    own = rated * (1.0 if weights is None else weights)
    whole = ~rated if weights is None and not rated.all() else np.ones(len(rated))
    own, whole = own / own.sum(), whole / whole.sum()
    # What each item adds to the error of the mean of the ratings, and what lambda adds to that.
    by_rating = own * (known - own @ known)
    by_judge = whole * (judge - whole @ judge) - own * (judge - own @ judge)
    without: Floats | None = None  # lambda as each item's error has it
    if lambda_ is None and groups is not None:
        lambda_, without = _tuned(by_rating, by_judge, groups, len(set(groups[rated])))
    elif lambda_ is None:
        # The slope of human on judge: covariance over rated items by variance over all; 0 for a constant judge.
        spread = float(np.var(judge, ddof=1)) if len(judge) > 1 else 0.0
        covariance = float(own @ ((known - own @ known) * (judge - own @ judge)))
        slope = covariance / spread if spread >= 1e-20 else 0.0
        samples = 1.0 if weights is not None else 1 + rated.sum() / max(1, (~rated).sum())
        lambda_ = float(np.clip(slope / samples, 0, 1))
    value = float(own @ known + lambda_ * (whole @ judge - own @ judge))
    influence = by_rating + (lambda_ if without is None else without) * by_judge
    if groups is None:
        variance = float(influence @ influence)
        half = float(stats.norm.ppf((1 + LEVEL) / 2)) * variance**0.5
        count = int(rated.sum())
        return Powered(Estimate(value, value - half, value + half), lambda_, influence, variance, count, float(count))
    ways = [way for way in (groups, characters) if way is not None]
    fewest = min(len(set(way[rated])) for way in ways)
    effective = min(1 / float((np.bincount(codes(way), own) ** 2).sum()) for way in ways)
    variance = labelled_variance(influence, groups, characters, fewest)
    mean = student(value, variance, fewest, effective)
    return Powered(mean, lambda_, influence, variance, fewest, effective)


def _tuned(by_rating: Floats, by_judge: Floats, groups: Labels, labelled: int) -> tuple[float, Floats]:
    """Lambda for items that depend on each other within groups, and for each item that chosen without its group.

    The variance is the sum over groups of ``(a + lambda b)²``, a and b being what a group adds; it is least at
    ``-ab / bb``. That is shrunk by how sure the gain is (1 - 1/F of the regression of a on b, 0 at the least; James and
    Stein 1961), so that a judge that tells nothing is left out. A group's error is taken with the lambda chosen without
    it: with its own the variance would be too small, with few groups by much.

    Args:
        by_rating, by_judge, groups: shape (items,).
        labelled: in how many groups there are labels.
    """
    group = codes(groups)
    a, b = np.bincount(group, by_rating), np.bincount(group, by_judge)

    def shrunk(aa: Floats, ab: Floats, bb: Floats, freedom: int) -> Floats:
        explained = np.clip(ratio(ab**2, aa * bb), 0, 1)
        sure = 1 - ratio(1 - explained, explained * max(freedom, 1))
        found = np.clip(ratio(-ab, bb) * np.maximum(np.nan_to_num(sure), 0), 0, 1)
        return np.asarray(np.nan_to_num(found))

    aa, ab, bb = (np.asarray(one @ other) for one, other in ((a, a), (a, b), (b, b)))
    without = shrunk(aa - a**2, ab - a * b, bb - b**2, labelled - 3)
    return float(shrunk(aa, ab, bb, labelled - 2)), without[group]


def labelled_variance(influence: Floats, groups: Labels, characters: Labels | None, labelled: int) -> float:
    """The variance of a sum of influences, shape (items,), of which only ``labelled`` groups have labels.

    The correction for few groups counts those with labels only, as they bring most of the error. NaN with fewer than
    two.
    """
    variance, every = clustered_variance(influence, groups, characters)
    return variance * labelled / (labelled - 1) * (every - 1) / every if labelled > 1 else float("nan")


def equivalent_labels(labels: int, groups: float, variance: float, half_width: float) -> int | None:
    """How many ratings alone would give an interval this narrow: "as tight as 412; you have 120".

    It is assumed that more labels come with more groups, as many to a group as there are.

    Args:
        labels, groups: how many rated items there are, in how many (effective) groups.
        variance: of the mean of the ratings alone.
        half_width: of the interval to be matched; None is returned where it is 0.
    """
    if half_width <= 0 or groups < 2:
        return None

    def narrowness(number: int) -> float:
        """Minus half the width of the interval with so many labels: it grows, as bisection needs."""
        freedom = max(groups * number / labels - 1, 1)
        return -t_quantile(freedom) * float(np.sqrt(variance * labels / number))

    # An interval that narrow surely needs no more than this: widths fall at least as fast as the root of labels.
    most = labels + ceil(labels * (narrowness(labels) / half_width) ** 2)
    return 1 + bisect_left(range(1, most + 1), -half_width * (1 + 1e-9), key=narrowness)
