"""Weighted ridge regression with an intercept and a slope for each annotator, each shrunk by a penalty of its own.

scikit-learn's Ridge has one penalty for all columns; partial pooling of annotators needs another for them than for
items. Annotators are taken out of the normal equations first (a Schur complement: two numbers each), so that thousands
of them cost as much as their ratings do. Penalties are in units of observations: a column of variance 1 with penalty 10
is shrunk to half by 10 observations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from calibration.stats.intervals import Floats

TINY = 1e-9
"""What is not above it, in sums over ratings, is rounding."""


MOST_EXCHANGES = 1000
"""Of coefficients between held and free; a handful is usual."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What a regression learned."""

    items: Floats
    """Shape (columns,): the first is the intercept."""
    severity: Floats
    """Shape (annotators,): how much higher each rates."""
    slope: Floats
    """Shape (annotators,): what each adds to the coefficient of the score."""

    def predict(self, design: Floats, score: Floats, item: NDArray[np.intp], annotator: NDArray[np.intp]) -> Floats:
        """Shape (ratings,): from columns and score of items, and the places of each rating's item and annotator."""
        return (design @ self.items)[item] + self.severity[annotator] + self.slope[annotator] * score[item]


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """The sums over ratings that a regression needs. Those of some ratings can be taken off those of all."""

    gram: Floats
    """Shape (columns, columns)."""
    moment: Floats
    """Shape (columns,)."""
    annotators: Floats
    """Shape (annotators, 2, 2): of the annotator's intercept and slope."""
    cross: Floats
    """Shape (annotators, 2, columns)."""
    of_annotators: Floats
    """Shape (annotators, 2): their moments."""

    @classmethod
    def of(
        cls,
        design: Floats,
        score: Floats,
        item: NDArray[np.intp],
        annotator: NDArray[np.intp],
        annotators: int,
        target: Floats,
        weights: Floats,
    ) -> NormalEquations:
        """Sum over ratings.

        Args:
            design: shape (items, columns), the first of them 1.
            score: shape (items,), what annotators' slopes are on.
            item, annotator, target, weights: shape (ratings,).
            annotators: how many there are.
        """
        count = len(design)
        of_item, given = (np.bincount(item, values, minlength=count) for values in (weights, weights * target))
        on_score = score[item]
        who = [
            sparse.csr_array((values, (annotator, item)), shape=(annotators, count))
            for values in (weights, weights * on_score)
        ]
        sums = [
            np.bincount(annotator, values, minlength=annotators)
            for values in (weights, weights * on_score, weights * on_score**2)
        ]
        return cls(
            gram=design.T @ (design * of_item[:, None]),
            moment=design.T @ given,
            annotators=np.stack([np.stack(sums[:2], axis=-1), np.stack(sums[1:], axis=-1)], axis=1),
            cross=np.stack([table @ design for table in who], axis=1),
            of_annotators=np.stack(
                [np.bincount(annotator, w * target, minlength=annotators) for w in (weights, weights * on_score)],
                axis=1,
            ),
        )

    def __sub__(self, other: NormalEquations) -> NormalEquations:
        """The sums over the ratings that are not in the other."""
        return NormalEquations(
            self.gram - other.gram,
            self.moment - other.moment,
            self.annotators - other.annotators,
            self.cross - other.cross,
            self.of_annotators - other.of_annotators,
        )

    def solve(
        self, penalties: Floats, severity: float, slope: float, rising: NDArray[np.bool_] | None = None
    ) -> Coefficients:
        """Coefficients that minimise the weighted squared error plus the sum of penalty times coefficient squared.

        Args:
            penalties: shape (columns,), 0 for the intercept; a column with an infinite one is left out.
            severity, slope: penalties of annotators; an infinite one leaves that part out.
            rising: shape (columns,), which coefficients may not be below 0.
        """
        parts = [part for part, penalty in enumerate((severity, slope)) if np.isfinite(penalty)]
        count, columns = len(self.cross), len(self.moment)
        own = self.annotators[:, parts][:, :, parts] + np.diag([(severity, slope)[part] for part in parts])
        cross, moment = self.cross[:, parts], self.of_annotators[:, parts]
        # Each annotator's own equations, solved for all columns and the moment at once.
        both = np.linalg.solve(own, np.concatenate([cross, moment[..., None]], axis=2))
        taken, moved = both[..., :columns], both[..., columns]
        rows = cross.reshape(count * len(parts), columns)
        gram = self.gram - rows.T @ taken.reshape(rows.shape)
        rest = self.moment - rows.T @ moved.reshape(len(rows))
        kept = np.flatnonzero(np.isfinite(penalties))
        items = np.zeros(columns)
        items[kept] = _solve(
            gram[np.ix_(kept, kept)] + np.diag(penalties[kept]), rest[kept], None if rising is None else rising[kept]
        )
        found = np.zeros((count, 2))
        found[:, parts] = moved - taken @ items
        return Coefficients(items, found[:, 0], found[:, 1])


def _solve(gram: Floats, moment: Floats, rising: NDArray[np.bool_] | None) -> Floats:
    """The solution of normal equations, with some coefficients held at 0 or above.

    A column that is 0 throughout gets the coefficient 0. Which coefficients are held at 0 is found by Murty's (1974)
    least-index pivoting, which ends after finitely many exchanges as the matrix is positive definite.
    """
    there = np.diag(gram) > TINY
    held = ~there
    found = np.zeros(len(moment))
    for _ in range(MOST_EXCHANGES):
        free = np.flatnonzero(~held)
        found[:] = 0.0
        found[free] = np.linalg.solve(gram[np.ix_(free, free)] + TINY * np.eye(len(free)), moment[free])
        if rising is None:
            break
        pull = moment - gram @ found  # above 0 where a coefficient that is held would grow
        wrong = np.flatnonzero(rising & there & np.where(held, pull > TINY * np.abs(moment).max(), found < 0))
        if not len(wrong):
            break
        held[wrong[0]] = ~held[wrong[0]]
    return found
