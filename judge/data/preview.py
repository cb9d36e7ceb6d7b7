"""How files of dialogues are understood, before anything is judged: what ``data preview`` shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from judge.data.dialogues import FileFacts, Problem, read_dialogues
from judge.types import Dialogue


@dataclass(slots=True)
class Contents:
    """What a file holds; complete once it was read."""

    dialogues: int = 0
    fewest_rounds: int = 0
    most_rounds: int = 0
    sources: set[str] = field(default_factory=set)
    characters: set[str] = field(default_factory=set)
    unanswered: int = 0
    """Dialogues in which a reply is blank, or the character never speaks: they are not judged (``empty_answer``)."""
    first: Dialogue | None = None

    def add(self, dialogue: Dialogue) -> None:
        """Count one more dialogue."""
        rounds = len(dialogue.turns)
        self.fewest_rounds = min(self.fewest_rounds or rounds, rounds)
        self.most_rounds = max(self.most_rounds, rounds)
        self.dialogues += 1
        self.sources.add(dialogue.source)
        self.characters.add(dialogue.character)
        self.unanswered += not dialogue.is_answered
        self.first = self.first or dialogue


@dataclass(frozen=True, slots=True)
class Preview:
    """How files were understood, what a user should know of that, and what is wrong with them."""

    files: tuple[tuple[FileFacts, Contents], ...]
    warnings: tuple[str, ...]
    """Of folders and packed files; those of a file are in its facts."""
    problems: tuple[str, ...]


def preview(
    paths: Iterable[Path], mapping: str = "", judged_role: str | None = None, default_character: str | None = None
) -> Preview:
    """Read files of dialogues, and say how each was understood.

    Args:
        paths: files and folders.
        mapping, judged_role, default_character: as for ``read_dialogues``.

    Raises:
        InputError: a path is missing or of an unknown kind, or ``mapping`` is wrong.
    """
    files: list[tuple[FileFacts, Contents]] = []
    warnings: list[str] = []
    problems: list[str] = []
    places: dict[str, str] = {}
    contents = Contents()

    def file_is_read(facts: FileFacts) -> None:
        nonlocal contents
        files.append((facts, contents))
        contents = Contents()

    who = {"judged_role": judged_role, "default_character": default_character}
    for item in read_dialogues(paths, mapping, **who, on_file=file_is_read, on_warning=warnings.append):
        if isinstance(item, Problem):
            problems.append(item.message)
            continue
        contents.add(item.dialogue)
        first = places.setdefault(item.dialogue.id, item.place)
        if first != item.place:
            problems.append(item.twice(first))
    of_files = {warning for facts, _ in files for warning in facts.warnings}
    return Preview(tuple(files), tuple(text for text in warnings if text not in of_files), tuple(problems))
