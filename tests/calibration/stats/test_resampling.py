"""Intervals over groups: Student's t for means, and draws of groups for the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calibration.stats.intervals import DRAWS, MIN_GROUPS, Estimate, Resampler, clustered_mean
from tests.helpers.pairs import labels


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    """Shape (12 groups, 5 items), with differences between groups."""
    generator = np.random.default_rng(3)
    return generator.normal(size=(12, 1)) + generator.normal(size=(12, 5))


def grouped(count: int, size: int) -> np.ndarray:
    return labels(np.repeat(np.arange(count), size))


# The t interval


def test_with_groups_of_one_size_it_is_the_t_interval_of_group_means(numbers: np.ndarray):
    found = clustered_mean(numbers.ravel(), grouped(12, 5))
    means = numbers.mean(axis=1)
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((means.mean(), low, high))


def test_of_single_items_it_is_the_t_interval_of_a_mean(numbers: np.ndarray):
    values = numbers[:, 0]
    found = clustered_mean(values, grouped(12, 1))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_groups_that_agree_within_make_it_wider_than_items_would(numbers: np.ndarray):
    by_group, by_item = (clustered_mean(numbers.ravel(), groups) for groups in (grouped(12, 5), grouped(60, 1)))
    assert by_group.high - by_group.low > 1.5 * (by_item.high - by_item.low)


def test_an_item_of_weight_two_is_two_items_of_its_group():
    values, weights = np.arange(10.0), np.array([1.0, 2.0] * 5)
    twice = np.repeat(np.arange(10), weights.astype(int))
    weighted = clustered_mean(values, labels(range(10)), weights)
    replicated = clustered_mean(values[twice], labels(twice))
    assert (weighted.value, weighted.low, weighted.high) == pytest.approx(
        (replicated.value, replicated.low, replicated.high)
    )
    assert weighted.value == pytest.approx(np.average(values, weights=weights))


def test_values_that_are_missing_are_left_out_with_their_group():
    values = np.append(np.arange(8.0), np.nan)
    assert clustered_mean(values, labels(range(9))) == clustered_mean(np.arange(8.0), labels(range(8)))


@pytest.mark.parametrize("values", [np.array([]), np.full(20, np.nan)], ids=["no item", "none known"])
def test_a_mean_of_nothing_has_a_reason(values: np.ndarray):
    found = clustered_mean(values, labels(range(len(values))))
    assert (found.value, found.low) == (None, None) and found.reason


@pytest.mark.parametrize("count", [1, 2, MIN_GROUPS - 1])
def test_too_few_groups_give_a_value_without_an_interval(count: int):
    values = np.arange(count * 4.0)
    assert clustered_mean(values, grouped(count, 4)) == Estimate(values.mean())


def test_enough_groups_give_an_interval():
    found = clustered_mean(np.arange(float(MIN_GROUPS)), grouped(MIN_GROUPS, 1))
    assert found.low < found.value < found.high


def crossed(groups: int, characters: int) -> tuple[np.ndarray, np.ndarray]:
    return labels(np.repeat(range(groups), characters)), labels(np.tile(range(characters), groups))


def test_two_ways_are_groups_plus_characters_less_cells():
    generator = np.random.default_rng(5)
    cells = generator.normal(size=(12, 1)) + generator.normal(size=(1, 9)) + generator.normal(size=(12, 9))
    groups, characters = crossed(12, 9)
    found = clustered_mean(cells.ravel(), groups, characters=characters)
    n, apart = cells.size, cells - cells.mean()
    of_groups = (apart.sum(axis=1) ** 2).sum() / n**2 * 12 / 11
    of_characters = (apart.sum(axis=0) ** 2).sum() / n**2 * 9 / 8
    of_cells = (apart**2).sum() / n**2 * n / (n - 1)
    half = stats.t.ppf(0.975, 8) * (of_groups + of_characters - of_cells) ** 0.5
    assert (found.low, found.high) == pytest.approx((cells.mean() - half, cells.mean() + half))


def test_two_ways_are_never_surer_than_one():
    """Of independent items the three terms cancel, and could be less than one way alone."""
    groups, characters = crossed(10, 10)
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=100)
        both = clustered_mean(values, groups, characters=characters)
        for way in (groups, characters):
            one = clustered_mean(values, way)
            assert both.high - both.low >= one.high - one.low - 1e-12


def test_two_ways_need_enough_of_both():
    groups, characters = crossed(20, MIN_GROUPS - 1)
    assert clustered_mean(np.arange(len(groups) * 1.0), groups, characters=characters).low is None


# Draws


def test_a_draw_takes_as_many_groups_as_there_are():
    found = Resampler(grouped(12, 5), seed=1)
    assert found.weights.shape == (DRAWS, 12)
    assert np.all(found.weights.sum(axis=1) == 12)
    assert found.weights.mean() == pytest.approx(1)
    assert found.weights.var() == pytest.approx(11 / 12, rel=0.05)


def test_items_of_a_group_share_a_cell():
    assert Resampler(labels("abab"), draws=3).cells.tolist() == [0, 1, 0, 1]


def test_the_same_seed_gives_the_same_draws_and_another_gives_others():
    one, same, other = (Resampler(grouped(12, 5), seed=seed).weights for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_sums_are_those_of_the_items_as_often_as_they_were_drawn(numbers: np.ndarray):
    resampler = Resampler(grouped(12, 5), draws=20)
    columns = np.stack([numbers.ravel(), numbers.ravel() ** 2], axis=1)
    by_item = np.concatenate([drawn[resampler.cells].T for drawn in resampler.parts()])
    assert by_item.shape == (20, 60)
    assert resampler.sums(columns) == pytest.approx(by_item @ columns)


def test_the_percentile_interval_is_that_of_drawing_groups_by_hand(numbers: np.ndarray):
    resampler = Resampler(grouped(12, 5), draws=4000)
    found = resampler.interval(numbers.mean(), resampler.sums(numbers.reshape(-1, 1))[:, 0] / 60)
    generator = np.random.default_rng(9)
    by_hand = [numbers[generator.integers(0, 12, 12)].mean() for _ in range(4000)]
    assert found == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])), abs=0.06)


def test_two_ways_multiply_how_often_groups_and_characters_were_drawn():
    groups, characters = crossed(9, 8)
    drawn = Resampler(groups, characters, draws=50).weights.reshape(50, 9, 8)
    assert np.all(drawn.sum(axis=(1, 2)) == 9 * 8)
    for draw in drawn:
        assert np.linalg.matrix_rank(draw) == 1


def test_two_ways_vary_more_than_one():
    groups, characters = crossed(20, 20)
    values = np.random.default_rng(0).normal(size=(20, 1)) + np.random.default_rng(1).normal(size=(1, 20))
    spreads = [
        np.std(Resampler(groups, ways).sums(values.reshape(-1, 1))) for ways in (None, characters)
    ]  # fmt: skip
    assert spreads[1] > 1.2 * spreads[0]


@pytest.mark.parametrize(("groups", "characters", "enough"), [(7, 20, False), (20, 7, False), (8, 8, True)])
def test_whether_there_are_enough_to_draw_from(groups: int, characters: int, enough: bool):
    assert Resampler(*crossed(groups, characters), draws=2).is_enough is enough


def test_more_than_a_thousand_groups_are_merged_into_a_thousand_of_about_one_size():
    resampler = Resampler(labels(range(2500)), draws=5)
    sizes = np.bincount(resampler.cells)
    assert len(sizes) == 1000 and set(sizes) == {2, 3}
    assert np.all(resampler.weights.sum(axis=1) == 1000)


def test_merging_keeps_a_group_whole_and_the_interval_what_it_is():
    groups = grouped(3000, 2)
    values = np.repeat(np.random.default_rng(0).normal(size=3000), 2)
    resampler = Resampler(groups)
    assert np.array_equal(resampler.cells[::2], resampler.cells[1::2])
    sums = resampler.sums(np.stack([np.ones(6000), values], axis=1))
    low, high = resampler.interval(values.mean(), sums[:, 1] / sums[:, 0])
    by_t = clustered_mean(values, groups)
    assert high - low == pytest.approx(by_t.high - by_t.low, rel=0.1)


def test_draws_without_a_value_are_left_out_up_to_a_tenth():
    resampler = Resampler(grouped(10, 1), draws=100)
    draws = np.arange(100.0)
    draws[:10] = np.nan
    assert resampler.interval(50, draws) == pytest.approx(tuple(np.quantile(np.arange(10, 100), [0.025, 0.975])))
    draws[10] = np.nan
    assert resampler.interval(50, draws) == (None, None)


def test_an_undefined_value_has_its_reason_and_no_interval():
    found = Resampler(grouped(10, 1), draws=10).estimate(np.nan, np.ones(10), "all are the same")
    assert found == Estimate(None, reason="all are the same")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=30))
def test_the_mean_lies_within_its_interval_and_the_interval_around_it(rows: list[tuple[float, int, int]]):
    values, groups, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = clustered_mean(values.astype(float), labels(groups), weights.astype(float))
    assert found.value == pytest.approx(np.average(values, weights=weights), abs=1e-9)
    assert (found.low is None) == (len(set(groups)) < MIN_GROUPS)
    if found.low is not None:
        assert found.low <= found.value <= found.high


def test_an_interval_contains_its_value():
    resampler = Resampler(grouped(10, 1), draws=101)
    draws = np.arange(101.0)
    assert resampler.interval(200, draws) == pytest.approx((2.5, 200))
    assert resampler.interval(0, draws) == pytest.approx((0, 97.5))
    assert resampler.interval(200, draws, centred=True) == pytest.approx((152.5, 247.5))
