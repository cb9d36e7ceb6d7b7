"""A sheet to fill in, a row a dialogue: as a workbook with drop-downs and a guide, or as CSV; and reading it back.

What is read is not yet checked against the plan: that is the work of ``blinding.import_entries``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pandas as pd

from judge.errors import InputError, one_line
from judge.human_ratings.blinding import Entry, Key, Task, anchors, is_empty, speeches, wording_of, writable
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
    _fill(ratings, [list(sheet), *sheet.itertuples(index=False)], [WIDTHS.get(_id(name), 12) for name in sheet])
    ratings.freeze_panes = "D2"  # the headings, and the columns up to the annotator, stay in view
    for column, name in enumerate(sheet, 1):
        if _id(name) in metrics:
            _offer_levels(ratings, column, rubric, _id(name))
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


def read_workbook(path: Path) -> pd.DataFrame:
    """The first sheet of a workbook as text and numbers under its headings; formulas stand as they are written.

    Raises:
        InputError: the file is no workbook.
    """
    from openpyxl import load_workbook

    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of drop-downs in a form that the library does not know
            rows = list(load_workbook(file, read_only=True).worksheets[0].iter_rows(values_only=True))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or one_line(error)}); check the file") from error
    except Exception as error:  # a broken file fails in many ways inside the library
        raise InputError(f"{path}: not a workbook ({one_line(error)}); save it again as .xlsx") from error
    if not rows:
        raise InputError(f"{path}: its first sheet is empty; fill in the one that plan wrote")
    heads = [str(head or "") for head in rows[0]]
    return pd.DataFrame(rows[1:], columns=heads, dtype=object)


def entries_of(path: Path, table: pd.DataFrame, key: Key) -> Iterator[Entry]:
    """What a sheet or a long table (``task, metric, annotator, score``) holds: an entry per row and metric.

    Args:
        path: where it was read.
        table: its records, as they are there.
        key: of the plan.

    Raises:
        InputError: columns are missing, there twice or of metrics that are not of the plan.
    """
    headings = [str(heading) for heading in table]
    ids = [_id(heading) for heading in headings]
    long = {"metric", "score"} <= set(ids)
    missing = [name for name in ("task", "annotator") if name not in ids]
    if missing or not (long or set(ids) & set(key.metrics)):
        raise InputError(
            f"{path}: no column {', '.join(missing) or 'of a metric'}; give a sheet as plan wrote it, or a table with "
            "task, metric, annotator, score"
        )
    if twice := [name for name in ids if name and ids.count(name) > 1]:
        raise InputError(f"{path}: column {twice[0]!r} is there twice; remove one")
    known = {*ABOUT, *key.metrics}
    if strange := [name for name, heading in zip(ids, headings, strict=True) if name != heading and name not in known]:
        raise InputError(f"{path}: column {strange[0]!r} is of no metric of this plan; take it out, or check the key")
    table = table.rename(columns=_id)
    for number, row in enumerate(table.to_dict(orient="records"), 1):
        cells = {"score": str(row["metric"])} if long else {metric: metric for metric in key.metrics if metric in row}
        if not all(map(is_empty, row.values())):
            for column, metric in cells.items():
                names = _word(row["task"]), metric.strip(), _word(row["annotator"])
                yield Entry(f"{path}: record {number}", *names, row[column])


def _id(heading: Any) -> str:
    """The id at the end of a heading, or the heading itself."""
    found = re.search(r"\[(\w+)\]\s*$", str(heading))
    return found[1] if found else str(heading).strip()


def _word(cell: Any) -> str:
    """A cell with a name; "" where it is empty."""
    return "" if is_empty(cell) else str(cell).strip()
