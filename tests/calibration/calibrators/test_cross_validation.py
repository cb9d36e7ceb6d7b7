"""What is left out, and the one-standard-error rule."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.calibrators.cross_validation import (
    REPEATS,
    group_folds,
    simplest_within_one_standard_error,
    splits,
)
from tests.helpers.pairs import labels


def test_folds_never_split_a_group():
    groups = labels(np.repeat(range(13), 4))
    folds = group_folds(groups, seed=1)
    assert set(folds) == set(range(5))
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    assert group_folds(labels([1, 1]), seed=0).tolist() == [0, 0]


def test_the_hardest_split_comes_first():
    groups, blocks = labels(range(40)), labels(np.arange(40) // 10)
    few, many = labels(np.arange(40) % 2), labels(np.arange(40) % 8)
    schemes = [one.scheme for one in splits(many, blocks, groups)]
    assert schemes[0] == "leaving one of 8 sources out" and schemes[1] == "leaving one of 4 blocks out"
    assert splits(few, blocks, groups)[0].scheme == "leaving one of 4 blocks out"
    assert splits(few, None, groups)[0].scheme == f"5 folds by group, {REPEATS} times"
    assert splits(few, blocks, groups, fewest=5)[0].scheme == f"5 folds by group, {REPEATS} times"


def test_leaving_systems_out_depends_on_no_seed_and_folds_do():
    groups, sources = labels(range(40)), labels(np.arange(40) % 5)
    one, other = (splits(sources, None, groups, seed=seed) for seed in (0, 1))
    assert np.array_equal(one[0].folds, other[0].folds) and len(one[0].folds) == 1
    assert not np.array_equal(one[1].folds, other[1].folds)
    assert len({tuple(folds) for folds in one[1].folds}) == REPEATS


def test_with_a_group_a_fold_there_is_one_way_only():
    found = splits(labels("abc"), None, labels("xyz"))
    assert [(one.scheme, one.folds.shape) for one in found] == [("3 folds by group (there are no more groups)", (1, 3))]
    assert splits(labels("ab"), None, labels("xx")) == []


@pytest.mark.parametrize(
    ("simple", "best", "chosen"),
    [
        # differences of 1, 1, 1, 1: no doubt, the best is taken
        ([2, 2, 2, 2], [1, 1, 1, 1], 1),
        # differences of 3, -1, 3, -1: mean 1, SD 2.31 and SE 1.15, the simple one is within it
        ([4, 0, 4, 0], [1, 1, 1, 1], 0),
        # differences of 3, 0, 3, 0: mean 1.5, SE .87
        ([4, 1, 4, 1], [1, 1, 1, 1], 1),
        # surely worse, by a hundredth of the loss; and by more
        ([1.009] * 4, [1] * 4, 0),
        ([1.011] * 4, [1] * 4, 1),
    ],
)
def test_the_simplest_within_one_standard_error_of_the_best(simple: list[float], best: list[float], chosen: int):
    losses = [np.array(one, dtype=float) for one in (simple, best)]
    assert simplest_within_one_standard_error(losses, np.ones(4), labels("abcd")) == (chosen, 1)


def test_the_standard_error_is_over_what_was_left_out():
    """Two groups of two that differ by 3 and 0: mean 1.5, SE 1.5, where four items would give .87."""
    losses = [np.array([4.0, 4, 1, 1]), np.ones(4)]
    assert simplest_within_one_standard_error(losses, np.ones(4), labels("abcd")) == (1, 1)
    assert simplest_within_one_standard_error(losses, np.ones(4), labels("aabb")) == (0, 1)
