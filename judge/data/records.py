"""The records of a file, of every format: where each stands, and its fields as the file has them.

What the fields mean is no matter of this module. A fault of one record is yielded in its place, so that the others are
still read; one that ends the file is raised.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from calibration.text_files import DataFile, content, encoding, tables, text, too_large_parquet
from judge.data.chat_log import JUDGED, PROFILE, SPEAKERS, USERS, is_chat_log
from judge.data.columns import LISTS, ROUND
from judge.data.fields import Fields, NoDialogues, Wrong, folded, shortened
from judge.errors import one_line

WRAPPERS = frozenset({"data", "dialogues", "dialogs", "conversations", "records", "items", "examples", "samples"})
"""Keys of a JSON object that holds a list of dialogues and little else."""


_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}]|\s*\Z)')
"""A string of JSON, or a comma after which nothing comes."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as a file has it, or what is wrong with it."""

    place: str
    """Where it stands, in words: ``file: record 3``."""
    number: int
    fields: Fields | Wrong
    sheet: str = ""
    """The sheet of a workbook, where several have something in them."""


def raw_records(file: DataFile, on_encoding: Callable[[str], None]) -> Iterator[RawRecord]:
    """The records of a file, as a stream where its format allows; ``on_encoding`` is told how a text is encoded.

    Raises:
        Wrong, TableError: the file cannot be read, or not on.
    """
    if file.kind == ".parquet":
        return _parquet(file)
    if file.kind == ".xlsx":
        return _tables(file, None)
    encoded = encoding(file)
    on_encoding(encoded)
    if file.kind == ".json":
        return _json(file, encoded)
    return _jsonl(file, encoded) if file.kind == ".jsonl" else _tables(file, encoded)


def parsed(given: str) -> Any:
    """What a JSON text holds; a comma after the last part of a list or an object is let pass.

    Raises:
        Wrong: it is no JSON, or an object has a key twice.
    """
    try:
        return _loaded(given)
    except json.JSONDecodeError as error:
        if not given.strip():
            raise Wrong("is empty; remove it or fill it") from error
        without = _STRING_OR_COMMA.sub(lambda found: found[1] or "", given)
        try:
            return _loaded(without)
        except json.JSONDecodeError:
            where = f"line {error.lineno} column {error.colno}"
            raise Wrong(f"not JSON at {where} ({error.msg}); fix it or fetch it again") from error


def _loaded(given: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise Wrong(f"the key {twice!r} stands twice in one object; remove one")
        return found

    try:
        # NaN, which is no JSON, is what some programs write where there is nothing.
        return json.loads(
            given, object_pairs_hook=unique, parse_constant=lambda word: None if word == "NaN" else float(word)
        )
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise Wrong(f"not JSON that can be read ({error}); fix it") from error


def _json(file: DataFile, encoded: str) -> Iterator[RawRecord]:
    """A list of dialogues, an object that holds one, a dialogue, or ChatAnime's ``{character: [dialogue, …]}``."""
    with text(file, encoded) as stream:
        given = stream.read()
    try:
        found = parsed(given)
    except Wrong:
        lines = given.split("\n")
        first = next((line for line in lines if line.strip()), "")
        if first.lstrip().startswith("{") and _is_object(first) and len(first) < len(given.strip()):
            yield from _of_lines(file, lines)  # JSONL under another name
            return
        raise
    yield from _of_json(file, found)


def _of_json(file: DataFile, found: Any) -> Iterator[RawRecord]:
    if isinstance(found, Mapping):
        if _is_dialogue(found):
            found = [found]
        elif found and all(map(is_chat_log, found.values())):
            found = [{"scenario": name, "messages": messages} for name, messages in found.items()]
        else:
            wrapped = [value for key, value in found.items() if folded(key) in WRAPPERS and _is_list_of_objects(value)]
            if len(wrapped) == 1 and sum(isinstance(value, list) for value in found.values()) == 1:
                found = wrapped[0]
    if isinstance(found, list):
        if _is_bare_log(found):
            found = [found]
        for number, fields in enumerate(found, start=1):
            yield RawRecord(f"{file}: record {number}", number, _fields_of(fields))
        return
    if not isinstance(found, Mapping):
        kinds = "a list of dialogues, or an object {character: [dialogue, …]}"
        raise NoDialogues(f"is JSON of another kind ({type(found).__name__}); dialogues are {kinds}")
    if found and not any(
        isinstance(value, list) and any(isinstance(x, Mapping) for x in value) for value in found.values()
    ):
        has = shortened(list(map(str, found)))
        raise NoDialogues(
            f"holds no dialogues (its keys: {has}); write a list of dialogues, or {{character: [dialogue, …]}}"
        )
    yield from _by_character(file, found)


def _by_character(file: DataFile, found: Mapping[str, Any]) -> Iterator[RawRecord]:
    """ChatAnime's shape: a key is the character, ``dialog_id`` the scenario, the file's name the source.

    A record may name its ``source`` itself, as those of ``esrp-judge collect`` do.
    """
    for character, records in found.items():
        if not isinstance(records, list):
            wrong = Wrong(
                f"is {type(records).__name__}, not a list of dialogues of that character; make it one, or take it out"
            )
            yield RawRecord(f"{file}: {character}", 1, wrong)
            continue
        for number, fields in enumerate(records, start=1):
            place = f"{file}: {character}: record {number}"
            if not isinstance(fields, dict):
                wrong = Wrong("is not an object with dialog_id, question_r1, answer_r1, …; fix the record")
                yield RawRecord(place, number, wrong)
            else:
                names = {"source": fields.get("source", file.stem), "character": character}
                if "dialog_id" in fields:
                    names["scenario"] = fields["dialog_id"]
                yield RawRecord(place, number, {**fields, **names})


def _fields_of(record: Any) -> Fields | Wrong:
    """The fields of a record of JSON; a list of messages is a dialogue whose names are still to be said."""
    if isinstance(record, dict):
        return record
    if is_chat_log(record):
        return {"messages": record}
    shape = "{source, character, scenario, messages: [{role, content}, …]}"
    return Wrong(f"is {type(record).__name__}, not an object; write {shape}")


def _is_bare_log(found: list[Any]) -> bool:
    """Whether a list is the messages of one dialogue, and not a list of dialogues."""
    if not is_chat_log(found) or _is_dialogue(found[0]):
        return False
    speakers = {folded(str(value)) for key, value in found[0].items() if folded(str(key)) in SPEAKERS}
    return bool(speakers & {*USERS, *JUDGED, *PROFILE})


def _is_dialogue(found: Mapping[str, Any]) -> bool:
    """Whether a JSON object is one dialogue, and not a holder of several."""
    for key, value in found.items():
        name = folded(key)
        if ROUND.fullmatch(name) and isinstance(value, str):
            return True
        if name in LISTS and isinstance(value, list):
            first = value[0] if value else None
            if is_chat_log(value) or (isinstance(first, Mapping) and {"user", "character"} & set(first)):
                return True
    return False


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, Mapping) for one in value)


def _is_object(line: str) -> bool:
    try:
        return isinstance(parsed(line), dict)
    except Wrong:
        return False


def _is_list(line: str) -> bool:
    try:
        return isinstance(parsed(line.lstrip("\ufeff")), list)
    except Wrong:
        return False


def _jsonl(file: DataFile, encoded: str) -> Iterator[RawRecord]:
    with text(file, encoded, newline="\n") as stream:
        before = []
        for line in stream:
            before.append(line)
            if line.strip():
                break
        if before and before[-1].lstrip("\ufeff \t").startswith("["):
            whole = "".join(before) + stream.read()
            is_a_list_a_line = _is_list(before[-1]) and whole.strip() != before[-1].strip()
            yield from _of_lines(file, whole.split("\n")) if is_a_list_a_line else _of_json(file, parsed(whole))
            return

        def lines() -> Iterator[str]:
            yield from before
            yield from stream

        yield from _of_lines(file, lines())


def _of_lines(file: DataFile, lines: Iterable[str]) -> Iterator[RawRecord]:
    """An object a line; blank lines are passed over, but counted."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found: Any
        try:
            found = _fields_of(parsed(line.lstrip("\ufeff")))
        except Wrong as wrong:
            found = wrong
        yield RawRecord(f"{file}: record {number}", number, found)


def _tables(file: DataFile, encoded: str | None) -> Iterator[RawRecord]:
    """A row a dialogue, with a header; of a workbook the rows of all its sheets."""
    with tables(file, encoded) as found:
        for table in found:
            _refuse_twice(table.header)
            where = f"{file}: {table.sheet}" if table.sheet else str(file)
            for number, cells in table.rows:
                fits = len(cells) == len(table.header)
                wrong = Wrong(
                    f"has {len(cells)} cells under {len(table.header)} columns; "
                    "name every column, or fix the row: a cell with the separator in it is quoted"
                )
                fields = dict(zip(table.header, cells, strict=True)) if fits else wrong
                yield RawRecord(f"{where}: record {number}", number, fields, table.sheet or "")


def _parquet(file: DataFile) -> Iterator[RawRecord]:
    """A row a dialogue; ``Wrong`` where the file is no Parquet or would fill the memory."""
    import pyarrow.parquet as pq

    try:
        with content(file) as raw, pq.ParquetFile(raw) as table:
            _refuse_twice(table.schema_arrow.names)
            if size := too_large_parquet(file.path, table.metadata):
                raise Wrong(f"holds {size / 2**20:,.0f} MiB in so small a file; write it again, or as JSONL")
            rows = (row for batch in table.iter_batches(batch_size=1024) for row in batch.to_pylist())
            for number, fields in enumerate(rows, start=1):
                yield RawRecord(f"{file}: record {number}", number, fields)
    except Wrong:
        raise
    except Exception as error:  # a broken file fails in many ways inside the library
        raise Wrong(f"not Parquet ({one_line(error)}); write it again") from error


def _refuse_twice(columns: list[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        rounds = any(ROUND.fullmatch(folded(name)) for name in twice)
        further = ", or number it as a further round (question_r2, answer_r2)" if rounds else ""
        named = ", ".join(map(repr, twice))
        both = f"column {named} stands twice" if len(twice) == 1 else f"columns {named} stand twice each"
        raise Wrong(f"{both}; remove or rename one of the two{further}")
