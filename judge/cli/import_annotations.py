"""The command ``import-annotations``: filled-in forms become a table of human ratings, and the annotators' agreement.

What a form holds is checked in ``judge.human_ratings``; how far annotators agree is worked out by ``calibration``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import Json

if TYPE_CHECKING:
    import pandas as pd

    from judge.human_ratings.blinding import Entry, Imported, Key, Wrong


HEADS = ("metric", "ratings", "dialogues", "annotators", "alpha", "95%", "ceiling")
"""The heads of the printed table; those of its counts stand beside the names of their columns in ``_show``."""


LEGEND = """alpha: Krippendorff's, ordinal, with its interval over scenarios
ceiling: rank correlation (Spearman) of an annotator left out with the mean of the others"""


def import_annotations(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Label Studio's JSON export, or sheets (.xlsx .csv).")
    ],
    key: Annotated[Path, typer.Option(help="The key that plan --format wrote.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write the ratings to.")],
    as_json: Json = False,
) -> int:
    """Read what annotators filled in, check it, put the systems back, and say how far they agree so far.

    A sheet has a row a dialogue and a column a metric; a table with task, metric, annotator, score will do too. What
    was left empty is missing in the ratings.
    """
    from calibration.records import read_records
    from judge.cli.common import as_one_json, refuse_unwritable
    from judge.files import save_csv
    from judge.human_ratings.blinding import import_entries, read_key
    from judge.human_ratings.label_studio import read_export
    from judge.human_ratings.spreadsheet import entries_of, read_workbook

    refuse_unwritable(out)
    plan = read_key(key)
    entries: list[Entry | Wrong] = []
    for path in files:
        if path.suffix.lower() == ".json":
            entries += read_export(path, plan)
        else:
            table = read_workbook(path) if path.suffix.lower() == ".xlsx" else read_records(path)
            entries += entries_of(path, table, plan)
    imported = import_entries(entries, plan)
    save_csv(out, imported.ratings)
    counts = _counts(imported, plan)
    agreement, warnings = agreement_so_far(out)
    if as_json:
        print(as_one_json({"file": str(out), **counts, "remarks": warnings}, agreement=agreement))
    else:
        _show(out, counts, agreement, warnings)
    return 0


def agreement_so_far(ratings: Path) -> tuple[pd.DataFrame, list[str]]:
    """How far the annotators of a table of ratings agree, a row a metric (NaN where it cannot be said); and warnings.

    ``calibration`` pairs ratings with a judge's scores. Here no judge is there yet, so one rating of each item stands
    in its place; what is reported is of the annotators alone and does not depend on it.
    """
    import pandas as pd

    from calibration import pair
    from calibration.agreement.reliability import reliability
    from judge.human_ratings.agreement import OWN_SCALE, read_annotations

    table = read_annotations(ratings)
    in_a_judges_place = table.drop_duplicates(["item_id", "metric"]).drop(columns="annotator")
    found = [reliability(one) for one in pair(table, in_a_judges_place, scale=OWN_SCALE).metrics.values()]
    # Columns keep the names that programs read (people, person_spearman).
    rows = []
    for one in found:
        alpha, ceiling = one.alpha_ordinal, one.ceiling["spearman"]
        numbers = {"alpha_ordinal": alpha.value, "low": alpha.low, "high": alpha.high, "person_spearman": ceiling.value}
        counts = {"ratings": int((table["metric"] == one.metric).sum()), "dialogues": one.items, "people": one.raters}
        rows.append({"metric": one.metric, **counts, **numbers})
    return pd.DataFrame(rows), list(dict.fromkeys(warning for one in found for warning in one.remarks))


def _counts(imported: Imported, key: Key) -> dict[str, Any]:
    """How much was rated, and how much of the plan that is."""
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


def _show(out: Path, counts: dict[str, Any], agreement: pd.DataFrame, warnings: list[str]) -> None:
    """Print what was read, what is still to be rated, and the agreement so far."""
    import pandas as pd
    from rich.text import Text

    from judge.cli.console import cell, console, line, plain_table

    screen = console()
    rows = [
        (
            str(row["metric"]),
            *(f"{row[name]:,}" for name in ("ratings", "dialogues", "people")),
            cell(row["alpha_ordinal"]),
            "–" if pd.isna(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}",
            cell(row["person_spearman"]),
        )
        for row in agreement.to_dict(orient="records")
    ]
    screen.print(plain_table("agreement so far", HEADS, rows))
    screen.print(Text(LEGEND))
    for warning in warnings:
        screen.print(line(f"- {warning}"))
    who = f"{len(counts['annotators'])} annotators ({', '.join(counts['annotators'])})"
    screen.print(line(f"{counts['ratings']:,} ratings by {who} in {out}; {counts['empty']:,} cells are empty"))
    screen.print(
        line(
            f"{counts['rated']:,} of {counts['tasks']:,} dialogues are rated, {counts['rated_by_all']:,} of them by as "
            "many annotators as planned"
        )
    )
