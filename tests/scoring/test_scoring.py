"""From log-probabilities to a judgment, against numbers worked out by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from judge import Options
from judge.engines import Array
from judge.errors import UnfitJudge
from judge.models.hardware import detect
from judge.prompting.prompt_tree import Ids, PromptTree
from judge.scoring import setup
from judge.scoring.judge import CHECKED_DIALOGUES, Judge, MassCheck, judgment
from judge.scoring.setup import open_judge, open_model
from judge.types import TOO_FEW_ANSWERS, TOO_LONG, Dialogue
from tests.helpers.chatanime import LEVELS, METRICS


def test_levels_are_renormalised_and_their_total_kept() -> None:
    found = judgment(
        np.log([[0.1, 0.0, 0.2, 0.1, 0.1]], where=np.array([[1, 0, 1, 1, 1]], bool), out=np.full((1, 5), -np.inf)),
        LEVELS,
    )
    assert found.probabilities == pytest.approx({1: 0.2, 2: 0.0, 3: 0.4, 4: 0.2, 5: 0.2})
    assert found.mass == pytest.approx(0.5)
    assert found.score == pytest.approx(0.2 + 1.2 + 0.8 + 1.0)
    assert found.error is None


def test_orderings_are_averaged_as_probabilities() -> None:
    found = judgment(np.log([[0.5, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.5]]), LEVELS)
    assert found.probabilities == pytest.approx({1: 1 / 3, 2: 1 / 9, 3: 1 / 9, 4: 1 / 9, 5: 1 / 3})
    assert found.mass == pytest.approx(0.9)


@pytest.mark.parametrize("logprobs", [[-np.inf] * 5, [np.nan, 0, 0, 0, 0]])
def test_numbers_that_say_nothing_are_a_missing_judgment(logprobs: list[float]) -> None:
    found = judgment(np.array([logprobs]), LEVELS)
    assert (found.probabilities, found.mass, found.error) == (None, None, "not_finite")


class Uniform:
    """An engine to which all levels are alike, with as large a context as it is given."""

    window, max_tokens, name, report = 1, 10**6, "fake", {"name": "fake"}

    def verify(self, tree: PromptTree) -> None:
        """Right by definition."""

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        return [np.log(np.full((len(tree.leaves), 5), 0.2)) for tree in trees]


@pytest.fixture
def judge(short_rubric: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """The stand-in's tokenizer with such an engine."""
    options = Options(judge="stand-in", rubric=short_rubric, answer_form="none")
    monkeypatch.setattr(setup, "_engine", lambda *asked: Uniform)
    return open_judge(options, open_model(options, detect()))


def test_a_prompt_as_long_as_the_context_is_judged_and_a_longer_one_is_not(
    judge: Judge, example: list[Dialogue]
) -> None:
    prompts = judge.prompts(example[:1], METRICS)
    longest = max(prompts[0].trees[0].lengths)
    for context, error in ((longest, None), (longest - 1, TOO_LONG)):
        judge.engine.max_tokens = context
        assert {one.error for one in judge.judge(prompts, METRICS)[0].judgments} == {error}


def test_two_answers_are_enough_to_rate_their_diversity_and_one_is_not(judge: Judge) -> None:
    one, two = judge.judge_answers([("c", None, ["a"]), ("c", None, ["a", "b"])])
    assert (one.error, two.error, two.score) == (TOO_FEW_ANSWERS, None, pytest.approx(3.0))


def test_a_judge_is_stopped_at_the_last_checked_dialogue_and_not_before_it() -> None:
    check = MassCheck("J", metrics=2)
    check.see([0.1] * (2 * CHECKED_DIALOGUES - 1))
    with pytest.raises(UnfitJudge):
        check.see([0.1])
