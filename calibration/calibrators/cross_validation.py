"""What is left out to tell how well a map predicts, and the one-standard-error rule by which everything is chosen.

Left out is the hardest that the data allow: a system, else a block (a version or a period), else groups. A map that
was chosen by random items looks good on items like those it was fitted on; it is used on systems that nobody rated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from calibration.stats.intervals import Floats, Labels, clustered_variance, codes

FOLDS = 5
"""Folds over groups, where there are as many groups."""


REPEATS = 3
"""How often groups are put into folds anew: losses are means over all, so that they hardly depend on the seed."""


FEWEST_LEFT_OUT = 4
"""From so many systems (or blocks) on, one at a time is left out."""


LEAST_GAIN = 0.01
"""A gain of less than this share of the loss is none, however sure: two maps may be the same but for rounding."""


@dataclass(frozen=True, slots=True)
class Split:
    """One way of leaving items out."""

    scheme: str
    """How: a phrase such as ``leaving one of 5 sources out``."""
    folds: NDArray[np.intp]
    """Shape (repeats, items): which items are left out together, numbered from 0."""
    labels: Labels
    """Shape (items,): the system, block or group that standard errors are over."""


def splits(
    sources: Labels, blocks: Labels | None, groups: Labels, *, seed: int = 0, fewest: int = FEWEST_LEFT_OUT
) -> list[Split]:
    """Every way of leaving items out that the data allow, the hardest first; none where all are of one group.

    Args:
        sources, blocks, groups: shape (items,); blocks are None where none are known.
        seed: of the folds over groups; leaving systems or blocks out has nothing random in it.
        fewest: how many systems (or blocks) there must be.
    """
    found = []
    for what, labels in (("sources", sources), ("blocks", blocks)):
        if labels is not None and (count := len(np.unique(labels))) >= fewest:
            found.append(Split(f"leaving one of {count} {what} out", codes(labels)[None], labels))
    folds = group_folds(groups, seed)
    if (count := int(folds.max()) + 1) > 1:
        few = "" if count == FOLDS else " (there are no more groups)"
        repeats = 1 if count == len(np.unique(groups)) else REPEATS  # a group a fold: there is one way only
        again = [folds, *(group_folds(groups, seed + repeat * 1000) for repeat in range(1, repeats))]
        times = "" if repeats == 1 else f", {repeats} times"
        found.append(Split(f"{count} folds by group{few}{times}", np.stack(again), groups))
    return found


def group_folds(groups: Labels, seed: int, most: int = FOLDS) -> NDArray[np.intp]:
    """Shape (items,): the fold of each item, whole groups to a fold; ``most`` folds, or as many as there are groups."""
    folds = np.zeros(len(groups), dtype=np.intp)
    count = min(most, len(np.unique(groups)))
    if count > 1:
        splitter = GroupKFold(count, shuffle=True, random_state=seed)
        for fold, (_, held) in enumerate(splitter.split(folds, groups=groups)):
            folds[held] = fold
    return folds


def simplest_within_one_standard_error(losses: Sequence[Floats], weights: Floats, labels: Labels) -> tuple[int, int]:
    """The first candidate whose mean loss is within one standard error of the best's, and the best.

    It is the rule of Breiman et al. (1984). The standard error is that of the difference from the best over the labels
    that were left out: both predict the same items, so what makes an item hard for both is no part of it. A candidate
    that is worse by under a hundredth of the loss is within reach too.

    Args:
        losses: of each candidate, the simplest first, shape (rows,).
        weights, labels: shape (rows,).
    """
    means = [float(np.average(loss, weights=weights)) for loss in losses]
    best = int(np.argmin(means))
    for place, loss in enumerate(losses):
        worse = means[place] - means[best]
        influence = weights * (loss - losses[best] - worse) / weights.sum()
        variance, _ = clustered_variance(influence, labels)
        if worse <= max(variance**0.5 if np.isfinite(variance) else 0.0, LEAST_GAIN * means[best]):
            return place, best
    return best, best
