"""Reading the records of CSV, JSONL and Parquet files, for every table that a user gives.

A record comes back as the file has it: which columns there must be and what their values mean is no matter of this
module. All that is wrong with a file is one ``TableError``.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from calibration.errors import TableError

_MOST_COLUMNS = 10_000
"""A table with more columns is refused, as one that was written by mistake or to do harm."""


_FORMULA = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
"""A text that a spreadsheet would take for a formula, made safe by a ``'`` before it."""


_MEMORY, _EXPANSION = 2**26, 1000
"""A Parquet file may take this many bytes of memory, and this many times its own size."""


def read_records(path: Path) -> pd.DataFrame:
    """Read the records of a file; the suffix (``.csv``, ``.jsonl`` or ``.parquet``) says its kind.

    CSV is UTF-8 text, with or without a byte order mark, with a header and a comma between cells. All cells are texts;
    a ``'`` that keeps a spreadsheet from taking a cell for a formula is removed. JSONL has one JSON object a line; a
    name that a line does not have is NaN there. Parquet columns keep their types, and those that pandas took for an
    index are columns again.

    Args:
        path: the file.

    Returns:
        One record a row, in the file's order, with rows numbered from 0; at least one.

    Raises:
        TableError: the file is not there, is of another kind, cannot be read, or has no records; a CSV record has more
            or fewer cells than the header; a JSONL line is not an object; a column is there twice; there are over
            10,000 columns.
    """
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
    columns = _checked(path, [name.strip() for name in header])
    problems = [
        (record, f"{len(row)} cells under {len(columns)} columns; quote any cell with a comma")
        for record, row in enumerate(rows, 1)
        if len(row) != len(columns)
    ]
    if problems:
        raise TableError(path, problems)
    # Cells stay texts: an id such as 007 is none as a number, and tables know which of their columns are numbers.
    # Without the ' that was put before a cell to keep a spreadsheet from taking it for a formula.
    cells = [[cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell for cell in row] for row in rows]
    return pd.DataFrame(cells, columns=columns, dtype=object)


def _read_jsonl(path: Path) -> pd.DataFrame:
    rows, bad = [], []
    lines = (line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip())
    for record, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode("utf-8")  # half a character (a lone surrogate) cannot be written
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append((record, "not a JSON object; write one object a line"))
    if bad:
        raise TableError(path, bad)
    _checked(path, list(dict.fromkeys(name for row in rows for name in row)))
    return pd.DataFrame(rows, dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        with pq.ParquetFile(path) as file:
            about = file.metadata
            groups = [about.row_group(group) for group in range(about.num_row_groups)]
            size = sum(group.total_byte_size for group in groups) + 16 * about.num_rows * about.num_columns
            # A small file may say that it holds a table far larger than itself, and would fill all memory.
            if size > _MEMORY + _EXPANSION * path.stat().st_size:
                text = f"{about.num_rows:,} records in so small a file; write it again, or as CSV"
                raise TableError(path, [(0, text)])
            _checked(path, file.schema_arrow.names)
            content = file.read()
            content.validate(full=True)  # a text that is not UTF-8 would be found later, where no file is named
            table: pd.DataFrame = content.to_pandas(ignore_metadata=True)
            return table
    except (FileNotFoundError, TableError):
        raise
    except Exception as error:  # a broken file fails in many ways inside the library
        raise ValueError(str(error)) from error


def _checked(path: Path, columns: list[str]) -> list[str]:
    """The names of a table's columns; TableError where one is there twice, or there are too many."""
    if len(columns) > _MOST_COLUMNS:
        raise TableError(path, [(0, f"{len(columns):,} columns, more than {_MOST_COLUMNS:,}; remove some")])
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise TableError(path, [(0, f"column {name!r} is there twice; rename one") for name in twice])
    return columns
