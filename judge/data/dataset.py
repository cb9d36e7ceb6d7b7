"""All dialogues of a run, sorted and cut into batches of work, without holding them in memory.

Dialogues are read once into a temporary SQLite table, which sorts them, finds duplicates and gives them back in
order. Batches depend on the sorted dialogues alone, so every run over the same input has the same batches.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.names import fold, meant
from judge.data.dialogues import Problem, Record, read_dialogues
from judge.data.fields import shortened
from judge.errors import InputError, listed, plain
from judge.files import temporary_database
from judge.types import Dialogue, Turn, digest

BATCH_DIALOGUES = 64
"""The most dialogues in a batch, unless there are very many. A batch also ends where system or character change, once
it is half full."""


BATCH_CHARACTERS = 100_000
"""The most characters of text in a batch of more than one dialogue; in larger batches as many more."""


MOST_BATCHES = 2048
"""With more batches than about so many, batches are made larger, up to ``LARGEST_BATCH``: each is a file."""


LARGEST_BATCH = 1024
"""No batch has more dialogues, however many there are: its prompts are in memory together."""


MOST_PROBLEMS = 20
"""Problems of the input that are named; further ones are counted."""


def lot(character: str, scenario: str) -> str:
    """A hash (16 hexadecimal digits) by whose order some dialogues are drawn: the same scenarios for every system."""
    return digest([character, scenario], 16)


def sort_key(scenario: str) -> str:
    """What scenarios are sorted by: numbers in their own order."""
    return scenario.zfill(20) if scenario.isdecimal() else scenario


def batch_size(dialogues: int) -> int:
    """The most dialogues in a batch of a new run over so many: doubled while there would be too many batches."""
    size = BATCH_DIALOGUES
    while size < LARGEST_BATCH and dialogues > size * MOST_BATCHES:
        size *= 2
    return size


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive dialogues that are judged and written together. Its digest stands for their names and content."""

    dialogues: tuple[Dialogue, ...]

    @property
    def digest(self) -> str:
        """Hash of the dialogues' names and content (16 hexadecimal digits)."""
        return digest([[d.source, d.character, d.scenario, d.content_digest] for d in self.dialogues], 16)


class Corpus:
    """All dialogues of some files, sorted by character, system and scenario.

    Args:
        paths: files or folders, as for ``read_dialogues``.
        sources, characters: keep only these, where given.
        rated: keep only dialogues with these ids (``source/character/scenario``), where given; ``limit`` then draws
            from these.
        limit: keep only so many dialogues, drawn by the hash of character and scenario. So they are the same in every
            run, and the same scenarios for every system.
        mapping, judged_role, default_character: how records are understood, as for ``read_dialogues``.

    Attributes:
        notes: warnings of how the files were read, a sentence each.
        batch_dialogues: the most dialogues in a batch.
        batch_digests, batch_sizes: the digest of each batch, and how many dialogues it has.
        digest: hash of all dialogues, which depends on the size of batches too.

    Raises:
        InputError: a file or record is wrong, or a dialogue stands twice (all such problems are named); a filter names
            what is not there, or leaves nothing.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        sources: Sequence[str] = (),
        characters: Sequence[str] = (),
        limit: int | None = None,
        rated: Collection[str] | None = None,
        *,
        mapping: str = "",
        judged_role: str | None = None,
        default_character: str | None = None,
    ) -> None:
        self._table = temporary_database()
        self._table.execute(
            "CREATE TABLE dialogue (character TEXT, profile TEXT, source TEXT, sort TEXT, scenario TEXT, turns TEXT,"
            " place TEXT, lot TEXT, PRIMARY KEY (source, character, scenario)) WITHOUT ROWID"
        )
        notes: list[str] = []
        try:
            self._fill(
                read_dialogues(
                    paths,
                    mapping,
                    judged_role=judged_role,
                    default_character=default_character,
                    on_warning=notes.append,
                )
            )
            self.notes = tuple(notes)
            self._keep("source", sources)
            self._keep("character", characters)
            if rated is not None:
                some = next(iter(self)).id
                self._table.execute("CREATE TEMP TABLE rated (id TEXT PRIMARY KEY)")
                self._table.executemany("INSERT INTO rated VALUES (?)", ((item,) for item in set(map(fold, rated))))
                self._table.create_function("fold", 1, fold, deterministic=True)
                name = "fold(source || '/' || character || '/' || scenario)"
                self._table.execute(f"DELETE FROM dialogue WHERE {name} NOT IN (SELECT id FROM rated)")
                if not len(self):  # the names of both kinds are shown
                    raise InputError(
                        f"--annotations: none of its {len(set(rated)):,} items is among the dialogues, which are named "
                        f"like {plain(some)} (source/character/scenario), not {plain(min(rated))}; give the dialogues "
                        "that were rated, or write their names alike"
                    )
            if limit is not None:
                if limit < 1:
                    raise InputError(f"--limit {limit}: must be at least 1")
                drawn = "SELECT source, character, scenario FROM dialogue ORDER BY lot, character, scenario, source"
                self._table.execute(
                    f"DELETE FROM dialogue WHERE (source, character, scenario) NOT IN ({drawn} LIMIT ?)", (limit,)
                )
        except BaseException:
            self.close()
            raise
        self._table.execute("CREATE INDEX sorted ON dialogue (character, profile, source, sort, scenario)")
        self.batch_dialogues = 0
        self.cut(batch_size(len(self)))

    def cut(self, batch_dialogues: int) -> None:
        """Cut into batches of at most so many dialogues; a run goes on with the size that it began with."""
        if self.batch_dialogues == batch_dialogues:
            return
        self.batch_dialogues = batch_dialogues
        measured = [(batch.digest, len(batch.dialogues)) for batch in self.batches()]
        self.batch_digests, self.batch_sizes = [name for name, _ in measured], [size for _, size in measured]
        self.digest = digest(self.batch_digests)

    def __len__(self) -> int:
        return int(self._table.execute("SELECT count(*) FROM dialogue").fetchone()[0])

    def __iter__(self) -> Iterator[Dialogue]:
        return self._select("ORDER BY character, profile, source, sort, scenario")

    def values(self, column: str) -> list[str]:
        """The systems or the characters, sorted: ``column`` is ``source`` or ``character``."""
        return [row[0] for row in self._table.execute(f"SELECT DISTINCT {column} FROM dialogue ORDER BY {column}")]

    def roles(self) -> list[tuple[str, str]]:
        """Every system with each character that it plays, as (source, character), sorted by character."""
        rows = self._table.execute("SELECT DISTINCT source, character FROM dialogue ORDER BY character, source")
        return [(source, character) for source, character in rows]

    def shared(self) -> tuple[int, int]:
        """How many pairs of character and scenario every system has, and how many there are in all."""
        pairs = "SELECT count(*) AS n FROM dialogue GROUP BY character, scenario"
        sources = len(self.values("source"))
        found = self._table.execute(f"SELECT sum(n = ?), count(*) FROM ({pairs})", (sources,)).fetchone()
        return int(found[0]), int(found[1])

    def find(self, source: str, character: str, scenario: str) -> Dialogue | None:
        """The dialogue of these names; None where there is none."""
        return next(
            self._select("WHERE source = ? AND character = ? AND scenario = ?", (source, character, scenario)), None
        )

    def sample(self, source: str, character: str, most: int) -> list[Dialogue]:
        """At most so many dialogues of a system as a character; scenarios are drawn by hash, alike for every system."""
        chosen = "WHERE source = ? AND character = ? ORDER BY lot, scenario LIMIT ?"
        return list(self._select(chosen, (source, character, most)))

    def co_stars(self, dialogue: Dialogue, most: int) -> list[Dialogue]:
        """At most so many dialogues of the same system as other characters.

        Those of the same scenario where there are any, otherwise of any scenario.
        """
        others = "WHERE source = ? AND character != ? ORDER BY scenario = ? DESC, lot, character, scenario LIMIT ?"
        found = list(self._select(others, (dialogue.source, dialogue.character, dialogue.scenario, most)))
        return [one for one in found if one.scenario == dialogue.scenario] or found

    def _select(self, clauses: str, parameters: tuple[str | int, ...] = ()) -> Iterator[Dialogue]:
        columns = "source, character, scenario, turns, profile"
        rows = self._table.execute(f"SELECT {columns} FROM dialogue {clauses}", parameters)
        for source, character, scenario, turns, profile in rows:
            yield Dialogue(source, character, scenario, tuple(Turn(*turn) for turn in json.loads(turns)), profile)

    def batches(self) -> Iterator[Batch]:
        """The batches, in order."""
        most, characters = self.batch_dialogues, BATCH_CHARACTERS * self.batch_dialogues // BATCH_DIALOGUES
        batch: list[Dialogue] = []
        size = 0
        for dialogue in self:
            more = sum(len(turn.user or "") + len(turn.character or "") for turn in dialogue.turns)
            role = (dialogue.source, dialogue.character, dialogue.profile)
            # Ending at a change of system or character keeps an edit local: what is added for one system makes new
            # batches, and leaves those of the others as they were.
            changes = bool(batch) and role != (batch[-1].source, batch[-1].character, batch[-1].profile)
            full = len(batch) >= most or (changes and len(batch) >= most // 2)
            if batch and (full or size + more > characters):
                yield Batch(tuple(batch))
                batch, size = [], 0
            batch.append(dialogue)
            size += more
        if batch:
            yield Batch(tuple(batch))

    def close(self) -> None:
        """Remove the temporary table."""
        self._table.close()

    def _fill(self, items: Iterable[Record | Problem]) -> None:
        """Put every dialogue into the table; InputError with all problems, dialogues that stand twice among them."""
        problems: list[str] = []
        total = 0
        self._table.execute("BEGIN")
        for item in items:
            if isinstance(item, Problem):
                problem = item.message
            else:
                d = item.dialogue
                turns = json.dumps([[turn.user, turn.character] for turn in d.turns], ensure_ascii=False)
                place = item.place, lot(d.character, d.scenario)
                row = (d.character, d.profile, d.source, sort_key(d.scenario), d.scenario, turns, *place)
                try:
                    self._table.execute("INSERT INTO dialogue VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                    continue
                except sqlite3.IntegrityError:  # the table's key is source, character and scenario
                    same = "SELECT place FROM dialogue WHERE source = ? AND character = ? AND scenario = ?"
                    first = self._table.execute(same, (d.source, d.character, d.scenario)).fetchone()[0]
                    problem = item.twice(first)
            total += 1
            if total <= MOST_PROBLEMS:  # a large file of rubbish must not fill the memory with messages
                problems.append(problem)
        self._table.execute("COMMIT")
        if problems:
            raise InputError(listed(problems, total))

    def _keep(self, column: str, wanted: Sequence[str]) -> None:
        """Remove all but some systems or characters; InputError where one is not in the data."""
        known = self.values(column) if wanted else []
        kept = []
        for name in wanted:
            if (found := meant(name, known)) is None:
                raise InputError(f"--{column}s {name}: not in the data, which has {shortened(known, 30)}")
            kept.append(found)
        if wanted:
            marks = ", ".join("?" * len(kept))
            self._table.execute(f"DELETE FROM dialogue WHERE {column} NOT IN ({marks})", kept)
