"""Reading and validating tables of human ratings and of a judge's scores, so that all else may trust what it is given.

A table is a file of any kind that ``records`` reads, and comes back as a DataFrame with these columns:

human   item_id, source, metric, annotator, score, group[, inclusion_probability]      one rating a row
judge   item_id, source, metric, score, group[, judge][, sample_index][, p1..pK]       one judgment a row

Ids are strings without blanks around them, numbers are floats, and other columns are kept as they are. ``source`` is
the system that produced the item, and ``group`` is what is resampled together. In a file ``item_id`` may be replaced by
``character`` and ``scenario``: then it is ``source/character/scenario``, and the group is the scenario. Without a group
an item is a group of its own. An item has one source and one group. ``sample_index`` tells apart the answers of a judge
that was asked more than once. ``block`` is a version of the system or a period, across which maps have to hold.

Headings may be in other case, and a file may be wide (``columns``). A name in several spellings is one name. A rating
that is missing, and a row that is there twice, is left out. All of this is said in ``notes``, so that nothing is done
in silence.

All problems of a file are reported at once, in one ``TableError``. Records are counted from 1, without the header.
"""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from calibration.columns import Long, absent, arranged, called_alike
from calibration.errors import Problem, TableError
from calibration.names import fold
from calibration.records import Records, read_records

Scale = tuple[float, float] | Mapping[str, tuple[float, float]] | None
"""Lowest and highest score, of every metric or of each; None where any finite number will do."""


_MISSING = {
    "",
    "nan",
    "na",
    "n/a",
    "n.a.",
    "#n/a",
    "<na>",
    "nat",
    "null",
    "none",
    "-",
    "–",
    "—",
    "/",
    "无",
    "空",
    "未评",
}
"""What a cell without a number may say, in small letters."""


_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"


_SCORE = re.compile(rf"({_NUMBER})\s*(?:/\s*({_NUMBER}))?\s*(?:分|points?|pts?\.?|颗?星|stars?)?", re.IGNORECASE)
"""A score as people write it: ``4``, ``4分``, ``4/5``; full width is made half width before."""


_OFTEN = 0.5
"""Share of the cells of a column that must be scores, for it to count as one of scores in a wide table."""


_TOLERANCE = 1e-3
"""How far the probabilities of a judgment may be from a sum of 1, as they may be rounded."""


_MANY_OFF, _SHARE_OFF = 10, 0.1
"""So many scores off the scale, and this share of all, are on another scale and not mistakes."""


AVERAGE_THEM = "or average them (--average-repeats; in Python repeats='keep')"


def read_ratings(
    path: str | Path,
    scale: Scale = None,
    *,
    repeats: Literal["error", "keep"] = "error",
    mapping: Mapping[str, str] | None = None,
    metrics: Mapping[str, str] | None = None,
    source: str | Mapping[str, str] | None = None,
    notes: list[str] | None = None,
) -> pd.DataFrame:
    """Read human ratings, one a row, with the columns above.

    Args:
        path: the file.
        scale: what scores must lie within.
        repeats: "keep" allows an annotator to have rated the same item on the same metric more than once.
        mapping: which column is what, as ``columns.arranged`` takes it: ``{"annotator": "rater"}``.
        metrics: names and titles of the metrics there are, with their ids; None where none are known.
        source: for a table without that column, the system that produced all items, or that of each item.
        notes: is added what a reader should know of how the table was read, a sentence each.

    Raises:
        TableError: no such file, unreadable or empty; a column is missing, or a table can be read in more than one
            way; a cell of an id is empty; all scores are missing; a score is no number or off the scale; an annotator
            repeats a rating; an inclusion probability is not in (0, 1]; an item has two sources or two groups.
    """
    said = [] if notes is None else notes
    read = _read(path, scale, ["annotator"], mapping, metrics, source, said)
    read = _of_known_metrics(read, scale, metrics, said)
    read = _without_missing(read, said)
    who = one_spelling(read.table["annotator"].tolist(), "Annotator", {}, said)
    read = read.with_table(read.table.assign(annotator=who))
    if repeats == "error":
        read = _without_copies(read, said)
    table = read.table
    problems = [*_bad_ids(read), *_bad_scores(read, scale)]
    if "inclusion_probability" in table:
        cells = table["inclusion_probability"]
        chance = _numbers(cells)
        problems += _problems(
            read,
            ~((chance > 0) & (chance <= 1)),
            lambda row: (
                f"inclusion_probability {_text(cells[row])!r} is not in (0, 1]; give the chance it was drawn with"
            ),
        )
    if repeats == "error":
        problems += _repeated(read, ["annotator"], AVERAGE_THEM)
    return _with_numbers(read, problems, ["inclusion_probability"])


def read_scores(
    path: str | Path,
    scale: Scale = None,
    *,
    metrics: Mapping[str, str] | None = None,
    source: str | Mapping[str, str] | None = None,
    notes: list[str] | None = None,
) -> pd.DataFrame:
    """Read a judge's scores, one a row, with the columns above. A missing score is NaN: a missing judgment.

    Args:
        path: the file.
        scale: what scores must lie within.
        metrics: names and titles of the metrics there are, with their ids; None where none are known.
        source: for a table without that column, the system that produced all items, or that of each item.
        notes: is added what a reader should know of how the table was read, a sentence each.

    Raises:
        TableError: no such file, unreadable or empty; a column is missing; a cell of an id is empty; a score is no
            number or off the scale; the same judgment is there twice; p1..pK are not probabilities that sum to 1
            (within 0.001; all of them may be missing where the score is); an item has two sources or two groups.
    """
    said = [] if notes is None else notes
    read = _read(path, scale, ["judge", "sample_index"], None, metrics, source, said)
    table, who = read.table, [name for name in ("judge", "sample_index") if name in read.table]
    problems = [*_bad_ids(read), *_bad_scores(read, scale)]
    if names := level_columns(table):
        levels = pd.DataFrame({name: _numbers(table[name]) for name in names})
        total = levels.sum(axis=1)
        # A metric of fewer levels than another has none in the last columns, and then in no record.
        known = levels.notna()
        of_metric = known.groupby(table["metric"]).transform("any")
        whole = (
            (known == of_metric).all(axis=1)
            & (known.sum(axis=1) > 1)
            & ~(known.astype(int).diff(axis=1) > 0).any(axis=1)
        )
        good = ~(levels < 0).any(axis=1) & ((total - 1).abs() <= _TOLERANCE) & whole
        # A missing judgment has neither a score nor probabilities; one of the two without the other is wrong.
        none = pd.DataFrame({name: _missing(table[name]) for name in ("score", *names)}).all(axis=1)

        def text(row: int) -> str:
            values = ", ".join(_text(table[name][row]) or "nothing" for name in names)
            return f"p1..p{len(names)} are {values}; give probabilities that sum to 1"

        problems += _problems(read, ~(good | none), text)
    problems += _repeated(read, who, "or tell them apart in a column 'judge' or 'sample_index'")
    return _with_numbers(read, problems, names)


def level_columns(table: pd.DataFrame) -> list[str]:
    """The columns p1, p2, ... of a table, up to the first number that is missing: probabilities of the levels."""
    names: list[str] = []
    while f"p{len(names) + 1}" in table:
        names.append(f"p{len(names) + 1}")
    return names


# From what is in the file to the columns promised


@dataclass(frozen=True, slots=True)
class _Read:
    """A table on its way from the file to what is promised."""

    path: str | Path
    table: pd.DataFrame
    """With its ids as texts; the index is the row of ``long``, also after rows were left out."""
    ids: tuple[str, ...]
    """The columns that must not be empty."""
    long: Long
    records: Records

    def with_table(self, table: pd.DataFrame) -> _Read:
        """The same with other rows, or other cells."""
        return replace(self, table=table)

    @property
    def whole(self) -> pd.DataFrame:
        """The rows whose ids are all there."""
        return self.table[~pd.concat([self.table[name] == "" for name in self.ids], axis=1).any(axis=1)]

    def problem(self, row: int, text: str, of_score: bool = False) -> Problem:
        """What is wrong with a row; with the name of the column where it is about a score of a wide table."""
        record, heading = self.long.place(row)
        return self.records.place(record, f"column {heading!r}: {text}" if heading and of_score else text)


def _read(
    path: str | Path,
    scale: Scale,
    who: list[str],
    mapping: Mapping[str, str] | None,
    metrics: Mapping[str, str] | None,
    source: str | Mapping[str, str] | None,
    notes: list[str],
) -> _Read:
    """A file as a long table with its ids as text, ``item_id`` and ``group`` among them.

    Raises:
        TableError: the file cannot be read, or a column is missing.
    """
    records = read_records(Path(path))
    notes += records.notes
    ends = list(scale.values()) if isinstance(scale, Mapping) else [scale or (-math.inf, math.inf)]
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    long = arranged(
        path,
        records.table,
        who=who,
        mapping=mapping,
        metrics=metrics,
        holds_scores=lambda cells: _holds_scores(cells, lowest, highest),
        notes=notes,
    )
    raw = long.table
    item = _item(raw)
    if source is not None and "source" not in raw and "item_id" in raw:
        of_item = source if isinstance(source, Mapping) else {}
        other = "unknown" if isinstance(source, Mapping) else source
        raw = raw.assign(source=[of_item.get(_text(cell).strip(), other) for cell in raw["item_id"]])
    elif isinstance(source, str) and "source" not in raw:
        raw = raw.assign(source=source)
    elif isinstance(source, Mapping) and "source" not in raw and len(set(source.values())) == 1:
        raw = raw.assign(source=next(iter(source.values())))  # all items that were judged are of one system
    is_human = "annotator" in who
    needed = ["source", *item, "metric", *(["annotator"] if is_human else []), "score"]
    if problems := absent(raw, needed, can_map=is_human):
        raise TableError(path, problems)
    names = [*needed[:-1], *(name for name in ("judge", "sample_index", "group") if name in raw and name not in needed)]
    names = [name for name in names if name not in ("judge", "sample_index") or not is_human]
    # Annotators and metrics keep the blanks around them until it is said which spellings are one name.
    spelled = {"annotator", "metric"}
    table = raw.assign(
        **{name: _of_each(_text if name in spelled else lambda cell: _text(cell).strip(), raw[name]) for name in names}
    )
    ids = tuple(names)
    if item != ["item_id"]:
        table["item_id"] = table["source"] + "/" + table["character"] + "/" + table["scenario"]
    if "group" not in table:
        table["group"] = table[item[-1]]
    known = {fold(name): metric for name, metric in (metrics or {}).items()}
    table["metric"] = one_spelling(table["metric"].tolist(), "Metric", known, notes)
    more_ids = [name for name in who if name in ids]
    first = ["item_id", "source", "metric", *more_ids, "score", "group"]
    return _Read(path, table[[*first, *(name for name in table if name not in first)]], ids, long, records)


def _item(raw: pd.DataFrame) -> list[str]:
    """The columns that say which item it is: ``item_id``, or ``character`` and ``scenario``; missing ones as well.

    Where there is none of them, columns that are called alike decide, which are then named as the remedy.
    """
    parts = ["character", "scenario"]
    if "item_id" in raw:
        return ["item_id"]
    alike = [bool(called_alike(raw, name)) for name in parts]
    if set(parts) & set(raw) or all(alike) or (any(alike) and not called_alike(raw, "item_id")):
        return parts
    return ["item_id"]


def _holds_scores(cells: pd.Series, lowest: float, highest: float) -> bool:
    """Whether most cells of a column that are not empty are scores on the scale."""
    given = cells[~_missing(cells)]
    if given.empty:
        return False
    return float(_scores(given)[0].between(lowest, highest).mean()) > _OFTEN


def _of_known_metrics(read: _Read, scale: Scale, metrics: Mapping[str, str] | None, notes: list[str]) -> _Read:
    """Without the ratings on metrics that nobody was judged on, and whose scale is not known; they are counted.

    TableError where no others are left.
    """
    if metrics is None or not isinstance(scale, Mapping):
        return read
    is_known = read.table["metric"].isin([*metrics.values(), *scale])
    others = read.table.loc[~is_known & (read.table["metric"] != ""), "metric"].value_counts(sort=False)
    if not len(others):
        return read
    listed = ", ".join(f"{name} ({count:,})" for name, count in others.items())
    if not is_known.any():
        known = ", ".join(dict.fromkeys(metrics.values()))
        raise TableError(read.path, [(0, f"no metric that was judged ({known}), but {listed}; name them by their id")])
    notes.append(f"Ratings on metrics that were not judged and are left out: {listed}.")
    return read.with_table(read.table[is_known | (read.table["metric"] == "")])


def _without_missing(read: _Read, notes: list[str]) -> _Read:
    """Without the ratings that are missing, which are counted; TableError where all are."""
    missing = _missing(read.table["score"])
    if missing.all():
        raise TableError(read.path, [(0, "every score is missing; fill in some")])
    if count := int(missing.sum()):
        notes.append(f"Ratings that are missing (empty, NA) and left out: {count:,} of {len(missing):,}.")
    return read.with_table(read.table[~missing])


def _without_copies(read: _Read, notes: list[str]) -> _Read:
    """Without the rows that repeat another one in every column, which are counted."""
    key = ["item_id", "source", "metric", "annotator"]
    again = read.whole[read.whole.duplicated(key, keep=False)]
    # As texts, as a cell of JSON or Parquet may be a list; the score as a number, so that 4 and 4.0 are alike.
    alike = again.drop(columns="score").map(_text).assign(score=_scores(again["score"])[0])
    if copies := list(alike.index[alike.duplicated()]):
        notes.append(f"Ratings that are exact copies of another row and left out: {len(copies):,}.")
    return read.with_table(read.table.drop(index=copies))


def _with_numbers(read: _Read, problems: list[Problem], known: list[str]) -> pd.DataFrame:
    """The table with the score and the columns ``known`` as floats; TableError where there are problems."""
    if problems:
        raise TableError(read.path, problems)
    table = read.table.reset_index(drop=True)
    numbers = {name: _numbers(table[name]) for name in known if name in table}
    return table.assign(score=_scores(table["score"])[0], **numbers).infer_objects()


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


def score_of(cell: object) -> tuple[float, float]:
    """A score as people write it (``４分``, ``4/5``, ``★★★★☆``), and what it is said to be out of; NaN for none."""
    text = unicodedata.normalize("NFKC", _text(cell)).replace("−", "-").strip()
    if text and not text.strip("★☆"):
        return float(text.count("★")), float(len(text)) if "☆" in text else math.nan
    found = _SCORE.fullmatch(text)
    number = float(found[1]) if found else math.nan
    if found is None or not math.isfinite(number):
        return math.nan, math.nan
    return number, float(found[2]) if found[2] else math.nan


def is_missing(cell: object) -> bool:
    """Whether a cell that is to hold a score says that there is none: empty, ``NA``, ``无`` and the like."""
    return unicodedata.normalize("NFKC", _text(cell)).strip().lower() in _MISSING


def one_spelling(cells: Sequence[str], what: str, known: Mapping[str, str], notes: list[str]) -> list[str]:
    """Names that differ in case, width or blanks only as one name, which is said.

    Args:
        cells: the names.
        what: they are names of, for the notes.
        known: names to take, by what ``fold`` makes of their spellings; others become the most frequent spelling.
        notes: is added which spelling was read as which name.
    """
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for spelling, count in Counter(cells).items():
        spellings[fold(spelling)][spelling] += count
    names: dict[str, str] = {}
    for key, counts in spellings.items():
        name = known.get(key) or counts.most_common(1)[0][0].strip()
        for spelling, count in counts.items():
            names[spelling] = name
            # A blank that all of them have tells nothing apart.
            if spelling != name and (len(counts) > 1 or spelling.strip() != name):
                notes.append(f"{what} {spelling!r} was read as {name!r} (ratings: {count:,}).")
    return [names[cell] for cell in cells]


def _scores(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Scores as finite numbers, NaN for what is none; and what each is said to be out of (``4/5``), else NaN."""
    if _is_float(cells):
        return _numbers(cells), pd.Series(math.nan, index=cells.index)

    pairs = _of_each(score_of, cells)
    given, out_of = ([pair[side] for pair in pairs] for side in (0, 1))
    return pd.Series(given, index=cells.index, dtype=float), pd.Series(out_of, index=cells.index, dtype=float)


def _is_float(cells: pd.Series) -> bool:
    return isinstance(cells.dtype, np.dtype) and cells.dtype.kind == "f"


# What can be wrong with a record


def _problems(read: _Read, wrong: pd.Series, text: Callable[[int], str]) -> list[Problem]:
    """A problem for each row that is wrong; ``text`` is given the row."""
    return [read.problem(row, text(row)) for row in wrong.index[wrong]]


def _missing(cells: pd.Series) -> pd.Series:
    if _is_float(cells):
        return cells.isna()
    return pd.Series(_of_each(is_missing, cells), index=cells.index, dtype=bool)


def _bad_ids(read: _Read) -> Iterator[Problem]:
    """Empty cells of ids; items that have two sources or two groups."""
    for name in read.ids:
        empty = read.table[name] == ""
        yield from (read.problem(row, f"{name!r} is empty; fill it in") for row in empty.index[empty])
    yield from _torn(read, "source", "give the answer of each source an item_id of its own")
    yield from _torn(read, "group", "put an item in one group")


def _bad_scores(read: _Read, scale: Scale) -> Iterator[Problem]:
    """Scores that are no number or off the scale, or of a metric without one; a missing score is not wrong here."""
    table = read.table
    if isinstance(scale, Mapping):  # nothing lies between the ends of an unknown scale, so its records are looked at
        of_metric = {metric: scale.get(metric, (math.inf, -math.inf)) for metric in set(table["metric"])}
    else:
        of_metric = dict.fromkeys(table["metric"], scale or (-math.inf, math.inf))
    scores, out_of = _scores(table["score"])
    low, high = (table["metric"].map({metric: ends[i] for metric, ends in of_metric.items()}) for i in (0, 1))
    fits = scores.between(low, high) & (out_of.isna() | (out_of == high))
    missing = _missing(table["score"])
    off = ~scores.between(low, high) & scores.notna() & np.isfinite(high)
    if off.sum() >= _MANY_OFF and off.mean() > _SHARE_OFF:
        span = f"{scores.min():g} to {scores.max():g}"
        text = f"{off.sum():,} of {len(off):,} scores are off the scale: they go from {span}"
        ends = f"{min(1.0, scores.min()):g}-{scores.max():g}"
        yield 0, f"{text}; if they are on another scale, name it: --scale LOWEST-HIGHEST, such as {ends}"
        fits |= off
    for row in table.index[~fits]:
        metric, cell = table["metric"][row], table["score"][row]
        if isinstance(scale, Mapping) and metric not in scale:
            known = ", ".join(scale)
            text = f"no scale is known for metric {metric!r} (known: {known}); give its scale, or correct it"
            yield read.problem(row, text)
        elif not missing[row]:
            yield read.problem(row, _wrong_score(cell, scores[row], out_of[row], metric, of_metric[metric]), True)


def _wrong_score(cell: object, score: float, out_of: float, metric: str, ends: tuple[float, float]) -> str:
    """What is wrong with a score, and what to do."""
    text, (low, high) = _text(cell), ends
    is_known = math.isfinite(high)
    remedy = f"give a number from {low} to {high}" if is_known else "give one"
    if math.isnan(score):
        if comma := re.fullmatch(r"\s*(\d+)[,，](\d+)\s*", text):
            remedy = f"write it with a point: {comma[1]}.{comma[2]}"
        elif isinstance(cell, date) or re.fullmatch(r"\d{4}-\d\d-\d\d.*|\d+月\d+日", text):
            return f"score {text!r} is a date: a spreadsheet took a score such as 4/5 for one; {remedy}"
        return f"score {text!r} is not a number; {remedy}"
    if math.isnan(out_of) or (is_known and not low <= score <= high and out_of == high):
        return f"score {text!r} is off the scale of {metric!r}; {remedy}"
    if is_known:
        return f"score {text!r} is out of {out_of:g}, but the scale of {metric!r} ends at {high:g}; {remedy}"
    return f"score {text!r} is out of {out_of:g}, but no scale is named; name it (--scale), as 1-{out_of:g}"


def _torn(read: _Read, column: str, remedy: str) -> list[Problem]:
    """Records whose item had another ``column`` in an earlier record."""
    table = read.whole
    item, here, first = table["item_id"], table[column], table.groupby("item_id")[column].transform("first")
    return _problems(
        read,
        here != first,
        lambda row: f"item {item[row]!r} has {column} {here[row]!r} here and {first[row]!r} before; {remedy}",
    )


def _repeated(read: _Read, who: Sequence[str], remedy: str) -> list[Problem]:
    """Records that say again what an earlier one says: same item and metric, by the same annotator or judge."""
    table = read.whole
    key = ["item_id", "source", "metric", *who]
    first = table[key].assign(row=table.index).groupby(key)["row"].transform("min")

    def text(row: int) -> str:
        by = "".join(f", {name} {table[name][row]!r}" for name in who)
        cell = f"item {table['item_id'][row]!r}, metric {table['metric'][row]!r}{by}"
        before, number = read.records.places[read.long.place(first[row])[0]]
        return f"{cell}: already in {before}record {number}; keep one of the two, {remedy}"

    return _problems(read, table.duplicated(key), text)
