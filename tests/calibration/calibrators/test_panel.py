"""A panel of several judges: what it is made of, that nothing leaks, and that it says so where it does not gain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from calibration import (
    Calibration,
    InputError,
    Pairing,
    PanelCalibration,
    estimate,
    fit_panel_calibration,
    mean_panel,
    pair,
    panel_gains,
    read_ratings,
    read_scores,
)
from calibration.calibrators.panel import Reading, fit_panel, out_of_fold, together
from calibration.pairing import Paired
from tests.helpers.pairs import metric


def pairing(paired: Paired, name: str = "m") -> Pairing:
    none = {"item_id": [], "metric": []}
    return Pairing(None, {name: paired}, pd.DataFrame({**none, "annotator": []}), pd.DataFrame(none), {name: 0}, ())


def judges(scores, ratings, **how) -> dict[str, Pairing]:
    """A judge a column of ``scores``: a, b, c, …"""
    return {
        name: pairing(metric(column, ratings, **how))
        for name, column in zip("abcde", np.asarray(scores).T, strict=False)
    }


def simulated(noise, items: int = 120, seed: int = 0, sees=None):
    """Scores of judges that see the truth (or not) with noise of their own, and three ratings of each item."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(3, 0.8, items)
    seen = np.ones(len(noise)) if sees is None else np.asarray(sees)
    scores = 3 + seen * (truth - 3)[:, None] + generator.normal(0, noise, (items, len(noise)))
    return np.clip(scores, 1, 5), np.clip(np.round(truth[:, None] + generator.normal(0, 0.5, (items, 3))), 1, 5)


# What it is made of


def test_scales_alike_are_averaged_in_points_and_others_by_how_far_up_each_is():
    scores = np.array([[1.0, 3.0], [4.0, 5.0]])
    alike = Reading(scale=(1, 5), scales=((1, 5), (0, 5)), levels=(0, 0))
    assert alike.mean(scores).tolist() == [2, 4.5]
    apart = Reading(scale=(1, 5), scales=((1, 5), (0, 100)), levels=(0, 0))
    # 2 is a quarter up, 75 three quarters: half of 1 to 5 is 3. 5 and 100 are both at the end.
    assert apart.mean(np.array([[2.0, 75.0], [5.0, 100.0]])).tolist() == [3, 5]


def test_log_odds_are_those_of_the_distribution_else_of_the_score_half_a_level_from_the_ends():
    reading = Reading(scale=(1, 3), scales=((1, 3), (1, 3)), levels=(3, 0))
    columns = reading.columns(np.array([[2.0, 1.0]]), [np.array([[0.25, 0.5, 0.25]]), None])
    # P(> 1) = .75 and P(> 2) = .25: log-odds ln 3 and -ln 3. A score of 1 is 1/2 of 3 steps up: odds 1/6 : 5/6.
    assert columns[0] == pytest.approx([1.5, 2, 1, 0, np.log(1 / 5)])


def test_the_mean_of_judges_is_a_judge_with_the_mean_of_their_distributions():
    levels = np.array([[0.5, 0.5, 0], [0, 1, 0]]), np.array([[0, 0.5, 0.5], [0, 0, 1.0]])
    two = {
        name: pairing(metric(given @ [1, 2, 3], [[2], [3]], levels=given, scale=(1, 3)))
        for name, given in zip("ab", levels, strict=True)
    }
    found = mean_panel(two).metrics["m"]
    assert found.judge.tolist() == [2, 2.5]
    assert found.levels.tolist() == [[0.25, 0.5, 0.25], [0, 0.5, 0.5]]


def test_only_items_that_all_scored_are_in_it_and_the_others_are_counted():
    scores, ratings = simulated([0.3, 0.3])
    both = judges(scores, ratings)
    both["b"] = pairing(both["b"].metrics["m"].at(np.arange(110)[::-1]))
    found = mean_panel(both)
    assert found.metrics["m"].items.tolist() == [str(item) for item in range(110)]
    assert found.metrics["m"].judge == pytest.approx(scores[:110].mean(axis=1))
    assert any("10 rated items were not scored by all judges" in text for text in found.remarks)
    (gain,) = panel_gains(both)
    assert (gain.items, gain.left_out) == (110, 10)


def test_the_coarser_groups_of_two_tables_hold():
    scores, ratings = simulated([0.3, 0.3], items=40)
    both = judges(scores, ratings)
    one = both["b"].metrics["m"]
    both["b"] = pairing(replace(one, groups=np.array([f"g{item // 4}" for item in range(40)], dtype=object)))
    assert len(set(mean_panel(both).metrics["m"].groups)) == 10


def test_judges_without_a_common_item_or_metric_have_no_panel():
    scores, ratings = simulated([0.3, 0.3], items=40)
    both = judges(scores, ratings)
    one = both["b"].metrics["m"]
    with pytest.raises(InputError, match="no item"):
        mean_panel(both | {"b": pairing(replace(one, items=np.char.add("x", one.items.astype(str)).astype(object)))})
    with pytest.raises(InputError, match="no item"):
        mean_panel(both | {"b": pairing(one, "other")})
    with pytest.raises(InputError, match="no item"):
        mean_panel(both, nominal=["m"])


# What it gains


def test_three_judges_with_noise_of_their_own_gain():
    (found,) = panel_gains(judges(*simulated([0.8, 0.8, 0.8])))
    assert found.gains and found.gain["spearman"].low > 0 and found.gain["mae"].high < 0
    assert found.panel["spearman"].value - found.single["spearman"].value == pytest.approx(found.gain["spearman"].value)
    assert "gains on the best single judge: Spearman +" in found.sentence
    assert sum(found.picked.values()) == pytest.approx(1) and sum(found.weights.values()) == pytest.approx(1)


def test_a_judge_three_times_does_not_gain_and_says_so():
    scores, ratings = simulated([0.6])
    (found,) = panel_gains(judges(np.repeat(scores, 3, axis=1), ratings))
    assert found.how == "mean" and found.gains is False
    for measure in ("spearman", "mae"):
        gain = found.gain[measure]
        assert (gain.value, gain.low, gain.high) == pytest.approx((0, 0, 0), abs=1e-6)
    assert "does not gain on the best single judge" in found.sentence


@pytest.mark.parametrize("seed", range(4))
def test_beside_judges_that_see_nothing_the_panel_leaves_the_good_one_alone(seed: int):
    """Their mean would be far worse."""
    scores, ratings = simulated([0.5, 0.9, 0.9], sees=[1, 0, 0], seed=seed)
    (found,) = panel_gains(judges(scores, ratings))
    mean = spearmanr(scores.mean(axis=1), ratings.mean(axis=1))[0]
    assert found.how != "mean" and found.best == "a" and found.weights["a"] > 0.8
    assert found.gain["spearman"].value > -0.05 and found.panel["spearman"].value > mean + 0.1


def test_a_judge_that_says_the_opposite_has_no_weight():
    scores, ratings = simulated([0.6, 0.6, 0.6], sees=[1, 1, -1])
    (found,) = panel_gains(judges(scores, ratings))
    assert found.how == "single" or found.weights["c"] < 0.1


def test_a_stacker_weighs_judges_by_what_they_tell():
    scores, ratings = simulated([0.5, 2.0, 0.7], items=1000)
    columns, known = together(judges(scores, ratings), "m").training
    panel = fit_panel(columns, known, (0, 0, 0)).panel
    assert panel.how == "stacker" and (panel.coefficients[1:] >= 0).all()
    a, b, c = panel.weights
    assert a > c > b


def test_what_is_said_of_an_item_does_not_depend_on_its_ratings():
    """Other ratings of the items of one group change what is said of others, and nothing of that group's own."""
    scores, ratings = simulated([0.5, 0.8, 1.0], items=60)
    groups = [item // 3 for item in range(60)]
    found = []
    for given in (ratings, np.where(np.arange(60)[:, None] < 3, 6 - ratings, ratings)):
        columns, known = together(judges(scores, given, groups=groups), "m").training
        found.append(out_of_fold(columns, known, (0, 0, 0)))
    assert (found[0].predicted[..., :3] == found[1].predicted[..., :3]).all()
    assert (found[0].chosen[..., :3] == found[1].chosen[..., :3]).all()
    assert (found[0].best[..., :3] == found[1].best[..., :3]).all()
    assert (found[0].predicted[..., 3:] != found[1].predicted[..., 3:]).any()


def test_with_ratings_at_random_the_panel_tells_nothing():
    """Over 20 sets its Spearman out of fold is 0 on average, to two standard errors, where it is defined."""
    values = []
    for seed in range(20):
        scores, ratings = simulated([0.5, 0.5, 0.5], items=60, seed=seed)
        shuffled = np.random.default_rng(seed).permutation(ratings)
        (found,) = panel_gains(judges(scores, shuffled))
        if (value := found.panel["spearman"].value) is not None:
            values.append(value)
    assert len(values) >= 5
    assert np.mean(values) < 2 * np.std(values, ddof=1) / len(values) ** 0.5


@pytest.mark.parametrize("raters", ["none", "one group"])
def test_what_cannot_be_said_says_why(raters: str):
    scores, ratings = simulated([0.5, 0.5], items=20)
    if raters == "none":
        ratings[:] = np.nan
    (found,) = panel_gains(judges(scores, ratings, groups=["g"] * 20))
    assert found.gains is None and found.gain["spearman"].value is None
    assert ("no rated item" if raters == "none" else "of one group") in found.sentence


def test_under_eight_groups_there_is_no_interval():
    scores, ratings = simulated([0.5, 0.5], items=28)
    (found,) = panel_gains(judges(scores, ratings, groups=[item % 7 for item in range(28)]))
    assert found.gain["spearman"].value is not None and found.gains is None
    assert "there are under 8 groups" in found.sentence


# The calibration


def fitted(scores, ratings) -> PanelCalibration:
    return fit_panel_calibration(judges(scores, ratings), judges={n: (n, {}) for n in "abc"}, created="now")


def table(scores, name: str) -> pd.DataFrame:
    """A judge's scores as ``read_scores`` gives them."""
    items = [str(item) for item in range(len(scores))]
    return pd.DataFrame(
        {"item_id": items, "source": "s", "group": items, "metric": "m", "score": scores, "judge": name}
    )


def test_a_file_gives_the_same_scores_again(tmp_path: Path):
    scores, ratings = simulated([0.5, 0.5, 0.5])
    made = fitted(scores, ratings)
    made.save(tmp_path / "panel.json")
    tables = {name: table(column, name) for name, column in zip("abc", scores.T, strict=True)}
    first, again = made.predict(tables), PanelCalibration.load(tmp_path / "panel.json").predict(tables)
    pd.testing.assert_frame_equal(first, again)
    human = ratings.mean(axis=1)
    assert np.abs(first["calibrated"] - human).mean() < min(np.abs(scores - human[:, None]).mean(axis=0))
    assert ((first["low"] <= human) & (human <= first["high"])).mean() >= 0.9


def test_an_item_without_a_score_of_some_judge_has_none_of_the_panel():
    scores, ratings = simulated([0.5, 0.5, 0.5])
    made = fitted(scores, ratings)
    tables = {name: table(column, name) for name, column in zip("abc", scores.T, strict=True)}
    tables["b"].loc[3, "score"] = np.nan
    tables["c"] = tables["c"].drop(5)
    found = made.predict(tables)
    assert len(found) == 120 and np.flatnonzero(found["calibrated"].isna()).tolist() == [3, 5]
    assert not found["in_range"][[3, 5]].any()
    assert made.about(found)[0].startswith("2 of 120 items have no score of some judge")


def test_a_panel_without_one_of_its_judges_is_refused():
    scores, ratings = simulated([0.5, 0.5, 0.5])
    with pytest.raises(InputError, match="needs the scores of b, c as well"):
        fitted(scores, ratings).predict({"a": table(scores[:, 0], "a")})


def test_the_same_judge_twice_is_refused():
    scores, ratings = simulated([0.5, 0.5])
    with pytest.raises(InputError, match="a and b are one judge"):
        fit_panel_calibration(judges(scores, ratings), judges={"a": ("x", {}), "b": ("x", {})})


def test_files_of_one_judge_and_of_several_are_told_apart(tmp_path: Path):
    scores, ratings = simulated([0.5, 0.5, 0.5])
    fitted(scores, ratings).save(tmp_path / "panel.json")
    with pytest.raises(InputError, match="of several judges together; use it by calibrate --use"):
        Calibration.load(tmp_path / "panel.json")
    saved = (tmp_path / "panel.json").read_text(encoding="utf-8")
    (tmp_path / "damaged.json").write_text(saved.replace('"trained"', '"tamed"'), encoding="utf-8")
    with pytest.raises(InputError, match="damaged calibration"):
        PanelCalibration.load(tmp_path / "damaged.json")


# On published data


def test_estimate_takes_the_mean_of_judges_for_a_judge():
    """Means of systems by the panel are the means of those by its judges, whatever was rated."""
    scores, ratings = simulated([0.5, 0.9])
    ratings[60:] = np.nan
    both = judges(scores, ratings, sources=["x", "y"] * 60)
    by = [estimate(one).set_index(["target", "source"])["mean"]["judge mean"] for one in both.values()]
    found = estimate(mean_panel(both)).set_index(["target", "source"])["mean"]
    assert found["judge mean"].to_numpy() == pytest.approx(np.mean(by, axis=0))
    labelled = found["human mean of a system with some labels"].to_numpy()
    assert np.abs(labelled - found["judge mean"].to_numpy()).max() < 0.3


def test_three_judges_of_empathy_make_a_panel_on_every_metric(shared_data: Path):
    folder = shared_data / "human" / "empathy"
    ratings, scores = read_ratings(folder / "human.csv", None), read_scores(folder / "judge.csv", None)
    three = {name: pair(ratings, scores, judge=name) for name in ("claude", "gemini", "gpt")}
    found = panel_gains(three)
    assert len(found) == 21 and all(one.items == 50 and one.left_out == 0 for one in found)
    assert all(one.gain["spearman"].low <= one.gain["spearman"].value <= one.gain["spearman"].high for one in found)
    assert any(one.gains for one in found) and not all(one.gains for one in found)


def test_expectation_mode_and_a_noisy_copy_of_one_judge_do_not_gain(shared_data: Path):
    """Three judges of the same distribution of LLM-Rubric know no more than it."""
    folder = shared_data / "human" / "llm_rubric"
    ratings = read_ratings(folder / "human.csv", (1, 4), repeats="keep")
    scores = read_scores(folder / "judge.csv", (1, 4), source="synth")
    names = ["p1", "p2", "p3", "p4"]
    given = scores[names].to_numpy()
    noisy = given * np.random.default_rng(0).lognormal(0, 0.3, given.shape)
    noisy /= noisy.sum(axis=1, keepdims=True)
    three = {
        "expectation": scores,
        "mode": scores.assign(score=given.argmax(axis=1) + 1.0).drop(columns=names),
        "noisy": scores.assign(score=noisy @ np.arange(1, 5), **dict(zip(names, noisy.T, strict=True))),
    }
    found = panel_gains({name: pair(ratings, one, scale=(1, 4)) for name, one in three.items()})
    assert len(found) == 9 and sum(bool(one.gains) for one in found) <= 1
