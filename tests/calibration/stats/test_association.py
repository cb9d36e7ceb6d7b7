"""Correlations and orders of pairs: what other packages find, with weights, ties, and in every draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calibration.stats.correlation import (
    ASSOCIATIONS,
    association,
    associations_by_row,
    pearson,
    spearman,
    within_groups,
)
from calibration.stats.intervals import Resampler
from tests.helpers.pairs import labels


def by_scipy(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The four measures of unweighted items."""
    return {
        "pearson": stats.pearsonr(x, y).statistic,
        "spearman": stats.spearmanr(x, y).statistic,
        "kendall": stats.kendalltau(x, y).statistic,
        "pairwise_accuracy": (1 + stats.somersd(y, x).statistic) / 2,
    }


def values(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float | None]:
    resampler = Resampler(labels(["one"] * len(x)), draws=2)
    found = association(x, y, np.ones(len(x)) if weights is None else weights, resampler)
    return {name: estimate.value for name, estimate in found.items()}


@pytest.fixture(scope="module")
def sides() -> tuple[np.ndarray, np.ndarray]:
    """Sixty scores of a judge without ties, and ratings with many."""
    generator = np.random.default_rng(2)
    y = generator.integers(1, 6, 60).astype(float)
    return y + generator.normal(0, 1.5, 60), y


def test_without_weights_they_are_what_scipy_finds(sides: tuple[np.ndarray, np.ndarray]):
    assert values(*sides) == pytest.approx(by_scipy(*sides))


def test_ties_on_both_sides_are_what_scipy_makes_of_them(sides: tuple[np.ndarray, np.ndarray]):
    x, y = np.round(sides[0]), sides[1]
    assert len(set(x)) < 12
    assert values(x, y) == pytest.approx(by_scipy(x, y))


def test_a_block_of_items_or_more_is_no_different():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=700), generator.integers(0, 9, 700).astype(float)
    resampler = Resampler(labels(generator.integers(0, 20, 700)), draws=2)
    found = association(x, y, np.ones(700), resampler)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(by_scipy(x, y), abs=1e-6)


def test_pairs_in_order_by_hand():
    """Of the pairs that people order: 1<2 and 1<3 alike, 2<3 tied by the judge: 2.5 of 3; the tie of people is none."""
    x, y = np.array([1.0, 2.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0, 3.0])
    ordered_alike = [1, 1, 1, 0.5, 1]  # (1,2) (1,3) (1,4) (2,3) (2,4); people tie 3 and 4
    assert values(x, y)["pairwise_accuracy"] == pytest.approx(np.mean(ordered_alike))


def test_orders_turned_round_are_none_alike(sides: tuple[np.ndarray, np.ndarray]):
    found = values(-sides[1], sides[1])
    assert found == pytest.approx({"pearson": -1, "spearman": -1, "kendall": -1, "pairwise_accuracy": 0})


def test_nothing_is_beyond_one(sides: tuple[np.ndarray, np.ndarray]):
    weights = np.random.default_rng(1).uniform(1, 9, 60)
    for found in values(sides[0] * 1e-3, sides[0], weights).values():
        assert 1 - 1e-6 < found <= 1


pairs_of_scores = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)), min_size=3, max_size=25
).filter(lambda rows: len({row[0] for row in rows}) > 1 and len({row[1] for row in rows}) > 1)


@settings(max_examples=40, deadline=None)
@given(pairs_of_scores)
def test_an_item_of_weight_two_is_two_items(rows: list[tuple[int, int, int]]):
    x, y, weights = np.array(rows, dtype=float).T
    times = weights.astype(int)
    assert values(x, y, weights) == pytest.approx(by_scipy(np.repeat(x, times), np.repeat(y, times)), abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ways", [1, 2])
def test_the_value_of_a_draw_is_that_of_the_items_it_drew(sides: tuple[np.ndarray, np.ndarray], seed: int, ways: int):
    """With one draw the interval goes from the value to the draw's."""
    x, y = np.round(sides[0], 1), sides[1]
    groups, characters = labels(np.arange(60) // 6), labels(np.arange(60) % 10) if ways == 2 else None
    resampler = Resampler(groups, characters, draws=1, seed=seed)
    weights = np.random.default_rng(seed).integers(1, 3, 60)
    times = (resampler.weights[0][resampler.cells] * weights).astype(int)
    found = association(x, y, weights.astype(float), resampler)
    expected = by_scipy(np.repeat(x, times), np.repeat(y, times))
    for name, one in found.items():
        ends = min(one.value, expected[name]), max(one.value, expected[name])
        assert (one.low, one.high) == pytest.approx(ends, abs=1e-6)
    assert any(one.low < one.high for one in found.values())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_draw_has_a_value_if_and_only_if_its_items_have(seed: int):
    """Few groups and few different scores: many draws are constant on one side, whatever rounding does to means."""
    generator = np.random.default_rng(seed)
    x, y = generator.choice([0.1, 0.1, 0.1, 0.7], 8), generator.choice([3.3, 3.3, 4.1], 8)
    weights = generator.uniform(1, 3, 8)
    resampler = Resampler(labels(range(8)), draws=1, seed=seed)
    drawn = resampler.weights[0][resampler.cells] > 0
    varies = [len(set(side[drawn])) > 1 for side in (x, y)]
    for name, estimate in association(x, y, weights, resampler).items():
        needed = varies[1] if name == "pairwise_accuracy" else all(varies)
        assert estimate.value is None or (estimate.low is not None) == needed, name


@pytest.mark.parametrize("constant", ["judge", "people"])
@pytest.mark.parametrize("level", [3.0, 333.3, 0.1])
def test_a_constant_side_is_undefined_and_says_so(constant: str, level: float):
    """333.3 is no binary fraction, and its weighted mean is off by rounding: that is no variance."""
    varying, still = np.arange(100.0), np.full(100, level)
    x, y = (still, varying) if constant == "judge" else (varying, still)
    weights = np.random.default_rng(0).uniform(1, 10, 100)
    found = association(x, y, weights, Resampler(labels(range(100)), draws=5))
    assert {(estimate.value, estimate.reason) for estimate in found.values()} == {(None, "one side is constant")}
    assert np.isnan(pearson(x, y, weights)) and np.isnan(spearman(x, y, weights))


def test_scores_that_hardly_differ_still_differ():
    """A judge whose scores lie within a millionth has an order; only rounding has none."""
    y = np.arange(20.0)
    assert pearson(3 + y * 1e-7, y, np.ones(20)) == pytest.approx(1)


def test_a_draw_in_which_nothing_was_drawn_has_no_value_and_makes_no_noise():
    """Each group with a character of its own: in some draws no group is drawn together with its character."""
    ways = labels(range(8))
    resampler = Resampler(ways, ways)
    assert (resampler.weights.sum(axis=1) == 0).any()
    found = association(np.arange(8.0), np.arange(8.0) % 5, np.ones(8), resampler)
    assert all(np.isfinite(estimate.value) for estimate in found.values())


def test_too_few_groups_give_values_without_intervals(sides: tuple[np.ndarray, np.ndarray]):
    found = association(*sides, np.ones(60), Resampler(labels(np.arange(60) % 7)))
    assert all(estimate.value is not None and estimate.low is None for estimate in found.values())


def test_intervals_lie_about_their_values_and_are_seeded(sides: tuple[np.ndarray, np.ndarray]):
    one, same, other = (
        association(*sides, np.ones(60), Resampler(labels(np.arange(60) % 20), seed=seed)) for seed in (0, 0, 1)
    )
    assert one == same != other
    assert all(estimate.low < estimate.value < estimate.high for estimate in one.values())


def test_within_groups_each_has_its_own_values_by_weight(sides: tuple[np.ndarray, np.ndarray]):
    x, y = sides
    weights = np.random.default_rng(0).integers(1, 4, 60)
    parts = [np.arange(0, 20), np.arange(20, 60)]
    found = within_groups(x, y, weights.astype(float), parts)
    for row, part in zip(found, parts, strict=True):
        times = weights[part]
        expected = by_scipy(np.repeat(x[part], times), np.repeat(y[part], times))
        assert dict(zip(ASSOCIATIONS, row, strict=True)) == pytest.approx(expected, abs=1e-6)


def test_of_few_items_at_once_orders_are_the_same(sides: tuple[np.ndarray, np.ndarray]):
    """``associations_by_row`` takes many small samples at a time."""
    x, y = (side.reshape(6, 10) for side in sides)
    found = dict(zip(ASSOCIATIONS, associations_by_row(x, y), strict=True))
    for row in range(6):
        assert {name: values[row] for name, values in found.items()} == pytest.approx(by_scipy(x[row], y[row]))
