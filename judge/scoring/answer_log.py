"""Answers of a server on the disk as they come, until the part that they belong to is written.

A part holds a batch of dialogues and never changes, and a slow server may take an hour for one. So every answer is at
once appended to a log beside the parts, a line each. A process that is killed loses no more than the line that it was
writing, and the next one asks for what is neither in a part nor in a log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from judge.engines import Rows
from judge.files import sync
from judge.remote import put, take_back
from judge.scoring.parts import telling
from judge.types import digest

ANSWERS = "answers"
"""The folder in a run's folder that has the logs."""


class AnswerLog:
    """The answers to requests about one batch, by key (see ``judge.engines.AnswerLog``).

    Several processes may append to one log: each writes whole lines.

    Args:
        folder: the run's.
        kind: of the batch's part.
        batch: its name.
    """

    def __init__(self, folder: Path, kind: str, batch: str) -> None:
        self._folder, self.path = folder, folder / ANSWERS / f"{kind}-{batch}.jsonl"
        self._is_new, self._is_synced = True, True

    @cached_property
    def _found(self) -> dict[str, tuple[Rows, int | None]]:
        """Rows and tokens read by key, of the last line of each; no rows of an answer that was taken back."""
        return {key: (rows, read) for key, rows, read in self._lines()}

    @property
    def rows(self) -> int:
        """How many rows of levels it holds."""
        return sum(len(rows) for rows, _ in self._found.values())

    def get(self, key: str) -> Rows | None:
        """The rows of an answer; None where it is not there."""
        rows, _ = self._found.get(key, (None, None))
        return rows or None

    def read(self, key: str) -> int | None:
        """How many tokens of its request the server said that it read; None where that is not known."""
        return self._found.get(key, (None, None))[1]

    def add(self, key: str, rows: Rows, read: int | None = None) -> None:
        """Keep an answer; EngineError where the file cannot be written.

        Args:
            key: of its request.
            rows: log-probabilities of the levels, a row a leaf.
            read: how many tokens of the request the server said that it read.
        """
        kept = (key, rows) if read is None else (key, rows, read)
        line = json.dumps([*kept[:2], _check(*kept), *kept[2:]])
        # The last line of a process that was killed, or of a disk that was full, may lack its end.
        rest, self._is_new = ("\n" * self._is_new + line + "\n").encode(), True
        with telling("written", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                while rest:  # of a disk that is nearly full it takes a part, and says why at the next
                    rest = rest[file.write(rest) :]
        self._found[key], self._is_new, self._is_synced = (rows, read), False, False

    def take_back(self, read: int) -> None:
        """Forget the answers to requests of which the server read so many tokens or more; errors as of ``add``."""
        for key in [key for key, (rows, own) in self._found.items() if rows and own is not None and own >= read]:
            self.add(key, [])

    def sync(self) -> None:
        """Have what was kept survive the machine too, and put it into the store of a run that is in one."""
        if self._is_synced:
            return
        self._is_synced = True
        with telling("written", self.path):
            sync(self.path)
        put(self._folder, self.path)

    def remove(self) -> None:
        """Remove the file, as the part has what is in it."""
        with telling("removed", self.path):
            take_back(self._folder, self.path)
        with suppress(OSError):  # there is none, or logs of other batches are in it
            self.path.parent.rmdir()

    def _lines(self) -> Iterator[tuple[str, Rows, int | None]]:
        """What earlier processes kept; lines that are not as they were written are passed over."""
        if not self.path.is_file():
            return
        with telling("read", self.path):
            lines = self.path.read_bytes().splitlines()
        for line in lines:
            with suppress(ValueError, TypeError):  # half a line, or none
                key, rows, check, *read = json.loads(line)
                if check == _check(key, rows, *read):
                    yield key, rows, *(read or [None])


def _check(*kept: object) -> str:
    return digest(list(kept), 8)
