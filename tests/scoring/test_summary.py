"""Scores and leaderboard from judgments, against numbers worked out by hand."""

import io

import numpy as np
import pandas as pd
import pytest

from judge.scoring.summary import diversity_table, mean_interval, scores_table, summarise
from judge.types import OVERALL
from tests.helpers.chatanime import METRICS, SCHEME


def judgments(cells: list[tuple[str, str, str, float | None]], metrics: tuple[str, ...] = METRICS) -> pd.DataFrame:
    """The same score on every metric for (source, character, scenario, score)."""
    rows = [
        {"judge": "J", "source": s, "character": c, "scenario": n, "metric": metric, "score": score}
        for s, c, n, score in cells
        for metric in metrics
    ]
    return pd.DataFrame(rows)


def test_the_interval_is_students_over_groups() -> None:
    mean, low, high = mean_interval(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9]))
    half = 2.306004 * np.sqrt(7.5) / 3  # t of 8 degrees of freedom; variance 60 / 8
    assert (mean, low, high) == (5.0, pytest.approx(5 - half), pytest.approx(5 + half))


def test_seven_groups_give_no_interval_and_none_no_mean() -> None:
    assert mean_interval(np.arange(7.0)) == (3.0, None, None)
    assert mean_interval(np.array([])) == (None, None, None)


def test_eight_groups_give_an_interval() -> None:
    half = 2.364624 * np.sqrt(6 / 8)  # t of 7 degrees of freedom; variance 42 / 7
    assert mean_interval(np.arange(8.0)) == (3.5, pytest.approx(3.5 - half), pytest.approx(3.5 + half))


def test_equal_groups_give_no_interval_of_no_width() -> None:
    assert mean_interval(np.full(12, 3.1))[1:] == (None, None)


def test_dimensions_and_overall_are_means_of_their_metrics() -> None:
    table = judgments([("a", "c", "1", 3.0)])
    table.loc[table["metric"] == "fluency", "score"] = 4.5
    row = scores_table(table, SCHEME, METRICS).iloc[0]
    assert row["fluency"] == 4.5
    assert row["basic_dialogue"] == pytest.approx(3.5)
    assert row["role_playing"] == 3.0
    assert row[OVERALL] == pytest.approx(28.5 / 9)


def test_a_missing_metric_leaves_its_dimension_and_overall_missing_and_the_others_alone() -> None:
    table = judgments([("a", "c", "1", 3.0)])
    table.loc[table["metric"] == "fluency", "score"] = np.nan
    row = scores_table(table, SCHEME, METRICS).iloc[0]
    assert row[["fluency", "basic_dialogue", OVERALL]].isna().all()
    assert row["role_playing"] == 3.0


def test_only_whole_dimensions_are_averaged() -> None:
    assert SCHEME.columns(("speech_style", "coherency", "fluency", "consistency")) == [
        "fluency", "coherency", "consistency", "speech_style", "basic_dialogue",
    ]  # fmt: skip


def test_the_leaderboard_averages_scenarios_not_dialogues() -> None:
    cells = [("a", "c1", "1", 1.0), ("a", "c2", "1", 2.0), ("a", "c3", "1", 3.0), ("a", "c1", "2", 5.0)]
    board = summarise([judgments(cells)], SCHEME, METRICS, io.StringIO()).set_index("metric")
    assert board.loc["fluency", "mean"] == 3.5
    assert (board.loc["fluency", "n"], board.loc["fluency", "scenarios"]) == (4, 2)
    assert board["low"].isna().all() and board["high"].isna().all()
    assert set(board["target"]) == {"judge mean"}


def test_missing_judgments_are_counted_and_never_averaged() -> None:
    cells = [("a", "c", str(n), None if n == 0 else 2.0) for n in range(9)]
    board = summarise([judgments(cells)], SCHEME, METRICS, io.StringIO()).set_index("metric")
    assert tuple(board.loc["fluency", ["mean", "n", "missing", "scenarios"]]) == (2.0, 8, 1, 8)


def test_parts_make_the_same_tables_as_the_whole() -> None:
    rng = np.random.default_rng(0)
    cells = [(s, c, str(n), float(rng.uniform(1, 5))) for s in "ab" for c in "xy" for n in range(10)]
    whole, parted = io.StringIO(), io.StringIO()
    board = summarise([judgments(cells)], SCHEME, METRICS, whole)
    other = summarise([judgments(cells[i : i + 7]) for i in range(0, 40, 7)], SCHEME, METRICS, parted)
    assert whole.getvalue() == parted.getvalue()
    pd.testing.assert_frame_equal(board, other)
    assert len(whole.getvalue().splitlines()) == 41


def test_a_sources_diversity_is_the_mean_over_its_characters() -> None:
    rows = [
        {"judge": "J", "source": "a", "character": c, "dialogues": 12, "distinct_2": d, "self_bleu": 0.5,
         "compression_ratio": 2.0, "score": s, "mass": 1.0, "error": None}
        for c, d, s in [("x", 0.4, 2.0), ("y", 0.6, None)]
    ]  # fmt: skip
    table = diversity_table([pd.DataFrame(rows)], "response_diversity")
    source = table[table["level"] == "source"].iloc[0]
    assert (source["dialogues"], source["distinct_2"], source["response_diversity"]) == (24, 0.5, 2.0)
    assert list(table["level"]) == ["character", "character", "source"]
