"""The human ceiling: how near a person left out comes to the mean of the others, on one metric.

A judge that comes as near to the mean of people as one of them does leaves little to gain. Items count by their weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.agreement.alpha import ALONE, by_cell, midranks, ratio
from calibration.paired import Paired
from calibration.resampling import Estimate, Floats, Resampler

__all__ = ["LEAST_ITEMS", "STATISTICS", "ceiling", "correlations", "others_mean"]

STATISTICS = ("spearman", "pearson", "rmse", "mae")
LEAST_ITEMS = 3
"""With fewer items that others rated too, a person is left out of the mean over persons: two items always correlate."""
MOST_LEVELS = 24
"""More different scores than this are put into so many bins of ranks for the draws of Spearman's correlation."""
STILL = "no person has ratings that vary beside others' that do"
FEW = f"nobody rated {LEAST_ITEMS} items that others rated too"


def ceiling(rated: Paired, resampler: Resampler) -> dict[str, Estimate]:
    """Each of ``STATISTICS`` of a person against the mean of the others, a mean over persons, with bootstrap interval.

    A person for whom a correlation is undefined (in a draw: in that draw) is left out of its mean.

    Args:
        rated: items that somebody rated.
        resampler: of the same items.
    """
    others = others_mean(rated.ratings)
    known = np.isfinite(others)
    persons = np.flatnonzero(known.sum(axis=0) >= LEAST_ITEMS)
    if not len(persons):
        return dict.fromkeys(STATISTICS, Estimate(None, reason=FEW if known.any() else ALONE))
    points, draws = [], []
    for person in persons:
        at = known[:, person]
        own, rest, weights = rated.ratings[at, person], others[at, person], rated.weights[at]
        points.append(np.array([[*correlations(own, rest, weights), *_errors(own, rest, weights)]]))
        if resampler.is_enough:
            draws.append(_drawn(own, rest, weights, resampler.cells[at], resampler.weights))
    by_statistic = dict(zip(STATISTICS, _mean(draws).T, strict=True)) if draws else {}
    return {
        name: resampler.estimate(value, by_statistic.get(name), STILL)
        for name, value in zip(STATISTICS, _mean(points)[0], strict=True)
    }


def others_mean(ratings: Floats) -> Floats:
    """The mean of the other raters' ratings, beside each rating: shape (items, raters), NaN where there is none.

    Rounded to 9 decimals, so that equal means are ties.
    """
    known = np.isfinite(ratings)
    given = np.where(known, ratings, 0.0)
    left = known.sum(axis=1, keepdims=True) - known
    mean = (given.sum(axis=1, keepdims=True) - given) / np.maximum(left, 1)
    return np.where(known & (left > 0), np.round(mean, 9), np.nan)


def correlations(x: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Spearman's and Pearson's correlation, weighted; NaN where one of the two does not vary."""
    ranked = _moments(_ranks(x, weights), _ranks(y, weights), weights)
    return float(_pearson(ranked.sum(axis=0))), float(_pearson(_moments(x, y, weights).sum(axis=0)))


def _errors(x: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Root mean squared and mean absolute difference, weighted."""
    return float(np.average((x - y) ** 2, weights=weights) ** 0.5), float(np.average(abs(x - y), weights=weights))


def _drawn(own: Floats, rest: Floats, weights: Floats, cells: NDArray[np.intp], drawn: Floats) -> Floats:
    """The statistics in every draw: shape (draws, 4); ``drawn``, shape (draws, cells), is how often cells were."""
    used, cell = np.unique(cells, return_inverse=True)
    drawn = drawn[:, used]
    moments = np.stack([np.bincount(cell, column) for column in _moments(own, rest, weights).T], axis=1)
    sums = drawn @ moments
    n = sums[:, 0]
    squared = np.maximum(sums[:, 3] - 2 * sums[:, 5] + sums[:, 4], 0)
    errors = np.sqrt(ratio(squared, n)), ratio(sums[:, 6], n)
    return np.stack([_spearman(own, rest, weights, cell, drawn), _pearson(sums.T), *errors], axis=1)


def _spearman(own: Floats, rest: Floats, weights: Floats, cell: NDArray[np.intp], drawn: Floats) -> Floats:
    """Spearman's correlation in every draw, among whose own items scores are ranked: shape (draws,)."""
    x, y = _bins(own), _bins(rest)
    shape = int(x.max()) + 1, int(y.max()) + 1
    table = drawn @ by_cell(cell, x * shape[1] + y, (drawn.shape[1], shape[0] * shape[1]), weights)
    table = table.reshape(-1, *shape)
    counts = table.sum(axis=2), table.sum(axis=1)
    n = counts[0].sum(axis=1)
    ranks = [midranks(each) - n[:, None] / 2 for each in counts]
    spreads = [(each * rank**2).sum(axis=1) for each, rank in zip(counts, ranks, strict=True)]
    together = np.einsum("dij,di,dj->d", table, *ranks, optimize=True)
    return ratio(together, np.sqrt(spreads[0] * spreads[1]))


def _moments(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Shape (items, 7): weight times 1, x, y, x², y², xy and |x - y|, both from the middle of x."""
    middle = (x.min() + x.max()) / 2
    x, y = x - middle, y - middle
    return np.stack([np.ones(len(x)), x, y, x**2, y**2, x * y, abs(x - y)], axis=1) * weights[:, None]


def _pearson(sums: Floats) -> Floats:
    """Pearson's correlation from sums of ``_moments``, first axis 7; NaN where x or y does not vary."""
    n, x, y, xx, yy, xy, _ = sums
    spreads = [np.where(n * ss - s**2 > 1e-12 * n * ss, n * ss - s**2, 0.0) for s, ss in ((x, xx), (y, yy))]
    return np.clip(ratio(n * xy - x * y, np.sqrt(spreads[0] * spreads[1])), -1, 1)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """The mid-rank of each value among all, by weight."""
    _, code = np.unique(values, return_inverse=True)
    return np.asarray(midranks(np.bincount(code, weights)[None].astype(float))[0][code])


def _bins(values: Floats) -> NDArray[np.intp]:
    """Scores by number from 0, in their order; bins of ranks where they are many."""
    levels, code = np.unique(values, return_inverse=True)
    if len(levels) > MOST_LEVELS:
        _, code = np.unique(_ranks(values, np.ones(len(values))) * MOST_LEVELS // len(values), return_inverse=True)
    return np.asarray(code, dtype=np.intp)


def _mean(persons: list[Floats]) -> Floats:
    """The mean over persons of what is defined: shape (draws, statistics), NaN where nothing is."""
    stacked = np.stack(persons)
    known = np.isfinite(stacked)
    return ratio(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(float))
