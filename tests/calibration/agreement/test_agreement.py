"""A judge beside people on one metric: each figure by hand or as other packages find it, and never NaN in silence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from calibration import Paired
from calibration.agreement.metrics import Agreement, agreement, system_means
from calibration.stats.intervals import Estimate
from tests.helpers.pairs import metric

FIVE = [1, 2, 3, 4, 5]
BLOCKS = ("judge", "constant", "people", "within", "systems", "length")


@pytest.fixture(scope="module")
def rated() -> Paired:
    """Sixty items in twelve groups and six sources, three raters with gaps, a judge with probabilities and lengths."""
    generator = np.random.default_rng(4)
    truth = generator.integers(1, 6, 60)
    ratings = np.clip(truth[:, None] + generator.integers(-1, 2, (60, 3)), 1, 5).astype(float)
    ratings[generator.random((60, 3)) < 0.2] = np.nan
    ratings[np.isnan(ratings).all(axis=1), 0] = 3
    levels = generator.dirichlet(np.ones(5), 60) * 0.4 + 0.6 * np.eye(5)[truth - 1]
    return metric(
        levels @ FIVE, ratings, groups=np.arange(60) // 5, sources=np.arange(60) % 6, characters=np.arange(60) % 10,
        levels=levels, lengths=generator.integers(10, 99, 60) + truth * 9,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(rated: Paired) -> Agreement:
    return agreement(rated)


def values(found: Agreement) -> dict[str, float | None]:
    """Every figure of an agreement, by block and name."""
    named = {f"{block}.{name}": e.value for block in BLOCKS for name, e in getattr(found, block).items()}
    strata = found.strata.set_index("people")[["bias", "mae", "spearman"]].stack().to_dict()
    return {**named, **{".".join(key): value for key, value in strata.items()}}


# Against each rating


def by_rating(rated: Paired) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The judge rounded, the rating, and the item's place: a row a rating."""
    item, column = np.nonzero(np.isfinite(rated.ratings))
    return np.floor(rated.judge + 0.5)[item], rated.ratings[item, column], item


def test_kappa_is_that_of_sklearn_over_all_ratings(rated: Paired, found: Agreement):
    judge, people, _ = by_rating(rated)
    assert found.judge["qwk"].value == pytest.approx(cohen_kappa_score(judge, people, weights="quadratic", labels=FIVE))
    assert found.judge["exact"].value == pytest.approx(np.mean(judge == people))
    assert found.judge["within_one"].value == pytest.approx(np.mean(abs(judge - people) <= 1))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FIVE), st.sampled_from(FIVE), st.integers(1, 3)), min_size=2, max_size=12))
def test_kappa_weighs_ratings_and_does_not_ask_which_scores_were_seen(rows: list[tuple[int, int, int]]):
    judge, people, weights = np.array(rows).T
    own = agreement(metric(judge, people, weights=weights)).judge["qwk"]
    times = np.repeat(np.arange(len(rows)), weights)
    if len({*judge, *people}) == 1:
        assert own == Estimate(None, reason="all scores are the same")
    else:
        expected = cohen_kappa_score(judge[times], people[times], weights="quadratic", labels=FIVE)
        assert own.value == pytest.approx(expected, abs=1e-9)


def test_the_expected_score_is_rounded_half_up_and_kept_on_the_scale():
    found = agreement(metric([1.5, 2.5, 3.49, 5.0], [2, 3, 3, 5])).judge
    assert found["exact"].value == 1


def test_a_wide_scale_costs_nothing_more():
    """Ratings from 0 to a million have a kappa as any others have."""
    judge, people = np.arange(10.0) * 1e5, np.arange(10.0)[::-1] * 1e5
    found = agreement(metric(judge, people, scale=(0, 1_000_000)))
    narrow = agreement(metric(judge / 1e5, people / 1e5, scale=(0, 10)))
    assert found.judge["qwk"].value == pytest.approx(narrow.judge["qwk"].value)


def test_scores_of_a_distribution_by_hand():
    """A rating of 2 where p is .5, .3, .2: (.5 - 0)² + (.8 - 1)² over 2, and -ln .3."""
    found = agreement(metric([1.7], [2], levels=[[0.5, 0.3, 0.2]], scale=(1, 3)))
    assert found.judge["rps"].value == pytest.approx((0.25 + 0.04) / 2)
    assert found.judge["log_loss"].value == pytest.approx(-math.log(0.3))


def test_a_distribution_can_be_right_or_wholly_wrong():
    right, wrong = (
        agreement(metric([score], [1], levels=[row])).judge for score, row in ((1, np.eye(5)[0]), (5, np.eye(5)[4]))
    )
    assert (right["rps"].value, right["log_loss"].value) == (0, 0)
    assert wrong["rps"].value == 1 and wrong["log_loss"].value == pytest.approx(-math.log(1e-12))


def test_levels_of_a_scale_from_nought_are_read_from_there():
    found = agreement(metric([0.7], [1], levels=[[0.5, 0.3, 0.2]], scale=(0, 2)))
    assert found.judge["log_loss"].value == pytest.approx(-math.log(0.3))


def test_a_rating_off_the_scale_is_no_event_of_a_distribution():
    found = agreement(metric([2, 2], [0, 2], levels=[[0.1, 0.8, 0.1]] * 2, scale=(1, 3)))
    assert {found.judge["rps"].reason, found.constant["log_loss"].reason} == {"a rating is off the scale"}


def test_without_a_distribution_its_scores_are_undefined():
    found = agreement(metric([2, 3], [2, 3]))
    assert "no probabilities" in found.judge["rps"].reason and found.constant["log_loss"].value is None


def test_half_points_are_compared_in_half_points():
    """A judge that gives 1.4 to a rating of 1.5 is right, one that gives 1.8 is half a point off; none is left out."""
    ratings = [[1.5], [2], [3], [4.5]]
    found = agreement(metric([1.4, 1.8, 3.2, 4.5], ratings))
    assert (found.step, found.off_step) == (0.5, 0)
    assert found.judge["exact"].value == 1 and found.judge["qwk"].value == 1
    found = agreement(metric([1.8, 1.8, 3.2, 4.5], ratings))
    assert found.judge["exact"].value == 0.75 and found.judge["within_one"].value == 1


@pytest.mark.parametrize(
    ("ratings", "step"),
    [
        ([1, 2, 5], 1), ([1, 3, 5], 1), ([0, 0.5, 1], 0.5), ([0.5, 1.5, 2.5], 1), ([0, 0.1, 0.7], 0.1),
        ([0, 10, 20, 40, 70, 100], 10), ([0, 25, 75], 1), ([3, 3], 1), ([0.3, 0.37, 0.91], None), ([-2, -1, 2], 1),
    ],
)  # fmt: skip
def test_the_step_of_a_scale_is_read_off_the_ratings(ratings: list[float], step: float | None):
    assert metric(ratings, ratings, scale=(-2, 100)).step == step


def test_scores_are_rounded_half_up_to_the_steps_and_stay_on_the_scale():
    halves = metric([0.24, 0.25, 0.8, 3], [0, 0.5, 1, 1], scale=(0, 1))
    assert halves.in_steps(halves.judge).tolist() == [0, 0.5, 1, 1]
    tens = metric([44, 45, 101, -3, 50, 60], [0, 10, 20, 40, 70, 100], scale=(0, 100))
    assert tens.in_steps(tens.judge).tolist() == [40, 50, 100, 0, 50, 60]


def test_a_few_ratings_between_the_steps_are_left_out_and_many_refuse():
    whole = [[1], [2], [3], [4], [5]] * 4
    few, many = ([[7 / 3]] * count + whole for count in (2, 5))
    judge = [1, 2, 3, 4, 5] * 4
    found = agreement(metric([5] * 2 + judge, few))
    assert found.judge["exact"].value == 1 and (found.step, found.off_step) == (1, 2)
    refused = agreement(metric([5] * 5 + judge, many))
    for block in (refused.judge, refused.constant):
        assert {block[name].reason for name in ("exact", "within_one", "qwk")} == {"ratings lie in no even steps"}
    assert refused.judge["mae"].value == pytest.approx((5 - 7 / 3) * 5 / 25)


# Against the mean rating


def test_differences_are_from_the_mean_of_an_item():
    found = agreement(metric([3, 1], [[1, 4], [2, np.nan]])).judge
    assert [found[name].value for name in ("bias", "mae", "rmse")] == pytest.approx([-0.25, 0.75, (0.625) ** 0.5])


def test_associations_are_of_the_mean_of_an_item(rated: Paired, found: Agreement):
    x, y = rated.judge, np.nanmean(rated.ratings, axis=1).round(9)
    expected = [
        stats.pearsonr(x, y)[0],
        stats.spearmanr(x, y)[0],
        stats.kendalltau(x, y)[0],
        (1 + stats.somersd(y, x).statistic) / 2,
    ]
    names = ("pearson", "spearman", "kendall", "pairwise_accuracy")
    assert [found.judge[name].value for name in names] == pytest.approx(expected, abs=1e-6)


def test_the_root_is_taken_of_the_interval_too(rated: Paired, found: Agreement):
    squared = (rated.judge - rated.human) ** 2
    by_group = squared.reshape(12, 5).mean(axis=1)
    low, high = stats.ttest_1samp(by_group, 0).confidence_interval(0.95)
    assert (found.judge["rmse"].low, found.judge["rmse"].high) == pytest.approx((low**0.5, high**0.5))


def test_the_constant_predictor_by_hand():
    """People say 1, 2, 3, 4: their mean is 2.5, rounded 3; the share of each of five scores .25, and 0 of 5."""
    found = agreement(metric([1, 1, 1, 1], [1, 2, 3, 4], levels=np.eye(5)[[0] * 4])).constant
    expected = {"exact": 0.25, "within_one": 0.75, "qwk": 0, "bias": 0, "mae": 1, "rmse": 1.25**0.5}
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    assert found["log_loss"].value == pytest.approx(math.log(4))
    below = np.array([0.25, 0.5, 0.75, 1])
    rps = np.mean([((below - (np.arange(1, 5) >= rating)) ** 2).sum() / 4 for rating in (1, 2, 3, 4)])
    assert found["rps"].value == pytest.approx(rps)
    assert "spearman" not in found


# People with people


def test_people_agree_by_pairs_and_each_rating_counts_once():
    """1, 1, 2 are three pairs that weigh a half each, 3, 3 one pair of weight one: .5 + 1 of 2.5 are the same."""
    found = agreement(metric([1, 1, 1], [[1, 1, 2], [3, 3, np.nan], [5, np.nan, np.nan]])).people
    assert found["exact"].value == pytest.approx(1.5 / 2.5) and found["within_one"].value == 1


def test_the_kappa_of_two_people_does_not_ask_who_is_first():
    generator = np.random.default_rng(0)
    one = generator.integers(1, 6, 30)
    other = np.clip(one + generator.integers(-1, 3, 30), 1, 5)
    found = agreement(metric(one, np.stack([one, other], axis=1))).people["qwk"].value
    both = np.append(one, other), np.append(other, one)
    assert found == pytest.approx(cohen_kappa_score(*both, weights="quadratic", labels=FIVE))


@pytest.mark.parametrize(
    ("ratings", "reason"), [([1, 2], "no item has two ratings"), ([[3, 3], [3, 3]], "all scores are the same")]
)
def test_people_who_cannot_be_compared(ratings: list, reason: str):
    assert agreement(metric([1, 2], ratings)).people["qwk"] == Estimate(None, reason=reason)


# Within scenarios, over systems, by strata, and length


def test_within_scenarios_is_another_question_than_over_items():
    """The judge knows which scenario is hard, and has each scenario's answers the wrong way round."""
    judge = [3, 2, 1, 13, 12, 11, 23, 22, 21]
    people = [1, 2, 3, 11, 12, 13, 21, 22, 23]
    found = agreement(metric(judge, people, groups="aaabbbccc", scale=(0, 30)))
    assert found.within["pearson"].value == pytest.approx(-1) and found.within["pairwise_accuracy"].value == 0
    assert found.judge["pearson"].value > 0.9


def test_within_scenarios_leaves_out_those_that_say_nothing():
    found = agreement(metric([1, 2, 3, 1, 1, 1, 5], [1, 2, 3, 1, 2, 3, 5], groups="aaabbbc")).within["spearman"]
    assert found == Estimate(1.0)
    nothing = agreement(metric([1, 1, 1], [1, 2, 3], groups="aaa")).within["spearman"]
    assert nothing.value is None and "constant within every scenario" in nothing.reason
    assert "no scenario has 3" in agreement(metric([1, 2, 3], [1, 2, 3])).within["spearman"].reason


def test_systems_are_compared_by_their_means():
    """Means of people 1.5, 3, 4 and of the judge 2, 1, 3: two of three pairs alike."""
    paired = metric([1, 3, 1, 1, 2, 4], [1, 2, 3, 3, 4, 4], sources="aabbcc")
    assert system_means(paired).to_dict("list") == {
        "source": ["a", "b", "c"], "items": [2, 2, 2], "judge": [2, 1, 3], "human": [1.5, 3, 4],
    }  # fmt: skip
    found = agreement(paired).systems
    assert found["pairwise_accuracy"].value == pytest.approx(2 / 3)
    assert found["spearman"].value == pytest.approx(0.5) and found["kendall"].value == pytest.approx(1 / 3)
    assert found["pearson"].value == pytest.approx(stats.pearsonr([2, 1, 3], [1.5, 3, 4])[0])


def test_equal_means_of_systems_are_a_tie_whatever_their_sums():
    """Three tenths by sums in two orders: a tie of people, which orders no pair."""
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    paired = metric(
        [1, 1, 1, 2, 2, 2, 3, 3, 3], [0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 5, 5, 5], sources="aaabbbccc", scale=(0, 5)
    )
    assert agreement(paired).systems["kendall"].value == pytest.approx(stats.kendalltau([1, 2, 3], [0.2, 0.2, 5])[0])


@pytest.mark.parametrize(("sources", "reason"), [("aaaa", "1 rated system(s)"), ("aabb", "2 rated system(s)")])
def test_few_systems_have_no_order_and_say_so(sources: str, reason: str):
    found = agreement(metric([1, 2, 3, 4], [1, 2, 3, 4], sources=sources)).systems
    assert all(estimate.value is None and reason in estimate.reason for estimate in found.values())


def test_a_system_that_is_in_few_groups_costs_the_interval_not_the_value():
    """Source c is in one group of ten: in a third of the draws it is missing."""
    paired = metric([1, 2] * 10 + [3], [1, 2] * 10 + [3], groups=[*np.repeat(range(10), 2), 0], sources="ab" * 10 + "c")
    found = agreement(paired).systems["pairwise_accuracy"]
    assert (found.value, found.low) == (1, None)


def test_strata_are_items_by_how_far_people_are_apart():
    people = [[1, 1], [2, 2], [3, 3], [1, 2], [1, 3], [5, np.nan]]
    strata = agreement(metric([2, 3, 4, 1.5, 1, 5], people)).strata.set_index("people")
    assert strata["items"].to_dict() == {"the same rating": 3, "at most one apart": 1, "more than one apart": 1}
    assert strata["bias"].to_list() == [1, 0, -1] and strata["mae"].to_list() == [1, 0, 1]
    assert strata.loc["the same rating", "spearman"] == pytest.approx(1)
    assert math.isnan(strata.loc["at most one apart", "spearman"])


def test_one_rating_an_item_has_no_strata():
    assert agreement(metric([1, 2, 3], [1, 2, 3])).strata.empty


def test_given_length_is_the_correlation_of_what_length_leaves(rated: Paired, found: Agreement):
    ranks = [stats.rankdata(side) for side in (rated.judge, rated.human, rated.lengths)]
    rest = [side - np.polyval(np.polyfit(ranks[2], side, 1), ranks[2]) for side in ranks[:2]]
    assert found.length["partial"].value == pytest.approx(stats.pearsonr(*rest)[0])
    assert found.length["judge"].value == pytest.approx(stats.spearmanr(rated.judge, rated.lengths)[0])
    assert found.length["people"].value == pytest.approx(stats.spearmanr(rated.human, rated.lengths)[0])


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [([10, 20, 30, 40], "one side goes with length in full"), ([7, 7, 7, 7], "one side is constant")],
)
def test_a_length_that_says_all_or_nothing_leaves_nothing_to_correlate(lengths: list[float], reason: str):
    found = agreement(metric([1, 2, 3, 4], [2, 1, 4, 3], lengths=lengths)).length["partial"]
    assert (found.value, found.reason) == (None, reason)


def test_without_lengths_nothing_is_said_of_them():
    assert agreement(metric([1, 2, 3], [1, 2, 3])).length == {}


# Weights, groups, characters


def test_intervals_are_about_their_values_and_seeded(rated: Paired, found: Agreement):
    for block in (found.judge, found.systems):
        for name, estimate in block.items():
            assert estimate.low <= estimate.value <= estimate.high, name
    assert values(agreement(rated, seed=1)) == values(found)
    assert agreement(rated, seed=1).judge["qwk"].low != found.judge["qwk"].low
    assert agreement(rated).judge == found.judge


def test_other_characters_too_is_a_wider_claim(rated: Paired, found: Agreement):
    wider = agreement(rated, characters=True)
    assert values(wider) == values(found)
    for name in ("mae", "rps", "exact"):
        one, both = (block[name].high - block[name].low for block in (found.judge, wider.judge))
        assert both >= one - 1e-12, name
    assert wider.judge["spearman"].low != found.judge["spearman"].low


def test_what_cannot_be_asked_is_refused(rated: Paired):
    with pytest.raises(ValueError, match="no column 'character' to generalise over"):
        agreement(replace(rated, characters=None), characters=True)
    with pytest.raises(ValueError, match="nobody rated an item on 'm'"):
        agreement(metric([1, 2], [np.nan, np.nan]))


few = st.integers(1, 9)


@settings(max_examples=20, deadline=None)
@given(few, st.sampled_from([1, 2, 9]), st.integers(1, 3), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_whatever_was_rated_a_figure_is_a_number_or_has_a_reason(items, groups, raters, highest, characters, seed):
    """Warnings are errors here: nothing is divided by nought on the way."""
    generator = np.random.default_rng(seed)
    ratings = generator.integers(1, highest + 1, (items, raters)).astype(float)
    ratings[generator.random((items, raters)) < 0.3] = np.nan
    ratings[0, 0] = 1
    levels = np.eye(5)[generator.integers(0, highest, items)]
    found = agreement(
        metric(
            levels @ FIVE, ratings, groups=np.arange(items) % groups, sources=np.arange(items) % 4,
            characters=np.arange(items) % groups, levels=levels, lengths=generator.integers(0, 3, items),
        ),
        characters=characters,
    )  # fmt: skip
    for block in BLOCKS:
        for name, estimate in getattr(found, block).items():
            assert (estimate.value is None) == bool(estimate.reason), (block, name)
            for number in (estimate.value, estimate.low, estimate.high):
                assert number is None or math.isfinite(number), (block, name)
