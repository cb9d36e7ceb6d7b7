"""The commands ``rubric new`` and ``rubric check``: a rubric of one's own, begun and looked over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge.cli.common import Json
from judge.cli.console import console, line, plain_table
from judge.files import as_json_text

if TYPE_CHECKING:
    from judge.prompting.own_rubric import RubricCheck


def new_rubric(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    source: Annotated[
        str, typer.Option("--from", help="The packaged rubric to begin with: chatanime, empathy or roleplay-en.")
    ] = "roleplay-en",
    language: Annotated[str | None, typer.Option(help="Only this language of it.")] = None,
) -> int:
    """Begin a rubric of your own: a folder with a packaged one to change, file by file."""
    from judge.prompting.own_rubric import begin_rubric

    files = begin_rubric(folder, source, language)
    out = console()
    out.print(line(f"{len(files)} files in {folder}, copied from {source}"))
    out.print(line("rubric.yaml: which metrics, levels, dimensions and means; system.yaml: the texts of the prompt"))
    out.print(line("a file a metric: what is rated, an anchor for each level, and how it is asked"))
    out.print(line(f"then: esrp-judge rubric check {folder} --judge stand-in"))
    return 0


def check_rubric(
    rubric: Annotated[str, typer.Argument(metavar="DIR", help="The folder, or the name of a packaged rubric.")],
    judge: Annotated[
        str | None, typer.Option(help="The judge that is to use it: are its levels one token each?")
    ] = None,
    as_json: Json = False,
) -> int:
    """Check a rubric: what is missing, wrong, or said twice, and whether a judge can answer by it."""
    from judge.models.checkpoint import resolve
    from judge.prompting.own_rubric import check_rubric as check

    found = check(rubric, resolve(judge).tokenizer if judge else None)
    if as_json:
        scheme = found.rubrics[0].scheme
        print(
            as_json_text(
                {
                    "rubric": scheme.rubric,
                    "languages": [one.language for one in found.rubrics],
                    "levels": scheme.levels,
                    "dimensions": scheme.dimensions,
                    "composites": scheme.composites,
                    "set_metric": scheme.set_metric,
                    "warnings": found.warnings,
                    "layouts": found.layouts,
                }
            )
        )
    else:
        show_check(found)
    return 0


def show_check(found: RubricCheck) -> None:
    """Print what a rubric rates, and what to look at."""
    out, first = console(), found.rubrics[0]
    rows = [
        (
            metric.id,
            metric.title,
            ", ".join(map(str, sorted(metric.levels))),
            metric.dimension or "–",
            metric.like or "–",
        )
        for metric in first.all_metrics
    ]
    title = f"{first.name} ({', '.join(one.language for one in found.rubrics)})"
    out.print(plain_table(title, ("metric", "title", "levels", "dimension", "like"), rows, left=5))
    means = ", ".join(f"{name} ({len(members)} metrics)" for name, members in first.scheme.composites.items())
    out.print(line(f"means: {means or 'none'}; of a system's answers together: {first.scheme.set_metric or 'nothing'}"))
    for layout, text in (found.layouts or {}).items():
        out.print(line(f"{layout}: {text}"))
    for warning in found.warnings:
        out.print(line(f"- {warning}"))
    out.print(line("nothing is missing; no title, name or anchor stands twice"))
