"""How well scores tell dialogues from their degraded forms: areas under ROC curves with intervals over groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from calibration.resampling import Estimate, Floats, Labels, clustered_mean, clustered_variance, student

__all__ = ["auc", "in_order", "share_lower"]


def auc(clean: Floats, degraded: Floats, groups: Labels) -> Estimate:
    """The chance that a clean item scores above a degraded one, ties counting half, with its 95% interval.

    The variance is that of the placement values of both sides (DeLong, DeLong and Clarke-Pearson 1988), summed within
    groups before squaring, as an item and its degraded form depend on each other (Obuchowski 1997, "Nonparametric
    analysis of clustered ROC curve data", eq. 4, with one sum over both sides); Student's t, cut to [0, 1].

    Args:
        clean, degraded, groups: shape (items,), finite; an item's group is that of both its forms.
    """
    if not len(clean):
        return Estimate(None, reason="there is no item that has both scores")
    above, below = placements(clean, degraded)
    value = float(above.mean())
    influence = (above - value + below - value) / len(clean)
    return _within(student(value, *clustered_variance(influence, groups)))


def placements(clean: Floats, degraded: Floats) -> tuple[Floats, Floats]:
    """Of each clean item the share of degraded ones under it, and of each degraded one of clean ones over it.

    Ties count half. Shapes (items,) each.
    """
    ranks = rankdata(np.concatenate([clean, degraded]))
    above = (ranks[: len(clean)] - rankdata(clean)) / len(degraded)
    below = 1 - (ranks[len(clean) :] - rankdata(degraded)) / len(clean)
    return above, below


def share_lower(clean: Floats, degraded: Floats, groups: Labels) -> Estimate:
    """The share of items whose own degraded form scores lower, ties counting half."""
    return _within(clustered_mean((1 + np.sign(clean - degraded)) / 2, groups))


def in_order(scores: Floats, groups: Labels) -> Estimate:
    """The share of items whose scores fall from each strength to the next, ties not counting; 1/6 by chance.

    Args:
        scores: shape (items, strengths), mildest first.
    """
    return _within(clustered_mean((np.diff(scores, axis=1) < 0).all(axis=1).astype(float), groups))


def _within(found: Estimate) -> Estimate:
    """A share's interval cut to where shares lie."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))
