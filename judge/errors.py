"""Everything this package raises on purpose, and the command's exit codes.

JudgeError            something stops the work; str(error) is one line for a person
├── InputError        the user's input or options are wrong             exit code 2
├── EngineError       the engine or the machine failed                  exit code 3
│   └── UnfitJudge    the judge does not do the task                    exit code 3
└── Interrupted       the user stopped the run; what was done is saved  exit code 130

What a model got wrong about one dialogue is data (``Judgment.error``), never an exception.
"""

from __future__ import annotations

from collections.abc import Sequence

GO_ON = "run the same command again to go on"
"""Ends what is said of a run that was cut short; the command line says there which command that is."""


class JudgeError(Exception):
    """Something stops the work; the message is one line that names the thing, what is wrong and the remedy."""

    exit_code = 3


class InputError(JudgeError):
    """The user's input or options are wrong."""

    exit_code = 2


class EngineError(JudgeError):
    """The engine or the machine failed."""

    exit_code = 3


class UnfitJudge(EngineError):
    """The judge does not do the task; another try will not help."""


class Interrupted(JudgeError):
    """The user stopped the run; everything judged so far is saved."""

    exit_code = 130


def plain(text: str) -> str:
    """Text from data without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(error: Exception) -> str:
    """What an error of a library says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def listed(problems: Sequence[str], total: int | None = None, most: int = 20) -> str:
    """One problem as it is; many as a count, the first ``most`` a line each, and how many more there are."""
    total = len(problems) if total is None else total
    if total == 1:
        return problems[0]
    more = [f"and {total - most} more"] if total > most else []
    return "\n  ".join([f"{total} problems:", *problems[:most], *more])
