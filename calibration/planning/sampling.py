"""Drawing a sample of fixed size in which the chance of each item is known exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.resampling import Floats

__all__ = ["inclusion_probabilities", "systematic"]


def inclusion_probabilities(sizes: Floats, budget: float) -> Floats:
    """Chances in proportion to ``sizes``, none over 1, that sum to ``budget``; shape (items,).

    Items whose chance would pass 1 are certain, and the rest of the budget is shared out among the others, until it
    fits (Sarndal, Swensson and Wretman 1992, "Model Assisted Survey Sampling", section 3.6.1).

    Args:
        sizes: shape (items,), above 0.
        budget: the expected size of the sample, at most the number of items.
    """
    certain = np.zeros(len(sizes), dtype=bool)
    while True:
        rest = sizes * ~certain
        chances = np.where(certain, 1.0, rest * (budget - certain.sum()) / max(rest.sum(), np.finfo(float).tiny))
        over = (chances > 1) & ~certain
        if not over.any():
            return np.minimum(chances, 1.0)
        certain |= over


def systematic(chances: Floats, generator: np.random.Generator) -> NDArray[np.intp]:
    """The items drawn, in order: systematic sampling with unequal probabilities (Madow 1949, "On the theory of
    systematic sampling, II").

    One random number places a grid of step 1 over the running sum of the chances, and an item is drawn where a point
    falls on its stretch: so each item is drawn with its own chance exactly, as many are drawn as the chances sum to,
    and any run of items in the order given gets its share to within one.

    Args:
        chances: shape (items,), from 0 to 1, with a whole sum.
        generator: of the one random number.
    """
    certain = np.flatnonzero(chances >= 1)
    others = np.flatnonzero((chances > 0) & (chances < 1))
    size = round(float(chances[others].sum()))
    if size == 0:
        return certain
    ends = np.cumsum(chances[others])
    points = (generator.random() + np.arange(size)) * float(ends[-1]) / size
    return np.sort(np.concatenate([certain, others[np.searchsorted(ends[:-1], points, side="right")]]))
