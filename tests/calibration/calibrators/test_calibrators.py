"""Calibrators: worked by hand, and what must hold of any of them."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn.isotonic import IsotonicRegression

from calibration.calibrators.features import Items, Ratings, Standardiser, log_odds
from calibration.calibrators.maps import (
    KINDS,
    Calibrator,
    Constant,
    Isotonic,
    Linear,
    Ordinal,
    Raters,
    Shift,
    unavailable,
    usual_range,
)

SCALE = (1.0, 5.0)


def labels(values):
    return np.array([str(value) for value in values], dtype=object)


def rated(human, weights=None, groups=None):
    """One rater's ratings."""
    return by_each(np.asarray(human, dtype=float)[:, None], ("a",), weights, groups)


def by_each(matrix, annotators, weights=None, groups=None, sources=None):
    """Ratings of shape (items, annotators), NaN where there is none."""
    item, annotator = np.nonzero(np.isfinite(matrix))
    n = len(matrix)
    return Ratings(
        item,
        annotator,
        matrix[item, annotator],
        annotators,
        np.ones(n) if weights is None else np.asarray(weights, dtype=float),
        labels(["s"] * n if sources is None else sources),
        labels(range(n) if groups is None else groups),
    )


def judged(scores, levels=None):
    return Items(np.asarray(scores, dtype=float), levels)


def distributions(n, k=5, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(k), size=n)


def of_levels(n=60, seed=0):
    levels = distributions(n, seed=seed)
    return Items(levels @ np.arange(1, 6), levels)


def test_constant_is_the_weighted_mean_of_item_means():
    fitted = Constant(SCALE).fit(judged([1, 2]), rated([2, 5], weights=[3, 1]))
    assert fitted.predict(judged([4, 1])).tolist() == [2.75, 2.75]


def test_shift_adds_the_weighted_mean_difference():
    # differences 1 and 3 with weights 3 and 1: 1.5; 4 + 1.5 is clipped to 5
    fitted = Shift(SCALE).fit(judged([1, 2]), rated([2, 5], weights=[3, 1]))
    assert fitted.predict(judged([1, 4])).tolist() == [2.5, 5.0]


def test_linear_is_the_least_squares_line():
    # x 1 2 3, y 1 1 4: slope 3/2, mean 2 at 2
    fitted = Linear(SCALE).fit(judged([1, 2, 3]), rated([1, 1, 4]))
    assert (fitted.slope_, fitted.intercept_) == pytest.approx((1.5, -1.0))
    assert fitted.predict(judged([2, 3.5])).tolist() == pytest.approx([2.0, 4.25])


def test_linear_with_weights_is_linear_with_items_repeated():
    once = Linear(SCALE).fit(judged([1, 2, 4]), rated([1, 3, 4], weights=[1, 2, 1]))
    twice = Linear(SCALE).fit(judged([1, 2, 2, 4]), rated([1, 3, 3, 4]))
    assert (once.slope_, once.intercept_) == pytest.approx((twice.slope_, twice.intercept_))


def test_linear_does_not_reverse_the_judge():
    fitted = Linear(SCALE).fit(judged([1, 2, 3]), rated([5, 3, 1]))
    assert fitted.predict(judged([1, 3])).tolist() == [3.0, 3.0]


def test_isotonic_pools_what_falls():
    # 3, 1 falls: pooled to 2
    fitted = Isotonic(SCALE).fit(judged([1, 2, 3]), rated([3, 1, 4]))
    assert fitted.predict(judged([0, 1, 2, 2.5, 9])).tolist() == pytest.approx([2, 2, 2, 3, 4])


def test_isotonic_is_scikit_learns():
    generator = np.random.default_rng(3)
    x, y, w = generator.uniform(1, 5, 80), generator.integers(1, 6, 80).astype(float), generator.uniform(0.5, 3, 80)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(x, y, sample_weight=w)
    points = np.linspace(0, 6, 200)
    assert Isotonic(SCALE).fit(judged(x), rated(y, w)).predict(judged(points)) == pytest.approx(theirs.predict(points))


def test_log_odds_of_the_cumulative_levels():
    # P(score > 1) = .8, P(score > 2) = .5
    assert log_odds(np.array([[0.2, 0.3, 0.5]]))[0] == pytest.approx([np.log(4), 0.0])


def test_ordinal_finds_the_boundary_that_carries_the_signal():
    items = of_levels(400)
    human = 2 + 2 * (items.levels[:, 3:].sum(axis=1))
    others = of_levels(100, seed=1)
    truth = 2 + 2 * (others.levels[:, 3:].sum(axis=1))
    ordinal, linear = (kind(SCALE).fit(items, rated(human)).predict(others) for kind in (Ordinal, Linear))
    assert np.mean((ordinal - truth) ** 2) < 0.5 * np.mean((linear - truth) ** 2)


def test_ordinal_says_that_there_are_no_levels():
    assert "no level probabilities" in unavailable("ordinal", judged([1, 2]))
    assert unavailable("linear", judged([1, 2])) is None
    with pytest.raises(ValueError, match="missing"):
        Ordinal(SCALE).fit(judged([1, 2]), rated([1, 2]))


def test_ordinal_refuses_another_number_of_levels():
    fitted = Ordinal(SCALE).fit(of_levels(), rated(np.tile([1.0, 4.0], 30)))
    with pytest.raises(ValueError, match="4 levels, but fitted on 5"):
        fitted.predict(Items(np.ones(3), distributions(3, k=4)))


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        (range(1, 101), [1] * 100, (3, 98)), (range(1, 11), [1] * 10, (1, 10)), ([5, 1, 3], [1, 1, 1], (1, 5)),
        ([1] * 99 + [9], [1] * 100, (1, 1)), ([2, 8], [39, 1], (2, 2)), ([4], [1], (4, 4)),
    ],
)  # fmt: skip
def test_the_usual_range_holds_the_middle_95_percent(values, weights, expected):
    assert usual_range(np.array(values, dtype=float), np.array(weights, dtype=float)) == expected


# The rater model


def severe_and_lenient(n=200, seed=0, gap=1.0):
    """Two raters who differ by ``gap``; the item's quality is in the second metric, which the first does not tell."""
    generator = np.random.default_rng(seed)
    quality, judge = generator.uniform(2, 4, n), generator.uniform(1, 5, n)
    features = np.column_stack([judge, np.full(n, np.nan), quality, np.full(n, np.nan)])
    scores = np.column_stack([quality - gap / 2, quality + gap / 2]) + generator.normal(0, 0.1, (n, 2))
    return Items(judge, None, features), by_each(scores, ("hard", "soft")), quality


def test_severities_and_other_metrics_are_learned():
    items, ratings, quality = severe_and_lenient()
    fitted = Raters(SCALE).fit(items, ratings)
    assert fitted.severities_["soft"] - fitted.severities_["hard"] == pytest.approx(1.0, abs=0.1)
    assert fitted.predict(items, ["hard"] * 200) == pytest.approx(quality - 0.5, abs=0.25)
    assert fitted.predict(items) == pytest.approx(quality, abs=0.25)


def test_an_unseen_rater_is_the_average_one():
    items, ratings, _ = severe_and_lenient()
    fitted = Raters(SCALE).fit(items, ratings)
    assert fitted.predict(items, ["nobody"] * 200).tolist() == fitted.predict(items).tolist()


def test_a_rater_with_few_ratings_is_pooled_more():
    items, ratings, _ = severe_and_lenient()
    few = ratings.scores.reshape(-1, 2).copy()
    few[3:, 1] = np.nan
    fitted = Raters(SCALE).fit(items, by_each(few, ratings.annotators))
    assert 0 < fitted.severities_["soft"] - fitted.severities_["hard"] < 0.8


def test_slopes_where_raters_differ_in_them_and_not_elsewhere():
    items, ratings, _ = severe_and_lenient(gap=0.0)
    assert Raters(SCALE).fit(items, ratings).penalties_["severity"] == 30.0
    judge = items.judge
    apart = np.column_stack([np.full(len(judge), 3.0), judge])
    fitted = Raters(SCALE).fit(items, by_each(apart, ratings.annotators))
    assert fitted.slopes_["soft"] - fitted.slopes_["hard"] == pytest.approx(judge.std(), rel=0.15)


def test_missing_metrics_are_imputed_and_told_apart():
    columns = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    standard = Standardiser().fit(columns, np.ones(3))
    # mean 2, SD 1; the third is at the mean, and its gap is told; a column with nothing is left out
    assert standard.transform(columns).tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert standard.transform(np.array([[99.0, 7.0]])).tolist() == [[1.0, 0.0]]


def test_an_item_without_other_metrics_is_still_predicted():
    items, ratings, _ = severe_and_lenient()
    fitted = Raters(SCALE).fit(items, ratings)
    alone = Items(np.array([3.0]), None, np.array([[3.0, np.nan, np.nan, np.nan]]))
    assert fitted.predict(alone)[0] == pytest.approx(3.0, abs=0.15)


def test_the_average_annotator_is_that_of_the_ratings():
    """One annotator gave nearly all of the ratings: who is not named is like that one."""
    items, ratings, _ = severe_and_lenient(gap=2.0)
    matrix = ratings.scores.reshape(-1, 2).copy()
    matrix[20:, 0] = np.nan
    fitted = Raters(SCALE).fit(items, by_each(matrix, ratings.annotators))
    assert abs(fitted.severities_["soft"]) < 0.3 * abs(fitted.severities_["hard"])
    assert fitted.predict(items).mean() == pytest.approx(np.nanmean(matrix), abs=0.1)


def test_without_a_gain_raters_is_the_line():
    """Other metrics and annotators that say nothing are left out, and the line is what is left."""
    generator = np.random.default_rng(0)
    judge = generator.uniform(1, 5, 150)
    noise = generator.normal(size=(150, 4))
    items = Items(judge, None, np.column_stack([judge, np.full(150, np.nan), noise]))
    matrix = 2 + 0.5 * judge[:, None] + generator.normal(0, 0.5, (150, 3))
    fitted = Raters(SCALE).fit(items, by_each(matrix, tuple("abc")))
    line = Linear(SCALE).fit(items, by_each(matrix, tuple("abc")))
    assert fitted.penalties_ == {"coefficients": None, "severity": 30.0, "slope": None}
    assert fitted.predict(items) == pytest.approx(line.predict(items), abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_no_prediction_falls_where_the_judge_rises_and_all_else_stays(seed):
    """The judge is wrong way round, and so are some annotators: maps are level there, and never turned round."""
    generator = np.random.default_rng(seed)
    judge, other = generator.uniform(1, 5, (2, 80))
    turned = np.column_stack([6 - judge, judge, 6 - judge]) + generator.normal(0, 0.3, (80, 3))
    items = Items(judge, None, np.column_stack([judge, np.full(80, np.nan), other, np.full(80, np.nan)]))
    fitted = Raters(SCALE).fit(items, by_each(turned, tuple("abc")))
    rising = np.linspace(0, 6, 40)
    there = Items(rising, None, np.column_stack([rising, np.full(40, np.nan), np.full(40, 3.0), np.full(40, np.nan)]))
    for who in (None, ["a"] * 40, ["b"] * 40):
        assert (np.diff(fitted.predict(there, who)) >= -1e-12).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_ordinal_never_falls_where_the_judge_is_surer_of_a_high_level(seed):
    generator = np.random.default_rng(seed)
    items = of_levels(40, seed)
    fitted = Ordinal(SCALE).fit(items, rated(generator.uniform(1, 5, 40)))
    low = distributions(20, seed=seed + 1)
    high = low.copy()
    moved = low[np.arange(20), place := generator.integers(0, 4, 20)] * generator.uniform(0, 1, 20)
    high[np.arange(20), place] -= moved
    high[np.arange(20), place + 1] += moved
    levels = np.arange(1, 6)
    below, above = (fitted.predict(Items(one @ levels, one)) for one in (low, high))
    assert (above >= below - 1e-9).all()


def test_penalties_are_chosen_by_the_system_left_out():
    """A column that tells systems apart and says nothing in another one: it is not read."""
    generator = np.random.default_rng(0)
    source = np.repeat(range(5), 30)
    level = generator.normal(0, 0.8, 5)[source]
    judge = generator.uniform(1, 5, 150)
    told = np.column_stack([source == one for one in range(5)]).astype(float) * 3
    items = Items(judge, None, np.column_stack([judge, np.full(150, np.nan), told]))
    matrix = (3 + level)[:, None] + generator.normal(0, 0.3, (150, 2))
    one = Raters(SCALE).fit(items, by_each(matrix, tuple("ab"), sources=source))
    other = Raters(SCALE).fit(items, by_each(matrix, tuple("ab")))
    assert one.penalties_["coefficients"] is None and other.penalties_["coefficients"] <= 100


# Any calibrator


def fitted_of(kind, n=40, seed=0):
    items = of_levels(n, seed)
    human = np.clip(np.round(items.judge + np.random.default_rng(seed).normal(0, 0.7, n)), 1, 5)
    return KINDS[kind](SCALE).fit(items, rated(human)), items


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_on_the_scale(kind):
    fitted, _ = fitted_of(kind)
    far = Items(np.array([-50.0, 3.0, 50.0]), distributions(3))
    found = fitted.predict(far, ["a"] * 3)
    assert ((found >= 1) & (found <= 5)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_predicts_the_same(kind):
    fitted, items = fitted_of(kind)
    layout = TypeAdapter(Calibrator)
    again = layout.validate_python(json.loads(json.dumps(layout.dump_python(fitted), allow_nan=False)))
    assert again.kind == kind
    who = ["a"] * len(items.judge)
    assert again.predict(items, who).tolist() == fitted.predict(items, who).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_weights_does_not_matter(kind):
    items, human = of_levels(30), np.tile([1.0, 3.0, 4.0], 10)
    weights = np.random.default_rng(0).uniform(1, 5, 30)
    one, tenfold = (KINDS[kind](SCALE).fit(items, rated(human, w)).predict(items) for w in (weights, 10 * weights))
    assert one == pytest.approx(tenfold, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_constant_scores_and_few_items_give_the_human_mean(kind, n):
    human = np.linspace(2, 4, n) if n > 1 else np.array([2.5])
    items = Items(np.full(n, 3.0), np.tile([0.0, 0.0, 1.0, 0.0, 0.0], (n, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = KINDS[kind](SCALE).fit(items, rated(human)).predict(items)
    assert found == pytest.approx(np.full(n, human.mean()))


@pytest.mark.parametrize("kind", KINDS)
def test_one_group_is_fitted_without_cross_validation(kind):
    items = of_levels(20)
    found = KINDS[kind](SCALE).fit(items, rated(items.judge, groups=["g"] * 20)).predict(items)
    assert np.isfinite(found).all()


scores = st.lists(st.floats(1, 5), min_size=3, max_size=12)


@settings(max_examples=60, deadline=None)
@given(scores, st.randoms(use_true_random=False), st.sampled_from(["shift", "linear", "isotonic"]))
def test_a_higher_score_is_never_calibrated_lower(judge, random, kind):
    human = [random.uniform(1, 5) for _ in judge]
    fitted = KINDS[kind](SCALE).fit(judged(judge), rated(human))
    assert (np.diff(fitted.predict(judged(np.linspace(0, 6, 50)))) >= -1e-12).all()


@settings(max_examples=60, deadline=None)
@given(scores, st.floats(-3, 3), st.randoms(use_true_random=False))
def test_a_judge_shifted_as_a_whole_is_calibrated_the_same(judge, by, random):
    human, judge, by = [random.uniform(1, 5) for _ in judge], np.round(judge, 2), round(by, 2)
    for kind in ("shift", "linear", "isotonic"):
        here = KINDS[kind](SCALE).fit(judged(judge), rated(human)).predict(judged(judge))
        there = KINDS[kind](SCALE).fit(judged(judge + by), rated(human)).predict(judged(judge + by))
        assert there == pytest.approx(here, abs=1e-6)
