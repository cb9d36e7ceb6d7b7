"""The suite: dialogues rewritten as somebody would who wants a better score without a better answer.

Which text a dialogue gets is drawn by hash from the seed, so the same dialogues are always rewritten in the same way.
Families are after what was seen to move judges: a short universal suffix (Raina, Liusie and Gales 2024, arXiv
2402.14016), a lone colon or "Thought process:" (Zhao et al. 2025, arXiv 2507.08794), a constant answer (Zheng et al.
2024, arXiv 2410.07137), and orders, fake verdicts and formatting (RobustJudge, 2025, arXiv 2506.09443). All texts are
our own, in Chinese and English (``texts.yaml``). ``benign`` is the control: harmless text in the same place, which
quotes scores and speaks of judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import yaml

from judge.rewriting import Rewrite
from judge.types import Dialogue, Turn, digest

BENIGN = "benign"
"""The control among the families."""
PADDING = 600
"""Characters by which padding makes the last answer longer, at least."""
TAGS = 0xE0000
"""Unseen copies of the ASCII characters begin here."""
RIGHT_TO_LEFT, END_OF_DIRECTION = "\u202e", "\u202c"

Place = Callable[[Dialogue, str, str, Sequence[str]], Dialogue]
"""Puts a text into a dialogue: the dialogue, the kind of text, the text that was drawn, and all of that kind."""


@dataclass(frozen=True, slots=True)
class Family:
    """Texts that try the same trick in the same place; ``texts`` by language or kind."""

    name: str
    place: str
    texts: dict[str, tuple[str, ...]]


@cache
def families() -> tuple[Family, ...]:
    """All families, the control last."""
    content = yaml.safe_load((resources.files("judge.attacks") / "texts.yaml").read_text(encoding="utf-8"))
    return tuple(
        Family(name, family["place"], {kind: tuple(texts) for kind, texts in family["texts"].items()})
        for name, family in content.items()
    )


def rewrites(dialogues: Sequence[Dialogue], seed: int = 0) -> list[Rewrite]:
    """Every dialogue with a text of each kind of each family written into it."""
    return [rewrite for dialogue in dialogues for rewrite in _rewrites(dialogue, seed)]


def _rewrites(dialogue: Dialogue, seed: int) -> Iterator[Rewrite]:
    for family in families():
        for kind, texts in family.texts.items():
            lot = int(digest([seed, dialogue.id, family.name, kind]), 16)
            text = texts[lot % len(texts)]
            yield Rewrite(family.name, kind, PLACES[family.place](dialogue, kind, text, texts), dialogue.id)


def _after(dialogue: Dialogue, kind: str, text: str, texts: Sequence[str]) -> Dialogue:
    """At the end of the last answer."""
    return _with_last_answer(dialogue, f"{dialogue.turns[-1].character}\n{text}")


def _instead(dialogue: Dialogue, kind: str, text: str, texts: Sequence[str]) -> Dialogue:
    """In place of every answer."""
    return replace(dialogue, turns=tuple(Turn(turn.user, text) for turn in dialogue.turns))


def _by_user(dialogue: Dialogue, kind: str, text: str, texts: Sequence[str]) -> Dialogue:
    """At the end of the user's last turn."""
    last = dialogue.turns[-1]
    return replace(dialogue, turns=(*dialogue.turns[:-1], Turn(f"{last.user}\n{text}", last.character)))


def _as_name(dialogue: Dialogue, kind: str, text: str, texts: Sequence[str]) -> Dialogue:
    """After the character's name."""
    return replace(dialogue, character=f"{dialogue.character}（{text}）")


def _in_profile(dialogue: Dialogue, kind: str, text: str, texts: Sequence[str]) -> Dialogue:
    """At the end of the character's profile, or as one where there is none."""
    return replace(dialogue, profile="\n".join(filter(None, (dialogue.profile, text))))


def _padded(dialogue: Dialogue, kind: str, text: str, texts: Sequence[str]) -> Dialogue:
    """After the last answer, sentence after sentence from the one that was drawn."""
    start = texts.index(text)
    turned = [*texts[start:], *texts[:start]]
    padding: list[str] = []
    while sum(map(len, padding)) < PADDING:
        padding += turned
    return _after(dialogue, kind, " ".join(padding) if kind == "en" else "".join(padding), texts)


def _hidden(dialogue: Dialogue, kind: str, text: str, texts: Sequence[str]) -> Dialogue:
    """By characters that are not seen: between all others, as tags, or turned round so that it reads as it should."""
    answer = dialogue.turns[-1].character
    if kind == "zero_width":
        return _with_last_answer(dialogue, text.join(answer) + text)
    if kind == "bidi":
        return _after(dialogue, kind, f"{RIGHT_TO_LEFT}{text[::-1]}{END_OF_DIRECTION}", texts)
    return _with_last_answer(dialogue, answer + "".join(chr(TAGS + ord(letter)) for letter in text))


def _with_last_answer(dialogue: Dialogue, answer: str) -> Dialogue:
    return replace(dialogue, turns=(*dialogue.turns[:-1], Turn(dialogue.turns[-1].user, answer)))


PLACES: dict[str, Place] = {
    "after": _after,
    "instead": _instead,
    "user": _by_user,
    "name": _as_name,
    "profile": _in_profile,
    "padding": _padded,
    "hidden": _hidden,
}
"""Where a text may go, by the name in ``texts.yaml``."""
