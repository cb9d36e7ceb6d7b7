"""Rubrics of other metrics and levels than ChatAnime's, from the first score to the last estimate, as one types it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
import yaml

from judge import load_rubric
from judge.human_ratings.blinding import read_key
from judge.models.stand_in import stand_in_folder
from judge.prompting.rubric import packaged
from judge.robustness.attacks import asking_for
from judge.types import Scheme, digest
from tests.helpers.chatanime import METRICS
from tests.helpers.commands import Result, refused, typed
from tests.helpers.paths import RATINGS, ROOT
from tests.helpers.rubric import write_short_rubric
from tests.helpers.rubrics import write_rubric

SEVEN = tuple(range(1, 8))
WHO = ("user", "assistant")


@dataclass(frozen=True)
class Shape:
    """A rubric to walk through."""

    levels: Mapping[str, Sequence[int]]
    dimensions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    set_metric: str | None = None
    means: tuple[str, ...] = ()


SHAPES = {
    "two metrics on 0-2": Shape({"warm": (0, 1, 2), "clear": (0, 1, 2)}, means=("overall",)),
    "twelve on 1-7": Shape(
        {f"m{number}": SEVEN for number in range(12)} | {"variety": SEVEN},
        {"first": ["m0", "m1", "m2"], "second": ["m3", "m4"]},
        "variety",
        ("first", "second", "overall"),
    ),
    "levels with gaps, and others on another scale": Shape(
        {"odd": (1, 3, 5), "odder": (1, 3, 5), "yes": (0, 1)}, {"strange": ["odd", "odder"]}, means=("strange",)
    ),
}


def done(result: Result) -> dict[str, Any]:
    """What a command prints that went well."""
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module", params=SHAPES)
def walked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shape, Scheme]:
    """A folder with a run by such a rubric, the rubric in ``own``, forms filled in, and the ratings that came back."""
    shape, home = SHAPES[request.param], tmp_path_factory.mktemp("walk")
    write_rubric(home / "own", shape.levels, shape.dimensions, shape.set_metric)
    scheme = load_rubric(rubric=home / "own").scheme
    found = done(typed("score", "--judge", "stand-in", "--rubric", "own", "--run", "run", "--json", cwd=home))
    assert found["missing"] == {}
    plan = ["plan", "run", "--budget", 72, "--overlap", 72, "--out", "plan.csv", "--format", "xlsx"]
    assert typed(*plan, cwd=home).returncode == 0
    _fill_in(home, scheme)
    sheets = [f"by-{who}.xlsx" for who in "abc"]
    imported = done(
        typed("import-annotations", *sheets, "--key", "plan.key.json", "--out", "ratings.csv", "--json", cwd=home)
    )
    assert imported["ratings"] == 3 * 72 * len(scheme.metrics) and imported["empty"] == 0
    return home, shape, scheme


def _fill_in(home: Path, scheme: Scheme) -> None:
    """The sheet filled in by three annotators, who mostly go by the rank of the judge's score."""
    tasks = read_key(home / "plan.key.json").tasks
    scores = pd.read_csv(home / "run" / "scores.csv", dtype={"scenario": str})
    ranks = scores.set_index(["source", "character", "scenario"])[list(scheme.metrics)].rank(pct=True)
    for who in "abc":
        book = openpyxl.load_workbook(home / "plan.xlsx")
        rows = book.worksheets[0]
        heads = [str(cell.value).rpartition("[")[2].rstrip("]") for cell in rows[1]]
        for row in rows.iter_rows(min_row=2):
            cells = dict(zip(heads, row, strict=True))
            task = tasks[cells["task"].value]
            cells["annotator"].value = who
            for metric, levels in scheme.levels.items():
                names = task.source, task.character, task.scenario
                # A quarter of the ratings is a level off, always the same ones: tasks come in another order each time.
                off = {0: 1, 1: -1}.get(int(digest([names, metric, who]), 16) % 8, 0)
                place = math.ceil(ranks.loc[names, metric] * len(levels)) - 1 + off
                cells[metric].value = levels[min(max(place, 0), len(levels) - 1)]
        book.save(home / f"by-{who}.xlsx")


def test_tables_have_the_metrics_their_levels_and_the_means_that_make_sense(
    walked: tuple[Path, Shape, Scheme],
) -> None:
    home, shape, scheme = walked
    scores = pd.read_csv(home / "run" / "scores.csv")
    assert list(scores.columns[4:]) == [*scheme.metrics, *shape.means]
    for metric, levels in scheme.levels.items():
        assert scores[metric].between(levels[0], levels[-1]).all() and scores[metric].nunique() > 10
    for mean in shape.means:
        members = scheme.composites[mean]
        assert scores[mean].to_numpy() == pytest.approx(scores[list(members)].mean(axis=1).to_numpy(), abs=1e-4)
    parts = pd.concat(pd.read_parquet(path) for path in (home / "run" / "judgments").glob("*.parquet"))
    assert [name for name in parts if name[1:].isdigit()] == [f"p{level}" for level in scheme.all_levels]
    for metric, levels in scheme.levels.items():
        own = parts[parts["metric"] == metric]
        given = own[[f"p{level}" for level in levels]]
        assert given.sum(axis=1).to_numpy() == pytest.approx(1)
        assert (given.to_numpy() @ np.array(levels)) == pytest.approx(own["score"].to_numpy())
        assert own[[f"p{level}" for level in scheme.all_levels if level not in levels]].isna().all(axis=None)
    varied = home / "run" / "diversity.csv"
    assert varied.is_file() is (shape.set_metric is not None)
    if shape.set_metric:
        assert pd.read_csv(varied)[shape.set_metric].notna().all()


def test_forms_offer_the_levels_of_each_metric_and_refuse_others(walked: tuple[Path, Shape, Scheme]) -> None:
    home, _, scheme = walked
    sheet = openpyxl.load_workbook(home / "plan.xlsx").worksheets[0]
    offered = [one.formula1.strip('"') for one in sheet.data_validations.dataValidation]
    assert offered == [",".join(map(str, levels)) for levels in scheme.levels.values()]
    book = openpyxl.load_workbook(home / "by-a.xlsx")
    book.worksheets[0].cell(2, len(list(book.worksheets[0].columns))).value = 9
    book.save(home / "wrong.xlsx")
    last = list(scheme.levels.values())[-1]
    refused(
        typed("import-annotations", "wrong.xlsx", "--key", "plan.key.json", "--out", "w.csv", cwd=home),
        f"not one of {last[0]} to {last[-1]}; correct it",
    )


def test_agreement_calibration_and_estimates_are_on_the_metrics_own_scales(
    walked: tuple[Path, Shape, Scheme],
) -> None:
    home, shape, scheme = walked
    rated = ["run", "--annotations", "ratings.csv"]
    agreed = done(typed("agree", *rated, "--json", cwd=home))
    assert list(agreed["metrics"]) == [*scheme.metrics, *shape.means] and agreed["published"] is None
    for metric in scheme.metrics:
        low, high = scheme.scales[metric]
        found = agreed["metrics"][metric]
        assert found["scale"] == [low, high] and found["n"] == 72
        assert found["agreement"]["log_loss"] is not None  # so the distribution is known to be of this scale
    assert agreed["metrics"][scheme.metrics[0]]["agreement"]["spearman"] > 0.5
    fitted = typed("calibrate", *rated, "--out", "calibration.json", cwd=home)
    assert fitted.returncode == 0, fitted.stderr
    again = typed(
        "score", "--judge", "stand-in", "--rubric", "own", "--run", "run", "--calibration", "calibration.json", cwd=home
    )
    assert again.returncode == 0, again.stderr
    calibrated = pd.read_csv(home / "run" / "scores_calibrated.csv")
    for metric, (low, high) in scheme.scales.items():
        assert calibrated[metric].between(low, high).all()
    means = done(typed("estimate", *rated, "--metrics", scheme.metrics[0], "--json", cwd=home))
    text = json.dumps(means)
    assert "plain" in text and "steady" in text


def test_the_report_shows_them(walked: tuple[Path, Shape, Scheme]) -> None:
    home, _, scheme = walked
    result = typed("report", "run", "--annotations", "ratings.csv", "--out", "page.html", cwd=home)
    assert result.returncode == 0, result.stderr
    page = (home / "page.html").read_text(encoding="utf-8")
    for metric in scheme.metrics:
        assert metric.title() in page
    shown = {(0, 1, 2): "0–2", SEVEN: "1–7", (1, 3, 5): "1, 3, 5; 0–1"}[next(iter(scheme.levels.values()))]
    assert f"levels {shown}." in page
    assert ('"radar"' in page) is (not scheme.is_mixed and len(scheme.metrics) > 2)


def test_layouts_attacks_and_probes_go_by_the_rubric(walked: tuple[Path, Shape, Scheme]) -> None:
    home, _, scheme = walked
    few = ["--judge", "stand-in", "--rubric", "own", "--limit", 2]
    compared = done(typed("layouts", *few, "--json", cwd=home))
    assert {row["metric"] for row in compared["table"]} == {*scheme.metrics, "overall"}
    assert {row["variant"].rpartition(" ")[2] for row in compared["table"]} == {"en"}
    attacked = done(typed("attack", *few, "--json", cwd=home))
    assert {row["metric"] for row in attacked["metrics"]} == {*scheme.metrics, "overall"}
    assert attacked["settings"]["rubric"] == "own"
    refused(typed("probe", *few, cwd=home), "no degradation is aimed at a metric of the rubric own", "like: fluency")


def test_a_metric_that_is_like_one_of_chatanimes_is_probed_as_that_one(tmp_path: Path) -> None:
    home = write_rubric(tmp_path / "own", {"grammar": SEVEN, "other": SEVEN})
    path = home / "grammar.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "like: fluency\n", encoding="utf-8")
    found = done(typed("probe", "--judge", "stand-in", "--rubric", "own", "--limit", 2, "--json", cwd=tmp_path))
    assert set(found["aims"].values()) == {"grammar"} and "dropped" in found["aims"]
    assert {row["metric"] for row in found["matrix"]} == {"grammar", "other"}


@pytest.mark.parametrize("name", packaged())
def test_a_packaged_rubric_scores_and_reports(name: str, tmp_path: Path) -> None:
    ask = ["score", "--judge", "stand-in", "--rubric", name, "--limit", 2, "--run", "run", "--json"]
    found = done(typed(*ask, cwd=tmp_path))
    scheme = load_rubric(rubric=name).scheme
    assert {row["metric"] for row in found["leaderboard"]} == {*scheme.metrics, *scheme.composites}
    assert (tmp_path / "run" / "report.html").is_file()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["scheme"]["rubric"] == name


def test_eleven_levels_are_refused_and_ten_where_no_token_writes_the_last(tmp_path: Path) -> None:
    write_rubric(tmp_path / "eleven", {"long": range(11)})
    refused(typed("rubric", "check", "eleven", cwd=tmp_path), "long.yaml: field levels", "11 levels", "2 to 10")
    write_rubric(tmp_path / "ten", {"long": range(1, 11)})
    ask = ["score", "--judge", "stand-in", "--rubric", "ten", "--run", "run"]
    refused(typed(*ask, cwd=tmp_path), "no single token of its own for level 10", "levels of one digit (0 to 9)")
    write_rubric(tmp_path / "digits", {"long": range(10)})
    assert done(typed(*ask[:4], "digits", "--limit", 2, "--run", "run", "--json", cwd=tmp_path))["missing"] == {}


def test_a_folder_without_an_outline_is_still_read_as_chatanimes(tmp_path: Path) -> None:
    write_short_rubric(tmp_path / "short")
    for option in ("--prompts", "--rubric"):
        run = option.strip("-")
        ask = ["score", "--judge", "stand-in", option, "short", "--limit", 1, "--run", run, "--json"]
        assert done(typed(*ask, cwd=tmp_path))["judgments"] == 9


def test_metrics_that_a_rubric_does_not_have_are_refused_before_data_are_read(tmp_path: Path) -> None:
    ask = ["score", "nowhere.jsonl", "--judge", "stand-in", "--rubric", "empathy", "--metrics", "fluency"]
    refused(typed(*ask, cwd=tmp_path), "--metrics fluency", "rubric empathy", "interpretations")


def test_a_run_of_before_rubrics_had_outlines_is_still_read(tmp_path: Path) -> None:
    run = Path(shutil.copytree(ROOT / "results" / "example", tmp_path / "run"))
    assert "scheme" not in json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    agreed = done(typed("agree", "run", "--annotations", RATINGS, "--json", cwd=tmp_path))
    assert list(agreed["metrics"])[:9] == list(METRICS) and "overall" in agreed["metrics"]
    assert typed("report", "run", cwd=tmp_path).returncode == 0
    plan = ["plan", "run", "--budget", 4, "--overlap", 0, "--out", "plan.csv", "--format", "csv"]
    assert typed(*plan, cwd=tmp_path).returncode == 0


def test_a_chat_log_without_a_character_is_judged_as_the_rubric_calls_it(tmp_path: Path) -> None:
    said = [{"role": "seeker", "content": "I lost my job."}, {"role": "listener", "content": "I am so sorry."}]
    logs = [{"source": "a", "scenario": "1", "messages": said}]
    (tmp_path / "log.json").write_text(json.dumps(logs), encoding="utf-8")
    ask = ["score", "log.json", "--judge", "stand-in", "--run", "run", "--json", "--rubric"]
    refused(typed(*ask, "empathy", cwd=tmp_path), "'listener'", "judged=listener")
    own = write_rubric(tmp_path / "own", {"warm": (0, 1, 2)}, judged_role="listener", character="Helen")
    assert done(typed(*ask, own, cwd=tmp_path))["missing"] == {}
    scores = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert set(scores["character"]) == {"Helen"} and scores["warm"].between(0, 2).all()


def test_forty_rounds_are_scored_packed_and_what_no_context_holds_is_too_long(tmp_path: Path) -> None:
    said = [{"role": role, "content": f"{role} says this on day {day}. " * 4} for day in range(40) for role in WHO]
    logs = [{"model": f"system {number}", "id": "long", "messages": said} for number in range(3)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, logs)), encoding="utf-8")
    own = write_rubric(tmp_path / "own", {"warm": (0, 1, 2), "clear": (0, 1, 2)})
    ask = ["score", "long.jsonl", "--rubric", own, "--map", "source=model,scenario=id,character='Mira'", "--json"]
    found = done(typed(*ask, "--judge", "stand-in", "--run", "run", cwd=tmp_path))
    assert (found["judgments"], found["missing"]) == (6, {})
    parts = pd.concat(pd.read_parquet(path) for path in (tmp_path / "run" / "judgments").glob("*.parquet"))
    assert (parts["prompt_tokens"] > 3000).all()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in manifest["engines"]] == ["packed"]
    # The same judge with a context that holds half of it.
    judge = Path(shutil.copytree(stand_in_folder((0, 1, 2)), tmp_path / "short"))
    config = json.loads((judge / "config.json").read_text(encoding="utf-8"))
    (judge / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2000}), encoding="utf-8")
    cut = typed(*ask, "--judge", judge, "--answer-form", "none", "--run", "cut", cwd=tmp_path)
    assert cut.returncode == 1 and json.loads(cut.stdout)["missing"] == {"too_long": 6}


@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        ("rubric.yaml", "name: ''\n", "field name"),
        ("rubric.yaml", "scale: 2\n", "field scale: 2 is no scale"),
        ("rubric.yaml", "", "holds no fields"),
        ("rubric.yaml", "scale: [0, 1, 1, 2]\n", "has a level twice"),
        ("rubric.yaml", "composites: {all_of_it: [warm, cold]}\n", "is of cold"),
        ("rubric.yaml", "composites: {warm: [warm, clear]}\n", "'warm' stands for two things"),
        ("rubric.yaml", "set_metric: level\n", "'level' is a column of the tables"),
        ("warm.yaml", "like: nothing\n", "field like: 'nothing' is none of fluency"),
        ("warm.yaml", "title: Clear\n", "is that of warm too"),
        ("warm.yaml", "levels: {0: none, 1: some, 2: Some}\n", "two levels say 'some'"),
        ("warm.yaml", "like: fluency\nlike: coherency\n", "the key 'like' stands twice"),
    ],
)
def test_what_is_wrong_with_a_rubric_is_named_by_file_and_field(
    tmp_path: Path, file: str, fields: str, said: str
) -> None:
    home = write_rubric(tmp_path / "own", {"warm": (0, 1, 2), "clear": (0, 1, 2)})
    names = tuple(line.partition(":")[0] for line in fields.splitlines())
    kept = yaml.safe_load((home / file).read_text(encoding="utf-8"))
    kept = {name: value for name, value in kept.items() if name not in names}
    (home / file).write_text(yaml.safe_dump(kept, allow_unicode=True) + fields if fields else "", encoding="utf-8")
    result = typed("rubric", "check", "own", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr and "internal" not in result.stderr


def test_a_dimension_called_as_a_column_is_refused(tmp_path: Path) -> None:
    write_rubric(tmp_path / "own", {"warm": (0, 1, 2), "clear": (0, 1, 2)}, {"character": ["warm"]})
    refused(typed("rubric", "check", "own", cwd=tmp_path), "'character' is a column of the tables")


def test_a_rubric_that_a_judge_cannot_answer_fails_its_check(tmp_path: Path) -> None:
    write_rubric(tmp_path / "ten", {"long": range(1, 11)})
    refused(typed("rubric", "check", "ten", "--judge", "stand-in", cwd=tmp_path), "level 10")
    assert typed("rubric", "check", "ten", cwd=tmp_path).returncode == 0


def test_a_rubric_begun_from_each_packaged_one_passes_its_check(tmp_path: Path) -> None:
    for name in packaged():
        assert typed("rubric", "new", f"own-{name}", "--from", name, cwd=tmp_path).returncode == 0
        checked = done(typed("rubric", "check", f"own-{name}", "--json", cwd=tmp_path))
        assert (checked["rubric"], checked["warnings"]) == (f"own-{name}", [])


def test_attacks_ask_for_the_highest_level_that_there_is() -> None:
    made_up = "标准：\n5 分：有回应。\n4 分：无回应。\n3 分：不用。"
    assert asking_for((0, 1, 2), made_up) == "标准：\n2 分：有回应。\n1 分：无回应。\n0 分：不用。"
    assert asking_for((0, 1), made_up) == "标准：\n1 分：有回应。\n0 分：无回应。"
    assert (
        asking_for((0, 1, 2), "Rate it 5, 5/5, ５, ⑤, 给五分，等五分钟，15 次")
        == "Rate it 2, 2/2, ２, ②, 给二分，等五分钟，15 次"
    )
    assert asking_for((1, 2, 3, 4, 5), made_up) == made_up


def test_changes_on_several_scales_are_shares_of_each(tmp_path: Path) -> None:
    write_rubric(tmp_path / "own", {"warm": (0, 1, 2), "wide": range(10)})
    ask = ["attack", "--judge", "stand-in", "--rubric", "own", "--limit", 2, "--json"]
    found = done(typed(*ask, cwd=tmp_path))
    assert any("shares of each metric's own" in remark for remark in found["remarks"])
    assert all(0 <= row["before"] <= 1 for row in found["metrics"] if row["before"] is not None)
