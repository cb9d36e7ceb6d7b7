"""From judgments to ``scores.csv`` and ``leaderboard.csv``: a part at a time, so that memory stays flat.

Every mean here is a *judge mean*: what this judge gives on average over dialogues like these. Its interval is over
scenarios and says nothing of what people would give.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TextIO

import numpy as np
import pandas as pd
from scipy import stats

from judge.sheets import write_csv
from judge.types import DIMENSIONS, METRICS, OVERALL, RESPONSE_DIVERSITY

TARGET = "judge mean"
MIN_SCENARIOS = 8
"""Below so many scenarios no interval is given: it would rest on too few groups."""
EQUAL = 1e-9
"""A half-width up to this is that of equal means, and rounding."""
STATISTICS = ["distinct_2", "self_bleu", "compression_ratio"]
"""The columns of response diversity that come from the text alone."""
KEY = ["judge", "source", "character", "scenario"]


def scale_columns(metrics: Sequence[str]) -> list[str]:
    """The columns of a scores table: metrics, then the dimensions and the overall mean they make up whole."""
    whole = [name for name, members in DIMENSIONS.items() if set(members) <= set(metrics)]
    return [*(m for m in METRICS if m in metrics), *whole, *([OVERALL] if set(METRICS) <= set(metrics) else [])]


def scores_table(judgments: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A row per dialogue, in the order given: key columns, metrics, dimension means, overall mean.

    A mean of several metrics is missing where one of them is.
    """
    order = judgments[KEY].drop_duplicates()
    wide = judgments.pivot(index=KEY, columns="metric", values="score").reindex(columns=list(metrics))
    for dimension, members in DIMENSIONS.items():
        if set(members) <= set(metrics):
            wide[dimension] = wide[list(members)].mean(axis=1, skipna=False)
    if set(METRICS) <= set(metrics):
        wide[OVERALL] = wide[list(METRICS)].mean(axis=1, skipna=False)
    wide = wide.loc[pd.MultiIndex.from_frame(order)].reset_index()
    return wide[[*KEY, *scale_columns(metrics)]]


def summarise(parts: Iterable[pd.DataFrame], metrics: Sequence[str], scores_csv: TextIO) -> pd.DataFrame:
    """Write ``scores.csv`` and return the leaderboard, from parts of judgments in order.

    The leaderboard has a row per source and metric, dimension or overall: ``judge, source, metric, mean, low, high,
    target, n, missing, scenarios``; ``n`` and ``missing`` count dialogues.
    """
    sums: pd.DataFrame | None = None
    scores_csv.write(",".join([*KEY, *scale_columns(metrics)]) + "\n")
    for part in parts:
        scores = scores_table(part, metrics)
        write_csv(scores, scores_csv, header=False)
        cells = _cells(scores, scale_columns(metrics))
        sums = cells if sums is None else sums.add(cells, fill_value=0)
    return _leaderboard(sums, metrics)


def _cells(scores: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Per judge, source and scenario: sum, count and missing of each column."""
    groups = scores.groupby(["judge", "source", "scenario"], sort=False)[columns]
    filled = groups.count()
    missing = filled.rsub(groups.size(), axis=0)
    return pd.concat([groups.sum(), filled, missing], axis=1, keys=["sum", "n", "missing"])


def _leaderboard(sums: pd.DataFrame | None, metrics: Sequence[str]) -> pd.DataFrame:
    rows = []
    if sums is not None:
        for (judge, source), cells in sums.groupby(level=["judge", "source"], sort=True):
            for column in scale_columns(metrics):
                row = _mean_row(cells["sum"][column], cells["n"][column])
                missing = int(cells["missing"][column].sum())
                rows.append({"judge": judge, "source": source, "metric": column, **row, "missing": missing})
    columns = ["judge", "source", "metric", "mean", "low", "high", "target", "n", "missing", "scenarios"]
    return pd.DataFrame(rows, columns=columns)


def _mean_row(sums: pd.Series[float], counts: pd.Series[int]) -> dict[str, object]:
    means = (sums / counts.where(counts > 0)).dropna().to_numpy()
    mean, low, high = mean_interval(means)
    return {"mean": mean, "low": low, "high": high, "target": TARGET, "n": int(counts.sum()), "scenarios": len(means)}


def diversity_table(ratings: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Response diversity from its parts: a row per source and character (``level`` is ``character``), then a row per
    source (``level`` is ``source``) whose values are means over its characters; ``response_diversity`` is the judge's.
    """
    columns = ["level", "judge", "source", "character", "dialogues", *STATISTICS, RESPONSE_DIVERSITY, "mass", "error"]
    if not ratings:
        return pd.DataFrame(columns=columns)
    roles = pd.concat(ratings, ignore_index=True).rename(columns={"score": RESPONSE_DIVERSITY})
    roles = roles.sort_values(["source", "character"]).assign(level="character")
    grouped = roles.groupby(["judge", "source"], as_index=False)
    means = grouped.agg({"dialogues": "sum", **dict.fromkeys([*STATISTICS, RESPONSE_DIVERSITY, "mass"], "mean")})
    return pd.concat([roles[columns], means.assign(level="source")], ignore_index=True)[columns]


def mean_interval(group_means: np.ndarray, level: float = 0.95) -> tuple[float | None, float | None, float | None]:
    """Mean of group means with Student's t interval over groups, k - 1 degrees of freedom: mean, low, high.

    No interval under ``MIN_SCENARIOS`` groups, or where all means are equal, which does not say how far off they are;
    no mean without a group: None in their place.
    """
    k = len(group_means)
    if k == 0:
        return None, None, None
    mean = float(np.mean(group_means))
    if k < MIN_SCENARIOS:
        return mean, None, None
    half = float(stats.t.ppf((1 + level) / 2, k - 1) * np.std(group_means, ddof=1) / np.sqrt(k))
    return (mean, mean - half, mean + half) if half > EQUAL else (mean, None, None)
