"""Reading dialogues: every format gives the same values, and every fault names its file, record and remedy."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from judge.data.dataset import Corpus
from judge.data.dialogues import Problem, Record, example_dialogues, example_files, read_dialogues
from judge.errors import InputError
from judge.types import Dialogue, Turn

FIELDS = {"question_r1": "累", "answer_r1": "歇\n一歇", "question_r2": "好", "answer_r2": "=1+1,“嗯”"}
ROW = {"source": "mine", "character": "司弦", "scenario": "7", **FIELDS}
DIALOGUE = Dialogue("mine", "司弦", "7", (Turn("累", "歇\n一歇"), Turn("好", "=1+1,“嗯”")))


def _json(path: Path) -> None:
    path.write_text(json.dumps({"司弦": [{"dialog_id": 7, **FIELDS}]}, ensure_ascii=False), encoding="utf-8")


def _jsonl(path: Path) -> None:
    path.write_text(json.dumps({**ROW, "scenario": 7}) + "\n\n", encoding="utf-8-sig")


def _turns(path: Path) -> None:
    turns = [{"user": turn.user, "character": turn.character} for turn in DIALOGUE.turns]
    path.write_text(json.dumps({**{name: ROW[name] for name in list(ROW)[:3]}, "turns": turns}), encoding="utf-8")


def _csv(path: Path) -> None:
    pd.DataFrame([ROW]).to_csv(path, index=False, encoding="utf-8")


def _parquet(path: Path) -> None:
    pd.DataFrame([ROW]).to_parquet(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("mine.json", _json), ("a.jsonl", _jsonl), ("b.jsonl", _turns), ("a.csv", _csv), ("a.parquet", _parquet)],
)
def test_every_format_gives_the_same_dialogue(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    (record,) = read_dialogues([tmp_path / name])
    assert isinstance(record, Record)
    assert record.dialogue == DIALOGUE


def test_profile_and_any_number_of_turns_are_read(tmp_path: Path) -> None:
    row = {**ROW, "profile": "发条剑士", "question_r3": "三", "answer_r3": "叁"}
    pd.DataFrame([row, {**ROW, "scenario": "8"}]).to_csv(tmp_path / "a.csv", index=False)
    long, short = (record.dialogue for record in read_dialogues([tmp_path / "a.csv"]) if isinstance(record, Record))
    assert (long.profile, len(long.turns)) == ("发条剑士", 3)
    assert (short.profile, short.turns) == (None, DIALOGUE.turns)


@pytest.mark.parametrize("write", [pd.DataFrame.to_csv, pd.DataFrame.to_excel, pd.DataFrame.to_parquet])
def test_a_reply_that_was_due_is_an_empty_one_for_the_judge_to_report(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    path = tmp_path / f"a.{ {'to_csv': 'csv', 'to_excel': 'xlsx', 'to_parquet': 'parquet'}[write.__name__] }"
    write(pd.DataFrame([{**ROW, "answer_r1": ""}]), path, index=False)
    (record,) = read_dialogues([path])
    assert isinstance(record, Record)
    assert record.dialogue.turns[0].character == ""
    assert not record.dialogue.is_answered


def test_an_empty_reply_in_json_is_one_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({**ROW, "answer_r2": ""}), encoding="utf-8")
    (record,) = read_dialogues([tmp_path / "a.jsonl"])
    assert isinstance(record, Record)
    assert record.dialogue.turns[1].character == ""
    assert not record.dialogue.is_answered


NAMED = {name: ROW[name] for name in ("source", "character", "scenario")}
GOOD = json.dumps(ROW)
BAD_FILES = {
    "empty.json": (b"", "is empty"),
    "word.json": (b"hello", "not JSON at line 1 column 1"),
    "cut.json": (b'{"a": [{"dialog_id": 1, "que', "not JSON at line 1"),
    "list.json": (b"[]", "no dialogues in it"),
    "text.json": (b'"hello"', "is JSON of another kind (str)"),
    "big5.json": ('{"司絃": ["覺得"]}'.encode("big5"), "line 1 is not UTF-8"),
    "field.json": (json.dumps({"a": [{"dialog_id": 1, "question_r1": "x"}]}).encode(), "a: record 1: field answer_r1"),
    "no_id.json": (json.dumps({"a": [FIELDS]}).encode(), "a: record 1: field scenario is missing"),
    "twice_key.json": (b'{"a": [], "a": []}', "the key 'a' stands twice"),
    "none.json": (b"{}", "no dialogues in it"),
    "empty.jsonl": (b"\n", "no dialogues in it"),
    "cut.jsonl": (f"{GOOD}\n{GOOD[:40]}".encode(), "record 2: not JSON"),
    "half.jsonl": (
        json.dumps({**ROW, "answer_r1": "\ud83d"}).encode(),
        "record 1: field answer_r1 holds half a character",
    ),
    "number.jsonl": (json.dumps({**ROW, "answer_r1": 5}).encode(), "record 1: field answer_r1 is int, not text"),
    "blank.jsonl": (json.dumps({**ROW, "character": " "}).encode(), "record 1: field character is missing"),
    "gap.jsonl": (json.dumps({**ROW, "answer_r4": "x"}).encode(), "record 1: field question_r3 is missing"),
    "turns.jsonl": (json.dumps({**NAMED, "turns": [{"who": "x"}]}).encode(), "record 1: field turns[1] lacks"),
    "column.csv": (b"source,character,question_r1,answer_r1\na,b,c,d\n", "column scenario is missing"),
    "cells.csv": (
        b"source,character,scenario,question_r1,answer_r1\na,b,c,d\n",
        "record 1: has 4 cells under 5 columns",
    ),
    "twice.csv": (
        b"source,character,scenario,question_r1,answer_r1,answer_r1\na,b,c,d,e,f\n",
        "column 'answer_r1' stands twice",
    ),
    "both.jsonl": (json.dumps({**ROW, "turns": []}).encode(), "record 1: has both turns and question_r"),
    "quote.csv": (b'source,character,scenario,question_r1,answer_r1\na,b,c,d,"e', "not CSV near line"),
    "words.parquet": (b"hello", "not Parquet"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_a_problem_that_names_it_and_a_remedy(tmp_path: Path, name: str) -> None:
    content, what = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    problems = [item.message for item in read_dialogues([path]) if isinstance(item, Problem)]
    assert len(problems) == 1
    assert problems[0].startswith(str(path))
    assert what in problems[0]
    assert ";" in problems[0].removeprefix(str(path))


def test_all_problems_are_listed_the_first_twenty_by_record(tmp_path: Path) -> None:
    lines = [json.dumps({**ROW, "scenario": str(n), **({"answer_r1": 5} if n % 2 else {})}) for n in range(50)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError) as error:
        Corpus([tmp_path / "a.jsonl"])
    message = str(error.value)
    assert message.startswith("25 problems:")
    assert message.count("a.jsonl: record") == 20
    assert "record 40:" in message and "record 42:" not in message
    assert message.endswith("and 5 more")


@pytest.mark.parametrize("path", ["missing.json", "notes.txt", "folder"])
def test_what_is_no_file_of_dialogues_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=path):
        list(read_dialogues([tmp_path / path]))


def test_the_example_is_two_sources_three_characters_twelve_scenarios() -> None:
    dialogues = example_dialogues()
    assert len(dialogues) == len({dialogue.id for dialogue in dialogues}) == 72
    assert {dialogue.source for dialogue in dialogues} == {path.stem for path in example_files()} == {"plain", "steady"}
    assert len({dialogue.character for dialogue in dialogues}) == 3
    assert all(dialogue.profile for dialogue in dialogues)


def test_all_of_chatanime_is_read(shared_data: Path) -> None:
    corpus = Corpus([shared_data / "chatanime"])
    assert len(corpus) == 13_200
    assert (len(corpus.values("source")), len(corpus.values("character"))) == (11, 20)
    assert sum(corpus.batch_sizes) == 13_200
