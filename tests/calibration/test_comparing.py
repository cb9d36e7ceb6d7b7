"""Comparisons of two systems, and ranges of ranks: by hand, and by how often they are wrong."""

from dataclasses import replace

import numpy as np
import pytest

from calibration.pairing import Paired
from calibration.system_differences import compare, groups_needed, rank_ranges
from calibration.system_means import JUDGE_MEAN, LABELLED
from tests.helpers.pairs import paired, systems

A = np.array([3.0, 4, 2, 5, 3, 4, 3, 4])
B = np.array([2.0, 4, 1, 3, 3, 2, 2, 3])  # A - B: 1 0 1 2 0 2 1 1, mean 1, sum of squares 4


def two(a: np.ndarray = A, b: np.ndarray = B, human: object = None) -> Paired:
    return paired([*a, *b], human, ["a"] * len(a) + ["b"] * len(b), [*range(len(a)), *range(len(b))])


def test_the_paired_difference_by_hand() -> None:
    found = compare(two(), "a", "b").judge
    half = 2.364624 * np.sqrt(4 / 7 / 8)
    assert [found.value, found.low, found.high] == pytest.approx([1, 1 - half, 1 + half])
    assert found.p == pytest.approx(0.0072, abs=2e-4)  # t = 3.742 on 7 degrees of freedom
    assert (found.target, found.groups, found.settled, found.outlook) == (JUDGE_MEAN, 8, True, "settled")


def test_the_other_way_round_is_the_negative() -> None:
    one, other = compare(two(), "a", "b").judge, compare(two(), "b", "a").judge
    assert [other.value, other.low, other.high] == pytest.approx([-one.value, -one.high, -one.low])
    assert (other.p, other.needed) == (pytest.approx(one.p), one.needed)


def test_only_groups_that_both_have_count() -> None:
    more = paired([*A, 1, 1, *B], None, ["a"] * 10 + ["b"] * 8, [*range(8), 98, 99, *range(8)])
    assert compare(more, "a", "b").judge == compare(two(), "a", "b").judge


def test_characters_are_matched_and_every_scenario_counts_the_same() -> None:
    # In scenario 0 the systems share character x alone; y is only a's and does not count. Scenario 1 has both, twice.
    rows = [("a", 0, "x", 5), ("a", 0, "y", 1), ("b", 0, "x", 3), ("a", 1, "x", 2), ("a", 1, "y", 4), ("b", 1, "x", 2),
            ("b", 1, "y", 2)]  # fmt: skip
    source, group, character, judge = zip(*rows, strict=True)
    assert compare(paired(judge, None, source, group, character), "a", "b").judge.value == (2 + (0 + 2) / 2) / 2


def test_generalising_over_characters_widens_what_characters_disagree_on() -> None:
    generator = np.random.default_rng(0)
    group, who = np.repeat(np.arange(20), 10), np.tile(np.arange(10), 20)
    favour = generator.normal(0.2, 1, 10)[who] + generator.normal(0, 0.1, 200)
    one = paired(
        np.concatenate([3 + favour, np.full(200, 3.0)]), None, ["a"] * 200 + ["b"] * 200, [*group] * 2, [*who] * 2
    )
    here, others = (compare(one, "a", "b", characters=wanted).judge for wanted in (False, True))
    assert here.value == pytest.approx(others.value)
    assert others.high - others.low > 5 * (here.high - here.low)


# How many it would take


def test_groups_needed_is_the_textbooks_sample_size() -> None:
    assert groups_needed(0.5, 1.0) == 34  # two-sided .05, power .8, d = .5
    assert groups_needed(-0.5, 1.0) == 34
    assert groups_needed(0.2, 1.0) == pytest.approx(199, abs=1)
    assert groups_needed(50.0, 1.0) == 8
    assert groups_needed(0.0, 1.0) is None


def test_a_difference_of_nothing_is_never_settled() -> None:
    found = compare(two(A, A[::-1].copy()), "a", "b").judge
    assert (found.value, found.needed, found.outlook) == (0, None, "never, at a difference of 0")
    assert found.p == pytest.approx(1)


def test_what_is_not_settled_says_what_it_would_take() -> None:
    found = compare(two(A, A[::-1] + np.array([0.1, 0, 0, 0, 0, 0, 0, 0])), "a", "b").judge
    assert not found.settled and found.needed is not None and found.needed > 1000
    assert f"about {found.needed:,} groups" in found.outlook


# By people


def test_with_all_rated_people_are_compared_as_the_judge_is() -> None:
    by_people = compare(two(A + 0.1, B, human=[*A, *B]), "a", "b").human
    by_judge = compare(two(), "a", "b").judge
    assert by_people.target == LABELLED
    assert [by_people.value, by_people.low, by_people.high, by_people.p] == pytest.approx(
        [by_judge.value, by_judge.low, by_judge.high, by_judge.p]
    )


def test_scenarios_that_systems_share_do_not_blur_their_difference() -> None:
    one = systems("ab", 60, {"b": 0.5})
    some = replace(one, ratings=np.where(np.tile(np.arange(60) % 2 == 0, 2)[:, None], one.ratings, np.nan))
    found = compare(some, "a", "b").human
    assert found.low < -0.5 < found.high and found.settled
    assert found.groups == 30


# What cannot be said


def test_without_labels_of_one_nothing_is_said_of_people() -> None:
    human = [*A, *[np.nan] * 8]
    found = compare(two(human=human), "a", "b").human
    assert (found.value, found.p, found.needed) == (None, None, None)
    assert found.reason == "nobody rated an item of both in the groups they share"


def test_too_few_groups_give_a_difference_without_interval() -> None:
    found = compare(two(A[:5], B[:5]), "a", "b").judge
    assert found.value == pytest.approx(0.8) and found.low is None and found.p is None
    assert found.reason == "it rests on 5 groups (or characters); an interval needs 8"
    assert "not settled" in found.outlook


def test_the_same_difference_everywhere_has_no_spread() -> None:
    found = compare(two(B + 0.7, B), "a", "b").judge
    assert found.value == pytest.approx(0.7) and found.low is None
    assert "same in every group" in found.reason


def test_systems_that_share_no_group_cannot_be_compared() -> None:
    one = paired([1, 2], None, ["a", "b"], [0, 1])
    assert compare(one, "a", "b").judge.reason == "they share no group (with the same character in it)"
    assert compare(one, "a", "b").human.value is None


def test_unknown_sources_and_characters_are_errors() -> None:
    with pytest.raises(ValueError, match=r"no source 'z' \(found: a, b\)"):
        compare(two(), "a", "z")
    with pytest.raises(ValueError, match="no column 'character'"):
        compare(two(), "a", "b", characters=True)


# Ranks


def test_ranks_that_are_clear_and_ranks_that_are_not() -> None:
    generator = np.random.default_rng(0)
    base = generator.normal(3, 1, 40)
    levels = {"a": 2.0, "b": 0.01, "c": 0.0, "d": -2.0}
    judge = np.concatenate([base + level + generator.normal(0, 0.3, 40) for level in levels.values()])
    table = rank_ranges(paired(judge, None, np.repeat(list(levels), 40), [*range(40)] * 4)).set_index("source")
    assert table.loc[["a", "d"], ["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [[1, 1, 1], [4, 4, 4]]
    assert (table.loc[["b", "c"], "rank_low"] == 2).all() and (table.loc[["b", "c"], "rank_high"] == 3).all()
    assert table.index[0] == "a" and (table["target"] == JUDGE_MEAN).all() and (table["reason"] == "").all()


def test_equal_systems_are_told_apart_in_one_draw_of_twenty() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for seed in range(100):
        judge = generator.normal(0, generator.uniform(0.5, 1.5, (6, 1)), (6, 15)) + generator.normal(size=15)
        table = rank_ranges(paired(judge.ravel(), None, np.repeat(list("abcdef"), 15), [*range(15)] * 6), seed=seed)
        wrong += bool((table["rank_low"] > 1).any() or (table["rank_high"] < 6).any())
    assert wrong <= 11  # of 100 at 5% (pairs one by one, without the maximum, would be wrong in a third)


def test_the_same_seed_gives_the_same_ranges() -> None:
    one = systems("abcd", 20)
    assert rank_ranges(one, seed=3).equals(rank_ranges(one, seed=3))


def test_people_rank_by_their_labels_and_the_unrated_come_last() -> None:
    one = systems("abc", 30, {"a": -1.0, "b": 1.0})
    hidden = replace(one, ratings=np.where((one.sources == "c")[:, None], np.nan, one.ratings))
    table = rank_ranges(hidden, human=True)
    assert table["source"].tolist() == ["b", "a", "c"]
    assert (table["target"] == LABELLED).all()
    assert table["rank"].isna().tolist() == [False, False, True]
    assert table["reason"].tolist() == ["", "", "only 0 groups have labels; a rank needs 8"]


def test_one_source_and_few_groups() -> None:
    (row,) = rank_ranges(paired(np.arange(10.0))).to_dict("records")
    assert (row["rank"], row["rank_low"], row["rank_high"]) == (1, 1, 1)
    table = rank_ranges(two(A[:4], B[:4]))
    assert table["rank"].isna().all() and table["mean"].notna().all()
    assert (table["reason"] == "only 4 groups have items; a rank needs 8").all()


def test_constant_scores_share_a_rank_or_are_apart_for_sure() -> None:
    same = rank_ranges(two(np.full(10, 3.0), np.full(10, 3.0)))
    assert same[["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [[1, 1, 2], [1, 1, 2]]
    apart = rank_ranges(two(np.full(10, 4.0), np.full(10, 3.0)))
    assert apart[["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [[1, 1, 1], [2, 2, 2]]
