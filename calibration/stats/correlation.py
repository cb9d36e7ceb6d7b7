"""How two sets of scores of the same items go together.

Pearson's and Spearman's correlation, Kendall's tau-b, the accuracy of pairwise rankings, and Cohen's kappa with
quadratic weights. Every measure takes a weight for each item. ``*_draws`` give the value of a measure in all draws of
a ``Resampler`` at once: moments are summed by cell first, ranks are found anew in every draw, and sums over pairs of
items are quadratic forms in the weights of cells. The module works on plain arrays and knows nothing of judges or
annotators.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from calibration.stats.intervals import Estimate, Floats, Resampler, ratio

ASSOCIATIONS = ("pearson", "spearman", "kendall", "pairwise_accuracy")
"""The measures of association, in the order in which the functions below return them."""


MIN_CORRELATED = 3
"""With fewer items (or systems) no correlation is given: two always correlate fully."""


BLOCK = 256
"""Items whose pairs with all others are in memory at a time."""


CONSTANT = "one side is constant"


def association(x: Floats, y: Floats, weights: Floats, resampler: Resampler) -> dict[str, Estimate]:
    """Every measure of association of a judge's scores ``x`` with human ratings ``y``, with bootstrap intervals.

    Args:
        x, y, weights: shape (items,), finite.
        resampler: of the same items.
    """
    pairs = _pair_matrices(x, y, weights, resampler.cells)
    values = dict(zip(ASSOCIATIONS, _values(x, y, weights, pairs), strict=True))
    # A constant side leaves at most the pairwise accuracy, which then says nothing; all are refused together.
    if not all(np.isfinite(value) for value in values.values()):
        return {name: Estimate(None, reason=CONSTANT) for name in ASSOCIATIONS}
    if not resampler.is_enough:
        return {name: Estimate(value) for name, value in values.items()}
    draws = (
        pearson_draws(x, y, weights, resampler),
        spearman_draws(x, y, weights, resampler),
        *_tau_and_accuracy(*(((resampler.weights @ matrix) * resampler.weights).sum(axis=1) for matrix in pairs)),
    )
    return {
        name: Estimate(value, *resampler.interval(value, found))
        for (name, value), found in zip(values.items(), draws, strict=True)
    }


def within_groups(x: Floats, y: Floats, weights: Floats, groups: Sequence[NDArray[np.intp]]) -> Floats:
    """Each measure of association within each group of items: shape (groups, measures).

    ``groups`` are the places of each group's items. NaN where one side is constant within the group.
    """
    one_cell = np.zeros(len(x), dtype=np.intp)
    found = []
    for group in groups:
        own = x[group], y[group], weights[group]
        found.append(_values(*own, _pair_matrices(*own, one_cell[group])))
    return np.array(found).reshape(-1, len(ASSOCIATIONS))


def associations_by_row(x: Floats, y: Floats) -> list[Floats]:
    """Each measure of association along the last axis, of a few items whose scores differ from row to row.

    Args:
        x, y: shape (..., items), unweighted. A row with a NaN has no value.
    """
    ones = np.ones(x.shape[-1])
    signs_x, signs_y = (np.sign(a[..., :, None] - a[..., None, :]) for a in (x, y))
    # The signs of an item's differences from all items sum to twice its mid-rank, up to a constant.
    ranks = pearson(signs_x.sum(axis=-1), signs_y.sum(axis=-1), ones)
    pairs = (signs.sum(axis=(-1, -2)) for signs in (signs_x * signs_y, np.abs(signs_x), np.abs(signs_y)))
    return [pearson(x, y, ones), ranks, *_tau_and_accuracy(*pairs)]


def pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Weighted Pearson correlation along the last axis; NaN where one side is constant or all weights are 0."""
    total = weights.sum(axis=-1, keepdims=True)
    x0, y0 = (a - ratio((weights * a).sum(axis=-1, keepdims=True), total) for a in (x, y))
    xy, xx, yy = ((weights * a * b).sum(axis=-1) for a, b in ((x0, y0), (x0, x0), (y0, y0)))
    # The mean of equal scores may be off by rounding, which must not pass for variance: so the bound is relative.
    return _cosine(xy, xx, yy, [1e-24 * (weights * a * a).sum(axis=-1) for a in (x, y)])


def spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Weighted Spearman correlation, Pearson's of weighted mid-ranks; all of shape (items,). NaN as for ``pearson``."""
    return pearson(_midranks(x, weights), _midranks(y, weights), weights)


def _midranks(values: Floats, weights: Floats) -> Floats:
    """The weight of all items with a lower score and half that of those with the same: shape (items,)."""
    _, place = np.unique(values, return_inverse=True)
    tied = np.bincount(place, weights)  # by score, in their order
    return np.asarray((np.cumsum(tied) - tied / 2)[place])


def kappa(x: Floats, y: Floats, weights: Floats) -> float:
    """Cohen's (1968) kappa with quadratic weights of two ratings of each item; NaN where all are one same score.

    One less the mean squared difference over that of independent ratings with the same margins (Fleiss and Cohen
    1973). So no table of categories is needed, it does not matter which scores of the scale were seen, and scores in
    between are allowed.
    """
    return float(_kappa(_about_the_middle(x, y, weights).sum(axis=0)))


def nominal_kappa(x: Floats, y: Floats, weights: Floats) -> float:
    """Cohen's (1960) kappa of two names of each item: agreement beyond chance; NaN where all are one same name."""
    return float(_nominal_kappa(_by_kind(x, y, weights).sum(axis=0)))


def nominal_kappa_draws(x: Floats, y: Floats, weights: Floats, resampler: Resampler) -> Floats:
    """``nominal_kappa`` in every draw: shape (draws,). The arguments have shape (items,)."""
    return _nominal_kappa(resampler.sums(_by_kind(x, y, weights)))


def _by_kind(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Shape (items, 1 + 2 kinds): weight times whether both are equal, and which kind x and y are of."""
    kinds = np.union1d(x, y)
    return np.column_stack([x == y, x[:, None] == kinds, y[:, None] == kinds]) * weights[:, None]


def _nominal_kappa(sums: Floats) -> Floats:
    """Kappa from sums of ``_by_kind`` along the last axis; NaN where no disagreement is expected."""
    equal, (x, y) = sums[..., 0], np.split(sums[..., 1:], 2, axis=-1)
    total = x.sum(axis=-1)
    by_chance = total**2 - (x * y).sum(axis=-1)
    return 1 - ratio(total * (total - equal), np.where(by_chance > 1e-12 * total**2, by_chance, 0.0))


def pearson_draws(x: Floats, y: Floats, weights: Floats, resampler: Resampler) -> Floats:
    """``pearson`` in every draw: shape (draws,). The arguments have shape (items,)."""
    # Each side is centred on its own mean first: far from 0, differences of sums of squares would be rounding only.
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    n, sx, sy, xx, yy, xy = resampler.sums(_moments(x, y, weights)).T
    mean_x, mean_y = ratio(sx, n), ratio(sy, n)
    return _cosine(xy - sx * mean_y, xx - sx * mean_x, yy - sy * mean_y, [1e-12 * xx, 1e-12 * yy])


def spearman_draws(x: Floats, y: Floats, weights: Floats, resampler: Resampler) -> Floats:
    """``spearman`` in every draw, each of which ranks its own items: shape (draws,). Arguments: shape (items,).

    Items with the same score share a rank, so the weights in a draw are summed by score, and ranks are those of scores.
    """
    x_level, y_level = (np.unique(values, return_inverse=True)[1] for values in (x, y))
    cells = resampler.cells
    # A kind is a cell and a score of y. Its items have the same weight and the same rank in y in every draw, so of x
    # only the sum of their ranks matters: a table of kinds by scores of x, far smaller than items by draws.
    kinds, kind = np.unique(np.stack([cells, y_level]), axis=1, return_inverse=True)
    by_score = [sparse.csr_array((weights, (level, cells))) for level in (x_level, y_level)]
    by_kind = sparse.csr_array((weights, (kind.reshape(-1), x_level)))
    found = []
    for drawn in resampler.parts():  # shape (cells, some draws); all arrays here have the draws along the last axis
        tied = [table @ drawn for table in by_score]
        ranks = []  # mid-ranks of scores less their mean, which is half the weight of all
        for weight in tied:
            up_to = np.cumsum(weight, axis=0)
            ranks.append(up_to - weight / 2 - up_to[-1] / 2)
        together = np.einsum("kd,kd,kd->d", by_kind @ ranks[0], ranks[1][kinds[1]], drawn[kinds[0]])
        squares = (np.einsum("vd,vd,vd->d", weight, rank, rank) for weight, rank in zip(tied, ranks, strict=True))
        found.append(_cosine(together, *squares))
    return np.concatenate(found)


def kappa_draws(x: Floats, y: Floats, weights: Floats, resampler: Resampler) -> Floats:
    """``kappa`` in every draw: shape (draws,). The arguments have shape (items,)."""
    return _kappa(resampler.sums(_about_the_middle(x, y, weights)))


def _moments(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Shape (items, 6): weight times 1, x, y, x², y² and xy."""
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1) * weights[:, None]


def _about_the_middle(x: Floats, y: Floats, weights: Floats) -> Floats:
    """``_moments`` with both sides shifted alike, so that their differences stay and sums of squares are small."""
    # Sums of squares of large numbers lose the small differences between them: about the middle they are small.
    middle = (x.min() + x.max()) / 2
    return _moments(x - middle, y - middle, weights)


def _kappa(sums: Floats) -> Floats:
    """Kappa from sums of ``_about_the_middle`` along the last axis; NaN where no disagreement is expected."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    # The squared differences of every x from every y, summed: the disagreement of independent ratings.
    by_chance = n * (xx + yy) - 2 * x * y
    by_chance = np.where(by_chance > 1e-12 * n * (xx + yy), by_chance, 0.0)
    return 1 - ratio(n * np.maximum(xx + yy - 2 * xy, 0.0), by_chance)


def _cosine(xy: Floats, xx: Floats, yy: Floats, rounding: Sequence[Floats | float] = (0.0, 0.0)) -> Floats:
    """xy / sqrt(xx yy); NaN where xx or yy is not above what rounding can leave of it."""
    xx, yy = (np.where(squares > least, squares, 0.0) for squares, least in zip((xx, yy), rounding, strict=True))
    return np.clip(ratio(xy, np.sqrt(xx * yy)), -1, 1)


def _tau_and_accuracy(concordance: Floats, in_x: Floats, in_y: Floats) -> tuple[Floats, Floats]:
    """Kendall's tau-b, and the share of the pairs ordered by y that x orders alike (a tie of x counts half).

    From sums over pairs: of the products of signs, of pairs that x orders and of pairs that y orders. The accuracy is
    (1 + D) / 2 with Somers' D (1962) of x given y.
    """
    return _cosine(concordance, in_x, in_y), (1 + ratio(concordance, in_y)) / 2


def _values(x: Floats, y: Floats, weights: Floats, pairs: Sequence[Floats]) -> list[float]:
    """Each of ``ASSOCIATIONS`` over all items; ``pairs`` as ``_pair_matrices`` returns them."""
    tau, accuracy = _tau_and_accuracy(*(matrix.sum() for matrix in pairs))
    return [float(value) for value in (pearson(x, y, weights), spearman(x, y, weights), tau, accuracy)]


def _pair_matrices(x: Floats, y: Floats, weights: Floats, cells: NDArray[np.intp]) -> list[Floats]:
    """Sums over the ordered pairs of items of two cells: three matrices of shape (cells, cells).

    They sum the product of the signs of both differences, whether x differs, and whether y differs, each times the
    weights of both items. An item and its copy in a draw are tied and add nothing, so a draw's sum over pairs is the
    quadratic form of the matrix in the draw's weights of cells.
    """
    # In the order of cells, the items of a cell are one slice, and reduceat sums by cell. Signs depend on the order of
    # scores only, so small floats of their places will do; signs are bytes, with which the work on pairs goes faster.
    order = np.argsort(cells, kind="stable")
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    places = [np.unique(values, return_inverse=True)[1].astype(np.float32)[order] for values in (x, y)]
    small = weights[order].astype(np.float32)
    upper = np.zeros((3, len(starts), len(starts)))
    for cell, (start, end) in enumerate(zip(starts, [*starts[1:], len(x)], strict=True)):
        for begin in range(start, end, BLOCK):
            rows, columns = slice(begin, min(begin + BLOCK, end)), slice(start, None)
            sx, sy = (
                (own[rows, None] > own[columns]).view(np.int8) - (own[rows, None] < own[columns]) for own in places
            )
            for kept, signs in zip(upper, (sx * sy, np.abs(sx), np.abs(sy)), strict=True):
                # Only this cell's rows against itself and later cells: the matrix is symmetric.
                kept[cell, cell:] += np.add.reduceat(small[rows] @ signs * small[columns], starts[cell:] - start)
    return [matrix + np.triu(matrix, 1).T for matrix in upper]
