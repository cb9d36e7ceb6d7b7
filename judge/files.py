"""Files written by an atomic write, the cache folder, and tables and JSON that are safe to open.

A spreadsheet takes some texts of a CSV file for formulas. So a text that begins as a formula does gets a ``'`` before
it, and so does one that begins with ``'`` and then as a formula does. ``calibration`` takes one ``'`` off again in
reading, so that a name read back is the name that was written.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from judge.errors import InputError
from judge.types import digest

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` once all was written; any error leaves the old one."""
    # Beside its place, as a file can be renamed in one step only within a disk.
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            # The content must be on the disk before the name is: else a power cut may leave the name of an empty file.
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it unreadable for others
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sha256(path: Path) -> str:
    """The sha256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(file: Path) -> str:
    """The file's sha256, remembered by path, size and time of change, as weights are large."""
    state = file.resolve().stat()
    key = digest([str(file.resolve()), state.st_size, state.st_mtime_ns])
    return str(remembered("file-sha256", key, lambda: sha256(file)))


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def made_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder as it stands, or filled now by ``make`` and put there whole, so that nobody sees half of one.

    Args:
        folder: where it stands once it is whole; what it holds depends on its name alone.
        make: fills an empty folder.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(temporary)
        for file in temporary.iterdir():
            sync(file)
        os.replace(temporary, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def temporary_database() -> sqlite3.Connection:
    """An empty SQLite database in a private file that goes with the process: for sorting and sums beyond the memory."""
    database = sqlite3.connect("", isolation_level=None)
    database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32000")
    return database


def cache_folder() -> Path:
    """The folder for what can be made or fetched again, absolute; it need not exist yet.

    ``$ESRP_CACHE``, or else ``$XDG_CACHE_HOME/esrp-judge`` (where that is absolute, as its specification asks),
    or else ``~/.cache/esrp-judge``. InputError where no variable is set and there is no home folder.
    """
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    own = os.environ.get("ESRP_CACHE") or (shared if shared.is_absolute() else Path("~/.cache")) / "esrp-judge"
    try:
        return Path(own).expanduser().absolute()
    except RuntimeError as error:
        message = "the cache has no place, as this user has no home folder; set ESRP_CACHE to a folder"
        raise InputError(message) from error


def remembered(kind: str, key: str, make: Callable[[], Any]) -> Any:
    """A JSON-like value that takes long to make: as it stands in the cache, or made now and put there.

    Args:
        kind: the folder in the cache.
        key: a name that changes with all that the value depends on.
    """
    note = cache_folder() / kind / key
    with suppress(OSError, ValueError):  # absent, or damaged
        return json.loads(note.read_text(encoding="utf-8"))
    value = make()
    with suppress(OSError), replacing(note) as file:  # a cache that cannot be written only costs time
        file.write(json.dumps(value).encode())
    return value


FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""The beginning of a text that must not stand in a cell as it is."""


EXACT = "inclusion_probability"
"""The column whose numbers are written in full: ratings are weighted by them, and rounding would carry over."""


def write_csv(table: pd.DataFrame, file: Any, header: bool = True) -> None:
    """Write a table to an open file: numbers with four decimals (``EXACT`` in full), and no text that is a formula."""
    import pandas as pd

    if EXACT in table:
        table = table.assign(**{EXACT: [repr(float(chance)) if pd.notna(chance) else "" for chance in table[EXACT]]})
    texts = {
        str(name): cells.map(lambda cell: f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell)
        for name, cells in table.items()
        if not pd.api.types.is_numeric_dtype(cells)
    }
    # A bare carriage return would end its row, unless all texts are in quotes.
    bare = any(isinstance(cell, str) and "\r" in cell for cells in texts.values() for cell in cells)
    quoting: Any = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    table.assign(**texts).to_csv(
        file, index=False, header=header, float_format="%.4f", lineterminator="\n", quoting=quoting
    )


def save_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table to a CSV file atomically; InputError where it cannot be written."""
    with _refusing_unwritable(path), replacing(path) as file:
        write_csv(table, file)


def save_text(path: Path, text: str) -> None:
    """Write a text and a line break to a file atomically; InputError where it cannot be written."""
    with _refusing_unwritable(path), replacing(path) as file:
        file.write(f"{text}\n".encode())


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table by column, with None where there is no value."""
    return [
        {str(name): None if missing[name] else value for name, value in row.items()}
        for row, missing in zip(table.to_dict("records"), table.isna().to_dict("records"), strict=True)
    ]


@contextmanager
def _refusing_unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def as_json_text(found: dict[str, Any] | list[Any]) -> str:
    """Indented JSON without control characters, which a terminal would obey; ValueError where a number is NaN."""
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, indent=2)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
