"""Ratings beside scores: what is joined, what is counted, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import Pairing, TableError, pair
from tests.helpers.pairs import metric, tables

RATING = {"item_id": "i1", "source": "s", "metric": "m", "annotator": "a", "score": 4.0}
JUDGED = {"item_id": "i1", "source": "s", "metric": "m", "score": 4.0}


def ratings(*changes: dict) -> pd.DataFrame:
    table = pd.DataFrame([{**RATING, **change} for change in changes])
    return table if "group" in table else table.assign(group=table["item_id"])


def scores(*changes: dict) -> pd.DataFrame:
    table = pd.DataFrame([{**JUDGED, **change} for change in changes])
    return table if "group" in table else table.assign(group=table["item_id"])


def refusal(*args, **options) -> str:
    with pytest.raises(TableError) as caught:
        pair(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is joined


def test_each_rating_stands_beside_its_item_and_under_its_annotator():
    rated = ratings(
        {"item_id": "i2", "annotator": "b", "score": 1}, {"item_id": "i1", "annotator": "b", "score": 2},
        {"item_id": "i1", "annotator": "a", "score": 3},
    )  # fmt: skip
    found = pair(rated, scores({"item_id": "i1"}, {"item_id": "i2", "score": 2.5}, {"item_id": "i3"}))
    one = found.metrics["m"]
    assert (list(one.items), one.annotators, list(one.judge)) == (["i1", "i2", "i3"], ("a", "b"), [4.0, 2.5, 4.0])
    assert np.array_equal(one.ratings, [[3, 2], [np.nan, 1], [np.nan, np.nan]], equal_nan=True)
    assert np.array_equal(one.human, [2.5, 1, np.nan], equal_nan=True)
    assert list(one.counts) == [2, 1, 0]
    assert list(one.labelled.items) == ["i1", "i2"]
    assert (found.unrated, found.remarks, found.judge) == ({"m": 1}, (), None)


@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_records_is_no_matter(random):
    rated, judged = tables(items=4, metrics=("m", "n"))
    shuffled = [table.iloc[random.sample(range(len(table)), len(table))] for table in (rated, judged)]
    with_groups = [table.assign(group=table["item_id"]) for table in (rated, judged, *shuffled)]
    one, other = pair(*with_groups[:2]), pair(*with_groups[2:])
    assert set(one.metrics) == set(other.metrics)
    for name, straight in one.metrics.items():
        first, second = (metric.at(np.argsort(metric.items)) for metric in (straight, other.metrics[name]))
        assert list(first.items) == list(second.items) and np.array_equal(first.judge, second.judge)
        assert np.array_equal(first.ratings, second.ratings)


def test_equal_means_are_equal_whoever_gave_which_rating():
    """Means of repeats are no whole numbers, and their sum depends on its order by rounding."""
    thirds = [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.3, 0.1]]
    assert len({sum(row) / 3 for row in thirds}) > 1
    assert len(set(metric([1, 1, 1], thirds).human)) == 1


def test_weights_are_one_over_the_inclusion_probability():
    rated = ratings(
        {"inclusion_probability": 0.1},
        {"inclusion_probability": 0.1, "annotator": "b"},
        {"inclusion_probability": 0.5, "item_id": "i2"},
    )
    found = pair(rated, scores({"item_id": "i2"}, {"item_id": "i1"}, {"item_id": "i3"})).metrics["m"]
    assert list(found.weights) == [2, 10, 1]


def test_an_item_may_be_drawn_with_another_chance_on_another_metric():
    rated = ratings({"inclusion_probability": 0.5}, {"metric": "n", "inclusion_probability": 0.25})
    found = pair(rated, scores({}, {"metric": "n"})).metrics
    assert (list(found["m"].weights), list(found["n"].weights)) == ([2], [4])


def test_two_chances_of_one_item_are_refused_also_in_repeats():
    rated = ratings({"inclusion_probability": 0.5}, {"inclusion_probability": 0.25})
    assert "item 'i1' has two inclusion probabilities on 'm'" in refusal(rated, scores({}))


def test_repeats_are_averaged_and_told():
    found = pair(ratings({"score": 3}, {"score": 4}), scores({"score": 3.5}))
    assert found.metrics["m"].ratings.tolist() == [[3.5]]
    assert found.remarks == ("1 ratings repeat one by the same annotator; they were averaged.",)


# Of judges and annotators


def test_of_several_judges_one_has_to_be_named():
    judged = scores({"judge": "x", "score": 1.0}, {"judge": "y", "score": 2.0})
    assert "several judges (x, y); name one" in refusal(ratings({}), judged)
    assert "no judge 'z' (found: x, y)" in refusal(ratings({}), judged, judge="z")
    assert "no column judge" in refusal(ratings({}), scores({}), judge="z")
    found = pair(ratings({}), judged, judge="y")
    assert (found.judge, list(found.metrics["m"].judge)) == ("y", [2.0])


def test_several_answers_of_a_judge_are_averaged_with_their_probabilities():
    judged = scores({"p1": 0.5, "p2": 0.5, "score": 1.5}, {"p1": 0.0, "p2": 1.0, "score": 2.0})
    found = pair(ratings({"score": 2}), judged.assign(sample_index=["0", "1"])).metrics["m"]
    assert (found.judge.tolist(), found.levels.tolist()) == ([1.75], [[0.25, 0.75]])


def test_annotators_can_be_chosen_if_they_are_there():
    rated = ratings({"annotator": "a"}, {"annotator": "b", "score": 1})
    assert pair(rated, scores({}), annotators=["b"]).metrics["m"].ratings.tolist() == [[1]]
    assert "no annotator 'c' (found: a, b)" in refusal(rated, scores({}), annotators=["a", "c"])


# What has no counterpart


def test_what_has_no_counterpart_is_listed_and_told():
    rated = ratings({}, {"item_id": "i2"}, {"item_id": "i3"}, {"metric": "only people"})
    judged = scores({}, {"item_id": "i2", "score": np.nan}, {"item_id": "i9"}, {"metric": "only judge"})
    found = pair(rated, judged)
    assert list(found.metrics) == ["m"] and list(found.metrics["m"].items) == ["i1", "i9"]
    assert found.unjudged[["item_id", "metric"]].values.tolist() == [["i2", "m"], ["i3", "m"], ["i1", "only people"]]
    assert found.missing.values.tolist() == [["i2", "m"]]
    assert found.remarks == (
        "3 of 4 ratings have no score of the judge (first items: i2, i3, i1).",
        "1 judgments are missing and left out.",
        "Nobody rated only judge.",
        "The judge has no scores on only people, which people rated.",
    )


def test_a_metric_without_a_shared_item_is_told():
    found = pair(ratings({}, {"metric": "n"}), scores({}, {"metric": "n", "item_id": "i7"}))
    assert list(found.metrics) == ["m"]
    assert "No rated item was judged on n." in found.remarks


def test_tables_that_share_nothing_are_refused_with_the_reason():
    assert "no metric in common (human ratings: m; judge: other)" in refusal(ratings({}), scores({"metric": "other"}))
    assert "no item in common; check how item_id" in refusal(ratings({}), scores({"item_id": "x"}))
    assert "every score of a rated metric is missing" in refusal(ratings({}), scores({"score": np.nan}))


# Groups, characters and sources of either table


def test_groups_that_only_one_table_tells_are_those_of_both():
    """Rows of one scenario resemble each other, whichever table says so: or intervals would be too short."""
    without, rated = (
        scores({}, {"item_id": "i2"}, {"item_id": "i3"}),
        ratings({"group": "g"}, {"item_id": "i2", "group": "g"}),
    )
    assert list(pair(rated, without).metrics["m"].groups) == ["g", "g", "i3"]
    assert list(pair(ratings({}), scores({"group": "h"})).metrics["m"].groups) == ["h"]


def test_two_groups_or_two_sources_of_an_item_are_refused():
    assert "group 'h' among the scores and 'g' among the ratings" in refusal(
        ratings({"group": "g"}), scores({"group": "h"})
    )
    assert "source 's' among the scores and 't' among the ratings" in refusal(ratings({"source": "t"}), scores({}))


def test_characters_that_only_the_ratings_tell_are_taken_where_all_are_known():
    rated = ratings({"character": "c"})
    assert list(pair(rated, scores({})).metrics["m"].characters) == ["c"]
    assert pair(rated, scores({}, {"item_id": "i2"})).metrics["m"].characters is None
    assert list(pair(rated, scores({"character": "d"})).metrics["m"].characters) == ["d"]


# Composites

COMPOSITE = {"both": ("m", "n")}


def composed(rated: pd.DataFrame, judged: pd.DataFrame) -> Pairing:
    return pair(rated, judged, composites=COMPOSITE)


def test_a_composite_is_the_mean_of_metrics_where_all_are_there():
    rated = ratings({"score": 1}, {"metric": "n", "score": 4}, {"annotator": "b", "score": 5}, {"item_id": "i2"})
    judged = scores(
        {}, {"metric": "n", "score": 2.5}, {"item_id": "i2"}, {"item_id": "i2", "metric": "n", "score": np.nan}
    )
    found = composed(rated, judged).metrics["both"]
    assert (list(found.items), found.judge.tolist(), found.annotators) == (["i1"], [3.25], ("a",))
    assert found.ratings.tolist() == [[2.5]]


def test_a_repeated_rating_does_not_stand_for_a_metric_that_was_not_rated():
    rated = ratings({"score": 1}, {"score": 2}, {"metric": "n", "annotator": "b"})
    assert "both" not in composed(rated, scores({}, {"metric": "n"})).metrics


def test_a_composite_that_the_tables_hold_themselves_is_left_as_it_is():
    rated = ratings({"score": 1}, {"metric": "n", "score": 1}, {"metric": "both", "score": 5})
    judged = scores({}, {"metric": "n"}, {"metric": "both", "score": 4.5})
    found = composed(rated, judged).metrics["both"]
    assert (found.ratings.tolist(), found.judge.tolist()) == ([[5]], [4.5])


def test_a_composite_has_no_probabilities_and_nothing_is_said_of_it():
    levels = {f"p{level}": 0.2 for level in range(1, 6)}
    found = composed(
        ratings({"score": 3}, {"metric": "n", "score": 3}),
        scores({"score": 3.0, **levels}, {"metric": "n", "score": 3.0, **levels}),
    )
    assert found.metrics["m"].levels is not None and found.metrics["both"].levels is None
    assert found.remarks == ()


# Scales

THIRDS = {"p1": 0.25, "p2": 0.25, "p3": 0.5, "score": 2.25}


@pytest.mark.parametrize(
    ("rating", "judged", "named", "expected"),
    [
        (4, {}, (1, 5), (1, 5)),
        (4, {}, {"m": (0, 10), "n": (1, 2)}, (0, 10)),
        (2.5, {}, {"n": (1, 2)}, (2, 4)),
        (2, THIRDS, None, (1, 3)),
        (3, THIRDS, None, (1, 3)),
        (2, THIRDS, (0, 4), (0, 4)),
        (0, THIRDS, None, (0, 3)),
        (1.5, {}, None, (1, 4)),
    ],
    ids=[
        "named",
        "by metric",
        "not this one",
        "levels",
        "highest level",
        "named over levels",
        "off the levels",
        "whole numbers around",
    ],
)
def test_the_scale_is_named_or_that_of_the_levels_or_of_the_scores(rating: float, judged: dict, named, expected):
    assert pair(ratings({"score": rating}), scores(judged), scale=named).metrics["m"].scale == expected


@pytest.mark.parametrize("rating", [6, 0.5])
def test_ratings_off_the_scale_that_was_named_are_told(rating: float):
    """A file of ratings is refused where it is read."""
    rated = ratings({"score": rating}, {"item_id": "i2", "score": 4})
    (remark,) = pair(rated, scores({}, {"item_id": "i2"}), scale=(1, 5)).remarks
    assert "human ratings" in remark and "leave the scale of 1 to 5" in remark


@pytest.mark.parametrize(("judged", "told"), [(5.2, True), (0.0, True), (5 + 1e-9, False)])
def test_a_judge_may_leave_the_scale_which_is_told_unless_it_is_rounding(judged: float, told: bool):
    rated = ratings({"score": 1}, {"item_id": "i2", "score": 5})
    found = pair(rated, scores({"score": judged}, {"item_id": "i2", "score": 3.0}), scale=(1, 5))
    assert found.metrics["m"].scale == (1, 5)
    assert [("leave the scale of 1 to 5" in remark) for remark in found.remarks] == [True] * told


@pytest.mark.parametrize("rating", [0, 4], ids=["below", "above"])
def test_probabilities_that_do_not_fit_the_scale_are_not_used_and_that_is_told(rating: int):
    found = pair(ratings({"score": rating}), scores(THIRDS))
    assert found.metrics["m"].levels is None
    assert "On m p1..p3 are not the whole scores from" in found.remarks[0]


def test_probabilities_are_of_the_whole_scores_of_a_scale_from_nought():
    judged = scores({"p1": 0.25, "p2": 0.25, "p3": 0.5, "score": 1.25})
    found = pair(ratings({"score": 0}), judged, scale=(0, 2)).metrics["m"]
    assert found.levels.tolist() == [[0.25, 0.25, 0.5]] and found.values.tolist() == [0, 1, 2]


def test_probabilities_of_some_items_only_are_not_used():
    judged = scores(THIRDS, {"item_id": "i2", "score": 2.0, "p1": 0.5, "p2": np.nan, "p3": 0.5})
    assert pair(ratings({"score": 2}), judged).metrics["m"].levels is None


def test_two_scales_that_do_not_overlap_are_told():
    (remark,) = pair(ratings({"score": 80}), scores({"score": 4.0})).remarks
    assert "(4.00 to 4.00)" in remark and "(80 to 80)" in remark and "different scales" in remark


@pytest.mark.parametrize("gap", ["short", "", None, np.nan])
def test_lengths_that_are_no_numbers_are_not_used_and_that_is_told(gap: object):
    found = pair(ratings({}), scores({"length": "12"}, {"item_id": "i2", "length": gap}))
    assert found.metrics["m"].lengths is None
    assert "'length' does not hold a number for every item" in found.remarks[0]


def test_lengths_are_numbers_also_from_text():
    assert pair(ratings({}), scores({"length": "12"})).metrics["m"].lengths.tolist() == [12]


# The pairing itself


def test_items_can_be_chosen_with_all_that_belongs_to_them():
    whole = metric(
        [1, 2, 3], [1, 2, 3], groups="abc", sources="xyz", characters="pqr", weights=[1, 2, 3], lengths=[7, 8, 9],
        levels=np.eye(5)[:3],
    )  # fmt: skip
    for chosen in (np.array([2, 0]), np.array([True, False, True])):
        part = whole.at(chosen)
        for name in ("items", "groups", "sources", "characters", "judge", "weights", "lengths", "levels", "ratings"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[chosen]), name


def test_other_scores_in_the_judges_place_have_no_distribution():
    other = metric([1, 2], [1, 2], levels=np.eye(5)[:2]).judged_by(np.array([4.0, 5.0]))
    assert (other.judge.tolist(), other.levels) == ([4, 5], None)


@pytest.mark.parametrize(
    "spoil", [lambda r, s: (r.iloc[:0], s), lambda r, s: (r, s.iloc[:0])], ids=["ratings", "scores"]
)
def test_an_empty_table_is_refused(spoil: Callable):
    assert "no metric in common" in refusal(*spoil(ratings({}), scores({})))


# Scales that were not named


def _beside(judged: list[float], rated: list[float], **more: object) -> tuple[str, ...]:
    """What is said of a judge's scores beside ratings of the same items."""
    ids = [{"item_id": f"i{number}"} for number in range(len(judged))]
    judge = scores(*(one | {"score": value} for one, value in zip(ids, judged, strict=True)))
    people = ratings(*(one | {"score": value} for one, value in zip(ids, rated, strict=True)))
    return pair(people, judge, **more).remarks


@pytest.mark.parametrize(
    ("judged", "rated"),
    [
        ([0, 0.5, 1], [1, 3, 5]), ([1, 100, 298], [1, 2, 3]), ([1, 3, 5], [5, 7, 10]), ([-3, 0, 3], [1, 2, 3]),
    ],
)  # fmt: skip
def test_scales_that_seem_to_differ_are_told(judged: list[float], rated: list[float]):
    said = _beside(judged, rated)
    assert any("different scales" in text and "--scale" in text for text in said)


@pytest.mark.parametrize(
    ("judged", "rated"), [([1.2, 3, 4.8], [1, 3, 5]), ([2.9, 3, 3.1], [1, 3, 5]), ([1, 3, 5], [2, 3, 4]), ([3], [3])]
)
def test_scales_that_agree_are_not(judged: list[float], rated: list[float]):
    assert not any("different scales" in text for text in _beside(judged, rated))


def test_a_scale_that_was_named_is_not_doubted():
    assert not any("different scales" in text for text in _beside([1, 2, 5], [1, 1, 2], scale=(1, 5)))


def test_stray_ratings_at_the_ends_are_counted():
    rated = [1.0, 2, 3, 4, 5] * 400 + [0, 6, 6]
    said = _beside([3.0] * len(rated), rated)
    assert any("3 of 2,003 ratings are 0, 6, and the scale is taken to be 0 to 6" in text for text in said)
    assert not any("is taken to be" in text for text in _beside([3.0] * 2000, [1.0, 2, 3, 4, 5] * 400))


def test_levels_that_do_not_mean_the_scores_are_not_used():
    """p1 to p5 stand for 0 to 4, and nobody gave a 0."""
    rows = [np.eye(5)[level] for level in (1, 2, 3, 4)]
    levels = [{f"p{place + 1}": value for place, value in enumerate(row)} for row in rows]
    ids = [{"item_id": f"i{number}", "score": float(number + 1)} for number in range(4)]
    judge, people = scores(*(one | row for one, row in zip(ids, levels, strict=True))), ratings(*ids)
    guessed = pair(people, judge)
    assert guessed.metrics["m"].levels is None and any("name the scale" in text for text in guessed.remarks)
    assert pair(people, judge, scale=(0, 4)).metrics["m"].levels is not None
