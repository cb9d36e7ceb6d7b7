"""What probes say: areas under curves by hand and by scikit-learn, controls, and judges that see or do not."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t
from sklearn.metrics import roc_auc_score

from judge import ProbeAssessment, assess_probes
from judge.data.dialogues import example_dialogues
from judge.robustness import probe_analysis as controls
from judge.robustness import probe_analysis as words
from judge.robustness.degradations import DEGRADATIONS, STRENGTHS, Others, degrade
from judge.robustness.probe_analysis import auc, in_order, share_lower
from judge.types import Dialogue
from tests.helpers.chatanime import METRICS

AIMS = {name: degradation.metric for name, degradation in DEGRADATIONS.items()}
BAG = "a bag of characters"
GENERATOR = np.random.default_rng(7)


def labels(*names: object) -> np.ndarray:
    return np.array([str(name) for name in names], dtype=object)


def test_the_auc_is_that_of_hand_and_of_scikit_learn() -> None:
    clean, degraded = np.array([3.0, 2.0, 5.0]), np.array([1.0, 2.0, 4.0])
    # over: 3 > 1, 3 > 2; 2 > 1, 2 = 2; 5 > 1, 5 > 2, 5 > 4: 6 and a half of 9
    assert auc(clean, degraded, labels(1, 2, 3)).value == pytest.approx(6.5 / 9)
    for _ in range(20):
        a, b = GENERATOR.integers(1, 6, (2, 30)).astype(float)
        expected = roc_auc_score(np.repeat([1, 0], 30), np.concatenate([a, b]))
        assert auc(a, b, labels(*range(30))).value == pytest.approx(expected)


def test_its_interval_is_that_of_placement_values_summed_within_groups() -> None:
    clean, degraded = GENERATOR.normal(0.8, 1, 40), GENERATOR.normal(0, 1, 40)
    groups = labels(*(n % 10 for n in range(40)))
    found = auc(clean, degraded, groups)
    over = (clean[:, None] > degraded).astype(float)
    influence = (over.mean(axis=1) - over.mean() + over.mean(axis=0) - over.mean()) / 40
    sums = np.array([influence[groups == group].sum() for group in sorted(set(groups))])
    half = student_t.ppf(0.975, 9) * math.sqrt((sums**2).sum() * 10 / 9)
    assert found.low == pytest.approx(over.mean() - half) and found.high == pytest.approx(over.mean() + half)


def test_an_interval_needs_eight_groups_and_stays_within_0_and_1() -> None:
    high, low = np.arange(10.0, 18), np.append(np.arange(7.0), 10.5)
    found = auc(high, low, labels(*range(8)))
    assert found.low is not None and 0.9 < found.low < 1 and found.high == 1
    assert auc(high[:7], low[:7], labels(*range(7))).low is None
    nothing = auc(np.array([]), np.array([]), labels())
    assert nothing.value is None and nothing.reason


def test_shares_are_fractions_of_items() -> None:
    clean, degraded = np.array([3.0, 3.0, 2.0, 1.0]), np.array([1.0, 2.0, 2.0, 4.0])
    assert share_lower(clean, degraded, labels(1, 2, 3, 4)).value == pytest.approx(2.5 / 4)
    scores = np.array([[3.0, 2, 1], [3, 3, 1], [1, 2, 3], [5, 3, 2]])
    assert in_order(scores, labels(1, 2, 3, 4)).value == pytest.approx(2 / 4)


def test_length_counts_characters_in_whichever_direction_tells_more() -> None:
    groups = labels(1, 2)
    assert controls.length(["一二三", "一二三四"], ["一", "一二三"], groups).value == pytest.approx(3.5 / 4)
    assert controls.length(["一", "一二三"], ["一二三", "一二三四"], groups).value == pytest.approx(3.5 / 4)
    assert controls.length(["一二", "三"], ["三四", "一"], groups).value == 0.5


def test_a_bag_of_characters_learns_what_other_groups_show_and_nothing_else() -> None:
    clean = [f"我懂你{'好' * (n % 3)}" for n in range(12)]
    groups = labels(*(n % 6 for n in range(12)))
    assert controls.bag_of_characters(clean, [f"{text}坏" for text in clean], groups).value == 1
    own = "甲乙丙丁戊己"  # a mark that no other group has
    marked = [f"{text}{own[n % 6]}" for n, text in enumerate(clean)]
    assert controls.bag_of_characters(clean, marked, groups).value == pytest.approx(0.5)
    turned = [text[::-1] for text in clean]
    assert controls.bag_of_characters(clean, turned, groups).value == 0.5
    assert controls.bag_of_characters(clean, marked, labels(*[1] * 12)).reason


def test_its_folds_are_whole_groups_as_by_hand() -> None:
    """Two groups: each is scored by what the other shows; 坏 marks in one and 好 in the other, so both are fooled."""
    clean, degraded = ["好", "坏"], ["坏", "好"]
    assert controls.bag_of_characters(clean, degraded, labels(1, 2)).value == 0


@pytest.mark.parametrize("control", ["random", "permuted"])
def test_what_cannot_tell_has_an_auc_of_a_half_within_its_interval(control: str) -> None:
    groups = labels(*(n % 20 for n in range(60)))
    clean, degraded = GENERATOR.normal(3, 1, 60), GENERATOR.normal(1, 1, 60)
    held, values = 0, []
    for _ in range(300):
        if control == "random":
            found = controls.random(groups, GENERATOR)
        else:
            found = controls.permuted(clean, degraded, groups, GENERATOR)
        assert found.value is not None and found.low is not None and found.high is not None
        values.append(found.value)
        held += found.low <= 0.5 <= found.high
    assert abs(np.mean(values) - 0.5) < 0.02
    assert 0.9 < held / 300 < 0.99


def verdict_of(**numbers: float | None) -> dict[str, object]:
    row: dict[str, object] = {"auc": 0.9, "auc_low": 0.8, "auc_high": 0.95, "length_auc": 0.5, "bag_auc": 0.5}
    row |= {"reason": "under 8 groups", **numbers}
    row["verdict"] = words.verdict(row)
    return {**row, "remark": words.remark(row)}


@pytest.mark.parametrize(
    ("numbers", "verdict", "remark"),
    [
        ({}, "noticed", "noticed (AUC .90; length alone: AUC .50)"),
        ({"length_auc": 0.97}, "proves nothing", "length alone: AUC .97, so this proves nothing"),
        ({"bag_auc": 1.0}, "proves nothing", f"{BAG} alone: AUC 1.00, so this proves nothing"),
        ({"auc": 0.75, "auc_low": 0.6, "bag_auc": 0.7}, "as surface", f"cannot be told from {BAG} (AUC .70)"),
        ({"auc": 0.75, "auc_low": 0.6, "bag_auc": None}, "noticed", "noticed (AUC .75; length alone: AUC .50)"),
        ({"auc": 0.55, "auc_low": 0.45}, "not noticed", "not noticed (AUC .55)"),
        ({"auc": 0.55, "auc_low": 0.45, "bag_auc": 0.9}, "not noticed", f"not noticed (AUC .55; {BAG} alone: AUC .90)"),
        ({"auc": 0.5, "auc_low": 0.5, "auc_high": 0.5}, "not noticed", "not noticed (AUC .50)"),
        ({"auc": 0.3, "auc_low": 0.2, "auc_high": 0.4}, "rated higher", "rated higher than the clean ones (AUC .30)"),
        ({"auc_low": None, "auc_high": None}, "cannot be said", "nothing can be said: under 8 groups"),
    ],
)  # fmt: skip
def test_a_verdict_rests_on_the_interval_and_on_the_controls(
    numbers: dict[str, float | None], verdict: str, remark: str
) -> None:
    found = verdict_of(**numbers)
    assert (found["verdict"], found["remark"]) == (verdict, remark)


def test_a_sentence_says_what_is_noticed_from_where_on_and_what_is_not() -> None:
    missed, seen, surface = verdict_of(auc_low=0.4), verdict_of(), verdict_of(bag_auc=0.9)
    rows = [
        {**found, "degradation": name, "strength": strength}
        for name, three in {"cut": (missed, seen, seen), "late": (seen, missed, seen), "loud": (surface,) * 3}.items()
        for strength, found in zip(STRENGTHS, three, strict=True)
    ]
    assert words.sentence("fluency", rows, STRENGTHS) == (
        "fluency: notices cut (from medium on), late; loud: a bag of characters alone: AUC .90, so this proves nothing."
    )
    assert words.sentence("fluency", [], STRENGTHS) == "fluency: no degradation applies to these items."


@pytest.fixture(scope="module")
def forms() -> list[tuple[str, str, Dialogue, Dialogue]]:
    """Degradation, strength, original and form; of all dialogues of the example, also as they are."""
    dialogues = example_dialogues()
    found = [("", "", one, one) for one in dialogues]
    for one in dialogues:
        role = tuple(d for d in dialogues if (d.source, d.character) == (one.source, one.character) and d != one)
        scene = tuple(d for d in dialogues if (d.source, d.scenario) == (one.source, one.scenario) and d != one)
        for name in DEGRADATIONS:
            three = degrade(one, name, Others(role, scene))
            found += [(name, strength, one, form) for strength, form in zip(STRENGTHS, three, strict=False)]
    return found


def assessed(forms: list[tuple[str, str, Dialogue, Dialogue]], scores: np.ndarray) -> ProbeAssessment:
    """Scores of shape (forms, metrics)."""
    names = [{"degradation": d, "strength": s, "item_id": one.id, "group": one.scenario} for d, s, one, _ in forms]
    judgments = [
        {**name, "metric": metric, "score": score}
        for name, row in zip(names, scores, strict=True)
        for metric, score in zip(METRICS, row, strict=True)
    ]
    texts = ["\n".join(turn.character for turn in form.turns) for *_, form in forms]
    table = pd.DataFrame(names).assign(text=texts)
    return assess_probes(pd.DataFrame(judgments), table, AIMS, STRENGTHS)


def seeing(degradation: str, strength: str) -> list[float]:
    """Four, less one for each strength on the metric that the degradation is aimed at."""
    return [4.0 - (AIMS.get(degradation) == metric) * (1 + STRENGTHS.index(strength or "mild")) for metric in METRICS]


@pytest.fixture(scope="module")
def seen(forms: list[tuple[str, str, Dialogue, Dialogue]]) -> ProbeAssessment:
    return assessed(forms, np.array([seeing(name, strength) for name, strength, *_ in forms]))


def test_a_judge_that_sees_has_the_diagonal_and_nothing_else(seen: ProbeAssessment) -> None:
    aimed = seen.matrix["degradation"].map(AIMS) == seen.matrix["metric"]
    assert (seen.matrix.loc[aimed, "auc"] == 1).all() and (seen.matrix.loc[~aimed, "auc"] == 0.5).all()
    assert (seen.matrix.loc[~aimed, "drop"] == 0).all()
    planted = seen.rows["strength"].map(lambda strength: 1.0 + STRENGTHS.index(strength))
    assert seen.rows["drop"].tolist() == seen.rows["specific"].tolist() == planted.tolist()
    assert (seen.rows[["auc", "lower"]] == 1).all(axis=None)
    assert (seen.orders.dropna()["in_order"] == 1).all() and seen.orders.dropna()["means_in_order"].all()


def test_what_surface_gives_away_proves_nothing_even_for_a_judge_that_sees(seen: ProbeAssessment) -> None:
    rows = seen.rows.set_index(["degradation", "strength"])
    assert rows.loc[("markup", "strong"), "verdict"] == "proves nothing"
    assert rows.loc[("shuffled", "strong"), ["verdict", "length_auc", "bag_auc"]].tolist() == ["noticed", 0.5, 0.5]
    known = rows[rows["auc_low"].notna()]
    passing = known[["length_auc", "bag_auc"]].max(axis=1) >= words.PASSING
    assert 0 < passing.sum() < len(passing) and ((known["verdict"] == "proves nothing") == passing).all()
    assert (rows.loc[rows["auc_low"].isna(), "verdict"] == "cannot be said").all()
    fluency = next(sentence for sentence in seen.sentences if sentence.startswith("fluency"))
    assert "shuffled (from mild on)" in fluency and "so this proves nothing" in fluency


def test_a_random_judge_notices_nothing(forms: list[tuple[str, str, Dialogue, Dialogue]]) -> None:
    found = assessed(forms, np.random.default_rng(3).uniform(1, 5, (len(forms), len(METRICS))))
    assert abs(found.matrix["auc"].mean() - 0.5) < 0.02
    known = found.rows.dropna(subset="auc_low")
    assert ((known["auc_low"] <= 0.5) & (known["auc_high"] >= 0.5)).mean() > 0.85
    assert abs(found.orders["in_order"].mean() - 1 / 6) < 0.05
    assert abs(known["specific"].mean()) < 0.1


def test_numbers_by_hand() -> None:
    """Two items, one of them without a judgment of one metric after."""
    rows = [
        *itertools.product([("", "", "a"), ("", "", "b")], [("fluency", 4.0), ("coherency", 3.0)]),
        (("cut", "mild", "a"), ("fluency", 1.0)),
        (("cut", "mild", "a"), ("coherency", 2.0)),
        (("cut", "mild", "b"), ("fluency", 3.0)),
        (("cut", "mild", "b"), ("coherency", math.nan)),
    ]
    names = ["degradation", "strength", "item_id", "metric", "score"]
    judgments = pd.DataFrame([(*form, *cell) for form, cell in rows], columns=names).assign(group="1")
    texts = pd.DataFrame([form for form, _ in rows], columns=names[:3]).drop_duplicates().assign(text="我懂")
    found = assess_probes(judgments, texts, {"cut": "fluency", "none": "coherency"}, ("mild",))
    (row,) = found.rows.to_dict(orient="records")
    assert (row["n"], row["clean"], row["degraded"], row["drop"], row["lower"], row["auc"]) == (2, 4, 2, 2, 1, 1)
    assert row["specific"] == 3 - 1  # of the item that has both metrics
    assert row["verdict"] == "cannot be said"
    coherency = found.matrix.set_index("metric").loc["coherency"]
    assert (coherency["n"], coherency["drop"]) == (1, 1)
    assert found.sentences == (
        "fluency: nothing can be said: under 8 groups.",
        "coherency: no degradation applies to these items.",
    )
    assert found.to_dict()["orders"][1]["in_order"] is None and found.remarks == ()
