"""Reading the records of a file, for every table that a user gives.

A record comes back as the file has it: which columns there must be and what their values mean is no matter of this
module. How a file is packed and encoded is the work of ``text_files``. All that is wrong with a file is one
``TableError``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from calibration.errors import Problem, TableError
from calibration.text_files import TABLES, DataFile, content, data_files, encoding, tables, text, too_large_parquet

SHEET = "sheet"
"""The column that says of which sheet a record is, where a workbook has several."""


_MOST_COLUMNS = 10_000
"""A table with more columns is refused, as one that was written by mistake or to do harm."""


LEAST_COLUMNS = 3
"""Columns of a table from which on another one that has all of them, and more, is of the same kind."""


_FORMULA = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
"""A text that a spreadsheet would take for a formula, made safe by a ``'`` before it."""


_UNNAMED = re.compile(r"\(column \d+\)")
"""What ``text_files`` calls a column without a heading."""


_ENCODINGS: dict[str | None, str] = {"utf-16": "UTF-16", "gb18030": "GB18030"}
"""The encodings other than UTF-8 that text may be in, as a reader knows them."""


@dataclass(frozen=True, slots=True)
class Records:
    """The records of a file."""

    table: pd.DataFrame
    """A record a row, in the file's order, with rows numbered from 0; at least one."""
    places: tuple[tuple[str, int], ...]
    """Where a record stands, for errors: what to say before its number, and the number in the file or its sheet."""
    notes: tuple[str, ...]
    """What a reader should know of how the file was read, a sentence each."""

    def place(self, record: int, problem: str) -> Problem:
        """A problem of a record, counted from 0, under the number that it has in its file or sheet."""
        before, number = self.places[record]
        return number, before + problem


@dataclass(frozen=True, slots=True)
class Part:
    """One table of a file: a sheet, a file of a ``.zip``, or all of it."""

    name: str
    """``sheet 'Anna'``, or the file's name in a ``.zip``; "" where there is but one."""
    sheet: str
    """The sheet's own name, or ""."""
    table: pd.DataFrame
    numbers: tuple[int, ...]
    """The number of each record, from 1, as the file counts them; blank rows are counted and left out."""


def read_records(path: Path) -> Records:
    """Read the records of a file; the suffix says its kind: .csv .tsv .jsonl .json .parquet .xlsx, also .gz and .zip.

    CSV is text with a header and a comma, tab or semicolon between cells. All cells are texts; a ``'`` that keeps a
    spreadsheet from taking a cell for a formula is removed. JSONL has one JSON object a line, JSON is a list of them; a
    name that an object does not have is NaN there. Parquet columns keep their types, and those that pandas took for an
    index are columns again. Tables of a workbook or ``.zip`` with the same columns, or with all of the others' and some
    more, come one below the other; of sheets with different ones those are read that have most records, and the others
    are named in the notes.

    Args:
        path: the file.

    Raises:
        TableError: the file is not there, is of another kind, cannot be read, or has no records; a CSV record has more
            or fewer cells than the header; a JSON record is not an object; a column is there twice; there are over
            10,000 columns.
    """
    parts, notes = read_parts(path)
    if not parts:
        raise TableError(path, [(0, "no records; give at least one")])
    together: dict[frozenset[str], list[Part]] = {}
    for part in parts:
        together.setdefault(_named_columns(part), []).append(part)
    most = max(together, key=lambda columns: sum(len(part.table) for part in together[columns]))
    chosen = [part for columns, own in together.items() if _are_alike(most, columns) for part in own]
    if others := [part.name for part in parts if part not in chosen]:
        notes.append(f"Not read, as their columns are others: {', '.join(others)} of {path.name}.")
    table = pd.concat([_with_sheet(part, len(parts)) for part in chosen], ignore_index=True)
    places = [(f"{part.name}: " if part.name else "", number) for part in chosen for number in part.numbers]
    return Records(table, tuple(places), tuple(notes))


def _named_columns(part: Part) -> frozenset[str]:
    return frozenset(name for name in map(str, part.table) if not _UNNAMED.fullmatch(name))


def _are_alike(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two tables have the same columns, or one has all of the other's, and some more (a comment)."""
    return one == other or (min(len(one), len(other)) >= LEAST_COLUMNS and (one < other or other < one))


def read_parts(path: Path) -> tuple[list[Part], list[str]]:
    """The tables of a file that have records, each by itself; and what a reader should know of how it was read.

    Raises:
        TableError: as ``read_records``, but for a file without records.
    """
    try:
        files, others = data_files(path)
        encodings = [None if file.kind in (".parquet", ".xlsx") else encoding(file) for file in files]
        parts = [
            part
            for file, encoded in zip(files, encodings, strict=True)
            for part in _parts(path, file, encoded, several=len(files) > 1)
        ]
    except TableError:
        raise
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TableError(path, [(0, f"cannot be read ({reason}); write it again as CSV, Parquet or JSONL")]) from error
    notes = [
        f"{path.name} is not UTF-8: it was read as {_ENCODINGS[name]}."
        for name in dict.fromkeys(encodings)
        if name in _ENCODINGS
    ]
    if others:
        notes.append(f"Not read, as files of other kinds: {', '.join(others)} in {path.name}.")
    return [part for part in parts if not part.table.empty], notes


def _parts(path: Path, file: DataFile, encoded: str | None, several: bool) -> Iterator[Part]:
    """The tables of one file; ``several`` where it stands beside others in a ``.zip``."""
    name = str(file.member) if several else ""
    if file.kind in TABLES:
        with tables(file, encoded) as found:
            for one in found:
                sheet = f"sheet {one.sheet!r}" if one.sheet else ""
                where = ", ".join(filter(None, (name, sheet)))
                header, rows = one.header, list(one.rows)
                if file.kind == ".xlsx":  # a cell beside the table, as a comment is, makes a column without a heading
                    width = max([len(header), *(len(row) for _, row in rows)])
                    header = [*header, *(f"(column {place + 1})" for place in range(len(header), width))]
                    rows = [(number, row + [""] * (width - len(row))) for number, row in rows]
                table, numbers = _cells(path, where, header, rows)
                yield Part(where, one.sheet or "", table, numbers)
        return
    table = _read_objects(path, file, encoded) if encoded else _read_parquet(path, file)
    yield Part(name, "", table, tuple(range(1, len(table) + 1)))


def _with_sheet(part: Part, parts: int) -> pd.DataFrame:
    """A table with the column ``sheet``, where there are several and it has none of its own."""
    return (
        part.table.assign(**{SHEET: part.sheet}) if part.sheet and parts > 1 and SHEET not in part.table else part.table
    )


def _cells(
    path: Path, where: str, header: list[str], rows: list[tuple[int, list[str]]]
) -> tuple[pd.DataFrame, tuple[int, ...]]:
    """The records of a table of texts, and their numbers."""
    before = f"{where}: " if where else ""
    # A column with neither heading nor cells is what a comma too many makes of a table: there is nothing in it.
    is_bare = [
        bool(_UNNAMED.fullmatch(name)) and not any(len(row) > place and row[place].strip() for _, row in rows)
        for place, name in enumerate(header)
    ]
    columns = _checked(path, before, [name for name, bare in zip(header, is_bare, strict=True) if not bare])
    problems = [
        (
            number,
            f"{before}{len(row)} cells under {len(header)} columns; quote any cell with a comma"
            + (", or name every column" if len(row) > len(header) else ""),
        )
        for number, row in rows
        if len(row) != len(header)
    ]
    if problems:
        raise TableError(path, problems)
    # Cells stay texts: an id such as 007 is none as a number, and tables know which of their columns are numbers.
    # Without the ' that was put before a cell to keep a spreadsheet from taking it for a formula.
    cells = [
        [
            cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
            for cell, bare in zip(row, is_bare, strict=True)
            if not bare
        ]
        for _, row in rows
    ]
    return pd.DataFrame(cells, columns=columns, dtype=object), tuple(number for number, _ in rows)


def _read_objects(path: Path, file: DataFile, encoded: str) -> pd.DataFrame:
    """The records of JSONL, or of JSON that is a list of objects (or one object a line all the same)."""
    with text(file, encoded, newline="\n") as stream:
        if file.kind == ".json":
            values = _json_list(path, stream.read())
            problem = "not a JSON object; write a list of objects"
        else:
            values = [_json(line) for line in stream if line.strip()]
            problem = "not a JSON object; write one object a line"
    if bad := [(record, problem) for record, value in enumerate(values, 1) if not isinstance(value, dict)]:
        raise TableError(path, bad)
    _checked(path, "", list(dict.fromkeys(name for row in values for name in row)))
    return pd.DataFrame(values, dtype=object)


def _json_list(path: Path, content: str) -> list[Any]:
    if not content.strip():
        return []
    found = _json(content)
    if found is None and (lines := [_json(line) for line in content.splitlines() if line.strip()]) and all(lines):
        return lines  # JSONL under the name of JSON
    if not isinstance(found, list):
        raise TableError(path, [(0, "not JSON with a list of records; write a list of objects, or JSONL or CSV")])
    return found


def _json(content: str) -> Any:
    """What a JSON text says; None where it is none."""
    try:
        value = json.loads(content)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character (a lone surrogate) cannot be written
    except (ValueError, RecursionError):
        return None
    return value


def _read_parquet(path: Path, file: DataFile) -> pd.DataFrame:
    try:
        with content(file) as raw, pq.ParquetFile(raw) as parquet:
            # A small file may say that it holds a table far larger than itself, and would fill all memory.
            if too_large_parquet(path, parquet.metadata):
                wrong = f"{parquet.metadata.num_rows:,} records in so small a file; write it again, or as CSV"
                raise TableError(path, [(0, wrong)])
            _checked(path, "", parquet.schema_arrow.names)
            columns = parquet.read()
            columns.validate(full=True)  # a text that is not UTF-8 would be found later, where no file is named
            table: pd.DataFrame = columns.to_pandas(ignore_metadata=True)
            return table
    except (FileNotFoundError, TableError):
        raise
    except Exception as error:  # a broken file fails in many ways inside the library
        raise ValueError(str(error)) from error


def _checked(path: Path, before: str, columns: list[str]) -> list[str]:
    """The names of a table's columns; TableError where one is there twice, or there are too many."""
    if len(columns) > _MOST_COLUMNS:
        raise TableError(path, [(0, f"{before}{len(columns):,} columns, more than {_MOST_COLUMNS:,}; remove some")])
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise TableError(path, [(0, f"{before}column {name!r} is there twice; rename one") for name in twice])
    return columns
