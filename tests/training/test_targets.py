"""Human ratings as targets, what is held out, and the loss: against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from judge import Dialogue, InputError, Options, TrainOptions, Turn, train
from judge.data.dialogues import example_files
from judge.engines.packed.engine import PackedEngine, by_budget
from judge.models.checkpoint import stand_in as stand_in_of
from judge.prompting.prompt_tree import PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.training import loss as losses
from judge.training import train as training
from judge.training.loss import Example, Trainer, leaf_losses
from judge.training.split import split
from judge.training.steps import rate_at
from judge.training.targets import RatedDialogue, rated_dialogues, severities, soft_target, without_severity
from tests.helpers.chatanime import SCHEME
from tests.helpers.paths import RATINGS
from tests.helpers.rubrics import write_rubric


def dialogue(scenario: str, character: str = "c", reply: str = "yes") -> Dialogue:
    return Dialogue("s", character, scenario, (Turn("so?", reply),))


def ratings(*rows: tuple[str, str, str, float], **more: object) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["item_id", "metric", "annotator", "score"])
    return table.assign(source="s", group=table["item_id"].str.split("/").str[-1], **more)


@pytest.mark.parametrize(
    ("scores", "shares"),
    [([4, 4, 5], (0, 0, 0, 2 / 3, 1 / 3)), ([1.25], (0.75, 0.25, 0, 0, 0)), ([1, 5], (0.5, 0, 0, 0, 0.5))],
)
def test_a_target_is_the_share_of_annotators_at_each_level(scores: list[float], shares: tuple[float, ...]) -> None:
    assert soft_target(scores, (1, 2, 3, 4, 5)) == pytest.approx(shares)


def test_a_score_between_levels_that_are_far_apart_counts_for_both() -> None:
    assert soft_target([2], (1, 5)) == pytest.approx((0.75, 0.25))


def test_an_annotator_who_rated_twice_counts_once_and_weights_are_inverse_chances() -> None:
    table = ratings(
        ("s/c/1", "fluency", "a", 2),
        ("s/c/1", "fluency", "a", 4),
        ("s/c/1", "fluency", "b", 5),
        ("s/c/2", "fluency", "a", 1),
        inclusion_probability=[0.25, 0.25, 0.25, 0.75],
    )
    one, two = rated_dialogues([dialogue("1"), dialogue("2")], table, SCHEME, [])
    assert one.targets == {"fluency": pytest.approx((0, 0, 0.5, 0, 0.5))}
    assert (one.weight, two.weight) == pytest.approx((1.5, 0.5))


def test_what_is_left_out_is_said() -> None:
    table = ratings(
        ("s/c/1", "fluency", "a", 2),
        ("s/c/2", "fluency", "a", 4),
        ("s/c/1", "coherency", "a", 3),
        ("s/c/2", "coherency", "a", 3),
        ("s/c/9", "fluency", "a", 3),
    )
    notes: list[str] = []
    (rated,) = rated_dialogues([dialogue("1"), dialogue("2", reply=" "), dialogue("3")], table, SCHEME, notes)
    assert rated.targets.keys() == {"fluency"}
    assert notes == [
        "Left out, as all scores on it are equal: coherency.",
        "All ratings are by one annotator: the judge learns to agree with that one.",
        "Rated dialogues left out, as a reply in them is blank: 1.",
        "Rated dialogues that are not among the data: 1 of 3.",
    ]


def test_a_dialogue_with_two_chances_is_refused() -> None:
    rows = [(f"s/c/{number}", metric, "a", number) for number in (1, 2) for metric in ("fluency", "coherency")]
    table = ratings(*rows, inclusion_probability=[0.5, 0.1, 0.5, 0.5])
    with pytest.raises(InputError, match="'s/c/1' has two inclusion probabilities"):
        rated_dialogues([dialogue("1"), dialogue("2")], table, SCHEME, [])


def test_scores_that_are_all_equal_are_refused() -> None:
    with pytest.raises(InputError, match="no metric has scores that differ"):
        rated_dialogues([dialogue("1")], ratings(("s/c/1", "fluency", "a", 3)), SCHEME, [])


@given(
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 1000),
    pairs=st.sets(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=30),
)
def test_no_held_out_scenario_or_character_is_learned_from(
    share: float, seed: int, pairs: set[tuple[int, int]]
) -> None:
    rated = [RatedDialogue(dialogue(str(s), str(c)), str(s), {}, 1.0) for s, c in sorted(pairs)]
    try:
        parts = split(rated, share, seed)
    except InputError:  # nothing would be left
        return
    learned = parts.training
    assert not {one.group for one in learned} & {*parts.held_out_groups, *parts.validation_groups}
    assert not {one.dialogue.character for one in (*learned, *parts.validation)} & set(parts.held_out_characters)
    assert not {one.group for one in parts.validation} & set(parts.held_out_groups)
    assert sorted(map(id, rated)) == sorted(map(id, (*learned, *parts.validation, *parts.held_out)))


def test_too_few_scenarios_are_refused() -> None:
    rated = [RatedDialogue(dialogue(str(s), str(c)), str(s), {}, 1.0) for s in range(4) for c in range(9)]
    with pytest.raises(InputError, match="4 scenarios are rated and 5 are needed"):
        split(rated, 0.2, 0)


SYSTEMS = [
    RatedDialogue(replace(dialogue(str(s), str(c)), source=name), str(s), {}, 1.0)
    for s in range(6) for c in range(3) for name in "abcd"
]  # fmt: skip


def test_one_system_is_left_out_where_there_are_four() -> None:
    parts = split(SYSTEMS, 0.2, 0)
    left = parts.left_out_system
    assert left in set("abcd") and split(SYSTEMS, 0.2, 0).left_out_system == left
    assert left not in {one.dialogue.source for one in (*parts.training, *parts.validation)}
    assert sum(one.dialogue.source == left for one in parts.held_out) == 18
    three = [one for one in SYSTEMS if one.dialogue.source != "d"]
    assert split(three, 0.2, 0).left_out_system is None
    assert split(three, 0.2, 0, "B ").left_out_system == "b"
    assert split(SYSTEMS, 0.2, 0, "none").left_out_system is None


def test_a_system_that_is_not_there_or_the_only_one_is_refused_with_what_to_name() -> None:
    with pytest.raises(
        InputError, match=r"--left-out-system x: choose among the rated systems \(a, b, c, d\), or none"
    ):
        split(SYSTEMS, 0.2, 0, "x")
    only = [one for one in SYSTEMS if one.dialogue.source == "b"]
    for name in ("b", "x"):
        with pytest.raises(InputError, match=f"--left-out-system {name}: all ratings are of b, .* name none"):
            split(only, 0.2, 0, name)


def test_severity_is_found_and_taken_out() -> None:
    """Of a design where nobody rated all: b rates a point higher than a, c a point lower."""
    draw = np.random.default_rng(0)
    apart = {"a": 0.0, "b": 1.0, "c": -1.0}
    worth = {f"s/c/{n}": draw.uniform(2, 4) for n in range(60)}
    rows = [
        (item, "fluency", name, worth[item] + apart[name])
        for n, item in enumerate(worth)
        for name in ("ab", "bc", "ca")[n % 3]
    ]
    found = severities(ratings(*rows))["fluency"]
    assert found["b"] - found["a"] == pytest.approx(1, abs=0.1) and found["c"] - found["a"] == pytest.approx(
        -1, abs=0.1
    )
    assert sum(found.values()) == pytest.approx(0, abs=1e-6)
    some = rated_dialogues([dialogue(str(n)) for n in range(60)], ratings(*rows), SCHEME, [])
    level = without_severity(some, ratings(*rows), {"fluency": found}, SCHEME)

    def off(targets: Iterable[RatedDialogue]) -> float:
        means = [np.dot(one.targets["fluency"], SCHEME.levels["fluency"]) for one in targets]
        return float(np.abs(np.array(means) - list(worth.values())).mean())

    assert off(level) < 0.1 < 0.3 < off(some)


def test_an_annotator_alone_has_no_severity_and_one_of_whom_little_is_known_has_little() -> None:
    alone = severities(ratings(("s/c/1", "fluency", "a", 5), ("s/c/2", "fluency", "b", 1)))["fluency"]
    assert alone == {"a": pytest.approx(0), "b": pytest.approx(0)}
    once = severities(ratings(("s/c/1", "fluency", "a", 5), ("s/c/1", "fluency", "b", 1)))["fluency"]
    assert 0.2 < once["a"] < 1.5


def test_the_loss_is_the_cross_entropy_over_the_metrics_own_levels_and_the_lost_mass() -> None:
    """Tokens 0 and 1 write the first level, 2 the second, 3 the third, which is not the metric's; 4 writes none."""
    chances = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25]])
    loss = leaf_losses(
        chances.log(),
        [(0, 1), (2,), (3,)],
        targets=torch.tensor([[0.75, 0.25, 0.0]]),
        own=torch.tensor([[True, True, False]]),
        mass_weight=0.5,
    )
    assert float(loss) == pytest.approx(-math.log(0.5) - 0.5 * math.log(0.6))  # both levels are at half the mass


@pytest.mark.parametrize("shape", ["full", "mixed"])
def test_packed_gradients_equal_plain_ones(
    cache: Path, tmp_path: Path, shape: str, example: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all weights, on the packaged rubric, and on metrics of different levels of which a dialogue has some rated."""
    levels = {"fit": (1, 2, 3), "warmth": (0, 1, 2, 3, 4, 5), "care": (1, 5)}
    rubric = load_rubric("en") if shape == "full" else load_rubric(None, write_rubric(tmp_path / "mixed", levels))
    folder = stand_in_of(rubric.scheme.all_levels).folder
    writer = PromptWriter(rubric, JudgeTokenizer(folder))
    draw = np.random.default_rng(0)
    metrics = rubric.scheme.metrics if shape == "full" else ("fit", "care")
    some = []
    for dialogue, weight in zip(example, (0.5, 1.5) if shape == "full" else (0.5, 1.0, 1.5), strict=False):
        targets = {metric: tuple(draw.dirichlet(np.ones(len(rubric.scheme.levels[metric])))) for metric in metrics}
        some.append(Example.of(RatedDialogue(dialogue, "1", targets, weight), writer))
    engine = PackedEngine.load(folder)
    engine.verify(some[0].tree)
    trainer = Trainer(engine, writer.level_ids, mass_weight=0.5)
    trainer.verify(some[0])
    monkeypatch.setattr(losses, "TOGETHER", 1 + sum(one.tokens - len(one.tree.root) for one in some[:2]))  # two passes
    assert not trainer.refused
    found = []
    for refused in ("", "for the sake of comparison"):
        trainer.refused = refused
        total = trainer.add(some, 0.5)
        found.append((total, {name: value.grad.clone() for name, value in trainer.parameters.items()}))
        engine.model.zero_grad()
    (packed_loss, packed), (plain_loss, plain) = found
    assert packed_loss == pytest.approx(plain_loss, rel=1e-5)
    trainer.refused = ""
    alone = [one.weight * trainer.add([replace(one, weight=1.0)], 1.0) for one in some]
    assert packed_loss == pytest.approx(sum(alone), rel=1e-5)  # each counts by its weight
    apart = {name: float((packed[name] - plain[name]).norm() / plain[name].norm()) for name in plain}
    whole = [torch.cat([value.flatten() for value in gradient.values()]) for gradient in (packed, plain)]
    assert float((whole[0] - whole[1]).norm() / whole[1].norm()) < 1e-5
    # What the norms of queries and keys get is a sum of large numbers that cancel, of which float32 keeps less.
    assert len(apart) > 40 and max(apart.values()) < 5e-4
    assert max(value for name, value in apart.items() if not name.endswith(("q_norm.weight", "k_norm.weight"))) < 1e-4


def test_a_gradient_that_differs_is_done_without(
    stand_in: Path, example: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = PromptWriter(load_rubric("en"), JudgeTokenizer(stand_in))
    one = Example.of(RatedDialogue(example[0], "1", {"fluency": (0.0, 0.0, 0.5, 0.5, 0.0)}, 1.0), writer)
    trainer = Trainer(PackedEngine.load(stand_in), writer.level_ids, 1.0)
    right = Trainer._logits
    monkeypatch.setattr(Trainer, "_logits", lambda self, root, trees: 1.1 * right(self, root, trees))
    trainer.verify(one)
    assert "its gradient differs from plain by" in trainer.refused


@given(tokens=st.lists(st.integers(1, 50), min_size=1, max_size=30), most=st.integers(1, 100))
def test_a_step_holds_as_many_dialogues_as_its_tokens_allow(tokens: list[int], most: int) -> None:
    order = list(range(len(tokens)))
    found = list(by_budget(order, lambda place: tokens[place], most))
    assert [place for batch in found for place in batch] == order
    assert all(len(batch) == 1 or sum(tokens[place] for place in batch) <= most for batch in found)


def test_the_rate_rises_over_a_tenth_of_the_steps_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 20, 1.0) for step in range(20)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0]) and rates[-1] == pytest.approx(1 / 18)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rate_at(0, 1, 1.0) == 1.0


BAD_OPTIONS = {"method": "magic", "epochs": 0, "rate": 0.0, "held_out": 0.9, "mass_weight": -1.0, "seed": -1}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_an_option_out_of_range_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} {BAD_OPTIONS[name]}: "):
        TrainOptions(**{name: BAD_OPTIONS[name]})  # type: ignore[arg-type]


def attempt(out: Path, annotations: Path = RATINGS, **options: object) -> None:
    train(example_files(), annotations, out, Options(**{"judge": "stand-in", **options}))  # type: ignore[arg-type]


def test_ratings_by_another_rubric_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "charm.csv"
    path.write_text("source,character,scenario,metric,annotator,score\na,b,c,charm,x,3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"charm \(1\); name them by their id"):
        attempt(tmp_path / "out", path)


def test_a_server_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a server's model cannot be trained"):
        attempt(tmp_path / "out", url="http://127.0.0.1:1")


def test_a_package_that_is_missing_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--method lora needs peft and accelerate; pip install 'esrp-judge\[train\]'"):
        attempt(tmp_path / "out", tmp_path / "nowhere.csv")
