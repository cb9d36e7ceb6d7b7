"""What ``plan`` does and shows: which dialogues people should rate next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import typer

from calibration import Plan
from judge.cli.common import Json, OfJudge, Repeats, Scale, Scores, as_one_json, refuse_unwritable
from judge.cli.console import console, line, plain_table
from judge.files import save_csv
from judge.human_ratings.forms import Forms


def show_plan(found: Plan, out: Path, together: Path | None, forms: Forms | None) -> None:
    """Print what to expect of the plan, by source, remarks, and which files are whose."""
    screen = console()
    by_source = found.expected.groupby("source", sort=False)
    counts = found.table.groupby("source").size()
    rows = [
        (str(source), f"{counts.get(source, 0):,}", _widths(part["before"]), _widths(part["after"]))
        for source, part in by_source
    ]
    title = "half-widths to expect of the human means' 95% intervals (smallest to largest over metrics)"
    screen.print(plain_table(title, ("source", "to rate", "now", "with this plan"), rows))
    for remark in found.remarks:
        screen.print(line(f"- {remark}"))
    screen.print(line(f"{len(found.table):,} dialogues in {out}; keep its inclusion_probability beside the ratings"))
    if together:
        screen.print(line(f"read with the earlier ratings as one table, give all of them the chances in {together}"))
    if forms:
        screen.print(line(f"for the annotators: {', '.join(map(str, forms.files))}"))
        screen.print(
            line(f"not for them: {forms.key}, which import-annotations needs, and {out}: they tell the sources")
        )


def _widths(values: pd.Series[float]) -> str:
    known = values.dropna()
    if known.empty:
        return "–"
    return f"{known.min():.2f}" if known.min() == known.max() else f"{known.min():.2f}–{known.max():.2f}"


def plan_json(found: Plan, out: Path, together: Path | None, forms: Forms | None) -> str:
    """All of it for programs."""
    facts = {"file": str(out), "together": str(together) if together else None, "remarks": list(found.remarks)}
    if forms:
        facts |= {"forms": [str(path) for path in forms.files], "key": str(forms.key)}
    return as_one_json(facts, plan=found.table, expected=found.expected)


def plan(
    scores: Scores,
    budget: Annotated[int, typer.Option(help="How many dialogues to have rated.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write the plan to.")],
    annotations: Annotated[Path | None, typer.Option(help="People's ratings so far.")] = None,
    overlap: Annotated[int, typer.Option(help="How many of them the same people all rate.")] = 30,
    raters: Annotated[int, typer.Option(help="How many people those are.")] = 3,
    judge: OfJudge = None,
    scale: Scale = None,
    average_repeats: Repeats = False,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    form: Annotated[
        Literal["label-studio", "csv", "xlsx"] | None,
        typer.Option("--format", help="Also write what annotators fill in, with sources blinded, beside --out."),
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Where the dialogues' texts are, if not where the run read them.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Of the form: zh or en; the run's by default.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Folder with the rubric of your own that is rated by.")] = None,
    as_json: Json = False,
) -> int:
    """Choose which dialogues people should rate next: a random sample with known chances, where ratings tell most.

    With --format also a Label Studio project or a sheet for the annotators, and the key that import-annotations needs.
    """
    from judge.human_ratings import agreement, forms

    refuse_unwritable(out)
    if form:
        forms.refuse_old_key(out)
    found = agreement.make_plan(
        scores,
        budget,
        annotations,
        scale,
        judge,
        average_repeats,
        overlap=overlap,
        raters_per_overlap=raters,
        seed=seed,
    )
    written = forms.write(form, found, scores, out, data or [], language, prompts) if form else None
    save_csv(out, found.table)
    together = out.with_suffix(".together.csv") if annotations else None
    if together:
        save_csv(together, found.together)
    if as_json:
        print(plan_json(found, out, together, written))
    else:
        show_plan(found, out, together, written)
    return 0
