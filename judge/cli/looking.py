"""A look before running: the command ``show``, and ``score --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import Data, Json, Judge, Language, Layout, Url, as_json_text
from judge.errors import plain

if TYPE_CHECKING:
    from judge.foresight import Foresight
    from judge.options import Options
    from judge.showing import Part, Shown


def show(
    dialogue: Annotated[str, typer.Argument(metavar="DIALOGUE-ID", help="source/character/scenario")],
    data: Data = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric; all nine by default.")] = None,
    judge: Judge = "auto",
    url: Url = None,
    language: Language = "zh",
    layout: Layout = "prefill",
    prompts: Annotated[Path | None, typer.Option(help="Folder with a rubric of your own.")] = None,
    as_json: Json = False,
) -> int:
    """Show what the judge reads of a dialogue: the prompt's tree with its tokens, and where the answer is read.

    Without DATA: as for score. No model is loaded, only its tokenizer.
    """
    from judge.options import ALL_METRICS, Options
    from judge.showing import show as show_prompts

    metrics = (metric,) if metric else ALL_METRICS
    options = Options(judge=judge, url=url, language=language, layout=layout, prompts=prompts, metrics=metrics)
    shown = show_prompts(dialogue, data or [], options)
    if as_json:
        print(as_json_text(_facts(shown)))
    else:
        print("\n".join(_lines(shown)))
    return 0


def _facts(shown: Shown) -> dict[str, Any]:
    about = {"dialogue": shown.dialogue.id, "content_digest": shown.dialogue.content_digest}
    names = ("judge", "judge_id", "layout", "language")
    return {
        **about,
        **{name: getattr(shown, name) for name in names},
        "trunk": [_part(part) for part in shown.trunk],
        "leaves": [{**_part(leaf), "prompt_tokens": shown.length(leaf)} for leaf in shown.leaves],
        "level_tokens": {
            str(level): [{"text": text, "id": token} for text, token in tokens]
            for level, tokens in shown.level_tokens.items()
        },
    }


def _part(part: Part) -> dict[str, Any]:
    return {**asdict(part), "tokens": len(part.token_ids)}


def _lines(shown: Shown) -> Iterator[str]:
    """The tree from its root on, each part under its name and its tokens; nothing in it that a terminal obeys."""
    yield plain(f"{shown.dialogue.id}  content {shown.dialogue.content_digest}")
    yield plain(f"{shown.judge} ({shown.judge_id}), {shown.layout}, {shown.language}")
    for part in shown.trunk:
        yield f"━━ {part.name}: {len(part.token_ids):,} tokens"
        yield from map(plain, part.text.split("\n"))
    for leaf in shown.leaves:
        yield f"━━ {leaf.name}: {len(leaf.token_ids):,} tokens, {shown.length(leaf):,} with all above"
        yield from map(plain, f"{leaf.text}▮".split("\n"))
    yield "━━ ▮ is where the answer is read, from these tokens"
    for level, tokens in shown.level_tokens.items():
        yield plain(f"{level}: {', '.join(f'{text!r} ({token})' for text, token in tokens)}")


def dry_run(data: list[Path], options: Options, as_json: bool) -> int:
    """Print what ``score`` would do and take."""
    from judge.run import look_ahead
    from judge.terminal import TerminalProgress

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
