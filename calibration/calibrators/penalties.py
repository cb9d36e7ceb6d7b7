"""Which penalties a regression is to have: by how well it predicts what was left out, the strongest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.calibrators.cross_validation import Split, simplest_within_one_standard_error, splits
from calibration.calibrators.features import Ratings
from calibration.calibrators.mixed_ridge import NormalEquations
from calibration.stats.intervals import Floats

Candidate = tuple[Floats, float, float, NDArray[np.bool_]]
"""Penalties of columns, of severities and of slopes, and which coefficients may not be below 0."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A regression on all ratings, and on those that are not left out."""

    design: Floats
    """Shape (items, columns), the first of them 1."""
    score: Floats
    """Shape (items,): what annotators' slopes are on."""
    ratings: Ratings
    weights: Floats
    """Shape (ratings,), of mean 1."""
    whole: NormalEquations
    split: Split | None
    """The hardest that the data allow; None where nothing can be left out."""
    parts: tuple[tuple[NormalEquations, ...], ...]
    """By repeat and fold: the sums over all ratings but those of the fold."""

    @classmethod
    def of(cls, design: Floats, score: Floats, ratings: Ratings, seed: int) -> Problem:
        """Sum once over all ratings, and once over each fold."""
        weights = ratings.weights[ratings.item]
        weights = weights / weights.mean()

        def sums(chosen: NDArray[np.bool_]) -> NormalEquations:
            return NormalEquations.of(
                design,
                score,
                ratings.item[chosen],
                ratings.annotator[chosen],
                len(ratings.annotators),
                ratings.scores[chosen],
                weights[chosen],
            )

        whole = sums(np.full(len(ratings.item), True))
        split = next(iter(splits(ratings.sources, ratings.blocks, ratings.groups, seed=seed)), None)
        repeats = () if split is None else split.folds[:, ratings.item]
        parts = tuple(tuple(whole - sums(folds == fold) for fold in range(int(folds.max()) + 1)) for folds in repeats)
        return cls(design, score, ratings, weights, whole, split, parts)

    def choose(self, candidates: Sequence[Candidate]) -> int:
        """The simplest within one standard error of the best by what was left out; the first where nothing can be."""
        return self.simplest(self.losses(candidates))

    def simplest(self, losses: Sequence[Floats]) -> int:
        """The place of that candidate, by the losses of all."""
        if self.split is None:
            return 0
        return simplest_within_one_standard_error(losses, self.weights, self.split.labels[self.ratings.item])[0]

    def losses(self, candidates: Sequence[Candidate]) -> list[Floats]:
        """Of each candidate shape (ratings,): each rating's squared error by fits without it; 0 without a split."""
        item, annotator = self.ratings.item, self.ratings.annotator
        losses = []
        for penalties, severity, slope, rising in candidates:
            loss = np.zeros(len(item))
            for folds, parts in zip(() if self.split is None else self.split.folds[:, item], self.parts, strict=True):
                for fold, part in enumerate(parts):
                    held = folds == fold
                    found = part.solve(penalties, severity, slope, rising)
                    predicted = found.predict(self.design, self.score, item[held], annotator[held])
                    loss[held] += (predicted - self.ratings.scores[held]) ** 2 / len(self.parts)
            losses.append(loss)
        return losses
