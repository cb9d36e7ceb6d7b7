"""The command ``esrp-judge``: options in, tables out, one line for an error, and the exit code."""

from __future__ import annotations

import json
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from judge.errors import JudgeError, plain

app = typer.Typer(
    help="Rate emotionally supportive role-play dialogues with a local LLM judge, on nine metrics and on diversity.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
data_app = typer.Typer(help="The ChatAnime data set: fetch it, check a copy.")
app.add_typer(data_app, name="data")

Data = Annotated[
    list[Path] | None, typer.Argument(metavar="DATA…", help="Dialogues: .json .jsonl .csv .parquet, or a folder.")
]
Engine = Annotated[str, typer.Option(help="auto, packed, vllm or server.")]
Url = Annotated[str | None, typer.Option(help="Address of a server with the judge (key in ESRP_API_KEY).")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


@app.command()
def score(
    data: Data = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default results/ and a name of its own.")
    ] = None,
    judge: Annotated[
        str, typer.Option(help="auto, stand-in, a preset (qwen3-8b …), a Hub id or a model folder.")
    ] = "auto",
    engine: Engine = "auto",
    url: Url = None,
    patience: Annotated[float, typer.Option(help="Seconds for which a failing server is tried again.")] = 300.0,
    devices: Annotated[str, typer.Option(help="A process on each of these GPUs, with commas: 0,1.")] = "",
    tensor_parallel: Annotated[int, typer.Option(help="Split the model over so many GPUs (vLLM).")] = 1,
    language: Annotated[str, typer.Option(help="Language of the rubric: zh or en.")] = "zh",
    layout: Annotated[str, typer.Option(help="How the metric is asked: prefill, question or separate.")] = "prefill",
    orderings: Annotated[int, typer.Option(help="2 averages over levels listed upwards and downwards.")] = 1,
    metrics: Annotated[str | None, typer.Option(help="Metrics by id, with commas; all by default.")] = None,
    sources: Annotated[str, typer.Option(help="Only these sources, with commas.")] = "",
    characters: Annotated[str, typer.Option(help="Only these characters, with commas.")] = "",
    limit: Annotated[int | None, typer.Option(help="Only so many dialogues, always the same ones.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Folder with a rubric of your own.")] = None,
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
        devices=_listed(devices),
        tensor_parallel=tensor_parallel,
        language=language,
        layout=layout,
        orderings=orderings,
        metrics=_listed(metrics) if metrics is not None else ALL_METRICS,
        sources=_listed(sources),
        characters=_listed(characters),
        limit=limit,
        prompts=prompts,
    )
    progress = TerminalProgress()
    try:
        result = score_into_run(data or [], options, progress)
    finally:
        progress.finish()
    if as_json:
        facts = {name: getattr(result, name) for name in ("judge", "judgments", "missing")}
        print(_json({"run": str(result.run), **facts}, leaderboard=result.leaderboard, diversity=result.diversity))
    else:
        show(result, load_rubric(language, prompts))
    return 1 if result.missing else 0


@app.command()
def diversity(data: Data = None, as_json: Json = False) -> int:
    """Response diversity from the text alone, which needs no judge: distinct-2, self-BLEU, compression ratio."""
    from judge.run import text_diversity
    from judge.terminal import show_diversity

    table = text_diversity(data or [])
    if as_json:
        print(table.to_json(orient="records", force_ascii=False))
    else:
        show_diversity(table)
    return 0


@app.command()
def layouts(
    data: Data = None,
    judge: Annotated[
        str, typer.Option(help="auto, stand-in, a preset (qwen3-8b …), a Hub id or a model folder.")
    ] = "auto",
    engine: Engine = "auto",
    url: Url = None,
    sources: Annotated[str, typer.Option(help="Only these sources, with commas.")] = "",
    characters: Annotated[str, typer.Option(help="Only these characters, with commas.")] = "",
    limit: Annotated[int, typer.Option(help="How many dialogues, always the same ones.")] = 100,
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

    _refuse_unwritable(out)
    ratings = _ratings(annotations) if annotations else None
    progress = TerminalProgress()
    try:
        comparison = compare_layouts(
            data or [],
            Options(
                judge=judge,
                engine=engine,
                url=url,
                sources=_listed(sources),
                characters=_listed(characters),
                limit=limit,
            ),
            ratings,
            progress,
        )
    finally:
        progress.finish()
    if out:
        _write_csv(out, comparison.table)
    if as_json:
        facts = {name: getattr(comparison, name) for name in ("judge", "dialogues", "missing", "best", "remarks")}
        print(_json(facts, table=comparison.table))
    else:
        show_layouts(comparison)
    return 1 if comparison.missing else 0


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    judge: Annotated[str, typer.Option(help="As for score.")] = "auto",
    port: Annotated[int, typer.Option(help="On which port of this machine.")] = 8000,
) -> int:
    """Serve a judge by vLLM on this machine, for score --url; further options go to vLLM as they are."""
    from judge.serve import serve as become_server

    become_server(judge, port, context.args)


@data_app.command("fetch")
def fetch_data(
    folder: Annotated[Path | None, typer.Option(help="Where to put it; by default the cache.")] = None,
    origin: Annotated[Path | None, typer.Option("--from", help="Copy from this folder instead of the network.")] = None,
) -> int:
    """Get ChatAnime (17 MB) at a pinned commit, checksums checked; a broken download goes on where it stopped."""
    from judge.fetch import chatanime_folder, fetch
    from judge.terminal import FetchProgress

    folder = folder or chatanime_folder()
    with FetchProgress() as progress:
        fetch(folder, origin, on_progress=progress.show)
    print(f"ChatAnime is in {folder}")
    return 0


@data_app.command("check")
def check_data(
    folder: Annotated[Path | None, typer.Argument(help="A copy; by default the one in the cache.")] = None,
) -> int:
    """Verify a copy of ChatAnime against the pinned checksums."""
    from judge.errors import InputError, listed
    from judge.fetch import chatanime_folder, check

    folder = folder or chatanime_folder()
    problems = check(folder)
    if problems:
        raise InputError(listed(problems))
    print(f"{folder}: all files of ChatAnime, as published")
    return 0


@app.command()
def doctor(as_json: Json = False) -> int:
    """Say what was found: hardware, driver, versions, engines, caches and mirrors, and which judge auto would pick."""
    from judge.doctor import examine
    from judge.terminal import show_examination

    found = examine()
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        show_examination(found)
    return 3 if found["problem"] else 0


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _json(facts: dict[str, Any], **tables: Any) -> str:
    """Facts and tables as one JSON object; NaN is null."""
    records = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    return json.dumps({**facts, **records}, ensure_ascii=False, indent=2)


def _ratings(path: Path) -> Any:
    from calibration import TableError, read_ratings
    from judge.errors import InputError

    try:
        return read_ratings(path)
    except TableError as error:
        raise InputError(f"--annotations {error}") from error


def _refuse_unwritable(out: Path | None) -> None:
    """Say so before the work, not after it, where a file cannot be written."""
    from judge.errors import InputError

    if out and (out.is_dir() or not os.access(out.parent, os.W_OK)):
        raise InputError(f"--out {out}: cannot be written; name a file in a folder that is there and yours")


def _write_csv(path: Path, table: Any) -> None:
    from judge.files import replacing

    with replacing(path) as file:
        table.to_csv(file, index=False, float_format="%.4f", lineterminator="\n")


def main() -> None:
    """Run the command; an error is one line on stderr, its kind the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if sys.argv[1:] in ([], ["data"]):
        sys.argv.append("--help")
    try:
        code = app(standalone_mode=False)
    except JudgeError as error:
        code = _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        code = _fail(f"{error.format_message().rstrip('.')}; see --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("stopped at once; run the same command again to go on", 130)
    except Exception as error:  # a fault of ours, still told in one line
        if os.environ.get("ESRP_DEBUG"):
            raise
        code = _fail(f"internal error: {type(error).__name__}: {error}; ESRP_DEBUG=1 shows where; please report it", 3)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> int:
    lines = message.split("\n  ")  # as ``listed`` breaks them
    print("esrp-judge: " + "\n  ".join(plain(" ".join(line.split())) for line in lines), file=sys.stderr)
    return code
