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

import pandas as pd

from judge.errors import InputError, one_line
from judge.report.figures import metric_key
from judge.report.reading import Run
from judge.report.values import Cell, Interval, Key, Table, number
from judge.types import COMPOSITES, METRICS, OVERALL

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
