"""Opening the files that people have: what kind a file is, how it is packed and encoded, and the cells of its tables.

A file is a ``DataFile``: one on the disk, or one inside a ``.zip``. Its kind comes from its suffix in any case, before
an optional ``.gz``. Text is UTF-8 with or without a byte order mark, UTF-16 with one, or GB18030; which of them is told
by ``encoding``, so that a caller can say it. All that is wrong with a file is a ``TableError`` that names it.

What the records mean is no matter of this module.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from io import BytesIO, TextIOWrapper
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any

from calibration.errors import TableError

KINDS = {
    ".json": ".json",
    ".jsonl": ".jsonl",
    ".ndjson": ".jsonl",
    ".csv": ".csv",
    ".tsv": ".tsv",
    ".parquet": ".parquet",
    ".xlsx": ".xlsx",
}
"""The kind of a file by its suffix in small letters."""


TABLES = frozenset({".csv", ".tsv", ".xlsx"})
"""The kinds that ``tables`` reads."""


ZIP = ".zip"


NO_VALUE = frozenset({"nan", "none", "null", "nat", "<na>", "#n/a", "#ref!", "#value!", "#name?", "#div/0!"})
"""What programs write into the cell of a table where there is no value, in small letters."""


ROOM, EXPANSION = 2**26, 100
"""A packed file may hold ``ROOM`` bytes, and ``EXPANSION`` times its own size on top."""


PARQUET_EXPANSION = 1000
"""The same of a Parquet file, which packs more tightly."""


_CHUNK = 2**20
"""Bytes that are read at once."""


_FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学"
    "如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实吗吧呢啊很再太什谁怎给让把被问答话觉知情感话谢累难爱，？！：；“”…"
    "评分者标注角色场景任务编号指标维度系统模型来源得流畅性致共支持安慰王李张刘陈杨赵黄周吴徐孙甲乙丙丁"
)
"""Characters and punctuation that make up about half of any text in simplified Chinese.

The last line is what a table of ratings may have by way of Chinese: headings, titles of metrics, names.
"""


_CHINESE = 0.15
"""Share of the characters beyond ASCII that must be frequent ones for a text to count as GB18030.

GB18030 gives some text for nearly any bytes. Text in Big5, of Japan, Korea or Europe comes out of it with hardly any
frequent character.
"""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of records on the disk, or inside a ``.zip``; ``kind`` is one of the values of ``KINDS``."""

    path: Path
    kind: str
    gzipped: bool = False
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"

    @property
    def stem(self) -> str:
        """The file's name without folder and suffixes: ``gpt-4.1`` for ``gpt-4.1.json.gz``."""
        name = PurePosixPath(self.path.name if self.member is None else self.member).name
        return Path(name[: -len(".gz")] if self.gzipped else name).stem


def data_file(name: str | Path) -> DataFile | None:
    """The file of that name, which need not exist; None where its suffix is none of ``KINDS``."""
    path = Path(name)
    inner = Path(path.name.lower().removesuffix(".gz"))
    kind = KINDS.get(inner.suffix)
    return None if kind is None else DataFile(path, kind, gzipped=path.name.lower().endswith(".gz"))


def is_readable(path: Path) -> bool:
    """Whether the suffix is one that ``data_files`` opens."""
    return path.suffix.lower() == ZIP or data_file(path) is not None


def data_files(path: Path) -> tuple[list[DataFile], list[str]]:
    """The files that a path stands for: itself or, of a ``.zip``, those in it in the order of their names.

    Returns:
        The files, at least one; and the names of what else a ``.zip`` holds.

    Raises:
        TableError: there is no such file, its suffix is unknown, or the ``.zip`` is broken, holds none, or far more
            than itself.
    """
    if not path.exists():
        raise TableError(path, [(0, "no such file; check the path")])
    if not path.is_file():
        raise TableError(path, [(0, "cannot be read (a folder, a pipe or a device); give a file")])
    known = f"{', '.join(KINDS)}, any of them also as .gz or in a .zip"
    if path.suffix.lower() != ZIP:
        found = data_file(path)
        if found is None:
            raise TableError(path, [(0, f"cannot tell its format from its suffix; give {known}")])
        return [found], []
    with _faults_named(str(path)), zipfile.ZipFile(path) as archive:
        infos = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
    _refuse_bomb(path, sum(info.file_size for info in infos), str(path))
    files, others = [], []
    for name in (info.filename for info in infos):
        place = PurePosixPath(name)
        if place.name.startswith(".") or "__MACOSX" in place.parts:
            continue  # what a Mac puts beside each file
        one = data_file(place.name)
        if one is None:
            others.append(name)
        else:
            files.append(replace(one, path=path, member=name))
    if not files:
        raise TableError(path, [(0, f"holds none of {', '.join(KINDS)}; pack such files into it")])
    return files, others


@contextmanager
def opened(file: DataFile) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked as they are read. What is wrong with the packing is a TableError."""
    with _faults_named(str(file)):
        if file.member is None:
            with file.path.open("rb") as raw, _unpacked(raw, file) as found:
                yield found
        else:
            with zipfile.ZipFile(file.path) as archive:
                try:
                    packed: IO[bytes] = archive.open(file.member)
                except (NotImplementedError, RuntimeError) as error:  # a password, or a packing that Python lacks
                    wrong = f"cannot be unpacked ({' '.join(str(error).split())}); give it unpacked"
                    raise TableError(str(file), [(0, wrong)]) from error
                with packed, _unpacked(packed, file) as found:
                    yield found


def content(file: DataFile) -> IO[bytes]:
    """A file that one can seek in: as it is on the disk, or unpacked into memory; the caller closes it."""
    if file.member is None and not file.gzipped:
        return file.path.open("rb")
    return BytesIO(b"".join(_chunks(file)))


def encoding(file: DataFile) -> str:
    """How the text of a file is encoded: ``utf-8-sig`` (with or without the mark), ``utf-16`` or ``gb18030``.

    Reads the whole file, a piece at a time.

    Raises:
        TableError: it is none of these, or a packed file holds far more than itself.
    """
    with opened(file) as raw:
        marked = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    likely = "utf-16" if marked else "utf-8-sig"
    decoder, lines = codecs.getincrementaldecoder(likely)(), 1
    try:
        for chunk in chain(_chunks(file), [b""]):
            lines += decoder.decode(chunk, final=not chunk).count("\n")
    except UnicodeDecodeError as error:
        if not marked and _is_gb18030(file):
            return "gb18030"
        # What was decoded of the last piece before the fault has lines too; "replace" gives no line breaks.
        lines += error.object[: error.start].decode(likely, "replace").count("\n")
        wrong = "not UTF-16" if marked else "not UTF-8, and the file does not read as Chinese in GB18030"
        raise TableError(str(file), [(0, f"line {lines} is {wrong}; save it as UTF-8")]) from error
    return likely


@contextmanager
def text(file: DataFile, encoded: str, newline: str = "") -> Iterator[IO[str]]:
    """The text of a file as a stream of lines, in the encoding that ``encoding`` found.

    ``newline`` as for ``open``: "" as the ``csv`` module wants it, a line break for lines that end with one and with
    nothing else.
    """
    with opened(file) as raw, TextIOWrapper(raw, encoding=encoded, newline=newline) as stream:
        yield stream


@dataclass(frozen=True, slots=True)
class Table:
    """A sheet of a workbook, or a whole CSV file: the names of its columns, and its rows as texts."""

    sheet: str | None
    """The sheet's name where there are several with something in them, else None."""
    header: list[str]
    """Names without the blanks around them; a column without a name is ``(column 3)``."""
    rows: Iterator[tuple[int, list[str]]]
    """The number of each row below the header, from 1, and its cells. A row with more or fewer cells than the header
    is the caller's to refuse. Rows without any text are counted and passed over."""


@contextmanager
def tables(file: DataFile, encoded: str | None = None) -> Iterator[Iterator[Table]]:
    """The tables of a ``.csv``, ``.tsv`` or ``.xlsx``: one, or a workbook's sheets that are not empty.

    CSV has a comma between cells or, where its header has none, a tab or a semicolon (TSV: a tab first). Cells of a
    workbook become text: numbers without a fraction like ``1``, dates in ISO's form, formulas as the value that was
    stored for them.
    The rows of a table are read before the next table is asked for.

    Args:
        file: the file.
        encoded: what ``encoding`` found; not for a workbook.
    """
    if file.kind == ".xlsx":
        yield _sheets(file)
        return
    with text(file, encoded or encoding(file)) as stream:
        yield iter([_table(None, _csv_rows(file, stream))])


def _csv_rows(file: DataFile, stream: IO[str]) -> Iterator[list[str]]:
    csv.field_size_limit(2**31 - 1)  # 128 KiB by default, which a long profile exceeds
    first = next((line for line in stream if line.strip()), "")
    usual = "\t,;" if file.kind == ".tsv" else ",\t;"
    between = next((mark for mark in usual if mark in first), usual[0])

    def lines() -> Iterator[str]:
        yield first
        yield from stream

    reader = csv.reader(lines(), delimiter=between, strict=True)
    try:
        yield from reader  # an empty line is a row without any text
    except csv.Error as error:
        wrong = f"not CSV near line {reader.line_num} ({error}); fix the quoting"
        raise TableError(str(file), [(0, wrong)]) from error


def _sheets(file: DataFile) -> Iterator[Table]:
    """The tables of a workbook, which is read whole."""
    from openpyxl import load_workbook

    filled: dict[str, list[list[str]]] = {}
    try:
        with content(file) as raw, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and checks that openpyxl leaves out, which no text depends on
            with zipfile.ZipFile(raw) as archive:
                _refuse_bomb(file.path, sum(info.file_size for info in archive.infolist()), str(file))
            # The workbook twice: with the values stored for formulas, and with the formulas. A text that begins with
            # "=" is a formula without a value to the program that wrote the file, and would be lost.
            books = [load_workbook(raw, read_only=True, data_only=data, keep_links=False) for data in (True, False)]
            for sheet in books[0].worksheets:
                both = sheet, books[1][sheet.title]
                for one in both:
                    one.reset_dimensions()  # what a sheet says of its own size is often wrong
                rows = zip(*(one.iter_rows(values_only=True) for one in both), strict=True)
                texts = [
                    [_cell_text(written if stored is None else stored) for stored, written in zip(*row, strict=True)]
                    for row in rows
                ]
                if any(map(any, texts)):
                    filled[sheet.title] = texts
    except TableError:
        raise
    except Exception as error:  # a broken workbook fails in many ways inside the library
        reason = " ".join(str(error).split())
        raise TableError(str(file), [(0, f"not a workbook ({reason}); save it again as .xlsx")]) from error
    for title, texts in filled.items():
        yield _table(title if len(filled) > 1 else None, iter(texts), ragged=True)


def _table(sheet: str | None, rows: Iterator[list[str]], ragged: bool = False) -> Table:
    """The table of some rows, of which the first that is not blank is the header.

    Empty cells beyond the header are dropped, as those of a CSV with a comma at the end of each line. In a ``ragged``
    one rows end at their last cell with something in it, so those that are shorter than the header are filled up.
    """
    header = next((_without_empty_end(row, 0) for row in rows if any(map(str.strip, row))), [])
    names = [name.strip() or f"(column {number})" for number, name in enumerate(header, start=1)]

    def below() -> Iterator[tuple[int, list[str]]]:
        for number, row in enumerate(rows, start=1):
            if any(map(str.strip, row)):
                cells = _without_empty_end(row, len(names))
                yield number, [*cells, *[""] * (len(names) - len(cells))] if ragged else cells

    return Table(sheet, names, below())


def _without_empty_end(row: list[str], least: int) -> list[str]:
    """A row without the empty cells at its end, but with at least so many of its cells as ``least``."""
    last = max((number for number, cell in enumerate(row, start=1) if cell.strip()), default=0)
    return row[: max(last, least)]


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time(0):
        value = value.date()  # a day without a time of day
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    return str(value)


def _chunks(file: DataFile) -> Iterator[bytes]:
    """The bytes of a file, a piece at a time; TableError once a packed file has given far more than itself."""
    size = 0
    with opened(file) as raw:
        while chunk := raw.read(_CHUNK):
            size += len(chunk)
            if file.gzipped:
                _refuse_bomb(file.path, size, str(file))
            yield chunk


def too_large_parquet(packed: Path, about: Any) -> int | None:
    """How many bytes a Parquet file of this metadata would fill, where that is more than a file of its size may.

    Empty cells take no room in it, but in memory.
    """
    texts = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    size = int(texts + 16 * about.num_rows * about.num_columns)
    return size if size > ROOM + PARQUET_EXPANSION * packed.stat().st_size else None


def _refuse_bomb(packed: Path, size: int, name: str) -> None:
    """TableError where ``size`` bytes are far more than a packed file of that length holds in earnest."""
    if size > ROOM + EXPANSION * packed.stat().st_size:
        raise TableError(name, [(0, f"holds over {size / 2**20:,.0f} MiB in so small a file; give it unpacked")])


def _is_gb18030(file: DataFile) -> bool:
    """Whether the whole file is GB18030, and reads as Chinese."""
    decoder = codecs.getincrementaldecoder("gb18030")()
    beyond = common = 0
    try:
        for chunk in chain(_chunks(file), [b""]):
            others = [char for char in decoder.decode(chunk, final=not chunk) if ord(char) > 0x7F]
            beyond += len(others)
            common += sum(char in _FREQUENT for char in others)
    except UnicodeDecodeError:
        return False
    return beyond > 0 and common >= _CHINESE * beyond


@contextmanager
def _unpacked(raw: IO[bytes], file: DataFile) -> Iterator[IO[bytes]]:
    if file.gzipped:
        with gzip.GzipFile(fileobj=raw) as unpacked:
            yield unpacked  # type: ignore[misc]  # a GzipFile is read like any binary file
    else:
        yield raw


@contextmanager
def _faults_named(name: str) -> Iterator[None]:
    """What the libraries raise of a packed file that is broken, as a TableError that names it."""
    try:
        yield
    except TableError:
        raise
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise TableError(name, [(0, f"cannot be unpacked ({' '.join(str(error).split())}); pack it again")]) from error
    except OSError as error:
        raise TableError(name, [(0, f"cannot be read ({error.strerror or error}); check the file")]) from error
