"""Forms as labs hand them in, through the command: every rating comes in, what is none is counted, remedies work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from judge.human_ratings.blinding import Key, Unblinded, write_key
from tests.helpers.annotators import expected, export, given, in_order, written
from tests.helpers.commands import Result, refused, typed

METRICS = ("fluency", "coherency")
KEY = Key(METRICS, {f"t{n}": Unblinded(f"s{n % 2}", "角色", str(n), "d", 0.5, 2) for n in range(6)})
ANNOTATORS = ("anna", "bo")
CELLS = given(KEY, ANNOTATORS)


@pytest.fixture
def hand_in(tmp_path: Path) -> Callable[..., Result]:
    """Reads a form of the folder by the command."""
    write_key(tmp_path / "key.json", KEY)

    def read(name: str, *more: str) -> Result:
        (tmp_path / "out.csv").unlink(missing_ok=True)
        return typed("import-annotations", name, "--key", "key.json", "--out", "out.csv", *more, cwd=tmp_path)

    return read


def all_came_in(folder: Path) -> bool:
    pd.testing.assert_frame_equal(in_order(written(folder / "out.csv")), expected(folder / "key.json", CELLS))
    return True


def sheet(annotator: str) -> pd.DataFrame:
    mine = CELLS[CELLS["annotator"] == annotator].pivot(index="task", columns="metric", values="score").reset_index()
    return mine.assign(annotator=annotator).rename_axis(columns=None)


def workbook(path: Path, **sheets: pd.DataFrame) -> None:
    with pd.ExcelWriter(path) as book:
        for name, table in sheets.items():
            table.to_excel(book, sheet_name=name, index=False)


OTHERS = {
    "comment": {"from_name": "comment", "to_name": "dialogue", "type": "textarea", "value": {"text": ["好"]}},
    "stars": {"from_name": "overall", "to_name": "dialogue", "type": "rating", "value": {"rating": 9}},
    "choices": {"from_name": "flags", "to_name": "dialogue", "type": "choices", "value": {"choices": ["a", "b"]}},
    "spans": {
        "id": "x",
        "from_name": "span",
        "to_name": "dialogue",
        "type": "paragraphlabels",
        "value": {"start": "0"},
    },
    "no value": {"from_name": "pair", "to_name": "dialogue", "type": "pairwise"},
    "relation": {"from_id": "x", "to_id": "y", "type": "relation", "direction": "right"},
}


def test_a_project_with_other_controls_beside_ours_gives_ours_and_counts_the_others(
    tmp_path: Path, hand_in: Callable[..., Result]
) -> None:
    tasks = [
        {"data": {"task": code, "raters": 2, "character": "角色", "profile": "", "dialogue": []}} for code in KEY.tasks
    ]
    exported: list[dict[str, object]] = json.loads(json.dumps(export(tasks, CELLS)))
    for task in exported:
        for annotation in task["annotations"]:  # type: ignore[attr-defined]
            annotation["result"] += OTHERS.values()
    (tmp_path / "export.json").write_text(json.dumps(exported), encoding="utf-8")
    result = hand_in("export.json")
    assert result.returncode == 0 and all_came_in(tmp_path)
    said = " ".join(result.stdout.split())
    for name, kind in (
        ("comment", "textarea"),
        ("overall", "rating"),
        ("flags", "choices"),
        ("span", "paragraphlabels"),
    ):
        assert f"answers to {name!r} ({kind}), which is no metric of this plan (12)" in said
    assert "results of kind 'relation', which are of no control (12)" in said


def test_both_sheets_of_a_form_come_in(tmp_path: Path, hand_in: Callable[..., Result]) -> None:
    workbook(tmp_path / "a.xlsx", A=sheet("anna"), B=sheet("bo").assign(comment="好"), C=pd.DataFrame({"note": ["x"]}))
    result = hand_in("a.xlsx")
    assert result.returncode == 0 and all_came_in(tmp_path)
    said = " ".join(result.stdout.split())
    assert "cells of column 'comment' (6)" in said and "records of sheet 'C'" in said


def test_a_second_sheet_under_another_heading_is_not_passed_over(
    tmp_path: Path, hand_in: Callable[..., Result]
) -> None:
    workbook(tmp_path / "a.xlsx", A=sheet("anna"), B=sheet("bo").rename(columns={"task": "Code"}))
    refused(hand_in("a.xlsx"), "sheet 'B': no column task (of Code", "--map task=COLUMN")
    assert hand_in("a.xlsx", "--map", "task=code").returncode == 0 and all_came_in(tmp_path)


def test_sheets_that_are_called_like_their_annotators(tmp_path: Path, hand_in: Callable[..., Result]) -> None:
    workbook(tmp_path / "a.xlsx", **{who: sheet(who).drop(columns="annotator") for who in ANNOTATORS})
    refused(hand_in("a.xlsx"), "no column annotator", "annotator=sheet for the names of the sheets")
    assert hand_in("a.xlsx", "--map", "annotator=sheet").returncode == 0 and all_came_in(tmp_path)


def test_a_metric_whose_column_was_deleted_is_named_and_its_cells_are_empty(
    tmp_path: Path, hand_in: Callable[..., Result]
) -> None:
    unrated = sheet("bo").iloc[:1].assign(task="t0", fluency=None, annotator=None)  # a row that nobody took
    pd.concat([sheet("anna"), unrated]).drop(columns="coherency").to_csv(tmp_path / "a.csv", index=False)
    result = hand_in("a.csv")
    said = " ".join(result.stdout.split())
    assert result.returncode == 0
    assert "cells of metric 'coherency', which has no column in a.csv; if its heading is another one, give" in said
    assert "--map coherency=HEADING (6)" in said
    assert f"; {6 + int(sheet('anna')['fluency'].isna().sum())} cells are empty" in said


def test_a_sheet_for_each_metric_leaves_no_cell_empty_that_is_filled(
    tmp_path: Path, hand_in: Callable[..., Result]
) -> None:
    both = pd.concat([sheet("anna"), sheet("bo")])
    workbook(tmp_path / "a.xlsx", **{metric: both[["task", "annotator", metric]] for metric in METRICS})
    result = hand_in("a.xlsx")
    said = " ".join(result.stdout.split())
    assert result.returncode == 0 and all_came_in(tmp_path)
    assert f"; {int(CELLS['score'].isna().sum())} cells are empty" in said
    assert "cells of metric 'coherency', which has no column in a.xlsx: sheet 'fluency'" in said


def test_both_sheets_of_a_table_of_ratings_are_compared_with_the_judge(tmp_path: Path) -> None:
    rated = written_ratings(tmp_path)
    mine = {who: rated[rated["annotator"] == who] for who in ANNOTATORS}
    workbook(tmp_path / "a.xlsx", A=mine["anna"], B=mine["bo"].assign(comment="好"))
    judged = rated.drop_duplicates(["source", "scenario", "metric"]).drop(columns="annotator")
    judged.to_csv(tmp_path / "scores.csv", index=False)
    rated.to_csv(tmp_path / "ratings.csv", index=False)
    found = [
        json.loads(typed("agree", "scores.csv", "--annotations", name, "--json", cwd=tmp_path).stdout)["metrics"]
        for name in ("a.xlsx", "ratings.csv")
    ]
    assert found[0] == found[1]


def written_ratings(folder: Path) -> pd.DataFrame:
    write_key(folder / "key.json", KEY)
    return expected(folder / "key.json", CELLS).drop(columns="inclusion_probability")
