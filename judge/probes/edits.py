"""Changes of what a character said: places in its replies, what stands there instead, and all that follows from it.

A degradation is a list of edits that do not overlap; a strength makes the first so many of them. So what a weaker one
changes the stronger one changes too, and nothing else of a dialogue is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from judge.probes.wording import Wording
from judge.types import Dialogue, Turn

Span = tuple[int, int]
_SENTENCE = re.compile(r"""(?:[^。！？!?…\n.]|\.(?!\s|$))+(?:[。！？!?…～~.]+[”"’」』）)]*)?""")
_CLAUSE = re.compile(r"[^，,；;]+[，,；;]*")


@dataclass(frozen=True, slots=True)
class Edit:
    """In the reply of one round (from 0), what stands from ``start`` to before ``end`` becomes ``text``."""

    round: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Others:
    """Dialogues of the same source: ``of_role``, the same character in other scenarios; ``of_scene``, other characters,
    in the same scenario where there are such.
    """

    of_role: tuple[Dialogue, ...]
    of_scene: tuple[Dialogue, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A dialogue to be degraded, and what there is to do it with."""

    dialogue: Dialogue
    others: Others
    wording: Wording
    random: Random

    @property
    def replies(self) -> list[str]:
        """What the character said, by round."""
        return [turn.character for turn in self.dialogue.turns]

    def sentences(self, first_round: int = 0) -> list[tuple[int, Span]]:
        """Round and place of each sentence, from a round on, in random order."""
        found = [(number, span) for number, text in self.rounds(first_round) for span in sentences(text)]
        self.random.shuffle(found)
        return found

    def rounds(self, first_round: int = 0) -> Iterator[tuple[int, str]]:
        """Number and reply of each round, from a round on."""
        yield from list(enumerate(self.replies))[first_round:]


def edited(dialogue: Dialogue, edits: Sequence[Edit]) -> Dialogue:
    """The dialogue with edits made; they must not overlap."""
    turns = list(dialogue.turns)
    for edit in sorted(edits, key=lambda one: (one.start, one.end), reverse=True):  # from the end, so that places hold
        turn = turns[edit.round]
        turns[edit.round] = Turn(turn.user, turn.character[: edit.start] + edit.text + turn.character[edit.end :])
    return replace(dialogue, turns=tuple(turns))


def interleaved(*lists: Sequence[Edit]) -> list[Edit]:
    """Edits of several lists in one, so that of each list about the same share comes first."""
    places = [((k + 1) / len(edits), n, edit) for n, edits in enumerate(lists) for k, edit in enumerate(edits)]
    return [edit for _, _, edit in sorted(places, key=lambda place: place[:2])]


def sentences(text: str) -> list[Span]:
    """Places of the sentences, each with the marks that end it, without the space around it."""
    found = (_trimmed(text, match.span()) for match in _SENTENCE.finditer(text))
    return [span for span in found if span[0] < span[1]]


def clauses(text: str, span: Span) -> list[Span]:
    """Places of the clauses of a sentence, each with the comma after it."""
    return [match.span() for match in _CLAUSE.finditer(text, *span)]


def _trimmed(text: str, span: Span) -> Span:
    part = text[slice(*span)]
    return span[0] + len(part) - len(part.lstrip()), span[1] - (len(part) - len(part.rstrip()))
