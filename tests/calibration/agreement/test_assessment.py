"""Every metric of a judge in one call: what programs read of it, its remarks, halo, and its own family."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calibration import Assessment, Paired, Pairing, assess
from calibration.agreement.metrics import discriminant_validity
from tests.helpers.pairs import metric


def pairing(*remarks: str, **metrics: Paired) -> Pairing:
    return Pairing(None, metrics, pd.DataFrame(), pd.DataFrame(), dict.fromkeys(metrics, 0), remarks)


def rated(seed: int = 0, items: int = 60, **changes) -> Paired:
    generator = np.random.default_rng(seed)
    ratings = np.clip(generator.integers(1, 6, (items, 1)) + generator.integers(-1, 2, (items, 3)), 1, 5)
    options = {"groups": np.arange(items) // 5, "sources": np.arange(items) % 4, **changes}
    return metric(np.clip(ratings.mean(axis=1) + generator.normal(0, 0.7, items), 1, 5), ratings, **options)


def as_programs_read(found: Assessment) -> dict:
    return json.loads(json.dumps(found.to_dict(), allow_nan=False))


@pytest.fixture(scope="module")
def found() -> Assessment:
    return assess(pairing("A remark.", one=rated(0), two=rated(1)), "a judge", same_family=["0"])


def test_programs_read_values_intervals_and_reasons(found: Assessment):
    read = as_programs_read(found)
    assert (read["judge"], list(read["metrics"]), read["remarks"][0]) == ("a judge", ["one", "two"], "A remark.")
    one = read["metrics"]["one"]
    assert (one["n"], one["groups"], one["sources"]) == (60, 12, 4)
    assert one["agreement"]["spearman"] == found.metrics["one"].agreement.judge["spearman"].value
    low, high = one["agreement"]["intervals"]["spearman"]
    assert low < one["agreement"]["spearman"] < high
    assert one["reliability"]["raters"] == 3 and one["reliability"]["ratings_per_item"] == 3
    assert one["alt_test"]["winning_rate"] in (0, 1 / 3, 2 / 3, 1)
    assert one["undefined"]["judge"] == dict.fromkeys(
        ("rps", "log_loss"), "the table has no probabilities p1..pK of the scale's scores"
    )
    assert one["verdict"] == "estimate" and one["sentence"].startswith("On m, a judge may")


def test_what_is_undefined_in_one_part_is_not_said_of_another():
    """Two sources have no order; over items the correlation is there."""
    read = as_programs_read(assess(pairing(one=rated(sources=np.arange(60) % 2)), "a judge"))["metrics"]["one"]
    assert "spearman" in read["undefined"]["system"] and "spearman" not in read["undefined"]["judge"]
    assert read["agreement"]["spearman"] is not None and read["system"]["spearman"] is None


def test_the_table_has_a_row_a_number(found: Assessment):
    table = found.table.set_index(["metric", "of", "statistic"])
    assert table.index.is_unique
    assert table.loc[("two", "judge", "mae"), "value"] == found.metrics["two"].agreement.judge["mae"].value
    assert set(table.index.get_level_values("of")) >= {"raters", "person_left_out", "constant", "system", "same_family"}
    assert (table["value"].isna() == table["reason"].notna()).all()


def test_a_remark_that_holds_for_all_is_made_once_and_another_names_its_metrics():
    found = assess(pairing(one=rated(0), two=metric([1, 2, 3], [1, 2, 3])), "a judge")
    assert any(remark.startswith("two: Every item has one rating") for remark in found.remarks)
    both = assess(pairing(one=metric([1, 2, 3], [1, 2, 3]), two=metric([1, 2, 3], [1, 2, 3])), "a judge")
    assert next(remark for remark in both.remarks if "Every item has one rating" in remark).startswith("Every")


def test_slots_are_nobody_to_stand_in_for():
    one = as_programs_read(assess(pairing(one=rated()), "a judge", raters="slots"))["metrics"]["one"]
    assert one["alt_test"]["passed"] is None and "slots" in one["alt_test"]["reason"]
    assert one["person_left_out"]["spearman"] is None


def test_annotators_who_were_skipped_are_null_for_programs():
    """An annotator of five items is skipped in the alternative annotator test, and 60 items in 4 groups are too few."""
    paired = rated(groups=np.arange(60) % 4)
    ratings = np.column_stack([paired.ratings, np.where(np.arange(60) < 5, 3.0, np.nan)])
    read = as_programs_read(assess(pairing(one=metric(paired.judge, ratings, groups=paired.groups)), "a judge"))
    annotators = read["metrics"]["one"]["alt_test"]["annotators"]
    assert [row["rejected"] is None for row in annotators] == [False, False, False, True]
    assert all(row["rejected_by_group"] is None for row in annotators)


# A judge's own family


def test_the_bias_to_its_own_family_is_the_difference_of_differences(found: Assessment):
    paired, bias = rated(0), found.metrics["one"].family_bias
    apart, own = paired.judge - paired.human, paired.sources == "0"
    assert bias.value == pytest.approx(apart[own].mean() - apart[~own].mean())
    assert bias.low < bias.value < bias.high


def test_its_interval_is_that_of_group_differences():
    """With the same items in every group the difference of means is a mean of differences, one a group."""
    paired = rated(groups=np.arange(60) // 4)
    bias = assess(pairing(one=paired), "a judge", same_family=["0"]).metrics["one"].family_bias
    apart = (paired.judge - paired.human).reshape(15, 4)
    by_group = apart[:, 0] - apart[:, 1:].mean(axis=1)
    low, high = stats.ttest_1samp(by_group, 0).confidence_interval(0.95)
    assert (bias.value, bias.low, bias.high) == pytest.approx((by_group.mean(), low, high))


def test_its_items_have_weights_and_its_claim_can_be_about_characters():
    times = np.random.default_rng(0).integers(1, 4, 60)
    plain = rated(characters=np.arange(60) % 9)
    again = plain.at(np.repeat(np.arange(60), times))
    weighted = rated(weights=times, characters=np.arange(60) % 9)
    biases = [
        assess(pairing(one=one), "a judge", same_family=["0"], characters=wide).metrics["one"].family_bias
        for one, wide in ((weighted, False), (again, False), (weighted, True))
    ]
    assert biases[0].value == pytest.approx(biases[1].value) and biases[0].low == pytest.approx(biases[1].low)
    assert biases[2].value == biases[0].value and biases[2].low != biases[0].low


@pytest.mark.parametrize("family", [[], ["other"], ["0", "1", "2", "3"]], ids=["none", "not there", "all"])
def test_without_both_kinds_of_sources_there_is_no_such_bias(family: list[str]):
    assert assess(pairing(one=rated()), "a judge", same_family=family).metrics["one"].family_bias is None


# Halo


def test_halo_is_how_metrics_go_together_and_own_is_a_metric_that_goes_with_its_own_most():
    people = np.array([[1, 2, 3, 4, 5], [2, 1, 4, 3, 5]])
    metrics = {"a": metric(people[0], people[0]), "b": metric(people[1], people[1])}
    found = discriminant_validity(metrics)
    between = stats.spearmanr(*people)[0]
    assert found.matrix.to_numpy().ravel() == pytest.approx([1, between, between, 1])
    assert (found.own_is_highest, found.judge_halo, found.human_halo) == (
        1,
        pytest.approx(between),
        pytest.approx(between),
    )


def test_a_metric_that_goes_with_another_as_well_as_with_its_own_is_not_told_from_it():
    same = metric([1, 2, 3, 4], [1, 2, 4, 3])
    assert discriminant_validity({"a": same, "b": same}).own_is_highest == 0


def test_metrics_with_too_little_in_common_are_left_blank():
    one, other = metric([1, 2, 3], [1, 2, 3]), metric([3, 3, 3], [1, 2, 3])
    found = discriminant_validity({"a": one, "b": other})
    assert found.matrix.loc["a"].tolist() == [1, 1] and found.matrix.loc["b"].isna().all()
    assert (found.own_is_highest, found.judge_halo) == (0, None)
    assert discriminant_validity({"a": one}) is None


def test_composites_are_no_metrics_of_the_matrix():
    found = assess(replace(pairing(a=rated(0), b=rated(1), mean=rated(2)), composites=("mean",)), "a judge")
    assert list(found.discriminant.matrix) == ["a", "b"] and "mean" in found.metrics


# Whatever there is


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_whatever_was_rated_programs_can_read_it(items: int, raters: int, highest: int, slots: bool, seed: int):
    generator = np.random.default_rng(seed)
    ratings = generator.integers(1, highest + 1, (items, raters)).astype(float)
    ratings[generator.random((items, raters)) < 0.3] = np.nan
    ratings[0, 0] = 1
    judge = generator.integers(1, highest + 1, items)
    paired = metric(judge, ratings, groups=np.arange(items) % 9, sources=np.arange(items) % 3)
    found = assess(pairing(a=paired, b=paired), "a judge", raters="slots" if slots else "people", same_family=["0"])
    read = as_programs_read(found)
    assert all(math.isfinite(v) for v in read["metrics"]["a"]["agreement"].values() if isinstance(v, float))
    assert read["metrics"]["a"]["verdict"] in ("rank", "estimate", "do not use")
