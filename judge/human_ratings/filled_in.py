"""The files that annotators filled in, of any kind, as entries: which reader a file is for is told by its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from calibration.names import fold
from calibration.records import read_parts
from judge.errors import InputError
from judge.human_ratings.agreement import metric_names, packaged_scheme
from judge.human_ratings.argilla import is_argilla, record_entries
from judge.human_ratings.blinding import WORDINGS, Aside, Found, Imported, Key, import_entries
from judge.human_ratings.label_studio import task_entries
from judge.human_ratings.spreadsheet import id_of, sheet_entries


def import_files(files: list[Path], key: Key, mapping: Mapping[str, str]) -> Imported:
    """The ratings of some files, checked and unblinded.

    Args:
        files: exports of Label Studio (JSON, JSON-MIN, CSV) and of Argilla, sheets, long tables.
        key: of their plan.
        mapping: which column of a sheet or table is what, as ``sheet_entries`` takes it.

    Raises:
        InputError: a file cannot be read, or holds what is wrong.
    """
    known = metric_names(key.metrics, packaged_scheme(key.metrics)) | {
        title: name for name, title in key.titles.items()
    }
    names = {fold(name): metric for name, metric in known.items() if metric in key.metrics}
    notes: list[str] = []
    entries = [one for path in files for one in _entries(path, key, names, mapping, notes)]
    found = import_entries(entries, key)
    return Imported(found.ratings, found.empty, (*notes, *found.notes))


def _entries(
    path: Path, key: Key, names: Mapping[str, str], mapping: Mapping[str, str], notes: list[str]
) -> Iterator[Found]:
    """What a file holds; ``notes`` is added how it was read."""
    parts, said = read_parts(path)
    notes += said
    if not parts:
        raise InputError(f"{path}: is empty; give a form that is filled in")
    # A workbook has a sheet with our guide beside those with ratings, and may have others of the user's own.
    guides = {f"sheet {wording.guide!r}" for wording in WORDINGS.values()}
    sheets = [part for part in parts if part.name not in guides] or parts
    if len(sheets) > 1:
        mapped = {fold(column) for column in mapping.values()}
        filled = [
            part
            for part in sheets
            if any("task" in fold(heading) or fold(heading) in mapped for heading in part.table)
            or any(id_of(str(heading), names) in key.metrics for heading in part.table)
        ]
        yield from (
            Aside(f"records of {part.name}, which has no column task and none of a metric")
            for part in sheets
            if filled and part not in filled
            for _ in part.numbers
        )
        sheets = filled or sheets
    for part in sheets:
        if {"data", "annotations"} & set(part.table):
            yield from task_entries(path, part.table, key, names)
        elif is_argilla(part.table.columns):
            yield from record_entries(path, part.table, key, names)
        else:
            yield from sheet_entries(f"{path}: {part.name}" if part.name else str(path), part, key, names, mapping)
