"""Plans: chances that are exact, sources and characters that get their share, and what a plan is worth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planning import hanna, panel, simulate, summary
from calibration.planning import (
    FLOOR,
    InputError,
    Plan,
    frame,
    inclusion_probabilities,
    plan,
    rated_weights,
    systematic,
)
from tests.helpers.pairs import scores

SIZES = st.lists(st.floats(0.01, 100), min_size=2, max_size=40)


def rated(items: list[str], value: object = 3.0, **more: object) -> pd.DataFrame:
    """Ratings of both metrics of some items; ``value`` is a number or numbers."""
    one = pd.DataFrame({"item_id": items, "source": [item.split("/")[0] for item in items], "annotator": "h",
                        "score": value, "group": [item.split("/")[-1] for item in items], **more})  # fmt: skip
    return pd.concat([one.assign(metric="x"), one.assign(metric="y")], ignore_index=True)


def noisy(items: list[str], spread: dict[str, float], **more: object) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return rated(items, [3 + generator.normal(0, spread[item.split("/")[0]]) for item in items], **more)


# Drawing


def test_chances_by_hand() -> None:
    assert inclusion_probabilities(np.array([1.0, 1, 2]), 2) == pytest.approx([0.5, 0.5, 1])
    assert inclusion_probabilities(np.array([1.0, 1, 8]), 2) == pytest.approx([0.5, 0.5, 1])  # 1.6 is cut to 1


@settings(max_examples=100, deadline=None)
@given(SIZES, st.data())
def test_chances_sum_to_the_budget_and_keep_the_order_of_sizes(sizes: list[float], data: st.DataObject) -> None:
    budget = data.draw(st.integers(1, len(sizes)))
    chances = inclusion_probabilities(np.array(sizes), budget)
    assert chances.sum() == pytest.approx(budget)
    assert (chances > 0).all() and (chances <= 1).all()
    assert (np.diff(chances[np.argsort(sizes)]) >= -1e-12).all()


@settings(max_examples=100, deadline=None)
@given(SIZES, st.data())
def test_a_draw_has_the_budgets_size_and_no_item_twice(sizes: list[float], data: st.DataObject) -> None:
    budget = data.draw(st.integers(1, len(sizes)))
    chances = inclusion_probabilities(np.array(sizes), budget)
    drawn = systematic(chances, np.random.default_rng(data.draw(st.integers(0, 99))))
    assert len(set(drawn)) == len(drawn) == budget
    assert set(np.flatnonzero(chances >= 1)) <= set(drawn)


def test_items_are_drawn_as_often_as_their_chances_say() -> None:
    chances = inclusion_probabilities(np.array([1.0, 2, 3, 4, 30]), 3)
    generator, draws = np.random.default_rng(0), 5_000
    counts = np.bincount(np.concatenate([systematic(chances, generator) for _ in range(draws)]), minlength=5)
    assert counts / draws == pytest.approx(chances, abs=0.025)  # over three standard errors


# A plan


def test_a_plan_has_the_budget_the_overlap_and_chances_for_all() -> None:
    table = scores({"a": 30, "b": 30, "c": 30}, characters=4)
    one = plan(table, 60)
    assert len(one.table) == 60 and one.table["item_id"].is_unique
    who = ["item_id", "source", "character", "scenario", "group"]
    assert list(one.table) == [*who, "inclusion_probability", "overlap", "raters"]
    assert one.table["overlap"].sum() == 30
    assert (one.table["raters"] == np.where(one.table["overlap"], 3, 1)).all()
    assert set(one.frame["item_id"]) == set(table["item_id"]) and (one.frame["inclusion_probability"] > 0).all()
    assert one.frame["inclusion_probability"].sum() == pytest.approx(60)
    merged = one.table.merge(one.frame, on="item_id")
    assert (merged["inclusion_probability_x"] == merged["inclusion_probability_y"]).all()


def test_the_same_seed_draws_the_same_items_and_another_others() -> None:
    table = scores({"a": 50, "b": 50})
    assert plan(table, 40, seed=1).table.equals(plan(table, 40, seed=1).table)
    assert not plan(table, 40, seed=1).table.equals(plan(table, 40, seed=2).table)


def test_sources_and_characters_get_their_share_to_within_one() -> None:
    one = plan(scores({"a": 30, "b": 60, "c": 30}, characters=5, levels=False), 90)
    assert one.table["source"].value_counts().to_dict() == {"a": 30, "b": 30, "c": 30}
    assert one.table.groupby(["source", "character"]).size().between(5, 7).all()
    assert one.table[one.table["overlap"]]["character"].value_counts().between(5, 7).all()


def test_items_of_a_plan_come_as_often_as_their_chances_say() -> None:
    table = scores({"a": 6, "b": 9})
    plans = [plan(table, 6, overlap=2, seed=seed) for seed in range(100)]
    found = pd.concat([one.table for one in plans])["item_id"].value_counts() / 100
    chances = plans[0].frame.set_index("item_id")["inclusion_probability"]
    assert (found.reindex(chances.index).fillna(0) - chances).abs().max() < 0.16  # over three standard errors
    again = pd.concat([one.table[one.table["overlap"]] for one in plans])["item_id"].value_counts() / 100
    assert (again.reindex(chances.index).fillna(0) - chances * 2 / 6).abs().max() < 0.13


def test_what_the_judge_is_unsure_of_is_likelier_but_nothing_is_unlikely() -> None:
    table = scores({"a": 100})
    one = plan(table, 40)
    doubt = pd.Series(frame(table).doubt.mean(axis=1), index=one.frame["item_id"])
    chances = one.frame.set_index("item_id")["inclusion_probability"]
    assert np.corrcoef(doubt, chances)[0, 1] > 0.8
    assert chances.min() >= FLOOR * 0.4 - 1e-9
    assert np.ptp(plan(scores({"a": 100}, levels=False), 40).frame["inclusion_probability"]) < 1e-9


# With ratings


def test_after_a_first_round_the_least_certain_source_gets_more() -> None:
    table = scores({"a": 60, "b": 60, "c": 60})
    first = plan(table, 60, overlap=0).table
    known = noisy(list(first["item_id"]), {"a": 0.2, "b": 0.2, "c": 1.5},
                  inclusion_probability=list(first["inclusion_probability"]))  # fmt: skip
    second = plan(table, 60, ratings=known)
    assert not set(second.table["item_id"]) & set(first["item_id"])
    counts = second.table["source"].value_counts()
    assert counts["c"] > 1.5 * counts[["a", "b"]].max()
    assert second.frame.loc[second.frame["rated"], "inclusion_probability"].eq(1).all()


def test_two_rounds_read_as_one_are_unbiased_and_none_counts_for_nothing() -> None:
    table = scores({"a": 40}, levels=False)
    truth = pd.Series(np.random.default_rng(3).normal(3, 1, 40), index=[f"a/c0/{n}" for n in range(40)])
    means = []
    for seed in range(50):
        first = plan(table, 10, overlap=0, seed=seed).table
        known = rated(list(first["item_id"]), list(truth[first["item_id"]]),
                      inclusion_probability=list(first["inclusion_probability"]))  # fmt: skip
        both = plan(table, 10, overlap=0, ratings=known, seed=seed + 1000).together.set_index("item_id")
        assert len(both) == 20 and both["inclusion_probability"].between(0.3, 1).all()
        means.append(np.average(truth[both.index], weights=1 / both["inclusion_probability"]))
    assert np.mean(means) == pytest.approx(truth.mean(), abs=3 * np.std(means) / np.sqrt(50))
    assert np.std(means) < 1.4 * truth.std() / np.sqrt(20) * np.sqrt(0.5)  # as of 20 of 40 items, drawn at once


def test_ratings_of_unknown_choice_count_for_themselves_alone() -> None:
    table = scores({"a": 40}, levels=False)
    one = plan(table, 30, ratings=rated([f"a/c0/{n}" for n in range(10)]))
    chances = one.together.set_index("item_id")["inclusion_probability"]
    assert (chances[[f"a/c0/{n}" for n in range(10)]] == 1).all() and len(chances) == 40


def test_weights_of_earlier_ratings_speak_for_all_items() -> None:
    items = frame(scores({"a": 10}), rated(["a/c0/0", "a/c0/1"], inclusion_probability=0.2))
    assert rated_weights(items, np.zeros(10)).sum() == pytest.approx(10)
    assert rated_weights(items, np.full(10, 0.5))[:3] == pytest.approx([0.5 * 5 + 0.5, 3.0, 0.0])


# What to expect


def test_expected_widths_shrink_and_say_what_they_rest_on() -> None:
    table = scores({"a": 60, "b": 60})
    nobody = plan(table, 60).expected
    assert list(nobody) == ["metric", "source", "before", "after", "labelled", "labelled_after", "basis"]
    assert len(nobody) == 4 and nobody["before"].isna().all() and nobody["after"].notna().all()
    assert nobody["basis"].str.startswith("the judge's uncertainty").all()
    known = noisy([f"{s}/c0/{n}" for s in "ab" for n in range(20)], {"a": 1.0, "b": 1.0}, inclusion_probability=1 / 3)
    some = plan(table, 60, ratings=known).expected
    assert (some["after"] < 0.75 * some["before"]).all() and (some["basis"] == "ratings so far").all()
    assert (some["labelled"] == 20).all() and some["labelled_after"].sum() == pytest.approx(2 * 100)
    assert (some["before"] - 2.093 / np.sqrt(20)).abs().max() < 0.2  # t of 19 degrees of freedom, SD about 1
    assert "spread" in plan(scores({"a": 60}, levels=False), 40).expected["basis"].iloc[0]


def test_rating_everything_leaves_only_the_scenarios() -> None:
    one = plan(scores({"a": 50}), 50)
    assert (one.frame["inclusion_probability"] == 1).all() and len(one.table) == 50


# What cannot be planned


@pytest.mark.parametrize(("budget", "options", "message"), [
    (81, {}, "more than the 80 items left to rate; give at most 80"),
    (20, {}, "holds no overlap of 30 items; raise it, or lower the overlap"),
    (0, {"overlap": 0}, "give at least 1"),
    (40, {"overlap": -1}, "holds no overlap of -1"),
    (40, {"raters_per_overlap": 1}, "rated by 1 people shows no agreement"),
    (75, {"ratings": rated([f"a/c0/{n}" for n in range(10)])}, "more than the 70 items left to rate"),
])  # fmt: skip
def test_refusals_are_one_line(budget: int, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        plan(scores({"a": 40, "b": 40}), budget, **options)
    assert "\n" not in str(error.value)


def test_several_judges_are_refused() -> None:
    table = scores({"a": 40})
    with pytest.raises(InputError, match=r"several judges \(j, k\)"):
        plan(pd.concat([table.assign(judge="j"), table.assign(judge="k")]), 40)


def remarks(one: Plan) -> str:
    return " ".join(one.remarks)


def test_remarks_say_what_to_mind() -> None:
    plain = remarks(plan(scores({"a": 40, "b": 4}, levels=False), 34))
    assert "34 items are 94 ratings of each metric" in plain and "Keep inclusion_probability" in plain
    assert "Scores without probabilities" in plain and "rest on the judge alone" in plain
    assert "Under 8 groups will have labels of b" in plain
    assert "little of how far people agree" in remarks(plan(scores({"a": 40}), 20, overlap=5))
    assert "10 items are rated already" in remarks(
        plan(scores({"a": 50}), 30, ratings=rated([f"a/c0/{n}" for n in range(10)]))
    )


def test_scores_that_are_all_alike_can_be_planned() -> None:
    table = scores({"a": 30, "b": 30}, levels=False).assign(score=3.0)
    one = plan(table, 30)
    assert one.table["source"].value_counts().to_dict() == {"a": 15, "b": 15}
    assert (one.expected["after"] == 0).all()


def test_a_missing_judgment_leaves_an_item_in_and_an_unjudged_one_out() -> None:
    table = scores({"a": 40})
    table.loc[table["item_id"].eq("a/c0/0") & table["metric"].eq("x"), ["score", "p1", "p2", "p3", "p4", "p5"]] = np.nan
    table.loc[table["item_id"].eq("a/c0/1"), ["score", "p1", "p2", "p3", "p4", "p5"]] = np.nan
    one = plan(table, 39)
    assert set(one.table["item_id"]) == {f"a/c0/{n}" for n in range(40) if n != 1}
    assert one.expected["after"].notna().all()


# What a plan is worth, where the truth is known


def test_on_hanna_weights_are_needed_and_the_widest_interval_narrows(shared_data: Path) -> None:
    ratings, judged = hanna(shared_data / "human" / "hanna")
    ratings, judged = (table[table["metric"] == "surprise"] for table in (ratings, judged))
    ways = ["simple random", "plan", "plan by a leaning judge"]
    found = summary(simulate(ratings, panel(judged), 200, 20, ways))
    assert found.loc["plan", "widest_median"] < 0.97 * found.loc["simple random", "widest_median"]
    for way in ways:
        assert abs(found.loc[way, "bias"]) < 0.03 and found.loc[way, "coverage"] > 0.93  # three standard errors
    assert found.loc["plan by a leaning judge, weights left out", "bias"] > 0.035
