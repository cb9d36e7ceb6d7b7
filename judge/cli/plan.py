"""The command ``plan``: which dialogues annotators should rate next, and the forms to rate them in.

What to expect of a plan is worked out by ``calibration``; here it is only printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from judge.cli.common import Json, OfJudge, Repeats, Scale, Scores

if TYPE_CHECKING:
    import pandas as pd

    from calibration import Plan
    from judge.human_ratings.forms import Forms


def plan(
    scores: Scores,
    budget: Annotated[int, typer.Option(help="How many dialogues to have rated.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write the plan to.")],
    annotations: Annotated[Path | None, typer.Option(help="Human ratings so far.")] = None,
    overlap: Annotated[int, typer.Option(help="How many dialogues the same annotators all rate.")] = 30,
    raters: Annotated[int, typer.Option(help="How many annotators rate each dialogue of the overlap.")] = 3,
    judge: OfJudge = None,
    scale: Scale = None,
    average_repeats: Repeats = False,
    seed: Annotated[int, typer.Option(help="Random seed of the sample.")] = 0,
    form: Annotated[
        Literal["label-studio", "csv", "xlsx"] | None,
        typer.Option("--format", help="Also write what annotators fill in, with systems blinded, beside --out."),
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Where the dialogues' texts are, if not where the run read them.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the form: zh or en; the run's by default.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Folder with the rubric of your own that is rated by.")] = None,
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
        facts = {"file": str(out), "together": str(together) if together else None, "remarks": list(found.remarks)}
        if written:
            facts |= {"forms": [str(path) for path in written.files], "key": str(written.key)}
        print(as_one_json(facts, plan=found.table, expected=found.expected))
    else:
        _show(found, out, together, written)
    return 0


def _show(found: Plan, out: Path, together: Path | None, forms: Forms | None) -> None:
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
