"""What the page is made of: numbers, texts of the interface by key, tables and figures, as plain data.

A figure is what plotly draws, but for two kinds of values that the page's script fills in: ``Key``, a text of the
interface in the language shown, and ``Colour``, a colour of the theme shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

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
