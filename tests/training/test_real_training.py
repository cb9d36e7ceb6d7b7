"""A small real model learns to tell kind replies from cold ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from judge import Dialogue, Options, Trained, TrainOptions, Turn, train
from judge.engines.packed.engine import PackedEngine
from judge.models.gguf import converted
from judge.prompting.prompt_tree import PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.training.loss import Example, Trainer
from judge.training.targets import RatedDialogue
from tests.helpers import real_models
from tests.helpers.rubrics import write_rubric
from tests.training.test_training import Stopping

pytestmark = pytest.mark.models

WORRIES = [
    "I failed my exam.",
    "My dog is ill.",
    "I lost my job.",
    "My friend left me.",
    "I cannot sleep.",
    "I feel alone.",
]
REPLIES = {
    "kind": ["Oh no. I am here for you.", "I am so sorry. Tell me all about it.", "That is hard. You are brave."],
    "cold": ["So what. Not my problem.", "Stop whining and go away.", "Whatever. You are so boring."],
}  # fmt: skip


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """SmolLM2 and a rubric of two metrics."""
    rubric = write_rubric(tmp_path_factory.mktemp("rubric") / "tone", {"warmth": (1, 2, 3), "respect": (1, 2, 3)})
    return Options(judge=str(real_models.smollm2()), rubric=rubric)


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    """Every worry as two people put it, answered by a kind and a cold system."""
    return [
        Dialogue(system, "friend", f"{who} {number}", (Turn(f"{who} {worry}", reply),))
        for who in ("Hi.", "Listen.")
        for number, worry in enumerate(WORRIES)
        for system, replies in REPLIES.items()
        for reply in (replies[number % 3],)
    ]


@pytest.fixture(scope="module")
def files(dialogues: list[Dialogue], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The dialogues, and ratings by two annotators who do not always agree."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"source": one.source, "character": one.character, "scenario": one.scenario, "question_r1": one.turns[0].user,
         "answer_r1": one.turns[0].character}
        for one in dialogues
    ]  # fmt: skip
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    draw = np.random.default_rng(0)
    ratings = [
        {"item_id": one.id, "source": one.source, "metric": metric, "annotator": name,
         "score": 3 if one.source == "kind" else 1}
        for one in dialogues for metric in ("warmth", "respect") for name in "ab"
    ]  # fmt: skip
    table = pd.DataFrame(ratings)
    table.loc[draw.random(len(table)) < 0.1, "score"] = 2
    table.to_csv(folder / "ratings.csv", index=False)
    return folder / "data.jsonl", folder / "ratings.csv"


HOW = TrainOptions(epochs=6, rate=4e-4, rank=8, batch_tokens=500, patience=6, held_out=0.25)


@pytest.fixture(scope="module")
def trained(asked: Options, files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train([files[0]], files[1], tmp_path_factory.mktemp("trained") / "tone", asked, HOW)


def test_in_thirty_steps_it_tells_them_apart_better_than_before_and_than_a_constant(trained: Trained) -> None:
    losses = trained.record["losses"]
    assert len(losses) == 30 and sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert trained.losses["trained"] < trained.losses["constant"] < trained.losses["base"]
    overall = trained.figures[-1]
    assert overall.spearman["trained"] > max(0.6, overall.spearman["base"] or 0)


def test_packed_gradients_equal_plain_ones_on_real_weights(asked: Options, dialogues: list[Dialogue]) -> None:
    folder = converted(Path(asked.judge))
    writer = PromptWriter(load_rubric(None, asked.rubric), JudgeTokenizer(folder), answer_form="level")
    targets = {"warmth": (0.25, 0.25, 0.5), "respect": (1.0, 0.0, 0.0)}
    some = [Example.of(RatedDialogue(one, "1", targets, weight), writer) for one, weight in zip(dialogues, (1.0, 2.0))]  # noqa: B905
    engine = PackedEngine.load(folder)
    engine.verify(some[0].tree)
    trainer = Trainer(engine, writer.level_ids, mass_weight=1.0)
    trainer.verify(some[0])
    assert not trainer.refused
    found = []
    for refused in ("", "for the sake of comparison"):
        trainer.refused = refused
        trainer.add(some, 1.0)
        found.append(np.concatenate([value.grad.flatten().numpy() for value in trainer.parameters.values()]))
        engine.model.zero_grad()
    packed, plain = found
    assert np.linalg.norm(packed - plain) < 1e-4 * np.linalg.norm(plain)


def test_a_stop_changes_nothing_of_it(asked: Options, files: tuple[Path, Path], tmp_path: Path) -> None:
    how = replace(HOW, epochs=1, batch_tokens=800, save_every=1)
    unbroken = train([files[0]], files[1], tmp_path / "unbroken", asked, how)
    with pytest.raises(KeyboardInterrupt):
        train([files[0]], files[1], tmp_path / "out", asked, how, Stopping(2))
    resumed = train([files[0]], files[1], tmp_path / "out", asked, how)
    files_of = [(one.folder / "model.safetensors").read_bytes() for one in (unbroken, resumed)]
    assert files_of[0] == files_of[1] and resumed.record == unbroken.record
