"""The errors that both packages raise on purpose.

The command prints one as a line on stderr and ends with its exit code.

JudgeError            something stops the work; str(error) is one line for the user
└── InputError        the user's input or options are wrong            exit code 2
    └── TableError    the same of a file or table, with all problems   exit code 2

``judge.errors`` adds those of engines and runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

Problem = tuple[int, str]
"""The number of the record (from 1; 0 for the file as a whole); and what is wrong and what to do, without the file."""


_MOST = 20
"""Problems of one file that are printed before the others are only counted."""


_LONGEST = 600
"""Characters of a problem's text; a longer one loses its middle."""


class JudgeError(Exception):
    """Something stops the work; the message is one line that names the thing, what is wrong and the remedy."""

    exit_code = 3


class InputError(JudgeError, ValueError):
    """The user's input or options are wrong."""

    exit_code = 2


class TableError(InputError):
    """A table that cannot be used: the file, the records, what is wrong with each and what to do.

    The message is one line for one problem. For several it has their number, a line for each of the first 20, and how
    many more there are.
    """

    def __init__(self, path: str | Path, problems: Iterable[Problem]) -> None:
        lines, half = [], _LONGEST // 2
        for record, text in sorted(problems, key=lambda problem: problem[0]):
            flat = " ".join(text.split())
            if len(flat) > _LONGEST:  # what it is about stands at the beginning, the remedy at the end
                flat = f"{flat[:half]}…{flat[-half:]}"
            lines.append(f"record {record}: {flat}" if record else flat)
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
