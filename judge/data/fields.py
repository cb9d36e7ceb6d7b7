"""The fields of a record: texts and names out of whatever values a file gives them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from unicodedata import category, normalize

Fields = Mapping[str, Any]


class Wrong(Exception):
    """What is wrong with a record or a file, and the remedy."""


class NoDialogues(Wrong):
    """A file is of a kind that may hold dialogues, and is plainly about something else."""


def folded(name: str) -> str:
    """A name as it is compared: full-width letters are plain ones, in small letters, without blanks around."""
    return normalize("NFKC", name).strip().casefold()


def text_of(value: Any, name: str) -> str:
    """The value of a field that is text; ``Wrong`` where it is none, or cannot be written as UTF-8."""
    if not isinstance(value, str):
        raise Wrong(f"field {name} is {type(value).__name__}, not text; write it as text")
    try:
        value.encode("utf-8")  # JSON can write half a surrogate pair, which no tokenizer takes
    except UnicodeEncodeError as error:
        where = f"holds half a character (a lone surrogate) at {error.start}"
        raise Wrong(f"field {name} {where}; fix the text") from error
    return value


def name_of(value: Any, name: str, label: str | None = None) -> str:
    """The value of a field that names something, in one line; a number is a name too.

    A scenario ``1.0`` is ``1``. ``label`` is what messages call the field, where that is not its ``name``.
    """
    label = label or name
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value) if math.isfinite(value) else None
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Wrong(f"field {label} is missing; add it")
    found = text_of(value, label).strip()
    if any(category(char) in ("Cc", "Zl", "Zp") for char in found):
        raise Wrong(f"field {label} holds a line break or a control character; a name is one line of text")
    # Spreadsheets and pandas write a column of numbers in which a cell is empty as 1.0, 2.0, …
    return found.partition(".")[0] if name == "scenario" and re.fullmatch(r"-?\d+\.0+", found) else found


def shortened(names: list[str], most: int = 20) -> str:
    """Names with commas; of very many only the first."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
