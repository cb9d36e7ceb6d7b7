"""What the commands share: options that mean the same everywhere, and ways to hand results to programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
Language = Annotated[str, typer.Option(help="Language of the rubric: zh or en.")]
Layout = Annotated[str, typer.Option(help="How the metric is asked: prefill, question or separate.")]
Few = Annotated[int, typer.Option(help="How many dialogues, always the same ones.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def some_names(text: str, option: str) -> tuple[str, ...]:
    """The same of an option that means all where it is left out; InputError where it names none."""
    found = names(text)
    if text and not found:
        raise InputError(f"{option} names none; leave it out for all")
    return found


def as_one_json(facts: dict[str, Any], **tables: Any) -> str:
    """Facts and tables as one JSON object; NaN is null."""
    records = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    return as_json_text({**facts, **records})


def as_json_text(found: dict[str, Any] | list[Any]) -> str:
    """JSON that every program reads and no terminal obeys; ValueError for a NaN that nobody made null."""
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, indent=2)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def refuse_unwritable(out: Path | None) -> None:
    """Say so before the work, not after it, where a file cannot be written."""
    if out and (os.path.isdir(out) or not os.access(out.parent, os.W_OK)):
        raise InputError(f"--out {out}: cannot be written; name a file in a folder that is there and yours")


def refuse_unwritable_folder(folder: Path | None, *files: str) -> None:
    """Say so before the work where these files cannot be written to a folder, which need not be there yet."""
    if folder is None:
        return
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"--out {folder}: cannot be written; name a folder that is yours")
    for name in files:
        if (folder / name).is_dir():
            raise InputError(f"--out {folder}: holds a folder {name}; name another folder")


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """A folder to write into, made where it is not there; InputError where it, or a file in it, cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror}); name another folder") from error


def write_csv(path: Path, table: Any) -> None:
    """Write a table, whole or not at all; InputError where it cannot be written."""
    from judge import sheets
    from judge.files import replacing

    with _told(path), replacing(path) as file:
        sheets.write_csv(table, file)


def write_text(path: Path, text: str) -> None:
    """Write a text and a line break, whole or not at all."""
    from judge.files import replacing

    with _told(path), replacing(path) as file:
        file.write(f"{text}\n".encode())


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file") from error
