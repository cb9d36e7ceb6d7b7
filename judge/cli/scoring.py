"""Commands that judge dialogues: ``score``, ``diversity``, ``layouts``, ``serve``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge.cli import looking
from judge.cli.common import (
    Characters,
    Data,
    Engine,
    Few,
    Json,
    Judge,
    Language,
    Layout,
    Sources,
    Url,
    as_json_text,
    as_one_json,
    names,
    refuse_unwritable,
    write_csv,
)
from judge.cli.inputs import read_annotations
from judge.cli.reporting import write_after_run
from judge.errors import plain

if TYPE_CHECKING:
    from judge.cli.calibrating import Calibrated


def score(
    data: Data = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default results/ and a name of its own.")
    ] = None,
    judge: Judge = "auto",
    engine: Engine = "auto",
    url: Url = None,
    patience: Annotated[
        float, typer.Option(help="Seconds for which a failing server is tried again, or vLLM may hang.")
    ] = 300.0,
    devices: Annotated[str, typer.Option(help="A process on each of these GPUs, with commas: 0,1.")] = "",
    tensor_parallel: Annotated[int, typer.Option(help="Split the model over so many GPUs (vLLM).")] = 1,
    language: Language = "zh",
    layout: Layout = "prefill",
    orderings: Annotated[int, typer.Option(help="2 averages over levels listed upwards and downwards.")] = 1,
    metrics: Annotated[str | None, typer.Option(help="Metrics by id, with commas; all by default.")] = None,
    sources: Sources = "",
    characters: Characters = "",
    limit: Annotated[int | None, typer.Option(help="Only so many dialogues, always the same ones.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Folder with a rubric of your own.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Also give scores on people's scale, by this file of calibrate.")
    ] = None,
    rationales: Annotated[
        int, typer.Option(help="Then have the judge say why, for so many notable dialogues: no evidence, see the docs.")
    ] = 0,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what there is to do and what it would take; write nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Score dialogues into a run folder; the same command again goes on where it stopped.

    Without DATA: ChatAnime where it was fetched and the judge is real, otherwise the packaged example.
    """
    from judge.options import ALL_METRICS, Options
    from judge.rubric import load_rubric
    from judge.run import score as score_into_run
    from judge.terminal import TerminalProgress, show

    options = Options(
        run=run,
        judge=judge,
        engine=engine,
        url=url,
        patience=patience,
        devices=names(devices),
        tensor_parallel=tensor_parallel,
        language=language,
        layout=layout,
        orderings=orderings,
        metrics=names(metrics) if metrics is not None else ALL_METRICS,
        sources=names(sources),
        characters=names(characters),
        limit=limit,
        prompts=prompts,
        rationales=rationales,
    )
    if dry_run:
        return looking.dry_run(data or [], options, as_json)
    progress = TerminalProgress()
    calibrated = _calibrated(calibration, progress.note) if calibration else None
    try:
        result = score_into_run(data or [], options, progress, calibrated.check if calibrated else None)
    finally:
        progress.finish()
    if calibrated:
        calibrated.apply(result.run)
    about_report = write_after_run(result.run) if report else ""
    if as_json:
        facts = {name: getattr(result, name) for name in ("judge", "judgments", "missing", "suspicious", "explained")}
        print(
            as_one_json({"run": str(result.run), **facts}, leaderboard=result.leaderboard, diversity=result.diversity)
        )
    else:
        show(result, load_rubric(language, prompts))
        if calibrated:
            print(plain(f"on people's scale, by {calibration}: scores_calibrated.csv, calibrated.parquet"))
        if about_report:
            print(plain(about_report))
    return 1 if result.missing else 0


def _calibrated(path: Path, note: Callable[[str], None]) -> Calibrated:
    from judge.cli.calibrating import Calibrated

    return Calibrated.load(path, note)


def diversity(data: Data = None, as_json: Json = False) -> int:
    """Response diversity from the text alone, which needs no judge: distinct-2, self-BLEU, compression ratio."""
    from judge.run import text_diversity
    from judge.terminal import show_diversity

    table = text_diversity(data or [])
    if as_json:
        print(as_json_text(json.loads(table.to_json(orient="records"))))
    else:
        show_diversity(table)
    return 0


def layouts(
    data: Data = None,
    judge: Judge = "auto",
    engine: Engine = "auto",
    url: Url = None,
    sources: Sources = "",
    characters: Characters = "",
    limit: Few = 100,
    annotations: Annotated[
        Path | None, typer.Option(help="People's ratings (.csv .parquet .jsonl); only what they rate is compared.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table, by metric too, to this CSV file.")] = None,
    as_json: Json = False,
) -> int:
    """Ask for the same judgments in twelve ways and compare: the first thing to run on a new judge.

    Three layouts, two orderings of the levels (ascending, descending) and two languages of the rubric (zh, en): mass,
    mean differences, rank agreement, correlation among metrics, tokens and time; with --annotations, agreement with
    people. No run is written.
    """
    from judge.layouts import compare_layouts
    from judge.options import Options
    from judge.terminal import TerminalProgress, show_layouts

    refuse_unwritable(out)
    ratings = read_annotations(annotations) if annotations else None
    progress = TerminalProgress()
    try:
        comparison = compare_layouts(
            data or [],
            Options(
                judge=judge,
                engine=engine,
                url=url,
                sources=names(sources),
                characters=names(characters),
                limit=limit,
            ),
            ratings,
            progress,
        )
    finally:
        progress.finish()
    if out:
        write_csv(out, comparison.table)
    if as_json:
        facts = {name: getattr(comparison, name) for name in ("judge", "dialogues", "missing", "best", "remarks")}
        print(as_one_json(facts, table=comparison.table))
    else:
        show_layouts(comparison)
    return 1 if comparison.missing else 0


def serve(
    context: typer.Context,
    judge: Annotated[str, typer.Option(help="As for score.")] = "auto",
    port: Annotated[int, typer.Option(help="On which port of this machine.")] = 8000,
) -> int:
    """Serve a judge by vLLM on this machine, for score --url; further options go to vLLM as they are."""
    from judge.serve import serve as become_server

    become_server(judge, port, context.args)
