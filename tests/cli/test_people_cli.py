"""``esrp-judge agree`` as a user types it: what programs and people read, and one line for each mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.helpers.commands import Result, esrp_judge, read, refused, typed, without_waits
from tests.helpers.pairs import tables
from tests.helpers.paths import RATINGS


class Kit:
    """Tables of ratings and scores in a folder, and the command on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ratings, self.scores = tables(metrics=("kind", "fluent"), sources=6)

    def agree(
        self, *options: object, ratings: pd.DataFrame | None = None, scores: pd.DataFrame | None = None
    ) -> Result:
        (self.ratings if ratings is None else ratings).to_csv(self.folder / "ratings.csv", index=False)
        (self.scores if scores is None else scores).to_csv(self.folder / "scores.csv", index=False)
        return typed("agree", "scores.csv", "--annotations", "ratings.csv", *options, cwd=self.folder)

    def json(self, *options: object, **changed: pd.DataFrame) -> dict[str, Any]:
        return read(self.agree("--json", *options, **changed))


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What ``agree --json --out`` says of two metrics, and where it wrote."""
    folder = tmp_path_factory.mktemp("answered")
    return Kit(folder).json("--out", "out/new"), folder / "out" / "new"


# What is answered


def test_json_has_the_promised_shape(answered: tuple[dict[str, Any], Path]) -> None:
    found, _ = answered
    assert set(found["metrics"]) == {"kind", "fluent"} and found["published"] is None
    for one in found["metrics"].values():
        assert one["n"] == 40
        assert set(one["reliability"]) >= {
            "alpha_nominal",
            "alpha_ordinal",
            "alpha_interval",
            "raters",
            "ratings_per_item",
        }
        assert set(one["agreement"]) >= {"bias", "mae", "rmse", "pearson", "spearman", "kendall", "qwk", "exact", "rps"}
        assert set(one["alt_test"]) >= {"winning_rate", "advantage_probability", "passed"}
        assert one["verdict"] in ("rank", "estimate", "do not use")
        assert 0 < one["agreement"]["spearman"] <= 1 and one["reliability"]["raters"] == 3


def test_what_is_written_is_what_is_printed(answered: tuple[dict[str, Any], Path]) -> None:
    found, folder = answered
    assert json.loads((folder / "agreement.json").read_text(encoding="utf-8")) == found
    table = pd.read_csv(folder / "agreement.csv").set_index(["metric", "of", "statistic"])
    assert table.loc[("kind", "judge", "mae"), "value"] == pytest.approx(
        found["metrics"]["kind"]["agreement"]["mae"], abs=1e-4
    )
    assert {path.name for path in folder.iterdir()} == {"agreement.csv", "agreement.json"}


def test_people_read_a_row_and_a_sentence_a_metric(kit: Kit) -> None:
    result = kit.agree()
    assert (result.returncode, result.stderr) == (0, "")
    assert "the judge and human ratings" in result.stdout and "nan" not in result.stdout.lower().replace("dominan", "")
    assert result.stdout.count("* On kind, the judge may") == result.stdout.count("* On fluent, the judge may") == 1


def test_judges_of_a_table_stand_side_by_side(kit: Kit) -> None:
    noisy = kit.scores.assign(judge="worse", score=kit.scores["score"].sample(frac=1, random_state=0).to_numpy())
    both = pd.concat([kit.scores.assign(judge="better"), noisy])
    found = kit.json("--judge", "all", "--out", "out", scores=both)
    assert set(found["judges"]) == {"better", "worse"}
    alone = kit.json("--judge", "worse", scores=both)
    assert found["judges"]["worse"]["metrics"] == alone["metrics"]
    (one,) = (apart for apart in found["differences"] if apart["metric"] == "kind")
    values = [found["judges"][name]["metrics"]["kind"]["agreement"]["spearman"] for name in ("better", "worse")]
    assert (one["a"], one["b"], one["items"]) == ("better", "worse", 40)
    assert one["spearman"]["value"] == pytest.approx(values[0] - values[1], abs=1e-9) and one["spearman"]["low"] > 0
    table = pd.read_csv(kit.folder / "out" / "agreement.csv")
    assert set(table["judge"]) == {"better", "worse", "panel"}
    printed = kit.agree("--judge", "worse,better", scores=both).stdout
    assert "kind: better less worse: Spearman +" in " ".join(printed.split())


@pytest.mark.parametrize("name", ["one", "alone,one"])
def test_judges_that_are_not_there_are_refused(kit: Kit, name: str) -> None:
    refused(kit.agree("--judge", name, scores=kit.scores.assign(judge="alone")), "no judge 'one'", "found: alone")


def test_all_of_one_judge_is_that_judge(kit: Kit) -> None:
    alone = kit.scores.assign(judge="alone")
    assert kit.json("--judge", "all", scores=alone) == kit.json(scores=alone)


def test_a_nominal_metric_has_no_order_and_the_other_has(kit: Kit) -> None:
    found = kit.json("--nominal", "kind", scores=kit.scores.assign(score=kit.scores["score"].round()))
    kind, fluent = (found["metrics"][name] for name in ("kind", "fluent"))
    assert kind["nominal"] and kind["agreement"]["spearman"] is None and kind["agreement"]["kappa"] is not None
    assert not fluent["nominal"] and fluent["agreement"]["spearman"] is not None
    assert "Nominal: kind" in kit.agree("--nominal", "kind").stdout
    both = pd.concat([kit.scores.assign(judge=name, score=kit.scores["score"].round()) for name in ("a", "b")])
    printed = " ".join(kit.agree("--judge", "all", "--nominal", "kind", scores=both).stdout.split())
    assert "kind: a less b: exact agreement +0.00" in printed and "fluent: a less b: Spearman" in printed


@pytest.mark.parametrize("command", ["agree", "estimate", "compare", "calibrate"])
def test_the_scale_is_printed_by_every_command_about_ratings(kit: Kit, command: str) -> None:
    kit.agree()
    systems = ["s0", "s1"] if command == "compare" else []
    printed = typed(command, "scores.csv", *systems, "--annotations", "ratings.csv", cwd=kit.folder).stdout
    assert "Scale: 1 to 5" in printed


def test_text_of_the_tables_cannot_command_the_terminal(kit: Kit) -> None:
    """Metrics and judges with control characters or with markup stand as they are."""
    changed = [
        table.assign(metric="\x1b[31mkind[bold]")
        for table in (kit.ratings[:120], kit.scores[:40].assign(judge="\x1b[0m[red]j"))
    ]
    result = kit.agree(ratings=changed[0], scores=changed[1])
    assert result.returncode == 0 and "\x1b" not in result.stdout and "[red]j and human ratings" in result.stdout


def test_a_table_may_leave_the_sources_to_the_ratings(kit: Kit) -> None:
    found = kit.json(scores=kit.scores.drop(columns="source"))
    assert found["metrics"]["kind"]["sources"] == 6


def test_metrics_may_have_scales_of_their_own(kit: Kit) -> None:
    wide = [
        table.assign(score=table["score"].where(table["metric"] != "kind", table["score"] * 20))
        for table in (kit.ratings, kit.scores)
    ]
    found = kit.json("--scale", "kind = 0-100, fluent=1-5", ratings=wide[0], scores=wide[1])["metrics"]
    assert found["kind"]["agreement"]["mae"] == pytest.approx(20 * kit.json()["metrics"]["kind"]["agreement"]["mae"])


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        (["--annotators", "a0"], lambda one: one["reliability"]["raters"] == 1 and one["alt_test"]["reason"]),
        (["--raters", "slots"], lambda one: "slots" in one["alt_test"]["reason"]),
        (["--scoring", "accuracy", "--epsilon", "0.3"], lambda one: one["alt_test"]["epsilon"] == 0.3),
        (["--annotator-kind", "crowd"], lambda one: one["alt_test"]["epsilon"] == 0.1),
    ],
    ids=["one annotator", "slots", "epsilon", "crowd"],
)
def test_options_reach_what_they_are_of(kit: Kit, options: list[str], holds: Callable[[dict[str, Any]], bool]) -> None:
    assert holds(kit.json(*options)["metrics"]["kind"])


def one_metric(kit: Kit, items: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    kept = {f"i{item}" for item in range(items)}
    return tuple(t[(t["metric"] == "kind") & t["item_id"].isin(kept)] for t in (kit.ratings, kit.scores))


POOR = {
    "one item": (lambda r, s: (r[r["item_id"] == "i0"], s), "undefined (under 3 items)", "under 3 items"),
    "constant judge": (lambda r, s: (r, s.assign(score=3.0)), "one side is constant", "one side is constant"),
    "constant people": (lambda r, s: (r.assign(score=3), s), "one side is constant", "one side is constant"),
    "one group": (lambda r, s: (r, s.assign(group="g")), "1 rated group of at least 8", None),
}


@pytest.mark.parametrize("case", POOR)
def test_poor_ratings_are_answered_with_what_cannot_be_said(kit: Kit, case: str) -> None:
    spoil, why, undefined = POOR[case]
    ratings, scores = spoil(*one_metric(kit))
    one = kit.json(ratings=ratings, scores=scores)["metrics"]["kind"]
    assert one["verdict"] == "do not use" and why in one["sentence"]
    assert one["undefined"].get("judge", {}).get("spearman") == undefined


def test_other_numbers_of_scores_than_levels_and_odd_lengths_are_told(kit: Kit) -> None:
    ratings, scores = one_metric(kit)
    found = kit.json(ratings=ratings, scores=scores.assign(p1=0.5, p2=0.5, length="long"))
    assert any("p1..p2 are not the whole scores" in remark for remark in found["remarks"])
    assert any("'length'" in remark for remark in found["remarks"])
    assert found["metrics"]["kind"]["agreement"]["rps"] is None


def test_characters_that_are_also_the_groups_make_no_noise(kit: Kit) -> None:
    """Some draws of nine groups and their nine characters take nothing."""
    ratings, scores = one_metric(kit, items=9)
    one = kit.json("--generalise", "characters", ratings=ratings, scores=scores.assign(character=scores["item_id"]))
    assert one["metrics"]["kind"]["n"] == 9


def test_in_a_process_of_its_own_it_is_the_same_and_warns_of_nothing(kit: Kit) -> None:
    inside = kit.agree("--json")
    outside = esrp_judge("agree", "scores.csv", "--annotations", "ratings.csv", "--json", cwd=kit.folder)
    assert read(outside) == read(inside)


# The packaged example


@pytest.fixture
def run(example_run: Path) -> Path:
    """A run of the packaged example by the stand-in judge."""
    return example_run


def test_the_packaged_example_is_assessed_on_all_metrics_and_their_means(run: Path, tmp_path: Path) -> None:
    found = read(typed("agree", run, "--annotations", RATINGS, "--json", "--out", "agreed", cwd=tmp_path))
    assert found["judge"] == "STAND-IN" and len(found["metrics"]) == 9 + 4
    for one in found["metrics"].values():
        assert (one["n"], one["groups"], one["sources"]) == (72, 12, 2)
        assert one["length"]["judge"] is not None and one["within_scenario"]["spearman"] is not None
    assert found["metrics"]["fluency"]["agreement"]["log_loss"] > 0
    assert found["metrics"]["overall"]["agreement"]["qwk"] is None and len(found["discriminant"]["spearman"]) == 9
    assert "overall" in set(pd.read_csv(tmp_path / "agreed" / "agreement.csv")["metric"])


def test_a_run_shows_its_table_and_the_stand_ins_warning(run: Path) -> None:
    result = typed("agree", run, "--annotations", RATINGS, "--generalise", "scenarios", cwd=run.parent)
    assert (result.returncode, without_waits(result.stderr)) == (0, [])
    assert "STAND-IN and human ratings" in result.stdout and "these scores mean nothing" in result.stdout


def test_what_a_run_cannot_give_is_said(run: Path, tmp_path: Path) -> None:
    off = typed("agree", run, "--annotations", RATINGS, "--generalise", "characters", "--scale", "1-4", cwd=tmp_path)
    assert off.returncode == 2 and "off the scale" in off.stderr
    few = typed("agree", run, "--annotations", RATINGS, "--generalise", "characters", "--json", cwd=tmp_path)
    assert read(few)["metrics"]["fluency"]["verdict"] == "do not use"  # the example has three characters


def test_ratings_as_people_have_them_reach_the_numbers_and_what_was_made_of_them_the_reader(
    run: Path, tmp_path: Path
) -> None:
    ratings = pd.read_csv(RATINGS)
    names = ["source", "character", "scenario", "metric"]
    wide = ratings.pivot(index=names, columns="annotator", values="score").reset_index()
    wide.assign(metric=wide["metric"].replace("fluency", "流畅性"), why="").to_excel(
        tmp_path / "wide.xlsx", index=False
    )
    ratings.rename(columns={"annotator": "rater"}).to_csv(tmp_path / "rater.csv", index=False)
    plain = read(typed("agree", run, "--annotations", RATINGS, "--json", cwd=tmp_path))
    found = read(typed("agree", run, "--annotations", "wide.xlsx", "--json", cwd=tmp_path))
    mapped = read(typed("agree", run, "--annotations", "rater.csv", "--map", "annotator=rater", "--json", cwd=tmp_path))
    assert found["metrics"] == plain["metrics"] == mapped["metrics"]
    said = " ".join(found["remarks"])
    assert "Columns read as annotators: " in said and "Metric '流畅性' was read as 'fluency'" in said
    refused(typed("agree", run, "--annotations", "rater.csv", cwd=tmp_path), "there is 'rater': --map annotator=rater")


def test_ratings_on_another_scale_than_the_run_are_told(run: Path, tmp_path: Path) -> None:
    ratings = pd.read_csv(RATINGS)
    ratings.assign(score=ratings["score"] + 2).to_csv(tmp_path / "seven.csv", index=False)
    how = ["agree", run, "--annotations", "seven.csv"]
    refused(typed(*how, cwd=tmp_path), "scores are off the scale: they go from 3 to 7", "--scale LOWEST-HIGHEST")
    said = read(typed(*how, "--scale", "1-7", "--json", cwd=tmp_path))["remarks"]
    assert any("scores are from 1 to 5 and the ratings' scale is 1 to 7" in text for text in said)


def test_a_damaged_run_is_one_line(run: Path, tmp_path: Path) -> None:
    part = next((run / "judgments").glob("part-*.parquet"))
    whole = part.read_bytes()
    try:
        part.write_bytes(whole[:100])
        refused(typed("agree", run, "--annotations", RATINGS, cwd=tmp_path), part.name, "is damaged", "--run")
    finally:
        part.write_bytes(whole)
