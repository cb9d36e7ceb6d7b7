"""Reads files of dialogues as a stream of ``Dialogue``: ChatAnime's JSON, and JSONL, CSV or Parquet of any turns.

A record that is wrong becomes a ``Problem`` that names file, record and remedy. Reading then goes on, so that all
problems of all files can be shown at once. Nothing here knows of judges.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from unicodedata import category

from judge.errors import InputError, one_line
from judge.types import Dialogue, Turn

Fields = Mapping[str, Any]


ROOM, EXPANSION = 2**26, 1000
"""A Parquet file may take ``ROOM`` bytes of memory, and ``EXPANSION`` times its own size on top."""


NAMES = ("source", "character", "scenario")


@dataclass(frozen=True, slots=True)
class Record:
    """A dialogue and where it was read: ``file: record 3``."""

    place: str
    dialogue: Dialogue


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file, in one line: the place, what is wrong, what to do."""

    message: str


class _Wrong(Exception):
    """What is wrong with a record or a file, and the remedy."""


def read_dialogues(paths: Iterable[Path]) -> Iterator[Record | Problem]:
    """Every dialogue of every file, in the files' order, with a ``Problem`` where a record cannot be read.

    A folder stands for its ``*.json`` files or, where it has none, its ``*.jsonl``, ``*.csv`` and ``*.parquet``.

    Raises:
        InputError: a path is missing or cannot be read, or its kind is not known.
    """
    for file in [file for path in paths for file in _files(path)]:
        count = 0
        try:
            if not file.is_file():
                raise _Wrong("cannot be read (a folder, a pipe or a device); give a file")
            for place, fields in READERS[file.suffix](file):
                count += 1
                try:
                    if isinstance(fields, _Wrong):
                        raise fields
                    found: Record | Problem = Record(place, _dialogue(fields))
                except _Wrong as wrong:
                    found = Problem(f"{place}: {wrong}")
                yield found
        # A fault that ends the file is one more problem, so that the other files are still read.
        except _Wrong as wrong:
            yield Problem(f"{file}: {wrong}")
        except UnicodeDecodeError as error:
            yield Problem(f"{file}: not UTF-8 (byte {error.start} of a line or file); save it as UTF-8")
        except OSError as error:
            yield Problem(f"{file}: cannot be read ({error.strerror or one_line(error)}); check the file")
        else:
            if not count:
                yield Problem(f"{file}: no dialogues in it; remove it or fill it")


def example_files() -> list[Path]:
    """The files of the packaged example: our own dialogues of two systems, in ChatAnime's format."""
    folder = Path(str(resources.files("judge.data") / "example"))
    return sorted(folder.glob("*.json"))


def example_dialogues() -> list[Dialogue]:
    """The dialogues of the packaged example."""
    return [record.dialogue for record in read_dialogues(example_files()) if isinstance(record, Record)]


def _files(path: Path) -> list[Path]:
    """The files that a path stands for: itself, or those of a folder; InputError where there are none."""
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; check the path")
        if not path.is_dir():
            if path.suffix not in READERS:
                raise InputError(f"{path}: cannot tell its format; use one of {', '.join(READERS)}")
            return [path]
        inside = sorted(file for file in path.iterdir() if file.suffix in READERS and not file.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    found = [file for file in inside if file.suffix == ".json"] or inside
    if not found:
        raise InputError(f"{path}: a folder without dialogues; it should hold {', '.join(READERS)} files")
    return found


def _read_json(file: Path) -> Iterator[tuple[str, Fields | _Wrong]]:
    """ChatAnime: ``{character: [{dialog_id, question_r1, answer_r1, …}]}``; the file's name is the source."""
    content = _parse(file.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict):
        raise _Wrong(f"is a JSON {type(content).__name__}, not ChatAnime's {{character: [dialogue, …]}}; use .jsonl?")
    for character, records in content.items():
        if not isinstance(records, list):
            yield f"{file}: {character}", _Wrong("is not a list of dialogues; see ChatAnime's format")
            continue
        for number, fields in enumerate(records, start=1):
            place = f"{file}: {character}: record {number}"
            if not isinstance(fields, dict):
                yield place, _Wrong("is not an object with dialog_id, question_r1, answer_r1, …; fix the record")
            elif "dialog_id" not in fields:
                yield place, _Wrong("field dialog_id is missing; add it")
            else:
                names = {"source": file.stem, "character": character, "scenario": fields["dialog_id"]}
                yield place, {**fields, **names}


def _read_jsonl(file: Path) -> Iterator[tuple[str, Fields | _Wrong]]:
    """An object a line; blank lines are passed over, but counted."""
    with file.open("rb") as lines:  # as bytes, so that a line in another encoding costs that line only
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                fields = _parse(line.decode("utf-8-sig"))
                found = fields if isinstance(fields, dict) else _Wrong("is not a JSON object; write one object a line")
            except UnicodeDecodeError as error:
                found = _Wrong(f"not UTF-8 at byte {error.start}; save the file as UTF-8")
            except _Wrong as wrong:
                found = wrong
            yield f"{file}: record {number}", found


def _read_csv(file: Path) -> Iterator[tuple[str, Fields | _Wrong]]:
    """A row a dialogue, with a header; ``_Wrong`` where the file is no CSV or lacks a column."""
    csv.field_size_limit(2**31 - 1)  # 128 KiB by default, which a long profile exceeds
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text, strict=True)
        try:
            _check_columns(rows.fieldnames or [])
            for number, fields in enumerate(rows, start=1):
                place = f"{file}: record {number}"
                if None in fields or None in fields.values():
                    yield place, _Wrong("has more or fewer cells than the header; fix the row")
                else:
                    # An empty cell is an empty text everywhere but in a profile, where it means that there is none.
                    yield place, {name: cell for name, cell in fields.items() if cell or not name.startswith("profile")}
        except csv.Error as error:
            raise _Wrong(f"not CSV near line {rows.line_num} ({error}); fix the quoting") from error


def _read_parquet(file: Path) -> Iterator[tuple[str, Fields | _Wrong]]:
    """A row a dialogue; ``_Wrong`` where the file is no Parquet, lacks a column or would fill the memory."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            _check_columns(table.schema_arrow.names)
            about = table.metadata
            texts = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
            # A small file may say that it holds far more than itself. Empty cells take no room in it, but in memory.
            size = texts + 16 * about.num_rows * about.num_columns
            if size > ROOM + EXPANSION * file.stat().st_size:
                raise _Wrong(f"holds {size / 2**20:,.0f} MiB in so small a file; write it again, or as JSONL")
            rows = (row for batch in table.iter_batches(batch_size=1024) for row in batch.to_pylist())
            for number, fields in enumerate(rows, start=1):
                yield f"{file}: record {number}", {name: cell for name, cell in fields.items() if cell is not None}
    except _Wrong:
        raise
    except Exception as error:  # a broken file fails in many ways inside the library
        raise _Wrong(f"not Parquet ({one_line(error)}); write it again") from error


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Fields | _Wrong]]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""By suffix: what yields the place of each record with its fields, or what is wrong with it."""


def _check_columns(columns: Sequence[str]) -> None:
    """``_Wrong`` where a table's columns stand twice, or do not make dialogues."""
    if twice := sorted(name for name, count in Counter(columns).items() if count > 1):
        raise _Wrong(f"column {', '.join(twice)} stands twice; remove one")
    missing = [name for name in (*NAMES, "question_r1", "answer_r1") if name not in columns]
    if missing and not ("turns" in columns and set(missing) <= {"question_r1", "answer_r1"}):
        raise _Wrong(
            f"column {', '.join(missing)} is missing; the columns are source, character, scenario, "
            "question_r1, answer_r1, question_r2, …"
        )


def _dialogue(fields: Fields) -> Dialogue:
    """The dialogue of a record; ``_Wrong`` where it is none."""
    names = []
    for name in NAMES:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise _Wrong(f"field {name} is missing; add it")
        found = _text(value, name).strip()
        if any(category(char) in ("Cc", "Zl", "Zp") for char in found):
            raise _Wrong(f"field {name} holds a line break or a control character; a name is one line of text")
        names.append(found)
    source, character, scenario = names
    turns, profile = _turns(fields), fields.get("profile")
    return Dialogue(source, character, scenario, turns, None if profile is None else _text(profile, "profile"))


def _turns(fields: Fields) -> tuple[Turn, ...]:
    """The rounds of a record, from a list ``turns`` or from numbered fields; ``_Wrong`` where they are not there."""
    numbers = [int(m[1]) for name in fields if (m := re.fullmatch(r"(?:question|answer)_r([1-9]\d{0,5})", name))]
    if "turns" not in fields:
        sides = [(f"question_r{number}", f"answer_r{number}") for number in range(1, max(numbers, default=1) + 1)]
        for name in (name for pair in sides for name in pair):
            if name not in fields:
                raise _Wrong(f"field {name} is missing; add it")
        turns = [Turn(_text(fields[user], user), _text(fields[answer], answer)) for user, answer in sides]
    else:
        if any(name.startswith(("question_r", "answer_r")) for name in fields):
            raise _Wrong("has both turns and question_r…; keep one of the two")
        given = fields["turns"]
        if not isinstance(given, list) or not given:
            raise _Wrong("field turns is not a list of {user, character}; write one object a round")
        for number, turn in enumerate(given, start=1):
            if not isinstance(turn, dict) or {"user", "character"} - set(turn):
                raise _Wrong(f"field turns[{number}] lacks user or character; add both")
        turns = [Turn(_text(one["user"], "turns.user"), _text(one["character"], "turns.character")) for one in given]
    while len(turns) > 1 and not turns[-1].user and not turns[-1].character:
        turns.pop()  # a table gives shorter dialogues empty cells
    return tuple(turns)


def _text(value: Any, name: str) -> str:
    """The value of a field that is text; ``_Wrong`` where it is none, or cannot be written as UTF-8."""
    if not isinstance(value, str):
        raise _Wrong(f"field {name} is {type(value).__name__}, not text; write it as text")
    try:
        value.encode("utf-8")  # JSON can write half a surrogate pair, which no tokenizer takes
    except UnicodeEncodeError as error:
        where = f"holds half a character (a lone surrogate) at {error.start}"
        raise _Wrong(f"field {name} {where}; fix the text") from error
    return value


def _parse(text: str) -> Any:
    """What a JSON text holds; ``_Wrong`` where it is no JSON, or an object has a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise _Wrong(f"the key {twice!r} stands twice in one object; remove one")
        return content

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise _Wrong("is empty; remove it or fill it") from error
        where = f"line {error.lineno} column {error.colno}"
        raise _Wrong(f"not JSON at {where} ({error.msg}); fix it or fetch it again") from error
    except (RecursionError, ValueError) as error:
        raise _Wrong(f"not JSON that can be read ({error}); fix it") from error
