"""A look before running: the command ``show``, and ``score --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import Data, Json, Judge, Language, Layout, Url
from judge.errors import plain
from judge.files import as_json_text

if TYPE_CHECKING:
    from judge.scoring.preview import Part, Shown


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
    from judge.scoring.preview import show as show_prompts
    from judge.types import ALL_METRICS, Options

    metrics = (metric,) if metric else ALL_METRICS
    options = Options(judge=judge, url=url, language=language, layout=layout, prompts=prompts, metrics=metrics)
    shown = show_prompts(dialogue, data or [], options)
    if as_json:
        about = {"dialogue": shown.dialogue.id, "content_digest": shown.dialogue.content_digest}
        names = ("judge", "judge_id", "layout", "language")
        facts = {
            **about,
            **{name: getattr(shown, name) for name in names},
            "trunk": [_part(part) for part in shown.trunk],
            "leaves": [{**_part(leaf), "prompt_tokens": shown.length(leaf)} for leaf in shown.leaves],
            "level_tokens": {
                str(level): [{"text": text, "id": token} for text, token in tokens]
                for level, tokens in shown.level_tokens.items()
            },
        }
        print(as_json_text(facts))
    else:
        print("\n".join(_lines(shown)))
    return 0


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
