"""The commands ``plan`` and ``import-annotations``: what annotators should rate next, and what they have filled in.

What to expect of a plan and how far annotators agree is worked out by ``calibration``, what a form holds is checked in
``judge.human_ratings``; here it is only printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from judge.cli.common import MAP_HELP, Json, MapRatings, OfJudge, Repeats, Scale, Scores
from judge.types import scales_of

if TYPE_CHECKING:
    import pandas as pd

    from calibration import Plan
    from judge.human_ratings.forms import Forms


HEADS = ("metric", "ratings", "dialogues", "annotators", "alpha", "95%", "ceiling")
"""The heads of the printed table; those of its counts stand beside the names of their columns in ``show_ratings``."""


LEGEND = """alpha: Krippendorff's, ordinal, with its interval over scenarios
ceiling: rank correlation (Spearman) of an annotator left out with the mean of the others"""


def plan(
    scores: Scores,
    budget: Annotated[int, typer.Option(help="How many dialogues to have rated.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write the plan to.")],
    annotations: Annotated[Path | None, typer.Option(help="Human ratings so far.")] = None,
    overlap: Annotated[int, typer.Option(help="How many dialogues the same annotators all rate.")] = 30,
    raters: Annotated[int, typer.Option(help="How many annotators rate each dialogue of the overlap.")] = 3,
    judge: OfJudge = None,
    scale: Scale = None,
    columns: MapRatings = None,
    average_repeats: Repeats = False,
    seed: Annotated[int, typer.Option(help="Random seed of the sample.")] = 0,
    form: Annotated[
        Literal["label-studio", "csv", "xlsx"] | None,
        typer.Option("--format", help="Also write what annotators fill in, with systems blinded, beside --out."),
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Where the dialogues' texts are, if not where the run read them.")
    ] = None,
    mapping: Annotated[str, typer.Option("--map-data", help=f"Of --data: {MAP_HELP}")] = "",
    language: Annotated[str | None, typer.Option(help="Language of the form; the run's by default.")] = None,
    rubric: Annotated[
        str | None, typer.Option("--rubric", "--prompts", help="The rubric that is rated by; the run's by default.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Choose which dialogues annotators should rate next: a random sample with known chances, where ratings tell most.

    With --format also a Label Studio project or a sheet for the annotators, and the key that import-annotations needs.
    """
    from judge.cli.common import as_one_json, refuse_unwritable
    from judge.files import save_csv
    from judge.human_ratings import agreement, forms

    refuse_unwritable(out)
    # Before anything is drawn: a new key over an old one would make ratings that are under way useless.
    if form:
        forms.refuse_old_key(out)
    found = agreement.make_plan(
        scores,
        budget,
        annotations,
        scale,
        judge,
        average_repeats,
        columns,
        overlap=overlap,
        raters_per_overlap=raters,
        seed=seed,
    )
    written = forms.write(form, found, scores, out, data or [], language, rubric, mapping) if form else None
    save_csv(out, found.table)
    together = out.with_suffix(".together.csv") if annotations else None
    if together:
        save_csv(together, found.together)
    if as_json:
        facts = {"file": str(out), "together": str(together) if together else None, "remarks": list(found.remarks)}
        if written:
            facts |= {"forms": [str(path) for path in written.files], "key": str(written.key)}
        print(as_one_json(facts, plan=found.table, expected=found.expected))
    else:
        show_plan(found, out, together, written)
    return 0


def show_plan(found: Plan, out: Path, together: Path | None, forms: Forms | None) -> None:
    """Print what the plan promises by system, its warnings, and which file is for whom."""
    from judge.cli.console import console, line, plain_table

    def widths(values: pd.Series[float]) -> str:
        """Half-widths of the metrics' intervals, smallest to largest, in points of the scale."""
        known = values.dropna()
        if known.empty:
            return "–"
        return f"{known.min():.2f}" if known.min() == known.max() else f"{known.min():.2f}–{known.max():.2f}"

    screen = console()
    counts = found.table.groupby("source").size()
    rows = [
        (str(source), f"{counts.get(source, 0):,}", widths(part["before"]), widths(part["after"]))
        for source, part in found.expected.groupby("source", sort=False)
    ]
    title = "half-widths to expect of the human means' 95% intervals (smallest to largest over metrics)"
    screen.print(plain_table(title, ("system", "to rate", "now", "with this plan"), rows))
    for warning in found.remarks:
        screen.print(line(f"- {warning}"))
    screen.print(line(f"{len(found.table):,} dialogues in {out}; keep its inclusion_probability beside the ratings"))
    if together:
        screen.print(line(f"read with the earlier ratings as one table, give all of them the chances in {together}"))
    if forms:
        screen.print(line(f"for the annotators: {', '.join(map(str, forms.files))}"))
        hidden = f"{forms.key}, which import-annotations needs, and {out}"
        screen.print(line(f"not for them: {hidden}: they name the systems"))


def import_annotations(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Exports of Label Studio or Argilla, or sheets (.xlsx .csv).")
    ],
    key: Annotated[Path, typer.Option(help="The key that plan --format wrote.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write the ratings to.")],
    columns: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,…",
            help="Which column of a sheet is what: task=CODE,annotator=NAME; 'TEXT' is of all rows.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Read what annotators filled in, check it, put the systems back, and say how far they agree so far.

    A sheet has a row a dialogue and a column a metric; a table with task, metric, annotator, score will do too. What
    was left empty is missing in the ratings.
    """
    from judge.cli.common import as_one_json, refuse_unwritable
    from judge.files import save_csv
    from judge.human_ratings.agreement import map_of_ratings
    from judge.human_ratings.blinding import read_key
    from judge.human_ratings.filled_in import import_files

    refuse_unwritable(out)
    imported = import_files(files, blinded := read_key(key), map_of_ratings(columns))
    save_csv(out, imported.ratings)
    by_task = imported.ratings.groupby(["source", "character", "scenario"])["annotator"].nunique()
    due = {(task.source, task.character, task.scenario): task.raters for task in blinded.tasks.values()}
    counts = {
        "ratings": len(imported.ratings),
        "empty": imported.empty,
        "annotators": sorted(set(imported.ratings["annotator"])),
        "tasks": len(due),
        "rated": len(by_task),
        "rated_by_all": sum(int(by_task.get(task, 0)) >= raters for task, raters in due.items()),
    }
    agreement, warnings = agreement_so_far(out, scales_of(blinded.levels))
    warnings = [*imported.notes, *warnings]
    if as_json:
        print(as_one_json({"file": str(out), **counts, "remarks": warnings}, agreement=agreement))
    else:
        show_ratings(out, counts, agreement, warnings)
    return 0


def agreement_so_far(ratings: Path, scales: Mapping[str, tuple[float, float]]) -> tuple[pd.DataFrame, list[str]]:
    """How far the annotators of a table of ratings agree, a row a metric (NaN where it cannot be said); and warnings.

    ``calibration`` pairs ratings with a judge's scores. Here no judge is there yet, so one rating of each item stands
    in its place; what is reported is of the annotators alone and does not depend on it.
    """
    import pandas as pd

    from calibration import pair
    from calibration.agreement.reliability import reliability
    from judge.human_ratings.agreement import read_annotations

    table = read_annotations(ratings, scales)
    in_a_judges_place = table.drop_duplicates(["item_id", "metric"]).drop(columns="annotator")
    found = [reliability(one) for one in pair(table, in_a_judges_place, scale=scales).metrics.values()]
    # Columns keep the names that programs read (people, person_spearman).
    rows = []
    for one in found:
        alpha, ceiling = one.alpha_ordinal, one.ceiling["spearman"]
        numbers = {"alpha_ordinal": alpha.value, "low": alpha.low, "high": alpha.high, "person_spearman": ceiling.value}
        counts = {"ratings": int((table["metric"] == one.metric).sum()), "dialogues": one.items, "people": one.raters}
        rows.append({"metric": one.metric, **counts, **numbers})
    return pd.DataFrame(rows), list(dict.fromkeys(warning for one in found for warning in one.remarks))


def show_ratings(out: Path, counts: dict[str, Any], agreement: pd.DataFrame, warnings: list[str]) -> None:
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
