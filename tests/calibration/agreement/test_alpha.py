"""Krippendorff's alpha: against his own example, fractions worked out by hand, and the package."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.stats.intervals import Estimate, Resampler
from calibration.stats.krippendorff import LEVELS, alphas, coincidences
from tests.helpers.pairs import labels, many

N = np.nan

KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
).T
"""Krippendorff 2011, section C: 12 units, 4 observers."""

shapes = st.tuples(st.integers(1, 12), st.integers(1, 4))
sparse_ratings = arrays(float, shapes, elements=st.sampled_from([1, 2, 3.5, 5, N]))


def estimates(ratings, groups=None) -> dict[str, Estimate]:
    ratings = np.array(ratings, dtype=float)
    return alphas(ratings, Resampler(labels(range(len(ratings)) if groups is None else groups)))


def values(ratings) -> dict[str, float | None]:
    return {level: estimate.value for level, estimate in estimates(ratings, [0] * len(ratings)).items()}


def package(ratings: np.ndarray) -> dict[str, float]:
    return {level: float(krippendorff.alpha(ratings.T, level_of_measurement=level)) for level in LEVELS}


def test_krippendorffs_own_example():
    found = values(KRIPPENDORFF)
    assert found == pytest.approx({"nominal": 0.743, "ordinal": 0.815, "interval": 0.849}, abs=5e-4)


def test_alpha_worked_out_by_hand():
    """Eight ratings in pairs, 3 ones, 2 twos, 3 threes, one pair unlike: nominal 1 - 2 / (42 / 7).

    Interval: 1 - 2 * 4 / (96 / 7). Ordinal, on mid-ranks 1.5, 4, 6.5: 1 - 2 * 25 / (600 / 7). One rating is no pair.
    """
    found = values([[1, 1], [2, 2], [3, 3], [1, 3], [5, N]])
    assert found == pytest.approx({"nominal": 2 / 3, "ordinal": 5 / 12, "interval": 5 / 12}, abs=1e-12)


@settings(deadline=None)
@given(sparse_ratings)
def test_alpha_from_weights_of_one_is_the_packages(ratings: np.ndarray):
    ratings = ratings[np.isfinite(ratings).sum(axis=1) > 1]
    if len(np.unique(ratings[np.isfinite(ratings)])) > 1:
        one_cell = coincidences(ratings, np.zeros(len(ratings), dtype=np.intp), 1)
        found = {level: float(value[0]) for level, value in one_cell.alphas(np.ones((1, 1))).items()}
        assert found == pytest.approx(package(ratings), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 0.25]))
def test_a_draw_is_alpha_of_its_items_as_often_as_they_were_drawn(seed: int, grid: float):
    paired = many(40, 3, groups=10, grid=grid, seed=seed)
    resampler = Resampler(paired.groups, draws=1, seed=seed)
    repeated = np.repeat(paired.ratings, resampler.weights[0][resampler.cells].astype(int), axis=0)
    for level, estimate in alphas(paired.ratings, resampler).items():
        ends = sorted([estimate.value, package(repeated)[level]])  # with one draw, from the value to the draw's
        assert [estimate.low, estimate.high] == pytest.approx(ends, abs=1e-9)


def test_scores_of_many_values_have_interval_alpha_only():
    generator = np.random.default_rng(0)
    ratings = generator.normal(0, 1, (60, 1)) + generator.normal(0, 1, (60, 3))
    found = estimates(ratings)
    interval = found["interval"]
    assert interval.value == pytest.approx(package(ratings)["interval"], abs=1e-9)
    assert interval.low < interval.value < interval.high
    none = Estimate(None, reason="the ratings take 180 different values, and it is for at most 101")
    assert found["nominal"] == found["ordinal"] == none


def test_alpha_is_the_same_where_the_package_would_need_too_much_memory(monkeypatch: pytest.MonkeyPatch):
    expected = values(KRIPPENDORFF)
    monkeypatch.setattr("calibration.stats.krippendorff.MOST_IN_PACKAGE", 0)
    monkeypatch.setattr("calibration.stats.krippendorff.krippendorff", None)
    assert values(KRIPPENDORFF) == pytest.approx(expected, abs=1e-9)


def test_ratings_without_a_counterpart_change_nothing():
    """Those are a rater who rated nothing, and items that nobody or one person rated."""
    more = np.vstack([np.hstack([KRIPPENDORFF, np.full((12, 1), N)]), np.full((2, 5), N)])
    more[-1, 2] = 9
    assert values(more) == pytest.approx(values(KRIPPENDORFF), abs=1e-12)
