"""Which column of a table is what: headings in other spellings, columns that the user maps, wide tables made long.

A long table has a score a row. A wide one has a column for each metric, or for each annotator, and several scores a
row. Both come out long, and each row keeps the record of the file that it came from.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.errors import TableError
from calibration.names import fold
from calibration.records import SHEET

IDS = ("item_id", "source", "character", "scenario", "metric", "annotator")


FIELDS = (*IDS, "score", "group", "block", "inclusion_probability")
"""What a column may be mapped to."""


_OTHER_WORDS = {
    "item_id": "item id sample sample_id example_id dialogue_id dialog_id conversation_id 编号 样本 对话",
    "source": "system model model_name bot chatbot engine 系统 模型 来源",
    "character": "role persona 角色 角色名",
    "scenario": "scene scenario_id dialog_id dialogue_id prompt_id 场景 情景 场景编号",
    "metric": "dimension criterion aspect attribute question quality 指标 维度 标准",
    "annotator": "rater worker worker_id evaluator coder user annotator_id rater_id 评分者 标注者 标注员 评分人 评委",
    "score": "rating value label grade mark answer 评分 得分 分数 打分",
}
"""What a column is called elsewhere. It is named in an error and not taken, as it may mean something else."""


_NO_SCORES = {
    "id", "index", "row", "no", "no.", "nr", "number", "n", "count", "duration", "time", "seconds", "length",
    "lead_time", "year", "age", "序号", "编号", "用时", "时长", "mean", "avg", "average", "median", "total", "sum",
    "sd", "std", "stdev", "std_dev", "min", "max", "均分", "平均", "平均分", "总分", "均值", "中位数", "标准差", "合计"
}  # fmt: skip
"""Headings of numbers that are no scores of a metric or by an annotator."""


@dataclass(frozen=True, slots=True)
class Long:
    """A table with a score a row."""

    table: pd.DataFrame
    """Rows numbered from 0; the columns of ``FIELDS`` that there are have those names."""
    records: NDArray[np.intp]
    """Shape (rows,): the record of the file, from 0, that each row came from."""
    headings: tuple[str, ...] = ()
    """Of a wide table: the columns whose scores each record gives, in turn; empty for a long one."""

    def place(self, row: int) -> tuple[int, str]:
        """The record of a row, from 0, and the column that its score stood in ("" in a long table)."""
        heading = self.headings[row % len(self.headings)] if self.headings else ""
        return int(self.records[row]), heading


def arranged(
    path: str | Path,
    raw: pd.DataFrame,
    *,
    who: Sequence[str],
    mapping: Mapping[str, str] | None,
    metrics: Mapping[str, str] | None,
    holds_scores: Callable[[pd.Series], bool],
    notes: list[str],
) -> Long:
    """The records of a file as a long table; that all columns are there is not checked.

    Args:
        path: the file, for errors.
        raw: its records, rows numbered from 0.
        who: further columns that say whose score it is (``annotator``; of a judge ``judge``, ``sample_index``).
        mapping: the column of each field (``FIELDS``); a text in single quotes stands for itself, and several columns
            with ``+`` between them are those of a wide table, mapped to ``metric`` or ``annotator``. A known metric
            may be mapped to its column of a wide table.
        metrics: names and titles of the metrics there are, with their ids; None where none are known.
        holds_scores: whether a column of a wide table holds scores.
        notes: is added what was read as what.

    Raises:
        TableError: a mapped column is not there, two columns are the same field, or a wide table can be read in more
            than one way.
    """
    known = (*FIELDS, *who)
    by_key = {fold(name): metric for name, metric in (metrics or {}).items()}
    raw, wide, of_metric, used = _mapped(path, raw, mapping or {}, by_key)
    raw = _named(path, raw, [name for name in known if name not in used])
    rest = [str(name) for name in raw if name not in known and name not in used and _is_named(str(name))]

    # A column called as an annotator's or a score's may be is not taken for that, nor for anything else: it is mapped.
    called_so = _other_words("annotator", "score")
    no_scores = _NO_SCORES | _other_words("item_id", "source", "character", "scenario")

    def guessed() -> list[str]:
        return [name for name in rest if _key(name) not in no_scores and holds_scores(raw[name])]

    says_who = "annotator" in raw or "annotator" not in who
    is_to_be_mapped = any(_key(name) in called_so for name in rest)
    of_metric = of_metric or {name: by_key.get(_title(name), name) for name in wide.get("metric", ())}
    if of_metric:
        field, columns = "metric", of_metric
    elif "annotator" in wide:
        field, columns = "annotator", {name: name for name in wide["annotator"]}
    elif "score" in raw or ("metric" in raw and (says_who or is_to_be_mapped)):
        return Long(raw, np.arange(len(raw)))
    elif "metric" in raw:
        field, columns = "annotator", {name: name for name in guessed()}
        if odd := [name for name in rest if _key(name) in _NO_SCORES and holds_scores(raw[name])]:
            text = f"columns {', '.join([*columns, *odd])} hold numbers; say which are annotators: --map annotator=A+B"
            raise TableError(path, [(0, text)])
    else:
        field, columns = "metric", {name: by_key[_title(name)] for name in rest if _title(name) in by_key}
        if metrics is None:
            columns = {name: name for name in guessed()}
            if columns and "annotator" in who and "annotator" not in raw:
                names = "+".join(columns)
                of_sheets = f"; where a sheet is an annotator's: --map metric={names},annotator={SHEET}"
                text = (
                    f"columns {', '.join(columns)} hold scores of metrics, or by annotators; say which: --map "
                    f"\"metric={names},annotator='NAME'\" or --map \"annotator={names},metric='NAME'\""
                    f"{of_sheets if SHEET in raw else ''}"
                )
                raise TableError(path, [(0, text)])
    if not columns:
        return Long(raw, np.arange(len(raw)))
    twice = defaultdict(list)
    for heading, name in columns.items():
        twice[name].append(heading)
    if same := [(name, headings) for name, headings in twice.items() if len(headings) > 1]:
        raise TableError(path, [(0, f"columns {' and '.join(both)} are both {field} {name!r}") for name, both in same])
    named = [heading if heading == name else f"{heading} ({name})" for heading, name in columns.items()]
    notes.append(f"Columns read as {field}s: {', '.join(named)}.")
    if others := [name for name in rest if name not in columns]:
        notes.append(f"Columns that are not read: {', '.join(others)}.")
    return _melted(raw, field, columns)


def absent(raw: pd.DataFrame, needed: Iterable[str], can_map: bool) -> list[tuple[int, str]]:
    """A problem for each column that is needed and not there, with what to do."""
    found = ", ".join(map(str, raw.columns))
    problems = []
    for field in needed:
        if field in raw:
            continue
        if like := called_alike(raw, field):
            remedy = f"there is {like[0]!r}: " + (f"--map {field}={like[0]}" if can_map else f"rename it {field}")
        else:
            remedy = "add or rename one"
            if can_map:
                remedy += f", or name it: --map {field}=COLUMN"
                if field == "annotator":
                    remedy += f", where a sheet is an annotator's: --map annotator={SHEET}" if SHEET in raw else ""
                    remedy += ", or of all --map \"annotator='NAME'\""
        problems.append((0, f"no column {field!r} (found: {found}); {remedy}"))
    return problems


def called_alike(raw: pd.DataFrame, field: str) -> list[str]:
    """The columns that are called as a field may be elsewhere."""
    words = _other_words(field)
    return [str(name) for name in raw if _key(str(name)) in words and name not in FIELDS]


def _other_words(*fields: str) -> set[str]:
    return {word for field in fields for word in _OTHER_WORDS.get(field, "").split()}


def _key(heading: str) -> str:
    """A heading as a field is written: ``Item ID`` is ``item_id``."""
    return re.sub(r"[\s\-]+", "_", fold(heading))


def _title(heading: str) -> str:
    """A heading as ``fold`` gives it; the id alone where it ends in one in brackets, ``流畅性 [fluency]``."""
    found = re.fullmatch(r".*\[([^\[\]]+)\]", fold(heading))
    return fold(found[1]) if found else fold(heading)


def _is_named(heading: str) -> bool:
    return bool(heading.strip()) and not re.fullmatch(r"\(column \d+\)|unnamed: \d+", fold(heading))


def _mapped(
    path: str | Path, raw: pd.DataFrame, mapping: Mapping[str, str], by_key: Mapping[str, str]
) -> tuple[pd.DataFrame, dict[str, list[str]], dict[str, str], set[str]]:
    """The table with the mapped columns under the names of their fields; ``by_key`` are known metrics by folded name.

    Returns:
        The table; the columns of each field that has several; the metric of each column that is mapped to one; and
        which columns were used, under both their names.
    """
    found = ", ".join(map(str, raw.columns))

    def column(field: str, name: str) -> str:
        same = [str(one) for one in raw if one == name] or [str(one) for one in raw if fold(one) == fold(name)]
        if len(same) != 1:
            wrong = f"no column {name!r}" if not same else f"{name!r} is any of columns {', '.join(same)}"
            raise TableError(path, [(0, f"--map {field}={name}: {wrong} (found: {found}); correct it")])
        return same[0]

    given: dict[str, pd.Series] = {}
    wide: dict[str, list[str]] = {}
    of_metric: dict[str, str] = {}
    used: set[str] = set()
    for field, name in mapping.items():
        if field not in FIELDS and fold(field) in by_key:  # of a wide table: the column of one metric
            heading = column(field, name)
            of_metric[heading] = by_key[fold(field)]
            used.add(heading)
            continue
        if field not in FIELDS:
            known = ", ".join([*FIELDS, *dict.fromkeys(by_key.values())])
            raise TableError(path, [(0, f"--map {field}={name}: no field {field!r}; choose from {known}")])
        quoted = re.fullmatch(r"'(.*)'", name)
        parts = [part.strip() for part in name.split("+")]
        if quoted:
            given[field] = pd.Series([quoted[1]] * len(raw), index=raw.index, dtype=object)
        elif field in ("metric", "annotator") and len(parts) > 1 and fold(name) not in map(fold, raw):
            wide[field] = [column(field, part) for part in parts]
            used |= {*wide[field], field}
            continue
        else:
            heading = column(field, name)
            given[field] = raw[heading]
            used.add(heading)
        used.add(field)
    if len(wide) + bool(of_metric) > 1:
        raise TableError(path, [(0, "--map: several columns for metric and for annotator; map one of the two so")])
    if (wide or of_metric) and "score" in given:
        field = next(iter(wide), "metric")
        raise TableError(path, [(0, f"--map: {field} has several columns with scores; leave score out")])
    # A mapped column has the field's name only, and what had that name before is gone.
    table = raw.drop(columns=[field for field in given if field in raw]).assign(**given)
    kept = {*given, *of_metric, *(name for names in wide.values() for name in names)}
    gone = [name for name in used if name in table and name not in kept]
    return table.drop(columns=gone), wide, of_metric, used


def _named(path: str | Path, raw: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """The table with headings in other case, or with blanks in them, under the names of their fields."""
    renamed: dict[str, str] = {}
    problems = []
    for field in fields:
        if field in raw:
            continue
        same = [str(name) for name in raw if _key(str(name)) == field]
        if len(same) > 1:
            problems.append((0, f"columns {' and '.join(map(repr, same))} are both {field!r}; rename one"))
        renamed |= dict.fromkeys(same, field)
    if problems:
        raise TableError(path, problems)
    return raw.rename(columns=renamed)


def _melted(raw: pd.DataFrame, field: str, columns: Mapping[str, str]) -> Long:
    """A row for each record and column, record by record."""
    records = np.repeat(np.arange(len(raw)), len(columns))
    table = raw.drop(columns=list(columns)).iloc[records].reset_index(drop=True)
    table[field] = list(columns.values()) * len(raw)
    table["score"] = pd.Series(raw[list(columns)].to_numpy(dtype=object).ravel(), dtype=object)
    return Long(table, records, tuple(columns))
