"""Krippendorff's alpha of one metric, at three levels of measurement, with intervals over groups.

A value comes from the package ``krippendorff``. Its draws come from coincidences that are summed within the cells of a
``Resampler`` first, so that a draw is a weighted sum of those sums (Krippendorff 2011, "Computing Krippendorff's
alpha-reliability"). Ordinal differences are squared differences of mid-ranks among the draw's own ratings: what that
paper writes as a sum over the values in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import krippendorff
import numpy as np
from numpy.typing import NDArray

from calibration.stats.intervals import Estimate, Floats, Resampler

LEVELS = ("nominal", "ordinal", "interval")


MOST_VALUES = 101
"""With more different values than this only interval alpha is given: the ratings are no categories."""


MOST_IN_PACKAGE = 20_000_000
"""The package holds items x values x values numbers; above this the formulas here give the value."""


ALONE = "no item has two ratings"


SAME = "all ratings are the same, so that no disagreement is to be expected by chance"


@dataclass(frozen=True, slots=True)
class Coincidences:
    """What alpha needs of the items with two or more ratings, summed within cells.

    ``n_c`` and ``disagreements`` are None where the ratings take more than ``MOST_VALUES`` values.
    """

    moments: Floats
    """Shape (cells, 4): ratings, their sum, their sum of squares, and the sum of m s² over items of m ratings."""
    n_c: Floats | None
    """Shape (cells, values): ratings of each value."""
    disagreements: Floats | None
    """Shape (cells, kinds): o_ck for c < k, the kinds of disagreement that occur."""
    kinds: tuple[NDArray[np.intp], NDArray[np.intp]]
    """The lower and the higher value of each kind, by number from 0."""

    def alphas(self, weights: Floats) -> dict[str, Floats]:
        """Alpha of each level, shape (draws,), NaN where undefined; ``weights`` has shape (draws, cells)."""
        n, total, squares, within = (weights @ self.moments).T
        found = {"interval": _alpha(2 * within, n, total, squares)}
        if self.n_c is not None and self.disagreements is not None:
            n_c, o_ck = weights @ self.n_c, weights @ self.disagreements
            found["nominal"] = 1 - (n - 1) * ratio(2 * o_ck.sum(axis=1), n**2 - (n_c**2).sum(axis=1))
            ranks = midranks(n_c) - n[:, None] / 2
            apart = (ranks[:, self.kinds[1]] - ranks[:, self.kinds[0]]) ** 2
            found["ordinal"] = _alpha(
                2 * (o_ck * apart).sum(axis=1), n, (n_c * ranks).sum(axis=1), (n_c * ranks**2).sum(axis=1)
            )
        return found


def alphas(ratings: Floats, resampler: Resampler) -> dict[str, Estimate]:
    """Alpha at each of ``LEVELS``, with its bootstrap interval.

    Args:
        ratings: shape (items, raters), NaN where a rater did not rate an item.
        resampler: of the same items.
    """
    known = np.isfinite(ratings)
    pairable = known.sum(axis=1) > 1
    values = np.unique(ratings[pairable][known[pairable]])
    if len(values) < 2:
        return dict.fromkeys(LEVELS, Estimate(None, reason=SAME if len(values) else ALONE))
    sums = coincidences(ratings[pairable], resampler.cells[pairable], resampler.weights.shape[1])
    points = _points(ratings[pairable], values, sums)
    draws = sums.alphas(resampler.weights) if resampler.is_enough else {}
    many = f"the ratings take {len(values):,} different values, and it is for at most {MOST_VALUES}"
    return {level: resampler.estimate(points.get(level, np.nan), draws.get(level), many) for level in LEVELS}


def coincidences(ratings: Floats, cells: NDArray[np.intp], count: int) -> Coincidences:
    """The sums of items with two or more ratings; ``ratings`` has shape (items, raters), ``cells`` (items,)."""
    known = np.isfinite(ratings)
    item, _ = np.nonzero(known)
    values, value = np.unique(ratings[known], return_inverse=True)
    moments = _moments(np.where(known, ratings - values[0], 0.0), known.sum(axis=1))
    summed = np.stack([np.bincount(cells, column, minlength=count) for column in moments.T], axis=1, dtype=float)
    if len(values) > MOST_VALUES:
        none = np.empty(0, dtype=np.intp)
        return Coincidences(summed, None, None, (none, none))
    where, low, high, weight = _disagreements(item, value, known.sum(axis=1))
    kinds, kind = np.unique(low * len(values) + high, return_inverse=True)
    return Coincidences(
        moments=summed,
        n_c=by_cell(cells[item], value, (count, len(values))),
        disagreements=by_cell(cells[where], kind, (count, len(kinds)), weight),
        kinds=(kinds // len(values), kinds % len(values)),
    )


def by_cell(
    cells: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int], weights: Floats | None = None
) -> Floats:
    """How often each column occurs in each cell, or the sum of its weights: an array of ``shape`` (cells, columns)."""
    flat = np.bincount(cells * shape[1] + columns, weights, minlength=shape[0] * shape[1])
    return np.asarray(flat.reshape(shape), dtype=float)


def midranks(counts: Floats) -> Floats:
    """The mid-rank of each value, from 0 to their number: shape (draws, values), from how often each occurs."""
    return np.asarray(np.cumsum(counts, axis=1) - counts / 2)


def ratio(above: Floats, below: Floats) -> Floats:
    """Their quotient; NaN where ``below`` is not positive."""
    return np.asarray(np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0))


def _points(ratings: Floats, values: Floats, sums: Coincidences) -> dict[str, float]:
    """Alpha at each level that is defined, by the package where its arrays fit into memory."""
    if sums.n_c is None or len(ratings) * len(values) ** 2 > MOST_IN_PACKAGE:
        ones = np.ones((1, len(sums.moments)))
        return {level: float(alpha[0]) for level, alpha in sums.alphas(ones).items()}
    return {
        level: float(
            krippendorff.alpha(reliability_data=ratings.T, value_domain=values, level_of_measurement=level)
        )
        for level in LEVELS
    }  # fmt: skip


def _alpha(observed: Floats, n: Floats, total: Floats, squares: Floats) -> Floats:
    """1 - D_o / D_e for squared differences of scores with these sums, weighted by how often each occurs."""
    expected = 2 * (n * squares - total**2)
    expected = np.where(expected > 1e-12 * n * squares, expected, 0.0)
    return np.asarray(1 - (n - 1) * ratio(observed, expected))


def _moments(ratings: Floats, m: NDArray[np.intp]) -> Floats:
    """Shape (items, 4), as ``Coincidences.moments``; ratings that are missing are 0 here."""
    total, squares = ratings.sum(axis=1), (ratings**2).sum(axis=1)
    return np.stack([m, total, squares, (m * squares - total**2) / (m - 1)], axis=1)


def _disagreements(
    item: NDArray[np.intp], value: NDArray[np.intp], m: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], Floats]:
    """Every two unlike ratings of an item: item, lower value, higher value, 1 / (m - 1).

    ``item`` (in order) and ``value`` have a place for each rating; two of one item are fewer than m places apart.
    """
    lags = range(1, int(m.max()))
    first = np.concatenate([np.flatnonzero(item[lag:] == item[:-lag]) for lag in lags])
    lag = np.concatenate([np.full(int((item[lag:] == item[:-lag]).sum()), lag) for lag in lags])
    one, other = value[first], value[first + lag]
    unlike = one != other
    where = item[first][unlike]
    return where, np.minimum(one, other)[unlike], np.maximum(one, other)[unlike], 1 / (m[where] - 1)
