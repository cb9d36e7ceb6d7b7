"""The benchmark of agreement with public human ratings: how data are read, and how folds are put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.human_agreement import averaged
from benchmarks.human_data import conversations, rated_set, rubrics
from calibration.stats.intervals import Estimate
from judge import load_rubric, read_dialogues
from judge.data.dialogues import Record
from judge.training.figures import SCENARIOS, Figure

SETS = [name for name in rubrics() if name != "texts"]


def record(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]}


def test_dialogues_that_go_on_from_one_another_are_one_conversation() -> None:
    longest, short, other = record("Hi", "Yes?", "Tea?", "No."), record("Hi", "Yes?"), record("Hi", "Hello.")
    middle = record("Hi", "Yes?", "Tea?")
    found = conversations([longest, other, short, middle])
    assert found[0] == found[2] == found[3] != found[1]


@pytest.mark.parametrize("name", SETS)
def test_every_rated_dialogue_and_metric_is_in_data_and_rubric(name: str, tmp_path: Path, shared_data: Path) -> None:
    given = rated_set(name, tmp_path)
    scheme = load_rubric(None, given.rubric).scheme
    dialogues = [one.dialogue for one in read_dialogues([given.dialogues]) if isinstance(one, Record)]
    unrated = {one.id for one in dialogues} - set(given.ratings["item_id"])
    assert len(unrated) == (1 if name == "fed-dialogue" else 0)
    assert set(given.ratings["metric"]) == set(scheme.metrics)
    for metric, scores in given.ratings.groupby("metric")["score"]:
        assert set(scores) <= set(scheme.levels[str(metric)])
    sizes = given.ratings.groupby("group")["item_id"].nunique()
    assert len(sizes) == {"fed-turn": 125, "fed-dialogue": 124}.get(name, 50)
    assert set(sizes) == {3 if name == "fed-turn" else 1}


def fold(base: float, calibrated: float | None, gain: Estimate, dialogues: int) -> Figure:
    spearman = {"base": base, "calibrated base": calibrated}
    return Figure(
        SCENARIOS, "fluency", dialogues, 10, spearman, {"base": gain}, Estimate(0.5), {"base": 1.0}, {"base": 2.0}
    )


def test_folds_are_averaged_and_a_constant_map_is_left_out_of_the_mean() -> None:
    folds = [fold(0.1, None, Estimate(0.2, 0.0, 0.6), 12), fold(0.3, 0.4, Estimate(0.4, 0.0, 0.8), 13)]
    found = averaged(folds)
    assert (found.dialogues, found.groups) == (25, 20)
    assert found.spearman == pytest.approx({"base": 0.2, "calibrated base": 0.4})
    gain = found.gains["base"]
    half = (0.3**2 + 0.4**2) ** 0.5 / 2  # of the mean of two independent estimates
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))


def test_a_fold_without_an_interval_leaves_the_mean_without_one() -> None:
    found = averaged([fold(0.1, None, Estimate(0.2, 0.0, 0.6), 12), fold(0.3, None, Estimate(0.4), 13)])
    assert found.gains["base"] == Estimate(pytest.approx(0.3))
    assert found.spearman["calibrated base"] is None
