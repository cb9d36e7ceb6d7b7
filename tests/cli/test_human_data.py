"""Public human ratings as the benchmark of agreement takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.human_data import conversations, rated_set, rubrics
from judge import load_rubric, read_dialogues
from judge.data.dialogues import Record

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
