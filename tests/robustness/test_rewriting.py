"""Dialogues and their rewritten forms under one judge: each row is what that judge gives that text."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from judge.engines.packed.engine import PackedEngine
from judge.errors import InputError, Interrupted, UnfitJudge
from judge.models.hardware import detect
from judge.progress import Silent
from judge.robustness.perturbation import Perturbation, PerturbationJudgments, PromptVariant, judge_perturbations
from judge.scoring.setup import open_judge, open_model
from judge.types import EMPTY_ANSWER, MIN_MASS, STAND_IN, Dialogue, Options, Turn
from tests.helpers.chatanime import METRICS
from tests.helpers.rubric import ByStandIn

VARIANTS = {
    ("order", "descending"): PromptVariant("prefill", "descending", "zh"),
    ("language", "en"): PromptVariant("prefill", "ascending", "en"),
}


def answered(dialogue: Dialogue, text: str) -> Dialogue:
    return replace(dialogue, turns=tuple(Turn(turn.user, text) for turn in dialogue.turns))


def rewrite(dialogues: Sequence[Dialogue]) -> list[Perturbation]:
    """The last dialogue first, to see that order does not matter; one of them cannot be judged."""
    forms = [Perturbation("constant", "same", answered(d, "嗯。"), d.id) for d in dialogues[::-1]]
    return [*forms, Perturbation("constant", "empty", answered(dialogues[0], " "), dialogues[0].id)]


@pytest.fixture(scope="module")
def three(by_stand_in: ByStandIn) -> Options:
    """Three dialogues of the example, by the stand-in."""
    return by_stand_in(sources=("plain",), limit=3)


@pytest.fixture(scope="module")
def rewritten(three: Options) -> PerturbationJudgments:
    return judge_perturbations([], three, rewrite, variants=VARIANTS)


def test_there_is_a_row_per_dialogue_rewrite_or_way_and_metric(rewritten: PerturbationJudgments) -> None:
    rows = rewritten.judgments
    assert not rows.duplicated(["family", "rewrite", "item_id", "metric"]).any()
    counts = rows.groupby(["family", "rewrite"]).size().to_dict()
    of_three = 3 * len(METRICS)
    assert counts == {
        ("", ""): of_three,
        ("constant", "empty"): len(METRICS),
        ("constant", "same"): of_three,
        ("language", "en"): of_three,
        ("order", "descending"): of_three,
    }
    assert (rewritten.judge, rewritten.dialogues) == (STAND_IN, 3)
    assert rewritten.missing == {EMPTY_ANSWER: len(METRICS)}
    assert rewritten.settings["engine"] == "packed" and rewritten.settings["limit"] == 3


def test_scores_are_those_the_judge_gives_each_text_alone(
    rewritten: PerturbationJudgments, example: list[Dialogue], three: Options
) -> None:
    known = {dialogue.id: dialogue for dialogue in example}
    judges = {
        "": open_judge(three, open_model(three, detect())),
        "order": open_judge(three, open_model(three, detect()), ascending=False),
        "language": open_judge(replace(three, language="en"), open_model(three, detect())),
    }
    assert rewritten.judge_id == judges[""].identity.judge_id
    for (family, name, item), rows in rewritten.judgments.groupby(["family", "rewrite", "item_id"]):
        dialogue = answered(known[item], "嗯。") if name == "same" else known[item]
        judge = judges.get(family, judges[""])
        if name != "empty":
            (alone,) = judge.judge(judge.prompts([dialogue], METRICS), METRICS)
            assert rows["score"].tolist() == pytest.approx([one.score for one in alone.judgments], abs=1e-4)
            assert set(rows["length"]) == {sum(len(turn.character) for turn in dialogue.turns)}


def test_what_cannot_be_judged_is_missing(rewritten: PerturbationJudgments) -> None:
    empty = rewritten.judgments[rewritten.judgments["rewrite"] == "empty"]
    assert set(empty["error"]) == {EMPTY_ANSWER} and empty[["p1", "mass", "score"]].isna().all(axis=None)


def test_a_rewrite_of_nothing_that_was_chosen_is_refused(three: Options) -> None:
    with pytest.raises(InputError, match="stray: perturbs a/b/c"):
        judge_perturbations([], three, lambda found: [Perturbation("f", "stray", found[0], "a/b/c")])


def test_a_judge_that_does_not_answer_with_a_level_is_refused(three: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = PackedEngine.level_logprobs
    monkeypatch.setattr(PackedEngine, "level_logprobs", lambda *asked: [one - 1.0 for one in scored(*asked)])
    with pytest.raises(UnfitJudge, match=f"under {MIN_MASS}"):
        judge_perturbations([], three, rewrite)


def test_the_first_ctrl_c_ends_it_after_the_window(three: Options) -> None:
    class Stopping(Silent):
        def advance(self, judgments: int, tokens: int) -> None:
            import signal

            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="nothing is kept"):
        judge_perturbations([], three, rewrite, Stopping())


def test_a_hundred_dialogues_unless_told_otherwise(by_stand_in: ByStandIn, tmp_path: Path) -> None:
    row = {"source": "s", "character": "c", "question_r1": "在吗", "answer_r1": "在。"}
    lines = (json.dumps({**row, "scenario": str(i)}) for i in range(103))
    (tmp_path / "many.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = judge_perturbations([tmp_path / "many.jsonl"], by_stand_in(), lambda dialogues: [])
    assert found.dialogues == 100 == found.judgments["item_id"].nunique()
