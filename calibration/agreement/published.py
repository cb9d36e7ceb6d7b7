"""Agreement with published means of systems, where no single rating was published.

A figure that was read off a chart is known to a tolerance only. So only the pairs of sources that this tolerance can
decide are counted, and the p-value is exact: over all ways to hand the judge's means to the sources.
"""

from __future__ import annotations

import math
from importlib.resources import files
from itertools import permutations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.agreement.association import pearson, spearman
from calibration.resampling import Floats

__all__ = ["agreement_with_published", "chatanime_means"]

MIN_SOURCES = 3
MOST_PERMUTED = 8
"""Of more sources than this the permutations are too many to list."""


def chatanime_means() -> pd.DataFrame:
    """What is published of ChatAnime's ratings: ``source, metric, mean, tolerance``; 6 sources, 10 metrics."""
    with (files("calibration") / "reference" / "chatanime_means.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def agreement_with_published(means: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """A judge's system means beside published ones, a row a metric.

    Args:
        means: ``source, metric, mean`` of the judge; NaN where it has none.
        published: ``source, metric, mean, tolerance``; a pair is decided where two means differ by more than the
            tolerances of both together.

    Returns:
        ``metric, sources, pairs, decided, alike, accuracy, p_value, spearman, pearson``: of the ``decided`` pairs,
        ``alike`` are in the judge's order too (a tie of the judge's counts half). ``p_value`` is the share of all
        permutations of the judge's means that do as well or better, so one-sided and exact; NaN with no decided pair, a
        judge that gives all the same, or over eight sources.
    """
    both = published.merge(means.dropna(subset="mean"), on=["source", "metric"], suffixes=("", "_judge"))
    tables = [(metric, table) for metric, table in both.groupby("metric", sort=False) if len(table) >= MIN_SOURCES]
    columns = ["metric", "sources", "pairs", "decided", "alike", "accuracy", "p_value", "spearman", "pearson"]
    return pd.DataFrame([{"metric": metric, **_metric(table)} for metric, table in tables], columns=columns)


def _metric(table: pd.DataFrame) -> dict[str, float]:
    human, judge, tolerance = (table[name].to_numpy(float) for name in ("mean", "mean_judge", "tolerance"))
    first, second = np.triu_indices(len(human), 1)
    decided = np.abs(human[first] - human[second]) > tolerance[first] + tolerance[second] + 1e-9
    pairs = first[decided], second[decided]
    alike, ones = _alike(judge, human, *pairs), np.ones(len(human))
    return {
        "sources": len(human),
        "pairs": math.comb(len(human), 2),
        "decided": len(pairs[0]),
        "alike": alike,
        "accuracy": alike / len(pairs[0]) if len(pairs[0]) else math.nan,
        "p_value": _p_value(judge, human, alike, *pairs),
        "spearman": float(spearman(judge, human, ones)),
        "pearson": float(pearson(judge, human, ones)),
    }


def _alike(judge: Floats, human: Floats, first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    same = np.sign(judge[first] - judge[second]) * np.sign(human[first] - human[second])
    return float((same + 1).sum() / 2)


def _p_value(judge: Floats, human: Floats, alike: float, first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    if not len(first) or np.ptp(judge) == 0 or len(judge) > MOST_PERMUTED:
        return math.nan
    found = [_alike(judge[list(order)], human, first, second) for order in permutations(range(len(judge)))]
    return float(np.mean(np.array(found) >= alike))
