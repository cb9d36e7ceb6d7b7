"""The outcome: an ordinary model folder with merged weights, the record of its training and a model card."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judge.files import as_json_text, made_folder
from judge.models.checkpoint import TOKENIZER_FILES, TRAINING, Checkpoint
from judge.scoring.parts import telling
from judge.training.checkpoints import as_os_error

NOT_COPIED = {"config.json", "model.safetensors.index.json", TRAINING}
"""Files of the base's folder that are of its weights, or written anew."""


def licence_of(base: Checkpoint) -> str | None:
    """What the base's configuration or model card says of its licence; None where they say nothing."""
    card = base.folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace")[:10_000] if card.is_file() else ""
    found = re.search(r"^license:\s*[\"']?([\w.+-]+)", head, re.MULTILINE) if head.startswith("---") else None
    said = found[1] if found else base.config.get("license")
    return str(said) if said else None


def write_model(out: Path, network: Any, base: Checkpoint, record: Mapping[str, Any]) -> None:
    """Write the model folder, which appears whole by one rename; EngineError where it cannot be written.

    Args:
        out: the folder, which is not there yet.
        network: a model of transformers, with all that was trained merged.
        base: where tokenizer, chat template and licence are copied from.
        record: what ``training.json`` says.
    """

    def write(beside: Path) -> None:
        for pattern in (*TOKENIZER_FILES, "LICENSE*", "NOTICE*"):
            for file in base.folder.glob(pattern):
                if file.name not in NOT_COPIED and file.is_file():
                    shutil.copyfile(file, beside / file.name)
        with as_os_error():
            network.save_pretrained(beside)
        (beside / TRAINING).write_text(as_json_text(dict(record)) + "\n", encoding="utf-8")
        (beside / "README.md").write_text(card(record), encoding="utf-8")
        for file in beside.iterdir():
            os.chmod(file, 0o644)  # weights and folder were made for this user alone
        os.chmod(beside, 0o755)

    with telling("written", out):
        made_folder(out, write)


def card(record: Mapping[str, Any]) -> str:
    """The model card, in Markdown."""
    base, data, judge = record["base"], record["split"]["dialogues"], record["judge"]
    front = [f"license: {base['licence']}"] if base["licence"] else []

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    def gain(figure: Mapping[str, Any]) -> str:
        one = figure["gain"]
        ends = "" if one["low"] is None else f" ({one['low']:.2f} to {one['high']:.2f})"
        return number(one["value"]) + ends

    rows = [
        f"| {one['metric']} | {one['dialogues']} | {one['groups']} | {number(one['base'])} | "
        f"{number(one['trained'])} | {gain(one)} |"
        for one in record["figures"]
    ]
    unknown = "unknown: see where the base is from"
    lines = [
        *(["---", *front, "---", ""] if front else []),
        "# A judge trained on human ratings",
        "",
        f"Base: {base['name']} (judge_id `{base['judge_id']}`), licence {base['licence'] or unknown}.",
        f"Trained by esrp-judge on {data['training']:,} rated dialogues; {data['validation']:,} said when to stop, and "
        f"{data['held_out']:,} of scenarios or characters that it never saw are what the table is about.",
        f"Data {record['data_digest']}, seed {record['options']['seed']}; splits, options and losses: `{TRAINING}`.",
        "",
        "Spearman's correlation with the mean human ratings (gain: with its paired 95% interval over scenarios, where "
        "there are scenarios enough):",
        "",
        "| metric | dialogues | scenarios | base | trained | gain |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Trained for rubric {judge['rubric']}, language {judge['language']}, layout {judge['layout']}, answer form "
        f"{judge['answer_form']}: of other rubrics and other annotators nothing is known.",
        "",
    ]
    return "\n".join(lines)
