"""The errors that both packages raise on purpose; the command turns one into a line on stderr and its exit code.

JudgeError            something stops the work; str(error) is one line for a person
└── InputError        the user's input or options are wrong        exit code 2
    └── TableError    the same of a file, with all its problems    exit code 2

``judge.errors`` adds those of engines and runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

Problem = tuple[int, str]
"""The record (from 1; 0 for the file as a whole), and what is wrong and what to do, without the file's name."""


_MOST = 20


_LONGEST = 600


class JudgeError(Exception):
    """Something stops the work; the message is one line that names the thing, what is wrong and the remedy."""

    exit_code = 3


class InputError(JudgeError, ValueError):
    """The user's input or options are wrong."""

    exit_code = 2


class TableError(InputError):
    """A table that cannot be used: its file, the records, what is wrong with each and what to do.

    One line for one problem; for more, their number, the first 20 a line each, and how many more there are.
    """

    def __init__(self, path: str | Path, problems: Iterable[Problem]) -> None:
        found = sorted(problems, key=lambda problem: problem[0])
        flat = [(record, _shortened(" ".join(text.split()))) for record, text in found]
        lines = [f"record {record}: {text}" if record else text for record, text in flat]
        more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
        many = "\n  ".join([f"{path}: {len(lines)} problems:", *lines[:_MOST], *more])
        super().__init__(f"{path}: {lines[0]}" if len(lines) == 1 else many)


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Put the option or file that an InputError is about before its message: ``--annotations ratings.csv: …``."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{option} {error}") from error


def _shortened(text: str) -> str:
    """A long text without its middle: what it is about stands at the beginning, the remedy at the end."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half:]}"
