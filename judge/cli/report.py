"""The command ``report``, and the report that ``score`` writes at the end of a run.

Here the human ratings are read and assessed, by the same call and with the same options as in ``agree``; how the page
looks is up to ``judge.report``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge.cli.common import (
    AnnotatorKind,
    Annotators,
    Epsilon,
    Generalise,
    Json,
    MapRatings,
    MinItems,
    Nominal,
    OfJudge,
    Raters,
    Repeats,
    Scale,
    Scoring,
)
from judge.files import as_json_text
from judge.remote import shown

if TYPE_CHECKING:
    from judge.report.tables import People


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    annotations: Annotated[
        Path | None, typer.Option(help="Human ratings, to say how far the judge may be trusted.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default report.html in the run.")] = None,
    dialogues: Annotated[int, typer.Option(help="How many dialogues it holds; of more, a chosen set.", min=0)] = 600,
    language: Annotated[str | None, typer.Option(help="zh or en, shown first; by default the rubric's.")] = None,
    judge: OfJudge = None,
    annotators: Annotators = "",
    raters: Raters = "people",
    scoring: Scoring = "rmse",
    epsilon: Epsilon = None,
    min_items: MinItems = 30,
    annotator_kind: AnnotatorKind = "expert",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    columns: MapRatings = None,
    nominal: Nominal = "",
    average_repeats: Repeats = False,
    as_json: Json = False,
) -> int:
    """Write a run's report: one HTML file that opens offline, with charts, verdicts and the dialogues behind them.

    The options from --judge to --average-repeats are those of agree, and need --annotations: with the same ones the
    page states the same verdicts as agree.
    """
    from judge.cli.common import names, refuse_unwritable, refuse_wrong_epsilon, some_names

    refuse_unwritable(out)
    refuse_wrong_epsilon(epsilon)
    chosen = some_names(annotators, "--annotators")
    people = None
    if annotations:
        from judge.human_ratings.agreement import assess_pairing, estimate_all, read_pairing
        from judge.report.tables import People

        characters = generalise == "characters"
        pairing = read_pairing(run, annotations, scale, judge, chosen, average_repeats, columns=columns)
        assessment = assess_pairing(
            pairing,
            raters=raters,
            characters=characters,
            scoring=scoring,
            epsilon=epsilon,
            min_items=min_items,
            kind=annotator_kind,
            nominal=names(nominal),
        )
        people = People(pairing, assessment, estimate_all(pairing, characters))
    path = _write(run, people, out, dialogues, language)
    size = path.stat().st_size
    print(as_json_text({"file": str(path), "bytes": size}) if as_json else f"{path} ({size / 1e6:.1f} MB)")
    return 0


def write_after_run(run: Path) -> str:
    """Write the report of a run that just ended; returns a line about it.

    The run is whole without its report, so that any error here becomes that line and does not fail the run.
    """
    try:
        path = _write(run, None, None, None, None)
        return f"report: {shown(path.parent)}/{path.name}"
    except Exception as error:
        from judge.errors import one_line

        return f"no report.html ({type(error).__name__}: {one_line(error)}); try esrp-judge report {run}"


def _write(run: Path, people: People | None, out: Path | None, dialogues: int | None, language: str | None) -> Path:
    """Write the page, with ChatAnime's published means where the run has their systems; None means the default."""
    from judge.human_ratings.agreement import compare_with_published
    from judge.report.page import DIALOGUES, write_report

    published = compare_with_published(run)
    most = DIALOGUES if dialogues is None else dialogues
    table = published.table if published else None
    return write_report(run, people, table, out=out, dialogues=most, language=language)
