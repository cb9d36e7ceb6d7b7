"""Ratings of one metric, written as a small array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.paired import Paired


def rated(
    ratings,
    judge=None,
    *,
    groups: Sequence[object] | None = None,
    characters: Sequence[object] | None = None,
    weights: Sequence[float] | None = None,
) -> Paired:
    """Ratings, shape (items, annotators), of annotators a, b, c, ...; each item is a group unless groups are given."""
    matrix = np.array(ratings, dtype=float)
    count = len(matrix)
    items = labels(range(count))
    return Paired(
        metric="fluency",
        scale=(1.0, 5.0),
        items=items,
        sources=labels(["s"] * count),
        groups=items if groups is None else labels(groups),
        characters=None if characters is None else labels(characters),
        judge=np.full(count, 3.0) if judge is None else np.array(judge, dtype=float),
        levels=None,
        ratings=matrix,
        annotators=tuple("abcdefghij"[: matrix.shape[1]]),
        weights=np.ones(count) if weights is None else np.array(weights, dtype=float),
    )


def labels(values) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


def many(items: int, annotators: int = 3, *, groups: int = 60, grid: float = 1.0, seed: int = 0) -> Paired:
    """Random ratings that agree somewhat, on a grid of scores; a judge's scores of the same quality."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(3, 1, (items, 1))
    scores = np.clip(np.round((truth + generator.normal(0, 1, (items, annotators + 1))) / grid) * grid, 1, 5)
    return rated(scores[:, 1:], scores[:, 0], groups=[item % groups for item in range(items)])
