"""Commands that put a judge beside people: ``agree``, ``calibrate``, ``estimate``, ``compare``, ``plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from judge.cli.common import (
    Json,
    as_json_text,
    as_one_json,
    names,
    refuse_unwritable,
    refuse_unwritable_folder,
    some_names,
    write_csv,
)
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
    epsilon: Annotated[
        float | None, typer.Option(help="By how much the judge may lose in it; by default by their kind.")
    ] = None,
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


def calibrate(
    scores: Scores,
    annotations: Annotated[Path | None, typer.Option(help="People's ratings, to fit maps to.")] = None,
    use: Annotated[
        Path | None, typer.Option(help="Fit nothing: put the scores on people's scale by this file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write: calibration.json, with --use calibrated.csv.")
    ] = None,
    judge: OfJudge = None,
    annotators: Annotators = "",
    annotator: Annotated[
        str | None, typer.Option(help="With --use: whose ratings to predict; by default people's mean.")
    ] = None,
    scale: Scale = None,
    average_repeats: Repeats = False,
    maps: Annotated[
        str, typer.Option(help="Choose among these only: constant, shift, linear, isotonic, ordinal, raters.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    as_json: Json = False,
) -> int:
    """Fit maps from the judge's scores to people's scale, each metric's chosen on items left out, into a file.

    The file is bound to the judge: it is refused for another, or where the judge has moved. score --calibration uses it
    on a run, --use on any table of scores.
    """
    from judge.cli import calibrating
    from judge.cli.inputs import read_pairing

    if (annotations is None) == (use is None):
        raise InputError("give people's ratings to fit maps to (--annotations), or a calibration to use (--use)")
    out = out or Path("calibrated.csv" if use else "calibration.json")
    refuse_unwritable(out)
    if use:
        table = calibrating.use(use, scores, judge, annotator)
        write_csv(out, table)
        print(as_one_json({"file": str(out)}, scores=table) if as_json else f"{len(table):,} scores in {out}")
        return 0
    assert annotations is not None
    people = some_names(annotators, "--annotators")
    pairing = read_pairing(scores, annotations, scale, judge, people, average_repeats, with_composites=False)
    calibration, remarks = calibrating.fit(scores, pairing, names(maps), seed)
    calibrating.save(calibration, out)
    remarks = [*pairing.remarks, *remarks]
    if as_json:
        print(calibrating.as_json(calibration, out, remarks))
    else:
        calibrating.show(calibration, out, remarks)
    return 0


def estimate(
    scores: Scores,
    annotations: Annotations,
    out: Annotated[Path | None, typer.Option(help="Also write all metrics and targets to this CSV file.")] = None,
    metrics: Annotated[str, typer.Option(help="Metrics to show, with commas; the overall mean by default.")] = "",
    judge: OfJudge = None,
    annotators: Annotators = "",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    average_repeats: Repeats = False,
    as_json: Json = False,
) -> int:
    """Estimate means of systems, each with what it is a mean of: the judge's, people's, people's of a new system."""
    from judge.cli import estimating
    from judge.cli.inputs import read_pairing

    refuse_unwritable(out)
    pairing = read_pairing(scores, annotations, scale, judge, some_names(annotators, "--annotators"), average_repeats)
    table = estimating.estimate_all(pairing, generalise == "characters")
    shown = estimating.chosen(table, names(metrics))
    if out:
        write_csv(out, table)
    if as_json:
        print(estimating.estimates_json(pairing, table))
    else:
        estimating.show_estimates(pairing, table, shown)
    return 0


def compare(
    scores: Scores,
    a: Annotated[str, typer.Argument(metavar="A", help="A source.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another source.")],
    annotations: Annotated[Path | None, typer.Option(help="People's ratings, to compare by them too.")] = None,
    judge: OfJudge = None,
    annotators: Annotators = "",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    average_repeats: Repeats = False,
    as_json: Json = False,
) -> int:
    """Compare two sources over the scenarios that both answer, and say what it would take to settle the difference."""
    from judge.cli import estimating
    from judge.cli.inputs import read_pairing, read_unrated

    if annotations:
        pairing = read_pairing(
            scores, annotations, scale, judge, some_names(annotators, "--annotators"), average_repeats
        )
    else:
        pairing = read_unrated(scores, scale, judge)
    found = estimating.compare_all(pairing, a, b, generalise == "characters")
    if as_json:
        print(estimating.comparison_json(pairing, found))
    else:
        estimating.show_comparison(pairing, found)
    return 0


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
    from judge.cli import forms, planning

    refuse_unwritable(out)
    if form:
        forms.refuse_old_key(out)
    found = planning.make_plan(
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
    write_csv(out, found.table)
    together = out.with_suffix(".together.csv") if annotations else None
    if together:
        write_csv(together, found.together)
    if as_json:
        print(planning.plan_json(found, out, together, written))
    else:
        planning.show_plan(found, out, together, written)
    return 0
