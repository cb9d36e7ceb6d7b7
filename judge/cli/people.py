"""Commands that put a judge beside people: ``agree``, ``calibrate``, ``estimate``, ``compare``, ``plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from judge.cli.common import Json, as_json_text, refuse_unwritable_folder, some_names
from judge.errors import InputError

Scores = Annotated[
    Path, typer.Argument(metavar="RUN|TABLE", help="A run's folder, or a table of scores (.csv .parquet .jsonl).")
]
Annotations = Annotated[
    Path, typer.Option(help="People's ratings (.csv .parquet .jsonl): item_id or character and scenario, annotator …")
]
Scale = Annotated[
    str | None, typer.Option(help="1-5, or by metric a=1-5,b=0-3; a run's is 1-5, a table's is taken from its scores.")
]
OfJudge = Annotated[str | None, typer.Option(help="Which judge, where a table holds several.")]
Annotators = Annotated[str, typer.Option(help="Only these annotators, with commas.")]
Repeats = Annotated[bool, typer.Option("--average-repeats", help="Average ratings that an annotator gave twice.")]
Generalise = Annotated[
    Literal["scenarios", "characters"],
    typer.Option(help="What intervals are about: other scenarios, or other scenarios and other characters."),
]


def agree(
    scores: Scores,
    annotations: Annotated[
        Path | None, typer.Option(help="People's ratings; without them, published means of ChatAnime's sources.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write agreement.csv and agreement.json to this folder.")
    ] = None,
    judge: OfJudge = None,
    annotators: Annotators = "",
    raters: Annotated[
        Literal["people", "slots"], typer.Option(help="Whether an annotator's name is one person everywhere.")
    ] = "people",
    scoring: Annotated[
        Literal["rmse", "accuracy"], typer.Option(help="What the alternative annotator test compares by.")
    ] = "rmse",
    epsilon: Annotated[float | None, typer.Option(help="Its advantage of people; by default by their kind.")] = None,
    annotator_kind: Annotated[
        Literal["expert", "skilled", "crowd"], typer.Option(help="Which annotators: epsilon is .2, .15 or .1.")
    ] = "expert",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    average_repeats: Repeats = False,
    as_json: Json = False,
) -> int:
    """Say how far the judge agrees with people, beside how far people agree with each other, and a verdict per metric.

    Without --annotations: beside the published means of ChatAnime's sources, the only human figures there are of it.
    """
    from judge.cli.agreement import (
        OUTPUTS,
        assess_run,
        compare_with_published,
        show_agreement,
        show_published,
        write_agreement,
    )

    refuse_unwritable_folder(out, *OUTPUTS)
    if epsilon is not None and not 0 <= epsilon <= 1:
        raise InputError(f"--epsilon {epsilon}: give a number from 0 to 1")
    published = compare_with_published(scores)
    if annotations is None and published is None:
        raise InputError(f"{scores}: no published means of its sources; give people's ratings (--annotations FILE)")
    assessment = (
        None
        if annotations is None
        else assess_run(
            scores,
            annotations,
            scale=scale,
            judge=judge,
            annotators=some_names(annotators, "--annotators"),
            average_repeats=average_repeats,
            raters=raters,
            characters=generalise == "characters",
            scoring=scoring,
            epsilon=epsilon,
            kind=annotator_kind,
        )
    )
    found = {**(assessment.to_dict() if assessment else {}), "published": published.to_dict() if published else None}
    if out:
        write_agreement(out, next(one.table for one in (assessment, published) if one), found)
    if as_json:
        print(as_json_text(found))
        return 0
    if assessment:
        show_agreement(assessment)
    if published:
        show_published(published)
    return 0
