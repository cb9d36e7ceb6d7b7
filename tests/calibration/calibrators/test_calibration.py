"""A calibration as a whole: predicting, the file, and refusing what it was not fitted for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from calibration.calibrators.calibration import Calibration, InputError, conformal_quantile, fit_calibration
from calibration.pairing import pair

IDENTITY = {"model": "abc", "rubric": "r1", "layout": "prefill", "levels": (1, 2, 3, 4, 5)}


def tables(n=60, seed=0, metrics=("warmth", "style"), levels=True):
    """n items of three sources and four characters, two raters who differ by 1; the judge is 0.5 too kind."""
    generator = np.random.default_rng(seed)
    quality = generator.uniform(1.5, 3.5, n)
    base = pd.DataFrame(
        {
            "item_id": [f"i{index:02}" for index in range(n)],
            "source": [f"s{index % 3}" for index in range(n)],
            "character": [f"c{index % 4}" for index in range(n)],
            "group": [f"g{index % 20}" for index in range(n)],
        }
    )
    scores, ratings = [], []
    for metric in metrics:
        probability = _levels(quality + 0.5 + generator.normal(0, 0.1, n))
        table = base.assign(metric=metric, score=probability @ np.arange(1, 6))
        if levels:
            table = table.assign(**{f"p{level + 1}": probability[:, level] for level in range(5)})
        scores.append(table)
        for who, severity in (("hard", -0.5), ("soft", 0.5)):
            given = np.clip(quality + severity + generator.normal(0, 0.3, n), 1, 5)
            ratings.append(base.assign(metric=metric, annotator=who, score=given))
    return pd.concat(ratings, ignore_index=True), pd.concat(scores, ignore_index=True)


def _levels(score):
    """Distributions over 1..5 with about these means."""
    weight = np.exp(-1.5 * (np.arange(1, 6) - score[:, None]) ** 2)
    return weight / weight.sum(axis=1, keepdims=True)


def fit(ratings, scores, **options):
    options = {"judge_id": "j1", "identity": IDENTITY, "created": "2026-01-01", **options}
    return fit_calibration(pair(ratings, scores, scale=(1, 5)), **options)


@pytest.fixture(scope="module")
def ratings():
    return tables()[0]


@pytest.fixture(scope="module")
def scores():
    return tables()[1]


@pytest.fixture(scope="module")
def fitted(ratings, scores):
    return fit(ratings, scores)


@pytest.fixture
def saved(fitted, tmp_path):
    path = tmp_path / "calibration.json"
    fitted.save(path)
    return path


# Predicting


def test_a_kind_judge_is_brought_down_to_people(fitted, ratings, scores):
    human = ratings.groupby(["item_id", "metric"])["score"].mean()
    found = fitted.predict(scores).set_index(["item_id", "metric"])
    error = found["calibrated"] - human
    assert abs(error.mean()) < 0.02
    assert error.abs().mean() < 0.5 * (scores.set_index(["item_id", "metric"])["score"] - human).abs().mean()
    assert 0.9 < found["in_range"].mean() < 1  # 95% of the training items, by definition


def test_rows_come_back_in_order_with_their_columns(fitted, scores):
    mixed = scores.sample(frac=1, random_state=1)
    found = fitted.predict(mixed)
    assert list(found) == ["item_id", "metric", "calibrated", "low", "high", "in_range"]
    assert found["item_id"].tolist() == mixed["item_id"].tolist()
    assert found["metric"].tolist() == mixed["metric"].tolist()


def test_intervals_cover_new_items(fitted):
    ratings, scores = tables(n=100, seed=7)
    human = ratings.groupby(["item_id", "metric"])["score"].mean()
    found = fitted.predict(scores).set_index(["item_id", "metric"]).loc[human.index]
    covered = ((found["low"] <= human) & (human <= found["high"])).mean()
    assert 0.88 < covered <= 1
    assert (found["high"] - found["low"]).max() < 2


def test_a_named_annotator_is_predicted_by_name_with_an_interval_of_ratings(fitted, scores):
    hard, soft = (fitted.predict(scores, who) for who in ("hard", "soft"))
    assert (soft["calibrated"] - hard["calibrated"]).mean() == pytest.approx(1.0, abs=0.15)


def test_an_annotator_of_whom_nothing_is_known_is_refused(fitted, scores):
    with pytest.raises(InputError, match=r"nothing is known of annotator 'someone new' \(known: hard, soft\)"):
        fitted.predict(scores, "someone new")


def test_a_table_of_items_and_annotators_is_predicted_in_one_call(fitted, scores):
    asked = pd.DataFrame({"item_id": ["i07", "i02", "i07"], "annotator": ["soft", "hard", "hard"]})
    found = fitted.predict(scores, asked)
    of_style = found[found["metric"] == "style"].reset_index(drop=True)
    assert of_style[["item_id", "annotator"]].equals(asked) and len(found) == 6
    for row in found.to_dict("records"):
        alone = fitted.predict(scores, row["annotator"]).set_index(["item_id", "metric"])
        assert row["calibrated"] == alone["calibrated"][row["item_id"], row["metric"]]
    on_one = fitted.predict(scores, asked.assign(metric="style"))
    assert on_one["calibrated"].tolist() == of_style["calibrated"].tolist()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"item_id": ["i01"], "who": ["hard"]}, "no column annotator"),
        (
            {"item_id": ["i01", "i99"], "annotator": ["hard", "soft"]},
            r"1 of 3 rows .* without a score \(first: 'i99'\)",
        ),
        ({"item_id": ["i01"], "annotator": ["x"]}, r"nothing is known of annotator 'x' \(known: hard, soft\)"),
        ({"item_id": ["i01"] * 7, "annotator": list("tuvwxyz")}, r"'t', 'u', 'v', 'w', 'x' and 2 more \(known"),
        ({"item_id": ["i01"], "annotator": ["hard"], "metric": ["other"]}, "without a score"),
    ],
)
def test_a_table_that_cannot_be_predicted_is_refused(fitted, scores, asked, message):
    with pytest.raises(InputError, match=message):
        fitted.predict(scores, pd.DataFrame(asked))


@pytest.mark.parametrize("moved", [0.0, 0.25, 0.6])
def test_scores_that_are_far_from_training_are_said(ratings, scores, moved):
    """Items that are given 1, as few had in training, are out of range, and their share is told."""
    fitted = fit(ratings, scores, kinds=["linear"])
    far = scores.copy()
    chosen = far["item_id"].rank(method="dense") <= 60 * moved
    far.loc[chosen, "score"] = 1.0
    found = fitted.predict(far)
    assert not found["in_range"][chosen.to_numpy()].any()
    said = fitted.far_from_training(found)
    assert len(said) == (0 if moved == 0 else 2)
    assert all("of 60 items are unlike 95% of those the map was fitted on" in text for text in said)


def test_a_map_that_reads_other_metrics_is_a_guess_where_those_are_unusual(ratings, scores):
    unusual = scores.copy()
    levels = [f"p{level}" for level in range(1, 6)]
    unusual.loc[unusual["metric"] == "style", ["score", *levels]] = [5.0, 0, 0, 0, 0, 1]
    for kinds, share in ((["linear"], 0.9), (["raters"], 0.1)):
        found = fit(ratings, scores, kinds=kinds).predict(unusual)
        near = found.loc[found["metric"] == "warmth", "in_range"].mean()
        assert near > share if kinds == ["linear"] else near < share


def test_what_averages_stand_in_for_is_said(ratings, scores):
    reading_all = fit(ratings, scores, kinds=["raters"])
    names = list(reading_all.metrics)
    assert reading_all.stand_ins(scores) == []
    one = scores[scores["metric"] == names[0]]
    assert reading_all.stand_ins(one) == [
        f"The map of {names[0]} reads more of {', '.join(names[1:])} than is there: averages stand in for it."
    ]
    no_levels = scores.drop(columns=[f"p{level}" for level in range(1, 6)])
    assert all(text.count(names[0]) for text in reading_all.stand_ins(no_levels)[:1])
    assert len(reading_all.stand_ins(no_levels)) == len(names)
    of_one_score = fit(ratings, scores, kinds=["linear"])
    assert of_one_score.stand_ins(one) == []
    assert of_one_score.stand_ins(one, "hard") == [
        f"The map of {names[0]} does not tell annotators apart: these are mean ratings."
    ]


def test_the_conformal_quantile_is_the_twentieth_of_twenty():
    # ceil(.95 x 20) = 19th of 19; with 18 there is none
    assert conformal_quantile(np.arange(19.0), np.ones(19)) == 18.0
    assert conformal_quantile(np.arange(18.0), np.ones(18)) is None
    assert conformal_quantile(np.arange(39.0), np.ones(39)) == 37.0
    # the weights of 39 items, told as 39 items' worth
    assert conformal_quantile(np.array([0.0, 1.0]), np.array([57.0, 1.0])) is None


def test_with_few_items_the_interval_is_the_scale(ratings, scores):
    few = ratings[ratings["item_id"] < "i06"]
    found = fit(few, scores).predict(scores)
    assert (found["low"] == 1).all() and (found["high"] == 5).all()


def test_scores_outside_training_are_marked(fitted, scores):
    outside = scores.iloc[:1].assign(score=5.0)
    assert not fitted.predict(outside)["in_range"].any()


def test_a_missing_score_stays_missing(fitted, scores):
    gap = scores.copy()
    gap.loc[3, ["score", "p1", "p2", "p3", "p4", "p5"]] = np.nan
    found = fitted.predict(gap)
    assert found["calibrated"].isna().to_numpy().nonzero()[0].tolist() == [3]
    assert not found["in_range"][3]


def test_metrics_without_a_map_are_left_out(fitted, scores):
    more = pd.concat([scores, scores.iloc[:5].assign(metric="other")])
    assert set(fitted.predict(more)["metric"]) == {"warmth", "style"}
    with pytest.raises(InputError, match="no metric that was calibrated"):
        fitted.predict(scores.assign(metric="other"))


def test_one_metric_alone_is_enough_for_the_rater_model(ratings, scores):
    only = fit(ratings, scores, kinds=["raters"])
    found = only.predict(scores[scores["metric"] == "style"])
    assert np.isfinite(found["calibrated"]).all() and len(found) == 60


def test_a_judgment_given_twice_is_refused(fitted, scores):
    with pytest.raises(InputError, match="'i00' is scored twice on 'warmth'"):
        fitted.predict(pd.concat([scores, scores.iloc[:1]]))


def test_several_answers_are_averaged_and_several_judges_refused(fitted, scores):
    twice = pd.concat(
        [scores.assign(sample_index=index, score=scores["score"] + by) for index, by in ((0, 0.1), (1, -0.1))]
    )
    assert fitted.predict(twice)["calibrated"].to_numpy() == pytest.approx(
        fitted.predict(scores)["calibrated"].to_numpy()
    )
    with pytest.raises(InputError, match=r"several judges \(x, y\)"):
        fitted.predict(pd.concat([scores.assign(judge="x"), scores.assign(judge="y")]))


def test_levels_that_are_needed_are_asked_for(ratings, scores):
    ordinal = fit(ratings, scores, kinds=["ordinal"])
    with pytest.raises(InputError, match=r"'warmth': the level probabilities \(p1, p2, ...\) are missing"):
        ordinal.predict(scores[["item_id", "metric", "score"]])


def test_a_table_without_levels_is_calibrated_too():
    ratings, scores = tables(levels=False)
    fitted = fit(ratings, scores)
    assert "level probabilities" in fitted.metrics["style"].skipped["ordinal"]
    assert np.isfinite(fitted.predict(scores)["calibrated"]).all()


def test_one_group_gives_a_constant_that_says_so(ratings, scores):
    one = fit(ratings.assign(group="g"), scores.assign(group="g"))
    metric = one.metrics["style"]
    assert metric.calibrator.kind == "constant"
    assert "cannot rank systems on this metric" in metric.remarks
    assert one.predict(scores)["calibrated"].nunique() == 2


def test_one_rater_is_enough(ratings, scores):
    one = fit(ratings[ratings["annotator"] == "hard"], scores)
    assert np.isfinite(one.predict(scores, "hard")["calibrated"]).all()


# The file


def test_what_was_loaded_predicts_the_same(fitted, saved, scores):
    again = Calibration.load(saved)
    for who in (None, "hard"):
        one, other = (which.predict(scores, who)[["calibrated", "low", "high"]] for which in (fitted, again))
        assert one.to_numpy() == pytest.approx(other.to_numpy(), abs=1e-12)
    assert again.metrics["style"].evaluations == fitted.metrics["style"].evaluations
    assert again.identity == fitted.identity and again.anchor == fitted.anchor


def test_the_same_fit_is_the_same_bytes(ratings, scores, saved, tmp_path):
    fit(ratings, scores).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == saved.read_bytes()
    Calibration.load(saved).save(tmp_path / "third.json")
    assert (tmp_path / "third.json").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not JSON"),
        ('{"format": NaN}', "not JSON"),
        ("[1, 2]", "not a calibration"),
        ('{"format": "esrp-calibration", "version": 99}', "format version 99, not 2"),
        ('{"format": "esrp-calibration", "version": 2}', "damaged"),
        ('{"format": "esrp-calibration", "version": 2, "judge_id": "j", "identity": 3}', "damaged"),
    ],
)
def test_a_file_that_is_no_calibration_is_told_in_a_line(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Calibration.load(tmp_path / "nothing.json")


@pytest.mark.parametrize("part", ["calibrator", "trained", "evaluations"])
def test_a_metric_that_lost_a_part_is_damaged(saved, part):
    content = json.loads(saved.read_text(encoding="utf-8"))
    del content["metrics"]["style"][part]
    saved.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        Calibration.load(saved)


def test_the_dialogues_of_the_anchors_are_kept(fitted, tmp_path):
    kept = {"i00": {"turns": [{"user": "你好", "character": "嗯"}]}}
    replace(fitted, dialogues=kept).save(tmp_path / "with.json")
    assert Calibration.load(tmp_path / "with.json").dialogues == kept


# The judge it is bound to


def test_the_same_judge_is_accepted_also_from_a_file(saved):
    Calibration.load(saved).refuse_another("j1", IDENTITY)
    Calibration.load(saved).refuse_another("j1", {})


def test_another_judge_is_refused_by_the_parts_that_differ(fitted):
    with pytest.raises(InputError, match="another judge: rubric, layout differ"):
        fitted.refuse_another("j2", {**IDENTITY, "rubric": "r2", "layout": "question"})
    with pytest.raises(InputError, match="another judge: dtype differ"):
        fitted.refuse_another("j2", {**IDENTITY, "dtype": "float32"})


def test_a_plain_table_is_refused_by_its_id(ratings, scores):
    plain = fit(ratings, scores, identity=None)
    plain.refuse_another("j1", {})
    with pytest.raises(InputError, match=r"judge_id \(j1, not j2\)"):
        plain.refuse_another("j2", {})


def test_an_identity_that_no_file_can_hold_is_refused(ratings, scores):
    with pytest.raises(InputError, match="cannot be saved as JSON"):
        fit(ratings, scores, identity={"model": object()})


# Drift


def test_anchors_are_spread_over_sources_and_characters(fitted, scores):
    items = {item for item, _, _ in fitted.anchor}
    assert len(items) == 50 and len(fitted.anchor) == 100
    table = scores.drop_duplicates("item_id").set_index("item_id").loc[sorted(items)]
    assert np.ptp(table["source"].value_counts()) <= 1 and np.ptp(table["character"].value_counts()) <= 2


def test_the_same_scores_have_not_moved(fitted, scores):
    drift = fitted.drift(scores)
    assert (drift.compared, drift.absent, drift.moved) == (100, 0, False)
    assert set(drift.largest.values()) == {0.0}


@pytest.mark.parametrize(("by", "moved"), [(0.02, False), (-0.019, False), (0.03, True)])
def test_numerical_noise_is_no_drift_and_more_is(fitted, scores, by, moved):
    item = fitted.anchor[0][0]
    here = (scores["item_id"] == item) & (scores["metric"] == "style")
    drift = fitted.drift(scores.assign(score=scores["score"] + by * here))
    assert drift.moved is moved
    assert drift.largest["style"] == pytest.approx(abs(by)) and drift.mean["style"] == pytest.approx(abs(by) / 50)


def test_anchors_that_were_not_scored_are_told(fitted, scores):
    some = scores[scores["item_id"] == fitted.anchor[0][0]]
    drift = fitted.drift(some)
    assert (drift.compared, drift.absent) == (2, 98)
    with pytest.raises(InputError, match="none of the 100 anchor judgments"):
        fitted.drift(scores.assign(score=np.nan))
