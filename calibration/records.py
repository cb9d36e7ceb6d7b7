"""Records of CSV, JSONL and Parquet files as they are there, and the one error that tells what is wrong with a file."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from calibration.errors import TableError

_MOST_COLUMNS = 10_000


_FORMULA = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
"""A text that a spreadsheet would take for a formula, made safe by a ``'`` before it."""


_ROOM, _EXPANSION = 2**26, 1000
"""A Parquet file may take so many bytes of memory, and so many times its own size."""


def read_records(path: Path) -> pd.DataFrame:
    """The file's records as they are there, numbered from 0; TableError where there are none to read."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TableError(path, [(0, f"unknown kind of file {path.suffix!r}; give .csv, .parquet or .jsonl")])
    try:
        if path.exists() and not path.is_file():
            raise TableError(path, [(0, "cannot be read (a folder, a pipe or a device); give a file")])
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
    columns = _columns(path, [name.strip() for name in header])
    problems = [
        (record, f"{len(row)} cells under {len(columns)} columns; quote any cell with a comma")
        for record, row in enumerate(rows, 1)
        if len(row) != len(columns)
    ]
    if problems:
        raise TableError(path, problems)
    return pd.DataFrame([list(map(_as_written, row)) for row in rows], columns=columns, dtype=object)


def _as_written(cell: str) -> str:
    """A cell without the ``'`` that keeps a spreadsheet from taking it for a formula."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _columns(path: Path, names: list[str]) -> list[str]:
    """The names of a table's columns; TableError where one is there twice, or there are too many."""
    if len(names) > _MOST_COLUMNS:
        raise TableError(path, [(0, f"{len(names):,} columns, more than {_MOST_COLUMNS:,}; remove some")])
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise TableError(path, [(0, f"column {name!r} is there twice; rename one") for name in twice])
    return names


def _read_jsonl(path: Path) -> pd.DataFrame:
    lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    rows = [_json(line) for line in lines]
    bad = [record for record, row in enumerate(rows, 1) if not isinstance(row, dict)]
    if bad:
        raise TableError(path, [(record, "not a JSON object; write one object a line") for record in bad])
    _columns(path, list(dict.fromkeys(name for row in rows for name in row)))
    return pd.DataFrame(rows, dtype=object)


def _json(line: str) -> Any:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode("utf-8")  # half a character (a lone surrogate) cannot be written
        return row
    except (ValueError, RecursionError):
        return None


def _read_parquet(path: Path) -> pd.DataFrame:
    """The columns as they are, without what pandas noted of an index."""
    try:
        with pq.ParquetFile(path) as file:
            _refuse_bomb(path, file.metadata)
            _columns(path, file.schema_arrow.names)
            content = file.read()
            content.validate(full=True)  # a text that is not UTF-8 would be found later, and by nobody in particular
            table: pd.DataFrame = content.to_pandas(ignore_metadata=True)
            return table
    except (FileNotFoundError, TableError):
        raise
    except Exception as error:  # a broken file fails in many ways inside the library
        raise ValueError(str(error)) from error


def _refuse_bomb(path: Path, about: pq.FileMetaData) -> None:
    """TableError where a small file says that it holds a table far larger than itself."""
    groups = [about.row_group(group) for group in range(about.num_row_groups)]
    size = sum(group.total_byte_size for group in groups) + 16 * about.num_rows * about.num_columns
    if size > _ROOM + _EXPANSION * path.stat().st_size:
        raise TableError(path, [(0, f"{about.num_rows:,} records in so small a file; write it again, or as CSV")])
