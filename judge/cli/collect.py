"""``collect``: have a model play characters in scenarios, and, where asked, score its dialogues beside the others.

Parses, calls ``judge.collection`` and prints.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from judge.cli.common import Characters, Json, Map, names
from judge.cli.console import console, line, plain_table
from judge.errors import InputError, plain
from judge.files import as_json_text
from judge.remote import address_of, working_copy
from judge.types import Options

if TYPE_CHECKING:
    from judge.collection.collect import Collected, CollectionPlan


JUDGE_API_KEY = "ESRP_JUDGE_API_KEY"
"""The environment variable with the key of the judge's server, where that is another than the model's."""


def collect(
    origin: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="Characters and scenarios: dialogues, or a YAML file; by default ChatAnime, or the example."
        ),
    ] = None,
    mapping: Map = "",
    model: Annotated[
        str, typer.Option(help="The server's name for the model; without --url as --judge of score has it.")
    ] = "auto",
    url: Annotated[
        str | None, typer.Option(help="Address of any OpenAI-compatible server (key in ESRP_API_KEY).")
    ] = None,
    user_model: Annotated[
        str | None, typer.Option(help="Another model for the simulated user; by default the same one.")
    ] = None,
    user_url: Annotated[
        str | None, typer.Option(help="Address of the simulated user's server (key in ESRP_USER_API_KEY).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the collection; by default results/collected-… and its name.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="What the system is called in the dialogues; by default as the model.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own role prompt: a YAML file, or a folder with one a language.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the role prompt: zh (the default) or en.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of a dialogue.")] = 2,
    follow_up: Annotated[
        Literal["simulated", "recorded"],
        typer.Option(help="Later questions: by a simulated user, or as they were recorded."),
    ] = "simulated",
    characters: Characters = "",
    scenarios: Annotated[str, typer.Option(help="Only these scenarios, with commas.")] = "",
    limit: Annotated[int | None, typer.Option(help="Only so many dialogues, always the same ones.")] = None,
    temperature: Annotated[float, typer.Option(help="How far replies are drawn; 0 is the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="The share of the likeliest tokens that is drawn from.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="The most tokens of a reply, thoughts included.")] = 512,
    seed: Annotated[int, typer.Option(help="Random seed; that of each reply is made of it.")] = 0,
    engine: Annotated[str, typer.Option(help="Without --url: auto, packed or vllm.")] = "auto",
    concurrency: Annotated[
        int | None, typer.Option(help="Collect so many dialogues of a server at once; by default what suits it.")
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds for which a failing server is tried again.")] = 300.0,
    judge: Annotated[
        str | None,
        typer.Option(help="Then score the new dialogues and those of --from beside them by this judge, or auto."),
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="Address of a server with that judge (key in ESRP_JUDGE_API_KEY).")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="With --judge: folder of that run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count and show the first prompt; ask nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Have a model play characters in scenarios; its dialogues go into score. The same command again goes on."""
    from judge.cli.console import terminal_progress

    with terminal_progress() as progress:
        from judge.collection.collect import collect as collect_dialogues
        from judge.collection.collect import plan_collection
        from judge.collection.options import CollectOptions

        options = CollectOptions(
            model=model,
            url=url,
            user_model=user_model,
            user_url=user_url,
            out=out,
            source=source,
            prompts=prompts,
            language=language,
            rounds=rounds,
            follow_up=follow_up,
            characters=names(characters),
            scenarios=names(scenarios),
            limit=limit,
            mapping=mapping,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            seed=seed,
            engine=engine,
            concurrency=concurrency,
            patience=patience,
        )
        is_scored = judge is not None or judge_url is not None
        scoring = Options(run=run, judge="auto" if judge is None else judge, url=judge_url) if is_scored else None
        if run and not scoring:
            raise InputError("--run is the folder of what --judge scores; name a judge too")
        if scoring and not dry_run:
            from judge.engines.served_model import address
            from judge.scoring.setup import open_model, settle

            if judge_url is not None:
                address(judge_url, "--judge-url")
            # Before anything is asked: whether there is such a judge, as for a user's own data. What auto stands for is
            # found again when it scores, which says why.
            with judge_asked_by_its_own_key(url, judge_url):
                _, settled, _, hardware = settle([Path()], scoring, progress)
                open_model(settled, hardware, progress)
        if not dry_run:
            result = collect_dialogues(origin or [], options, progress)
    if dry_run:
        return show_plan(plan_collection(origin or [], options), as_json)
    code = 1 if result.dialogues < result.wanted else 0
    facts = {
        **asdict(result),
        "folder": str(result.folder),
        "file": result.file and str(result.file),
        "compared": list(map(written, result.compared)),
    }
    if not as_json:
        show_collected(result)
    if scoring and result.file is not None:
        from judge.cli.score import score_all

        with judge_asked_by_its_own_key(url, judge_url), working_copy(run) if run else nullcontext() as folder:
            data, scoring = [*result.compared, result.file], replace(scoring, run=folder)
            return max(code, score_all(data, scoring, None, True, as_json, {"collected": facts}))
    if as_json:
        print(as_json_text({"run": None, "collected": facts} if scoring else facts))
    return code


@contextmanager
def judge_asked_by_its_own_key(url: str | None, judge_url: str | None) -> Iterator[None]:
    """While this lasts a judge on a server of its own is asked by its own key: the model's goes to no other server."""
    from judge.engines.connections import API_KEY
    from judge.engines.served_model import address

    if url is None or judge_url is None or address(url) == address(judge_url, "--judge-url"):
        yield
        return
    model_key = os.environ.pop(API_KEY, None)
    if own := os.environ.get(JUDGE_API_KEY):
        os.environ[API_KEY] = own
    try:
        yield
    except InputError as error:  # which speaks of the options of score
        told = str(error).replace(API_KEY, JUDGE_API_KEY).replace(" --url", " --judge-url")
        raise InputError(told) from error
    finally:
        os.environ.pop(API_KEY, None)
        if model_key is not None:
            os.environ[API_KEY] = model_key


def written(path: Path) -> str:
    """A path as a user writes it, who names a store by its address."""
    return address_of(path) or str(path)


def show_collected(result: Collected) -> None:
    """Print what was collected, what is missing and why, where it is, and the next command."""
    rows = [
        ("dialogues", f"{result.dialogues:,} of {result.wanted:,}"),
        *([("of earlier calls, in the file too", f"{result.earlier:,}")] if result.earlier else []),
        ("replies", f"{result.replies:,}"),
        ("replies of the simulated user", f"{result.user_replies:,}"),
        ("tokens written", f"{result.tokens:,}" if result.tokens else "not known"),
        ("cut at --max-tokens", f"{result.cut:,}"),
        ("further tries", f"{result.retries:,}"),
        *((f"missing: {reason}", f"{count:,}") for reason, count in result.missing.items()),
    ]
    details = [f"{reason}: {detail}" for reason, detail in result.details.items()]
    out = console()
    out.print(plain_table("", (f"collected from {result.source}", ""), rows))
    for text in details:
        out.print(line(text))
    if "only_thoughts" in " ".join(result.missing):
        out.print(line("only_thoughts: replies were cut before their thoughts ended; give more by --max-tokens"))
    if result.missing:
        out.print(line("the same command again asks for what is missing"))
    if result.file is None:
        out.print(line(f"no dialogue is complete yet; replies are in {result.folder}"))
        return
    command = shlex.join(["esrp-judge", "score", *map(written, result.compared), str(result.file)])
    out.print(line(f"{result.file}; how it came about: manifest.json"))
    print(plain(f"next: {command}"))


def show_plan(plan: CollectionPlan, as_json: bool) -> int:
    """Print what a collection would ask."""
    if as_json:
        print(as_json_text(asdict(plan)))
        return 0
    lines = [
        f"{plan.dialogues:,} dialogues of {plan.characters:,} characters; nothing was asked",
        f"replies: {plan.replies:,} of the model, {plan.user_replies:,} of the simulated user",
        *([f"with fewer recorded rounds than --rounds: {plan.fewer:,}"] if plan.fewer else []),
    ]
    for message in plan.first:
        lines += [f"━━ {message.role}", *message.content.split("\n")]
    print("\n".join(map(plain, lines)))
    return 0
