"""Small metrics that people rated and a judge scored, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from calibration import Paired


def labels(values: Sequence[Any]) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


def metric(
    judge: Sequence[float],
    ratings: Sequence[Any],
    *,
    groups: Sequence[Any] | None = None,
    sources: Sequence[Any] | None = None,
    characters: Sequence[Any] | None = None,
    weights: Sequence[float] | None = None,
    levels: Any = None,
    lengths: Sequence[float] | None = None,
    scale: tuple[float, float] = (1, 5),
) -> Paired:
    """A metric ``m``; ``ratings`` is one per item, or a row per item. Items are groups of their own if none is told."""
    matrix = np.array(ratings, dtype=float).reshape(len(judge), -1)
    items = range(len(judge))
    return Paired(
        metric="m",
        scale=scale,
        items=labels(items),
        sources=labels(sources if sources is not None else ["s"] * len(judge)),
        groups=labels(groups if groups is not None else items),
        characters=None if characters is None else labels(characters),
        judge=np.array(judge, dtype=float),
        levels=None if levels is None else np.array(levels, dtype=float),
        ratings=matrix,
        annotators=tuple(f"a{column}" for column in range(matrix.shape[1])),
        weights=np.ones(len(judge)) if weights is None else np.array(weights, dtype=float),
        lengths=None if lengths is None else np.array(lengths, dtype=float),
    )


def tables(
    items: int = 40,
    raters: int = 3,
    *,
    sources: int = 4,
    metrics: Sequence[str] = ("m",),
    noise: float = 0.8,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ratings and scores of the same items, both the truth with noise, as tables that can be written to a file."""
    generator = np.random.default_rng(seed)
    rated, judged = [], []
    for name in metrics:
        truth = generator.uniform(1, 5, items)
        given = np.clip(np.round(truth[:, None] + generator.normal(0, noise, (items, raters))), 1, 5)
        scores = np.clip(truth + generator.normal(0, noise, items), 1, 5).round(3)
        for item in range(items):
            who = {"item_id": f"i{item}", "source": f"s{item % sources}", "metric": name}
            rated += [{**who, "annotator": f"a{r}", "score": int(given[item, r])} for r in range(raters)]
            judged.append({**who, "score": float(scores[item])})
    return pd.DataFrame(rated), pd.DataFrame(judged)
