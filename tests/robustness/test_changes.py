"""Scores before and after a change: the means are those worked out by hand, and what is missing stays missing."""

import numpy as np
import pandas as pd
import pytest

from calibration.stats.intervals import clustered_mean
from judge import mean_changes, score_changes


def table(scores: list[float | None], **columns: object) -> pd.DataFrame:
    items = [f"i{i}" for i in range(len(scores))]
    return pd.DataFrame({"item_id": items, "group": items, "metric": "m", "score": scores} | columns)


def test_the_mean_change_and_its_shares_are_those_worked_out_by_hand() -> None:
    before = table([1.0, 2.0, 4.75, 4.0], mass=[1.0, 0.9, 0.8, 1.0])
    after = table([2.0, 1.0, 5.0, 4.5], mass=[1.0, 0.7, 0.8, 0.8], family="f", top=5)
    row = mean_changes(score_changes(before, after), ["family", "metric"]).iloc[0]
    assert row["change"] == pytest.approx((1 - 1 + 0.25 + 0.5) / 4)
    assert (row["n"], row["groups"], row["missing"]) == (4, 4, 0)
    assert (row["raised"], row["lowered"]) == (0.25, 0.25)
    assert row["to_top"] == pytest.approx(1 / 3)  # of the three that were under 4.5
    assert row["mass_change"] == pytest.approx(-0.1)
    assert row["low"] is None and row["high"] is None  # four groups are too few


def test_a_missing_score_is_counted_and_no_number() -> None:
    found = mean_changes(score_changes(table([None, 2.0, 3.0]), table([5.0, None, 3.5])), ["metric"]).iloc[0]
    assert (found["n"], found["missing"], found["change"]) == (1, 2, 0.5)
    nothing = mean_changes(score_changes(table([None]), table([5.0])), ["metric"]).iloc[0]
    assert (nothing["n"], nothing["missing"]) == (0, 1)
    assert pd.isna(nothing["change"]) and pd.isna(nothing["raised"]) and pd.isna(nothing["to_top"])


def test_an_item_that_was_not_judged_before_has_no_change() -> None:
    assert score_changes(table([1.0]), table([2.0, 3.0]))["change"].isna().tolist() == [False, True]


def test_many_rewrites_of_an_item_are_one_group() -> None:
    generator = np.random.default_rng(0)
    before = table(list(generator.uniform(1, 5, 12)))
    once = table(list(generator.uniform(1, 5, 12)), family="f")
    twice = pd.concat([once.assign(rewrite="a"), once.assign(rewrite="b")])
    (one, both) = (mean_changes(score_changes(before, rows), ["family"]).iloc[0] for rows in (once, twice))
    assert one["low"] < one["change"] < one["high"]
    assert both[["change", "low", "high"]].tolist() == pytest.approx(one[["change", "low", "high"]].tolist())
    expected = clustered_mean((once["score"] - before["score"]).to_numpy(), once["group"].to_numpy(object))
    assert (one["low"], one["high"]) == (expected.low, expected.high)


def test_rows_come_in_the_order_of_the_table_and_without_any_the_columns_stay() -> None:
    after = pd.concat([table([1.0], family="z"), table([1.0], family="a")])
    found = mean_changes(score_changes(table([1.0]), after), ["family", "metric"])
    assert found["family"].tolist() == ["z", "a"] and (found["change"] == 0).all()
    none = mean_changes(score_changes(table([1.0]), after.iloc[:0]), ["family", "metric"])
    assert none.empty and none.columns.tolist() == found.columns.tolist()


def test_two_judgments_before_of_one_item_are_refused() -> None:
    with pytest.raises(ValueError, match="many-to-one"):
        score_changes(pd.concat([table([1.0])] * 2), table([1.0]))
