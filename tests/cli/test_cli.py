"""The command as a user types it: what it prints and its exit codes. What is refused stands in ``test_refusals``.

Where what counts is the process, as where its libraries are loaded anew, it is one of its own; else it is this one.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from judge import load_judgments
from judge.data.chatanime import FILES
from tests.helpers.commands import Result, esrp_judge, refused, typed


def test_score_with_nothing_else_scores_the_example(scored: tuple[Path, Result]) -> None:
    folder, result = scored
    assert result.returncode == 0, result.stderr
    (run,) = (folder / "results").iterdir()
    assert run.name.startswith("example-stand-in-")
    assert len(pd.read_csv(run / "scores.csv")) == 72
    assert "654 judgments in" in result.stdout
    assert "648 of 648 judgments" in result.stderr and "prompt tokens" in result.stderr
    of_dialogues = load_judgments(run)["prompt_tokens"]
    assert len(of_dialogues) == 648 and (of_dialogues > 2000).all()  # by the packaged rubric


def test_the_stand_ins_warning_stands_wherever_scores_are_shown(scored: tuple[Path, Result]) -> None:
    assert "STAND-IN judge: these scores mean nothing" in scored[1].stdout
    assert "judge means by STAND-IN" in scored[1].stdout


def test_the_same_command_again_finds_its_own_run(scored: tuple[Path, Result]) -> None:
    folder, first = scored
    again = typed("score", cwd=folder)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert len(list((folder / "results").iterdir())) == 1
    assert "of 648 judgments," not in again.stderr


def test_json_is_for_programs(scored: tuple[Path, Result]) -> None:
    result = json.loads(typed("score", "--json", cwd=scored[0]).stdout)
    assert (result["judge"], result["judgments"], result["missing"]) == ("STAND-IN", 654, {})
    assert {row["source"] for row in result["leaderboard"]} == {"plain", "steady"}


def test_missing_judgments_are_exit_code_1(short_rubric: Path, tmp_path: Path) -> None:
    row = {"source": "mine", "character": "司弦", "scenario": "1", "question_r1": "累", "answer_r1": "歇一歇。"}
    lines = [row, {**row, "scenario": "2", "answer_r1": ""}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    result = typed("score", "a.jsonl", "--judge", "stand-in", "--prompts", short_rubric, cwd=tmp_path)
    assert result.returncode == 1
    assert "missing: 9 judgments, empty_answer" in result.stdout


def test_a_run_of_another_judge_is_refused(scored: tuple[Path, Result]) -> None:
    folder, _ = scored
    (run,) = (folder / "results").iterdir()
    result = typed("score", "--run", run, "--layout", "question", cwd=folder)
    refused(result, run.name, "in layout", "choose another --run")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), ["no tokenizer there"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ["no *.safetensors"]),
        (lambda folder: (folder / "config.json").unlink(), ["no config.json"]),
        (lambda folder: _without_digit(folder / "tokenizer.json"), ["no single token of its own for level"]),
    ],
    ids=["tokenizer", "weights", "config", "levels"],
)
def test_a_model_folder_that_cannot_judge_is_refused(
    stand_in: Path, tmp_path: Path, spoil: Callable[[Path], None], parts: list[str]
) -> None:
    judge = Path(shutil.copytree(stand_in, tmp_path / "judge"))
    spoil(judge)
    refused(typed("score", "--judge", judge, cwd=tmp_path), str(judge), *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["judge"]


def _without_digit(path: Path) -> None:
    """Take the token ``3`` from the vocabulary."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["three"] = tokenizer["model"]["vocab"].pop("3")
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def test_a_model_folder_under_its_own_name_is_a_judge(nameless: Path, tmp_path: Path) -> None:
    result = typed("score", "--judge", nameless, "--limit", 3, "--metrics", "fluency", "--json", cwd=tmp_path)
    assert json.loads(result.stdout)["judge"] == "my-judge"


def test_the_stand_in_is_known_under_any_name(stand_in: Path, tmp_path: Path) -> None:
    shutil.copytree(stand_in, tmp_path / "my-judge")
    result = typed("score", "--judge", "my-judge", "--limit", 2, "--metrics", "fluency", cwd=tmp_path)
    assert "STAND-IN judge: these scores mean nothing" in result.stdout


def test_a_judge_that_cannot_be_fetched_is_exit_code_3_with_the_way_out(tmp_path: Path) -> None:
    for offline, way in (("1", "unset HF_HUB_OFFLINE"), ("0", "set HF_ENDPOINT to a mirror")):
        about = {"HF_HUB_OFFLINE": offline, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
        result = esrp_judge("score", "--judge", "qwen3-0.6b", cwd=tmp_path, **about)
        refused(result, "Qwen/Qwen3-0.6B cannot be fetched", way, "local folder", code=3)
    assert not (tmp_path / "results").exists()


@pytest.fixture
def broken_gpu(tmp_path: Path) -> dict[str, str]:
    """A machine whose driver answers and whose GPU torch cannot use."""
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho 470.57.02\n", encoding="utf-8")
    script.chmod(0o755)
    return {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("options", [[], ["--judge", "stand-in"]])
def test_a_gpu_that_cannot_be_used_is_exit_code_3(
    tmp_path: Path, broken_gpu: dict[str, str], options: list[str]
) -> None:
    result = typed("score", *options, cwd=tmp_path, **broken_gpu)
    refused(result, "470.57.02", code=3)
    assert not (tmp_path / "results").exists()


def test_a_fault_that_nobody_foresaw_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judge.scoring.setup.examine", lambda: 1 / 0)
    result = typed("doctor", cwd=tmp_path)
    refused(result, "internal error: ZeroDivisionError", "ESRP_DEBUG=1", code=3)


def test_doctor_tells_what_was_found(tmp_path: Path, stand_in: Path) -> None:
    result = typed("doctor", "--json", cwd=tmp_path, HF_ENDPOINT="https://mirror.example")
    found = json.loads(result.stdout)
    assert (result.returncode, found["judge"], found["problem"]) == (0, "stand-in", None)
    assert Path(found["stand_in_path"]) == stand_in
    assert found["environment"]["HF_ENDPOINT"] == "https://mirror.example"
    assert found["versions"]["torch"] and found["machine"]["cpus"] >= 1
    assert f"stand_in_path: {stand_in}" in typed("doctor", cwd=tmp_path).stdout


def test_doctor_reports_a_gpu_that_cannot_be_used(tmp_path: Path, broken_gpu: dict[str, str]) -> None:
    result = typed("doctor", "--json", cwd=tmp_path, **broken_gpu)
    assert result.returncode == 3
    assert "470.57.02" in json.loads(result.stdout)["problem"]


def test_diversity_needs_no_judge(tmp_path: Path) -> None:
    rows = json.loads(typed("diversity", "--json", cwd=tmp_path).stdout)
    assert [row["level"] for row in rows] == ["character"] * 6 + ["source"] * 2
    assert all(0 < row["distinct_2"] < 1 for row in rows)
    assert "steady" in typed("diversity", cwd=tmp_path).stdout


def test_data_is_fetched_from_a_folder_and_checked(tmp_path: Path, shared_data: Path) -> None:
    got = typed("data", "fetch", "--from", shared_data / "chatanime", "--folder", tmp_path / "copy", cwd=tmp_path)
    assert got.returncode == 0, got.stderr
    assert {path.name for path in (tmp_path / "copy").iterdir()} == set(FILES)
    assert typed("data", "check", tmp_path / "copy", cwd=tmp_path).returncode == 0
    (tmp_path / "copy" / "human.json").write_bytes(b"{}")
    refused(typed("data", "check", tmp_path / "copy", cwd=tmp_path), "human.json")


def test_help_names_every_command(tmp_path: Path) -> None:
    text = typed("--help", cwd=tmp_path).stdout
    assert all(name in text for name in ("score", "diversity", "layouts", "data", "doctor"))
