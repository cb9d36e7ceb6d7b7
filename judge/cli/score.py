"""A look before running: the command ``show``, and ``score --dry-run``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from judge.cli.common import (
    Characters,
    Data,
    Engine,
    Json,
    Judge,
    Language,
    Layout,
    Sources,
    Url,
    as_one_json,
    names,
)
from judge.cli.console import STAND_IN_WARNING, console, line
from judge.errors import plain
from judge.files import as_json_text
from judge.types import OVERALL, STAND_IN

if TYPE_CHECKING:
    import pandas as pd

    from judge.prompting.rubric import Rubric
    from judge.scoring.preview import Foresight
    from judge.scoring.run import Result
    from judge.types import Options


ROOM_FOR_METRICS = 120
"""Columns of a terminal from which on the table shows every metric."""


def leaderboard_table(result: Result, rubric: Rubric, width: int) -> Table:
    """Sources by their overall mean, beside which stands the half-width of its interval.

    A column per metric where there is room for them, or else one per dimension.
    """
    board = result.leaderboard
    metrics = {name: metric.title for name, metric in rubric.metrics.items()}
    titles = {OVERALL: OVERALL, **(metrics if width >= ROOM_FOR_METRICS else rubric.texts.dimensions)}
    there = set(board["metric"])
    columns = [column for column in titles if column in there] or [metric for metric in metrics if metric in there]
    title = line(f"judge means by {result.judge} (1 to 5; ± is a 95% interval over scenarios)", "table.title")
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("source", overflow="fold")
    for column in columns:
        table.add_column({**metrics, **titles}[column], justify="right", no_wrap=column == OVERALL)
    for source, cells in sorted(_cells(board).items(), key=lambda item: _last(item[1])):
        table.add_row(line(source), *(_number(*cells[column]) for column in columns))
    return table


def show(result: Result, rubric: Rubric) -> None:
    """Print a finished run: the table, what is missing and why, where the files are."""
    from judge.scoring.rationales import RATIONALES

    out = console()
    if not result.leaderboard.empty:
        out.print(leaderboard_table(result, rubric, out.width))
    if result.judge == STAND_IN:
        out.print(Text(STAND_IN_WARNING, style="bold red"))
    out.print(line(f"{result.judgments - sum(result.missing.values()):,} judgments in {result.run}"))
    out.print(Text("scores.csv, leaderboard.csv, diversity.csv; how they came about: manifest.json"))
    for reason, count in result.missing.items():
        out.print(line(f"missing: {count:,} judgments, {reason}"))
    if result.suspicious:
        out.print(f"suspicious: {result.suspicious:,} dialogues speak to the judge (column suspicious); scores stand")
    if result.explained:
        out.print(f"{RATIONALES}: why, of {result.explained:,} dialogues; written after the scores, and no evidence")


def _cells(board: pd.DataFrame) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and half-width of the interval by source and metric; no half-width but for the overall mean."""
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    for row in board.to_dict(orient="records"):
        half = (row["high"] - row["low"]) / 2 if row["metric"] == OVERALL and row["high"] is not None else math.nan
        cells.setdefault(row["source"], {})[row["metric"]] = (row["mean"], half)
    return cells


def _last(cells: dict[str, tuple[float, float]]) -> float:
    """Sorts sources by their overall mean, highest first, those without one last."""
    import pandas as pd

    mean = cells.get(OVERALL, (math.nan, math.nan))[0]
    return math.inf if pd.isna(mean) else -mean


def _number(mean: float, half: float) -> str:
    import pandas as pd

    if pd.isna(mean):
        return "–"
    return f"{mean:.2f}" if pd.isna(half) else f"{mean:.2f} ±{half:.2f}"


def show_diversity(table: pd.DataFrame) -> None:
    """Print response diversity, a row per source."""
    import pandas as pd

    out = Table(
        title="response diversity: means over characters (distinct-2: higher is more varied; the others: lower)"
    )
    sources = table[table["level"] == "source"].drop(columns=["level", "character"])
    for column in sources.columns:
        out.add_column(column, justify="left" if column == "source" else "right")
    for source, dialogues, *values in sources.itertuples(index=False):
        out.add_row(line(source), f"{dialogues:,}", *("–" if pd.isna(v) else f"{v:.3f}" for v in values))
    console().print(out)


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
    from judge.cli.console import TerminalProgress
    from judge.cli.report import write_after_run
    from judge.prompting.rubric import load_rubric
    from judge.scoring.run import score as score_into_run
    from judge.types import ALL_METRICS, Options

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
        return show_dry_run(data or [], options, as_json)
    progress = TerminalProgress()
    calibrated = None
    if calibration:
        from judge.human_ratings.calibrated_run import Calibrated

        calibrated = Calibrated.load(calibration, progress.note)
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


def diversity(data: Data = None, as_json: Json = False) -> int:
    """Response diversity from the text alone, which needs no judge: distinct-2, self-BLEU, compression ratio."""
    from judge.scoring.run import text_diversity

    table = text_diversity(data or [])
    if as_json:
        print(as_json_text(json.loads(table.to_json(orient="records"))))
    else:
        show_diversity(table)
    return 0


def show_dry_run(data: list[Path], options: Options, as_json: bool) -> int:
    """Print what ``score`` would do and take."""
    from judge.cli.console import TerminalProgress
    from judge.scoring.run import look_ahead

    found = look_ahead(data, options, TerminalProgress())
    if as_json:
        print(as_json_text({**asdict(found), "run": str(found.run), "seconds": found.seconds}))
    else:
        print("\n".join(map(plain, _outlook(found))))
        if options.rationales:
            print(f"rationales of {options.rationales:,} dialogues would follow the scores; their time is not in this")
    return 0


def _outlook(found: Foresight) -> Iterator[str]:
    todo = found.judgments - found.judgments_done
    yield f"{found.judge} ({found.judge_id}) on {found.dialogues:,} dialogues into {found.run}; nothing was written"
    yield f"units: {found.units_done:,} of {found.units:,} are there"
    yield f"judgments: {found.judgments_done:,} of {found.judgments:,} are there, {todo:,} to do"
    yield f"tokens to do: {found.prompt_tokens:,}, or {found.unique_tokens:,} with what prompts share counted once"
    if found.pace is None or found.seconds is None:
        yield "time: not measured, as no dialogue is to be judged"
        return
    pace, rate = found.pace, found.pace.tokens / found.pace.seconds
    yield (
        f"time: about {_duration(found.seconds)}, by the pace of {pace.dialogues:,} dialogues just now "
        f"({pace.engine}: {pace.tokens:,} unique tokens in {pace.seconds:.2f} s, {rate:,.0f} a second); "
        f"loading took {pace.loading:.1f} s"
    )
    if pace.weights_gib is not None:
        yield (
            f"memory: {pace.weights_gib:.2f} GiB of weights, up to {pace.kept_gib:.2f} GiB kept of what prompts share; "
            f"up to {pace.peak_gib:.2f} GiB were in use while this was measured"
        )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
