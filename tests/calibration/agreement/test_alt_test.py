"""The alternative annotator test: against its authors' figures, their rule, and fractions worked out by hand."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_1samp

from calibration import read_ratings, read_scores
from calibration.agreement.alt_test import AltTest, alternative_annotator_test
from calibration.pairing import Paired, pair
from tests.helpers.pairs import labels, many, metric, rated

N = np.nan
EXPERTS = ("expert1", "expert2", "expert3")

FOUR = rated([[3, 3, 3], [5, 3, 3], [2, 2, 4], [1, 2, 3]], judge=[3, 3, 5, 2])
"""a: tie, judge, person, judge nearer to the others; b: tie, tie, person, tie; c: tie, tie, person, judge."""


def column(found: AltTest, name: str) -> list:
    return found.by_annotator[name].tolist()


# The authors' figures and rule


def test_it_equals_the_expected_one_on_all_63_metrics_and_judges(shared_data: Path):
    folder = shared_data / "human" / "empathy"
    expected = json.loads((folder / "expected_alt_test.json").read_text(encoding="utf-8"))
    people, scores = read_ratings(folder / "human.csv", None), read_scores(folder / "judge.csv", None)
    found = {
        f"{metric}/{judge}": alternative_annotator_test(one)
        for judge in ("gpt", "claude", "gemini")
        for metric, one in pair(people, scores, judge=judge, annotators=EXPERTS).metrics.items()
    }
    assert len(expected) == 63
    assert set(found) == set(expected)
    for cell, figures in expected.items():
        assert found[cell].winning_rate == pytest.approx(figures["winning_rate"], abs=1e-9)
        assert found[cell].advantage_probability == pytest.approx(figures["avg_advantage_prob"], abs=1e-9)


def test_four_items_worked_out_by_hand():
    found = alternative_annotator_test(FOUR, min_items=4)
    assert column(found, "advantage_probability") == [3 / 4, 3 / 4, 3 / 4]
    assert column(found, "human_advantage_probability") == [2 / 4, 4 / 4, 3 / 4]
    assert found.advantage_probability == 3 / 4
    # what a wins by: 0, -1, 1, -1: mean -1/4, squares 11/4 about it; b: 0, 0, 1, 0; c: 0, 0, 1, -1
    errors = np.sqrt([11 / 12 / 4, 1 / 4 / 4, 2 / 3 / 4])
    expected = t.cdf((np.array([-1 / 4, 1 / 4, 0]) - 0.2) / errors, 3)
    assert column(found, "p_value") == pytest.approx(expected.tolist(), abs=1e-12)
    assert column(found, "rejected") == [False, False, False]
    assert (found.winning_rate, found.passed) == (0, False)


@pytest.mark.parametrize("step", [1, 0.5, 0.1, 10])
def test_accuracy_is_the_same_whatever_the_steps_of_the_scale(step: float):
    """Three annotators nearly always give the highest score, the judge always the middle one: it beats nobody."""
    levels = np.full((60, 3), 3.0)
    levels[::10] = [2, 3, 3]
    levels[5] = [1, 3, 3]
    paired = metric([2] * 60, levels, scale=(1, 3))
    scaled = replace(paired, ratings=levels * step, judge=paired.judge * step, scale=(step, 3 * step))
    found, expected = (alternative_annotator_test(one, scoring="accuracy") for one in (scaled, paired))
    assert found.winning_rate == expected.winning_rate == 0
    assert found.advantage_probability == expected.advantage_probability


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["rmse", "accuracy"]), st.sampled_from([0.1, 0.2, 0.5]))
def test_it_is_the_authors_rule_item_by_item(seed: int, scoring: str, epsilon: float):
    generator = np.random.default_rng(seed)
    paired = many(60, 4, seed=seed)
    ratings = np.where(generator.random(paired.ratings.shape) < 0.3, N, paired.ratings)
    paired = replace(paired, ratings=ratings, groups=paired.items)
    found = alternative_annotator_test(paired, scoring=scoring, epsilon=epsilon, min_items=10)
    p_values, advantages, beaten = by_the_authors_rule(paired, scoring, epsilon, 0.05)
    assert column(found, "p_value") == pytest.approx(p_values, abs=1e-9)
    assert column(found, "p_value_by_group") == pytest.approx(p_values, abs=1e-9)  # each item is a group
    assert column(found, "advantage_probability") == pytest.approx(advantages)
    assert column(found, "rejected") == beaten
    assert found.winning_rate == np.mean(beaten)
    assert found.passed == (np.mean(beaten) >= 0.5)


def by_the_authors_rule(paired: Paired, scoring: str, epsilon: float, q: float):
    """p-values, advantage probabilities and who is beaten, one item at a time."""
    near = {
        "rmse": lambda score, others: -np.sqrt(np.mean([(score - other) ** 2 for other in others])),
        "accuracy": lambda score, others: np.mean([score == other for other in others]),
    }[scoring]
    p_values, advantages = [], []
    for person in range(paired.ratings.shape[1]):
        wins, losses = [], []
        for judge, row in zip(paired.judge, paired.ratings, strict=True):
            others = [score for score in np.delete(row, person) if np.isfinite(score)]
            if np.isfinite(row[person]) and others:
                of_judge, of_person = near(judge, others), near(row[person], others)
                wins.append(of_judge >= of_person - 1e-9)
                losses.append(of_person >= of_judge - 1e-9)
        p_values.append(ttest_1samp(np.subtract(losses, wins, dtype=float), epsilon, alternative="less").pvalue)
        advantages.append(np.mean(wins))
    m = len(p_values)
    ranks = np.arange(1, m + 1)
    order = np.argsort(p_values)
    passing = np.flatnonzero(np.array(p_values)[order] <= ranks / m * q / np.sum(1 / ranks))
    chosen = set(order[: passing.max() + 1]) if len(passing) else set()
    return p_values, advantages, [person in chosen for person in range(m)]


def test_p_values_that_are_tied_fall_together():
    same = many(40, 1).ratings
    found = alternative_annotator_test(rated(np.hstack([same] * 3), judge=same[:, 0]))
    assert column(found, "rejected") == [True] * 3
    assert (found.winning_rate, found.advantage_probability, found.passed) == (1, 1, True)


# Scoring and epsilon


def test_a_judge_that_always_wins_has_p_0_and_one_that_always_loses_p_1():
    """The differences do not vary, so t is infinite."""
    people = np.tile([1.0, 3.0, 5.0], (40, 1))
    best = alternative_annotator_test(rated(people, judge=[3] * 40))
    assert column(best, "p_value") == [0, 0, 0]
    assert best.passed
    worst = alternative_annotator_test(rated(np.tile([3.0], (40, 3)), judge=[1] * 40))
    assert column(worst, "p_value") == [1, 1, 1]
    assert (worst.winning_rate, worst.advantage_probability, worst.passed) == (0, 0, False)


def test_for_accuracy_the_judges_score_is_rounded_half_up_and_kept_on_the_scale():
    people = np.tile([3.0, 3.0, 3.0], (4, 1))
    found = alternative_annotator_test(rated(people, judge=[2.5, 2.5, 3.49, 3.5]), scoring="accuracy", min_items=4)
    assert found.advantage_probability == 3 / 4
    over = rated(np.tile([5.0, 5.0, 5.0], (4, 1)), judge=[5.7] * 4)
    assert alternative_annotator_test(over, scoring="accuracy", min_items=4).advantage_probability == 1
    assert alternative_annotator_test(over, scoring="rmse", min_items=4).advantage_probability == 0


def test_sums_that_differ_by_rounding_only_are_ties():
    people = np.tile([0.1 + 0.2, 0.3, 0.3], (30, 1))
    found = alternative_annotator_test(rated(people, judge=[0.3] * 30))
    assert column(found, "human_advantage_probability") == [1, 1, 1]


def test_epsilon_is_that_of_the_kind_of_annotators_unless_it_is_given():
    kinds = {kind: alternative_annotator_test(many(40), kind=kind) for kind in ("expert", "skilled", "crowd")}
    assert {kind: found.epsilon for kind, found in kinds.items()} == {"expert": 0.2, "skilled": 0.15, "crowd": 0.1}
    p_values = [column(found, "p_value")[0] for found in kinds.values()]
    assert p_values == sorted(p_values)
    assert len(set(p_values)) == 3
    assert alternative_annotator_test(many(40), kind="crowd", epsilon=0.3).epsilon == 0.3


def test_an_item_of_weight_two_counts_as_two():
    paired = many(60)
    weights = np.where(np.arange(60) < 20, 2.0, 1.0)
    twice = paired.at(np.repeat(np.arange(60), weights.astype(int)))
    one, other = alternative_annotator_test(replace(paired, weights=weights)), alternative_annotator_test(twice)
    assert one.advantage_probability == pytest.approx(other.advantage_probability)
    assert column(one, "p_value_by_group") == pytest.approx(column(other, "p_value_by_group"))


# Groups


def test_p_values_by_group_are_of_the_means_of_groups_of_one_size():
    paired = many(120, groups=12)
    found = alternative_annotator_test(paired)
    own, rest = paired.ratings[:, 0], paired.ratings[:, 1:]
    judge, person = (np.sqrt(((score[:, None] - rest) ** 2).mean(axis=1)) for score in (paired.judge, own))
    losing = (person <= judge + 1e-9).astype(float) - (judge <= person + 1e-9)
    means = losing.reshape(10, 12).mean(axis=0)
    expected = ttest_1samp(means, 0.2, alternative="less").pvalue
    assert column(found, "p_value_by_group")[0] == pytest.approx(expected, abs=1e-12)
    assert column(found, "p_value")[0] == pytest.approx(ttest_1samp(losing, 0.2, alternative="less").pvalue, abs=1e-12)


def test_items_of_one_group_that_are_alike_are_not_taken_for_evidence_each():
    """Two thirds of the groups are the judge's throughout: by items that is sure, by nine groups it is not."""
    judge = np.repeat([3, 3, 3, 3, 3, 3, 5, 5, 5], 20)
    people = np.where(judge[:, None] == 3, [1.0, 3.0, 5.0], [3.0, 3.0, 3.0])
    found = alternative_annotator_test(rated(people, judge, groups=np.repeat(range(9), 20)))
    assert (found.winning_rate, found.winning_rate_by_group) == (2 / 3, 0)


def test_under_eight_groups_there_is_no_p_value_by_group():
    seven, eight = (alternative_annotator_test(many(56, groups=groups)) for groups in (7, 8))
    assert np.isnan(column(seven, "p_value_by_group")).all()
    assert seven.by_annotator["rejected_by_group"].isna().all()
    assert seven.winning_rate_by_group is None
    assert seven.remarks == ("No p-value by group, with fewer than 8 groups: a, b, c.",)
    assert eight.winning_rate_by_group is not None
    assert eight.remarks == ()


# Who is skipped, and what is refused


def test_who_rated_too_few_items_is_skipped_and_said_so():
    paired = many(40, 4)
    ratings = paired.ratings.copy()
    ratings[29:, 3] = N
    found = alternative_annotator_test(replace(paired, ratings=ratings))
    assert column(found, "items") == [40, 40, 40, 29]
    assert found.by_annotator["p_value"].isna().tolist() == [False, False, False, True]
    assert found.by_annotator["rejected"].isna().tolist() == [False, False, False, True]
    assert found.remarks == ("Skipped, with fewer than 30 items that another rated too: d.",)
    assert found.advantage_probability == pytest.approx(np.mean(column(found, "advantage_probability")[:3]))
    assert found.winning_rate == np.mean([bool(beaten) for beaten in column(found, "rejected")[:3]])


def test_comparisons_with_one_other_person_are_counted():
    paired = many(40)
    ratings = paired.ratings.copy()
    ratings[35:, 2] = N
    found = alternative_annotator_test(replace(paired, ratings=ratings))
    assert found.remarks == ("10 of 115 comparisons are with one other annotator only.",)


alone = np.full((60, 3), N)
alone[np.arange(60), np.arange(60) % 3] = 4.0
in_twos = many(90).ratings.copy()
in_twos[np.arange(90), np.arange(90) % 3] = N


@pytest.mark.parametrize(
    ("ratings", "reason"),
    [
        (many(40, 1).ratings, "one annotator rated"),
        (np.hstack([many(40, 1).ratings, np.full((40, 2), N)]), "one annotator rated"),
        (np.full((40, 2), N), "nobody rated"),
        (np.empty((0, 3)), "nobody rated"),
        (many(29).ratings, "nobody rated 30 items that another rated too (at most 29)"),
        (alone, "nobody rated 30 items that another rated too (at most 0)"),
        (many(40, 2).ratings, "nobody rated 30 items that two others rated too (at most 0)"),
        (in_twos, "nobody rated 30 items that two others rated too (at most 0)"),
    ],
)
def test_it_is_refused_with_the_reason(ratings: np.ndarray, reason: str):
    found = alternative_annotator_test(rated(ratings))
    assert found.reason == reason
    assert found.winning_rate is found.advantage_probability is found.passed is found.winning_rate_by_group is None
    assert found.by_annotator.empty
    assert list(found.by_annotator) == list(alternative_annotator_test(many(40)).by_annotator)


def test_slots_are_nobody_to_stand_in_for():
    found = alternative_annotator_test(many(40), raters="slots")
    assert found.reason.startswith("the annotators are slots that different persons fill, so that there is nobody")
    assert found.passed is None


def test_it_takes_two_items_to_test_anything():
    with pytest.raises(ValueError, match="min_items is 1; give 2 or more"):
        alternative_annotator_test(FOUR, min_items=1)
    assert alternative_annotator_test(FOUR, min_items=2).reason is None


def test_items_that_nobody_rated_and_annotators_who_rated_nothing_change_nothing():
    paired = many(40)
    more = np.full((50, 4), N)
    more[:40, :3] = paired.ratings
    judge = np.concatenate([paired.judge, np.ones(10)])
    found = alternative_annotator_test(rated(more, judge, groups=labels(row % 60 for row in range(50))))
    expected = alternative_annotator_test(paired)
    assert found.by_annotator.equals(expected.by_annotator)


@pytest.mark.long
def test_all_of_chatanime_takes_a_moment():
    paired = many(13_200)
    start = time.process_time()
    alternative_annotator_test(paired)
    assert time.process_time() - start < 0.5  # 0.02 s on a desktop; a loop over items takes a second and more
