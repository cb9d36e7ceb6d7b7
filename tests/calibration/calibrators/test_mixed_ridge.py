"""Ridge regression with annotators: against the same equations with a column for everything."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.calibrators.mixed_ridge import NormalEquations


def _problem(seed: int, items: int = 30, annotators: int = 7, columns: int = 3):
    generator = np.random.default_rng(seed)
    design = np.column_stack([np.ones(items), generator.normal(size=(items, columns))])
    item, annotator = np.nonzero(generator.uniform(size=(items, annotators)) < 0.4)
    weights = generator.uniform(0.5, 2, len(item))
    return design, generator.normal(size=items), item, annotator, annotators, generator.normal(size=len(item)), weights


def _with_all_columns(problem, penalties, severity, slope):
    design, score, item, annotator, annotators, target, weights = problem
    who = np.eye(annotators)[annotator]
    whole = np.hstack([design[item], who, who * score[item, None]])
    ridge = np.diag(np.concatenate([penalties, np.full(annotators, severity), np.full(annotators, slope)]))
    return np.linalg.solve(whole.T @ (whole * weights[:, None]) + ridge, whole.T @ (weights * target))


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_regression_with_a_column_for_each_annotator(seed: int):
    problem, penalties = _problem(seed), np.array([0.0, 3.0, 3.0, 3.0])
    found = NormalEquations.of(*problem).solve(penalties, 5.0, 2.0)
    expected = np.split(_with_all_columns(problem, penalties, 5.0, 2.0), [4, 11])
    for one, other in zip((found.items, found.severity, found.slope), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_an_infinite_penalty_leaves_a_part_out():
    problem = _problem(0)
    found = NormalEquations.of(*problem).solve(np.array([0.0, 1.0, np.inf, 1.0]), 5.0, np.inf)
    expected = _with_all_columns(problem, np.array([0.0, 1.0, 1e12, 1.0]), 5.0, 1e12)
    assert found.items == pytest.approx(expected[:4], abs=1e-6) and found.items[2] == 0
    assert (found.slope == 0).all() and found.severity == pytest.approx(expected[4:11], abs=1e-6)


def test_the_sums_of_some_ratings_can_be_taken_off():
    problem = _problem(1)
    design, score, item, annotator, annotators, target, weights = problem
    some = np.arange(len(item)) % 3 == 0

    def of(chosen):
        return NormalEquations.of(
            design, score, item[chosen], annotator[chosen], annotators, target[chosen], weights[chosen]
        )

    penalties = np.array([0.0, 1.0, 1.0, 1.0])
    left, alone = ((one.solve(penalties, 2.0, 2.0)) for one in (of(item >= 0) - of(some), of(~some)))
    assert left.items == pytest.approx(alone.items) and left.severity == pytest.approx(alone.severity)


def test_a_coefficient_that_may_not_be_below_zero_is_zero_and_the_others_are_the_best_without_it():
    design = np.column_stack([np.ones(50), np.linspace(-1, 1, 50), np.tile([-1.0, 1.0], 25)])
    target = 2 - 3 * design[:, 1] + 0.5 * design[:, 2]
    rows = np.arange(50)
    sums = NormalEquations.of(design, np.zeros(50), rows, np.zeros(50, dtype=int), 1, target, np.ones(50))
    penalties = np.array([0.0, 0.1, 0.1])
    held = sums.solve(penalties, np.inf, np.inf, np.array([False, True, True])).items
    without = sums.solve(np.array([0.0, np.inf, 0.1]), np.inf, np.inf).items
    assert held == pytest.approx(without, abs=1e-6) and held[1] == pytest.approx(0, abs=1e-9) and held[2] > 0


def test_a_penalty_is_in_observations():
    """One column without an intercept: sum(xy) / (sum(x^2) + penalty) = 14 / (14 + 14)."""
    x = np.array([[1.0], [2.0], [3.0]])
    sums = NormalEquations.of(x, np.zeros(3), np.arange(3), np.zeros(3, dtype=int), 1, x[:, 0], np.ones(3))
    assert sums.solve(np.array([14.0]), np.inf, np.inf).items[0] == pytest.approx(0.5)


def test_an_annotator_who_rated_nothing_is_the_average_one():
    design, score, item, annotator, annotators, target, weights = _problem(2)
    found = NormalEquations.of(design, score, item, annotator, annotators + 1, target, weights).solve(
        np.array([0.0, 1.0, 1.0, 1.0]), 5.0, 5.0
    )
    assert (found.severity[-1], found.slope[-1]) == (0, 0)
