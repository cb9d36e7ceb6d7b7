"""Small metrics that people rated and a judge scored, and tables of them, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from calibration import Paired


def labels(values: Any) -> np.ndarray:
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
    matrix = np.array(ratings, dtype=float)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
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


def rated(ratings: Any, judge: Any = None, **how: Any) -> Paired:
    """The metric fluency: ratings, shape (items, annotators), of annotators a, b, c, …; a judge that says 3 of all."""
    one = metric(np.full(len(ratings), 3.0) if judge is None else judge, ratings, **how)
    many = one.ratings.shape[1]
    names = tuple("abcdefghij"[:many]) if many <= 10 else one.annotators
    return replace(one, metric="fluency", annotators=names)


def many(items: int, annotators: int = 3, *, groups: int = 60, grid: float = 1.0, seed: int = 0) -> Paired:
    """Random ratings that agree somewhat, on a grid of scores; a judge's scores of the same quality."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(3, 1, (items, 1))
    scores = np.clip(np.round((truth + generator.normal(0, 1, (items, annotators + 1))) / grid) * grid, 1, 5)
    return rated(scores[:, 1:], scores[:, 0], groups=[item % groups for item in range(items)])


def paired(
    judge: Any, human: Any = None, sources: Any = None, groups: Any = None, characters: Any = None, weights: Any = None
) -> Paired:
    """One rating an item (NaN: none; None: none of any); by default one source, and every item a group of its own."""
    ratings = np.full(len(judge), np.nan) if human is None else human
    how = {"sources": sources, "groups": groups, "characters": characters, "weights": weights}
    return metric(judge, ratings, **how)


def systems(names: str, groups: int, shifts: dict[str, float] | None = None, seed: int = 0) -> Paired:
    """A source per letter, an item per group, all rated: human is judge plus a shift of the source plus noise."""
    generator = np.random.default_rng(seed)
    rows = [(name, group) for name in names for group in range(groups)]
    source, group = zip(*rows, strict=True)
    judge = 3 + generator.normal(0, 0.5, groups)[list(group)] + generator.normal(0, 0.3, len(rows))
    shift = np.array([(shifts or {}).get(name, 0.0) for name in source])
    return paired(judge, judge + shift + generator.normal(0, 0.2, len(rows)), source, group)


def scores(sources: dict[str, int], *, characters: int = 1, levels: bool = True, seed: int = 0) -> pd.DataFrame:
    """A judge's scores on metrics x and y, ``sources[name]`` scenarios each with every character."""
    generator = np.random.default_rng(seed)
    rows = [
        {"item_id": f"{source}/c{c}/{n}", "source": source, "character": f"c{c}", "scenario": str(n), "group": str(n),
         "metric": metric}
        for source, scenarios in sources.items()
        for c in range(characters)
        for n in range(scenarios)
        for metric in ("x", "y")
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    chances = generator.dirichlet(np.ones(5), len(table)) ** 2
    chances /= chances.sum(axis=1, keepdims=True)
    table["score"] = chances @ np.arange(1, 6)
    if levels:
        table[[f"p{level}" for level in range(1, 6)]] = chances
    return table
