"""The command ``layouts``: the same dialogues under every prompt variant, and how their scores compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge.cli.common import (
    Characters,
    Data,
    Engine,
    Few,
    Json,
    Judge,
    Language,
    Map,
    Protocol,
    RubricName,
    Sources,
    Url,
    as_one_json,
    names,
    refuse_unwritable,
)
from judge.cli.console import STAND_IN_WARNING, cell, console, line, terminal_progress, titled
from judge.files import save_csv
from judge.types import CHATANIME, STAND_IN

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

    from judge.robustness.prompt_variants import LayoutComparison

SCORES = {
    "mass": ("mass", ".2f"),
    "low_mass": ("<.8", ".0%"),
    "mean": ("mean", ".2f"),
    "difference": ("diff", "+.2f"),
    "agreement": ("agree", ".2f"),
    "order_agreement": ("order", ".2f"),
    "halo": ("halo", ".2f"),
}


PEOPLE = {"human_spearman": ("Spearman", ".2f"), "human_pearson": ("Pearson", ".2f"), "human_n": ("ratings", ",.0f")}


COSTS = {
    "missing": ("missing", ",.0f"),
    "prompt_tokens": ("tokens", ",.0f"),
    "unique_tokens": ("unique", ",.0f"),
    "seconds": ("seconds", ",.1f"),
    "judgments_per_second": ("per s", ",.1f"),
}
"""The columns of a comparison of layouts in three tables: each its heading and how its numbers are written."""


LEGEND = """mass: median probability of the levels together; <.8: share of judgments with less
diff: mean difference from the first line; agree: rank agreement with it
order: rank agreement with the other ordering; halo: that among the metrics
(Spearman over dialogues, means over metrics)"""


def show_layouts(comparison: LayoutComparison) -> None:
    """Print a comparison of layouts: scores, agreement with human ratings, cost, and what to look at."""
    from rich.text import Text

    out, overall = console(), comparison.overall
    title = f"{comparison.judge} on {comparison.dialogues:,} dialogues, asked in {len(overall)} ways"
    out.print(variants_table(title, overall, SCORES))
    out.print(Text(LEGEND))
    if "human_n" in overall:
        out.print(variants_table("agreement with human ratings: dialogues, means over metrics", overall, PEOPLE))
        for reason, count in overall["human_reason"].value_counts().items():
            out.print(line(f"–: {reason} ({count} variants)"))
    out.print(variants_table("missing judgments, tokens per dialogue, time of scoring", overall, COSTS))
    out.print(Text("tokens: of the prompts of all metrics; unique: with what prompts share counted once\n"))
    for remark in comparison.remarks:
        out.print(line(f"* {remark}"))
    if comparison.judge == STAND_IN:
        out.print(line(STAND_IN_WARNING, "bold red"))


def variants_table(title: str, overall: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> Group:
    """A row per variant, with some of its numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    for heading, _ in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in overall.iterrows():
        table.add_row(str(name), *(cell(row[column], form) for column, (_, form) in columns.items()))
    return titled(title, table)


def layouts(
    data: Data = None,
    mapping: Map = "",
    judge: Judge = "auto",
    engine: Engine = "auto",
    url: Url = None,
    protocol: Protocol = "auto",
    sources: Sources = "",
    characters: Characters = "",
    rubric: RubricName = CHATANIME,
    language: Language = None,
    limit: Few = 100,
    annotations: Annotated[
        Path | None, typer.Option(help="People's ratings (.csv .parquet .jsonl); only what they rate is compared.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table, by metric too, to this CSV file.")] = None,
    as_json: Json = False,
) -> int:
    """Ask for the same judgments in many ways and compare: the first thing to run on a new judge.

    Three layouts, two orderings of the levels (ascending, descending) and the languages of the rubric (zh, en): mass,
    mean differences, rank agreement, correlation among metrics, tokens and time; with --annotations, agreement with
    people. No run is written.
    """
    from judge.types import Options

    refuse_unwritable(out)
    options = Options(
        mapping=mapping,
        judge=judge,
        engine=engine,
        url=url,
        protocol=protocol,
        sources=names(sources),
        characters=names(characters),
        rubric=rubric,
        language=language,
        limit=limit,
    )
    with terminal_progress() as progress:
        from judge.human_ratings.agreement import metric_names, read_annotations
        from judge.prompting.rubric import load_rubric
        from judge.robustness.prompt_variants import compare_layouts

        notes: list[str] = []
        ratings = None
        if annotations:
            scheme = load_rubric(language, rubric).scheme
            known = metric_names(scheme.metrics, scheme)
            # One scale holds of metrics that are not the rubric's too; several can only be of those that are.
            scale = scheme.scales if scheme.is_mixed else next(iter(scheme.scales.values()))
            ratings = read_annotations(annotations, scale, metrics=known, notes=notes)
            for note in notes:
                progress.note(note)
        comparison = compare_layouts(data or [], options, ratings, progress)
    if out:
        save_csv(out, comparison.table)
    if as_json:
        facts = {name: getattr(comparison, name) for name in ("judge", "dialogues", "missing", "best", "remarks")}
        print(as_one_json(facts, table=comparison.table))
    else:
        show_layouts(comparison)
    return 1 if comparison.missing else 0
