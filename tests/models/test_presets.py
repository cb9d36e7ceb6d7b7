"""Which judge ``auto`` stands for: by a GPU's free memory; without one, by what can be had."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from judge.errors import EngineError
from judge.models import presets
from judge.models.hardware import Gpu, Hardware
from judge.models.presets import pick
from tests.helpers.commands import esrp_judge, refused, typed
from tests.helpers.hub import hub_of


def machine(*free_gib: float) -> Hardware:
    gpus = tuple(Gpu(i, "H200", 141.0, free, (9, 0)) for i, free in enumerate(free_gib))
    return Hardware(16, 128.0, gpus, "580.65.06", "13.0", None)


@pytest.mark.parametrize(
    ("free", "judge"),
    [([5], "qwen3-0.6b"), ([8], "qwen3-1.7b"), ([12], "qwen3-4b-2507"), ([23.9], "qwen3-4b-2507"), ([24], "qwen3-8b"),
     ([40], "qwen3-14b"), ([140], "qwen3-32b"), ([79], "qwen3-32b"), ([5, 24], "qwen3-8b")],
)  # fmt: skip
def test_auto_is_the_largest_preset_for_the_free_memory_of_a_device(free: list[float], judge: str) -> None:
    assert pick(machine(*free))[0] == judge


def test_a_full_gpu_is_an_error_and_not_a_lesser_judge() -> None:
    with pytest.raises(EngineError, match=r"2\.5 GiB free, too little"):
        pick(machine(2.5))


@pytest.fixture
def of_a_hub(nameless: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a process that reaches a Hub with the smallest preset, here of random weights."""
    with hub_of("Qwen/Qwen3-0.6B", nameless) as address:
        yield {
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "0",
            "CUDA_VISIBLE_DEVICES": "",
        }


REASON = "no GPU here: the smallest preset"


def test_without_a_gpu_auto_is_the_smallest_preset_of_a_hub_and_says_why_everywhere(
    of_a_hub: dict[str, str], short_rubric: Path, tmp_path: Path
) -> None:
    asked = ["score", "--prompts", short_rubric, "--limit", 3, "--run", "run", "--min-mass", 0]
    done = esrp_judge(*asked, cwd=tmp_path, **of_a_hub)
    assert done.returncode == 0, done.stderr
    assert f"judge qwen3-0.6b ({REASON})" in done.stderr and f"qwen3-0.6b: {REASON}" in done.stdout
    assert json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))["judge_chosen"] == REASON
    assert REASON in (tmp_path / "run" / "report.html").read_text("utf-8")
    # Named, and out of the Hub's reach, it is the same run, whose judge was chosen when it began.
    again = esrp_judge(*asked, "--judge", "qwen3-0.6b", cwd=tmp_path, **{**of_a_hub, "HF_HUB_OFFLINE": "1"})
    assert again.returncode == 0 and f"qwen3-0.6b: {REASON}" in again.stdout


def test_what_was_fetched_before_is_chosen_without_the_hub_and_for_data_of_ones_own(
    of_a_hub: dict[str, str], short_rubric: Path, tmp_path: Path
) -> None:
    line = {"source": "a", "character": "b", "scenario": "c", "question_r1": "问", "answer_r1": "答"}
    (tmp_path / "own.jsonl").write_text(json.dumps(line), encoding="utf-8")
    asked = ["score", "own.jsonl", "--prompts", short_rubric, "--dry-run", "--min-mass", 0]
    offline = {**of_a_hub, "HF_HUB_OFFLINE": "1"}
    refused(
        esrp_judge(*asked, cwd=tmp_path, **offline), "no judge is chosen for your data", "no Hub", "JUDGE=qwen3-0.6b"
    )
    for environment in (of_a_hub, offline):
        done = esrp_judge(*asked, cwd=tmp_path, **environment)
        assert done.returncode == 0 and "qwen3-0.6b" in done.stdout, done.stderr


def test_without_a_hub_auto_is_the_stand_in_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "find_spec", lambda name: None)
    name, reason = pick(machine())
    assert name == "stand-in" and "no GPU" in reason and "no Hub" in reason and "`small`" in reason
    refused(typed("score", "--judge", "gemma-3-270m", cwd=tmp_path), "pip install 'esrp-judge[small]'")


def test_a_machine_with_little_memory_is_not_given_a_preset_that_it_cannot_hold() -> None:
    name, reason = pick(replace(machine(), memory_gib=4.0))
    assert name == "stand-in" and "4.0 GiB" in reason
