"""Reading and validating tables of human ratings and of a judge's scores, so that all else may trust what it is given.

A table is a CSV, Parquet or JSONL file, and comes back as a DataFrame with these columns:

human   item_id, source, metric, annotator, score, group[, inclusion_probability]      one rating a row
judge   item_id, source, metric, score, group[, judge][, sample_index][, p1..pK]       one judgment a row

Ids are strings, numbers are floats, and other columns are kept as they are. ``source`` is the system that produced the
item, and ``group`` is what is resampled together. In a file ``item_id`` may be replaced by ``character`` and
``scenario``: then it is ``source/character/scenario``, and the group is the scenario. Without a group an item is a
group of its own. An item has one source and one group. ``sample_index`` tells apart the answers of a judge that was
asked more than once. ``block`` is a version of the system or a period, across which maps have to hold.

All problems of a file are reported at once, in one ``TableError``. Records are counted from 1, without the header.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from calibration.errors import Problem, TableError
from calibration.records import read_records

Scale = tuple[float, float] | Mapping[str, tuple[float, float]] | None
"""Lowest and highest score, of every metric or of each; None where any finite number will do."""


_MISSING = {"", "nan", "na", "null", "none"}
"""What a cell without a number may say, in small letters."""


_TOLERANCE = 1e-3
"""How far the probabilities of a judgment may be from a sum of 1, as they may be rounded."""


AVERAGE_THEM = "or average them (--average-repeats; in Python repeats='keep')"


def read_ratings(
    path: str | Path, scale: Scale = (1, 5), *, repeats: Literal["error", "keep"] = "error"
) -> pd.DataFrame:
    """Read human ratings, one a row, with the columns above.

    Args:
        path: the file.
        scale: what scores must lie within.
        repeats: "keep" allows an annotator to have rated the same item on the same metric more than once.

    Raises:
        TableError: no such file, unreadable or empty; a column is missing; a cell of an id is empty; a score is
            missing, no number or off the scale; an annotator repeats a rating; an inclusion probability is not in
            (0, 1]; an item has two sources or two groups.
    """
    table, empty = _identified(path, read_records(Path(path)), ["annotator"])
    problems = [*_bad_ids(table, empty), *_bad_scores(table, scale)]
    missing = _missing(table["score"])
    problems += _problems(missing, lambda _: "the score is missing; give one, or leave the record out")
    if "inclusion_probability" in table:
        cells = table["inclusion_probability"]
        chance = _numbers(cells)
        problems += _problems(
            ~((chance > 0) & (chance <= 1)),
            lambda row: (
                f"inclusion_probability {_text(cells[row])!r} is not in (0, 1]; give the chance it was drawn with"
            ),
        )
    if repeats == "error":
        problems += _repeated(table[~empty.any(axis=1)], ["annotator"], AVERAGE_THEM)
    return _with_numbers(path, table, problems, ["score", "inclusion_probability"])


def read_scores(
    path: str | Path, scale: Scale = (1, 5), *, source: str | Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Read a judge's scores, one a row, with the columns above. A missing score is NaN: a missing judgment.

    Args:
        path: the file.
        scale: what scores must lie within.
        source: for a table without that column, the system that produced all items, or that of each item.

    Raises:
        TableError: no such file, unreadable or empty; a column is missing; a cell of an id is empty; a score is no
            number or off the scale; the same judgment is there twice; p1..pK are not probabilities that sum to 1
            (within 0.001; all of them may be missing where the score is); an item has two sources or two groups.
    """
    raw = read_records(Path(path))
    if isinstance(source, Mapping) and "source" not in raw:
        items = raw["item_id"] if "item_id" in raw else [""] * len(raw)
        raw["source"] = [source.get(_text(item), "unknown") for item in items]
    elif source is not None and "source" not in raw:
        raw["source"] = source
    who = [name for name in ("judge", "sample_index") if name in raw]
    table, empty = _identified(path, raw, who)
    problems = [*_bad_ids(table, empty), *_bad_scores(table, scale)]
    if names := level_columns(table):
        levels = pd.DataFrame({name: _numbers(table[name]) for name in names})
        total = levels.sum(axis=1)
        # A metric of fewer levels than another has none in the last columns.
        known = levels.notna()
        unbroken = (known.astype(int).diff(axis=1).iloc[:, 1:] <= 0).all(axis=1)
        good = ~(levels < 0).any(axis=1) & ((total - 1).abs() <= _TOLERANCE) & unbroken
        # A missing judgment has neither a score nor probabilities; one of the two without the other is wrong.
        none = pd.DataFrame({name: _missing(table[name]) for name in ("score", *names)}).all(axis=1)

        def text(row: int) -> str:
            values = ", ".join(_text(table[name][row]) or "nothing" for name in names)
            return f"p1..p{len(names)} are {values}; give probabilities that sum to 1"

        problems += _problems(~(good | none), text)
    problems += _repeated(table[~empty.any(axis=1)], who, "or tell them apart in a column 'judge' or 'sample_index'")
    return _with_numbers(path, table, problems, ["score", *names])


def level_columns(table: pd.DataFrame) -> list[str]:
    """The columns p1, p2, ... of a table, up to the first number that is missing: probabilities of the levels."""
    names: list[str] = []
    while f"p{len(names) + 1}" in table:
        names.append(f"p{len(names) + 1}")
    return names


# From what is in the file to the columns promised


def _identified(path: str | Path, raw: pd.DataFrame, more_ids: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table with its ids as text, ``item_id`` and ``group`` among them; and which id cells are empty.

    Raises:
        TableError: a column is missing.
    """
    item = ["character", "scenario"] if "item_id" not in raw and {"character", "scenario"} & set(raw) else ["item_id"]
    needed = ["source", *item, "metric", *more_ids, "score"]
    found = ", ".join(map(str, raw.columns))
    absent = [(0, f"no column {name!r} (found: {found}); add or rename one") for name in needed if name not in raw]
    if absent:
        raise TableError(path, absent)
    names = [*needed[:-1], *(["group"] if "group" in raw else [])]
    ids = raw.assign(**{name: _of_each(_text, raw[name]) for name in names})
    empty = pd.DataFrame({name: ids[name].str.strip() == "" for name in names})
    if item != ["item_id"]:
        ids["item_id"] = ids["source"] + "/" + ids["character"] + "/" + ids["scenario"]
    if "group" not in ids:
        ids["group"] = ids[item[-1]]
    first = ["item_id", "source", "metric", *more_ids, "score", "group"]
    return ids[[*first, *(name for name in ids if name not in first)]], empty


def _with_numbers(path: str | Path, table: pd.DataFrame, problems: list[Problem], known: list[str]) -> pd.DataFrame:
    """The table with the columns ``known`` as floats; TableError where there are problems."""
    if problems:
        raise TableError(path, problems)
    return table.assign(**{name: _numbers(table[name]) for name in known if name in table}).infer_objects()


def _text(value: object) -> str:
    """An id as text, the same from every kind of file: 7 and 7.0 are ``7``; nothing is ``""``."""
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        number = float(value)
        return "" if math.isnan(number) else str(int(number)) if number.is_integer() else str(value)
    return str(value)


def _of_each(of: Callable[[object], Any], cells: pd.Series) -> list[Any]:
    """A function of every cell, called once for texts that repeat, as they do in a column."""
    values = cells.tolist()
    if not all(type(value) is str for value in values):
        return [of(value) for value in values]
    known = {text: of(text) for text in set(values)}
    return [known[text] for text in values]


def _numbers(cells: pd.Series) -> pd.Series:
    """Cells as finite numbers; NaN for anything else."""
    if _is_float(cells):
        return cells.where(np.isfinite(cells))

    def number(value: object) -> float:
        try:
            found = float(_text(value))
        except ValueError:
            return math.nan
        return found if math.isfinite(found) else math.nan

    return pd.Series(_of_each(number, cells), index=cells.index, dtype=float)


def _is_float(cells: pd.Series) -> bool:
    return isinstance(cells.dtype, np.dtype) and cells.dtype.kind == "f"


# What can be wrong with a record


def _problems(wrong: pd.Series, text: Callable[[int], str]) -> list[Problem]:
    """A problem for each record that is wrong; ``text`` is given the record's row, from 0."""
    return [(row + 1, text(row)) for row in wrong.index[wrong]]


def _missing(cells: pd.Series) -> pd.Series:
    if _is_float(cells):
        return cells.isna()
    return pd.Series(_of_each(lambda cell: _text(cell).strip().lower() in _MISSING, cells), index=cells.index)


def _bad_ids(table: pd.DataFrame, empty: pd.DataFrame) -> Iterator[Problem]:
    """Empty cells of ids; items that have two sources or two groups."""
    for name in empty:
        yield from ((row + 1, f"{name!r} is empty; fill it in") for row in empty.index[empty[name]])
    whole = table[~empty.any(axis=1)]
    yield from _torn(whole, "source", "give the answer of each source an item_id of its own")
    yield from _torn(whole, "group", "put an item in one group")


def _bad_scores(table: pd.DataFrame, scale: Scale) -> Iterator[Problem]:
    """Scores that are no number or off the scale, or of a metric without one; a missing score is not wrong here."""
    if isinstance(scale, Mapping):  # nothing lies between the ends of an unknown scale, so its records are looked at
        of_metric = {metric: scale.get(metric, (math.inf, -math.inf)) for metric in set(table["metric"])}
    else:
        of_metric = dict.fromkeys(table["metric"], scale or (-math.inf, math.inf))
    scores = _numbers(table["score"])
    low, high = (table["metric"].map({metric: ends[i] for metric, ends in of_metric.items()}) for i in (0, 1))
    for row in table.index[~scores.between(low, high)]:
        metric, text = table["metric"][row], _text(table["score"][row])
        if isinstance(scale, Mapping) and metric not in scale:
            known = ", ".join(scale)
            yield row + 1, f"no scale is known for metric {metric!r} (known: {known}); give its scale, or correct it"
        elif text.strip().lower() not in _MISSING:
            lowest, highest = of_metric[metric]
            remedy = f"give a number from {lowest} to {highest}" if math.isfinite(highest) else "give one"
            reason = "is not a number" if math.isnan(scores[row]) else f"is off the scale of {metric!r}"
            yield row + 1, f"score {text!r} {reason}; {remedy}"


def _torn(table: pd.DataFrame, column: str, remedy: str) -> list[Problem]:
    """Records whose item had another ``column`` in an earlier record."""
    item, here, first = table["item_id"], table[column], table.groupby("item_id")[column].transform("first")
    return _problems(
        here != first,
        lambda row: f"item {item[row]!r} has {column} {here[row]!r} here and {first[row]!r} before; {remedy}",
    )


def _repeated(table: pd.DataFrame, who: list[str], remedy: str) -> list[Problem]:
    """Records that say again what an earlier one says: same item and metric, by the same annotator or judge."""
    key = ["item_id", "source", "metric", *who]
    first = table[key].assign(row=table.index).groupby(key)["row"].transform("min")

    def text(row: int) -> str:
        by = "".join(f", {name} {table[name][row]!r}" for name in who)
        cell = f"item {table['item_id'][row]!r}, metric {table['metric'][row]!r}{by}"
        return f"{cell}: already in record {first[row] + 1}; keep one of the two, {remedy}"

    return _problems(table.duplicated(key), text)
