"""From log-probabilities to a judgment, against numbers worked out by hand."""

import numpy as np
import pytest

from judge.scoring.judge import judgment


def test_levels_are_renormalised_and_their_total_kept() -> None:
    found = judgment(
        np.log([[0.1, 0.0, 0.2, 0.1, 0.1]], where=np.array([[1, 0, 1, 1, 1]], bool), out=np.full((1, 5), -np.inf))
    )
    assert found.probabilities == pytest.approx((0.2, 0.0, 0.4, 0.2, 0.2))
    assert found.mass == pytest.approx(0.5)
    assert found.score == pytest.approx(0.2 + 1.2 + 0.8 + 1.0)
    assert found.error is None


def test_orderings_are_averaged_as_probabilities() -> None:
    found = judgment(np.log([[0.5, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.5]]))
    assert found.probabilities == pytest.approx((1 / 3, 1 / 9, 1 / 9, 1 / 9, 1 / 3))
    assert found.mass == pytest.approx(0.9)


@pytest.mark.parametrize("logprobs", [[-np.inf] * 5, [np.nan, 0, 0, 0, 0]])
def test_numbers_that_say_nothing_are_a_missing_judgment(logprobs: list[float]) -> None:
    found = judgment(np.array([logprobs]))
    assert (found.probabilities, found.mass, found.error) == (None, None, "not_finite")
