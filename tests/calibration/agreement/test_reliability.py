"""How well people agree: against published figures, fractions worked out by hand, and other libraries."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import krippendorff
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from calibration import read_ratings, read_scores
from calibration.agreement.reliability import STATISTICS, Reliability, ceiling, others_mean, reliability
from calibration.pairing import Paired, pair
from calibration.stats.intervals import Resampler, clustered_mean
from calibration.stats.krippendorff import LEVELS
from tests.helpers.pairs import labels, many, rated

N = np.nan
EXPERTS = ("expert1", "expert2", "expert3")
JUDGES = {"empathy": "gpt", "hanna": "Beluga-13B/prompt1"}

shapes = st.tuples(st.integers(1, 12), st.integers(1, 4))
sparse_ratings = arrays(float, shapes, elements=st.sampled_from([1, 2, 3.5, 5, N]))


@cache
def published(shared_data: Path, dataset: str) -> dict[str, Paired]:
    folder = shared_data / "human" / dataset
    people, judge = read_ratings(folder / "human.csv", None), read_scores(folder / "judge.csv", None)
    return pair(people, judge, judge=JUDGES[dataset], annotators=EXPERTS if dataset == "empathy" else ()).metrics


def alpha(found: Reliability) -> dict[str, float | None]:
    return {level: getattr(found, f"alpha_{level}").value for level in LEVELS}


def reasons(found: Reliability) -> set[str | None]:
    return {getattr(found, f"alpha_{level}").reason for level in LEVELS} | {e.reason for e in found.ceiling.values()}


# Published figures


@pytest.mark.parametrize(("dataset", "rows"), [("hanna", 6), ("empathy", 21)])
def test_alpha_equals_the_expected_one_on_every_metric(shared_data: Path, dataset: str, rows: int):
    table = pd.read_csv(shared_data / "human" / "expected_krippendorff_alpha.csv")
    expected = table[table["dataset"] == dataset].set_index("metric")
    metrics = published(shared_data, dataset)
    assert len(expected) == rows
    assert set(expected.index) == set(metrics)
    for metric, row in expected.iterrows():
        found = reliability(metrics[str(metric)], raters="slots" if dataset == "hanna" else "people")
        assert (found.items, found.raters, found.ratings_per_item) == tuple(row[1:4])
        for level in LEVELS:
            estimate = getattr(found, f"alpha_{level}")
            assert estimate.value == pytest.approx(row[f"alpha_{level}"], abs=1e-6)
            assert estimate.low < estimate.value < estimate.high


def test_pairs_of_experts_equal_the_published_ones(shared_data: Path):
    """To their two decimals. Where experts gave 1, 2, 3 and 5, the authors' kappa weighs 3 and 5 as one step apart."""
    table = pd.read_csv(shared_data / "human" / "empathy" / "expected_pairs_spearman_kappa.csv")
    pairs = [tuple(sorted(names)) for names in table["Annotator Pair"].str.findall(r"\w+")]
    columns = ["Spearman Correlation", "Weighted Cohen's Kappa"]
    keys = zip(table["Dimension"], pairs, strict=True)
    expected = dict(zip(keys, table[columns].to_numpy().tolist(), strict=True))
    steps = []
    for metric, one in published(shared_data, "empathy").items():
        for row in reliability(one).pairs.itertuples():
            rho, kappa = expected[metric.split(".")[1], (row.annotator_1, row.annotator_2)]
            x, y = (one.ratings[:, one.annotators.index(name)].astype(int) for name in row[1:3])
            found, steps = row.kappa, [*steps, set(np.diff(np.union1d(x, y)))]
            if steps[-1] != {1}:
                assert found == pytest.approx(cohen_kappa_score(x, y, weights="quadratic", labels=range(1, 8)))
                found = cohen_kappa_score(x, y, weights="quadratic")
            assert (row.spearman, found) == pytest.approx((rho, kappa), abs=0.00501)
    assert (steps.count({1}), steps.count({1, 2})) == (62, 1)


def test_ratings_that_were_repeated_and_averaged_have_an_alpha(shared_data: Path):
    folder = shared_data / "human" / "llm_rubric"
    people = read_ratings(folder / "human.csv", (1, 4), repeats="keep")
    metrics = pair(people, read_scores(folder / "judge.csv", (1, 4), source="synth")).metrics
    assert len(metrics) == 9
    for one in metrics.values():
        expected = {level: krippendorff.alpha(one.ratings.T, level_of_measurement=level) for level in LEVELS}
        assert alpha(reliability(one)) == pytest.approx(expected, abs=1e-9)


# The ceiling


def test_the_ceiling_worked_out_by_hand():
    """Off the others' means: a by 0, 1, 1, b by 0, 1, 1, c by 0, 2, 2."""
    found = reliability(rated([[1, 1, 1], [2, 2, 4], [5, 5, 3]])).ceiling
    assert found["mae"].value == pytest.approx((2 / 3 + 2 / 3 + 4 / 3) / 3)
    assert found["rmse"].value == pytest.approx((2 * np.sqrt(2 / 3) + np.sqrt(8 / 3)) / 3)
    # ranks of c (1, 3, 2) and of the others (1, 2, 3); those of a and b (1, 2, 3) and of theirs (1, 2, 3)
    assert found["spearman"].value == pytest.approx((1 + 1 + 0.5) / 3)


@pytest.mark.parametrize("grid", [1.0, 0.001])
def test_the_ceiling_and_its_draws_are_those_of_scipy(grid: float):
    paired = many(60, 3, groups=12, grid=grid)
    resampler = Resampler(paired.groups, draws=2, seed=3)
    times = resampler.weights[:, resampler.cells].astype(int)
    found = ceiling(paired, resampler)
    point, *drawn = (one_left_out(np.repeat(paired.ratings, n, axis=0)) for n in (np.ones(60, dtype=int), *times))
    near = 1e-9 if grid == 1 else 5e-3  # ranks of many scores are put into bins
    for name in STATISTICS:
        two = [one[name] for one in drawn]
        ends = point[name] + np.quantile(two, [0.025, 0.975]) - np.mean(two)  # moved to lie about the value
        assert found[name].value == pytest.approx(point[name], abs=1e-9)
        assert (found[name].low, found[name].high) == pytest.approx(tuple(ends), abs=near)
    assert np.ptp([one["spearman"] for one in drawn]) > 0.01


@pytest.mark.parametrize(("annotators", "each"), [(40, 3), (100, 3), (60, 5), (3, 60)])
def test_an_interval_contains_its_estimate_however_few_items_an_annotator_has(annotators: int, each: int):
    generator = np.random.default_rng(annotators)
    items = annotators * each // 3
    ratings = np.full((items, annotators), np.nan)
    for item, row in enumerate(ratings):
        chosen = [(3 * item + place) % annotators for place in (0, 1, 2)]
        row[chosen] = np.clip(np.round(generator.normal(3, 1) + generator.normal(0, 1, 3)), 1, 5)
    found = reliability(rated(ratings))
    for one in (*found.ceiling.values(), found.alpha_nominal, found.alpha_ordinal, found.alpha_interval):
        assert one.value is None or one.low is None or one.low <= one.value <= one.high
    assert any(one.low is not None for one in found.ceiling.values())


def one_left_out(ratings: np.ndarray) -> dict[str, float]:
    rows = []
    for column in range(ratings.shape[1]):
        own, rest = ratings[:, column], np.round(np.delete(ratings, column, axis=1).mean(axis=1), 9)
        errors = np.sqrt(np.mean((own - rest) ** 2)), np.mean(abs(own - rest))
        rows.append([spearmanr(own, rest).statistic, np.corrcoef(own, rest)[0, 1], *errors])
    return dict(zip(STATISTICS, np.mean(rows, axis=0), strict=True))


def test_means_of_the_same_ratings_are_ties_in_whatever_order_they_are_added():
    item, value = np.repeat([0, 1], 4), np.array([1.1, 1.2, 1.3, 5, 1.3, 1.2, 1.1, 2.7])
    assert others_mean(item, value)[[3, 7]].tolist() == [1.2, 1.2]


def test_a_person_whose_ratings_do_not_vary_is_left_out_of_the_correlations_only():
    found = reliability(rated([[1, 2, 3], [2, 3, 3], [4, 3, 3], [5, 5, 3]])).ceiling
    without = [spearmanr([1, 2, 4, 5], [2.5, 3, 3, 4]).statistic, spearmanr([2, 3, 3, 5], [2, 2.5, 3.5, 4]).statistic]
    assert found["spearman"].value == pytest.approx(np.mean(without))
    assert found["mae"].value == pytest.approx(np.mean([[1.5, 1, 1, 1], [0, 0.5, 0.5, 1], [1.5, 0.5, 0.5, 2]]))


# Pairs and annotators


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=3, max_size=20))
def test_kappa_is_that_of_the_whole_scale(scores: list[tuple[int, int]]):
    kappa = reliability(rated(scores, groups=[0] * len(scores))).pairs["kappa"][0]
    x, y = zip(*scores, strict=True)
    if len({*x, *y}) > 1:
        assert kappa == pytest.approx(cohen_kappa_score(x, y, weights="quadratic", labels=range(1, 6)), abs=1e-9)
    else:
        assert np.isnan(kappa)


def test_pairs_are_of_those_who_share_an_item_and_have_figures_from_three():
    pairs = reliability(rated([[1, 1, N], [2, 2, N], [3, 4, N], [5, N, 5], [N, 4, N]])).pairs
    assert pairs[["annotator_1", "annotator_2", "n"]].to_numpy().tolist() == [["a", "b", 3], ["a", "c", 1]]
    assert pairs["spearman"][0] == pytest.approx(1)
    assert pairs[["spearman", "kappa"]].isna().all(axis=1).tolist() == [False, True]


def test_severity_is_the_mean_distance_from_the_others_on_the_same_items():
    """a is 1 and 2 under b, and rated a third item alone."""
    table = reliability(rated([[1, 2], [3, 5], [5, N]])).annotators
    assert table["n"].tolist() == [3, 2]
    assert table["severity"].tolist() == pytest.approx([-1.5, 1.5])
    assert table["spread"].tolist() == pytest.approx([2, np.sqrt(4.5)])
    assert table[["low", "high"]].isna().to_numpy().all()


def test_severity_has_the_interval_of_a_mean_over_groups():
    paired = many(80, 2, groups=10)
    row = reliability(paired).annotators.iloc[0]
    expected = clustered_mean(paired.ratings[:, 0] - paired.ratings[:, 1], paired.groups)
    assert (row["severity"], row["low"], row["high"]) == pytest.approx((expected.value, expected.low, expected.high))


# What the intervals are over


def test_an_item_of_weight_two_counts_as_two_everywhere_but_in_alpha():
    ratings = many(20).ratings
    weights = np.where(np.arange(20) < 5, 2.0, 1.0)
    weighted, repeated = (
        reliability(rated(ratings, weights=weights)),
        reliability(rated(np.repeat(ratings, weights.astype(int), axis=0))),
    )
    for name in STATISTICS:
        assert weighted.ceiling[name].value == pytest.approx(repeated.ceiling[name].value)
    pd.testing.assert_frame_equal(weighted.pairs.drop(columns="n"), repeated.pairs.drop(columns="n"))
    assert weighted.annotators["severity"].tolist() == pytest.approx(repeated.annotators["severity"].tolist())
    assert alpha(weighted) == alpha(reliability(rated(ratings)))
    assert "Items were drawn with unequal chances" in weighted.remarks[0]


def test_groups_that_differ_make_intervals_longer_than_items_would():
    generator = np.random.default_rng(1)
    group = np.repeat(np.arange(12), 20)
    agree = group % 2 == 0
    truth = generator.integers(1, 6, (240, 1))
    ratings = np.where(agree[:, None], truth, generator.integers(1, 6, (240, 3)))
    wide, narrow = (reliability(rated(ratings, groups=groups)).alpha_interval for groups in (group, None))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_characters_are_drawn_again_where_they_are_asked_for():
    paired = replace(many(240, groups=12), characters=labels(item // 12 % 10 for item in range(240)))
    over_groups, over_both = reliability(paired), reliability(paired, characters=True)
    assert alpha(over_groups) == alpha(over_both)
    assert over_groups.alpha_ordinal.low != over_both.alpha_ordinal.low
    assert over_groups.annotators["low"].tolist() != over_both.annotators["low"].tolist()
    with pytest.raises(ValueError, match="no column 'character'"):
        reliability(many(20), characters=True)


def test_the_same_seed_gives_the_same_intervals():
    assert reliability(many(40), seed=1).ceiling == reliability(many(40), seed=1).ceiling
    assert reliability(many(40), seed=1).ceiling != reliability(many(40), seed=2).ceiling


# What cannot be said


@pytest.mark.parametrize(
    ("ratings", "reason"),
    [
        ([[3, 3], [3, 3], [3, 3]], "all ratings are the same, so that no disagreement is to be expected by chance"),
        ([[3, N], [N, 4], [2, N]], "no item has two ratings"),
        ([[3], [4]], "no item has two ratings"),
        ([[3, 3, N], [4, N, N]], "all ratings are the same, so that no disagreement is to be expected by chance"),
        ([[N, N], [N, N]], "nobody rated an item"),
        (np.empty((0, 2)), "nobody rated an item"),
        (np.empty((2, 0)), "nobody rated an item"),
    ],
)
def test_where_alpha_is_undefined_it_is_said_why(ratings, reason: str):
    found = reliability(rated(ratings))
    assert alpha(found) == dict.fromkeys(LEVELS)
    assert {getattr(found, f"alpha_{level}").reason for level in LEVELS} == {reason}
    assert found.ceiling["spearman"].value is None
    assert found.ceiling["spearman"].reason


def test_one_rating_an_item_says_nothing_of_agreement():
    found = reliability(rated([[3, N], [N, 4], [2, N]]))
    assert reasons(found) == {"no item has two ratings"}
    assert found.remarks[0].startswith("Every item has one rating: agreement between annotators (alpha, human ceiling)")
    assert found.pairs.empty
    assert found.annotators["severity"].isna().all()


def test_slots_are_not_persons():
    found = reliability(many(40), raters="slots")
    assert alpha(found) == alpha(reliability(many(40)))
    assert {e.reason for e in found.ceiling.values()} == {"the annotators are slots that different persons fill"}
    assert found.pairs.empty
    assert found.annotators.empty
    assert found.remarks == (
        "There is no human ceiling, kappa of pairs or severity: the annotators are slots that different persons fill.",
    )


def test_under_eight_groups_there_is_no_interval():
    seven, eight = (reliability(many(56, groups=groups)) for groups in (7, 8))
    for found, known in ((seven, False), (eight, True)):
        estimates = [found.alpha_nominal, found.alpha_ordinal, found.alpha_interval, *found.ceiling.values()]
        assert {estimate.low is not None for estimate in estimates} == {known}
        assert all(estimate.value is not None for estimate in estimates)
        assert found.annotators["low"].notna().unique().tolist() == [known]
    assert seven.remarks == ("There are no intervals: 7 groups, of 8 needed.",)
    assert eight.remarks == ()
    few = replace(many(56, groups=7), characters=labels(item // 7 for item in range(56)))
    assert reliability(few, characters=True).remarks == ("There are no intervals: 7 groups, of 8 needed.",)


@pytest.mark.parametrize("way", ["characters", "sources"])
def test_raters_of_different_characters_or_sources_cannot_be_compared(way: str):
    """a and b rated one, c and d the other, until one item links them."""
    apart = np.full((20, 4), N)
    apart[:10, :2], apart[10:, 2:] = many(10, 2).ratings, many(10, 2, seed=1).ratings
    two = labels([0] * 10 + [1] * 10)
    remark = (
        f"The annotators fall into 2 sets that rated no {way} in common: severity is against others of the same set, "
        f"and how strict a set is cannot be told from what its {way} are like."
    )
    assert remark in reliability(replace(rated(apart), **{way: two})).remarks
    apart[10, 0] = 3
    assert not any("sets" in text for text in reliability(replace(rated(apart), **{way: two})).remarks)


def test_raters_who_share_a_character_but_no_item_are_told_too():
    apart = np.full((20, 4), N)
    apart[:10, :2], apart[10:, 2:] = many(10, 2).ratings, many(10, 2, seed=1).ratings
    assert any("2 sets that rated no items in common" in text for text in reliability(rated(apart)).remarks)


def test_unequal_overlap_is_told():
    ratings = many(20).ratings
    ratings[:5, 0] = ratings[:3, 1] = N
    found = reliability(rated(ratings)).remarks
    assert found == (
        "Items have from 1 to 3 ratings; alpha is of the 17 of 20 items that have two or more.",
        "Two annotators have from 15 to 17 items in common.",
    )


def test_who_rated_almost_nothing_is_not_in_the_ceiling():
    ratings = np.hstack([many(20).ratings, np.full((20, 1), N)])
    ratings[:2, 3] = 5
    found = reliability(rated(ratings))
    assert "The human ceiling leaves out who rated fewer than 3 items that others rated too: d." in found.remarks
    assert found.annotators["n"].tolist() == [20, 20, 20, 2]


@settings(deadline=None, max_examples=40)
@given(sparse_ratings)
def test_nothing_breaks_on_any_ratings(ratings: np.ndarray):
    found = reliability(rated(ratings, groups=[row % 9 for row in range(len(ratings))]))
    assert found.items == np.isfinite(ratings).any(axis=1).sum()
    assert found.raters == np.isfinite(ratings).any(axis=0).sum() == len(found.annotators)
    estimates = [found.alpha_nominal, found.alpha_ordinal, found.alpha_interval, *found.ceiling.values()]
    assert all((estimate.value is None) == (estimate.reason is not None) for estimate in estimates)


@pytest.mark.long
def test_all_of_chatanime_takes_a_moment():
    paired = many(13_200)
    start = time.process_time()
    reliability(paired)
    assert time.process_time() - start < 2  # 0.1 s on a desktop; a loop over items or draws takes ten and more
