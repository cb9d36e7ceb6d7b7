"""What annotators hand in, in every form that programs export it in: each rating comes back, the rest is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from judge.errors import InputError
from judge.human_ratings.blinding import Imported, Key, Unblinded, write_key
from judge.human_ratings.filled_in import import_files
from judge.prompting.rubric import load_rubric
from tests.helpers.annotators import expected, export, given, in_order

openpyxl = pytest.importorskip("openpyxl")

METRICS = ("fluency", "coherency")
KEY = Key(METRICS, {f"t{n}": Unblinded(f"s{n % 2}", "角色", str(n), "d", 0.5, 2) for n in range(4)})
CELLS = given(KEY, ["anna", "bo@example.com"])
"""Every task rated by two annotators on two metrics; some cells are left empty."""
FILLED = CELLS.dropna()


@pytest.fixture
def back(tmp_path: Path) -> Callable[..., Imported]:
    """Reads files and checks that they hold the ratings, and no others."""
    write_key(tmp_path / "key.json", KEY)

    def read(*paths: Path, cells: pd.DataFrame = CELLS, **mapping: str) -> Imported:
        imported = import_files(list(paths), KEY, mapping)
        pd.testing.assert_frame_equal(in_order(imported.ratings), expected(tmp_path / "key.json", cells))
        assert imported.empty == cells["score"].isna().sum()
        return imported

    return read


def saved(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def tasks() -> list[dict[str, Any]]:
    """Tasks as they are in a project: what ``plan`` wrote."""
    return [
        {"data": {"task": code, "raters": 2, "character": "角色", "profile": "", "dialogue": []}} for code in KEY.tasks
    ]


def studio(change: Callable[[list[Any]], None] = lambda tasks: None) -> list[Any]:
    """A project's JSON export."""
    found: list[Any] = export(tasks(), CELLS)
    change(found)
    return found


def flat(as_text: bool, value: Callable[[float], Any] = lambda score: f"{score:.0f}") -> list[dict[str, Any]]:
    """Rows as Label Studio's converter writes JSON-MIN and CSV: an annotation each, with columns of its own."""
    rows = []
    for number, (code, who) in enumerate(dict.fromkeys(zip(CELLS["task"], CELLS["annotator"], strict=True))):
        mine = FILLED[(FILLED["task"] == code) & (FILLED["annotator"] == who)]
        scores = {cell.metric: value(cell.score) for cell in mine.itertuples()}
        scores = {
            name: json.dumps(one) if as_text and not isinstance(one, str) else one for name, one in scores.items()
        }
        about = {"annotation_id": number, "created_at": "2026-01-01", "updated_at": "2026-01-01", "lead_time": 3.2}
        rows.append({"id": number, "task": code, "raters": 2, "character": "角色", "annotator": who, **about, **scores})
    # A task that nobody annotated is a row with no annotator.
    return [*rows, {"id": 99, "task": "t0", "annotator": None, "annotation_id": None}]


# Label Studio


def test_its_json_comes_back(tmp_path: Path, back: Callable[..., Imported]) -> None:
    assert back(saved(tmp_path / "a.json", studio())).notes == ()


@pytest.mark.parametrize(
    "value", [lambda s: f"{s:.0f}", lambda s: [{"rating": int(s)}], lambda s: [{"choices": [f"{s:.0f}"]}]]
)
def test_its_json_min_and_its_csv_come_back(
    tmp_path: Path, back: Callable[..., Imported], value: Callable[[float], Any]
) -> None:
    back(saved(tmp_path / "a.json", flat(False, value)))
    pd.DataFrame(flat(True, value)).to_csv(tmp_path / "a.csv", index=False)
    back(tmp_path / "a.csv")
    pd.DataFrame(flat(True, value)).to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    back(tmp_path / "a.tsv")


def test_what_was_skipped_drafted_or_asked_beside_is_counted(tmp_path: Path, back: Callable[..., Imported]) -> None:
    def change(found: list[Any]) -> None:
        found[0]["annotations"][0]["was_cancelled"] = True
        found[1]["drafts"] = [{"id": 1, "result": []}, {"id": 2, "result": []}]
        for task in found[:3]:
            task["annotations"][1]["result"].append(
                {"from_name": "comment", "to_name": "dialogue", "type": "textarea", "value": {"text": ["好"]}}
            )

    cells = CELLS[(CELLS["task"] != CELLS["task"][0]) | (CELLS["annotator"] != CELLS["annotator"][0])]
    assert set(back(saved(tmp_path / "a.json", studio(change)), cells=cells).notes) == {
        "Not read: annotations that were skipped or cancelled (1).",
        "Not read: drafts, which were not submitted (2).",
        "Not read: answers to 'comment' (textarea), which is no metric of this plan (3).",
    }


def test_controls_beside_ours_are_counted_in_its_csv_too(tmp_path: Path, back: Callable[..., Imported]) -> None:
    rows = [{**row, "comment": "好" if row["id"] < 3 else None} for row in flat(True)]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    assert back(tmp_path / "a.csv").notes == ("Not read: cells of column 'comment' (3).",)


def test_a_project_of_other_controls_says_what_it_has(tmp_path: Path) -> None:
    def change(found: list[Any]) -> None:
        for task in found:
            for one in task["annotations"]:
                one["result"] = [{"from_name": "mood", "type": "rating", "value": {"rating": 3}}]

    with pytest.raises(InputError, match=r"no rating in what was given; .*answers to 'mood' \(rating\)"):
        import_files([saved(tmp_path / "a.json", studio(change))], KEY, {})


def test_metrics_by_title_are_the_metrics(tmp_path: Path, back: Callable[..., Imported]) -> None:
    title = load_rubric("zh").metrics["fluency"].title
    back(saved(tmp_path / "a.json", json.dumps(studio()).replace('"from_name": "fluency"', f'"from_name": "{title}"')))
    pd.DataFrame(flat(True)).rename(columns={"fluency": title}).to_csv(tmp_path / "a.csv", index=False)
    back(tmp_path / "a.csv")


# Argilla


def nested(status: bool) -> list[dict[str, Any]]:
    """Records as ``dataset.records.to_json`` writes them; of argilla 2.8 without the status of a response."""
    records = []
    for code in KEY.tasks:
        responses: dict[str, list[Any]] = {}
        for cell in FILLED[FILLED["task"] == code].itertuples():
            told = {"status": "submitted"} if status else {}
            responses.setdefault(cell.metric, []).append({"value": int(cell.score), "user_id": cell.annotator, **told})
        about = {"id": f"r-{code}", "fields": {"dialogue": "…"}, "metadata": {"task": code}, "suggestions": {}}
        records.append({**about, "responses": responses, "vectors": {}, "status": "completed", "_server_id": "x"})
    return records


def flattened(value: Callable[[float], Any] = int) -> list[dict[str, Any]]:
    """Records as ``to_list(flatten=True)`` and ``to_datasets`` give them."""
    records = []
    for code in KEY.tasks:
        record: dict[str, Any] = {"id": f"r-{code}", "dialogue": "…", "task": code, "status": "completed"}
        for cell in FILLED[FILLED["task"] == code].itertuples():
            told = {"responses": value(cell.score), "responses.users": cell.annotator, "responses.status": "submitted"}
            for end, one in told.items():
                record.setdefault(f"{cell.metric}.{end}", []).append(one)
        records.append(record)
    return records


def answered() -> pd.DataFrame:
    """The cells of annotators who answered a task at all: an export has no others."""
    rated = FILLED.set_index(["task", "annotator"]).index
    return CELLS[CELLS.set_index(["task", "annotator"]).index.isin(rated)]


def test_argillas_records_come_back(tmp_path: Path, back: Callable[..., Imported]) -> None:
    assert back(saved(tmp_path / "a.json", nested(True)), cells=answered()).notes == ()
    assert "drafts count as ratings unless it is made with flatten=True" in " ".join(
        back(saved(tmp_path / "b.json", nested(False)), cells=answered()).notes
    )


@pytest.mark.parametrize("value", [int, lambda score: f"{score:.0f}"])
def test_argillas_flattened_records_come_back(
    tmp_path: Path, back: Callable[..., Imported], value: Callable[[float], Any]
) -> None:
    table = pd.DataFrame(flattened(value))
    table.to_parquet(tmp_path / "a.parquet")
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True, force_ascii=False)
    assert back(tmp_path / "a.parquet", cells=answered()).notes == ()
    assert back(tmp_path / "a.jsonl", cells=answered()).notes == ()


def test_argillas_drafts_and_what_was_discarded_are_counted(tmp_path: Path, back: Callable[..., Imported]) -> None:
    records = flattened()
    first, users = records[0], records[0]["fluency.responses.users"]
    for metric in KEY.metrics:
        for place, user in enumerate(first.get(f"{metric}.responses.users", [])):
            if user == users[0]:
                first[f"{metric}.responses.status"][place] = "draft"
    records[1] |= {"why.responses": ["好"], "why.responses.users": ["anna"], "why.responses.status": ["submitted"]}
    cells = answered()
    cells = cells[(cells["task"] != "t0") | (cells["annotator"] != users[0])]
    assert back(saved(tmp_path / "a.json", records), cells=cells).notes == (
        "Not read: responses that are drafts (1).",
        "Not read: answers to 'why', which is no metric of this plan (1).",
    )


# Sheets


def sheet(annotator: str, name: str | None = None) -> pd.DataFrame:
    """The sheet of an annotator, under the name they write."""
    mine = CELLS[CELLS["annotator"] == annotator].pivot(index="task", columns="metric", values="score").reset_index()
    return mine.assign(annotator=name or annotator).rename(columns={"task": "任务 [task]"}).rename_axis(columns=None)


def test_all_sheets_of_a_workbook_are_read(tmp_path: Path, back: Callable[..., Imported]) -> None:
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        pd.DataFrame({"每行一段对话。": ["规则"]}).to_excel(book, sheet_name="评分标准", index=False)
        for who in ("anna", "bo@example.com"):
            sheet(who).to_excel(book, sheet_name=who.split("@")[0], index=False)
        pd.DataFrame({"who": ["anna"], "age": [30]}).to_excel(book, sheet_name="people", index=False)
    assert back(tmp_path / "a.xlsx").notes == (
        "Not read: records of sheet 'people', which has no column task and none of a metric (1).",
    )


def test_spellings_of_a_name_are_one_annotator(tmp_path: Path, back: Callable[..., Imported]) -> None:
    parts = [sheet("anna")[:3], sheet("anna", "Ａnna ")[3:], sheet("bo@example.com")]
    pd.concat(parts).to_csv(tmp_path / "a.csv", index=False)
    assert back(tmp_path / "a.csv").notes == ("Annotator 'Ａnna' was read as 'anna' (ratings: 2).",)


@pytest.mark.parametrize("form", ["{}分", "{}/5", " {} ", "{}.0"])
def test_scores_may_be_written_as_people_do(tmp_path: Path, back: Callable[..., Imported], form: str) -> None:
    cells = CELLS.assign(score=["NA" if pd.isna(score) else form.format(int(score)) for score in CELLS["score"]])
    cells.to_csv(tmp_path / "a.csv", index=False)
    back(tmp_path / "a.csv")


def test_columns_may_be_mapped(tmp_path: Path, back: Callable[..., Imported]) -> None:
    headings = {"任务 [task]": "code", "fluency": "流畅", "coherency": "coherency"}
    sheet("anna")[list(headings)].rename(columns=headings).to_csv(tmp_path / "a.csv", index=False)
    mapping = {"task": "Code", "annotator": "'anna'", "fluency": "流畅"}
    back(tmp_path / "a.csv", cells=CELLS[CELLS["annotator"] == "anna"], **mapping)
    with pytest.raises(InputError, match=r"--map task=nummer: no such column \(found: code"):
        import_files([tmp_path / "a.csv"], KEY, {"task": "nummer"})
    with pytest.raises(InputError, match=r"no column task, annotator .*--map task=COLUMN,annotator=COLUMN"):
        import_files([tmp_path / "a.csv"], KEY, {})
