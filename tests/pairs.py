"""Ratings beside scores, made up for tests."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from calibration.paired import Paired


def paired(
    judge: ArrayLike,
    human: ArrayLike | None = None,
    sources: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    characters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Paired:
    """One metric, one rating an item (NaN: none); by default one source, and every item a group of its own."""
    scores = np.asarray(judge, dtype=float)
    count = len(scores)
    ratings = np.full(count, np.nan) if human is None else np.asarray(human, dtype=float)
    return Paired(
        metric="m",
        scale=(1.0, 5.0),
        items=labels(range(count)),
        sources=labels(["a"] * count if sources is None else sources),
        groups=labels(range(count) if groups is None else groups),
        characters=None if characters is None else labels(characters),
        judge=scores,
        levels=None,
        ratings=ratings[:, None],
        annotators=("h",),
        weights=np.ones(count) if weights is None else np.asarray(weights, dtype=float),
    )


def labels(values: object) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


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
