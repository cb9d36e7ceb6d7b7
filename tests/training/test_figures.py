"""What base and trained judge reach beside people: by hand, and through the command."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from calibration import Pairing, pair
from calibration.stats.intervals import Estimate
from judge.training.figures import ALL, JUDGES, SCENARIOS, SYSTEM, Figure, figures_of
from judge.training.tables import gain, tables_of

LABELS = [f"i{n}" for n in range(40)]


def table(seed: int, noise: float, metrics: tuple[str, ...] = ("fit", "care")) -> pd.DataFrame:
    """Scores that follow the truth of an item with some noise."""
    draw = np.random.default_rng(seed)
    rows = [
        {"item_id": item, "metric": metric, "source": f"s{n % 2}", "group": f"g{n // 2}", "judge": str(seed),
         "score": float(np.clip(1 + n / 10 + noise * draw.normal(), 1, 5))}
        for metric in metrics for n, item in enumerate(LABELS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def judges() -> dict[str, Pairing]:
    people = pd.concat([table(seed, 0.3).assign(annotator=f"a{seed}") for seed in (1, 2, 3)]).drop(columns="judge")
    scale = {"fit": (1, 5), "care": (1, 5)}
    return {"base": pair(people, table(7, 5.0), scale=scale), "trained": pair(people, table(8, 0.5), scale=scale)}


@pytest.fixture(scope="module")
def rows(judges: dict[str, Pairing]) -> list[Figure]:
    return figures_of(judges, judges["base"], SCENARIOS, LABELS[20:], seed=0)


def test_each_judge_is_measured_on_the_chosen_dialogues_alone(rows: list[Figure]) -> None:
    fit, care, both = rows
    assert [one.metric for one in rows] == ["fit", "care", ALL]
    assert {(one.dialogues, one.groups) for one in rows} == {(20, 10)}
    people = [table(seed, 0.3).query("metric == 'fit'")["score"].to_numpy()[20:] for seed in (1, 2, 3)]
    own = table(8, 0.5).query("metric == 'fit'")["score"].to_numpy()[20:]
    mean = np.mean(people, axis=0)
    by_hand = pd.Series(own).corr(pd.Series(mean), method="spearman")
    assert fit.spearman["trained"] == pytest.approx(by_hand)
    assert fit.errors["trained"] == pytest.approx(np.abs(own - mean).mean())
    assert fit.means["annotators"] == pytest.approx(mean.mean())
    ceiling = [pd.Series(people[i]).corr(pd.Series(np.mean(people[:i] + people[i + 1 :], axis=0)), "spearman") for i in range(3)]  # fmt: skip  # noqa: E501
    assert fit.ceiling.value == pytest.approx(np.mean(ceiling))
    assert fit.spearman["calibrated base"] is None and fit.spearman.keys() == set(JUDGES)
    assert both.spearman["trained"] == pytest.approx((fit.spearman["trained"] + care.spearman["trained"]) / 2)


def test_a_judgment_that_one_judge_lacks_is_left_out_of_all(judges: dict[str, Pairing]) -> None:
    lacking = judges["trained"].metrics["fit"]
    scores = lacking.judge.copy()
    scores[-1] = np.nan
    some = {**judges, "trained": replace(judges["trained"], metrics={"fit": lacking.judged_by(scores)})}
    (fit,) = (one for one in figures_of(some, judges["base"], SCENARIOS, LABELS[20:], seed=0) if one.metric == "fit")
    assert fit.dialogues == 19 and fit.gains["base"].value is not None


def test_the_gain_has_a_paired_interval_also_over_all_metrics(rows: list[Figure]) -> None:
    fit, care, both = (one.gains["base"] for one in rows)
    assert fit.value == pytest.approx(rows[0].spearman["trained"] - rows[0].spearman["base"])
    assert both.value == pytest.approx((fit.value + care.value) / 2)
    assert 0 < both.low < both.value < both.high
    assert both.high - both.low < max(fit.high - fit.low, care.high - care.low)


def test_the_constant_is_the_mean_of_what_was_learned_from(rows: list[Figure]) -> None:
    # The whole table was learned from here: its mean is 2.95, and that of the second half about 4.
    assert rows[0].errors["constant"] == pytest.approx(1.0, abs=0.15) and "constant" not in rows[0].means


def test_tables_say_what_they_are_about_and_hold_every_figure(rows: list[Figure]) -> None:
    (agreement, errors) = tables_of(rows, None)
    assert "held-out scenarios and characters: 20 dialogues, 10 scenarios" in agreement.title
    assert agreement.heads[-2:] == ("trained − base", "trained − calibrated base")
    assert agreement.rows[0][-2].startswith("+") and agreement.rows[0][-1] == "–"
    assert errors.heads[-1] == "constant" and len(errors.rows) == 3
    of_system = [Figure(**{**asdict(one), "about": SYSTEM, "ceiling": one.ceiling, "gains": one.gains}) for one in rows]
    titles = [one.title for one in tables_of([*of_system, *rows], "GPT")]
    assert titles[0] == "Mean score of the system left out, GPT" and len(titles) == 5


def test_a_mean_says_of_how_many_metrics_it_is_where_it_is_not_of_all(rows: list[Figure]) -> None:
    fit, care, both = rows
    without = replace(care, spearman={**care.spearman, "base": None}, gains={"base": Estimate(None, reason="constant")})
    of = {**both.spearman, "base": 0.5}
    (agreement, _) = tables_of([fit, without, replace(both, spearman=of)], None)
    last = dict(zip(agreement.heads, agreement.rows[-1], strict=True))
    assert last["base"] == "0.50 [1 of 2]" and last["trained − base"].endswith(" [1 of 2]")
    assert last["calibrated base"] == "–" and "of" not in last["trained"]


def test_a_gain_is_shown_with_its_sign_and_its_interval() -> None:
    assert gain(Estimate(0.125, -0.5, 0.75)) == "+0.12 (-0.50 to +0.75)"
    assert gain(Estimate(-0.125)) == "-0.12" and gain(Estimate(None, reason="x")) == gain(None) == "–"


def test_figures_are_json(rows: list[Figure]) -> None:
    assert json.loads(json.dumps([asdict(one) for one in rows], allow_nan=False))[0]["metric"] == "fit"
