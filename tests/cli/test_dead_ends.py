"""No command leaves what the next one refuses, and what a refusal says to do works."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.commands import Result, refused, typed

SYSTEMS = ("claude-sonnet-4", "deepseek-v3", "doubao-1.5-pro", "gpt-4.1", "qwen-max")
"""Systems of ChatAnime, whose means are published."""


def score(folder: Path, metrics: str, answer: str = "好的", run: str = "run") -> Result:
    rows = [
        {"source": s, "character": "c", "scenario": f"{n}", "question_r1": f"问 {n}", "answer_r1": answer}
        for s in SYSTEMS
        for n in range(2)
    ]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    rated = [{**{n: row[n] for n in ("source", "character", "scenario")}, "metric": "fluency"} for row in rows]
    pd.DataFrame([{**row, "annotator": a, "score": 3} for row in rated for a in "ab"]).to_csv(
        folder / "r.csv", index=False
    )
    how = ("--judge", "stand-in", "--run", run, "--no-report", "--metrics", metrics)
    return typed("score", "a.jsonl", *how, cwd=folder)


@pytest.mark.parametrize("earlier", [None, "level,source,character,dialogues\n", "\n"])
def test_some_metrics_leave_a_run_that_every_command_takes(tmp_path: Path, earlier: str | None) -> None:
    """Earlier versions left a ``diversity.csv`` without rows where the judge was not asked for diversity."""
    assert score(tmp_path, "fluency,coherency").returncode == 0
    assert not (tmp_path / "run" / "diversity.csv").exists()
    if earlier is not None:
        (tmp_path / "run" / "diversity.csv").write_text(earlier, encoding="utf-8")
    for command in (
        ("agree", "run"),
        ("agree", "run", "--annotations", "r.csv"),
        ("report", "run", "--annotations", "r.csv"),
        ("estimate", "run", "--annotations", "r.csv"),
        ("compare", "run", *SYSTEMS[:2]),
        ("plan", "run", "--budget", "2", "--overlap", "0", "--out", "plan.csv"),
        ("tables", "run"),
    ):
        result = typed(*command, cwd=tmp_path)
        assert result.returncode == 0, (command, result.stderr)
        for written in tmp_path.glob("plan.*"):
            written.unlink()


COMMANDS = [
    ("agree", "run", "--annotations", "r.csv"),
    ("report", "run", "--annotations", "r.csv"),
    ("compare", "run", *SYSTEMS[:2]),
    ("plan", "run", "--budget", "2", "--overlap", "0", "--out", "plan.csv"),
]


def test_a_run_of_diversity_alone_says_what_to_score(tmp_path: Path) -> None:
    assert score(tmp_path, "response_diversity").returncode == 0
    for command in COMMANDS:
        refused(
            typed(*command, cwd=tmp_path), "run: holds no scores of dialogues", "other --metrics into another --run"
        )
    assert score(tmp_path, "fluency", run="another").returncode == 0
    assert [typed(name, "another", *more, cwd=tmp_path).returncode for name, _, *more in COMMANDS] == [0] * len(
        COMMANDS
    )


def test_a_run_without_any_judgment_names_the_command_that_says_why(tmp_path: Path) -> None:
    assert score(tmp_path, "fluency", answer=" ").returncode == 1
    for command in COMMANDS:
        refused(typed(*command, cwd=tmp_path), "all of its judgments are missing", "`esrp-judge tables run` says why")
    assert "missing: 10 judgments, empty_answer" in typed("tables", "run", cwd=tmp_path).stdout


@pytest.mark.parametrize("lost", ["all", "one part"])
def test_a_run_that_lost_judgments_after_its_end_is_refused_until_they_are_there_again(
    tmp_path: Path, lost: str
) -> None:
    assert score(tmp_path, "fluency,coherency").returncode == 0
    parts = list((tmp_path / "run" / "judgments").glob("*.parquet"))
    for part in parts if lost == "all" else parts[:1]:
        part.unlink()
    for command in COMMANDS:
        result = typed(*command, cwd=tmp_path)
        refused(result, "parts of its judgments are not there any more", "give the run's score command again")
    assert score(tmp_path, "fluency,coherency").returncode == 0
    assert all(typed(*command, cwd=tmp_path).returncode == 0 for command in COMMANDS)


def test_the_version_is_told(tmp_path: Path) -> None:
    result = typed("--version", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"esrp-judge {version('esrp-judge')}\n", "")
