"""A judge trained on human ratings: what it learns, that a stop changes nothing, and what it is at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from judge import EngineError, InputError, Interrupted, Options, Trained, TrainOptions, load_judgments, score, train
from judge.data.dialogues import example_files
from judge.models.checkpoint import Checkpoint
from judge.progress import Silent
from judge.scoring.run_folder import read_manifest
from judge.training import checkpoints
from judge.training.checkpoints import partial_folder
from judge.training.loss import Trainer
from tests.helpers.commands import refused, typed
from tests.helpers.paths import RATINGS

QUICK = {"epochs": 1, "rate": 1e-3, "batch_tokens": 2000, "save_every": 2}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums are the same to the last bit only where as many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def options(stand_in: Path, short_rubric: Path) -> Options:
    return Options(judge="stand-in", rubric=short_rubric)


@pytest.fixture(scope="module")
def trained(options: Options, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    how = TrainOptions(rate=1e-3, batch_tokens=4000)
    return train(example_files(), RATINGS, tmp_path_factory.mktemp("trained") / "my-judge", options, how)


class Stopping(Silent):
    """Ends the process, as far as a test can, or asks it to end, once so many steps were taken."""

    def __init__(self, after: int, politely: bool = False) -> None:
        self.left, self.politely = after, politely

    def advance(self, count: int, tokens: int) -> None:
        self.left -= 1
        if self.left == 0:
            if self.politely:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                raise KeyboardInterrupt


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_loss_falls_in_thirty_steps_also_on_dialogues_that_were_held_out(trained: Trained) -> None:
    losses = trained.record["losses"]
    assert len(losses) == trained.record["steps"] <= 30
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert trained.losses["trained"] < 0.9 * trained.losses["base"]
    assert trained.record["gradients"] == "packed"


def test_the_best_epoch_is_kept_by_the_validation_loss(trained: Trained) -> None:
    epochs = trained.record["epochs"]
    best = trained.record["best_epoch"] - 1
    assert epochs[best]["validation_loss"] == min(epoch["validation_loss"] for epoch in epochs)


def test_the_outcome_is_a_judge_of_its_own_that_scores(trained: Trained, options: Options, tmp_path: Path) -> None:
    own = Options(judge=str(trained.folder), rubric=options.rubric, run=tmp_path / "run", min_mass=0)
    result = score(example_files()[:1], own)
    manifest = read_manifest(result.run)
    assert manifest["judge"]["judge_id"] != trained.record["base"]["judge_id"]
    assert set(load_judgments(result.run)["error"].isna()) == {True}


def test_the_folder_says_how_it_came_about(trained: Trained) -> None:
    record = json.loads((trained.folder / "training.json").read_text(encoding="utf-8"))
    assert record == json.loads(json.dumps(trained.record))
    card = (trained.folder / "README.md").read_text(encoding="utf-8")
    assert all(f"| {figure.metric} | {figure.dialogues} |" in card for figure in trained.figures)
    assert Checkpoint("x", trained.folder).trained_form == record["judge"]["answer_form"]
    assert not partial_folder(trained.folder).exists()
    assert {file.stat().st_mode & 0o777 for file in trained.folder.iterdir()} == {0o644}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_that_was_stopped_ends_with_the_weights_of_an_unbroken_one(
    options: Options, tmp_path: Path, method: str
) -> None:
    how = TrainOptions(method=method, **QUICK)
    unbroken = train(example_files()[:1], RATINGS, tmp_path / "unbroken", options, how)
    with pytest.raises(KeyboardInterrupt):  # between two checkpoints
        train(example_files()[:1], RATINGS, tmp_path / "out", options, how, Stopping(3))
    assert not (tmp_path / "out").exists()
    assert [path.name for path in partial_folder(tmp_path / "out").glob("step-*")] == ["step-00000002"]
    with pytest.raises(Interrupted, match="stopped after step"):
        train(example_files()[:1], RATINGS, tmp_path / "out", options, how, Stopping(3, politely=True))
    resumed = train(example_files()[:1], RATINGS, tmp_path / "out", options, how)
    assert weights(resumed.folder) == weights(unbroken.folder)
    assert resumed.record == unbroken.record


@pytest.mark.long
def test_a_training_that_was_killed_ends_with_the_weights_of_an_unbroken_one(options: Options, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "judge", "train", *map(str, example_files()[:1]), "--judge", "stand-in"]
    command += ["--annotations", str(RATINGS), "--rubric", str(options.rubric), "--batch-tokens", "1000"]
    command += ["--save-every", "1", "--out"]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "unbroken")], check=True, env=alone, capture_output=True)
    out = tmp_path / "out"
    for step in (2, 5):
        process = subprocess.Popen(
            [*command, str(out)], env=alone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not any(int(p.name[5:]) >= step for p in partial_folder(out).glob("step-*")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert not out.exists()
    subprocess.run([*command, str(out)], check=True, env=alone, capture_output=True)
    assert weights(out) == weights(tmp_path / "unbroken")


def test_checkpoints_of_another_training_are_not_gone_on_with(options: Options, tmp_path: Path) -> None:
    how = TrainOptions(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(example_files()[:1], RATINGS, tmp_path / "out", options, how, Stopping(3))
    with pytest.raises(InputError, match=r"begun with other rate, seed; repeat those"):
        train(
            example_files()[:1], RATINGS, tmp_path / "out", options, TrainOptions(**{**QUICK, "rate": 1e-4, "seed": 1})
        )


def test_a_full_disk_is_named_and_nothing_half_written_is_taken_for_whole(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise checkpoints.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(EngineError, match=r"step-00000002: cannot be written \(No space left.* MB free of"):
        train(example_files()[:1], RATINGS, tmp_path / "out", options, TrainOptions(**QUICK))
    assert [path.name for path in partial_folder(tmp_path / "out").iterdir()] == ["plan.json"]


def test_out_of_memory_is_said_in_a_line_and_can_go_on(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Trainer, "add", lack)
    with pytest.raises(EngineError, match=r"out of memory .*Tried to allocate.*choose a smaller judge") as error:
        train(example_files()[:1], RATINGS, tmp_path / "out", options, TrainOptions(**QUICK))
    assert error.value.can_go_on and not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_named(options: Options, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(example_files()[:1], RATINGS, tmp_path / "out", options, TrainOptions(**QUICK), Stopping(3))
    (partial_folder(tmp_path / "out") / "step-00000002" / "tensors.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(EngineError, match=r"step-00000002: damaged .*begin anew"):
        train(example_files()[:1], RATINGS, tmp_path / "out", options, TrainOptions(**QUICK))


def test_the_command_prints_the_table_and_gives_json(stand_in: Path, short_rubric: Path, tmp_path: Path) -> None:
    command = ["train", example_files()[0], "--annotations", RATINGS, "--judge", "stand-in", "--rubric", short_rubric]
    command += ["--epochs", 1, "--batch-tokens", 4000, "--out"]
    found = typed(*command, "out", "--json", cwd=tmp_path)
    facts = json.loads(found.stdout)
    assert found.returncode == 0 and {figure["metric"] for figure in facts["figures"]} >= {"fluency"}
    assert facts["losses"].keys() == {"base", "trained", "constant"}
    said = typed(*command, "other", cwd=tmp_path)
    assert "on held-out scenarios and characters" in said.stdout and "--judge other" in said.stdout
    assert "Spearman on the validation dialogues" in said.stderr
    refused(typed(*command, "out", cwd=tmp_path), "--out out", "is there already")
