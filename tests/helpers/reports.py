"""Runs to be shown: of hostile dialogues, and with rationales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unicodedata import category

from judge import load_judgments
from tests.helpers.commands import typed

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><b onmouseover=alert(1)>",
    "a\u2028b\u2029c",
    "<!--<script>",
    "{{ 7 * 7 }} %{y} $x^2$ &amp;",
    "\u202egnp.exe\u202c",
]
"""Texts that a page could take for something else."""


def dialogue(text: str, number: int, answer: str | None = None) -> dict[str, Any]:
    turns = [{"user": f"q {text}", "character": text if answer is None else answer}]
    name = "".join(c for c in text if category(c) not in ("Cc", "Zl", "Zp"))  # one line, as a name must be
    return {"source": f"s {name}", "character": f"c {name}", "scenario": f"{number} {name}", "turns": turns}


def score(folder: Path, dialogues: list[dict[str, Any]], *more: object, code: int = 0) -> Path:
    """A run of these dialogues by the stand-in, in ``run`` beside its ``data.jsonl``."""
    lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in dialogues)
    (folder / "data.jsonl").write_text("".join(lines), encoding="utf-8")
    result = typed("score", folder / "data.jsonl", "--judge", "stand-in", "--run", folder / "run", *more, cwd=folder)
    assert result.returncode == code, result.stderr
    return folder / "run"


def write_rationales(run: Path, text: str) -> None:
    """One of the first dialogue as it is, and one of what it was before."""
    first = load_judgments(run).iloc[0]
    key = {name: first[name] for name in ("judge_id", "source", "character", "scenario", "content_digest")}
    now, before = {"dimension": "role_playing"}, {"dimension": "basic_dialogue", "content_digest": "0" * 32}
    rows = [json.dumps({**key, **row, "rationale": text}) + "\n" for row in (now, before)]
    (run / "rationales.jsonl").write_text("".join(rows), encoding="utf-8")
