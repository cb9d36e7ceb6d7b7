"""Krippendorff's alpha of one metric, at three levels of measurement, with bootstrap intervals over groups.

The value comes from the package ``krippendorff``. Its draws come from coincidences of ratings (Krippendorff 2011,
"Computing Krippendorff's alpha-reliability"). They are summed within the cells of a ``Resampler`` first, so that a draw
is a weighted sum of those sums. Ordinal differences are squared differences of mid-ranks among the draw's own ratings;
the paper writes the same as a sum over the values in between. The module works on an array of ratings and knows nothing
of the judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import krippendorff
import numpy as np
from numpy.typing import NDArray

from calibration.stats.intervals import Estimate, Floats, Resampler, ratio

LEVELS = ("nominal", "ordinal", "interval")
"""Levels of measurement."""


MOST_VALUES = 101
"""With more different values than this the ratings are no categories, and only interval alpha is given."""


MOST_IN_PACKAGE = 20_000_000
"""The package holds items x values x values numbers in memory; above this the formulas here give the value."""


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
    """Shape (cells, kinds): o_ck for c < k, where a kind is a pair of unlike values that occurs in some item."""
    kinds: tuple[NDArray[np.intp], NDArray[np.intp]]
    """The lower and the higher value of each kind, as places among the sorted values."""

    def alphas(self, weights: Floats) -> dict[str, Floats]:
        """Alpha of each level, shape (draws,), NaN where undefined; ``weights`` has shape (draws, cells)."""
        n, total, squares, within = (weights @ self.moments).T
        found = {"interval": _alpha(2 * within, n, total, squares)}
        if self.n_c is not None and self.disagreements is not None:
            n_c, o_ck = weights @ self.n_c, weights @ self.disagreements
            found["nominal"] = 1 - (n - 1) * ratio(2 * o_ck.sum(axis=1), n**2 - (n_c**2).sum(axis=1))
            ranks = np.cumsum(n_c, axis=1) - n_c / 2 - n[:, None] / 2  # mid-ranks of values, less their mean
            apart = (ranks[:, self.kinds[1]] - ranks[:, self.kinds[0]]) ** 2
            found["ordinal"] = _alpha(
                2 * (o_ck * apart).sum(axis=1), n, (n_c * ranks).sum(axis=1), (n_c * ranks**2).sum(axis=1)
            )
        return found


def alphas(ratings: Floats, resampler: Resampler) -> dict[str, Estimate]:
    """Alpha at each of ``LEVELS``, with its bootstrap interval.

    Args:
        ratings: shape (items, annotators), NaN where an annotator did not rate an item.
        resampler: of the same items.
    """
    ratings = _side_by_side(ratings)
    known = np.isfinite(ratings)
    # A rating that stands alone pairs with no other, so it says nothing of agreement, nor of chance.
    pairable = known.sum(axis=1) > 1
    values = np.unique(ratings[pairable][known[pairable]])
    if len(values) < 2:
        return dict.fromkeys(LEVELS, Estimate(None, reason=SAME if len(values) else ALONE))
    sums = coincidences(ratings[pairable], resampler.cells[pairable], resampler.weights.shape[1])
    if sums.n_c is None or pairable.sum() * len(values) ** 2 > MOST_IN_PACKAGE:
        ones = np.ones((1, len(sums.moments)))
        points = {level: float(alpha[0]) for level, alpha in sums.alphas(ones).items()}
    else:
        data = {"reliability_data": ratings[pairable].T, "value_domain": values}
        points = {level: float(krippendorff.alpha(**data, level_of_measurement=level)) for level in LEVELS}
    draws = sums.alphas(resampler.weights) if resampler.is_enough else {}
    many = f"the ratings take {len(values):,} different values, and it is for at most {MOST_VALUES}"
    return {level: resampler.estimate(points.get(level, np.nan), draws.get(level), many) for level in LEVELS}


def _side_by_side(ratings: Floats) -> Floats:
    """The ratings of each item in as few columns as the item with most has: alpha does not ask who gave them."""
    item, annotator = np.nonzero(np.isfinite(ratings))
    counts = np.bincount(item, minlength=len(ratings))
    place = np.arange(len(item)) - (np.cumsum(counts) - counts)[item]
    found = np.full((len(ratings), int(counts.max(initial=0))), np.nan)
    found[item, place] = ratings[item, annotator]
    return found


def coincidences(ratings: Floats, cells: NDArray[np.intp], count: int) -> Coincidences:
    """The sums of items with two or more ratings each.

    Args:
        ratings: shape (items, annotators), NaN where there is no rating.
        cells: shape (items,), numbers under ``count``.
    """
    known = np.isfinite(ratings)
    item, _ = np.nonzero(known)
    values, value = np.unique(ratings[known], return_inverse=True)
    m = known.sum(axis=1)
    given = np.where(known, ratings - values[0], 0.0)  # from the lowest value, so that squares stay small
    total, squares = given.sum(axis=1), (given**2).sum(axis=1)
    moments = np.stack([m, total, squares, (m * squares - total**2) / (m - 1)])
    summed = np.stack([np.bincount(cells, row, minlength=count) for row in moments], axis=1, dtype=float)
    if len(values) > MOST_VALUES:
        none = np.empty(0, dtype=np.intp)
        return Coincidences(summed, None, None, (none, none))
    # The ratings of an item stand side by side, so any two of them are fewer than m places (a lag) apart.
    firsts = [np.flatnonzero(item[lag:] == item[:-lag]) for lag in range(1, int(m.max()))]
    first = np.concatenate(firsts)
    other = np.concatenate([places + lag for lag, places in enumerate(firsts, 1)])
    unlike = value[first] != value[other]
    first, other = first[unlike], other[unlike]
    # Only pairs of unlike values disagree; a pair is named by its two values, whichever came first.
    low, high = np.minimum(value[first], value[other]), np.maximum(value[first], value[other])
    kinds, kind = np.unique(low * len(values) + high, return_inverse=True)
    return Coincidences(
        moments=summed,
        n_c=_by_cell(cells[item], value, (count, len(values))),
        disagreements=_by_cell(cells[item[first]], kind, (count, len(kinds)), 1 / (m[item[first]] - 1)),
        kinds=(kinds // len(values), kinds % len(values)),
    )


def _by_cell(
    cells: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int], weights: Floats | None = None
) -> Floats:
    """How often each column occurs in each cell, or the sum of its weights: an array of ``shape`` (cells, columns)."""
    flat = np.bincount(cells * shape[1] + columns, weights, minlength=shape[0] * shape[1])
    return np.asarray(flat.reshape(shape), dtype=float)


def _alpha(observed: Floats, n: Floats, total: Floats, squares: Floats) -> Floats:
    """1 - D_o / D_e for squared differences of scores with these sums, weighted by how often each occurs."""
    # The sum over all pairs of ratings of their squared difference is 2 (n sum x² - (sum x)²).
    expected = 2 * (n * squares - total**2)
    expected = np.where(expected > 1e-12 * n * squares, expected, 0.0)  # what is left may be rounding only
    return np.asarray(1 - (n - 1) * ratio(observed, expected))
