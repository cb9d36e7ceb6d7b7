"""Forms for annotators out and ratings in: nothing is lost on the way, nothing wrong gets in, no text is obeyed."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from calibration import read_ratings
from judge.files import FORMULA
from judge.human_ratings.blinding import read_key
from tests.helpers.annotators import ANNOTATORS, PLANNED, expected, export, given, write_data, written
from tests.helpers.chatanime import METRICS
from tests.helpers.commands import refused, typed
from tests.helpers.paths import EXAMPLE, ROOT

openpyxl = pytest.importorskip("openpyxl")
RUN = ROOT / "results" / "example"


class Planned:
    """A plan with forms in a folder, and the command that reads them back."""

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self.key = folder, folder / "plan.key.json"
        write_data(folder)
        self.result = typed("plan", "scores.parquet", *PLANNED, "--format", form, "--out", "plan.csv", cwd=folder)
        assert self.result.returncode == 0, self.result.stderr
        self.cells = given(read_key(self.key))

    def read_back(self, *files: object) -> Any:
        return typed("import-annotations", *files, "--key", "plan.key.json", "--out", "ratings.csv", cwd=self.folder)

    def comes_back(self, *files: object) -> None:
        result = self.read_back(*files)
        assert (result.returncode, result.stderr) == (0, "")
        table = written(self.folder / "ratings.csv")
        pd.testing.assert_frame_equal(table, expected(self.key, self.cells))
        assert set(table["annotator"]) == set(ANNOTATORS)
        empty = int(self.cells["score"].isna().sum())
        assert 0 < empty < len(self.cells) / 3 and f"{empty:,} cells are empty" in result.stdout

    def tasks(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "plan.label-studio.json").read_text(encoding="utf-8"))

    def exported(self, change: Callable[[list[Any]], None] = lambda tasks: None) -> str:
        tasks = export(self.tasks(), self.cells)
        change(tasks)
        (self.folder / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
        return "export.json"

    def filled(self, annotator: str) -> pd.DataFrame:
        """The sheet as one annotator hands it in."""
        table = pd.read_csv(self.folder / "plan.sheet.csv", dtype=str, keep_default_na=False, encoding="utf-8-sig")
        mine = self.cells[self.cells["annotator"] == annotator].pivot(index="task", columns="metric", values="score")
        codes = table["任务 [task]"]
        for heading in (name for name in table if name.endswith("]") and name.split("[")[1][:-1] in METRICS):
            scores = codes.map(mine[heading.split("[")[1][:-1]])
            table[heading] = ["" if pd.isna(score) else f"{score:.0f}" for score in scores]
        table["评分者 [annotator]"] = [annotator if code in mine.index else "" for code in codes]
        return table


@pytest.fixture
def studio(tmp_path: Path) -> Planned:
    return Planned(tmp_path, "label-studio")


# There and back


def test_ratings_from_label_studio_come_back(studio: Planned) -> None:
    studio.comes_back(studio.exported())


def test_ratings_from_csv_sheets_come_back(tmp_path: Path) -> None:
    planned = Planned(tmp_path, "csv")
    for number, annotator in enumerate(ANNOTATORS):
        planned.filled(annotator).to_csv(tmp_path / f"{number}.csv", index=False)
    planned.comes_back("0.csv", "1.csv", "2.csv")


def test_ratings_from_workbooks_come_back(tmp_path: Path) -> None:
    planned = Planned(tmp_path, "xlsx")
    for number, annotator in enumerate(ANNOTATORS):
        book = openpyxl.load_workbook(tmp_path / "plan.xlsx")
        sheet = book.worksheets[0]
        columns = {str(cell.value).split("[")[1][:-1]: cell.column for cell in sheet[1]}
        mine = planned.cells[planned.cells["annotator"] == annotator].dropna().groupby("task")
        for row in range(2, sheet.max_row + 1):
            if (code := sheet.cell(row, columns["task"]).value) in mine.groups:
                sheet.cell(row, columns["annotator"]).value = annotator
                sheet.cell(row, columns["annotator"]).data_type = "s"
                for cell in mine.get_group(code).itertuples():
                    sheet.cell(row, columns[cell.metric]).value = int(cell.score)
        book.save(tmp_path / f"{number}.xlsx")
    planned.comes_back("0.xlsx", "1.xlsx", "2.xlsx")


def test_ratings_from_a_long_table_come_back(studio: Planned) -> None:
    studio.cells.to_csv(studio.folder / "long.csv", index=False)
    studio.comes_back("long.csv")


def test_what_comes_back_is_what_calibration_reads_and_keeps_its_chances(studio: Planned) -> None:
    studio.cells["annotator"] = studio.cells["annotator"].replace(ANNOTATORS[2], "c")
    result = studio.read_back(studio.exported(), "--json")
    facts = json.loads(result.stdout)
    ratings = read_ratings(studio.folder / "ratings.csv")
    assert len(ratings) == facts["ratings"] == studio.cells["score"].notna().sum()
    assert facts["annotators"] == sorted(["王", "b@example.com", "c"])
    assert (facts["tasks"], facts["rated"], facts["rated_by_all"]) == (12, 12, 12)
    assert {row["metric"] for row in facts["agreement"]} == set(METRICS)
    chances = {task.inclusion_probability for task in read_key(studio.key).tasks.values()}
    assert set(ratings["inclusion_probability"]) == chances


def test_people_who_agree_are_said_to(studio: Planned) -> None:
    levels = {code: float(1 + number % 5) for number, code in enumerate(read_key(studio.key).tasks)}
    studio.cells["score"] = studio.cells["task"].map(levels)
    agreement = json.loads(studio.read_back(studio.exported(), "--json").stdout)["agreement"]
    assert [row["alpha_ordinal"] for row in agreement] == [pytest.approx(1.0)] * len(METRICS)
    studio.cells["score"] = [1.0 if who == ANNOTATORS[0] else 5.0 for who in studio.cells["annotator"]]
    agreement = json.loads(studio.read_back(studio.exported(), "--json").stdout)["agreement"]
    assert all(row["alpha_ordinal"] < 0 for row in agreement)


def test_an_annotation_that_was_skipped_is_none(studio: Planned) -> None:
    def skip(tasks: list[Any]) -> None:
        tasks[0]["annotations"][0]["was_cancelled"] = True

    code, who = studio.tasks()[0]["data"]["task"], ANNOTATORS[0]
    name = studio.exported(skip)
    studio.cells = studio.cells[(studio.cells["task"] != code) | (studio.cells["annotator"] != who)]
    studio.comes_back(name)


# Blind


@pytest.mark.parametrize("form", ["label-studio", "csv", "xlsx"])
def test_forms_do_not_tell_the_source_nor_the_order(tmp_path: Path, form: str) -> None:
    typed("plan", RUN, "--budget", "40", "--format", form, "--out", "plan.csv", cwd=tmp_path)
    key = json.loads((tmp_path / "plan.key.json").read_text(encoding="utf-8"))["tasks"]
    names = ["source", "character", "scenario"]
    planned = pd.read_csv(tmp_path / "plan.csv", dtype=str).rename(columns={"group": "scenario"})[names]
    handed_out = pd.DataFrame(key.values())[names]
    assert set(planned.itertuples(index=False, name=None)) == set(handed_out.itertuples(index=False, name=None))
    assert planned["source"].nunique() == 2 and not handed_out.equals(planned)
    files = [path for path in tmp_path.iterdir() if path.name not in ("plan.csv", "plan.key.json")]
    for path in files:
        texts = (
            path.read_text(encoding="utf-8") if path.suffix != ".xlsx" else str([cell.value for cell in cells(path)])
        )
        assert "steady" not in texts and "plain" not in texts
        assert path.suffix == ".xml" or all(code in texts for code in key)
    assert len(files) == (2 if form == "label-studio" else 1)


def test_a_plan_of_the_same_draw_has_new_codes(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        typed("plan", RUN, "--budget", "40", "--format", "csv", "--out", name, cwd=tmp_path)
    a, b = (read_key(tmp_path / f"{name}.key.json") for name in "ab")
    assert not set(a.tasks) & set(b.tasks)
    assert {str(task) for task in a.tasks.values()} == {str(task) for task in b.tasks.values()}


# No text is obeyed


def cells(path: Path) -> list[Any]:
    return [cell for sheet in openpyxl.load_workbook(path) for row in sheet.iter_rows() for cell in row if cell.value]


def test_no_text_of_a_workbook_is_a_formula(tmp_path: Path) -> None:
    Planned(tmp_path, "xlsx")
    found = cells(tmp_path / "plan.xlsx")
    assert {cell.data_type for cell in found} == {"s", "n"}
    risky = [cell for cell in found if str(cell.value).startswith(("=", "+", "-", "@"))]
    assert risky and all(cell.quotePrefix for cell in risky)
    assert any("window.pwned" in str(cell.value) for cell in found)
    assert not any("\r" in str(cell.value) for cell in found)


def test_no_text_of_a_csv_sheet_is_a_formula(tmp_path: Path) -> None:
    Planned(tmp_path, "csv")
    with (tmp_path / "plan.sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        found = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in found if not cell.startswith("'") and FORMULA.match(cell)]
    assert any(cell.startswith("'=") for cell in found)
    assert (tmp_path / "plan.sheet.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_texts_reach_label_studio_as_they_are(studio: Planned) -> None:
    lines = (studio.folder / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    known = {(d["source"], d["character"], d["scenario"]): d for d in map(json.loads, lines)}
    key = read_key(studio.key)
    for task in studio.tasks():
        about = key.tasks[task["data"]["task"]]
        one = known[(about.source, about.character, about.scenario)]
        assert (task["data"]["character"], task["data"]["profile"]) == (one["character"], one["profile"])
        said = [turn[side] for turn in one["turns"] for side in ("user", "character")]
        assert [speech["text"] for speech in task["data"]["dialogue"]] == said


def test_the_labelling_configuration_offers_each_anchor_and_no_text_of_a_rubric_is_markup(tmp_path: Path) -> None:
    home = tmp_path / "rubric"
    home.mkdir()
    for path in (ROOT / "prompts" / "chatanime" / "zh").iterdir():
        text = path.read_text(encoding="utf-8")
        (home / path.name).write_text(text.replace("只看语言本身", '<script>"$task" &'), encoding="utf-8")
    how = ["--budget", "40", "--format", "label-studio", "--prompts", "rubric", "--out", "plan.csv"]
    assert typed("plan", RUN, *how, cwd=tmp_path).returncode == 0
    config = ElementTree.parse(tmp_path / "plan.label-studio.xml")
    choices = {one.get("name"): [c.get("alias") for c in one] for one in config.iter("Choices")}
    assert choices == {metric: ["1", "2", "3", "4", "5"] for metric in METRICS}
    values = [one.get("value", "") for one in config.iter()]
    assert any(value.startswith('<script>"＄task" &：') for value in values)
    fields = {value for value in values if value.startswith("$")}
    assert fields == {"$character", "$profile", "$dialogue"}


def test_a_text_longer_than_a_cell_is_refused_and_not_cut(tmp_path: Path) -> None:
    write_data(tmp_path)
    long = (tmp_path / "dialogues.jsonl").read_text(encoding="utf-8").replace("+1+1", "长" * 32_768)
    (tmp_path / "dialogues.jsonl").write_text(long, encoding="utf-8")
    scores = pd.read_parquet(tmp_path / "scores.parquet").replace("+1+1", "长" * 32_768)
    scores.to_parquet(tmp_path / "scores.parquet")
    result = typed("plan", "scores.parquet", *PLANNED, "--format", "xlsx", "--out", "plan.csv", cwd=tmp_path)
    refused(result, "32,768 characters", "--format label-studio or csv")
    assert not list(tmp_path.glob("plan*"))


# Nothing wrong gets in


def change_result(**changed: Any) -> Callable[[list[Any]], None]:
    def change(tasks: list[Any]) -> None:
        tasks[2]["annotations"][0]["result"][0] |= changed

    return change


def again(tasks: list[Any]) -> None:
    tasks[2]["annotations"].append({**tasks[2]["annotations"][0], "id": 99})


WRONG_EXPORTS: dict[str, tuple[Callable[[list[Any]], None], tuple[str, ...]]] = {
    "rating of 9": (change_result(type="rating", value={"rating": 9}), ("record 3", "is 9, not one of 1 to 5")),
    "half a star": (change_result(type="rating", value={"rating": 2.5}), ("record 3", "is 2.5, not one of")),
    "two choices": (change_result(value={"choices": ["1", "2"]}), ("record 3", "2 choices")),
    "no choice": (change_result(value={"choices": []}), ("record 3", "0 choices")),
    "unknown kind": (change_result(type="textarea"), ("record 3", "kind 'textarea'")),
    "broken result": (change_result(value=None), ("record 3", "neither a rating nor a choice")),
    "unknown task": (lambda tasks: tasks[2]["data"].update(task="t1"), ("record 3", "'t1' is not of this plan")),
    "no task": (lambda tasks: tasks[2].pop("data"), ("record 3", "no data.task")),
    "not a task": (lambda tasks: tasks.insert(0, 7), ("record 1", "not a JSON object")),
    "no result": (lambda tasks: tasks[2]["annotations"][0].pop("result"), ("record 3", "without a result")),
    "nobody": (lambda tasks: tasks[2]["annotations"][0].pop("completed_by"), ("record 3", "no annotator is named")),
    "twice": (again, ("record 3, annotation 99", "already at export.json: record 3, annotation")),
}


@pytest.mark.parametrize(("change", "parts"), WRONG_EXPORTS.values(), ids=WRONG_EXPORTS)
def test_a_wrong_export_is_refused_by_file_and_record(
    studio: Planned, change: Callable[[list[Any]], None], parts: tuple[str, ...]
) -> None:
    result = studio.read_back(studio.exported(change))
    assert (result.returncode, result.stdout) == (2, "")
    assert all(any(part in line for line in result.stderr.splitlines()) for part in ("export.json", *parts))
    assert "Traceback" not in result.stderr and not (studio.folder / "ratings.csv").exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda t: t.assign(**{"流畅性 [fluency]": "6"}), ("'6', not one of 1 to 5",)),
        (lambda t: t.assign(**{"流畅性 [fluency]": "=2+2"}), ("'=2+2', not one of",)),
        (lambda t: t.assign(**{"评分者 [annotator]": " "}), ("no annotator is named",)),
        (lambda t: t.assign(**{"任务 [task]": "t0"}), ("'t0' is not of this plan",)),
        (lambda t: t.drop(columns="任务 [task]"), ("no column task",)),
        (lambda t: t.assign(**{"心情 [mood]": "3"}), ("'mood' is of no metric",)),
        (lambda t: t.assign(fluency="3"), ("'fluency' is there twice",)),
        (lambda t: t.iloc[:, :6], ("no column of a metric",)),
        (lambda t: t.assign(**{name: "" for name in t.columns[6:]}), ("no rating in what was given",)),
    ],
    ids=["6", "formula", "nobody", "unknown task", "no task", "unknown metric", "twice", "no metric", "empty"],
)
def test_a_wrong_sheet_is_refused(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], parts: tuple[str, ...]
) -> None:
    planned = Planned(tmp_path, "csv")
    sheet = planned.filled(ANNOTATORS[0])
    change(sheet[sheet["评分者 [annotator]"] != ""][:1]).to_csv(tmp_path / "sheet.csv", index=False)
    result = planned.read_back("sheet.csv")
    assert (result.returncode, result.stdout) == (2, "") and len(result.stderr.splitlines()) <= 11
    assert all(part in result.stderr for part in parts), result.stderr


def test_the_same_sheet_twice_is_refused(tmp_path: Path) -> None:
    planned = Planned(tmp_path, "csv")
    for name in ("a.csv", "b.csv"):
        planned.filled(ANNOTATORS[0])[:1].to_csv(tmp_path / name, index=False)
    refused(planned.read_back("a.csv", "b.csv"), "b.csv: record 1", "already at a.csv: record 1")


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", b'{"a": 1}', "not JSON with a list of records"),
        ("a.json", '["\u5206"]'.encode("gbk"), "not a JSON object"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.xlsx", b"PK\x03\x04", "not a workbook"),
        ("a.csv", "分,task\n2,t".encode("gbk"), "no column annotator"),
        ("a.txt", b"", "cannot tell its format"),
    ],
)
def test_a_file_that_is_none_is_refused(studio: Planned, name: str, content: bytes, part: str) -> None:
    (studio.folder / name).write_bytes(content)
    refused(studio.read_back(name), name, part)


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.xlsx"])
def test_a_file_that_is_not_there_is_refused(studio: Planned, name: str) -> None:
    refused(studio.read_back(name), name)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"metrics": ["fluency"], "tasks": {"t": {}}}', b"\xff"])
def test_a_key_that_is_none_is_refused(studio: Planned, content: bytes) -> None:
    studio.key.write_bytes(content)
    refused(studio.read_back(studio.exported()) if content else studio.read_back("x.json"), "--key plan.key.json")


def test_a_key_of_another_plan_knows_none_of_the_tasks(
    studio: Planned, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Planned(tmp_path_factory.mktemp("other"), "label-studio")
    name = studio.exported()
    studio.key.write_bytes(other.key.read_bytes())
    result = studio.read_back(name)
    assert result.returncode == 2 and "is not of this plan" in result.stderr


def test_an_old_key_is_not_overwritten(studio: Planned) -> None:
    before = studio.key.read_bytes()
    how = ["plan", "scores.parquet", *PLANNED, "--format", "csv", "--out", "plan.csv"]
    refused(typed(*how, cwd=studio.folder), "plan.key.json", "another --out")
    assert studio.key.read_bytes() == before


def test_texts_that_changed_since_they_were_judged_are_not_handed_out(tmp_path: Path) -> None:
    for path in EXAMPLE:
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace("。", "！"), encoding="utf-8")
    how = ["plan", RUN, "--budget", "40", "--format", "csv", "--out", "plan.csv", "--data"]
    refused(
        typed(*how, "plain.json", "--data", "steady.json", cwd=tmp_path),
        "not in plain.json, steady.json as it was judged",
    )
    refused(typed(*how, "plain.json", cwd=tmp_path), "plain.json", "--data")
    assert not list(tmp_path.glob("plan.*"))


def test_a_table_needs_the_texts_and_our_metrics(tmp_path: Path) -> None:
    write_data(tmp_path)
    how = ["--budget", "4", "--overlap", "0", "--format", "csv", "--out", "plan.csv"]
    refused(typed("plan", "scores.parquet", *how, cwd=tmp_path), "a table has no texts", "--data")
    pd.read_parquet(tmp_path / "scores.parquet").assign(metric="mood").drop_duplicates().to_parquet(
        tmp_path / "mood.parquet"
    )
    planned = typed("plan", "mood.parquet", *how, "--data", "dialogues.jsonl", cwd=tmp_path)
    refused(planned, "has no metric 'mood'", "--rubric")


def test_a_workbook_saved_by_another_program_warns_of_nothing(tmp_path: Path) -> None:
    """openpyxl warns of what it does not know of a workbook; nobody can do anything about that."""
    planned = Planned(tmp_path, "xlsx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(planned.read_back("plan.xlsx"), "no rating in what was given")
