"""Which column of a file is which field of a dialogue: by its name, or as ``--map`` says.

A column is known by its name in any case, with blanks around it or in full-width letters. One that is nearly a known
name is an error, since a round would be lost by a slip of the pen; any other is left out and listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from judge.data.fields import Fields, Wrong, folded, shortened
from judge.errors import InputError

NAMES = ("source", "character", "scenario")
"""The fields that every dialogue has."""


LISTS = ("turns", "messages", "conversations", "conversation", "dialogue", "dialog")
"""The names of a field that holds a whole dialogue as a list."""


ROUND = re.compile(r"(question|answer)_r([1-9]\d{0,5})")
"""The name of one side of a round."""


SCENARIO_TOO = "dialog_id"
"""ChatAnime's name of the scenario."""


ALIKE = 0.81
"""From which share of common letters on (``difflib``) a column counts as a slip of the pen of a known name."""


LIKELY = {
    "source": ("model", "model_name", "system", "bot", "llm", "generator", "模型", "来源"),
    "character": ("bot_name", "role_name", "char_name", "character_name", "persona_name", "char", "name", "角色"),
    "scenario": (
        "id",
        "dialogue_id",
        "conversation_id",
        "conv_id",
        "item_id",
        "session_id",
        "uid",
        "idx",
        "场景",
        "场景编号",
        "编号",
    ),
    "question_r1": ("question", "prompt", "query", "instruction", "input", "问题", "提问"),
    "answer_r1": ("answer", "response", "reply", "output", "completion", "回答", "回复"),
}
"""Columns that are likely to be a field, for the remedy of an error; none is taken without being named."""


OTHERWISE = {"source": "@file", "character": "'NAME'", "scenario": "@record"}


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """What ``--map`` says."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Of a field: its column, perhaps with dots (``meta.model``), ``@file`` or ``@record``."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Of a field: the text that it is in every dialogue."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Of a speaker in chat logs: ``user`` or ``judged``."""
    ignored: frozenset[str] = frozenset()
    """Columns that are left out without a word."""


def map_pairs(text: str, example: str) -> Iterator[tuple[str, str, str]]:
    """Each part of an option ``FIELD=COLUMN,…``, with its field and column; a comma within quotes is part of a text.

    InputError where a part is none; ``example`` shows how one is written.
    """
    for part in re.findall(r"(?:[^,']|'(?:[^']|'')*'|')+", text):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if not name or not value:
            raise InputError(f"--map {part.strip()}: write FIELD=COLUMN, for instance {example}")
        yield part, name, value


def parse_map(text: str) -> ColumnMap:
    """The map of an option ``FIELD=COLUMN,…``; InputError where it is none."""
    columns: dict[str, str] = {}
    constants: dict[str, str] = {}
    roles: dict[str, str] = {}
    ignored: set[str] = set()
    for part, given, value in map_pairs(text, "scenario=id"):
        name = folded(given)
        if name in ("user", "judged"):
            roles[folded(value)] = name
        elif name == "ignore":
            ignored.add(value)
        elif name not in (*NAMES, "profile", "turns") and not ROUND.fullmatch(name):
            known = "source, character, scenario, profile, turns, question_r1, answer_r1, …, user, judged or ignore"
            raise InputError(f"--map {part.strip()}: {name} is no field; give one of {known}")
        elif name in columns or name in constants:
            raise InputError(f"--map {part.strip()}: {name} stands twice; leave one out")
        elif quoted := re.fullmatch(r"'((?:[^']|'')*)'", value):
            if name not in (*NAMES, "profile"):
                raise InputError(f"--map {part.strip()}: the same text in every dialogue; name a column instead")
            constants[name] = quoted[1].replace("''", "'")
        elif value.startswith("'"):
            raise InputError(f"--map {part.strip()}: a text without its end; close it with '")
        elif value.startswith("@") and (value not in ("@file", "@record") or name not in NAMES):
            raise InputError(f"--map {part.strip()}: @file and @record stand for source, character or scenario")
        else:
            columns[name] = value
    return ColumnMap(columns, constants, roles, frozenset(ignored))


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file, or the fields of a record, by what they are."""

    of: Mapping[str, tuple[str, ...]]
    """Of a field: its column, and where that holds further ones the way down to it."""
    lists: tuple[str, ...]
    """Columns that may hold a whole dialogue as a list."""
    rounds: int
    """The highest number of a round; 0 where there are none."""
    unused: tuple[str, ...]
    """Columns that are nothing of a dialogue, as far as is known."""

    def value(self, fields: Fields, name: str) -> Any:
        """What a record has for a field; None where it has nothing."""
        way = self.of.get(name)
        if way is None:
            return None
        found: Any = fields
        for number, step in enumerate(way):
            if not isinstance(found, Mapping):
                return None
            key = step if number == 0 or step in found else next((k for k in found if folded(k) == folded(step)), step)
            found = found.get(key)
        return found


def columns_of(keys: Sequence[str], mapping: ColumnMap, called: str = "column") -> Columns:
    """What the columns of a file are, or the fields of a record.

    Args:
        keys: their names, in order.
        mapping: what ``--map`` says; it goes before what their names say.
        called: what messages call them: ``column`` or ``field``.

    Raises:
        Wrong: a mapped column is not there, two are the same field, or one is nearly a known name.
    """
    left = [key for key in keys if key not in mapping.ignored]
    of: dict[str, tuple[str, ...]] = {}
    for name, column in mapping.columns.items():
        if not column.startswith("@"):
            of[name] = _way(name, column, keys, called)
    taken = {way[0] for way in of.values()}
    settled = {*mapping.columns, *mapping.constants}
    lists = []
    for key in (key for key in left if key not in taken):
        name = folded(key)
        if name in settled or (name in LISTS and "turns" in settled):
            continue  # the map has another for it
        if name not in (*NAMES, "profile", *LISTS, SCENARIO_TOO) and not ROUND.fullmatch(name):
            continue
        if name in of:
            first = of[name][0]
            raise Wrong(f'{called}s {first!r} and {key!r} are both {name}; rename one, or --map "ignore={key}"')
        of[name] = (key,)
        if name in LISTS:
            lists.append(key)
    if SCENARIO_TOO in of:
        other = of.pop(SCENARIO_TOO)
        if "scenario" not in settled:
            of.setdefault("scenario", other)
        taken.add(other[0])
    taken |= {way[0] for way in of.values()}
    unused = tuple(key for key in left if key not in taken)
    numbers = [int(found[2]) for name in of if (found := ROUND.fullmatch(name))]
    for key in unused:
        if (known := _looks_like(key, of, settled, bool(lists or numbers or "turns" in settled))) is not None:
            there = known in of or known in settled
            way = "rename it to the round it is" if there else f'rename it, or --map "{known}={key}"'
            raise Wrong(
                f'{called} {key!r} looks like {known!r} and is not read; {way} (or leave it out: --map "ignore={key}")'
            )
    return Columns(of, tuple(lists), max(numbers, default=0), unused)


def missing_remedy(missing: Sequence[str], keys: Sequence[str], called: str = "column") -> str:
    """What to do where fields are missing: the columns that are there, and a ``--map`` that may be right."""
    by_name = {folded(key): key for key in keys}
    found = []
    for name in missing:
        column = next((by_name[like] for like in LIKELY[name] if like in by_name), OTHERWISE.get(name))
        found += [f"{name}={column}"] if column else []
        if ROUND.fullmatch(name):  # 问题1, 问题2: all of them are named, as a round would be lost otherwise
            words = "|".join(LIKELY[name])
            numbers = {key: re.fullmatch(rf"(?:{words})[\s_-]?([1-9]\d*)", like) for like, key in by_name.items()}
            rounds = {f"{name.removesuffix('1')}{number[1]}": key for key, number in numbers.items() if number}
            found += [f"{one}={key}" for one, key in rounds.items() if not (column and one == name)]
    there = f"there are {shortened(list(keys))}" if keys else "there are none"
    hint = f'; add it, or say what stands for it: --map "{",".join(found)}"' if found else "; add it"
    return f"{called} {', '.join(missing)} is missing ({there}){hint}"


def _way(name: str, column: str, keys: Sequence[str], called: str) -> tuple[str, ...]:
    """The way to a mapped column: its own name, or with dots that of the column that holds it first."""
    parts = column.split(".")
    for whole in range(len(parts), 0, -1):  # a column may have dots in its name
        wanted = ".".join(parts[:whole])
        alike = [key for key in keys if key == wanted] or [key for key in keys if folded(key) == folded(wanted)]
        if alike:
            return (alike[0], *parts[whole:])
    constant = f"; a text that is the same everywhere is quoted: --map \"{name}='{column}'\"" if name in NAMES else ""
    raise Wrong(f"--map {name}={column}: no such {called}; there are {shortened(list(keys))}{constant}")


def _looks_like(key: str, of: Mapping[str, Any], settled: set[str], has_dialogue: bool) -> str | None:
    """The known name that a column is nearly; None where it is like none."""
    bare = re.sub(r"[\W_]+", "", folded(key))
    if found := re.fullmatch(r"(\D*)(\d{1,6})(\D*)", bare):
        letters = re.sub(r"round|turn", "r", found[1] + found[3])
        for side in ("question", "answer"):
            if any(_alike(letters, like) for like in (side, f"{side}r", f"r{side}")):
                return f"{side}_r{int(found[2]) or 1}"
    wanted = [name for name in (*NAMES, "profile") if name not in of and name not in settled]
    wanted += [] if has_dialogue else LISTS
    return next((name for name in wanted if _alike(bare, name)), None)


def _alike(name: str, known: str) -> bool:
    return abs(len(name) - len(known)) <= 2 and SequenceMatcher(None, name, known).ratio() >= ALIKE
