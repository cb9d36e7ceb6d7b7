"""A sheet to fill in, a row a dialogue: as a workbook with drop-downs and a guide, or as CSV; and reading it back.

What is read is not yet checked against the plan: that is the work of ``blinding.import_entries``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import pandas as pd

from calibration.names import fold
from calibration.records import SHEET, Part
from judge.errors import InputError
from judge.human_ratings.blinding import (
    LONGEST,
    Aside,
    Entry,
    Found,
    Key,
    Task,
    Wrong,
    anchors,
    is_empty,
    speeches,
    wording_of,
    writable,
)
from judge.human_ratings.label_studio import chosen
from judge.prompting.rubric import Rubric

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet


ABOUT = ("task", "raters", "annotator", "character", "profile", "dialogue")
"""The columns before those of the metrics."""


WIDTHS = {"task": 16, "raters": 9, "annotator": 14, "character": 18, "profile": 30, "dialogue": 90}
"""Their widths in a workbook, in characters."""


LONGEST_CELL = 32_767
"""Characters that a cell of a workbook holds."""


LONGEST_PROMPT = 255
"""Characters that a workbook shows of the text beside a cell."""


MOST_HEADINGS = 15
"""Headings that a message repeats."""


BOM = b"\xef\xbb\xbf"
"""A byte order mark: without it spreadsheets read Chinese text in another encoding."""


def sheet_of(tasks: Sequence[Task], rubric: Rubric, metrics: Sequence[str]) -> pd.DataFrame:
    """The sheet as a table, a row a task; the columns of ratings are empty. Headings end in the id: ``任务 [task]``."""
    headings = {**wording_of(rubric).headings, **{metric: rubric.metrics[metric].title for metric in metrics}}
    rows = []
    for task in tasks:
        one = task.dialogue
        said = "\n\n".join(f"{who}：\n{text}" for who, text in speeches(one, rubric))
        texts = {"character": one.character, "profile": one.profile or "", "dialogue": said}
        about = {"task": task.code, "raters": task.raters, "annotator": ""}
        rows.append({**about, **{k: writable(t) for k, t in texts.items()}, **dict.fromkeys(metrics, "")})
    table = pd.DataFrame(rows, columns=[*ABOUT, *metrics])
    return table.set_axis([writable(f"{headings[name]} [{name}]") for name in (*ABOUT, *metrics)], axis=1)


def write_workbook(sheet: pd.DataFrame, rubric: Rubric, metrics: Sequence[str], file: BinaryIO) -> None:
    """Write a sheet as a workbook: with drop-downs of the levels, and a second sheet with the guide.

    Raises:
        InputError: a text is longer than a cell holds.
    """
    from openpyxl import Workbook

    wording, book = wording_of(rubric), Workbook()
    ratings = book.active
    assert ratings is not None
    ratings.title = wording.ratings
    _fill(
        ratings, [list(sheet), *sheet.itertuples(index=False)], [WIDTHS.get(id_of(str(name), {}), 12) for name in sheet]
    )
    ratings.freeze_panes = "D2"  # the headings, and the columns up to the annotator, stay in view
    for column, name in enumerate(sheet, 1):
        if id_of(str(name), {}) in metrics:
            _offer_levels(ratings, column, rubric, id_of(str(name), {}))
    levels = {metric: rubric.scheme.levels[metric] for metric in metrics}
    guide = [[wording.how.format(cell=wording.cell(levels.values()))], [rubric.texts.rules], []]
    for metric in metrics:
        about = rubric.metrics[metric]
        guide.append([f"{about.title} [{metric}]", about.definition, *anchors(rubric, metric).values()])
    guide = [[writable(text) for text in row] for row in guide]
    _fill(book.create_sheet(wording.guide), guide, [24, 60, *[36] * max(map(len, levels.values()))])
    book.save(file)


def _fill(sheet: Worksheet, rows: Sequence[Sequence[Any]], widths: Sequence[float]) -> None:
    """Write cells as they are; InputError where a text is longer than a cell holds.

    A text stays a text, whatever it begins with: its type says so, and so does the mark (``quotePrefix``) by which a
    spreadsheet leaves it one after somebody edited it.
    """
    from openpyxl.styles import Alignment
    from openpyxl.utils import get_column_letter

    for number, row in enumerate(rows, 1):
        for column, value in enumerate(row, 1):
            if isinstance(value, str) and len(value) > LONGEST_CELL:
                raise InputError(
                    f"a text of {len(value):,} characters ({value[:20]!r}…) is longer than a cell of a workbook holds "
                    f"({LONGEST_CELL:,}); give --format label-studio or csv"
                )
            cell = sheet.cell(number, column, None if value == "" else value)
            if isinstance(value, str):
                cell.data_type = "s"
                cell.quotePrefix = True
            cell.alignment = Alignment(wrap_text=True, vertical="top")
    for column, width in enumerate(widths, 1):
        sheet.column_dimensions[get_column_letter(column)].width = width


def _offer_levels(sheet: Worksheet, column: int, rubric: Rubric, metric: str) -> None:
    """A drop-down of the levels under a heading; what the metric is shows at the cell that is being filled in."""
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    about, letter, wording = rubric.metrics[metric], get_column_letter(column), wording_of(rubric)
    prompt = writable(about.definition)
    offer = DataValidation(
        type="list",
        formula1=f'"{",".join(map(str, sorted(about.levels)))}"',
        allow_blank=True,
        promptTitle=writable(about.title)[:32],
        prompt=prompt if len(prompt) <= LONGEST_PROMPT else f"{prompt[: LONGEST_PROMPT - 1]}…",
        error=wording.refusal.format(cell=wording.cell([rubric.scheme.levels[metric]])),
        showErrorMessage=True,
        showInputMessage=True,
    )
    # An empty sheet has a heading only, and a range must have a row.
    offer.add(f"{letter}2:{letter}{max(sheet.max_row, 2)}")
    sheet.add_data_validation(offer)


EXPORTED = {"id", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "history"}
"""The columns that Label Studio adds to what it exports as CSV or JSON-MIN."""


def sheet_entries(
    place: str, part: Part, key: Key, names: Mapping[str, str], mapping: Mapping[str, str]
) -> Iterator[Found]:
    """What a sheet or a long table (``task, metric, annotator, score``) holds: an entry per row and metric.

    A sheet may also be what Label Studio exports as CSV or JSON-MIN. Cells of other columns are counted, and those of a
    metric without a column are empty ones.

    Args:
        place: the file, and the sheet where there are several.
        part: its records.
        key: of the plan.
        names: ids of metrics by their folded names and titles.
        mapping: columns by what they are: ``task``, ``annotator``, ``metric``, ``score`` or a metric; a text in single
            quotes stands for itself, and ``sheet`` for the name of each sheet, where there are several.

    Raises:
        InputError: columns are missing, there twice or of metrics that are not of the plan.
    """
    table = part.table.assign(**{SHEET: part.sheet}) if part.sheet and SHEET not in part.table else part.table
    table = _mapped(place, table, mapping).drop(columns=[] if SHEET in part.table else [SHEET], errors="ignore")
    headings = [str(heading) for heading in table]
    ids = [id_of(heading, names) for heading in headings]
    long = {"metric", "score"} <= set(ids)
    missing = [name for name in ("task", "annotator") if name not in ids]
    if missing or not (long or set(ids) & set(key.metrics)):
        found = ", ".join(heading[:LONGEST] for heading in headings[:MOST_HEADINGS])
        raise InputError(
            f"{place}: no column {', '.join(missing) or 'of a metric'} (of {found}); give a sheet as plan wrote it, "
            "a table with task, metric, annotator, score, or name the columns: --map task=COLUMN,annotator=COLUMN "
            "(annotator=sheet for the names of the sheets, annotator='NAME' for all rows)"
        )
    if twice := [name for name in ids if name and ids.count(name) > 1]:
        raise InputError(f"{place}: column {twice[0]!r} is there twice; remove one")
    known = {*ABOUT, *key.metrics}
    if strange := [name for name, heading in zip(ids, headings, strict=True) if _is_other(name, heading, known)]:
        raise InputError(f"{place}: column {strange[0]!r} is of no metric of this plan; take it out, or check the key")
    table = table.set_axis(ids, axis=1)
    others = [name for name in ids if name not in {*known, *EXPORTED, "metric", "score"}]
    absent = [] if long else [metric for metric in key.metrics if metric not in ids]
    for number, row in zip(part.numbers, table.to_dict(orient="records"), strict=True):
        cells = {"score": str(row["metric"])} if long else {metric: metric for metric in key.metrics if metric in row}
        where = f"{place}: record {number}"
        for column, metric in cells.items():
            who = _word(row["task"]), names.get(fold(metric), metric.strip()), _word(row["annotator"])
            try:
                yield Entry(where, *who, chosen(row[column]))
            except TypeError:
                yield Wrong(where, f"metric {metric!r} holds neither a rating nor a choice; export it again")
        for metric in absent if _word(row["annotator"]) else []:
            yield Entry(where, _word(row["task"]), metric, _word(row["annotator"]), None)
            heading = f"if its heading is another one, give --map {metric}=HEADING"
            yield Aside(f"cells of metric {metric!r}, which has no column in {place}; {heading}")
        yield from (Aside(f"cells of column {name!r}") for name in others if not is_empty(row[name]))


def _mapped(place: str, table: pd.DataFrame, mapping: Mapping[str, str]) -> pd.DataFrame:
    """The table with the mapped columns under the names of what they are."""
    for name, column in mapping.items():
        if quoted := re.fullmatch(r"'(.*)'", column):
            table = table.assign(**{name: quoted[1]})
            continue
        same = [heading for heading in table if fold(heading) == fold(column)]
        if not same and SHEET in table and any(fold(heading) == name for heading in table):
            continue  # of another sheet, whose column is called otherwise
        if len(same) != 1:
            found = ", ".join(map(str, table))
            raise InputError(f"{place}: --map {name}={column}: no such column (found: {found}); correct it")
        table = table.drop(columns=[name] if name in table and name != same[0] else []).rename(columns={same[0]: name})
    return table


def _is_other(name: str, heading: str, known: set[str]) -> bool:
    """Whether a heading ends in an id in brackets that is not known."""
    return name not in known and bool(_BRACKETS.search(heading))


_BRACKETS = re.compile(r"\[(\w+)\]\s*$")
"""The id at the end of a heading."""


def id_of(heading: str, names: Mapping[str, str]) -> str:
    """What a heading is of: the id at its end, a metric by name or title, or the heading itself."""
    found = _BRACKETS.search(heading)
    name = found[1] if found else heading.strip()
    return names.get(fold(name)) or (fold(name) if fold(name) in {*ABOUT, "metric", "score"} else name)


def _word(cell: Any) -> str:
    """A cell with a name; "" where it is empty."""
    if is_empty(cell):
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
