"""Everything this package raises on purpose, and the command's exit codes.

JudgeError                something stops the work; str(error) is one line to be shown to the user
├── InputError            the user's input or options are wrong             exit code 2
└── CutShort              work ended before it was done; it may go on       exit code 3
    ├── EngineError       the engine or the machine failed                  exit code 3
    │   └── UnfitJudge    the judge does not do the task                    exit code 3
    └── Interrupted       the user stopped the run; what was done is saved  exit code 130

What a model got wrong about one dialogue is data (``Judgment.error``), never an exception.

Also here: how an error is printed. Its text may hold names from data, answers of a server, and keys from the
environment. ``readable`` takes control characters and secrets out before it is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from unicodedata import category

from calibration.errors import InputError, JudgeError, naming

__all__ = [
    "CALLED",
    "CutShort",
    "EngineError",
    "InputError",
    "Interrupted",
    "JudgeError",
    "UnfitJudge",
    "discreet",
    "first_line",
    "flat",
    "listed",
    "naming",
    "one_line",
    "plain",
    "readable",
]

GO_ON = "run the same command again to go on"
"""Ends the message of an error after which the same call goes on where it stopped."""


class CutShort(JudgeError):
    """Work ended before it was done.

    Args:
        message: what happened, and the remedy.
        can_go_on: whether what was done is saved, so that the same call goes on from there. The message then ends
            with ``GO_ON``, and the command line adds the command.
    """

    def __init__(self, message: str, can_go_on: bool = False) -> None:
        super().__init__(f"{message} {GO_ON}" if can_go_on else message)
        self.can_go_on = can_go_on


class EngineError(CutShort):
    """The engine or the machine failed."""


class UnfitJudge(EngineError):
    """The judge does not do the task; another try will not help."""


class Interrupted(CutShort):
    """The user stopped the run; everything judged so far is saved."""

    exit_code = 130


SECRETS = ("ESRP_API_KEY", "ESRP_USER_API_KEY", "ESRP_JUDGE_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Environment variables whose values are never written anywhere."""


SHORTEST_SECRET = 8
"""Characters. A shorter value is no key; it may be part of any text, and so is left in."""


_LOGIN = re.compile(r"(?<=//)[^/?#\s]*@")
"""The name and password of an address."""


LONGEST_LINE = 800
"""The most characters of a printed line of an error: a message may quote a field of a file of any length."""


CALLED: dict[str, str] = {}
"""Where the copies of this process are from, by their temporary folders: what a user knows them by."""


def plain(text: str) -> str:
    """Text from data without control characters, which a terminal would obey; copies are called by their origin."""
    for folder, origin in CALLED.items():
        text = text.replace(folder, origin)
    return "".join(c if c.isprintable() or category(c) == "Zs" else "\N{REPLACEMENT CHARACTER}" for c in text)


def discreet(text: str) -> str:
    """Text without keys of the environment and without the name and password of an address."""
    for secret in (os.environ.get(name, "").strip() for name in SECRETS):
        text = text.replace(secret, "…") if len(secret) >= SHORTEST_SECRET else text
    return _LOGIN.sub("…@", text)


def flat(text: str) -> str:
    """Text on one line: every run of white space becomes one blank."""
    return " ".join(text.split())


def first_line(error: Exception) -> str:
    """The first line of what an error says, or the name of its class where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def one_line(error: Exception) -> str:
    """What an error of a library says, on one line of at most 200 characters, without secrets."""
    return discreet(flat(str(error)))[:200]


def readable(message: str) -> str:
    """An error's message as it is printed: one line, or the lines of ``listed``, each cut to ``LONGEST_LINE``."""
    lines = [plain(discreet(flat(line))) for line in message.split("\n  ")]
    # A long line loses its middle: what it is about stands at the beginning, the remedy at the end.
    half = LONGEST_LINE // 2
    return "\n  ".join(line if len(line) <= LONGEST_LINE else f"{line[:half]}…{line[-half:]}" for line in lines)


def listed(problems: Sequence[str], total: int | None = None, most: int = 20) -> str:
    """One problem as it is; several as a count, then the first ``most`` on a line each, then how many more there are.

    Args:
        problems: all problems, or the first of them.
        total: how many there are, where ``problems`` holds only the first.
        most: how many are shown.
    """
    total, problems = len(problems) if total is None else total, [flat(problem) for problem in problems]
    if total == 1:
        return problems[0]
    more = [f"and {total - most} more"] if total > most else []
    return "\n  ".join([f"{total} problems:", *problems[:most], *more])
