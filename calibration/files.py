"""Records of CSV, JSONL and Parquet files as they are there, and the one error that tells what is wrong with a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

Problem = tuple[int, str]
"""The record (from 1; 0 for the file as a whole), and what is wrong and what to do, without the file's name."""

_MOST = 20


class TableError(ValueError):
    """A table that cannot be used: its file, the records, what is wrong with each and what to do.

    One line for one problem; for more, their number, the first 20 a line each, and how many more there are.
    """

    def __init__(self, path: str | Path, problems: Iterable[Problem]) -> None:
        found = sorted(problems, key=lambda problem: problem[0])
        lines = [f"record {record}: {text}" if record else text for record, text in found]
        more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
        many = "\n  ".join([f"{path}: {len(lines)} problems:", *lines[:_MOST], *more])
        super().__init__(f"{path}: {lines[0]}" if len(lines) == 1 else many)


def read_records(path: Path) -> pd.DataFrame:
    """The file's records as they are there, numbered from 0; TableError where there are none to read."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TableError(path, [(0, f"unknown kind of file {path.suffix!r}; give .csv, .parquet or .jsonl")])
    try:
        table = reader(path)
    except FileNotFoundError:
        raise TableError(path, [(0, "no such file; check the path")]) from None
    except UnicodeDecodeError:
        raise TableError(path, [(0, "not UTF-8 text; save it with that encoding")]) from None
    except TableError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise TableError(path, [(0, f"cannot be read ({reason}); write it again as CSV, Parquet or JSONL")]) from error
    if table.empty:
        raise TableError(path, [(0, "no records; give at least one")])
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    columns = [name.strip() for name in header]
    problems = [(0, f"column {name!r} is there twice; rename one") for name in columns if columns.count(name) > 1]
    for record, row in enumerate(rows, 1):
        if len(row) != len(columns):
            problems.append((record, f"{len(row)} cells under {len(columns)} columns; quote any cell with a comma"))
    if problems:
        raise TableError(path, dict.fromkeys(problems))
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _read_jsonl(path: Path) -> pd.DataFrame:
    lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    rows = [_json(line) for line in lines]
    bad = [record for record, row in enumerate(rows, 1) if not isinstance(row, dict)]
    if bad:
        raise TableError(path, [(record, "not a JSON object; write one object a line") for record in bad])
    return pd.DataFrame(rows, dtype=object)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _read_parquet(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    return table.reset_index(drop=set(table.index.names) == {None})
