"""Choosing a map by items that it was not fitted on; the last test is the measured gain on people's ratings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from calibration.calibrators.cross_validation import REPEATS
from calibration.calibrators.features import training
from calibration.calibrators.model_selection import CANNOT_RANK, jackknife, select
from calibration.pairing import pair
from calibration.stats.intervals import clustered_mean
from calibration.tables import read_ratings, read_scores


def tables(judge, human, sources=("s",), groups=None, metric="m"):
    """Ratings by raters (columns of ``human``) and scores; items take turns among the sources."""
    human = np.asarray(human, dtype=float).reshape(len(judge), -1)
    items = [f"i{index:03}" for index in range(len(judge))]
    source = [sources[index % len(sources)] for index in range(len(judge))]
    base = {"item_id": items, "source": source, "metric": metric, "group": items if groups is None else groups}
    scores = pd.DataFrame({**base, "score": judge})
    ratings = [pd.DataFrame({**base, "annotator": f"a{who}", "score": column}) for who, column in enumerate(human.T)]
    return pd.concat(ratings, ignore_index=True), scores


def paired(*args, **kwargs):
    return pair(*tables(*args, **kwargs), scale=(1, 5))


def noisy(n=120, signal=1.0, seed=0, raters=2):
    generator = np.random.default_rng(seed)
    judge = generator.uniform(1.5, 4.5, n)
    return judge, 3 + signal * (judge - 3)[:, None] + generator.normal(0, 0.5, (n, raters))


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = jackknife(lambda kept: float(values[kept].mean()), np.array(list("abcd"), dtype=object))
    assert found == pytest.approx(values.std(ddof=1) / 2)


def test_jackknife_leaves_out_groups_not_items():
    values = np.array([1.0, 1.0, 4.0, 4.0])
    found = jackknife(lambda kept: float(values[kept].mean()), np.array(list("aabb"), dtype=object))
    assert found == pytest.approx(np.std([1, 4], ddof=1) / 2**0.5)
    assert jackknife(lambda kept: 1.0, np.array(["a", "a"], dtype=object)) is None


def test_where_the_judge_says_nothing_the_constant_is_chosen_and_cannot_rank():
    judge, human = noisy(signal=0.0, seed=1)
    found = select(paired(judge, human), "m")
    assert found.chosen == "constant"
    assert CANNOT_RANK in found.remarks
    assert "one number" in found.headline.evaluations["constant"].spearman.reason


def test_where_the_judge_is_off_by_a_constant_shift_is_chosen():
    judge, human = noisy()
    assert select(paired(judge, human - 0.5), "m").chosen == "shift"


def test_where_the_judge_exaggerates_the_line_is_chosen():
    judge, human = noisy(n=200, signal=0.4)
    found = select(paired(judge, human), "m")
    assert found.chosen == "linear"
    assert found.remarks == ()
    assert "5 folds by group" in found.why


def test_the_maps_for_a_named_rater_are_chosen_by_ratings():
    judge, human = noisy(signal=0.0, seed=1)
    found = select(paired(judge, human + np.array([0.8, -0.8])), "m")
    assert (found.chosen, found.chosen_named) == ("constant", "raters")
    figures = found.headline.evaluations
    assert figures["raters"].rmse_ratings.value < 0.75 * figures["constant"].rmse_ratings.value


def test_raw_and_constant_always_stand_beside():
    judge, human = noisy()
    found = select(paired(judge, human), "m")
    raw = found.headline.evaluations["raw"]
    assert raw.rmse.value == pytest.approx(np.sqrt(np.mean((human.mean(axis=1) - judge) ** 2)))
    assert raw.spearman.value == pytest.approx(stats.spearmanr(judge, human.mean(axis=1))[0])
    assert raw.mae.se > 0 and "constant" in found.headline.evaluations


def test_predictions_are_of_items_not_fitted_on():
    # Two groups of opposite shift: learned from the other one, each is off by 2.
    found = select(paired([3.0] * 10, [2.0] * 5 + [4.0] * 5, groups=["g"] * 5 + ["h"] * 5), "m", ["constant"])
    assert found.headline.split.scheme == "2 folds by group (there are no more groups)"
    assert found.headline.evaluations["constant"].rmse.value == pytest.approx(2.0)


def test_from_five_sources_on_a_source_is_left_out_for_the_headline():
    judge, human = noisy()
    few, many = (select(paired(judge, human, sources=names), "m") for names in ("abcd", "abcde"))
    assert few.headline.split.scheme == f"5 folds by group, {REPEATS} times" and few.others == ()
    assert many.headline.split.scheme == "leaving one of 5 sources out"
    assert [other.split.labels.tolist() for other in many.others] == [[f"i{item:03}" for item in range(120)]]


def test_with_few_sources_a_block_is_left_out_where_the_tables_have_blocks():
    ratings, scores = tables(*noisy())
    blocks = ratings["item_id"].str[1:].astype(int) % 6
    found = select(pair(ratings.assign(block=blocks), scores, scale=(1, 5)), "m").headline
    assert found.split.scheme == "leaving one of 6 blocks out"
    assert len(set(found.split.labels)) == 6
    beside = scores.assign(block=scores["item_id"].str[1:].astype(int) % 6)
    assert select(pair(ratings, beside, scale=(1, 5)), "m").headline.split.scheme == found.split.scheme


@pytest.mark.parametrize("sources", ["abcde", "s"])
def test_what_is_chosen_hardly_depends_on_the_seed(sources):
    found = [select(paired(*noisy(signal=0.5), sources=sources), "m", seed=seed) for seed in (0, 1, 2)]
    assert len({one.chosen for one in found}) == 1
    figures = [one.headline.evaluations["raters"].rmse for one in found]
    assert np.ptp([one.value for one in figures]) < 0.2 * figures[0].se


def test_the_spread_of_sources_left_is_told():
    judge = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], 30)
    human = 3 + 0.25 * (judge - 3) + np.random.default_rng(0).normal(0, 0.8, 150)
    found = select(paired(judge, human, sources="abcde"), "m", ["constant", "shift"])
    assert found.headline.evaluations["raw"].system_spread_ratio.value > 2
    assert found.headline.evaluations["constant"].system_spread_ratio.value == 0
    one = select(paired(judge, human), "m").headline.evaluations["shift"].system_spread_ratio
    assert (one.value, one.reason) == (None, "there is one system only")


def test_one_group_can_be_fitted_but_not_compared():
    found = select(paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], groups=["g"] * 3), "m")
    assert found.chosen == "constant" and found.headline is None
    assert "nothing can be left out" in found.why and "not checked on items left out" in found.remarks


def test_constant_scores_and_constant_ratings_have_no_correlation_and_say_so():
    flat = select(paired([3.0] * 20, np.tile([2.0, 4.0], 10)), "m").headline.evaluations
    assert flat["raw"].pearson.value is None and "predicted the same" in flat["raw"].pearson.reason
    agreed = select(paired(np.linspace(1, 5, 20), [3.0] * 20), "m").headline.evaluations
    assert "rated every item the same" in agreed["linear"].spearman.reason


def test_no_levels_is_a_reason_not_an_error():
    found = select(paired(*noisy()), "m")
    assert "level probabilities" in found.skipped["ordinal"]
    assert "ordinal" not in found.headline.evaluations


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"no calibrator cubic \(there are constant"):
        select(paired(*noisy()), "m", ["cubic"])


def test_rare_items_weigh_as_much_as_they_stand_for():
    ratings, scores = tables([2.0] * 8 + [4.0] * 8, [2.0] * 8 + [3.0] * 8)
    chance = np.where(ratings["item_id"] < "i008", 1.0, 0.25)
    found = select(pair(ratings.assign(inclusion_probability=chance), scores, scale=(1, 5)), "m", ["constant"])
    # errors of raw 0 (weight 1) and 1 (weight 4): MSE 4/5
    assert found.headline.evaluations["raw"].rmse.value == pytest.approx(0.8**0.5)


@pytest.fixture(scope="module")
def llm_rubric(shared_data):
    folder = shared_data / "human" / "llm_rubric"
    ratings = read_ratings(folder / "human.csv", None, repeats="keep")
    return pair(ratings, read_scores(folder / "judge.csv", None, source="synth"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_people_the_rater_model_beats_the_raw_score_and_the_line(llm_rubric, seed):
    found = select(llm_rubric, "Q0", seed=seed).headline
    _, _, ratings = training(llm_rubric, "Q0")
    groups = ratings.groups[ratings.item]
    square = {kind: ((found.rated[kind] - ratings.scores) ** 2).mean(axis=0) for kind in ("raw", "linear", "raters")}
    over_raw, over_linear = (clustered_mean(square[other] - square["raters"], groups) for other in ("raw", "linear"))
    assert over_raw.low > 0.4  # measured .55, 95% .45 to .66
    assert over_linear.low > 0.04  # measured .10, 95% .05 to .14
    assert np.sqrt(square["raters"].mean()) < 0.77  # measured .743 to .754; line .814, raw 1.059
    predicted, human = found.rated["raters"][0], ratings.scores
    assert stats.pearsonr(predicted, human)[0] > 0.37 and stats.spearmanr(predicted, human)[0] > 0.38
    assert stats.kendalltau(predicted, human)[0] > 0.29
    figures = found.evaluations
    assert figures["raters"].rmse.value < figures["linear"].rmse.value < figures["raw"].rmse.value
