"""The replies of a collection, in an SQLite file: each is on the disk as soon as it is there, and none is asked twice.

The file belongs to one process at a time. It is bound to what can change a reply (model, prompts, sampling, seed), and
refuses to go on with anything else.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from judge.collection.scenarios import Scene
from judge.errors import EngineError, InputError, one_line

REPLIES = "replies.sqlite"
"""The file in a collection's folder that has them."""


CHARACTER, USER = "character", "user"
"""Who says something: the model that is collected from, or the simulated user."""


SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS scene (character TEXT, scenario TEXT, question TEXT NOT NULL, follow_ups TEXT NOT NULL,
  profile TEXT, rounds INTEGER NOT NULL, PRIMARY KEY (character, scenario)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (command TEXT NOT NULL, seconds REAL NOT NULL, retries INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS reply (character TEXT, scenario TEXT, round INTEGER, speaker TEXT, text TEXT NOT NULL,
  finish TEXT NOT NULL, prompt_tokens INTEGER, tokens INTEGER, tries INTEGER NOT NULL, seed INTEGER NOT NULL,
  PRIMARY KEY (character, scenario, round, speaker)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (character TEXT, scenario TEXT, round INTEGER, speaker TEXT, reason TEXT NOT NULL,
  detail TEXT NOT NULL, PRIMARY KEY (character, scenario, round, speaker)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Said:
    """A reply as it is kept.

    ``finish`` is why it ended (``length``: it was cut at the most tokens), ``tokens`` are None where they are not
    known, ``tries`` how often it was asked for, ``seed`` that of the last try.
    """

    text: str
    finish: str
    prompt_tokens: int | None
    tokens: int | None
    tries: int
    seed: int


class ReplyStore:
    """The replies in a folder, which is made where it is missing.

    Args:
        folder: the collection's.
        settings: what a reply depends on, by name, as JSON-like values.
        scenes: what is collected now, with the rounds of each.

    Raises:
        InputError: the folder is another process's now, holds a collection with other settings or scenes, or holds
            other files.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], scenes: Mapping[Scene, int]) -> None:
        self.folder = folder
        path, remedy = folder / REPLIES, "choose another --out"
        try:
            there = [one for one in folder.iterdir() if not one.name.startswith(".")] if folder.exists() else []
            if there and not path.exists():
                raise InputError(f"{folder}: holds files but no {REPLIES}, so it is no collection; {remedy}")
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); {remedy}") from error
        try:
            self._table = sqlite3.connect(path, timeout=0, isolation_level=None)
            try:
                # The lock is taken by the first write and held until the process ends, however it ends.
                self._table.execute("PRAGMA locking_mode=EXCLUSIVE")
                self._table.execute("PRAGMA synchronous=FULL")
                self._table.execute("BEGIN EXCLUSIVE")
                for statement in SCHEMA.split(";"):
                    self._table.execute(statement)
                self._refuse_others(settings, scenes)
                self._table.execute("COMMIT")
            except BaseException:
                self._table.close()
                raise
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise InputError(f"{folder}: another process collects into it; wait for it, or {remedy}") from error
            raise InputError(f"{path}: cannot be used ({one_line(error)}); restore it or {remedy}") from error

    def _refuse_others(self, settings: Mapping[str, Any], scenes: Mapping[Scene, int]) -> None:
        """Note settings and scenes; InputError where they differ from those that are noted."""
        noted = {name: json.loads(value) for name, value in self._table.execute("SELECT name, value FROM setting")}
        wanted = json.loads(json.dumps(dict(settings)))
        if noted and (differing := [name for name in wanted if noted.get(name) != wanted[name]]):
            shown = (f"{name} (there {_shown(noted.get(name))}, now {_shown(wanted[name])})" for name in differing)
            raise InputError(f"{self.folder}: was collected with another {', '.join(shown)}; choose another --out")
        known = {one.pair: one for one in self.scenes()}
        changed = [one for one in scenes if known.get(one.pair, one) != one]
        if changed:
            raise InputError(
                f"{self.folder}: {changed[0].name} had another question, profile or follow-up when it was collected "
                f"({len(changed):,} such); choose another --out"
            )
        self._table.executemany(
            "INSERT OR REPLACE INTO setting VALUES (?, ?)",
            [(name, json.dumps(value)) for name, value in wanted.items()],
        )
        new = [
            (*one.pair, one.question, json.dumps(one.follow_ups), one.profile, rounds) for one, rounds in scenes.items()
        ]
        self._table.executemany("INSERT OR REPLACE INTO scene VALUES (?, ?, ?, ?, ?, ?)", new)

    def scenes(self) -> dict[Scene, int]:
        """Every scene that was ever collected here, with the rounds that it was last to have."""
        rows = self._table.execute("SELECT character, scenario, question, follow_ups, profile, rounds FROM scene")
        return {
            Scene(character, scenario, question, tuple(json.loads(follow_ups)), profile): rounds
            for character, scenario, question, follow_ups, profile, rounds in rows
        }

    def add_session(self, command: str, seconds: float, retries: int) -> None:
        """Note how a session went, also one that was cut short: its command, and further tries of requests."""
        with self._written():
            self._table.execute("INSERT INTO session VALUES (?, ?, ?)", (command, seconds, retries))

    def course(self) -> tuple[str, float, int]:
        """The command of the first session, and seconds and further tries of all; there is at least one."""
        (command,) = self._table.execute("SELECT command FROM session ORDER BY rowid LIMIT 1").fetchone()
        seconds, retries = self._table.execute("SELECT sum(seconds), sum(retries) FROM session").fetchone()
        return str(command), float(seconds), int(retries)

    def get(self, scene: Scene, number: int, speaker: str) -> Said | None:
        """What somebody said in a round, where it is kept."""
        row = self._table.execute(
            "SELECT text, finish, prompt_tokens, tokens, tries, seed FROM reply"
            " WHERE character = ? AND scenario = ? AND round = ? AND speaker = ?",
            (scene.character, scene.scenario, number, speaker),
        ).fetchone()
        return Said(*row) if row else None

    def keep(self, scene: Scene, number: int, speaker: str, said: Said) -> None:
        """Keep what somebody said in a round; it is on the disk when this returns. EngineError where it cannot be."""
        key = (scene.character, scene.scenario, number, speaker)
        with self._written():
            self._table.execute("INSERT INTO reply VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*key, *astuple(said)))
            where = "character = ? AND scenario = ? AND round = ? AND speaker = ?"
            self._table.execute(f"DELETE FROM failure WHERE {where}", key)

    def fail(self, scene: Scene, number: int, speaker: str, reason: str, detail: str = "") -> None:
        """Note why there is no reply, and what the server said of it."""
        with self._written():
            row = (scene.character, scene.scenario, number, speaker, reason, detail)
            self._table.execute("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?, ?)", row)

    def failures(self, scenes: Sequence[Scene]) -> list[tuple[str, str]]:
        """Reason and detail of every reply that some scenes lack; the reason of a simulated user's begins ``user:``."""
        wanted = {scene.pair for scene in scenes}
        rows = self._table.execute("SELECT character, scenario, speaker, reason, detail FROM failure")
        return [
            (reason if speaker == CHARACTER else f"user: {reason}", detail)
            for character, scenario, speaker, reason, detail in rows
            if (character, scenario) in wanted
        ]

    def replies(self) -> Iterator[tuple[tuple[str, str, int, str], Said]]:
        """Everything that is kept: (character, scenario, round, speaker) of each, and the reply."""
        for *key, text, finish, prompt_tokens, tokens, tries, seed in self._table.execute("SELECT * FROM reply"):
            character, scenario, number, speaker = key
            yield (character, scenario, number, speaker), Said(text, finish, prompt_tokens, tokens, tries, seed)

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """One transaction; EngineError where the disk does not take it."""
        try:
            self._table.execute("BEGIN")
            yield
            self._table.execute("COMMIT")
        except sqlite3.Error as error:
            if self._table.in_transaction:
                self._table.execute("ROLLBACK")
            message = f"{self.folder / REPLIES}: cannot be written ({one_line(error)}); free some space, then"
            raise EngineError(message, can_go_on=True) from error


def _shown(value: Any) -> str:
    """A setting in a message."""
    return str(value)[:60]
