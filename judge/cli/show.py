"""``show``: the prompt tree of one dialogue as the judge reads it, before anything is run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from judge.cli.common import AnswerForm, Data, Json, Judge, Language, Layout, Url
from judge.errors import plain
from judge.files import as_json_text


def show(
    dialogue: Annotated[str, typer.Argument(metavar="DIALOGUE-ID", help="source/character/scenario")],
    data: Data = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric; all nine by default.")] = None,
    judge: Judge = "auto",
    url: Url = None,
    language: Language = "zh",
    layout: Layout = "prefill",
    answer_form: AnswerForm = "auto",
    prompts: Annotated[Path | None, typer.Option(help="Folder with a rubric of your own.")] = None,
    as_json: Json = False,
) -> int:
    """Show the prompt tree of a dialogue with its tokens, and where the answer is read.

    Without DATA: as for score. The model is loaded only to find the form of its answers, the first time.
    """
    from judge.cli.console import TerminalProgress
    from judge.scoring.preview import show as show_prompts
    from judge.types import ALL_METRICS, Options

    metrics = (metric,) if metric else ALL_METRICS
    options = Options(
        judge=judge,
        url=url,
        language=language,
        layout=layout,
        answer_form=answer_form,
        prompts=prompts,
        metrics=metrics,
    )
    shown = show_prompts(dialogue, data or [], options, TerminalProgress())
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
