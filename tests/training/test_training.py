"""A judge trained on human ratings: what it learns, that a stop changes nothing, and what it is at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from judge import EngineError, InputError, Interrupted, Options, Trained, TrainOptions, load_judgments, score, train
from judge.data.dialogues import example_files
from judge.models.checkpoint import Checkpoint, resolve, stand_in
from judge.progress import Silent
from judge.report.page import write_report
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
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ratings on two metrics."""
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    table = pd.read_csv(RATINGS)
    table[table["metric"].isin(["fluency", "emotional_value"])].to_csv(path, index=False)
    return path


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
    assert all(f"\n| {figure.metric} | {figure.spearman['base']:.2f} |" in card for figure in trained.figures)
    assert Checkpoint("x", trained.folder).training == record
    assert not partial_folder(trained.folder).exists()
    assert {file.stat().st_mode & 0o777 for file in trained.folder.iterdir()} == {0o644}


def test_what_it_reaches_stands_in_the_folder_the_manifest_and_the_report(
    trained: Trained, options: Options, tmp_path: Path
) -> None:
    judges = {name for figure in trained.figures for name, value in figure.spearman.items() if value is not None}
    assert judges >= {"base", "trained", "calibrated trained"}
    own = Options(judge=str(trained.folder), rubric=options.rubric, run=tmp_path / "run", min_mass=0, limit=4)
    run = score(example_files()[:1], own).run
    assert read_manifest(run)["judge"]["training"]["figures"] == trained.record["figures"]
    page = write_report(run).read_text(encoding="utf-8")
    gained = f"{trained.figures[0].gains['base'].value:.2f}"
    assert "这个评分器是怎样训练的" in page and gained in page.partition("这个评分器是怎样训练的")[2]


def test_a_calibration_of_the_base_is_refused(few: Path, trained: Trained, options: Options, tmp_path: Path) -> None:
    base = ["score", example_files()[0], "--judge", "stand-in", "--rubric", options.rubric]
    assert typed(*base, "--run", "base", cwd=tmp_path).returncode == 0
    fit = ["calibrate", tmp_path / "base", "--annotations", few, "--out", tmp_path / "maps.json"]
    assert typed(*fit, cwd=tmp_path).returncode == 0
    judged = ["score", example_files()[0], "--judge", trained.folder, "--rubric", options.rubric, "--min-mass", 0]
    judged += ["--run", tmp_path / "own", "--calibration", tmp_path / "maps.json"]
    found = typed(*judged, cwd=tmp_path)
    assert found.returncode == 2 and not found.stdout
    assert "the calibration was fitted on another judge: weights differs; fit it on this one" in found.stderr


def test_an_adapter_beside_its_base_is_the_same_judge_as_one_merged_into_it(
    few: Path, options: Options, tmp_path: Path
) -> None:
    merged = train(example_files()[:1], few, tmp_path / "merged", options, TrainOptions(**QUICK))
    apart = train(example_files()[:1], few, tmp_path / "apart", options, TrainOptions(**QUICK, adapter=True))
    assert not (apart.folder / "config.json").exists() and apart.record == merged.record
    ids = set()
    for folder in (merged.folder, apart.folder):
        own = Options(
            judge=str(folder), rubric=options.rubric, run=tmp_path / f"run-{folder.name}", min_mass=0, limit=4
        )
        found = load_judgments(score(example_files()[:1], own).run)
        ids.add((tuple(found["judge_id"].unique()), tuple(found["score"].round(5))))
    assert len(ids) == 1


def test_an_adapter_of_another_base_is_refused(few: Path, options: Options, tmp_path: Path) -> None:
    apart = train(example_files()[:1], few, tmp_path / "apart", options, TrainOptions(**QUICK, adapter=True))
    config = apart.folder / "adapter_config.json"

    def based_on(base: str) -> CompletedProcess[str]:
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": base}))
        return typed("score", example_files()[0], "--judge", apart.folder, "--run", "run", cwd=tmp_path)

    other = tmp_path / "other"
    shutil.copytree(stand_in((1, 2)).folder, other)
    tensors = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, other / "model.safetensors", {"format": "pt"})
    refused(based_on("../other"), "has other weights than the base it was trained on", "adapter_config.json")
    refused(based_on("../gone"), "its base ../gone: neither a preset")
    config.write_text("{}")
    refused(typed("score", example_files()[0], "--judge", apart.folder, "--run", "run", cwd=tmp_path), "names no base")


def test_an_adapter_is_the_judge_that_was_measured_also_where_its_base_has_narrower_weights(
    few: Path, options: Options, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(stand_in().folder, base)
    tensors = {name: value.bfloat16() for name, value in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    own = replace(options, judge=str(base))
    merged = train(example_files()[:1], few, tmp_path / "merged", own, TrainOptions(**QUICK))
    apart = train(example_files()[:1], few, tmp_path / "apart", own, TrainOptions(**QUICK, adapter=True))
    assert apart.record["judge"]["dtype"] == "float32"
    digests = [resolve(str(one.folder)).weights_digest for one in (merged, apart)]
    assert digests[0] == digests[1] != Checkpoint("base", base).weights_digest


def test_an_adapter_that_is_damaged_or_its_own_base_is_said_and_its_template_is_its_own(
    few: Path, options: Options, tmp_path: Path
) -> None:
    apart = train(example_files()[:1], few, tmp_path / "apart", options, TrainOptions(**QUICK, adapter=True)).folder
    before = resolve(str(apart)).folder
    template = (apart / "chat_template.jinja").read_text()
    (apart / "chat_template.jinja").write_text(template + "{# mine #}")
    after = resolve(str(apart)).folder
    assert after != before and "mine" in (after / "chat_template.jinja").read_text()
    again = ["score", example_files()[0], "--judge", apart, "--run", "run"]
    weights, config = apart / "adapter_model.safetensors", apart / "adapter_config.json"
    learned = {name: tensor.clone() for name, tensor in load_file(weights).items()}  # and not a map of the file
    weights.write_bytes(weights.read_bytes()[:5000])
    refused(typed(*again, cwd=tmp_path), "damaged, or does not fit its base", "save the adapter again", code=3)
    name = next(iter(learned))
    for other in ({k: v for k, v in learned.items() if k != name}, {**learned, f"more.{name}": learned[name].clone()}):
        save_file(other, weights)
        refused(typed(*again, cwd=tmp_path), "have no place there or are missing", name, code=3)
    for base in (".", "", str(apart)):
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": base}))
        refused(typed(*again, cwd=tmp_path), "its base leads back to itself; name the model it was trained on")


def test_a_foreign_adapter_over_a_trained_judge_does_not_carry_its_figures(
    few: Path, trained: Trained, options: Options, tmp_path: Path
) -> None:
    own = replace(options, judge=str(trained.folder))
    apart = train(example_files()[:1], few, tmp_path / "apart", own, TrainOptions(**QUICK, adapter=True)).folder
    (apart / "training.json").unlink()
    assert resolve(str(apart)).training is None


def test_a_folder_that_appears_during_a_training_is_left_alone_and_nothing_is_lost(
    few: Path, options: Options, tmp_path: Path
) -> None:
    class Appearing(Silent):
        def advance(self, count: int, tokens: int) -> None:
            (tmp_path / "out").mkdir(exist_ok=True)

    with pytest.raises(InputError, match="out: is there already"):
        train(example_files()[:1], few, tmp_path / "out", options, TrainOptions(**QUICK), Appearing())
    assert list((tmp_path / "out").iterdir()) == [] and list(partial_folder(tmp_path / "out").glob("step-*"))
    (tmp_path / "out").rmdir()
    assert train(example_files()[:1], few, tmp_path / "out", options, TrainOptions(**QUICK)).record["steps"] > 0


def test_ratings_in_another_spelling_are_of_the_same_dialogues(few: Path, options: Options, tmp_path: Path) -> None:
    table = pd.read_csv(few)
    upper = table.assign(source=table["source"].str.upper() + " ")
    upper.to_csv(tmp_path / "upper.csv", index=False)
    how = TrainOptions(**QUICK)
    found = train(example_files()[:1], tmp_path / "upper.csv", tmp_path / "upper", options, how).record
    plain = train(example_files()[:1], few, tmp_path / "plain", options, how).record
    assert found["data_digest"] == plain["data_digest"] and found["figures"] == plain["figures"]
    assert any("Items written otherwise in the ratings were read" in note for note in found["notes"])


def test_another_programs_training_json_is_passed_over(trained: Trained, options: Options, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "copy")
    part = {name: trained.record[name] for name in ("base", "judge")}
    (tmp_path / "copy" / "training.json").write_text(json.dumps(part))
    own = Options(judge=str(tmp_path / "copy"), rubric=options.rubric, run=tmp_path / "run", min_mass=0, limit=2)
    assert "training" not in read_manifest(score(example_files()[:1], own).run)["judge"]


def test_two_trainings_into_one_folder_are_told_apart(few: Path, options: Options, tmp_path: Path) -> None:
    with (
        checkpoints.held(partial_folder(tmp_path / "out")),
        pytest.raises(InputError, match=r"out.partial: another process trains in it"),
    ):
        train(example_files()[:1], few, tmp_path / "out", options, TrainOptions(**QUICK))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_that_was_stopped_ends_with_the_weights_of_an_unbroken_one(
    few: Path, options: Options, tmp_path: Path, method: str
) -> None:
    how = TrainOptions(method=method, **QUICK)
    unbroken = train(example_files()[:1], few, tmp_path / "unbroken", options, how)
    with pytest.raises(KeyboardInterrupt):  # between two checkpoints
        train(example_files()[:1], few, tmp_path / "out", options, how, Stopping(3))
    assert not (tmp_path / "out").exists()
    assert [path.name for path in partial_folder(tmp_path / "out").glob("step-*")] == ["step-00000002"]
    with pytest.raises(Interrupted, match="stopped after step"):
        train(example_files()[:1], few, tmp_path / "out", options, how, Stopping(3, politely=True))
    resumed = train(example_files()[:1], few, tmp_path / "out", options, how)
    assert weights(resumed.folder) == weights(unbroken.folder)
    assert resumed.record == unbroken.record


@pytest.mark.long
def test_a_training_that_was_killed_ends_with_the_weights_of_an_unbroken_one(
    few: Path, options: Options, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "judge", "train", *map(str, example_files()[:1]), "--judge", "stand-in"]
    command += ["--annotations", str(few), "--rubric", str(options.rubric), "--batch-tokens", "1000"]
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


def test_checkpoints_of_another_training_are_not_gone_on_with(few: Path, options: Options, tmp_path: Path) -> None:
    how = TrainOptions(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(example_files()[:1], few, tmp_path / "out", options, how, Stopping(3))
    with pytest.raises(InputError, match=r"begun with other rate, seed; repeat those"):
        train(example_files()[:1], few, tmp_path / "out", options, TrainOptions(**{**QUICK, "rate": 1e-4, "seed": 1}))


def test_a_full_disk_is_named_and_nothing_half_written_is_taken_for_whole(
    few: Path, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise checkpoints.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(EngineError, match=r"step-00000002: cannot be written \(No space left.* MB free of"):
        train(example_files()[:1], few, tmp_path / "out", options, TrainOptions(**QUICK))
    assert {path.name for path in partial_folder(tmp_path / "out").iterdir()} == {".lock", "plan.json"}


def test_out_of_memory_is_said_in_a_line_and_can_go_on(
    few: Path, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Trainer, "add", lack)
    with pytest.raises(EngineError, match=r"out of memory .*Tried to allocate.*choose a smaller judge") as error:
        train(example_files()[:1], few, tmp_path / "out", options, TrainOptions(**QUICK))
    assert error.value.can_go_on and not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_named(few: Path, options: Options, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(example_files()[:1], few, tmp_path / "out", options, TrainOptions(**QUICK), Stopping(3))
    (partial_folder(tmp_path / "out") / "step-00000002" / "tensors.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(EngineError, match=r"step-00000002: damaged .*begin anew"):
        train(example_files()[:1], few, tmp_path / "out", options, TrainOptions(**QUICK))


def test_the_command_prints_the_table_and_gives_json(
    few: Path, stand_in: Path, short_rubric: Path, tmp_path: Path
) -> None:
    command = ["train", example_files()[0], "--annotations", few, "--judge", "stand-in", "--rubric", short_rubric]
    command += ["--epochs", 1, "--batch-tokens", 4000, "--out"]
    found = typed(*command, "out", "--json", cwd=tmp_path)
    facts = json.loads(found.stdout)
    assert found.returncode == 0 and {figure["metric"] for figure in facts["figures"]} >= {"fluency"}
    assert facts["losses"].keys() == {"base", "trained", "constant"}
    said = typed(*command, "other", cwd=tmp_path)
    assert "on held-out scenarios and characters" in said.stdout and "--judge other" in said.stdout
    assert "Spearman on the validation dialogues" in said.stderr
    refused(typed(*command, "out", cwd=tmp_path), "--out out", "is there already")
