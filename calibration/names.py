"""Names that people write in several ways: of annotators, systems, characters, metrics and columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

BETWEEN_HAN = re.compile(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")
"""A blank between two Chinese characters."""


def fold(name: object) -> str:
    """A name without what nobody means by it: case, full width, blanks around it or in a row, unseen marks.

    Nor the blank between two Chinese characters, by which lists make names of two as wide as those of three.
    """
    text = unicodedata.normalize("NFKC", str(name))
    seen = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return BETWEEN_HAN.sub("", " ".join(seen.split())).casefold()


def meant(name: str, known: Iterable[str]) -> str | None:
    """The known name that a typed one is: the same, or the only one that differs by what ``fold`` leaves out."""
    names = list(known)
    alike = [name] if name in names else [one for one in names if fold(one) == fold(name)]
    return alike[0] if len(alike) == 1 else None
