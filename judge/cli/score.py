"""``score``, ``diversity`` and ``show``: judge dialogues, say first what that would take, show what is asked.

Parses, calls ``judge.scoring`` and prints.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import (
    AnswerForm,
    Characters,
    Data,
    Engine,
    Json,
    Judge,
    Language,
    Layout,
    Map,
    Protocol,
    RubricName,
    Sources,
    Url,
    as_one_json,
    names,
    some_names,
)
from judge.cli.console import STAND_IN_WARNING, console, line, titled
from judge.cli.report import write_after_run
from judge.errors import InputError, plain
from judge.files import as_json_text
from judge.remote import shown, working_copy
from judge.types import AS_ASKED, CHATANIME, MIN_MASS, OVERALL, STAND_IN, Options, Scheme

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

    from judge.scoring.run import Result, Shard


ROOM = 12
"""Characters of a terminal's width for each column of the table."""


def leaderboard_table(result: Result, scheme: Scheme, width: int) -> Group:
    """Systems by their overall mean, highest first, with the half-width of its confidence interval beside it.

    A column per metric where ``width`` (in characters) has room for them, or else one per dimension.
    """
    from rich import box
    from rich.table import Table

    board = result.leaderboard
    metrics = {name: scheme.titles[name] for name in scheme.metrics}
    fits = width >= ROOM * (1 + len(metrics))
    titles = {OVERALL: OVERALL, **(metrics if fits else {name: scheme.titles[name] for name in scheme.dimensions})}
    there = set(board["metric"])
    columns = [column for column in titles if column in there]
    if set(columns) <= {OVERALL}:  # of a rubric without dimensions, or of some metrics only
        columns += [metric for metric in metrics if metric in there]
    ends = dict.fromkeys(scheme.scales.values())
    scales = " or ".join(f"{low:g} to {high:g}" for low, high in ends)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("system", overflow="fold")
    for column in columns:
        table.add_column({**metrics, **titles}[column], justify="right", no_wrap=column == OVERALL)

    cells: dict[str, dict[str, str]] = {}
    order: dict[str, float] = {}
    for row in board.astype({"mean": float, "low": float, "high": float}).to_dict(orient="records"):
        source, mean, half = row["source"], row["mean"], (row["high"] - row["low"]) / 2
        text = "–" if math.isnan(mean) else f"{mean:.2f}"
        order.setdefault(source, math.inf)  # last, unless it has an overall mean
        if row["metric"] == OVERALL and not math.isnan(mean):
            order[source] = -mean
            text += "" if math.isnan(half) else f" ±{half:.2f}"
        cells.setdefault(source, {})[row["metric"]] = text
    for source in sorted(cells, key=order.__getitem__):
        table.add_row(line(source), *(cells[source][column] for column in columns))
    reason = "" if result.chosen == AS_ASKED else f"{result.judge}: {result.chosen}"
    return titled(f"judge means by {result.judge} ({scales}; ± is the 95% CI over scenarios)", table, reason)


def show_result(result: Result, scheme: Scheme) -> None:
    """Print a finished run: the table, what is missing and why, where the files are."""
    from judge.scoring.rationales import RATIONALES

    out = console()
    if not result.leaderboard.empty:
        out.print(leaderboard_table(result, scheme, out.width))
    if result.judge == STAND_IN:
        out.print(line(STAND_IN_WARNING, "bold red"))
    out.print(line(f"{result.judgments - sum(result.missing.values()):,} judgments in {shown(result.run)}"))
    tables = "scores.csv, leaderboard.csv" + (", diversity.csv" if result.diversity is not None else "")
    out.print(line(f"{tables}; how they came about: manifest.json"))
    for reason, count in result.missing.items():
        out.print(line(f"missing: {count:,} judgments, {reason}"))
    if result.suspicious:
        out.print(f"suspicious: {result.suspicious:,} dialogues speak to the judge (column suspicious); scores stand")
    if result.unlisted:
        out.print(f"unlisted: {result.unlisted:,} judgments have levels that the server does not list: missing mass")
    if result.explained:
        out.print(f"{RATIONALES}: why, of {result.explained:,} dialogues; written after the scores, and no evidence")


def show_shard(shard: Shard) -> None:
    """Print one share of a run that was judged, and what ends the run."""
    there = shard.judgments - sum(shard.missing.values())
    print(plain(f"shard {shard.shard}: {there:,} of its {shard.judgments:,} judgments are in {shown(shard.run)}"))
    for reason, count in shard.missing.items():
        print(plain(f"missing: {count:,} judgments, {reason}"))
    print(plain(f"once all shards have ended: esrp-judge tables {shlex.quote(shown(shard.run))}"))


def show_diversity(table: pd.DataFrame) -> None:
    """Print response diversity, a row per system."""
    import pandas as pd
    from rich.table import Table

    title = "response diversity: means over characters (distinct-2: higher is more varied; the others: lower)"
    out = Table()
    systems = table[table["level"] == "source"].drop(columns=["level", "character"])
    for column in systems.columns:
        out.add_column("system" if column == "source" else column, justify="left" if column == "source" else "right")
    for source, dialogues, *values in systems.itertuples(index=False):
        out.add_row(line(source), f"{dialogues:,}", *("–" if pd.isna(v) else f"{v:.3f}" for v in values))
    console().print(titled(title, out))


def score(
    data: Data = None,
    mapping: Map = "",
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default results/ and a name of its own.")
    ] = None,
    judge: Judge = "auto",
    engine: Engine = "auto",
    url: Url = None,
    protocol: Protocol = "auto",
    patience: Annotated[
        float, typer.Option(help="Seconds for which a failing server is tried again, or a silent vLLM waited for.")
    ] = 300.0,
    concurrency: Annotated[
        int | None, typer.Option(help="Ask a server about so many dialogues at once; by default what suits it.")
    ] = None,
    devices: Annotated[str, typer.Option(help="A process on each of these GPUs, with commas: 0,1.")] = "",
    tensor_parallel: Annotated[int, typer.Option(help="Split the model over so many GPUs (vLLM).")] = 1,
    rubric: RubricName = CHATANIME,
    language: Language = None,
    layout: Layout = "auto",
    orderings: Annotated[int, typer.Option(help="2 averages over levels listed upwards and downwards.")] = 1,
    answer_form: AnswerForm = "auto",
    min_mass: Annotated[
        float, typer.Option(help="Stop a judge whose answers are a level with less probability than this (median).")
    ] = MIN_MASS,
    metrics: Annotated[str, typer.Option(help="Metrics by id, with commas; all by default.")] = "",
    sources: Sources = "",
    characters: Characters = "",
    limit: Annotated[int | None, typer.Option(help="Only so many dialogues, always the same ones.")] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Only the I-th of N shares; tables writes the tables of all.")
    ] = "",
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS|auto", help="Judge by workers on this Ray cluster: HOST:PORT, or auto.")
    ] = "",
    workers: Annotated[int | None, typer.Option(help="So many workers on it; by default as many as fit.")] = None,
    gpus_per_worker: Annotated[int | None, typer.Option(help="GPUs of each; 1 by default where it has any.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Also give calibrated scores, by this file of calibrate.")
    ] = None,
    rationales: Annotated[
        int,
        typer.Option(help="Then have the judge give reasons for so many notable dialogues: no evidence, see the docs."),
    ] = 0,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate the work and its time; write nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Score dialogues into a run folder; the same command again goes on where it stopped.

    Without DATA: ChatAnime where it was fetched and a real judge was named or has a GPU; else the packaged example.
    """
    options = Options(
        run=run,
        judge=judge,
        engine=engine,
        url=url,
        protocol=protocol,
        concurrency=concurrency,
        patience=patience,
        devices=names(devices),
        tensor_parallel=tensor_parallel,
        rubric=rubric,
        language=language,
        layout=layout,
        orderings=orderings,
        answer_form=answer_form,
        min_mass=min_mass,
        metrics=some_names(metrics, "--metrics"),
        sources=names(sources),
        characters=names(characters),
        limit=limit,
        shard=shard,
        ray=ray,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        mapping=mapping,
        rationales=rationales,
    )
    with working_copy(run) if run else nullcontext() as folder:
        options = replace(options, run=folder)
        if dry_run:
            return show_dry_run(data or [], options, as_json)
        if shard:
            if calibration:
                raise InputError("--shard takes no --calibration; apply it by calibrate --use, once all have ended")
            return score_one_shard(data or [], options, as_json)
        return score_all(data or [], options, calibration, report, as_json)


def score_all(
    data: list[Path],
    options: Options,
    calibration: Path | None,
    report: bool,
    as_json: bool,
    also: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Score a run to its end, apply a calibration and write the report where that is asked for, and say how it went.

    ``also`` is what else the JSON is to say.
    """
    from judge.cli.console import terminal_progress

    calibrated = None
    with terminal_progress() as progress:  # before the imports, which take their time
        from judge.scoring.run import score as score_into_run

        if calibration:
            from judge.human_ratings.calibrated_run import Calibrated

            calibrated = Calibrated.load(calibration, progress.note)
        result = score_into_run(data, options, progress, calibrated.check if calibrated else None)
        if calibrated:
            calibrated.apply(result.run)
        with progress.busy("writing the report"):
            about_report = write_after_run(result.run) if report else ""
    if calibrated:
        about_report = f"calibrated scores, by {calibration}: scores_calibrated.csv, calibrated.parquet\n{about_report}"
    return say_result(result, about_report, as_json, also)


def say_result(result: Result, more: str, as_json: bool, also: Mapping[str, Any] = MappingProxyType({})) -> int:
    """Print a finished run, and then some ``more`` lines, or as JSON what there is ``also``; returns the exit code."""
    from judge.scoring.run_folder import read_manifest, scheme_of

    if as_json:
        facts = {
            name: getattr(result, name)
            for name in ("judge", "judgments", "missing", "suspicious", "unlisted", "explained")
        }
        facts |= {"run": shown(result.run), **also}
        print(as_one_json(facts, leaderboard=result.leaderboard, diversity=result.diversity))
    else:
        show_result(result, scheme_of(read_manifest(result.run)))
        for text in filter(None, more.split("\n")):
            print(plain(text))
    return 1 if result.missing else 0


def score_one_shard(data: list[Path], options: Options, as_json: bool) -> int:
    """Score one share of a run and say how it ended."""
    from judge.cli.console import terminal_progress

    with terminal_progress() as progress:
        from judge.scoring.run import score_shard

        shard = score_shard(data, options, progress)
    if as_json:
        print(as_json_text({**asdict(shard), "run": shown(shard.run)}))
    else:
        show_shard(shard)
    return 1 if shard.missing else 0


def tables(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    report: Annotated[bool, typer.Option(help="Write report.html too.")] = True,
    as_json: Json = False,
) -> int:
    """Write the tables and the report of a run from its judgments, as after --shard; needs neither judge nor data."""
    from judge.cli.console import terminal_progress

    with working_copy(run) as folder:
        with terminal_progress() as progress:
            from judge.scoring.run import write_tables

            with progress.busy("writing the tables"):
                result = write_tables(folder)
            with progress.busy("writing the report"):
                about_report = write_after_run(folder) if report else ""
        return say_result(result, about_report, as_json)


def diversity(data: Data = None, mapping: Map = "", as_json: Json = False) -> int:
    """Response diversity from the text alone, which needs no judge: distinct-2, self-BLEU, compression ratio."""
    from judge.cli.console import terminal_progress

    with terminal_progress() as progress:
        from judge.scoring.run import text_diversity

        table = text_diversity(data or [], mapping, progress)
    if as_json:
        print(as_json_text(json.loads(table.to_json(orient="records"))))
    else:
        show_diversity(table)
    return 0


def show_dry_run(data: list[Path], options: Options, as_json: bool) -> int:
    """Print what ``score`` would do, and how long and how much memory it would take."""
    from judge.cli.console import terminal_progress

    with terminal_progress() as progress:
        from judge.scoring.run import look_ahead

        found = look_ahead(data, options, progress)
    if as_json:
        print(as_json_text({**asdict(found), "run": shown(found.run), "seconds": found.seconds}))
        return 0
    todo = found.judgments - found.judgments_done
    place = shown(found.run)
    lines = [
        f"{found.judge} ({found.judge_id}) on {found.dialogues:,} dialogues into {place}; nothing was written",
        f"batches: {found.units_done:,} of {found.units:,} are there",
        f"judgments: {found.judgments_done:,} of {found.judgments:,} are there, {todo:,} to do",
        f"tokens to do: {found.prompt_tokens:,}, or {found.unique_tokens:,} with what prompts share counted once",
    ]
    pace, seconds = found.pace, found.seconds
    if pace is None or seconds is None:
        lines.append("time: not measured, as no dialogue is to be judged")
    else:
        hours, minutes = f"{seconds / 3600:.1f} h", f"{seconds / 60:.0f} min"
        duration = f"{seconds:.0f} s" if seconds < 100 else minutes if seconds < 6000 else hours
        lines.append(
            f"time: about {duration}, estimated from {pace.dialogues:,} dialogues just now "
            f"({pace.engine}: {pace.tokens:,} unique tokens in {pace.seconds:.2f} s, "
            f"{pace.tokens / pace.seconds:,.0f} a second); loading took {pace.loading:.1f} s"
        )
        if pace.weights_gib is not None:
            lines.append(
                f"memory: {pace.weights_gib:.2f} GiB of weights, up to {pace.kept_gib:.2f} GiB kept of what prompts "
                f"share; up to {pace.peak_gib:.2f} GiB were in use while this was measured"
            )
    if options.rationales:
        follow = f"rationales of {options.rationales:,} dialogues would follow the scores"
        lines.append(f"{follow}; their time is not in this")
    print("\n".join(map(plain, lines)))
    return 0


def show_prompts(
    dialogue: Annotated[str, typer.Argument(metavar="DIALOGUE-ID", help="source/character/scenario")],
    data: Data = None,
    mapping: Map = "",
    metric: Annotated[str | None, typer.Option(help="Only this metric; all by default.")] = None,
    judge: Judge = "auto",
    url: Url = None,
    protocol: Protocol = "auto",
    rubric: RubricName = CHATANIME,
    language: Language = None,
    layout: Layout = "auto",
    answer_form: AnswerForm = "auto",
    as_json: Json = False,
) -> int:
    """Show the prompt tree of a dialogue with its tokens, and where the answer is read.

    Without DATA: as for score. The model is loaded only to find the form of its answers, the first time.
    """
    from judge.cli.console import terminal_progress
    from judge.types import Options

    options = Options(
        judge=judge,
        url=url,
        protocol=protocol,
        rubric=rubric,
        language=language,
        layout=layout,
        answer_form=answer_form,
        metrics=(metric,) if metric else (),
        mapping=mapping,
    )
    with terminal_progress() as progress:
        from judge.scoring.preview import show

        shown = show(dialogue, data or [], options, progress)
    if as_json:
        parts = {part: {**asdict(part), "tokens": len(part.token_ids)} for part in (*shown.trunk, *shown.leaves)}
        facts = {
            "dialogue": shown.dialogue.id,
            "content_digest": shown.dialogue.content_digest,
            **{name: getattr(shown, name) for name in ("judge", "judge_id", "layout", "language")},
            "answer_form": asdict(shown.answer_form),
            "trunk": [parts[part] for part in shown.trunk],
            "leaves": [{**parts[leaf], "prompt_tokens": shown.length(leaf)} for leaf in shown.leaves],
            "level_tokens": {
                str(level): [{"text": text, "id": token} for text, token in tokens]
                for level, tokens in shown.level_tokens.items()
            },
        }
        print(as_json_text(facts))
        return 0
    lines = [
        f"{shown.dialogue.id}  content {shown.dialogue.content_digest}",
        f"{shown.judge} ({shown.judge_id}), {shown.layout}, {shown.language}",
        f"answer form: {shown.answer_form}",
    ]
    for part in shown.trunk:
        lines += [f"━━ {part.name}: {len(part.token_ids):,} tokens", *part.text.split("\n")]
    for leaf in shown.leaves:
        lines.append(f"━━ {leaf.name}: {len(leaf.token_ids):,} tokens, {shown.length(leaf):,} with all above")
        lines += f"{leaf.text}▮".split("\n")
    lines.append("━━ ▮ is where the answer is read, from these tokens")
    for level, tokens in shown.level_tokens.items():
        lines.append(f"{level}: {', '.join(f'{text!r} ({token})' for text, token in tokens)}")
    print("\n".join(map(plain, lines)))  # texts of data: nothing in them that a terminal obeys
    return 0
