"""Reads files of dialogues as a stream of ``Dialogue``: from records of any format to what is judged.

A record that is wrong becomes a ``Problem`` that names file, record and remedy. Reading then goes on, so that all
problems of all files can be shown at once. Nothing here knows of judges.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from calibration.errors import TableError
from calibration.names import fold
from calibration.text_files import KINDS, NO_VALUE, TABLES, DataFile, data_files, is_readable
from judge.data.chat_log import JUDGED, USERS, is_chat_log, read_chat_log, turns_of
from judge.data.columns import NAMES, ColumnMap, Columns, columns_of, missing_remedy, parse_map
from judge.data.fields import Fields, NoDialogues, Wrong, folded, name_of, shortened, text_of
from judge.data.records import RawRecord, parsed, raw_records
from judge.errors import InputError, one_line
from judge.remote import fetched
from judge.types import Dialogue

LONGEST_NO_VALUE = 12
"""Characters of a text that is looked up among the words for no value."""


MOST_NAMES = 10_000
"""Systems and characters whose spellings are compared, so that memory stays flat; data with more have ids for names."""


MOST_SPELLINGS = 10
"""Spellings of names that are told before the others are counted."""


MOST_SHAPES = 1000
"""Sets of fields of a file's records that are remembered, so that memory stays flat."""


@dataclass(frozen=True, slots=True)
class Record:
    """A dialogue and where it was read: ``file: record 3``."""

    place: str
    dialogue: Dialogue
    spelled: str = ""
    """How the file spells a system or character that was read as another's name; empty where none was."""

    def twice(self, first: str) -> str:
        """The problem that a dialogue of the same names was read before, at ``first``."""
        stands = f"dialogue {self.dialogue.id} stands already at {first}"
        if self.spelled:
            return (
                f"{self.place}: {stands}, as {self.spelled}; remove one, or give the two names that differ in letters"
            )
        return f"{self.place}: {stands}; remove one or rename its scenario"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file, in one line: the place, what is wrong, what to do."""

    message: str


@dataclass(slots=True)
class FileFacts:
    """How a file was understood; complete once it was read."""

    file: str
    kind: str
    """A value of ``calibration.text_files.KINDS``."""
    encoding: str | None = None
    """As ``calibration.text_files.encoding`` names it; None of a kind that is no text."""
    columns: dict[str, str] = field(default_factory=dict)
    """What each field was taken from: a column, ``@file``, or a text in quotes."""
    unused: dict[str, None] = field(default_factory=dict)
    """Columns that were left out, in order."""
    roles: dict[str, str] = field(default_factory=dict)
    """What each speaker of chat logs was taken for: ``user``, ``judged`` or ``profile``."""
    joined: int = 0
    """Messages that were joined to one before, by the same speaker."""
    ends_with_user: int = 0
    """Dialogues whose last message is the user's, without a reply."""
    no_values: int = 0
    """Messages that are but a word which programs write where there is nothing."""
    left_sheets: dict[str, str] = field(default_factory=dict)
    """Sheets of a workbook without any column of a dialogue, and what else is wrong with each."""

    @property
    def warnings(self) -> list[str]:
        """What a user should know of how the file was read."""
        found = []
        if self.encoding not in (None, "utf-8-sig"):
            found.append(f"{self.file}: read as {str(self.encoding).upper()}")
        if self.unused:
            found.append(f"{self.file}: columns that are not used: {shortened(list(self.unused))}")
        if self.ends_with_user:
            found.append(f"{self.file}: dialogues that end with the user, without a reply: {self.ends_with_user:,}")
        if self.no_values:
            words = "a word such as 'nan', 'None' or 'NULL', which programs write where there is nothing"
            found.append(
                f"{self.file}: messages that are but {words}: {self.no_values:,}; they are judged as they stand"
            )
        if self.left_sheets:
            sheets = shortened(list(self.left_sheets))
            found.append(f"{self.file}: sheets that are left out, as no column of theirs is of a dialogue: {sheets}")
        return found


class Spellings:
    """Systems, or characters, whose names differ in case, width or blanks only are one, under the name read first."""

    def __init__(self, called: str) -> None:
        self._called = called
        self._names: dict[str, str] = {}
        self._by_key: dict[str, str] = {}
        self._counts = Counter[str]()

    def one(self, name: str) -> str:
        """The name by which a spelling goes."""
        if name not in self._names:
            if len(self._names) == MOST_NAMES:
                return name
            self._names[name] = self._by_key.setdefault(fold(name), name)
        found = self._names[name]
        self._counts[name] += found != name
        return found

    def read_as(self, name: str) -> str:
        """A spelling and the name that it goes by, in words."""
        return f"{self._called} {name!r} was read as {self._names[name]!r}"

    @property
    def warnings(self) -> list[str]:
        """What was joined, a sentence each; of very many spellings the first."""
        joined = [f"{self.read_as(name)} (dialogues: {count:,})" for name, count in self._counts.items() if count]
        more = len(joined) - MOST_SPELLINGS
        return [*joined[:MOST_SPELLINGS], *([f"{self._called}s in other spellings: {more:,} more"] if more > 0 else [])]


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are understood, beside what their file says."""

    mapping: ColumnMap
    judged_role: str | None
    default_character: str | None


def read_dialogues(
    paths: Iterable[Path],
    mapping: str = "",
    *,
    judged_role: str | None = None,
    default_character: str | None = None,
    on_file: Callable[[FileFacts], None] = lambda facts: None,
    on_warning: Callable[[str], None] = lambda text: None,
) -> Iterator[Record | Problem]:
    """Every dialogue of every file, in the files' order, with a ``Problem`` where a record cannot be read.

    A folder stands for all files in it whose suffix is known, in any case and packed or not; not for its subfolders.

    Args:
        paths: files and folders, here or in a store (``judge.remote``), and patterns for their names.
        mapping: which columns are which fields, as ``--map`` has it: ``source=model,scenario=meta.id``.
        judged_role: a speaker of chat logs who is judged, beside those that are known.
        default_character: the character of records that name none.
        on_file: is given what was found out about each file, after its last record.
        on_warning: is given what a user should know of how files were read.

    Raises:
        InputError: a path is missing or cannot be read, its kind is not known, or ``mapping`` is wrong.
    """
    with fetched(paths) as here:
        yield from _read_files(here, Reading(parse_map(mapping), judged_role, default_character), on_file, on_warning)


def _read_files(
    paths: Iterable[Path],
    reading: Reading,
    on_file: Callable[[FileFacts], None],
    on_warning: Callable[[str], None],
) -> Iterator[Record | Problem]:
    """Every dialogue of every file; arguments as those of ``read_dialogues``."""
    sources, characters = Spellings("source"), Spellings("character")
    for given in paths:
        passed: dict[str, Problem] = {}
        is_read = False
        for item in _read_path(given, reading, passed, on_file, on_warning):
            is_read = True
            yield _in_one_spelling(item, sources, characters) if isinstance(item, Record) else item
        if passed and not is_read:
            yield next(iter(passed.values()))
        elif passed:
            on_warning(f"{given}: left out, as they hold no dialogues: {shortened(list(passed))}")
    for warning in (*sources.warnings, *characters.warnings):
        on_warning(warning)


def _read_path(
    given: Path,
    reading: Reading,
    passed: dict[str, Problem],
    on_file: Callable[[FileFacts], None],
    on_warning: Callable[[str], None],
) -> Iterator[Record | Problem]:
    """What a file, folder or ``.zip`` holds; files among several that are about something else go into ``passed``."""
    for path in _files(given, on_warning):
        # A fault that ends a file is one more problem, so that the other files are still read.
        try:
            files, others = data_files(path)
        except TableError as error:
            yield Problem(str(error))
            continue
        if others:
            on_warning(f"{path}: left out of it: {shortened(others)}")
        for file in files:
            facts = FileFacts(str(file), file.kind)
            try:
                yield from _read(file, reading, facts)
            except NoDialogues as wrong:
                passed[file.member or file.path.name] = Problem(f"{file}: {wrong}")
                continue
            on_file(facts)
            for warning in facts.warnings:
                on_warning(warning)


def _in_one_spelling(record: Record, sources: Spellings, characters: Spellings) -> Record:
    """The record under the names that its system and character go by."""
    was = record.dialogue
    source, character = sources.one(was.source), characters.one(was.character)
    if (source, character) == (was.source, was.character):
        return record
    joined = [sources.read_as(was.source)] if source != was.source else []
    joined += [characters.read_as(was.character)] if character != was.character else []
    return replace(record, dialogue=replace(was, source=source, character=character), spelled=" and ".join(joined))


def example_files() -> list[Path]:
    """The files of the packaged example: our own dialogues of two systems, in ChatAnime's format."""
    folder = Path(str(resources.files("judge.data") / "example"))
    return sorted(folder.glob("*.json"))


def example_dialogues() -> list[Dialogue]:
    """The dialogues of the packaged example."""
    return [record.dialogue for record in read_dialogues(example_files()) if isinstance(record, Record)]


def _files(path: Path, on_warning: Callable[[str], None]) -> list[Path]:
    """The files that a path stands for: itself, or those of a folder; InputError where there are none."""
    known = f"{', '.join(KINDS)}, any of them also as .gz or in a .zip"
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; check the path")
        if not path.is_dir():
            if not is_readable(path):
                raise InputError(f"{path}: cannot tell its format from its suffix; give {known}")
            return [path]
        inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        found = [entry for entry in inside if is_readable(entry) and not entry.is_dir()]
        left = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in inside if entry not in set(found)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not found:
        below = f"; it has {shortened(left)}: name its subfolders or files" if left else ""
        raise InputError(f"{path}: a folder without dialogues; it should hold {known}{below}")
    if left:
        on_warning(f"{path}: left out of this folder: {shortened(left)}")
    return found


def _read(file: DataFile, reading: Reading, facts: FileFacts) -> Iterator[Record | Problem]:
    """The dialogues of a file, and what ends it early; what is found out about it goes into ``facts``.

    Raises:
        NoDialogues: it is about something else.
    """
    try:
        yield from _records(file, reading, facts)
    except NoDialogues:
        raise
    except Wrong as wrong:
        yield Problem(f"{file}: {wrong}")
    except TableError as error:
        yield Problem(str(error))
    except OSError as error:
        yield Problem(f"{file}: cannot be read ({error.strerror or one_line(error)}); check the file")


def _records(file: DataFile, reading: Reading, facts: FileFacts) -> Iterator[Record | Problem]:
    """The dialogues of a file, with what is wrong with records; what ends the file is raised."""

    def encoded(name: str) -> None:
        facts.encoding = name

    called = "column" if file.kind in TABLES or file.kind == ".parquet" else "field"
    known: dict[tuple[str, ...], Columns] = {}
    count = 0
    for raw in raw_records(file, encoded):
        count += 1
        keys = () if isinstance(raw.fields, Wrong) else tuple(raw.fields)
        try:
            if isinstance(raw.fields, Wrong):
                raise raw.fields
            if keys not in known:
                # A record of JSON may have other fields than the one before; most have the same.
                columns = _understood(keys, reading, called)
                if len(known) == MOST_SHAPES:
                    known.clear()
                known[keys] = columns
                _note_columns(columns, reading, facts)
            cells = _Cells(raw.fields, known[keys], called == "column")
            dialogue = _dialogue(raw, cells, file, reading, facts)
            found: Record | Problem = Record(raw.place, dialogue)
        except Wrong as wrong:
            if raw.sheet and keys not in known and not _may_hold_dialogues(keys, reading):
                facts.left_sheets.setdefault(raw.sheet, f"{raw.place}: {wrong}")
                continue
            if keys and not known:
                # The columns of the first record do not make a dialogue: nor would those of the others.
                yield Problem(f"{file if called == 'column' else raw.place}: {wrong}")
                return
            found = Problem(f"{raw.place}: {wrong}")
        yield found
    if not count:
        yield Problem(f"{file}: no dialogues in it; remove it or fill it")
    elif facts.left_sheets and not known:
        yield Problem(next(iter(facts.left_sheets.values())))


def _may_hold_dialogues(keys: tuple[str, ...], reading: Reading) -> bool:
    """Whether a column is, or may be meant as, something that is said in a dialogue."""
    if any(folded(column.split(".")[0]) in map(folded, keys) for column in reading.mapping.columns.values()):
        return True
    try:
        columns = columns_of(keys, ColumnMap())
    except Wrong:
        return True
    return bool(columns.lists or columns.rounds)


def _understood(keys: tuple[str, ...], reading: Reading, called: str) -> Columns:
    """What the columns of a record are; ``Wrong`` where a field of every dialogue has none."""
    columns, mapping = columns_of(keys, reading.mapping, called), reading.mapping
    there = {*columns.of, *mapping.columns, *mapping.constants}
    missing = [name for name in NAMES if name not in there]
    if reading.default_character is not None and "character" in missing:
        missing.remove("character")
    if not (columns.lists or columns.rounds or "turns" in there):
        missing += ["question_r1", "answer_r1"]
    if missing:
        raise Wrong(missing_remedy(missing, keys, called))
    return columns


def _note_columns(columns: Columns, reading: Reading, facts: FileFacts) -> None:
    facts.columns |= {name: ".".join(way) for name, way in columns.of.items()}
    facts.columns |= {name: way for name, way in reading.mapping.columns.items() if way.startswith("@")}
    facts.columns |= {name: f"'{text}'" for name, text in reading.mapping.constants.items()}
    facts.unused |= dict.fromkeys(columns.unused)


@dataclass(frozen=True, slots=True)
class _Cells:
    """The values of a record by field."""

    fields: Fields
    columns: Columns
    is_table: bool

    def value(self, name: str) -> Any:
        """What there is for a field; None where nothing is. An empty cell of a table is nothing, as a NaN is."""
        found = self.columns.value(self.fields, name)
        if isinstance(found, float) and math.isnan(found):
            return None
        if self.is_table and isinstance(found, str):
            if folded(found) in NO_VALUE:
                said = f"is {found.strip()!r}, which programs write where there is none"
                raise Wrong(f"field {self.label(name)} {said}; empty the cell, or give the dialogue as JSONL")
            return found or None
        return found

    def text(self, name: str) -> str | None:
        """The text of a field; None where there is none."""
        found = self.value(name)
        return None if found is None else text_of(found, self.label(name))

    def label(self, name: str) -> str:
        """A field as messages call it, with its column where that is called otherwise."""
        column = ".".join(self.columns.of[name])
        return name if folded(column) == name else f"{name} ({column})"


def _dialogue(raw: RawRecord, cells: _Cells, file: DataFile, reading: Reading, facts: FileFacts) -> Dialogue:
    """The dialogue of a record; ``Wrong`` where it is none."""
    source, character, scenario = (_name(name, raw, cells, file, reading) for name in NAMES)
    profile = cells.text("profile") if "profile" in cells.columns.of else reading.mapping.constants.get("profile")
    where, given = _list_of(cells)
    if where is None:
        messages = _messages(_numbered(cells))
    elif is_chat_log(given):
        roles = reading.mapping.roles
        log = read_chat_log(given, where, mapped=roles, judged_role=reading.judged_role, character=character)
        if log.profile is not None and profile is not None:
            both = f"the field profile and a system message in {where}"
            raise Wrong(f'has two profiles, {both}; keep one, or --map "ignore={_column(cells, "profile")}"')
        profile = log.profile if profile is None else profile
        facts.roles |= log.roles
        messages = list(log.messages)
    else:
        messages = _messages(_rounds(given, where))
    turns = turns_of(messages)
    if not turns:
        raise Wrong(f"has no message of the user's or the character's in {where or 'question_r1, answer_r1'}; fill it")
    # Each side that says something in a round takes one message; the others were joined to one of them.
    facts.joined += len(messages) - sum(text is not None for turn in turns for text in (turn.user, turn.character))
    facts.ends_with_user += turns[-1].character is None
    facts.no_values += sum(len(text) <= LONGEST_NO_VALUE and folded(text) in NO_VALUE for _, text in messages)
    return Dialogue(source, character, scenario, turns, profile)


def _name(name: str, raw: RawRecord, cells: _Cells, file: DataFile, reading: Reading) -> str:
    """The source, character or scenario of a record."""
    columns, constants = reading.mapping.columns, reading.mapping.constants
    if name in constants:
        return name_of(constants[name], name)
    if columns.get(name) in ("@file", "@record"):
        return name_of(file.stem if columns[name] == "@file" else raw.number, name)
    if name not in cells.columns.of:  # only the character, which has a default
        return str(reading.default_character)
    return name_of(cells.value(name), name, cells.label(name))


def _column(cells: _Cells, name: str) -> str:
    return cells.columns.of[name][0] if name in cells.columns.of else name


def _list_of(cells: _Cells) -> tuple[str | None, Any]:
    """The name and value of the field that holds a whole dialogue as a list; None where none does."""
    columns = cells.columns
    if "turns" in columns.of and columns.of["turns"][0] not in columns.lists:  # by --map
        ways = {".".join(columns.of["turns"]): "turns"}
    else:
        ways = {name: folded(name) for name in columns.lists}
    found = {where: value for where, name in ways.items() if (value := cells.value(name)) is not None}
    if not found:
        if ways and not columns.rounds:
            raise Wrong(f"field {next(iter(ways))} is missing; add it")
        return None, None
    where, given = next(iter(found.items()))
    if columns.rounds:
        raise Wrong(f'has both {where} and question_r…; keep one of the two, or --map "ignore={where}"')
    if len(found) > 1:
        raise Wrong(f'has both {" and ".join(found)}; say which is the dialogue: --map "turns={where}"')
    if isinstance(given, str):  # a cell of a table that holds JSON
        try:
            given = parsed(given)
        except Wrong as wrong:
            raise Wrong(f"field {where} is text that is no JSON; write a list of {{role, content}} as JSON") from wrong
    if not isinstance(given, list) or not given:
        what = "is empty" if given == [] else f"is {type(given).__name__}, not a list"
        raise Wrong(f"field {where} {what}; write a list of {{role, content}} or {{user, character}}")
    return where, given


def _numbered(cells: _Cells) -> list[tuple[str | None, str | None]]:
    """The rounds of numbered fields; only the first question and the last answer may have no field."""
    last, there = cells.columns.rounds, cells.columns.of
    rounds = []
    for number in range(1, last + 1):
        question, answer = f"question_r{number}", f"answer_r{number}"
        if question not in there and (number > 1 or answer not in there):
            raise Wrong(f"field {question} is missing; add it")
        if answer not in there and (number < last or number == 1):
            raise Wrong(f"field {answer} is missing; add it")
        rounds.append(
            (cells.text(question) if question in there else None, cells.text(answer) if answer in there else None)
        )
    return rounds


def _rounds(given: list[Any], where: str) -> list[tuple[str | None, str | None]]:
    """The rounds of a list of ``{user, character}``, of which one may lack."""
    rounds = []
    for number, turn in enumerate(given, start=1):
        place = f"{where}[{number}]"
        if not isinstance(turn, Mapping):
            kind = type(turn).__name__
            raise Wrong(f"field {place} is {kind}, not an object; write {{role, content}} or {{user, character}}")
        sides = {folded(str(name)): text for name, text in turn.items()}
        user, character = _side(sides, "user", USERS), _side(sides, "character", JUDGED)
        if user is None and character is None:
            has = shortened([str(name) for name in turn])
            raise Wrong(f"field {place} lacks user and character (it has {has}); add them, or write {{role, content}}")
        said = [str(name) for name, text in turn.items() if isinstance(text, str) and text.strip()]
        others = [name for name in said if folded(name) not in (user, character)]
        if others and (user is None or character is None):
            side = "user" if user is None else "character"
            raise Wrong(f"field {place} has no {side}, but a text {others[0]!r}; call it {side}, or remove it")
        texts = (
            None if name is None or sides[name] is None else text_of(sides[name], f"{place}.{name}")
            for name in (user, character)
        )
        rounds.append((next(texts), next(texts)))
    return rounds


def _side(sides: Mapping[str, Any], name: str, others: Collection[str]) -> str | None:
    """The name that a round has for a side: its own or, where there is just one, another of ``others``."""
    found = [other for other in sides if other in others]
    return name if name in sides else found[0] if len(found) == 1 else None


def _messages(rounds: list[tuple[str | None, str | None]]) -> list[tuple[bool, str]]:
    """What is said in rounds in which a side may be missing, as ``turns_of`` takes it.

    Empty rounds at the end are dropped, as a table gives them to shorter dialogues. A reply that is missing before the
    last round was due, so it is an empty one.
    """
    while len(rounds) > 1 and not any(rounds[-1]):
        rounds = rounds[:-1]
    messages = []
    for number, (user, character) in enumerate(rounds, start=1):
        if user is not None:
            messages.append((True, user))
        if character is not None or (user is not None and number < len(rounds)):
            messages.append((False, character or ""))
    return messages
