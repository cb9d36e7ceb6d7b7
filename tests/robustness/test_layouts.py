"""Ways of asking compared: every number is that of the judgments, and people's ratings say which way is best."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from judge.cli import main
from judge.cli.layouts import COSTS, PEOPLE, SCORES, show_layouts, variants_table
from judge.data.dialogues import example_dialogues
from judge.engines.packed.engine import PackedEngine
from judge.models.hardware import detect
from judge.prompting.prompt_tree import LAYOUTS, PromptTree
from judge.robustness import prompt_variants as variants
from judge.robustness.perturbation import PromptVariant
from judge.robustness.prompt_variants import (
    LayoutComparison,
    best_variant,
    compare_layouts,
    possible,
    remarks,
    unique_tokens,
    variant_table,
)
from judge.scoring.judge import Identity, Judge
from judge.scoring.setup import open_judge, open_model
from judge.types import NOT_FINITE, OVERALL, Dialogue, Options
from tests.helpers.chatanime import LANGUAGES, METRICS
from tests.helpers.rubric import ByStandIn
from tests.helpers.serving import Model, serving

REFERENCE = PromptVariant("prefill", "ascending", "zh")
OTHER = PromptVariant("question", "descending", "en")
FOUR = (REFERENCE, REFERENCE.turned, OTHER.turned, OTHER)


def only(monkeypatch: pytest.MonkeyPatch, *chosen: PromptVariant) -> None:
    """Compare these variants alone, which takes less time."""

    def possible(layouts: Sequence[str], languages: Sequence[str]) -> tuple[PromptVariant, ...]:
        return tuple(variant for variant in chosen if variant.layout in layouts and variant.language in languages)

    monkeypatch.setattr(variants, "possible", possible)


@pytest.fixture(scope="module")
def compared(by_stand_in: ByStandIn) -> Iterator[LayoutComparison]:
    """Eight dialogues of the example in four ways."""
    with pytest.MonkeyPatch.context() as patch:
        only(patch, *FOUR)
        yield compare_layouts([], by_stand_in(sources=("plain",), limit=8))


@pytest.fixture(scope="module")
def dialogues(compared: LayoutComparison) -> list[Dialogue]:
    found = {dialogue.id: dialogue for dialogue in example_dialogues()}
    return [found[item] for item in compared.judgments["item_id"].unique()]


@pytest.fixture(scope="module")
def alone(by_stand_in: ByStandIn) -> Judge:
    """A judge of one variant, made without the comparison."""
    asked = by_stand_in(language="en", layout="question")
    return open_judge(asked, open_model(asked, detect()), ascending=False)


def scores_of(judge: Judge, dialogues: list[Dialogue]) -> np.ndarray:
    """Shape (dialogues, metrics)."""
    return np.array(
        [
            [judgment.score for judgment in one.judgments]
            for one in judge.judge(judge.prompts(dialogues, METRICS), METRICS)
        ]
    )


def scores_in(compared: LayoutComparison, variant: PromptVariant) -> np.ndarray:
    rows = compared.judgments[compared.judgments["variant"] == variant.name]
    return rows["score"].to_numpy(dtype=float).reshape(-1, len(METRICS))


def cell(table: pd.DataFrame, variant: PromptVariant, metric: str = OVERALL) -> pd.Series:
    return table[(table["variant"] == variant.name) & (table["metric"] == metric)].iloc[0]


def test_there_are_twelve_ways_and_one_engine_that_is_checked_once(
    by_stand_in: ByStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    monkeypatch.setattr(PackedEngine, "verify", lambda engine, tree: checked.append(tree))
    comparison = compare_layouts([], by_stand_in(limit=1))
    assert len(checked) == 1
    ours = possible(tuple(LAYOUTS), LANGUAGES)
    assert list(comparison.overall.index) == [variant.name for variant in ours]
    assert len(ours) == len(set(ours)) == 12 and ours[0].name == "prefill · ascending · zh"
    assert len({tuple(scores_in(comparison, variant)[0]) for variant in ours}) == 12
    assert comparison.overall[["agreement", "order_agreement", "halo"]].isna().all(axis=None)
    assert "no rank agreement is given" in comparison.remarks[1]


def test_the_reference_agrees_with_itself(compared: LayoutComparison) -> None:
    reference = compared.table[compared.table["variant"] == REFERENCE.name]
    assert reference["agreement"].to_numpy() == pytest.approx(np.ones(10))
    assert (reference["difference"] == 0).all()
    assert (compared.overall["agreement"].drop(REFERENCE.name) < 0.99).all()


def test_a_variants_numbers_are_those_of_a_judge_of_its_own(
    compared: LayoutComparison, dialogues: list[Dialogue], alone: Judge
) -> None:
    own, reference = scores_of(alone, dialogues), scores_in(compared, REFERENCE)
    turned = scores_in(compared, PromptVariant("question", "ascending", "en"))
    assert scores_in(compared, OTHER) == pytest.approx(own, abs=1e-5)
    found = cell(compared.table, OTHER)
    assert found["mean"] == pytest.approx(own.mean(), abs=1e-5)
    assert found["difference"] == pytest.approx((own - reference).mean(), abs=1e-5)
    assert found["agreement"] == pytest.approx(mean_spearman(own, reference))
    assert found["order_agreement"] == pytest.approx(mean_spearman(own, turned))
    pairs = [stats.spearmanr(own[:, a], own[:, b]).statistic for a, b in combinations(range(9), 2)]
    assert found["halo"] == pytest.approx(np.mean(pairs))
    fluency = cell(compared.table, OTHER, "fluency")
    assert fluency["agreement"] == pytest.approx(stats.spearmanr(own[:, 0], reference[:, 0]).statistic)
    trees = [alone.writers[0].dialogue(dialogue, METRICS) for dialogue in dialogues]
    assert found["prompt_tokens"] == pytest.approx(np.mean([sum(tree.lengths) for tree in trees]))
    assert 0 < found["unique_tokens"] < found["prompt_tokens"] / 9 * 2


def mean_spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([stats.spearmanr(a[:, i], b[:, i]).statistic for i in range(a.shape[1])]))


def test_shared_tokens_count_once() -> None:
    leaves = ((6,), (7, 8))
    trees = [PromptTree((1, 2), (3,), (9,), (4, 5), leaves), PromptTree((1, 2), (3,), (9,), (4,), leaves)]
    assert unique_tokens(trees) == 2 + 1 + 1 + (2 + 3) + (1 + 3)
    assert unique_tokens([*trees, PromptTree((1, 2), (9, 9), (9,), (4,), leaves)]) == 13 + 2 + 1 + 4


def test_the_variant_that_gave_the_ratings_is_best(compared: LayoutComparison, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, *FOUR)
    ratings = compared.judgments[compared.judgments["variant"] == OTHER.name]
    overall = variant_table(compared.judgments, ratings).xs(OVERALL, level="metric")
    assert best_variant(overall) == OTHER.name
    assert overall.loc[OTHER.name, ["human_spearman", "human_pearson", "human_n"]].tolist() == pytest.approx([1, 1, 72])
    assert (overall["human_spearman"].drop(OTHER.name) < 0.99).all()
    assert overall.loc[REFERENCE.name, "human_spearman"] == pytest.approx(cell(compared.table, OTHER)["agreement"])
    assert (
        f"{OTHER.name}, Spearman 1.00" in remarks(overall)[-1]
        and "best of 4 on the same ratings" in remarks(overall)[-1]
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Judgments of two variants, 1 to 10 on every metric, the second the wrong way round."""
    pair = (REFERENCE, REFERENCE.turned)
    only(monkeypatch, *pair)
    return pd.DataFrame(
        [
            {"variant": v.name, "item_id": str(i), "metric": m, "mass": 0.9, "score": s, "error": None}
            for v, sign in zip(pair, (1, -1), strict=True)
            for i in range(10)
            for m in METRICS
            for s in [5.5 + sign * (i - 4.5)]
        ]
    )


def rate(score: pd.Series, metric: str = "fluency") -> pd.DataFrame:
    return pd.DataFrame({"item_id": [str(i) for i in score.index], "metric": metric, "score": score})


def test_means_of_raters_are_compared(made: pd.DataFrame) -> None:
    upwards = pd.Series(range(10), dtype=float)
    ratings = pd.concat([rate(upwards + 1), rate(upwards - 1), rate(upwards, "speech_style")])
    table = variant_table(made, ratings)
    assert table.loc[(REFERENCE.turned.name, OVERALL), "human_pearson"] == pytest.approx(-1)
    assert table.loc[(REFERENCE.name, "fluency"), ["human_spearman", "human_n"]].tolist() == pytest.approx([1, 10])
    assert table.loc[(REFERENCE.name, OVERALL), "human_n"] == 20
    assert math.isnan(table.loc[(REFERENCE.name, "coherency"), "human_spearman"])


@pytest.mark.parametrize(
    ("score", "reason"),
    [(pd.Series([1.0, 2, 3, 4, 5, 1, 2]), "under 8 dialogues"), (pd.Series([3.0] * 10), "all ratings are equal")],
)
def test_what_cannot_be_computed_is_missing_with_its_reason(made: pd.DataFrame, score: pd.Series, reason: str) -> None:
    overall = variant_table(made, rate(score)).xs(OVERALL, level="metric")
    assert overall["human_spearman"].isna().all() and best_variant(overall) is None
    assert all(reason in found for found in overall["human_reason"])
    assert reason in remarks(overall)[-1]


def test_equal_scores_have_no_correlation(made: pd.DataFrame) -> None:
    constant = made["score"].where(made["variant"] != REFERENCE.turned.name, 3.0)
    table = variant_table(made.assign(score=constant), rate(pd.Series(range(10), dtype=float)))
    found = table.loc[(REFERENCE.turned.name, OVERALL)]
    assert found[["agreement", "order_agreement", "halo", "human_spearman"]].isna().all()
    assert "all scores are equal" in found["human_reason"]
    assert best_variant(table.xs(OVERALL, level="metric")) == REFERENCE.name


def test_variants_are_averaged_over_the_same_metrics(made: pd.DataFrame) -> None:
    fluency, turned = made["metric"] == "fluency", made["variant"] == REFERENCE.turned.name
    lacking = variant_table(made.assign(score=made["score"].mask(fluency & turned, 3.0)))
    assert lacking.loc[(REFERENCE.turned.name, "coherency"), "agreement"] == pytest.approx(-1)
    assert math.isnan(lacking.loc[(REFERENCE.turned.name, OVERALL), "agreement"])
    left_out = variant_table(made.assign(score=made["score"].mask(fluency, 3.0)))
    assert left_out.loc[(REFERENCE.turned.name, OVERALL), "agreement"] == pytest.approx(-1)


def test_a_variant_that_is_not_understood_is_named(made: pd.DataFrame) -> None:
    turned = made["variant"] == REFERENCE.turned.name
    first = turned & (made["item_id"] == "0")
    judgments = made.assign(mass=made["mass"].mask(turned, 0.5))
    judgments.loc[first, ["mass", "score", "error"]] = [None, None, NOT_FINITE]
    overall = variant_table(judgments).xs(OVERALL, level="metric")
    assert overall["mass"].tolist() == [0.9, 0.5] and overall["low_mass"].tolist() == [0, 1]
    assert overall["missing"].tolist() == [0, 9]
    assert REFERENCE.turned.name in remarks(overall)[0] and REFERENCE.name not in remarks(overall)[0]
    assert overall.loc[REFERENCE.turned.name, "difference"] == pytest.approx(-1.0)  # over the nine dialogues of both


def test_a_server_that_takes_messages_is_not_asked_with_the_answer_begun(
    stand_in: Path, short_rubric: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = PromptVariant("question", "ascending", "zh")
    only(monkeypatch, REFERENCE, REFERENCE.turned, question, question.turned)
    with serving(Model(stand_in, owned_by="somebody")) as url:
        found = compare_layouts([], Options(url=url, sources=("plain",), limit=2, rubric=short_rubric))
    assert list(found.overall.index) == [question.name, question.turned.name]
    assert found.judgments["error"].isna().all()
    assert found.overall.loc[question.name, "difference"] == 0  # it is what the other is compared with
    assert "left out" in found.remarks[0] and "prefill, separate; the reference is question" in found.remarks[0]


def test_tables_fit_a_narrow_terminal(compared: LayoutComparison, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=80, record=True)
    people = dict.fromkeys(PEOPLE, 0.5)
    for columns in (SCORES, PEOPLE, COSTS):
        console.print(variants_table("title", compared.overall.assign(**people), columns))
    text = console.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert text.count(OTHER.name) == 3
    capsys.readouterr()
    show_layouts(compared)
    shown = capsys.readouterr().out
    assert "STAND-IN judge: these scores mean nothing" in shown and "agreement with human ratings" not in shown
    assert all(remark in shown for remark in compared.remarks)


def as_record(dialogue: Dialogue) -> dict[str, object]:
    """A dialogue as a line of JSONL has it."""
    turns = [{"user": turn.user, "character": turn.character} for turn in dialogue.turns]
    names = {"source": dialogue.source, "character": dialogue.character, "scenario": dialogue.scenario}
    return {**names, "profile": dialogue.profile, "turns": turns}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of ``esrp-judge layouts``."""
    monkeypatch.setattr(sys, "argv", ["esrp-judge", "layouts", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(str(ended.value.code))


def test_the_command_compares_what_people_rated(
    stand_in: Path,
    dialogues: list[Dialogue],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only(monkeypatch, REFERENCE, REFERENCE.turned)
    monkeypatch.chdir(tmp_path)
    rows = [as_record(dialogue) for dialogue in dialogues]
    silent = {**rows[0], "scenario": "silent", "turns": [{"user": "在吗", "character": ""}]}
    unrated = {**rows[0], "scenario": "unrated"}
    Path("a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    judged = compare_layouts([Path("a.jsonl")], Options(judge="stand-in")).judgments
    Path("a.jsonl").write_text("\n".join(map(json.dumps, [*rows, silent, unrated])), encoding="utf-8")
    said = judged[judged["variant"] == REFERENCE.turned.name].assign(source="plain", annotator="a")
    rest = said.iloc[[0]].assign(item_id=f"plain/{rows[0]['character']}/silent")
    pd.concat([said, rest]).to_csv("ratings.csv", index=False)
    options = ("a.jsonl", "--judge", "stand-in", "--annotations", "ratings.csv", "--out", "table.csv", "--json")
    assert command(monkeypatch, *options) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["judge"], result["dialogues"], result["missing"]) == ("STAND-IN", 9, {"empty_answer": 18})
    assert result["best"] == REFERENCE.turned.name and "Spearman 1.00" in result["remarks"][-1]
    written = pd.read_csv("table.csv")
    assert written.columns.tolist() == list(result["table"][0])
    assert written["agreement"].tolist() == pytest.approx([row["agreement"] for row in result["table"]], abs=1e-4)
    assert result["table"][1]["seconds"] is None and result["table"][0]["seconds"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "ratings.csv", "table.csv"]


def test_other_orderings_leave_the_identity_of_a_judge_as_it_was(by_stand_in: ByStandIn, alone: Judge) -> None:
    known = Identity("w", "c", None, "t", "p", "r", "zh", "prefill", 2, ((1,), (2, 3)), "float32")
    assert known.judge_id == "c75775346ef7fc95"
    asked = [by_stand_in(language="en", layout="question", orderings=orderings) for orderings in (1, 2)]
    judges = [open_judge(options, open_model(options, detect())) for options in asked]
    assert [[writer.ascending for writer in judge.writers] for judge in [*judges, alone]] == [
        [True],
        [True, False],
        [False],
    ]
    assert len({judge.identity.judge_id for judge in [*judges, alone]}) == 3
