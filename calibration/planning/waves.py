"""Several samples of the same items, one drawn after the other: weights that make all of them speak for all items.

Given what was rated before, a new draw estimates the mean of all items without bias: those rated count 1 each, those
drawn 1 / chance. So does each draw before it. A mean of such estimates, in shares that were fixed before a rating was
seen, is unbiased too, and its weights are the means of theirs. Without shares the earlier ratings would count for so
little that they might as well not have been made.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.planning.frame import Frame
from calibration.resampling import Floats, codes

__all__ = ["new_share", "rated_weights", "together"]


def new_share(frame: Frame, budget: int) -> Floats:
    """Shape (items,): the share of a new draw of ``budget`` items in the estimate for each item's source.

    As many labels as an even draw would bring, of all there would be then. It is 1 where the earlier ratings come
    without inclusion probabilities: nobody knows what they speak for but themselves.
    """
    source = codes(frame.items["source"].to_numpy(object))
    rated = np.bincount(source, weights=frame.rated)
    left = np.bincount(source) - rated
    even = np.minimum(left, budget / max(1, int(np.count_nonzero(left))))
    share = np.where(rated > 0, even / np.maximum(even + rated, 1), 1.0)
    return np.asarray(share[source] if frame.sampled else np.ones(len(source)))


def rated_weights(frame: Frame, share: Floats) -> Floats:
    """Shape (items,): what an item rated before weighs beside a new draw with ``share``; 0 for the others."""
    source = codes(frame.items["source"].to_numpy(object))
    weights = np.where(frame.rated, frame.weights, 0.0)
    whole = np.bincount(source)[source] / np.maximum(np.bincount(source, weights=weights)[source], 1e-9)
    return np.where(frame.rated, (1 - share) * weights * whole + share, 0.0)


def together(frame: Frame, budget: int, chances: Floats, drawn: NDArray[np.bool_]) -> pd.DataFrame:
    """item_id and inclusion_probability of the items rated before and those drawn, for when they are read as one.

    The probability is 1 / weight, times what makes the largest 1: means with weights do not change by it.

    Args:
        frame, budget: of the draw.
        chances: shape (items,), what each was drawn with.
        drawn: shape (items,), whether it was.
    """
    share = new_share(frame, budget)
    weights = np.where(frame.rated, rated_weights(frame, share), share / chances)
    here = frame.rated | drawn
    chance = min(float(np.min(weights[here])), 1.0) / weights[here]
    return pd.DataFrame({"item_id": frame.items["item_id"][here], "inclusion_probability": chance}).reset_index(
        drop=True
    )
