"""Dialogues under codes that say nothing of their source, and the key that puts the names back."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from judge.errors import InputError, one_line
from judge.files import replacing
from judge.types import Dialogue

CODE_BYTES = 6
"""Codes are drawn, so that nobody can work them out, and long enough that none comes twice by chance in a plan."""


@dataclass(frozen=True, slots=True)
class Task:
    """One dialogue to be rated, with the chance it was drawn with and how many people are to rate it."""

    code: str
    dialogue: Dialogue
    inclusion_probability: float
    raters: int


@dataclass(frozen=True, slots=True)
class Unblinded:
    """What the key says of a task."""

    source: str
    character: str
    scenario: str
    content_digest: str
    inclusion_probability: float
    raters: int


@dataclass(frozen=True, slots=True)
class Key:
    """What is behind the codes of a plan: the metrics that were asked about, and the tasks by code."""

    metrics: tuple[str, ...]
    tasks: Mapping[str, Unblinded]


def blind(planned: Iterable[tuple[Dialogue, float, int]]) -> list[Task]:
    """Tasks in a random order, each under a new code.

    Args:
        planned: dialogues, each with its inclusion probability and how many people are to rate it.
    """
    tasks = [Task(_code(), *one) for one in planned]
    random.SystemRandom().shuffle(tasks)
    return tasks


def _code() -> str:
    """A code that no spreadsheet takes for a number: it begins with a letter."""
    return f"t{secrets.token_hex(CODE_BYTES)}"


def key_of(tasks: Iterable[Task], metrics: Iterable[str]) -> Key:
    """The key of some tasks."""
    return Key(tuple(metrics), {task.code: _unblinded(task) for task in tasks})


def _unblinded(task: Task) -> Unblinded:
    one = task.dialogue
    names = one.source, one.character, one.scenario, one.content_digest
    return Unblinded(*names, task.inclusion_probability, task.raters)


def write_key(path: Path, key: Key) -> None:
    """Write a key, whole."""
    with replacing(path) as file:
        file.write(json.dumps(asdict(key), ensure_ascii=False, indent=1).encode() + b"\n")


def read_key(path: Path) -> Key:
    """Read a key; InputError where there is none."""
    try:
        return TypeAdapter(Key).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"--key {path}: cannot be read ({error.strerror}); name the key that plan wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = one_line(ValueError(f"{where}: {first['msg']}" if where else first["msg"]))
        raise InputError(f"--key {path}: is not the key of a plan ({problem}); name the one that plan wrote") from error
