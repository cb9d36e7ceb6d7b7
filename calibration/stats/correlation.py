"""How two sets of scores go together: Pearson, Spearman, Kendall's tau-b and the accuracy of pairwise rankings.

All of them weigh items, and all give their bootstrap draws at once: moments are summed by cell, ranks are found anew in
every draw from weights, and what concerns pairs is a quadratic form in the weights of cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from calibration.stats.intervals import Estimate, Floats, Resampler

Small = NDArray[np.float32]


ASSOCIATIONS = ("pearson", "spearman", "kendall", "pairwise_accuracy")


BLOCK = 256
"""Items whose pairs with all others are in memory at a time."""


CONSTANT = "one side is constant"


def association(x: Floats, y: Floats, weights: Floats, resampler: Resampler) -> dict[str, Estimate]:
    """Every measure of association of a judge's scores ``x`` with people's ``y``, with bootstrap intervals.

    Args:
        x, y, weights: shape (items,), finite.
    """
    pairs = _pair_matrices(x, y, weights, resampler.cells)
    values = dict(zip(ASSOCIATIONS, _values(x, y, weights, pairs), strict=True))
    if not all(np.isfinite(value) for value in values.values()):
        return {name: Estimate(None, reason=CONSTANT) for name in ASSOCIATIONS}
    if not resampler.is_enough:
        return {name: Estimate(value) for name, value in values.items()}
    draws = (
        _pearson_draws(x, y, weights, resampler),
        _spearman_draws(x, y, weights, resampler),
        *_tau(*(((resampler.weights @ matrix) * resampler.weights).sum(axis=1) for matrix in pairs)),
    )
    return {
        name: Estimate(value, *resampler.interval(found))
        for (name, value), found in zip(values.items(), draws, strict=True)
    }


def within_groups(x: Floats, y: Floats, weights: Floats, groups: Sequence[NDArray[np.intp]]) -> Floats:
    """Each measure within each group of items: shape (groups, measures); NaN where one side is constant there."""
    one = np.zeros(len(x), dtype=np.intp)
    found = []
    for group in groups:
        own = x[group], y[group], weights[group]
        found.append(_values(*own, _pair_matrices(*own, one[group])))
    return np.array(found).reshape(-1, len(ASSOCIATIONS))


def pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Weighted Pearson correlation along the last axis; NaN where one side is constant, or nothing weighs anything."""
    total = weights.sum(axis=-1, keepdims=True)
    total = np.where(total > 0, total, np.nan)
    x0, y0 = (a - (weights * a).sum(axis=-1, keepdims=True) / total for a in (x, y))
    xy, xx, yy = ((weights * a * b).sum(axis=-1) for a, b in ((x0, y0), (x0, x0), (y0, y0)))
    return _ratio(xy, *(_spread(ss, (weights * a * a).sum(axis=-1), 1e-24) for ss, a in ((xx, x), (yy, y))))


def spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Weighted Spearman correlation along the last axis of ``weights``: Pearson's of weighted midranks."""
    return pearson(_midranks(x)(weights), _midranks(y)(weights), weights)


def tau_and_accuracy(x: Floats, y: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Kendall's tau-b, and in which share of the pairs that ``y`` orders ``x`` orders them alike (ties count half).

    Args:
        x, y: shape (..., items), for few items; ``weights`` broadcasts.

    The accuracy is (1 + D) / 2 with Somers' D (1962) of x given y.
    """
    sx, sy = (np.sign(a[..., :, None] - a[..., None, :]) for a in (x, y))
    both = weights[..., :, None] * weights[..., None, :]
    return _tau(*((both * s).sum(axis=(-1, -2)) for s in (sx * sy, np.abs(sx), np.abs(sy))))


def _values(x: Floats, y: Floats, weights: Floats, pairs: Sequence[Floats]) -> list[float]:
    tau, accuracy = _tau(*(matrix.sum() for matrix in pairs))
    return [float(v) for v in (pearson(x, y, weights), spearman(x, y, weights), tau, accuracy)]


def _ratio(xy: Floats, xx: Floats, yy: Floats) -> Floats:
    """xy / sqrt(xx yy), NaN where that is not defined."""
    size = np.sqrt(xx * yy)
    return np.where(size > 0, np.clip(xy / np.where(size > 0, size, 1), -1, 1), np.nan)


def _spread(squares: Floats, raw: Floats, rounding: float) -> Floats:
    """Sums of squares from the mean; 0 where, beside the sums of squares themselves, they are rounding only."""
    return np.where(squares > rounding * raw, squares, 0.0)


def _tau(concordance: Floats, in_x: Floats, in_y: Floats) -> tuple[Floats, Floats]:
    """Tau-b and accuracy from sums over pairs: of the products of signs, and of pairs that x and y order."""
    ordered = in_y > 0
    accuracy = np.where(ordered, (1 + concordance / np.where(ordered, in_y, 1)) / 2, np.nan)
    return _ratio(concordance, in_x, in_y), accuracy


def _midranks(values: Floats) -> Callable[[Floats], Floats]:
    """A function from weights, shape (..., items), to weighted midranks of the same shape."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    order, starts = np.argsort(place, kind="stable"), np.concatenate([[0], np.cumsum(counts)[:-1]])

    def ranks(weights: Floats) -> Floats:
        tied = np.add.reduceat(weights[..., order], starts, axis=-1)
        return np.asarray((np.cumsum(tied, axis=-1) - tied / 2)[..., place])

    return ranks


def _pearson_draws(x: Floats, y: Floats, weights: Floats, resampler: Resampler) -> Floats:
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    moments = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)
    n, sx, sy, xx, yy, xy = resampler.sums(weights[:, None] * moments).T
    n = np.where(n > 0, n, np.nan)
    return _ratio(xy - sx * sy / n, *(_spread(ss - s * s / n, ss, 1e-12) for s, ss in ((sx, xx), (sy, yy))))


def _spearman_draws(x: Floats, y: Floats, weights: Floats, resampler: Resampler) -> Floats:
    """Each draw ranks its own items: what they weigh is summed by value, and ranks are those of values."""
    x_level, y_level = (np.unique(values, return_inverse=True)[1] for values in (x, y))
    cells = resampler.cells
    kinds, kind = np.unique(np.stack([cells, y_level]), axis=1, return_inverse=True)
    by_value = [sparse.csr_array((weights, (level, cells))) for level in (x_level, y_level)]
    by_kind = sparse.csr_array((weights, (kind.reshape(-1), x_level)))

    def correlations(drawn: Floats) -> Floats:
        """From how often cells were drawn, shape (cells, draws): all here is by draw along the last axis."""
        tied = [table @ drawn for table in by_value]
        ranks_x, ranks_y = ranks = [_from_the_middle(each) for each in tied]
        together = np.einsum("kd,kd,kd->d", by_kind @ ranks_x, ranks_y[kinds[1]], drawn[kinds[0]])
        return _ratio(together, *(np.einsum("vd,vd,vd->d", t, r, r) for t, r in zip(tied, ranks, strict=True)))

    return np.concatenate([correlations(drawn) for drawn in resampler.parts()])


def _from_the_middle(tied: Floats) -> Floats:
    """Mid-ranks of values less their mean, from what weighs each value: shape (values, draws)."""
    up_to = np.cumsum(tied, axis=0)
    return np.asarray(up_to - tied / 2 - up_to[-1] / 2)


def _pair_matrices(x: Floats, y: Floats, weights: Floats, cells: NDArray[np.intp]) -> list[Floats]:
    """Sums over the ordered pairs of items of two cells, three matrices of shape (cells, cells).

    They are: the product of the signs of both differences, whether x differs, whether y differs; each times the
    weights of both items. An item and its copy in a draw are tied, so they add nothing, and a draw's sum over pairs is
    the quadratic form of the matrix in the draw's weights.
    """
    order = np.argsort(cells, kind="stable")
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    places = [np.unique(values, return_inverse=True)[1].astype(np.float32)[order] for values in (x, y)]
    small = weights[order].astype(np.float32)
    upper = np.zeros((3, len(starts), len(starts)))
    for cell, (start, end) in enumerate(zip(starts, [*starts[1:], len(x)], strict=True)):
        for begin in range(start, end, BLOCK):
            rows, columns = slice(begin, min(begin + BLOCK, end)), slice(start, None)
            sx, sy = (_signs(own[rows], own[columns]) for own in places)
            for kept, signs in zip(upper, (sx * sy, np.abs(sx), np.abs(sy)), strict=True):
                kept[cell, cell:] += np.add.reduceat(small[rows] @ signs * small[columns], starts[cell:] - start)
    return [matrix + np.triu(matrix, 1).T for matrix in upper]


def _signs(ones: Small, others: Small) -> NDArray[np.int8]:
    """Which of two is greater, 1, 0 or -1: shape (ones, others). In bytes, of which the work on pairs goes faster."""
    return (ones[:, None] > others).view(np.int8) - (ones[:, None] < others)
