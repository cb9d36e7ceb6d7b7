"""System means by target: against figures worked out by hand, the methods' own code, and truths that are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.coverage import Case, coverage, leaving_one_out
from calibration.stats.intervals import clustered_mean
from calibration.stats.prediction_powered import _tuned, equivalent_labels, powered_mean
from calibration.system_means import (
    JUDGE_MEAN,
    LABELLED,
    NEW_SYSTEM,
    estimate,
    judge_means,
    labelled_means,
    new_system_means,
)
from tests.helpers.pairs import labels, paired, systems

GOLDEN = Path(__file__).parents[1] / "golden" / "ppi_python.json"


def two_samples(human: list[float], rated: list[float], unrated: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([*human, *[np.nan] * len(unrated)]), np.array([*rated, *unrated])


# The prediction-powered mean of independent items


@pytest.mark.parametrize(("name", "lambda_"), [("lam0", 0.0), ("lam1", 1.0), ("tuned", None)])
def test_the_toy_case_is_as_published(shared_data: Path, name: str, lambda_: float | None) -> None:
    toy = json.loads((shared_data / "human" / "expected_ppi_toy.json").read_text(encoding="utf-8"))["toy"]
    mean = powered_mean(*two_samples(toy["Y"], toy["F"], toy["Fu"]), lambda_=lambda_).estimate
    assert [mean.value, mean.low, mean.high] == pytest.approx([toy[name]["point"], *toy[name]["ci"]], abs=1e-9)


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text(encoding="utf-8")))
def test_figures_of_ppi_python(case: dict) -> None:
    arrays = two_samples(case["human"], case["rated"], case["unrated"])
    mean = powered_mean(*arrays, lambda_=case["lambda"]).estimate
    assert [mean.value, mean.low, mean.high] == pytest.approx([case["point"], *case["ci"]], abs=1e-9)


def test_ppi_python_itself_on_random_cases() -> None:
    reference = pytest.importorskip("ppi_py", reason="ppi-python is not installed (it brings numba and more)")
    generator = np.random.default_rng(1)
    for rated, unrated in [(8, 5), (20, 200), (50, 50), (300, 30)] * 5:
        judge = generator.normal(3, 1, rated + unrated)
        human = generator.uniform(-1, 2) * judge[:rated] + generator.normal(0, 1, rated)
        given = (human, judge[:rated], judge[rated:])
        for lambda_ in (None, 0.3):
            mean = powered_mean(*two_samples(*map(list, given)), lambda_=lambda_).estimate
            low, high = reference.ppi_mean_ci(*given, alpha=0.05, lam=lambda_)
            point = reference.ppi_mean_pointestimate(*given, lam=lambda_)
            assert [mean.value, mean.low, mean.high] == pytest.approx(np.ravel([point, low, high]), abs=1e-9)


# The prediction-powered mean over groups, with weights


def test_all_items_rated_is_the_clustered_mean_of_the_ratings() -> None:
    generator = np.random.default_rng(0)
    human, judge = generator.normal(3, 1, (2, 40))
    groups = labels(np.arange(40) % 10)
    mine = powered_mean(human, judge, groups, weights=np.ones(40)).estimate
    plain = clustered_mean(human, groups)
    assert [mine.value, mine.low, mine.high] == pytest.approx([plain.value, plain.low, plain.high])


def test_a_judge_that_knows_all_leaves_only_what_the_scenarios_leave_open() -> None:
    judge = np.random.default_rng(0).normal(3, 1, 200)
    human = np.where(np.arange(200) % 5 == 0, judge + 0.5, np.nan)
    exact = powered_mean(human, judge, labels(range(200)), weights=np.ones(200), lambda_=1.0)
    assert exact.estimate.value == pytest.approx(judge.mean() + 0.5)
    assert exact.variance == pytest.approx(judge.var() / 200 * 40 / 39)


def test_weights_by_hand() -> None:
    human, judge = np.array([4.0, 1.0, np.nan, np.nan]), np.array([3.0, 1.0, 2.0, 4.0])
    weights = np.array([1.0, 3.0, 1.0, 1.0])  # the second stands for three
    assert powered_mean(human, judge, weights=weights, lambda_=0).estimate.value == pytest.approx((4 + 3) / 4)
    moved = (4 + 3) / 4 + 0.5 * (10 / 4 - (3 + 3) / 4)
    assert powered_mean(human, judge, weights=weights, lambda_=0.5).estimate.value == pytest.approx(moved)


def test_degrees_of_freedom_come_from_the_groups_with_labels() -> None:
    human = np.where(np.arange(100) < 10, np.arange(100) % 4 + 1.0, np.nan)
    mean = powered_mean(human, np.full(100, 2.0), labels(range(100)), weights=np.ones(100))
    half = stats.t.ppf(0.975, 9) * human[:10].std(ddof=1) / np.sqrt(10)
    assert (mean.groups, mean.lambda_) == (10, 0.0)
    assert mean.estimate.high - mean.estimate.value == pytest.approx(half)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.1, 4))
def test_a_change_of_scale_changes_the_mean_alike(seed: int, shift: float, factor: float) -> None:
    generator = np.random.default_rng(seed)
    judge, groups = generator.normal(size=60), labels(np.arange(60) % 12)
    human = np.where(generator.random(60) < 0.5, judge * 0.5 + generator.normal(size=60), np.nan)
    human[:24] = generator.normal(size=24)
    one = powered_mean(human, judge, groups, weights=np.ones(60)).estimate
    other = powered_mean(factor * human + shift, factor * judge, groups, weights=np.ones(60)).estimate
    assert [other.value, other.low, other.high] == pytest.approx(
        [factor * x + shift for x in (one.value, one.low, one.high)]
    )


# What labels saved


def test_equivalent_labels_of_the_ratings_own_interval_are_the_labels() -> None:
    half = stats.t.ppf(0.975, 59) * 0.01**0.5
    assert equivalent_labels(120, 60, 0.01, half) == 120


def test_half_the_width_takes_four_times_the_labels_but_for_the_quantile() -> None:
    half = stats.t.ppf(0.975, 59) * 0.01**0.5 / 2
    number = equivalent_labels(120, 60, 0.01, half)
    assert number is not None and 465 <= number < 480
    width = [stats.t.ppf(0.975, n / 2 - 1) * (0.01 * 120 / n) ** 0.5 for n in (number - 1, number)]
    assert width[1] <= half < width[0]


def test_no_width_no_number() -> None:
    assert equivalent_labels(120, 60, 0.01, 0.0) is None


# The tables


def test_every_row_names_its_target() -> None:
    table = estimate(systems("abcdef", 12))
    assert set(table["target"]) == {
        "judge mean", "human mean of a system with some labels", "human mean of a new system",
    }  # fmt: skip
    assert table.groupby("target")["source"].sum().eq("abcdef").all()
    assert (table["reason"] == "").all()
    assert table[["mean", "low", "high"]].notna().all(axis=None)


def test_judge_means_by_hand() -> None:
    row = judge_means(paired([1, 2, 3, 4, 5, 4, 3, 2], groups=range(8))).iloc[0]
    half = 2.364624 * np.sqrt(12 / 7 / 8)
    assert [row["mean"], row["low"], row["high"], row["n"], row["groups"]] == pytest.approx(
        [3, 3 - half, 3 + half, 8, 8]
    )
    assert row["target"] == JUDGE_MEAN


def test_labels_of_some_items_reach_further_with_the_judge() -> None:
    one = systems("a", 200, {"a": 0.4})
    some = replace(one, ratings=np.where(np.arange(200)[:, None] % 5 == 0, one.ratings, np.nan))
    row = labelled_means(some).iloc[0]
    assert (row["n"], row["labelled"], row["target"]) == (200, 40, LABELLED)
    assert row["low"] < one.ratings.mean() < row["high"]
    assert row["high"] - row["low"] < 0.7 * (row["human_high"] - row["human_low"])
    assert row["equivalent_labels"] > 80
    assert 0.5 < row["lambda_"] <= 1


def test_a_useless_judge_does_no_harm() -> None:
    generator = np.random.default_rng(2)
    human = np.where(np.arange(400) % 4 == 0, generator.normal(3, 1, 400), np.nan)
    row = labelled_means(paired(generator.normal(3, 1, 400), human)).iloc[0]
    assert row["lambda_"] < 0.2
    assert row["high"] - row["low"] == pytest.approx(row["human_high"] - row["human_low"], rel=0.05)


def _in_whole_groups(sees: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """30 groups of 10, of which 10 are rated in full; the judge sees items, and errs by group more than people vary."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(30), 10)
    quality = generator.normal(0, 1, 300)
    human = 3 + generator.normal(0, 0.4, 30)[group] + quality
    judge = 3 + sees * quality + generator.normal(0, 1.2, 30)[group] + generator.normal(0, 0.5, 300)
    return np.where(group < 10, human, np.nan), judge, labels(group)


def test_lambda_is_chosen_by_what_groups_add_and_not_by_items() -> None:
    """Item by item the judge is good (slope .5); group by group it errs, and whole groups were rated."""
    wider = []
    for seed in range(40):
        human, judge, group = _in_whole_groups(0.9, seed)
        found, alone = (powered_mean(human, judge, group, weights=np.ones(300), lambda_=one) for one in (None, 0))
        by_items = powered_mean(human, judge, weights=np.ones(300)).lambda_
        by_slope = powered_mean(human, judge, group, weights=np.ones(300), lambda_=by_items)
        wider.append([np.ptp([one.estimate.low, one.estimate.high]) for one in (found, by_slope, alone)])
    powered, slope, ratings = np.mean(wider, axis=0)
    assert slope > 1.1 * ratings and powered < 1.01 * ratings


def test_lambda_is_the_least_variance_of_sums_by_group_worked_out_by_hand() -> None:
    """Four groups that add (1, -1, 2, -2) by their ratings and half of that, less a little, by the judge."""
    a, b = np.array([1.0, -1, 2, -2]), np.array([-0.5, 0.6, -1, 0.9])
    slope, explained = 4.9 / 2.42, 4.9**2 / (10 * 2.42)
    sure = 1 - (1 - explained) / explained / 2
    found, without = _tuned(a, b, labels(range(4)), 4)
    assert found == pytest.approx(min(1.0, slope * sure)) and len(without) == 4
    found, without = _tuned(a, b * 4, labels(range(4)), 4)
    assert found == pytest.approx(slope / 4 * sure)
    # without the first group: ab is -4.4, aa 9 and bb 2.17 (times 16)
    explained = 4.4**2 / (9 * 2.17)
    assert without[0] == pytest.approx(4.4 / 2.17 / 4 * (1 - (1 - explained) / explained))


def test_groups_of_unlike_sizes_count_as_fewer() -> None:
    """One group has 8 of 15 labels and seven have one each: as good as 15² / (8² + 7) = 3.17 groups of one size."""
    group = labels([0] * 8 + list(range(1, 8)))
    human = np.random.default_rng(0).normal(3, 1, 15)
    found = powered_mean(human, np.full(15, 3.0), group, weights=np.ones(15))
    assert (found.groups, found.effective_groups) == (8, pytest.approx(225 / 71))
    half = stats.t.ppf(0.975, 225 / 71 - 1) * found.variance**0.5
    assert found.estimate.high - found.estimate.low == pytest.approx(2 * half)
    even = powered_mean(human[:8], np.full(8, 3.0), labels(range(8)), weights=np.ones(8))
    assert even.effective_groups == pytest.approx(8)


@pytest.mark.parametrize("judge", [np.full(300, 2.0), np.tile([1.0, 5.0], 150)])
def test_a_judge_that_says_nothing_leaves_the_ratings_alone(judge: np.ndarray) -> None:
    human, _, group = _in_whole_groups(0.9, 0)
    found, alone = (powered_mean(human, judge, group, weights=np.ones(300), lambda_=one) for one in (None, 0))
    assert found.lambda_ == 0 and found.estimate == alone.estimate


def test_a_new_system_stays_on_the_scale() -> None:
    """Human means go up to 4.9 and annotators rate 2 above the judge: the best system would be at 6.4."""
    generator = np.random.default_rng(0)
    levels = dict(zip("abcdefg", (1.0, 1.4, 1.8, 2.2, 2.6, 2.9, 4.4), strict=True))
    source = np.repeat(list("abcdefg"), 20)
    judge = np.array([levels[name] for name in source]) + generator.normal(0, 0.05, 140)
    one = paired(judge, judge + 2, source, np.tile(np.arange(20), 7))
    rows = new_system_means(one).set_index("source")
    assert np.isnan(rows.loc["g", "mean"]) and "leads off the scale" in rows.loc["g", "reason"]
    assert rows.loc["a":"f", ["mean", "low", "high"]].stack().between(1, 5).all()
    assert rows.loc["c", "mean"] == pytest.approx(3.8, abs=0.05)
    less = one.at(one.sources != "g")
    wide = replace(less, judge=less.judge + np.repeat([0, 0.5, 0, 0.5, 0, 0.0], 20))
    top = new_system_means(wide).set_index("source").loc["f"]
    assert top["high"] == 5 and top["low"] < top["mean"] < 5


def test_where_the_judge_adds_nothing_to_the_other_systems_it_is_said() -> None:
    """People rate all systems alike, the judge does not."""
    generator = np.random.default_rng(0)
    source, group = np.repeat(list("abcdefgh"), 20), np.tile(np.arange(20), 8)
    shift = generator.uniform(-1, 1, 8)[np.repeat(range(8), 20)]
    judge = 3 + shift + generator.normal(0, 0.1, 160)
    bad = new_system_means(paired(judge, 3 + generator.normal(0, 0.1, 160), source, group))
    assert set(bad["remark"]) == {
        "the other systems' human means alone give a tighter interval: the judge adds nothing"
    }
    good = new_system_means(paired(judge, judge + generator.normal(0, 0.1, 160), source, group))
    assert set(good["remark"]) == {""}


def test_several_annotators_are_averaged_by_item() -> None:
    one = paired(range(8))
    table = labelled_means(replace(one, ratings=np.array([[1.0, 3.0], *[[2.0, np.nan]] * 6, [4.0, 5.0]])))
    assert table["human_mean"].item() == pytest.approx((2 + 6 * 2 + 4.5) / 8)


def test_new_systems_by_hand() -> None:
    shifts = dict(zip("abcdef", (0.0, 0.1, 0.2, 0.3, 0.4, 5.0), strict=True))
    one = systems("abcdef", 50, shifts)
    one = replace(one, ratings=(one.judge + [shifts[source] for source in one.sources])[:, None])  # exactly
    row = new_system_means(one).set_index("source").loc["f"]
    judge = one.judge[one.sources == "f"]
    assert row["shift"] == pytest.approx(0.2)  # its own 5.0 is left out
    assert row["mean"] == pytest.approx(judge.mean() + 0.2)
    assert row["tau"] == pytest.approx(np.sqrt(0.1 / 4))
    half = 2.776445 * np.sqrt(0.025 * 1.2 + judge.var(ddof=1) / 50)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half)
    assert (row["systems"], row["labelled"], row["target"]) == (5, 250, NEW_SYSTEM)


def test_characters_widen_the_interval_where_they_differ() -> None:
    generator = np.random.default_rng(0)
    groups, characters = np.repeat(np.arange(30), 10), np.tile(np.arange(10), 30)
    judge = 3 + generator.normal(0, 1, 10)[characters] + generator.normal(0, 0.1, 300)
    one = paired(judge, judge, groups=groups, characters=characters)
    for kind in (judge_means, labelled_means):
        here, other = (kind(one, characters=wanted).iloc[0] for wanted in (False, True))
        assert other["high"] - other["low"] > 5 * (here["high"] - here["low"])


# What cannot be said


def test_characters_that_nobody_knows_are_an_error() -> None:
    with pytest.raises(ValueError, match="no column 'character'"):
        judge_means(paired([1, 2]), characters=True)


def test_one_group_has_a_mean_and_no_interval() -> None:
    table = estimate(paired([1, 2, 3], [2, 3, 4], groups=[0, 0, 0])).set_index("target")
    assert table.loc[JUDGE_MEAN, "mean"] == 2 and table.loc[LABELLED, "mean"] == 3
    assert table[["low", "high"]].isna().all(axis=None)
    assert table.loc[JUDGE_MEAN, "reason"] == "only 1 group has items; an interval needs 8"
    assert table.loc[LABELLED, "reason"] == "only 1 group has labels; an interval needs 8"
    assert table.loc[NEW_SYSTEM, "reason"] == "only 0 other systems have labels in 8 groups; 5 are needed"


def test_no_labels_say_so() -> None:
    row = labelled_means(paired(range(10))).iloc[0]
    assert np.isnan(row["mean"]) and row["labelled"] == 0 and pd.isna(row["equivalent_labels"])
    assert row["reason"] == "nobody rated an item of it"


def test_scores_that_are_all_alike_have_a_mean_and_no_interval() -> None:
    table = estimate(paired([3.3] * 20, [4.1] * 20)).set_index("target")
    for target, mean in ((JUDGE_MEAN, 3.3), (LABELLED, 4.1)):
        assert table.loc[target, "mean"] == pytest.approx(mean)
        assert np.isnan(table.loc[target, "low"])
        assert "do not differ" in table.loc[target, "reason"]


def test_a_source_without_labels_is_a_new_system_to_the_others() -> None:
    one = systems("abcdef", 20, {"f": 1.0})
    hidden = replace(one, ratings=np.where((one.sources == "f")[:, None], np.nan, one.ratings))
    table = estimate(hidden).set_index(["source", "target"])
    assert table.loc[("f", LABELLED), "reason"] == "nobody rated an item of it"
    assert table.loc[("f", NEW_SYSTEM), "reason"] == ""
    assert table.loc[("a", NEW_SYSTEM), "reason"] == "only 4 other systems have labels in 8 groups; 5 are needed"


# What intervals cover


@pytest.mark.parametrize("case", [Case(60, 10, 150), Case(60, 10, 150, "unequal"), Case(60, 10, 120, "groups"),
                                  Case(12, 10, 60)], ids=str)  # fmt: skip
def test_intervals_cover_what_they_say_and_naive_ones_do_not(case: Case) -> None:
    covers = coverage(case, 300)["covers"]
    for kind in ("judge mean", "prediction-powered"):
        assert covers[kind] == pytest.approx(0.95, abs=0.038)  # three standard errors
    assert covers["judge mean, items independent"] < 0.75
    assert covers["prediction-powered, items independent"] < 0.88


def test_new_systems_of_hanna_are_covered_and_scenarios_alone_fail(shared_data: Path) -> None:
    covers = leaving_one_out(shared_data / "human" / "hanna").groupby("interval")["covers"].agg(["mean", "size"])
    assert covers.loc["new system", "size"] == 330
    assert 0.90 <= covers.loc["new system", "mean"] <= 0.98
    assert 0.10 < covers.loc["scenario only", "mean"] < 0.20
    assert 0.40 < covers.loc["scenario only, shifted", "mean"] < 0.50
