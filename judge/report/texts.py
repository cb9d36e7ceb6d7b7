"""The interface's texts in both languages, from ``assets/zh.yaml`` and ``en.yaml``, and the names of the metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from judge.prompting.rubric import LANGUAGES, load_rubric
from judge.types import RESPONSE_DIVERSITY


def metric_key(metric: str) -> Key:
    """What a metric, a dimension or the overall mean is called."""
    return Key(f"metric.{metric}")


UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)
"""Characters that steer a page's text and are not seen themselves: controls, marks of direction, zero widths, tags."""


OF_A_WORK = re.compile("《[^》]*》的(.+)")
"""How ChatAnime names a character: 《work》的 character."""


DIGITS = 6
"""Decimals of numbers from which the page rounds: with few, what is rounded twice is not what is rounded once."""


SHORT = 18
"""Characters of a name on an axis."""


@dataclass(frozen=True, slots=True)
class Key:
    """A text of the interface; ``facts`` stand in its placeholders."""

    key: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour of the theme, by the name of its CSS variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its interval, each None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


Cell = str | int | float | bool | Interval | Key | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under heads; the first cell of a row names it."""

    heads: Sequence[Key | str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart and the table that says the same.

    ``plots`` are its variants (traces and layout, by what is chosen), ``choices`` how these are called. ``filters``
    says which filter of the dialogues a row of the chart stands for, and the value of each row.
    """

    name: str
    plots: Mapping[str, Mapping[str, Any]]
    table: Table
    choices: Mapping[str, Key | str] = field(default_factory=dict)
    filters: tuple[str, Sequence[str]] | None = None


def number(value: Any, digits: int = DIGITS) -> float | None:
    """A number as JSON has it, rounded; None where it is missing or not finite."""
    if value is None or pd.isna(value) or not math.isfinite(value):
        return None
    return round(float(value), digits)


def numbers(values: Any, digits: int = DIGITS) -> list[float | None]:
    """The same of many."""
    return [number(value, digits) for value in values]


def visible(text: str) -> str:
    """Text from data in which characters that are not seen, and would steer the rest, are written out: ``[U+202E]``."""
    return UNSEEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)


def label(text: str) -> str:
    """Text from data as plotly shows it letter by letter, which takes a part of HTML for markup and ``$`` for TeX."""
    flat = " ".join(visible(text).split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def short(text: str) -> str:
    """A name for an axis: a label, of a character of a named work the character alone, cut where it is long."""
    flat = " ".join(visible(text).split())
    if of_a_work := OF_A_WORK.fullmatch(flat):
        flat = of_a_work[1]
    return label(flat if len(flat) <= SHORT else f"{flat[: SHORT - 1]}…")


def load_texts() -> dict[str, dict[str, str]]:
    """By language and key."""
    return {language: {**_interface(language), **_metrics(language)} for language in LANGUAGES}


def asset(name: str) -> str:
    """A file of the page's, as text."""
    return (resources.files("judge.report") / "assets" / name).read_text(encoding="utf-8")


def _interface(language: str) -> dict[str, str]:
    return {str(key): str(text) for key, text in yaml.safe_load(asset(f"{language}.yaml")).items()}


def _metrics(language: str) -> dict[str, str]:
    """What metrics and dimensions are called, as in the rubric."""
    rubric = load_rubric(language)
    titles = {name: metric.title for name, metric in rubric.metrics.items()}
    titles |= {**rubric.texts.dimensions, RESPONSE_DIVERSITY: rubric.response_diversity.title}
    return {f"metric.{name}": title for name, title in titles.items()}


class Speaker:
    """Puts texts into the page in both languages, that of ``language`` being shown until another is chosen."""

    def __init__(self, texts: Mapping[str, Mapping[str, str]], language: str) -> None:
        self.texts, self.language = texts, language

    def say(self, key: str | Key, **facts: Any) -> Markup:
        """A text as an element of its own."""
        return Markup("<span{}>{}</span>").format(self.both(key, **facts), self.plain(key, **facts))

    def both(self, key: str | Key, **facts: Any) -> Markup:
        """Attributes by which the script puts an element's text into the language chosen."""
        return Markup("").join(
            Markup(' data-{}="{}"').format(language, self._fill(language, key, facts)) for language in self.texts
        )

    def named(self, key: str | Key, **facts: Any) -> Markup:
        """The attributes that name an element for who does not see it, in the language chosen."""
        names = (
            Markup(' data-label-{}="{}"').format(language, self._fill(language, key, facts)) for language in self.texts
        )
        return Markup(' aria-label="{}"{}').format(self.plain(key, **facts), Markup("").join(names))

    def plain(self, key: str | Key, **facts: Any) -> str:
        """A text in the language shown first."""
        return self._fill(self.language, key, facts)

    def _fill(self, language: str, key: str | Key, facts: Mapping[str, Any]) -> str:
        name, given = (key.key, {**key.facts, **facts}) if isinstance(key, Key) else (key, facts)
        filled = {fact: self._fact(language, value) for fact, value in given.items()}
        return self.texts[language][name].format(**filled)

    def _fact(self, language: str, value: Any) -> Any:
        return self._fill(language, value, {}) if isinstance(value, Key) else value
