"""Judges side by side: the difference of their agreement, with paired intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from calibration import Pairing, compare_judges
from calibration.pairing import Paired
from calibration.stats.intervals import Resampler
from tests.helpers.pairs import metric


def _pairing(paired: Paired) -> Pairing:
    return Pairing("j", {"m": paired}, pd.DataFrame(), pd.DataFrame(), {"m": 0}, ())


def _judges(noise: tuple[float, ...], items: int = 120, seed: int = 0) -> list[Paired]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(3, 0.8, items)
    hard = generator.normal(0, 0.6, items)  # what makes an item hard for all judges alike
    ratings = np.clip(np.round(truth[:, None] + generator.normal(0, 0.4, (items, 3))), 1, 5)
    groups = [item // 4 for item in range(items)]
    return [metric(truth + hard + generator.normal(0, sd, items), ratings, groups=groups) for sd in noise]


def test_differences_are_those_of_scipy_and_of_the_draws():
    one, other = _judges((0.3, 0.9))
    (found,) = compare_judges({"a": _pairing(one), "b": _pairing(other)}, seed=5)
    human = one.ratings.mean(axis=1)
    assert found.spearman.value == pytest.approx(spearmanr(one.judge, human)[0] - spearmanr(other.judge, human)[0])
    assert found.mae.value == pytest.approx(np.mean(abs(one.judge - human) - abs(other.judge - human)))
    resampler = Resampler(one.groups, seed=5)
    drawn = []
    for weights in resampler.weights[:300]:
        times = weights[resampler.cells].astype(int)
        x, y, z = (np.repeat(side, times) for side in (one.judge, other.judge, human))
        drawn.append(spearmanr(x, z)[0] - spearmanr(y, z)[0])
    assert (found.spearman.low, found.spearman.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)


def test_a_paired_interval_is_tighter_than_the_two_apart():
    one, other = _judges((0.1, 0.15))
    (found,) = compare_judges({"a": _pairing(one), "b": _pairing(other)})
    errors = [abs(side.judge - side.human) for side in (one, other)]
    apart = sum(error.var() / len(error) for error in errors) ** 0.5 * 1.96
    assert (found.mae.high - found.mae.low) / 2 < 0.6 * apart


def test_the_same_judge_differs_by_nothing():
    (one,) = _judges((0.3,))
    (found,) = compare_judges({"a": _pairing(one), "b": _pairing(one)})
    assert (found.spearman.value, found.spearman.low, found.spearman.high, found.mae.value) == (0, 0, 0, 0)


def test_only_what_both_scored_and_somebody_rated_is_compared():
    one, other = _judges((0.3, 0.9))
    few = replace(other.at(np.arange(119, 39, -1)), ratings=other.ratings[119:39:-1].copy())
    few.ratings[:10] = np.nan
    (found,) = compare_judges({"a": _pairing(one), "b": _pairing(few)})
    (expected,) = compare_judges(
        {"a": _pairing(one.at(np.arange(40, 110))), "b": _pairing(other.at(np.arange(40, 110)))}
    )
    assert found.items == 70 and found.mae == expected.mae
    assert found.spearman.value == pytest.approx(expected.spearman.value)


def test_every_two_judges_on_what_they_have_in_common():
    one, other, third = _judges((0.3, 0.9, 0.5))
    pairings = {"a": _pairing(one), "b": _pairing(other), "c": _pairing(third)}
    pairings["c"] = replace(pairings["c"], metrics={"other": third})
    assert [(found.metric, found.a, found.b) for found in compare_judges(pairings)] == [("m", "a", "b")]


def test_of_a_nominal_metric_only_equal_ratings_are_counted():
    """A equals 5 of 6 ratings, B 3 of 6; renaming the kinds changes nothing."""
    ratings = [[1, 1], [2, 2], [4, 1]]
    for names in ({1: 1, 2: 2, 4: 4}, {1: 4, 2: 1, 4: 2}):
        given = np.vectorize(names.get)(np.array(ratings)).astype(float)
        one, other = (metric([names[kind] for kind in judge], given) for judge in ([1, 2, 4], [1, 4, 1]))
        (found,) = compare_judges({"a": _pairing(one), "b": _pairing(other)}, nominal=["m"])
        assert found.exact.value == pytest.approx(5 / 6 - 3 / 6)
        assert found.spearman.value is None and "--nominal" in found.mae.reason


def test_exact_agreement_is_in_steps():
    one, other = metric([1.4, 2.2], [1.5, 2], scale=(1, 3)), metric([1.9, 2.2], [1.5, 2], scale=(1, 3))
    (found,) = compare_judges({"a": _pairing(one), "b": _pairing(other)})
    assert found.exact.value == 0.5


def test_what_cannot_be_compared_says_why():
    one, other = _judges((0.3, 0.9))
    flat = replace(other, judge=np.full(120, 3.0))
    (found,) = compare_judges({"a": _pairing(one), "b": _pairing(flat)})
    assert found.spearman.reason == "one side is constant" and found.mae.value is not None
    (found,) = compare_judges({"a": _pairing(one.at(np.arange(50))), "b": _pairing(other.at(np.arange(60, 110)))})
    assert found.items == 0 and found.spearman.reason == found.mae.reason == "no rated item was scored by both"
