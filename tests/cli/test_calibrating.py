"""calibrate, score --calibration, estimate, compare and plan, as typed, on a run of the packaged example."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from judge import load_judgments, load_scores
from judge.cli import main
from tests.helpers.paths import RATINGS


@pytest.fixture(scope="module")
def run(example_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged example scored by the stand-in with the short rubric, to be changed."""
    return Path(shutil.copytree(example_run, tmp_path_factory.mktemp("calibrating") / "run"))


@pytest.fixture(scope="module")
def calibration(run: Path) -> Path:
    """A calibration of the stand-in on the example's ratings."""
    path = run.parent / "calibration.json"
    assert typed("calibrate", run, "--annotations", RATINGS, "--out", path) == 0
    return path


def typed(*arguments: object) -> int:
    """The exit code of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["esrp-judge", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of an error."""
    capsys.readouterr()
    assert typed(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("esrp-judge: ")]
    assert len(lines) == 1 and "Traceback" not in err
    return lines[0]


def changed(calibration: Path, folder: Path, change: object) -> Path:
    """A calibration with something changed in its file."""
    saved = json.loads(calibration.read_text(encoding="utf-8"))
    change(saved)  # type: ignore[operator]
    path = folder / "changed.json"
    path.write_text(json.dumps(saved), encoding="utf-8")
    return path


def test_a_calibration_keeps_the_dialogues_of_its_anchors(calibration: Path) -> None:
    saved = json.loads(calibration.read_text(encoding="utf-8"))
    assert {item for item, _, _ in saved["anchor"]} == set(saved["dialogues"])
    assert len(saved["dialogues"]) == 50
    assert all(kept["turns"][0]["character"] for kept in saved["dialogues"].values())


def test_calibrated_scores_stand_beside_what_the_judge_said(
    short_rubric: Path, run: Path, calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_judgments(run)
    assert typed("score", "--prompts", short_rubric, "--run", run, "--calibration", calibration) == 0
    assert "450 anchor judgments are as they were" in capsys.readouterr().err
    after = load_judgments(run)
    pd.testing.assert_frame_equal(after[before.columns], before)
    assert after["calibrated"].between(1, 5).all() and after["in_range"].mean() > 0.9
    assert (after["low"] <= after["calibrated"]).all() and (after["calibrated"] <= after["high"]).all()
    wide = pd.read_csv(run / "scores_calibrated.csv")
    assert len(wide) == 72
    mean = after[after["metric"] == "fluency"]["calibrated"].mean()
    assert wide["fluency"].mean() == pytest.approx(mean, abs=1e-4)


def test_a_judge_that_has_moved_is_refused_before_anything_is_scored(
    short_rubric: Path, run: Path, calibration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = changed(calibration, tmp_path, lambda saved: saved["anchor"][0].__setitem__(2, 4.9))
    line = refused(capsys, "score", "--prompts", short_rubric, "--run", tmp_path / "new", "--calibration", moved)
    assert "the judge has moved" in line and "calibrate it again" in line
    assert not (tmp_path / "new" / "judgments").exists()


def test_another_judge_is_refused_by_what_differs(
    short_rubric: Path, calibration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(
        capsys,
        "score",
        "--prompts",
        short_rubric,
        "--run",
        tmp_path / "r",
        "--layout",
        "question",
        "--calibration",
        calibration,
    )
    assert "another judge" in line and "layout" in line


def test_damaged_anchor_dialogues_are_told(
    short_rubric: Path, calibration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = changed(calibration, tmp_path, lambda saved: saved["dialogues"].update({"a/b/c": {"turns": 7}}))
    assert "anchor dialogues are damaged" in refused(
        capsys, "score", "--prompts", short_rubric, "--run", tmp_path / "r", "--calibration", damaged
    )


def test_anchors_that_are_gone_are_said_and_not_needed(
    short_rubric: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    manifest["data"]["paths"] = [str(tmp_path / "gone.jsonl")]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "run" / "dialogues.parquet").unlink()  # as in a run of a version that kept none
    path = tmp_path / "c.json"
    assert typed("calibrate", tmp_path / "run", "--annotations", RATINGS, "--out", path) == 0
    assert "the texts of 50 of 50 anchor dialogues are gone" in " ".join(capsys.readouterr().out.split())
    assert typed("score", "--prompts", short_rubric, "--run", run, "--calibration", path) == 0
    assert "whether the judge has moved" in capsys.readouterr().err


def table_of(run: Path, folder: Path, judge: str = "someone") -> Path:
    """A run's scores as a plain table of a judge of that name."""
    path = folder / "scores.csv"
    load_scores(run).drop(columns="length").assign(judge=judge).to_csv(path, index=False)
    return path


def test_a_calibration_of_a_table_is_used_on_tables_of_the_same_judge_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, fitted, out = table_of(run, tmp_path), tmp_path / "c.json", tmp_path / "out.csv"
    assert typed("calibrate", scores, "--annotations", RATINGS, "--out", fitted, "--maps", "raters") == 0
    assert typed("calibrate", scores, "--use", fitted, "--out", out) == 0
    found = pd.read_csv(out)
    assert len(found) == 648 and found["calibrated"].between(1, 5).all()
    annotator = pd.read_csv(RATINGS)["annotator"].iloc[0]
    assert typed("calibrate", scores, "--use", fitted, "--out", out, "--annotator", annotator) == 0
    named = pd.read_csv(out)
    assert (named["calibrated"] != found["calibrated"]).any()
    pairs = tmp_path / "pairs.csv"
    found[["item_id"]].drop_duplicates().iloc[3:5].assign(annotator=annotator).to_csv(pairs, index=False)
    assert typed("calibrate", scores, "--use", fitted, "--out", out, "--pairs", pairs) == 0
    asked = pd.read_csv(out)
    assert len(asked) == 18 and set(asked["annotator"]) == {annotator}
    beside = asked.merge(named, on=["item_id", "metric"], suffixes=("", "_named"))
    assert beside["calibrated"].equals(beside["calibrated_named"])
    pairs.write_text("item_id,annotator\nnowhere,a\n")
    assert "items without a score" in refused(capsys, "calibrate", scores, "--use", fitted, "--pairs", pairs)
    pairs.write_text("item_id,who\nnowhere,a\n")
    assert "no column annotator" in refused(capsys, "calibrate", scores, "--use", fitted, "--pairs", pairs)
    both = refused(capsys, "calibrate", scores, "--use", fitted, "--pairs", pairs, "--annotator", annotator)
    assert "give one of the two" in both
    alone = refused(capsys, "calibrate", scores, "--annotations", RATINGS, "--annotator", annotator)
    assert "the calibration to use" in alone
    other = table_of(run, tmp_path, "another")
    assert "another judge" in refused(capsys, "calibrate", other, "--use", fitted, "--out", out)
    moved = pd.read_csv(scores).assign(judge="someone")
    moved.loc[0, "score"] = 1.0 if moved.loc[0, "score"] > 2 else 4.0
    moved.to_csv(scores, index=False)
    everything = changed(fitted, tmp_path, lambda saved: saved.update(anchor=[[moved["item_id"][0], "fluency", 3.3]]))
    assert "has moved" in refused(capsys, "calibrate", scores, "--use", everything, "--out", out)


def test_estimates_name_their_target(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert typed("estimate", run, "--annotations", RATINGS, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["estimates"]
    targets = {row["target"] for row in rows}
    assert targets == {"judge mean", "human mean of a system with some labels", "human mean of a new system"}
    assert {row["metric"] for row in rows} >= {"fluency", "role_playing", "overall"}
    new = [row for row in rows if row["target"] == "human mean of a new system"]
    assert all(row["mean"] is None and "5 are needed" in row["reason"] for row in new)


def test_the_means_shown_are_the_overall_ones_unless_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert typed("estimate", run, "--annotations", RATINGS) == 0
    assert "overall: means by STAND-IN" in capsys.readouterr().out
    assert typed("estimate", run, "--annotations", RATINGS, "--metrics", "fluency,coherency") == 0
    shown = capsys.readouterr().out
    assert "fluency: means by" in shown and "coherency: means by" in shown and "overall: means by" not in shown


def test_two_sources_are_compared_with_and_without_people(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert typed("compare", run, "plain", "steady", "--json") == 0
    alone = json.loads(capsys.readouterr().out)["metrics"]["overall"]
    scores = pd.read_csv(run / "scores.csv")
    means = scores.groupby(["scenario", "source"])["overall"].mean().unstack()
    assert alone["judge"]["value"] == pytest.approx((means["plain"] - means["steady"]).mean(), abs=1e-4)
    assert alone["human"]["value"] is None
    assert typed("compare", run, "plain", "steady", "--annotations", RATINGS, "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["overall"]["human"]["value"] is not None


def test_a_plan_has_a_known_chance_for_each_dialogue(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.csv"
    assert typed("plan", run, "--budget", 40, "--out", out) == 0
    table = pd.read_csv(out)
    assert len(table) == 40 and table["overlap"].sum() == 30
    assert table["inclusion_probability"].between(0, 1, inclusive="right").all()
    assert set(table["item_id"]) <= set(load_judgments(run)[["source", "character", "scenario"]].agg("/".join, axis=1))


def test_what_was_left_out_is_said_with_estimates_and_comparisons_too(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratings = pd.read_csv(RATINGS)
    first = ratings.iloc[0]
    more = [first.to_dict() | {"scenario": "nowhere"}, first.to_dict() | {"metric": "patience"}]
    pd.concat([ratings, pd.DataFrame(more)]).to_csv(tmp_path / "more.csv", index=False)
    sources = sorted(load_scores(run)["source"].unique())[:2]
    for command in (["estimate", run], ["compare", run, *sources], ["agree", run]):
        capsys.readouterr()
        assert typed(*command, "--annotations", tmp_path / "more.csv", "--scale", "1-5") == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "ratings have no score of the judge" in shown
        assert "The judge has no scores on patience, which people rated." in shown


def test_a_judge_that_is_not_there_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "plan", run, "--judge", "nosuch", "--budget", 40, "--out", run.parent / "plan.csv")
    assert "--judge nosuch: not in" in line and "STAND-IN" in line


def test_a_calibration_says_how_it_is_used(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_scores(run).to_csv(tmp_path / "scores.csv", index=False)
    for scores, use in ((run, "score … --calibration"), (tmp_path / "scores.csv", "calibrate TABLE --use")):
        assert typed("calibrate", scores, "--annotations", RATINGS, "--out", tmp_path / "made.json") == 0
        assert use in " ".join(capsys.readouterr().out.split())


def test_details_are_printed_and_the_test_of_annotators_may_ask_for_fewer_items(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("agree", run, "--annotations", RATINGS, "--details", "--min-items", 5) == 0
    shown = capsys.readouterr().out
    assert "RMSE" in shown and "Kendall" in shown and "epsilon" in shown
    refused(capsys, "agree", run, "--annotations", RATINGS, "--min-items", 1)
