"""The command ``import-annotations``: what annotators filled in becomes a table of ratings, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer

from judge.cli.common import Json, as_one_json, refuse_unwritable
from judge.files import save_csv

if TYPE_CHECKING:
    from judge.human_ratings.blinding import Entry, Imported, Key, Wrong


HEADS = ("metric", "ratings", "dialogues", "people", "alpha", "95%", "person")


LEGEND = """alpha: Krippendorff's, ordinal, with its interval over scenarios
person: rank correlation (Spearman) of a person left out with the mean of the others"""


def import_annotations(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Label Studio's JSON export, or sheets (.xlsx .csv).")
    ],
    key: Annotated[Path, typer.Option(help="The key that plan --format wrote.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write the ratings to.")],
    as_json: Json = False,
) -> int:
    """Read what annotators filled in, check it, put the sources back, and say how far they agree so far.

    A sheet has a row a dialogue and a column a metric; a table with task, metric, annotator, score will do too. What
    was left empty is missing in the ratings.
    """
    from judge.human_ratings.blinding import import_entries, read_key

    refuse_unwritable(out)
    plan = read_key(key)
    imported = import_entries((one for path in files for one in _entries(path, plan)), plan)
    save_csv(out, imported.ratings)
    agreement, remarks = agreement_so_far(out)
    if as_json:
        facts = {"file": str(out), **_counts(imported, plan), "remarks": remarks}
        print(as_one_json(facts, agreement=agreement))
    else:
        _show(out, imported, plan, agreement, remarks)
    return 0


def _entries(path: Path, key: Key) -> Iterator[Entry | Wrong]:
    from calibration.records import read_records
    from judge.human_ratings import label_studio, spreadsheet

    if path.suffix.lower() == ".json":
        return label_studio.read_export(path, key)
    if path.suffix.lower() == ".xlsx":
        return spreadsheet.entries_of(path, spreadsheet.read_workbook(path), key)
    return spreadsheet.entries_of(path, read_records(path), key)


def agreement_so_far(ratings: Path) -> tuple[pd.DataFrame, list[str]]:
    """A row a metric: how far the people of a table of ratings agree, NaN where it cannot be said; and remarks."""
    from calibration import pair
    from calibration.agreement.reliability import reliability
    from judge.human_ratings.agreement import OWN_SCALE, read_annotations

    table = read_annotations(ratings)
    in_a_judges_place = table.drop_duplicates(["item_id", "metric"]).drop(columns="annotator")
    found = [reliability(one) for one in pair(table, in_a_judges_place, scale=OWN_SCALE).metrics.values()]
    rows = []
    for one in found:
        alpha, person = one.alpha_ordinal, one.ceiling["spearman"]
        numbers = {"alpha_ordinal": alpha.value, "low": alpha.low, "high": alpha.high, "person_spearman": person.value}
        counts = {"ratings": int((table["metric"] == one.metric).sum()), "dialogues": one.items, "people": one.raters}
        rows.append({"metric": one.metric, **counts, **numbers})
    return pd.DataFrame(rows), list(dict.fromkeys(remark for one in found for remark in one.remarks))


def _counts(imported: Imported, key: Key) -> dict[str, Any]:
    """How much was rated, of what was to be."""
    by_task = imported.ratings.groupby(["source", "character", "scenario"])["annotator"].nunique()
    due = {(task.source, task.character, task.scenario): task.raters for task in key.tasks.values()}
    return {
        "ratings": len(imported.ratings),
        "empty": imported.empty,
        "annotators": sorted(set(imported.ratings["annotator"])),
        "tasks": len(due),
        "rated": len(by_task),
        "rated_by_all": sum(int(by_task.get(task, 0)) >= raters for task, raters in due.items()),
    }


def _show(out: Path, imported: Imported, key: Key, agreement: pd.DataFrame, remarks: list[str]) -> None:
    """Print what was read, what is still to be rated, and the agreement so far."""
    from rich.text import Text

    from judge.cli.console import console, line, plain_table

    screen, counts = console(), _counts(imported, key)
    rows = [
        (
            str(row["metric"]),
            *(f"{row[name]:,}" for name in ("ratings", "dialogues", "people")),
            _number(row["alpha_ordinal"]),
            "–" if pd.isna(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}",
            _number(row["person_spearman"]),
        )
        for row in agreement.to_dict(orient="records")
    ]
    screen.print(plain_table("agreement so far", HEADS, rows))
    screen.print(Text(LEGEND))
    for remark in remarks:
        screen.print(line(f"- {remark}"))
    people = f"{len(counts['annotators'])} people ({', '.join(counts['annotators'])})"
    screen.print(line(f"{counts['ratings']:,} ratings by {people} in {out}; {counts['empty']:,} cells are empty"))
    screen.print(
        line(
            f"{counts['rated']:,} of {counts['tasks']:,} dialogues are rated, {counts['rated_by_all']:,} of them by as "
            "many people as planned"
        )
    )


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"
