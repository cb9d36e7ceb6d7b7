"""The page's words in both languages, and the plain values that its charts and tables are made of.

Texts of the interface are in ``assets/zh.yaml`` and ``assets/en.yaml`` under one key, names of metrics come from the
rubrics. Sentences that other parts finished in English are put into Chinese by ``assets/sentences.yaml``. Knows nothing
of runs, ratings or statistics.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from judge.prompting.rubric import languages, load_rubric, packaged
from judge.types import Scheme

LANGUAGES = ("zh", "en")
"""The languages of the page."""


UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)
"""Characters that steer a page's text and are not seen themselves: controls, marks of direction, zero widths, tags."""


OF_A_WORK = re.compile("《[^》]*》的(.+)")
"""How ChatAnime names a character: 《work》的 character."""


WIDE = str.maketrans("{}<>", "｛｝＜＞")
"""What a title of a metric may not hold: braces are placeholders in a text, and plotly takes tags for markup."""


DIGITS = 6
"""Decimals of the numbers that the page rounds for show. Few decimals here would mean rounding twice, and with it
another last digit now and then."""


SHORT = 18
"""Characters of a name on an axis."""


@dataclass(frozen=True, slots=True)
class Key:
    """A text of the interface; ``facts`` stand in its placeholders."""

    key: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text that another part finished in English: a verdict, a warning, a reason. ``in_chinese`` translates it."""

    english: str


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour of the theme, by the name of its CSS variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its confidence interval, each None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


Cell = str | int | float | bool | Interval | Key | Sentence | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under heads; the first cell of a row names it."""

    heads: Sequence[Key | str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart and the table that says the same.

    ``plots`` are its variants (traces and layout for plotly, by what is chosen), ``choices`` how these are called.
    ``filters`` says which filter of the dialogues a row of the chart stands for, and the value of each row.
    """

    name: str
    plots: Mapping[str, Mapping[str, Any]]
    table: Table
    choices: Mapping[str, Key | str] = field(default_factory=dict)
    filters: tuple[str, Sequence[str]] | None = None


def metric_key(metric: str) -> Key:
    """What a metric, a dimension or the overall mean is called."""
    return Key(f"metric.{metric}")


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
    """Text from data for plotly, which then shows it letter by letter.

    Plotly takes a part of HTML for markup and ``$`` for TeX, so that these are written as entities.
    """
    flat = " ".join(visible(text).split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def short(text: str) -> str:
    """A name for an axis: a label, of a character of a named work the character alone, cut where it is long."""
    flat = " ".join(visible(text).split())
    if of_a_work := OF_A_WORK.fullmatch(flat):
        flat = of_a_work[1]
    return label(flat if len(flat) <= SHORT else f"{flat[: SHORT - 1]}…")


def asset(name: str) -> str:
    """A file of ``assets`` as text."""
    return (resources.files("judge.report") / "assets" / name).read_text(encoding="utf-8")


def load_texts(scheme: Scheme, own: str) -> dict[str, dict[str, str]]:
    """The interface's texts by language and key; metrics and dimensions are called there as in the rubric.

    Args:
        scheme: of a run.
        own: the language of its rubric. In another language titles are those of the packaged rubric of that name,
            where it rates the same.
    """
    texts = {}
    for language in LANGUAGES:
        titles = scheme.titles
        if language != own and scheme.rubric in packaged() and language in languages(scheme.rubric):
            other = load_rubric(language, scheme.rubric).scheme.titles
            titles = other if set(other) == set(titles) else titles
        titles = {name: visible(title).translate(WIDE) for name, title in titles.items()}
        interface = {str(key): str(text) for key, text in yaml.safe_load(asset(f"{language}.yaml")).items()}
        named = {f"metric.{name}": title for name, title in titles.items()}
        if scheme.set_metric:
            named[f"diversity.{scheme.set_metric}"] = interface["diversity.judged"].format(
                title=titles[scheme.set_metric]
            )
        texts[language] = {**interface, **named}
    return texts


# Sentences that come in English

PLACEHOLDER = re.compile(r"\{(\w+)\}")
"""A place in a pattern of ``sentences.yaml``."""


OUTSIDE_BRACKETS = r"(?![^(]*\))"
"""After a mark: no bracket that was opened before it is closed behind it."""


JOINTS = ((f"; {OUTSIDE_BRACKETS}", "；", 0), (f": {OUTSIDE_BRACKETS}", "：", 1), (f", {OUTSIDE_BRACKETS}", "、", 0))
"""Where a text that fits no pattern is split, the widest joint first.

Each has the mark as a regular expression, the mark in Chinese, and at how many places the text is split at most (0 for
all). A text is split at its first colon only, since what stands before it says what the rest is about."""


MOST_COLONS = 5
"""A text with more colons is not taken apart at one: each costs a level of recursion, and no sentence has as many."""


@cache
def sentence_patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """The English patterns of ``sentences.yaml`` with their Chinese; the one that says most in words of its own first.

    Several patterns can match one sentence, as a place of theirs takes any text: the longer one is about this sentence,
    the shorter one about many.
    """
    pairs = [(str(pair["en"]), str(pair["zh"])) for pair in yaml.safe_load(asset("sentences.yaml"))]
    pairs.sort(key=lambda pair: -len(PLACEHOLDER.sub("", pair[0])))
    found = []
    for english, chinese in pairs:
        # Of the parts that ``split`` gives, every second one is the name of a place.
        parts = [
            re.escape(part) if place % 2 == 0 else rf"(?P<{part}>{'[0-9.,]+' if len(part) == 1 else '.+?'})"
            for place, part in enumerate(PLACEHOLDER.split(english))
        ]
        found.append((re.compile("".join(parts), re.DOTALL), chinese))
    return tuple(found)


def in_chinese(text: str, titles: Mapping[str, str]) -> str:
    """An English sentence in Chinese, by ``sentences.yaml``; a text that is not there stays as it is.

    Args:
        text: the sentence.
        titles: what metrics are called, by their id.
    """
    for pattern, chinese in sentence_patterns():
        if match := pattern.fullmatch(text):
            facts = {
                name: _titled(fact, titles) if name in ("metric", "metrics") else in_chinese(fact, titles)
                for name, fact in match.groupdict().items()
            }
            return chinese.format(**facts)
    for mark, between, most in JOINTS:
        if most and text.count(": ") > MOST_COLONS:
            continue
        parts = re.split(mark, text, maxsplit=most)
        said = [in_chinese(part, titles) for part in parts] if len(parts) > 1 else parts
        if said != parts:
            return between.join([_titled(parts[0], titles), *said[1:]] if most else said)
    return text


def _titled(names: str, titles: Mapping[str, str]) -> str:
    """A list of metrics by their titles; what is no metric stays as it is."""
    known = names.split(", ")
    return "、".join(titles.get(name, name) for name in known) if titles.keys() & set(known) else names


class Speaker:
    """Puts texts into the page in both languages, that of ``language`` being shown until another is chosen."""

    def __init__(self, texts: Mapping[str, Mapping[str, str]], language: str) -> None:
        self.texts, self.language = texts, language
        prefix = "metric."
        self._titles = {key.removeprefix(prefix): text for key, text in texts["zh"].items() if key.startswith(prefix)}

    def say(self, key: str | Key | Sentence, **facts: Any) -> Markup:
        """A text as an element of its own."""
        return Markup("<span{}>{}</span>").format(self.both(key, **facts), self.plain(key, **facts))

    def both(self, key: str | Key | Sentence, **facts: Any) -> Markup:
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

    def plain(self, key: str | Key | Sentence, **facts: Any) -> str:
        """A text in the language shown first."""
        return self._fill(self.language, key, facts)

    def _fill(self, language: str, key: str | Key | Sentence, facts: Mapping[str, Any]) -> str:
        if isinstance(key, Sentence):
            return visible(in_chinese(key.english, self._titles) if language == "zh" else key.english)
        name, given = (key.key, {**key.facts, **facts}) if isinstance(key, Key) else (key, facts)
        filled = {
            fact: self._fill(language, value, {}) if isinstance(value, Key | Sentence) else value
            for fact, value in given.items()
        }
        return self.texts[language][name].format(**filled)
