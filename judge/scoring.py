"""From log-probabilities of the five levels to a judgment. Pure: numbers in, values out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from judge.types import NOT_FINITE, Judgment

Array = NDArray[np.float64]


def judgment(logprobs: Array) -> Judgment:
    """The judgment that the probabilities of the levels amount to.

    Args:
        logprobs: shape (orderings, 5): natural logarithms over the whole vocabulary of each level's probability in
            the answer slot, so that their exponentials sum to the level mass. Orderings are averaged.

    Returns:
        The renormalised distribution with its mass; an error ``not_finite`` where there is none.
    """
    probabilities = np.exp(logprobs).mean(axis=0)
    mass = float(probabilities.sum())
    if not np.isfinite(mass) or mass <= 0.0:
        return Judgment(None, None, NOT_FINITE)
    return Judgment(tuple(float(p) for p in probabilities / mass), min(mass, 1.0))
