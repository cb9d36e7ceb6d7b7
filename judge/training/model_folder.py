"""The outcome: a model folder with merged weights, or with an adapter, the record of its training and a model card."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from judge.errors import InputError
from judge.files import as_json_text, made_folder
from judge.models.checkpoint import OF_WEIGHTS, TOKENIZER_FILES, TRAINING, Checkpoint
from judge.scoring.parts import telling
from judge.training.checkpoints import as_os_error
from judge.training.tables import TextTable


def licence_of(base: Checkpoint) -> str | None:
    """What the base's configuration or model card says of its licence; None where they say nothing."""
    card = base.folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace")[:10_000] if card.is_file() else ""
    found = re.search(r"^license:\s*[\"']?([\w.+-]+)", head, re.MULTILINE) if head.startswith("---") else None
    said = found[1] if found else base.config.get("license")
    return str(said) if said else None


def refuse_what_is_there(out: Path) -> None:
    """InputError where the folder to write is there already."""
    if out.exists() or out.is_symlink():
        raise InputError(f"--out {out}: is there already; remove it or name another folder")


def write_model(
    out: Path, weights: Any, base: Checkpoint, record: Mapping[str, Any], tables: Iterable[TextTable]
) -> None:
    """Write the model folder, which appears whole by one rename; EngineError where it cannot be written.

    Args:
        out: the folder, which is not there yet.
        weights: a model of transformers, with all that was trained merged; or a folder with its adapter.
        base: where tokenizer, chat template and licence are copied from.
        record: what ``training.json`` says.
        tables: the figures, for the model card.
    """

    def write(beside: Path) -> None:
        for pattern in (*TOKENIZER_FILES, "LICENSE*", "NOTICE*"):
            for file in base.folder.glob(pattern):
                if file.name not in {*OF_WEIGHTS, TRAINING} and file.is_file():
                    shutil.copyfile(file, beside / file.name)
        with as_os_error():
            if isinstance(weights, Path):
                shutil.copytree(weights, beside, dirs_exist_ok=True)
            else:
                weights.save_pretrained(beside)
        (beside / TRAINING).write_text(as_json_text(dict(record)) + "\n", encoding="utf-8")
        (beside / "README.md").write_text(card(record, tables), encoding="utf-8")
        for file in beside.iterdir():
            os.chmod(file, 0o644)  # weights and folder were made for this user alone
        os.chmod(beside, 0o755)

    refuse_what_is_there(out)  # it may have appeared during the training, whose checkpoints are kept
    with telling("written", out):
        made_folder(out, write)


def card(record: Mapping[str, Any], tables: Iterable[TextTable]) -> str:
    """The model card, in Markdown."""
    base, data, judge = record["base"], record["split"]["dialogues"], record["judge"]
    front = [f"license: {base['licence']}"] if base["licence"] else []
    unknown = "unknown: see where the base is from"
    lines = [
        *(["---", *front, "---", ""] if front else []),
        "# A judge trained on human ratings",
        "",
        f"Base: {base['name']} (judge_id `{base['judge_id']}`), licence {base['licence'] or unknown}.",
        f"Trained by esrp-judge on {data['training']:,} rated dialogues; {data['validation']:,} said when to stop, and "
        f"{data['held_out']:,} of scenarios, characters or a system that it never saw are what the tables are about.",
        f"Data {record['data_digest']}, seed {record['options']['seed']}; splits, options and losses: `{TRAINING}`.",
        "",
        *(line for table in tables for line in (f"{table.title}:", "", *_markdown(table), "")),
        f"Trained for rubric {judge['rubric']}, language {judge['language']}, layout {judge['layout']}, answer form "
        f"{judge['answer_form']}: of other rubrics and other annotators nothing is known.",
        "",
    ]
    return "\n".join(lines)


def _markdown(table: TextTable) -> Iterator[str]:
    """The lines of a table."""
    yield f"| {' | '.join(table.heads)} |"
    yield "|---" * len(table.heads) + "|"
    for row in table.rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
