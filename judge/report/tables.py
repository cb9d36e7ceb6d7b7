"""Attacks, probes and comparisons of layouts, where a run's folder holds what ``--out`` of those commands wrote.

Knows nothing of what they measure: a list of records is a table, ``x_low`` and ``x_high`` are the interval of ``x``,
and a list of sentences is what a reader should know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration import Assessment, Paired, Pairing, rank_ranges, without_ratings
from calibration.system_means import LABELLED, NEW_SYSTEM
from judge.errors import InputError, one_line
from judge.report.load_run import Run
from judge.report.texts import Cell, Interval, Key, Table, metric_key, number, numbers
from judge.scoring.run_folder import scores_of
from judge.scoring.summary import scale_columns
from judge.types import COMPOSITES, METRICS, OVERALL


@dataclass(frozen=True, slots=True)
class People:
    """A run put beside people's ratings; ``means`` has the systems' means by target (``calibration.estimate``)."""

    pairing: Pairing
    assessment: Assessment
    means: pd.DataFrame

    @property
    def ratings(self) -> pd.DataFrame:
        """Every rating of an item that was judged: ``item_id, metric, annotator, score``."""
        return pd.concat([_ratings(one) for one in self.pairing.metrics.values()], ignore_index=True)


def _ratings(paired: Paired) -> pd.DataFrame:
    item, annotator = np.nonzero(np.isfinite(paired.ratings))
    names = np.array(paired.annotators, dtype=object)[annotator]
    scores = paired.ratings[item, annotator]
    return pd.DataFrame({"item_id": paired.items[item], "metric": paired.metric, "annotator": names, "score": scores})


def verdicts(assessment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By metric the verdict, the sentence to quote, and the figures it rests on; from ``Assessment.to_dict()``."""
    return [
        {
            "metric": metric,
            "word": found["verdict"],
            "sentence": found["sentence"],
            "n": found["n"],
            "spearman": interval_of(found, "agreement", "spearman"),
            "person": interval_of(found, "person_left_out", "spearman"),
            "systems": interval_of(found, "system", "pairwise_accuracy"),
            "mae": number(found["agreement"]["mae"]),
            "constant": number(found["constant"]["mae"]),
        }
        for metric, found in assessment["metrics"].items()
    ]


def interval_of(found: Mapping[str, Any], part: str, statistic: str) -> Interval:
    """A statistic of a metric with its interval, from ``Assessment.to_dict()``."""
    low, high = found[part]["intervals"].get(statistic, (None, None))
    return Interval(number(found[part].get(statistic)), number(low), number(high))


def tables_of(people: People) -> dict[str, Table]:
    """Tables of a judge beside people: raters, annotators, the alternative annotator test, what scores lean on."""
    metrics = people.assessment.to_dict()["metrics"]
    return {
        "raters": _raters(metrics),
        "severity": _severity(metrics),
        "alt_test": _alt_test(metrics),
        "bias": _bias(metrics),
    }


def _raters(metrics: Mapping[str, Any]) -> Table:
    heads = ["metric", "items", "raters", "per.item", "alpha", "person.spearman", "person.mae"]
    rows: list[list[Cell]] = []
    for metric, found in metrics.items():
        own = found["reliability"]
        rows.append(
            [
                metric_key(metric),
                found["n"],
                own["raters"],
                number(own["ratings_per_item"], 2),
                interval_of(found, "reliability", "alpha_ordinal"),
                interval_of(found, "person_left_out", "spearman"),
                interval_of(found, "person_left_out", "mae"),
            ]
        )
    return Table([Key(head) for head in heads], rows)


def _severity(metrics: Mapping[str, Any]) -> Table:
    """Of every annotator on every metric, how much higher they rate than the others of an item."""
    rows: list[list[Cell]] = [
        [metric_key(metric), str(one["annotator"]), one["n"],
         Interval(*numbers((one["severity"], one["low"], one["high"]))), number(one["spread"], 2)]
        for metric, found in metrics.items()
        for one in found["reliability"]["annotators"]
    ]  # fmt: skip
    return Table([Key(head) for head in ("metric", "annotator", "ratings", "severity", "spread")], rows)


def _alt_test(metrics: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for metric, found in metrics.items():
        test = found["alt_test"]
        passed = Key("undecided" if test["passed"] is None else "passed" if test["passed"] else "not.passed")
        figures = numbers((test["winning_rate"], test["advantage_probability"], test["epsilon"]), 2)
        rows.append([metric_key(metric), *figures, passed, test["reason"] or ""])
    heads = ["metric", "winning_rate", "advantage", "epsilon", "outcome", "reason"]
    told = len(heads) if any(row[-1] for row in rows) else len(heads) - 1
    return Table([Key(head) for head in heads[:told]], [row[:told] for row in rows])


def _bias(metrics: Mapping[str, Any]) -> Table:
    """What scores go with that they should not: length, the judge's own family; and systems put in order."""
    heads = ["metric", "bias", "length.judge", "length.people", "length.partial", "family", "pairs.of.systems"]
    rows: list[list[Cell]] = []
    for metric, found in metrics.items():
        length = numbers((found["length"].get(name) for name in ("judge", "people", "partial")), 2)
        own = found["same_family"] or {"value": None, "low": None, "high": None}
        family = Interval(*numbers((own["value"], own["low"], own["high"])))
        systems = interval_of(found, "system", "pairwise_accuracy")
        rows.append([metric_key(metric), interval_of(found, "agreement", "bias"), *length, family, systems])
    return Table([Key(head) for head in heads], rows)


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


FILES = {"attack": "attack.json", "probe": "probe.json", "layouts": "layouts.csv"}


VALUES = ("value", "change", "mean")
"""Columns whose interval is called ``low`` and ``high`` alone."""


DIGITS = 3


@dataclass(frozen=True, slots=True)
class Check:
    """What one command found: its name, tables by their names, remarks, and a warning where it is not of this judge."""

    name: str
    tables: dict[str, Table]
    remarks: tuple[str, ...]
    warning: Key | None


def read_checks(run: Run) -> list[Check]:
    """Every check whose file is in the run's folder; InputError where one cannot be read."""
    return [_read(name, path, run) for name, file in FILES.items() if (path := run.folder / file).is_file()]


def _read(name: str, path: Path, run: Run) -> Check:
    try:
        found = _layouts(path) if path.suffix == ".csv" else json.loads(path.read_text(encoding="utf-8"))
        tables = {str(key): table_of(rows) for key, rows in found.items() if _are(dict, rows)}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); write it again or remove it") from error
    said = (str(one) for key in ("sentences", "remarks") for one in found.get(key) or ())
    return Check(name, tables, tuple(said), _warning(found, run))


def _layouts(path: Path) -> dict[str, Any]:
    """The rows over all metrics, as records."""
    table = pd.read_csv(path)
    overall = table[table["metric"] == OVERALL].dropna(axis="columns", how="all").drop(columns="metric")
    return {"variants": json.loads(overall.to_json(orient="records"))}


def _are(kind: type, rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, kind) for row in rows)


def _warning(found: Mapping[str, Any], run: Run) -> Key | None:
    if "judge_id" not in found:
        return Key("check.unknown.judge")
    if found["judge_id"] != run.manifest["judge"]["judge_id"]:
        return Key("check.other.judge", {"judge": str(found.get("judge"))})
    return None


def table_of(records: list[dict[str, Any]]) -> Table:
    """Records as a table: a column per name, intervals beside their values."""
    names = list(dict.fromkeys(name for record in records for name in record))
    ends = {name: found for name in names if (found := _ends(name, names))}
    hidden = {end for pair in ends.values() for end in pair}
    shown = [name for name in names if name not in hidden]
    return Table(shown, [list(_cells(record, shown, ends)) for record in records])


def _ends(name: str, names: list[str]) -> tuple[str, str] | None:
    """The columns with the ends of a column's interval."""
    if f"{name}_low" in names and f"{name}_high" in names:
        return f"{name}_low", f"{name}_high"
    plain = next((one for one in VALUES if one in names), None)
    return ("low", "high") if name == plain and {"low", "high"} <= set(names) else None


def _cells(record: Mapping[str, Any], names: list[str], ends: Mapping[str, tuple[str, str]]) -> Iterator[Cell]:
    for name in names:
        value = record.get(name)
        if name in ends:
            yield Interval(*(number(record.get(one), DIGITS) for one in (name, *ends[name])))
        elif name == "metric" and value in (*METRICS, *COMPOSITES):
            yield metric_key(str(value))
        elif isinstance(value, float):
            yield number(value, DIGITS)
        else:
            yield value if value is None or isinstance(value, (int, str)) else json.dumps(value, ensure_ascii=False)
