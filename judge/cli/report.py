"""``report``, and the report at the end of ``score``: what the page needs of people is put together here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge.files import as_json_text

if TYPE_CHECKING:
    from judge.report.tables import People


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    annotations: Annotated[
        Path | None, typer.Option(help="People's ratings, to say how far the judge may be trusted.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default report.html in the run.")] = None,
    dialogues: Annotated[int, typer.Option(help="How many dialogues it holds; of more, a chosen set.", min=0)] = 600,
    language: Annotated[str | None, typer.Option(help="zh or en, shown first; by default the rubric's.")] = None,
    annotators: Annotated[str, typer.Option(help="Only these annotators, with commas.")] = "",
    average_repeats: Annotated[
        bool, typer.Option("--average-repeats", help="Average ratings that an annotator gave twice.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")] = False,
) -> int:
    """Write a run's report: one HTML file that opens offline, with charts, verdicts and the dialogues behind them."""
    from judge.cli.common import refuse_unwritable, some_names

    refuse_unwritable(out)
    names = some_names(annotators, "--annotators")
    people = _people(run, annotations, names, average_repeats) if annotations else None
    path = _write(run, people, out, dialogues, language)
    size = path.stat().st_size
    print(as_json_text({"file": str(path), "bytes": size}) if as_json else f"{path} ({size / 1e6:.1f} MB)")
    return 0


def write_after_run(run: Path) -> str:
    """The report of a run that just ended, and a line about it: whatever goes wrong here is no fault of the run."""
    try:
        return f"report: {_write(run, None, None, None, None)}"
    except Exception as error:  # the run is whole without it
        from judge.errors import one_line

        return f"no report.html ({type(error).__name__}: {one_line(error)}); try esrp-judge report {run}"


def _write(run: Path, people: People | None, out: Path | None, dialogues: int | None, language: str | None) -> Path:
    from judge.human_ratings.agreement import compare_with_published
    from judge.report.page import DIALOGUES, write_report

    published = compare_with_published(run)
    most = DIALOGUES if dialogues is None else dialogues
    table = published.table if published else None
    return write_report(run, people, table, out=out, dialogues=most, language=language)


def _people(run: Path, annotations: Path, annotators: tuple[str, ...], average_repeats: bool) -> People:
    from judge.human_ratings.agreement import assess_pairing, estimate_all, read_pairing
    from judge.report.tables import People

    pairing = read_pairing(run, annotations, None, None, annotators, average_repeats)
    return People(pairing, assess_pairing(pairing), estimate_all(pairing, False))
