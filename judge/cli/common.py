"""What the commands share: options that mean the same everywhere, and ways to hand results to programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from judge.errors import InputError

Data = Annotated[
    list[Path] | None, typer.Argument(metavar="DATA…", help="Dialogues: .json .jsonl .csv .parquet, or a folder.")
]
Judge = Annotated[str, typer.Option(help="auto, stand-in, a preset (qwen3-8b …), a Hub id or a model folder.")]
Engine = Annotated[str, typer.Option(help="auto, packed, vllm or server.")]
Url = Annotated[str | None, typer.Option(help="Address of a server with the judge (key in ESRP_API_KEY).")]
Sources = Annotated[str, typer.Option(help="Only these sources, with commas.")]
Characters = Annotated[str, typer.Option(help="Only these characters, with commas.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def as_one_json(facts: dict[str, Any], **tables: Any) -> str:
    """Facts and tables as one JSON object; NaN is null."""
    records = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    return json.dumps({**facts, **records}, ensure_ascii=False, indent=2)


def refuse_unwritable(out: Path | None) -> None:
    """Say so before the work, not after it, where a file cannot be written."""
    if out and (out.is_dir() or not os.access(out.parent, os.W_OK)):
        raise InputError(f"--out {out}: cannot be written; name a file in a folder that is there and yours")


def make_folder(folder: Path) -> None:
    """A folder to write into; InputError where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be made ({error.strerror}); name another folder") from error


def write_csv(path: Path, table: Any) -> None:
    """Write a table, whole or not at all."""
    from judge.files import replacing

    with replacing(path) as file:
        table.to_csv(file, index=False, float_format="%.4f", lineterminator="\n")
