"""The texts of the probes, read from ``texts/``: our own lines, and names and terms of works, by language."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import yaml
from pydantic import TypeAdapter

from judge.types import Dialogue

KINDS = ("people", "abilities", "places", "things")
"""The kinds of a work's terms."""
CJK = ("\u3400", "\u9fff")
"""First and last of the common Chinese characters."""


@dataclass(frozen=True, slots=True)
class Work:
    """Names and terms of a work; ``titles`` are found in the names of its characters."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    titles: tuple[str, ...]
    people: tuple[str, ...]
    abilities: tuple[str, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]

    def terms(self) -> Iterator[tuple[str, str]]:
        """Every term with its kind."""
        for kind in KINDS:
            yield from ((term, kind) for term in getattr(self, kind))


@dataclass(frozen=True, slots=True)
class Wording:
    """What the degradations say and look for, in one language; ``texts/zh.yaml`` says what each list is."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    foreign: tuple[str, ...]
    markup: tuple[str, ...]
    contradiction: tuple[str, ...]
    conduct: tuple[str, ...]
    cold: tuple[str, ...]
    advice: tuple[str, ...]
    borrowed: tuple[str, ...]
    story: tuple[str, ...]
    advising: tuple[str, ...]
    catchphrases: tuple[str, ...]
    interjections: tuple[str, ...]
    particles: tuple[str, ...]
    asking: str
    works: tuple[Work, ...]

    def own_work(self, character: str) -> Work | None:
        """The work that a character is of, by its name; None where none of ours is known."""
        return next((work for work in self.works if any(title in character for title in work.titles)), None)


def wording_for(dialogue: Dialogue) -> Wording:
    """The wording in the language of a dialogue's answers."""
    return load_wording(language_of("".join(turn.character for turn in dialogue.turns)))


def language_of(text: str) -> str:
    """``zh`` where Chinese characters are at least a fifth of Latin letters in number, otherwise ``en``."""
    chinese = sum(CJK[0] <= letter <= CJK[1] for letter in text)
    latin = sum(letter.isascii() and letter.isalpha() for letter in text)
    return "zh" if 5 * chinese >= latin else "en"


@cache
def load_wording(language: str) -> Wording:
    """The packaged texts of ``zh`` or ``en``."""
    return TypeAdapter(Wording).validate_python({**_read(f"{language}.yaml"), "works": _read("works.yaml")[language]})


def _read(name: str) -> Any:
    return yaml.safe_load((resources.files("judge.probes") / "texts" / name).read_text(encoding="utf-8"))
