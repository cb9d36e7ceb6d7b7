"""What annotators gave, as it is in a file: checked against the key, and put under the names of the dialogues.

Nothing that fills in ratings checks them for us (Label Studio's server takes a rating of 9), so all is checked here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from judge.annotating.blinding import Key
from judge.errors import InputError, listed, plain
from judge.types import LEVELS

COLUMNS = ["source", "character", "scenario", "metric", "annotator", "score", "inclusion_probability"]
LONGEST = 60
"""Characters of a cell that a message repeats."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell as it is in a file: who rated which task on which metric how; ``score`` is None where it is empty."""

    place: str
    task: str
    metric: str
    annotator: str
    score: object


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong at a place of a file, and what to do."""

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Imported:
    """Ratings under the dialogues' names (a row a rating, columns as in ``COLUMNS``), and how many cells an annotator
    left empty."""

    ratings: pd.DataFrame
    empty: int


def import_entries(found: Iterable[Entry | Wrong], key: Key) -> Imported:
    """The ratings of some files, checked and unblinded, in the order of the dialogues' names.

    Raises:
        InputError: an entry is of no task or metric of the key, has no annotator or no level of the scale, or was given
            twice; all problems are named. Or there is no rating at all.
    """
    everything = list(found)
    problems = [one for one in everything if isinstance(one, Wrong)]
    entries = [one for one in everything if isinstance(one, Entry)]
    given = [entry for entry in entries if not is_empty(entry.score)]
    problems += [Wrong(entry.place, text) for entry in given for text in _wrong(entry, key)]
    problems += _repeated(given)
    if problems:
        lines = list(dict.fromkeys(plain(f"{one.place}: {one.text}") for one in problems))
        raise InputError(listed(lines))
    if not given:
        raise InputError("no rating in what was given; fill in some first")
    return Imported(_table(given, key), sum(is_empty(entry.score) for entry in entries if entry.annotator))


def level(score: object) -> int | None:
    """A cell as a level of the scale; None where it is none."""
    try:
        number = float(score) if isinstance(score, int | float | str) and not isinstance(score, bool) else math.nan
    except ValueError:
        return None
    return int(number) if number in LEVELS else None


def is_empty(score: object) -> bool:
    """Whether a cell holds nothing."""
    if isinstance(score, float):
        return math.isnan(score)
    return score is None or (isinstance(score, str) and not score.strip())


def _wrong(entry: Entry, key: Key) -> Iterator[str]:
    task, metric = _quoted(entry.task), _quoted(entry.metric)
    if entry.task not in key.tasks:
        yield f"task {task} is not of this plan; take it out, or give the key it was made with"
    if entry.metric not in key.metrics:
        yield f"metric {metric} is not of this plan (its are {', '.join(key.metrics)}); take it out"
    if not entry.annotator:
        yield f"task {task} is rated, but no annotator is named; write who rated it"
    if level(entry.score) is None:
        wanted = f"not one of {LEVELS[0]} to {LEVELS[-1]}; correct it or leave it empty"
        yield f"metric {metric} is {_quoted(entry.score)}, {wanted}"


def _quoted(value: object) -> str:
    """A cell as a message has it: not longer than anyone reads."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _repeated(given: Iterable[Entry]) -> Iterator[Wrong]:
    """Entries that say again what an earlier one says."""
    first: dict[tuple[str, str, str], str] = {}
    for entry in given:
        cell = entry.task, entry.metric, entry.annotator
        if cell in first:
            who = f"annotator {_quoted(entry.annotator)} rated task {_quoted(entry.task)}"
            yield Wrong(entry.place, f"{who} already at {first[cell]}; keep one of the two")
        first.setdefault(cell, entry.place)


def _table(given: Iterable[Entry], key: Key) -> pd.DataFrame:
    rows = []
    for entry in given:
        task = key.tasks[entry.task]
        names = task.source, task.character, task.scenario, entry.metric, entry.annotator
        rows.append((*names, level(entry.score), task.inclusion_probability))
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = {metric: number for number, metric in enumerate(key.metrics)}
    table = table.sort_values(COLUMNS[:5], key=lambda cells: cells.map(order) if cells.name == "metric" else cells)
    return table.reset_index(drop=True)
