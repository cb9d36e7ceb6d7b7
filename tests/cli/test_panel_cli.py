"""Several judges as a user types them: ``agree``, ``calibrate`` and ``estimate`` of several tables or runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.commands import Result, read, refused, typed
from tests.helpers.pairs import tables
from tests.helpers.paths import RATINGS

JUDGES = ("one", "two", "three")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ratings, a table for each of three judges with noise of their own, and all of them in one table."""
    ratings, scores = tables(items=60, metrics=("kind",))
    ratings.to_csv(tmp_path / "ratings.csv", index=False)
    human = ratings.groupby("item_id")["score"].mean()
    parts = []
    for number, name in enumerate(JUDGES):
        noise = tables(items=60, metrics=("kind",), seed=number + 1)[1]["score"] - 3
        own = scores.assign(score=(scores["item_id"].map(human) + 0.6 * noise).clip(1, 5).round(3), judge=name)
        own.to_csv(tmp_path / f"{name}.csv", index=False)
        parts.append(own)
    pd.concat(parts).to_csv(tmp_path / "all.csv", index=False)
    return tmp_path


def on(folder: Path, command: str, *options: object) -> Result:
    return typed(command, *options, cwd=folder)


def test_several_tables_are_the_judges_of_one(folder: Path) -> None:
    """The panel is in the JSON, in the table that is written, and in a sentence."""
    rated = ("--annotations", "ratings.csv")
    files = [f"{name}.csv" for name in JUDGES]
    apart = read(on(folder, "agree", *files, *rated, "--json", "--out", "out"))
    together = read(on(folder, "agree", "all.csv", *rated, "--judge", ",".join(JUDGES), "--json"))
    assert apart == together and list(apart["judges"]) == list(JUDGES)
    (gain,) = apart["panel"]["gains"]
    assert gain["gains"] is True and gain["gain"]["spearman"]["low"] > 0 and gain["items"] == 60
    mean = apart["panel"]["mean"]["metrics"]["kind"]["agreement"]["spearman"]
    assert mean > max(one["metrics"]["kind"]["agreement"]["spearman"] for one in apart["judges"].values())
    table = pd.read_csv(folder / "out" / "agreement.csv").set_index(["judge", "of", "statistic"])["value"]
    assert table["panel", "judge", "spearman"] == pytest.approx(mean, abs=1e-4)
    assert table["panel", "gain_out_of_fold", "spearman"] == pytest.approx(gain["gain"]["spearman"]["value"], abs=1e-4)
    printed = " ".join(on(folder, "agree", "all.csv", *rated, "--judge", "all").stdout.split())
    assert "panel (mean)" in printed and "On kind the panel (the mean) gains on the best single judge" in printed


def test_a_panel_that_does_not_gain_says_so(folder: Path) -> None:
    one = pd.read_csv(folder / "one.csv")
    pd.concat([one.assign(judge=name) for name in "abc"]).to_csv(folder / "same.csv", index=False)
    printed = on(folder, "agree", "same.csv", "--annotations", "ratings.csv", "--judge", "all").stdout
    assert "On kind the panel (the mean) does not gain on the best single judge: Spearman +0.00" in " ".join(
        printed.split()
    )


def test_judges_of_one_name_are_told_apart_by_their_files(folder: Path) -> None:
    shutil.copy(folder / "one.csv", folder / "again.csv")
    found = read(on(folder, "agree", "one.csv", "again.csv", "--annotations", "ratings.csv", "--json"))
    assert list(found["judges"]) == ["one (one.csv)", "one (again.csv)"]
    refused(
        on(folder, "calibrate", "one.csv", "again.csv", "--annotations", "ratings.csv"),
        "are one judge; give each judge of a panel once",
    )


def test_a_panel_is_fitted_kept_and_used(folder: Path) -> None:
    rated = ("--annotations", "ratings.csv")
    fitted = read(on(folder, "calibrate", "all.csv", *rated, "--judge", "all", "--out", "p.json", "--json"))
    assert fitted["judges"] == {name: name for name in JUDGES} and fitted["metrics"]["kind"]["items"] == 60
    assert "use it: esrp-judge calibrate RUN|TABLE" in " ".join(
        on(folder, "calibrate", "all.csv", *rated, "--judge", "all", "--out", "p.json").stdout.split()
    )
    on(folder, "calibrate", "all.csv", "--use", "p.json", "--out", "a.csv")
    result = on(folder, "calibrate", "three.csv", "one.csv", "two.csv", "--use", "p.json", "--out", "b.csv")
    assert "60 scores in b.csv" in result.stdout
    one, other = (pd.read_csv(folder / name).set_index("item_id").sort_index() for name in ("a.csv", "b.csv"))
    pd.testing.assert_frame_equal(one, other)
    ratings = pd.read_csv(folder / "ratings.csv").groupby("item_id")["score"].mean()
    assert (one["calibrated"] - ratings).abs().mean() < 0.6
    refused(on(folder, "calibrate", "one.csv", "two.csv", "--use", "p.json"), "p.json", "scores of three as well")
    for option, value in (("--annotator", "a0"), ("--pairs", "ratings.csv"), ("--judge", "one")):
        refused(on(folder, "calibrate", "all.csv", "--use", "p.json", option, value), option, "leave it out")


def test_a_judge_of_a_panel_that_has_moved_is_refused(folder: Path) -> None:
    on(folder, "calibrate", "all.csv", "--annotations", "ratings.csv", "--judge", "all", "--out", "p.json")
    moved = pd.read_csv(folder / "two.csv").assign(score=lambda table: (table["score"] + 0.1).clip(1, 5))
    moved.to_csv(folder / "two.csv", index=False)
    files = [f"{name}.csv" for name in JUDGES]
    refused(on(folder, "calibrate", *files, "--use", "p.json"), "two has moved: on kind", "calibrate it again")


def test_a_calibration_of_one_judge_is_not_for_several(folder: Path) -> None:
    on(folder, "calibrate", "one.csv", "--annotations", "ratings.csv", "--out", "c.json")
    refused(on(folder, "calibrate", "one.csv", "two.csv", "--use", "c.json"), "is of one judge; give one run or table")


def test_estimate_of_several_judges_is_of_their_mean(folder: Path) -> None:
    rated = ("--annotations", "ratings.csv")
    found = read(on(folder, "estimate", "all.csv", *rated, "--judge", "all", "--json"))
    assert found["judge"] == "panel of one, three, two"
    means = pd.read_csv(folder / "all.csv").groupby("source")["score"].mean()
    judged = {one["source"]: one["mean"] for one in found["estimates"] if one["target"] == "judge mean"}
    assert judged == pytest.approx(means.to_dict(), abs=1e-6)
    assert "means by panel of" in " ".join(on(folder, "estimate", "all.csv", *rated, "--judge", "all").stdout.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["agree", "one.csv", "two.csv"], "give them (--annotations)"),
        (["agree", "one.csv", "one.csv", "--annotations", "ratings.csv"], "given twice"),
        (["agree", "all.csv", "--annotations", "ratings.csv"], "several judges (one, three, two); name one (--judge)"),
        (["calibrate", "one.csv", "two.csv", "--annotations", "ratings.csv", "--maps", "linear"], "--maps"),
        (["estimate", "one.csv", "two.csv", "--annotations", "ratings.csv", "--judge", "no"], "no judge 'no'"),
    ],
)
def test_mistakes_are_one_line(folder: Path, options: list[str], message: str) -> None:
    refused(typed(*options, cwd=folder), message)


def test_items_that_not_all_judges_scored_are_counted(folder: Path) -> None:
    pd.read_csv(folder / "two.csv")[:50].to_csv(folder / "two.csv", index=False)
    files = [f"{name}.csv" for name in JUDGES]
    found = read(on(folder, "agree", *files, "--annotations", "ratings.csv", "--json"))
    assert found["panel"]["gains"][0]["items"] == 50 and found["panel"]["gains"][0]["left_out"] == 10
    assert found["panel"]["remarks"] == [
        "On kind 10 rated items were not scored by all judges: the panel is without them."
    ]


def test_runs_are_judges_by_their_identity(example_run: Path, tmp_path: Path) -> None:
    """Two runs of one judge stand side by side under their folders' names; as a panel's they are one."""
    shutil.copytree(example_run, tmp_path / "first")
    shutil.copytree(example_run, tmp_path / "second")
    found = read(typed("agree", "first", "second", "--annotations", RATINGS, "--json", cwd=tmp_path))
    assert list(found["judges"]) == ["STAND-IN (first)", "STAND-IN (second)"]
    refused(typed("calibrate", "first", "second", "--annotations", RATINGS, cwd=tmp_path), "are one judge")
    # With another identity in its manifest the second run is another judge's.
    path = tmp_path / "second" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["judge"]["judge_id"] += "2"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    typed("calibrate", "first", "second", "--annotations", RATINGS, "--out", "p.json", cwd=tmp_path)
    used = typed("calibrate", "second", "first", "--use", "p.json", "--out", "c.csv", cwd=tmp_path)
    assert used.returncode == 0 and pd.read_csv(tmp_path / "c.csv")["calibrated"].notna().any()
