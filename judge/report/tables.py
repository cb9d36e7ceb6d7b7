"""Tables of a run: what was judged by what, what is missing, the leaderboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from calibration import rank_ranges, without_ratings
from calibration.systems.means import LABELLED, NEW_SYSTEM
from judge.report.figures import metric_key
from judge.report.people import People
from judge.report.reading import Run
from judge.report.values import Interval, Key, Table, number, numbers
from judge.store import scores_of
from judge.summary import scale_columns
from judge.types import COMPOSITES, METRICS, OVERALL

LINE = (3.0, 97.0)
"""Where the lowest and the highest end of a leaderboard's intervals are drawn, in parts of a hundred."""


def leaderboards(run: Run, people: People | None) -> dict[str, list[dict[str, Any]]]:
    """By metric, dimension and overall, the overall mean first: a row per source, best first.

    A row has ``source, mean, drawn`` (where value and interval are drawn), ``rank, rank_low, rank_high, n, missing``
    and, beside people, ``labelled`` and ``new``: the human mean by target.
    """
    ranks = _ranks(run)
    targets = {} if people is None else _by_target(people.means)
    names = sorted(scale_columns(run.metrics), key=lambda name: name != OVERALL)
    return {name: list(_rows(run.leaderboard, name, ranks.get(name, {}), targets)) for name in names}


def _ranks(run: Run) -> dict[str, dict[str, dict[Any, Any]]]:
    """By metric and source: the rank, and the ranks it may have."""
    if run.judgments["score"].notna().sum() == 0:
        return {}
    pairing = without_ratings(scores_of(run.judgments), scale=(1, 5), composites=COMPOSITES)
    tables = {name: rank_ranges(one).to_dict("records") for name, one in pairing.metrics.items()}
    return {name: {row["source"]: row for row in rows} for name, rows in tables.items()}


def _by_target(means: pd.DataFrame) -> dict[tuple[str, str, str], Interval]:
    rows = means.to_dict("records")
    ends = ("mean", "low", "high")
    return {(r["metric"], r["source"], r["target"]): Interval(*numbers(r[name] for name in ends)) for r in rows}


def _rows(
    board: pd.DataFrame, metric: str, ranks: dict[str, dict[Any, Any]], targets: dict[tuple[str, str, str], Interval]
) -> Iterator[dict[str, Any]]:
    rows = board[board["metric"] == metric].sort_values(["mean", "source"], ascending=[False, True])
    place = _scale(rows[["mean", "low", "high"]])
    for row in rows.to_dict("records"):
        source, ends = row["source"], [row[name] for name in ("mean", "low", "high")]
        found = ranks.get(source, {})
        yield {
            "source": source,
            "mean": Interval(*numbers(ends)),
            "drawn": [None if pd.isna(end) else round(place(end), 2) for end in ends],
            **{name: _whole(found.get(name)) for name in ("rank", "rank_low", "rank_high")},
            "labelled": targets.get((metric, source, LABELLED)),
            "new": targets.get((metric, source, NEW_SYSTEM)),
            "n": int(row["n"]),
            "missing": int(row["missing"]),
        }


def _scale(ends: pd.DataFrame) -> Any:
    """From points of the scale to parts of the width of a drawing."""
    known = ends.to_numpy(float)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    width = max(high - low, 0.1)
    return lambda value: LINE[0] + (LINE[1] - LINE[0]) * (value - low) / width


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def published_table(found: pd.DataFrame) -> Table:
    """A run's means beside published ones, from ``calibration.agreement_with_published``."""
    columns = {"sources": "sources.count", "decided": "pairs.decided", "alike": "pairs.alike", "p_value": "p.value",
               "spearman": "spearman", "pearson": "pearson"}  # fmt: skip
    counts = ("sources", "decided", "alike")
    found = found.sort_values("metric", key=lambda names: names.map(_place), kind="stable")
    rows = [
        [
            metric_key(row["metric"]),
            *(_count(row[name]) if name in counts else number(row[name], 3) for name in columns),
        ]
        for row in found.to_dict("records")
    ]
    return Table([Key("metric"), *(Key(key) for key in columns.values())], rows)


def _place(metric: str) -> int:
    """Where a metric of dialogues stands among them; behind them what is of a source."""
    return METRICS.index(metric) if metric in METRICS else len(METRICS)


def _count(value: float) -> int | float | None:
    """A count that may be a half, as a tie counts."""
    found = number(value, 1)
    return int(found) if found is not None and found.is_integer() else found
