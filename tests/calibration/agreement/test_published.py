"""A judge's system means beside published ones: which pairs are decided, and how probable their order is."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import agreement_with_published, chatanime_means


def published(*means: float, tolerance: float = 0.0, metric: str = "m") -> pd.DataFrame:
    sources = [f"s{n}" for n in range(len(means))]
    return pd.DataFrame({"source": sources, "metric": metric, "mean": means, "tolerance": tolerance})


def row(judge: list[float], figures: pd.DataFrame) -> dict:
    means = figures[["source", "metric"]].assign(mean=judge)
    (found,) = agreement_with_published(means, figures).to_dict("records")
    return found


@pytest.mark.parametrize(
    ("judge", "alike", "p_value"),
    [
        ([2, 3, 4], 3, 1 / 6),
        ([2, 4, 3], 2, 3 / 6),  # as well or better: the order itself, and two with one pair turned round
        ([4, 3, 2], 0, 1),
        ([2, 2, 3], 2.5, 2 / 6),  # the tie is half; better is none, as good are two permutations
    ],
    ids=["in order", "one pair turned", "turned round", "a tie"],
)
def test_three_sources_by_hand(judge: list[float], alike: float, p_value: float):
    found = row(judge, published(1, 2, 3))
    assert (found["sources"], found["pairs"], found["decided"]) == (3, 3, 3)
    assert (found["alike"], found["accuracy"]) == (alike, alike / 3)
    assert found["p_value"] == pytest.approx(p_value)


def test_pairs_within_the_tolerance_of_both_are_not_decided():
    """3.00 and 3.04 may be the same, read to .02 each; 3.00 and 3.05 may not."""
    found = row([1, 2, 3], published(3.00, 3.04, 3.05, tolerance=0.02))
    assert (found["decided"], found["alike"]) == (1, 1)
    assert found["p_value"] == pytest.approx(1 / 2)


def test_without_a_decided_pair_nothing_is_said_of_order():
    found = row([1, 2, 3], published(3.0, 3.01, 3.02, tolerance=0.02))
    assert found["decided"] == 0 and math.isnan(found["accuracy"]) and math.isnan(found["p_value"])
    assert found["spearman"] == pytest.approx(1)


def test_a_judge_that_gives_all_the_same_has_half_and_no_p_value():
    found = row([3, 3, 3], published(1, 2, 3))
    assert found["alike"] == 1.5 and math.isnan(found["p_value"]) and math.isnan(found["spearman"])


def test_eight_sources_have_a_p_value():
    assert row(list(range(8)), published(*range(8)))["p_value"] == pytest.approx(1 / math.factorial(8))


def test_more_than_eight_sources_have_no_p_value():
    assert math.isnan(row(list(range(9)), published(*range(9)))["p_value"])


def test_sources_without_a_mean_are_left_out_and_under_three_are_no_row():
    figures = published(1, 2, 3, 4)
    assert row([1, np.nan, 2, 3], figures)["sources"] == 3
    assert agreement_with_published(figures[["source", "metric"]].assign(mean=[1, np.nan, np.nan, 3]), figures).empty


def test_other_sources_and_metrics_of_the_judge_are_passed_over():
    means = pd.concat([published(1, 2, 3), published(9, 8, 7, metric="other"), published(1, 2, 3, 4).iloc[3:]])
    (found,) = agreement_with_published(means, published(1, 2, 3)).to_dict("records")
    assert (found["metric"], found["sources"], found["alike"]) == ("m", 3, 3)


@settings(max_examples=30, deadline=None)
@given(st.permutations([1.0, 2.0, 3.0, 4.0]), st.permutations([1.0, 2.0, 3.0, 4.0]))
def test_a_judges_scale_and_the_names_of_sources_are_no_matter(judge: list[float], human: list[float]):
    one = row(judge, published(*human))
    assert row([3 * mean - 7 for mean in judge], published(*human)) == pytest.approx(one)
    assert row(judge[::-1], published(*human[::-1])) == pytest.approx(one)
    assert 1 / 24 <= one["p_value"] <= 1


# The packaged figures


def test_the_packaged_figures_are_six_sources_on_ten_metrics():
    means = chatanime_means()
    assert list(means) == ["source", "metric", "mean", "tolerance"]
    assert means.groupby("metric")["source"].nunique().to_dict() == dict.fromkeys(set(means["metric"]), 6)
    assert means["metric"].nunique() == 10
    rated = means[means["metric"] != "response_diversity"]
    assert rated["mean"].between(1, 5).all() and (means["tolerance"] > 0).all()


def test_by_reading_error_alone_few_pairs_can_be_decided():
    figures = chatanime_means()
    found = agreement_with_published(figures.drop(columns="tolerance"), figures).set_index("metric")
    assert set(found["pairs"]) == {15}
    assert found.loc["consistency", "decided"] == 5 and found.loc["demand_matching", "decided"] == 9
    assert (found["accuracy"] == 1).all() and found["spearman"].to_list() == pytest.approx([1] * 10)


def test_the_packaged_figures_are_those_that_were_read_off(shared_data):
    path = shared_data / "chatanime_published_means.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    read = pd.read_csv(path).rename(columns={"value": "mean"})[["source", "metric", "mean", "tolerance"]]
    key = ["source", "metric"]
    packaged = chatanime_means().sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(packaged, read.sort_values(key, ignore_index=True))
