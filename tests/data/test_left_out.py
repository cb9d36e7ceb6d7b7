"""What a folder, workbook or file holds is read, or it is said that it is not; each remedy works when followed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.commands import Result, refused, typed


def row(scenario: object, answer: object = "好的") -> dict[str, object]:
    return {"source": "m", "character": "c", "scenario": str(scenario), "question_r1": "你好", "answer_r1": answer}


def lines(*rows: object) -> str:
    return "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in rows)


def preview(path: Path, *more: str) -> Result:
    return typed("data", "preview", path, *more, cwd=path.parent)


def dialogues(result: Result) -> int:
    return sum(
        int(line.split("dialogues: ")[1].split(",")[0]) for line in result.stdout.splitlines() if "rounds:" in line
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Dialogues in five files of any case, beside what is none."""
    home = tmp_path / "logs"
    (home / "older").mkdir(parents=True)
    (home / "a.json").write_text(json.dumps([row(1)]), encoding="utf-8")
    (home / "b.jsonl").write_text(lines(row(2)), encoding="utf-8")
    (home / "C.JSONL").write_text(lines(row(3)), encoding="utf-8")
    (home / "D.NdJson").write_text(lines(row(4)), encoding="utf-8")
    pd.DataFrame([row(5)]).to_csv(home / "E.Csv", index=False)
    (home / "config.json").write_text('{"model": "m", "layers": [1, 2], "nested": {"a": 1}}', encoding="utf-8")
    (home / "older" / "f.jsonl").write_text(lines(row(6)), encoding="utf-8")
    (home / "notes.txt").write_text("notes", encoding="utf-8")
    return home


def test_all_files_of_a_folder_are_read_and_the_rest_is_named(folder: Path) -> None:
    how = ("--judge", "stand-in", "--run", folder.parent / "run", "--metrics", "fluency", "--no-report")
    result = typed("score", folder, *how, cwd=folder.parent)
    assert result.returncode == 0 and len(pd.read_csv(folder.parent / "run" / "scores.csv")) == 5
    assert f"{folder}: left out of this folder: notes.txt, older/" in result.stderr
    assert f"{folder}: left out, as they hold no dialogues: config.json" in result.stderr
    both = typed("data", "preview", folder, folder / "older", cwd=folder.parent)
    assert both.returncode == 0 and dialogues(both) == 6


def test_a_zip_with_a_config_in_it_is_read_too(folder: Path) -> None:
    packed = folder.parent / "logs.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, str(path.relative_to(folder)))
    result = preview(packed)
    assert result.returncode == 0 and dialogues(result) == 6
    assert "left out, as they hold no dialogues: config.json" in " ".join(result.stdout.split())


def test_a_file_without_dialogues_is_no_dialogue_where_it_is_named_or_alone(folder: Path) -> None:
    said = "config.json: holds no dialogues (its keys: model, layers, nested)"
    refused(preview(folder / "config.json"), said)
    alone = folder.parent / "alone"
    alone.mkdir()
    (folder / "config.json").rename(alone / "config.json")
    refused(preview(alone), said)


def test_a_broken_file_of_dialogues_in_a_folder_is_never_passed_over(folder: Path) -> None:
    (folder / "z.json").write_text(json.dumps({"c": [{"dialog_id": "1"}]}), encoding="utf-8")
    result = preview(folder)
    assert result.returncode == 2 and "z.json" in result.stderr


def workbook(path: Path, **sheets: object) -> Path:
    with pd.ExcelWriter(path) as book:
        for name, rows in sheets.items():
            pd.DataFrame(rows).to_excel(book, sheet_name=name, index=False)
    return path


def test_all_sheets_with_dialogues_are_read_and_the_others_are_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", 说明=[{"notes": "read me"}] * 30, A=[row(1)], B=[row(2)])
    result = preview(path)
    assert result.returncode == 0 and dialogues(result) == 2 and "sheets that are left out: 说明" in result.stdout
    assert dialogues(preview(path, "--map", "question_r1=question_r1")) == 2


def test_a_sheet_of_dialogues_with_a_slip_of_the_pen_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    slip = {("anwser_r1" if name == "answer_r1" else name): value for name, value in row(2).items()}
    result = preview(workbook(tmp_path / "a.xlsx", A=[row(1)], B=[slip]))
    assert result.returncode == 2 and "B: record 1: column 'anwser_r1' looks like 'answer_r1'" in result.stderr
    assert dialogues(preview(workbook(tmp_path / "a.xlsx", A=[row(1)], B=[row(2)]))) == 2


def test_a_workbook_with_no_sheet_of_dialogues_says_what_the_first_lacks(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", A=[{"x": 1}], B=[{"y": 2}])
    result = preview(path)
    assert result.returncode == 2 and "A: record 1: column source, character, scenario" in result.stderr


WORDS = ("nan", "None", "NULL", "NaN")


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet"])
def test_a_word_for_no_value_in_a_table_is_refused_and_the_remedy_works(tmp_path: Path, kind: str) -> None:
    def saved(*rows: dict[str, object]) -> Path:
        path, table = tmp_path / f"a.{kind}", pd.DataFrame(rows)
        table.to_parquet(path) if kind == "parquet" else (table.to_csv if kind == "csv" else table.to_excel)(
            path, index=False
        )
        return path

    for word in WORDS:
        refusal = preview(saved(row(1, word), row(2)))
        assert refusal.returncode == 2
        assert (
            f"field answer_r1 is {word!r}" in refusal.stderr
            and "empty the cell, or give the dialogue as JSONL" in refusal.stderr
        )
    emptied = preview(saved(row(1, None), row(2)))
    assert emptied.returncode == 0 and "dialogues that end with the user, without a reply: 1" in emptied.stdout
    (tmp_path / "a.jsonl").write_text(lines(*(row(n, word) for n, word in enumerate(WORDS))), encoding="utf-8")
    assert (
        "messages that are but a word such as 'nan' or 'None', judged as they stand: 4"
        in preview(tmp_path / "a.jsonl").stdout
    )


@pytest.mark.parametrize("written", ["NaN", "null"])
def test_a_missing_value_of_json_is_no_reply(tmp_path: Path, written: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(row(1, "REPLY"), row(2)).replace('"REPLY"', written), encoding="utf-8")
    result = preview(path)
    assert result.returncode == 0 and "dialogues that end with the user, without a reply: 1" in result.stdout
    path.write_text(lines(row(1)).replace('"m"', written), encoding="utf-8")
    refused_ = preview(path)
    assert refused_.returncode == 2 and "field source is missing; add it" in refused_.stderr


LOG = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好的"}]
NAMED = ("--map", "source=@file,character='NAME',scenario=@record")


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.jsonl", lines(LOG, LOG), 2),
        ("a.json", json.dumps([LOG, LOG]), 2),
        ("a.json", json.dumps(LOG), 1),
        ("a.jsonl", lines(LOG), 1),
    ],
)
def test_lists_of_messages_without_names_are_dialogues_once_the_map_of_the_message_is_given(
    tmp_path: Path, name: str, content: str, count: int
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    result = preview(tmp_path / name)
    assert result.returncode == 2 and f'{NAMED[0]} "{NAMED[1]}"' in result.stderr
    found = preview(tmp_path / name, *NAMED)
    assert found.returncode == 0 and dialogues(found) == count


def test_a_column_that_is_there_twice_or_has_no_name_is_told_with_a_remedy_that_works(tmp_path: Path) -> None:
    path, about = tmp_path / "a.csv", "source,character,scenario"
    path.write_text(f"{about},question_r1,answer_r1,question_r1,answer_r1\nm,c,1,a,b,c,d\n", encoding="utf-8")
    result = preview(path)
    assert (
        "columns 'question_r1', 'answer_r1' stand twice each" in result.stderr
        and "question_r2, answer_r2" in result.stderr
    )
    path.write_text(f"{about},question_r1,answer_r1,,\nm,c,1,a,b,c,d\n", encoding="utf-8")
    result = preview(path)
    assert "has 7 cells under 5 columns; name every column" in result.stderr
    path.write_text(f"{about},question_r1,answer_r1,question_r2,answer_r2\nm,c,1,a,b,c,d\n", encoding="utf-8")
    assert preview(path).returncode == 0
