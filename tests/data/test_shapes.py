"""Dialogues in the shapes that people have them: each is read whole, or refused in one line that says what to do."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from judge.data.chat_log import turns_of
from judge.data.columns import columns_of, parse_map
from judge.data.dataset import Corpus
from judge.data.dialogues import Problem, Record, read_dialogues
from judge.data.fields import Wrong
from judge.data.preview import preview
from judge.errors import InputError
from judge.human_ratings.blinding import speeches
from judge.prompting.rubric import load_rubric
from judge.scoring.run_folder import read_texts
from judge.scoring.summary import matched, sample_answers
from judge.types import Dialogue, Turn
from tests.helpers.commands import read, typed

IDS = {"source": "mine", "character": "司弦", "scenario": "7"}
SAID = [("user", "我今天好累"), ("assistant", "歇一歇吧"), ("user", "嗯"), ("assistant", "我陪着你。")]
TURNS = (Turn("我今天好累", "歇一歇吧"), Turn("嗯", "我陪着你。"))
PLAIN = Dialogue("mine", "司弦", "7", TURNS)
ROW = {**IDS, "question_r1": "我今天好累", "answer_r1": "歇一歇吧", "question_r2": "嗯", "answer_r2": "我陪着你。"}


def messages(said: Sequence[tuple[str, str]] = SAID, who: str = "role", what: str = "content") -> list[dict[str, str]]:
    return [{who: speaker, what: text} for speaker, text in said]


def chat(said: Sequence[tuple[str, str]] = SAID, **more: Any) -> dict[str, Any]:
    return {**IDS, "messages": messages(said), **more}


def renamed(names: dict[str, str], row: dict[str, Any] = ROW) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in row.items()}


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def lines(*records: dict[str, Any]) -> bytes:
    return b"\n".join(map(text, records))


def table(*rows: dict[str, Any], sep: str = ",", encoding: str = "utf-8", **more: Any) -> bytes:
    return pd.DataFrame(rows).to_csv(index=False, sep=sep, **more).encode(encoding)


def as_roles(names: dict[str, str]) -> list[tuple[str, str]]:
    return [(names[speaker], said) for speaker, said in SAID]


@dataclass(frozen=True)
class Shape:
    """A file, and the dialogue that each of its records is."""

    name: str
    content: bytes
    dialogue: Dialogue = PLAIN
    mapping: str = ""
    count: int = 1


OPENED = Dialogue("mine", "司弦", "7", (Turn(None, "你来了"), Turn("我今天好累", "歇一歇吧")))
LEFT = Dialogue("mine", "司弦", "7", (Turn("我今天好累", "歇一歇吧"), Turn("嗯", None)))
TOLD = Dialogue("mine", "司弦", "7", TURNS, "发条剑士")
FROM_MODEL = renamed({"source": "model", "character": "bot_name", "scenario": "id"})
META = {"messages": messages(), "meta": {"model": "mine", "Bot": {"name": "司弦"}, "n": 7}}
WIDE = renamed({name: "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in name) for name in ROW})


SHAPES = {
    "messages": Shape("a.jsonl", lines(chat())),
    "conversations": Shape(
        "a.jsonl",
        lines({**IDS, "conversations": messages(as_roles({"user": "human", "assistant": "gpt"}), "from", "value")}),
    ),
    "a list": Shape("a.json", text([chat()])),
    "a list under data": Shape("a.json", text({"version": 1, "data": [chat()]})),
    "chat logs by scenario": Shape("mine.json", text({"7": messages()}), mapping="source=@file,character='司弦'"),
    "pairs of user and assistant": Shape(
        "a.jsonl", lines({**IDS, "conversation": [{"User": t.user, "assistant": t.character} for t in TURNS]})
    ),
    "one dialogue": Shape("a.json", text(chat())),
    "one record": Shape("a.json", text(ROW)),
    "a pretty list in .jsonl": Shape("a.jsonl", json.dumps([chat()], indent=2).encode()),
    "jsonl in .json": Shape("a.json", lines(chat(), {**chat(), "scenario": "8"}), count=2),
    "seeker and supporter": Shape(
        "a.jsonl",
        lines({**IDS, "dialog": messages(as_roles({"user": "seeker", "assistant": "supporter"}), "speaker", "text")}),
    ),
    "usr and sys": Shape(
        "a.jsonl", lines({**IDS, "dialog": messages(as_roles({"user": "usr", "assistant": "sys"}), "speaker")})
    ),
    "sys as a system prompt": Shape("a.jsonl", lines(chat([("sys", "发条剑士"), *SAID])), TOLD),
    "a system prompt": Shape("a.jsonl", lines(chat([("system", "发条剑士"), *SAID])), TOLD),
    "a profile": Shape("a.jsonl", lines(chat(profile="发条剑士")), TOLD),
    "Role and Content": Shape("a.jsonl", lines({**IDS, "Messages": messages(who="Role", what="Content")})),
    "USER and Assistant": Shape("a.jsonl", lines(chat(as_roles({"user": "USER", "assistant": " Assistant"})))),
    "the character's name": Shape("a.jsonl", lines(chat(as_roles({"user": "小明", "assistant": "司弦"})))),
    "roles by the map": Shape(
        "a.jsonl", lines(chat(as_roles({"user": "甲", "assistant": "乙"}))), mapping="user=甲,judged=乙"
    ),
    "text in parts": Shape(
        "a.jsonl",
        lines({**IDS, "messages": [{"role": who, "content": [{"type": "text", "text": said}]} for who, said in SAID]}),
    ),
    "the character begins": Shape("a.jsonl", lines(chat([("assistant", "你来了"), *SAID[:2]])), OPENED),
    "the user ends": Shape("a.jsonl", lines(chat(SAID[:3])), LEFT),
    "several in a row": Shape(
        "a.jsonl",
        lines(chat([("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("assistant", "e")])),
        Dialogue("mine", "司弦", "7", (Turn("a\nb", "c\nd\ne"),)),
    ),
    "turns": Shape("a.jsonl", lines({**IDS, "turns": [{"user": t.user, "character": t.character} for t in TURNS]})),
    "turns without ends": Shape(
        "a.jsonl",
        lines({**IDS, "turns": [{"character": "你来了"}, {"user": "a", "character": "b"}, {"user": "c"}]}),
        Dialogue("mine", "司弦", "7", (Turn(None, "你来了"), Turn("a", "b"), Turn("c", None))),
    ),
    "no first question": Shape(
        "a.csv", table({**ROW, "question_r1": ""}), Dialogue("mine", "司弦", "7", (Turn(None, "歇一歇吧"), TURNS[1]))
    ),
    "no last answer": Shape("a.csv", table({**ROW, "answer_r2": ""}), LEFT),
    "no last answer's column": Shape("a.csv", table({k: v for k, v in ROW.items() if k != "answer_r2"}), LEFT),
    "no first question's column": Shape(
        "a.csv",
        table({k: v for k, v in ROW.items() if k != "question_r1"}),
        Dialogue("mine", "司弦", "7", (Turn(None, "歇一歇吧"), TURNS[1])),
    ),
    "a null at the end": Shape("a.jsonl", lines({**ROW, "answer_r2": None}), LEFT),
    "json in a cell": Shape("a.csv", table({**IDS, "messages": json.dumps(messages(), ensure_ascii=False)})),
    "other columns by the map": Shape(
        "a.csv", table(FROM_MODEL), mapping="source=model, character=bot_name ,scenario=id"
    ),
    "nested fields by the map": Shape(
        "a.jsonl", lines(META), mapping="source=meta.model,character=meta.bot.name,scenario=meta.n"
    ),
    "constants": Shape(
        "7.jsonl", lines({"messages": messages()}), mapping="source='mine',character='司弦',scenario=@file"
    ),
    "the file is the source": Shape(
        "mine.jsonl",
        b"\n" * 6 + lines({"messages": messages(), "bot": "司弦"}),
        mapping="source=@file,character=bot,scenario=@record",
    ),
    "prompt and response": Shape(
        "a.csv",
        table({**IDS, "Prompt": "问", "response": "答"}),
        Dialogue("mine", "司弦", "7", (Turn("问", "答"),)),
        "question_r1=prompt,answer_r1=response",
    ),
    "chinese headers": Shape(
        "a.xlsx",
        b"",
        mapping="source=模型,character=角色,scenario=编号,question_r1=问1,answer_r1=答1,question_r2=问2,answer_r2=答2",
    ),
    "the dialogue by the map": Shape("a.jsonl", lines({**IDS, "data": {"log": messages()}}), mapping="turns=data.log"),
    "headers in other case": Shape("a.csv", table(renamed({name: f" {name.upper()} " for name in ROW}))),
    "headers in full width": Shape("a.csv", table(WIDE)),
    "a byte order mark": Shape("a.csv", table(ROW, encoding="utf-8-sig")),
    "utf-16": Shape("a.csv", table(ROW, encoding="utf-16")),
    "gb18030": Shape("a.csv", table(ROW, encoding="gb18030")),
    "gb18030 in jsonl": Shape("a.jsonl", lines(chat()).decode().encode("gb18030")),
    "tabs": Shape("a.tsv", table(ROW, sep="\t")),
    "semicolons": Shape("a.csv", table(ROW, sep=";")),
    ".JSONL": Shape("a.JSONL", lines(chat())),
    ".ndjson": Shape("a.ndjson", lines(chat())),
    ".jsonl.gz": Shape("a.jsonl.gz", gzip.compress(lines(chat()))),
    ".csv.gz": Shape("a.CSV.GZ", gzip.compress(table(ROW))),
    "trailing commas": Shape("a.json", text([chat()]).replace(b"}]", b"},]").replace(b"]}", b"],}") + b"\n"),
    "a comma after each line": Shape("a.jsonl", lines(chat()) + b",\n"),
    "commas at the end of rows": Shape("a.csv", table(ROW).replace(b"\n", b",,\n")),
    "blank rows": Shape("a.csv", table(ROW) + b",,,,,,\n" * 3 + b"\n"),
    "an index column": Shape("a.csv", pd.DataFrame([ROW]).to_csv().encode()),
    "scenario 7.0": Shape("a.csv", table({**ROW, "scenario": 7.0})),
    "scenario 7": Shape("a.jsonl", lines({**ROW, "scenario": 7})),
    "a number as scenario": Shape("a.jsonl", lines({**ROW, "scenario": 7.0})),
    "commas and brackets in texts": Shape(
        "a.json",
        b'[{"source":"mine","character":"x","scenario":"7","question_r1":"a,] ,}","answer_r1":"\\"[1,]\\"",}]',
        Dialogue("mine", "x", "7", (Turn("a,] ,}", '"[1,]"'),)),
    ),
}


def write(shape: Shape, folder: Path) -> Path:
    path = folder / shape.name
    if shape.content:
        path.write_bytes(shape.content)
    else:
        names = dict(zip(ROW, ["模型", "角色", "编号", "问1", "答1", "问2", "答2"], strict=True))
        pd.DataFrame([renamed(names, {**ROW, "scenario": 7})]).to_excel(path, index=False)
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_is_read_whole_and_previewed(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    path = write(shape, tmp_path)
    found = list(read_dialogues([path], shape.mapping))
    assert [item for item in found if isinstance(item, Problem)] == []
    assert next(item.dialogue for item in found if isinstance(item, Record)) == shape.dialogue
    assert len(found) == shape.count
    seen = preview([path], shape.mapping)
    ((facts, contents),) = seen.files
    assert (contents.dialogues, contents.first, seen.problems) == (shape.count, shape.dialogue, ())
    assert set(facts.columns) >= {"source", "character", "scenario"}


def problem(path: Path, mapping: str = "", **more: str) -> str:
    (found,) = read_dialogues([path], mapping, **more)  # type: ignore[arg-type]
    assert isinstance(found, Problem)
    assert "\n" not in found.message and found.message.startswith(str(path)) and ";" in found.message
    return found.message


REFUSED = {
    "a round nearly right": ({**ROW, "Question_r3": "x", "answer_r03": "y"}, "'answer_r03' looks like 'answer_r3'"),
    "rounds from 0": ({**ROW, "question_r0": "x"}, "'question_r0' looks like 'question_r1'"),
    "a slip of the pen": ({**ROW, "anwser_r3": "x"}, "'anwser_r3' looks like 'answer_r3'"),
    "a plural": ({**ROW, "questions_r3": "x"}, "'questions_r3' looks like 'question_r3'"),
    "a blank inside": ({**ROW, "answer r3": "x"}, "'answer r3' looks like 'answer_r3'"),
    "a dash": ({**ROW, "answer-3": "x"}, "'answer-3' looks like 'answer_r3'"),
    "the round first": ({**ROW, "r3_answer": "x"}, "'r3_answer' looks like 'answer_r3'"),
    "a character nearly": (renamed({"character": "charactor"}), "'charactor' looks like 'character'"),
    "a profile nearly": ({**ROW, "profil": "x"}, "'profil' looks like 'profile'"),
    "one column twice": ({**ROW, "Answer_r2": "x"}, "'answer_r2' and 'Answer_r2' are both answer_r2"),
    "a missing name": (FROM_MODEL, '--map "source=model,character=bot_name,scenario=id"'),
    "no dialogue": ({**IDS, "问题": "x", "回答": "y"}, '--map "question_r1=问题,answer_r1=回答"'),
    "a gap": ({**ROW, "question_r4": "x", "answer_r4": "y"}, "field question_r3 is missing"),
    "nan": ({**ROW, "answer_r2": "nan"}, "field answer_r2 is 'nan', which programs write"),
    "NULL": ({**ROW, "question_r1": "NULL"}, "field question_r1 is 'NULL', which programs write"),
    "None": ({**ROW, "source": "None"}, "field source is 'None', which programs write"),
    "no name": ({**ROW, "source": " "}, "field source is missing"),
    "text for a list": ({**IDS, "messages": "hello"}, "field messages is text that is no JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet"])
def test_what_cannot_be_understood_is_one_line_that_names_it(tmp_path: Path, name: str, kind: str) -> None:
    row, what = REFUSED[name]
    path = tmp_path / f"a.{kind}"
    frame = pd.DataFrame([row])
    {"csv": frame.to_csv, "xlsx": frame.to_excel, "parquet": frame.to_parquet}[kind](path, index=False)
    assert what in problem(path)


@pytest.mark.parametrize(
    "headings", ["模型 角色 场景 问题1 回答1 问题2 回答2", "模型 角色 场景编号 提问 回复 提问_2 回复_2"]
)
def test_the_map_that_is_suggested_for_chinese_headings_reads_every_round(tmp_path: Path, headings: str) -> None:
    path = tmp_path / "a.csv"
    names = dict(zip(ROW, headings.split(), strict=True))
    pd.DataFrame([renamed(names)]).to_csv(path, index=False)
    suggested = problem(path).split('--map "')[1].removesuffix('"')
    assert dict(pair.split("=") for pair in suggested.split(",")) == names
    assert [item.dialogue for item in read_dialogues([path], suggested) if isinstance(item, Record)] == [
        SHAPES["chinese headers"].dialogue
    ]


RECORDS = {
    "an unknown role": (chat([*SAID, ("narrator", "x")]), "messages has a speaker 'narrator'"),
    "a tool": (
        chat([*SAID, ("tool", "x")]),
        "messages has a speaker 'tool', which is a program and neither user nor judged; take its",
    ),
    "two who are judged": (chat([*SAID, ("supporter", "x")]), "'assistant' and 'supporter'"),
    "two profiles": (chat([("system", "a"), *SAID], profile="b"), "has two profiles"),
    "an image": (
        {**IDS, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        "messages[1].content holds a part of type image_url",
    ),
    "a call": (
        {**IDS, "messages": [*messages(), {"role": "assistant", "content": "", "tool_calls": [1]}]},
        "messages[5] has tool_calls",
    ),
    "no content": (
        {**IDS, "messages": [{"role": "user", "content": "x"}, {"role": "assistant"}]},
        "messages[2] has none",
    ),
    "no role": ({**IDS, "messages": [*messages(), {"content": "x"}]}, "messages[5] has none of role, from"),
    "a number said": ({**IDS, "messages": [*messages(), {"role": "user", "content": 5}]}, "messages[5].content is int"),
    "an empty list": ({**IDS, "messages": []}, "field messages is empty"),
    "only a system prompt": (chat([("system", "x")]), "has no message of the user's or the character's"),
    "texts only": ({**IDS, "dialog": ["a", "b"]}, "dialog[1] is str, not an object"),
    "two lists": (chat(dialog=messages()), 'has both messages and dialog; say which is the dialogue: --map "turns='),
    "a list and rounds": ({**ROW, "messages": messages()}, "has both messages and question_r"),
    "not a list": ({**IDS, "messages": {"a": 1}}, "field messages is dict, not a list"),
    "no number as name": ({**ROW, "scenario": float("nan")}, "field scenario is missing"),
    "a bool as name": ({**ROW, "source": True}, "field source is bool, not text"),
    "an object as name": ({**ROW, "scenario": {"id": 1}}, "field scenario is dict, not text"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_cannot_be_understood_is_one_line_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    record, what = RECORDS[name]
    (tmp_path / "a.jsonl").write_bytes(lines(chat(), record, {**chat(), "scenario": "8"}))
    first, wrong, last = read_dialogues([tmp_path / "a.jsonl"])
    assert isinstance(first, Record) and isinstance(last, Record) and isinstance(wrong, Problem)
    assert wrong.message.startswith(f"{tmp_path / 'a.jsonl'}: record 2: ")
    assert what in wrong.message


@pytest.mark.parametrize(
    "name", ["an unknown role", "two who are judged", "two lists", "a list and rounds", "two profiles"]
)
def test_the_remedy_of_a_message_works_when_it_is_followed(tmp_path: Path, name: str) -> None:
    record, _ = RECORDS[name]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(record))
    ways = problem(path).partition('--map "')[2].partition('"')[0]
    found = list(read_dialogues([path], ways))
    assert all(isinstance(item, Record) for item in found) and found


@pytest.mark.parametrize("name", ["a missing name", "no dialogue", "a slip of the pen", "a character nearly"])
def test_the_map_that_a_message_suggests_works(tmp_path: Path, name: str) -> None:
    row, _ = REFUSED[name]
    path = tmp_path / "a.csv"
    path.write_bytes(table({**row, **({"question_r3": "y"} if name == "a slip of the pen" else {})}))
    ways = problem(path).partition('--map "')[2].partition('"')[0]
    assert all(isinstance(item, Record) for item in read_dialogues([path], ways))


def test_other_columns_are_listed_once_and_those_that_are_to_be_left_out_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [
        {**ROW, "scenario": n, "tokens": 5, "answer_r1_score": 1, **({"seed": 1} if n else {})} for n in range(3)
    ]
    path.write_bytes(lines(*records))
    with closing(Corpus([path])) as corpus:
        assert corpus.notes == (f"{path}: columns that are not used: tokens, answer_r1_score, seed",)
    with closing(Corpus([path], mapping="ignore=tokens,ignore=seed,ignore=answer_r1_score")) as corpus:
        assert (len(corpus), corpus.notes) == (3, ())


def test_what_a_user_should_know_of_a_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(table({**ROW, "answer_r2": ""}, encoding="gb18030"))
    with closing(Corpus([path])) as corpus:
        assert corpus.notes == (
            f"{path}: read as GB18030",
            f"{path}: dialogues that end with the user, without a reply: 1",
        )


def test_a_word_that_programs_write_is_what_was_said_in_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines({**ROW, "answer_r2": "None"}))
    (found,) = read_dialogues([path])
    assert isinstance(found, Record) and found.dialogue.turns[1].character == "None"


def test_a_folder_is_all_files_that_can_be_read_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text([chat()]))
    (tmp_path / "b.JSONL").write_bytes(lines({**chat(), "scenario": "8"}))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines({**chat(), "scenario": "9"})))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("in/x.csv", table({**ROW, "scenario": "10"}))
        archive.writestr("in/notes.md", "x")
    (tmp_path / "more").mkdir()
    (tmp_path / "README.md").write_text("x", encoding="utf-8")
    (tmp_path / ".hidden.json").write_text("x", encoding="utf-8")
    with closing(Corpus([tmp_path])) as corpus:
        assert sorted(dialogue.scenario for dialogue in corpus) == ["10", "7", "8", "9"]
        assert corpus.notes == (
            f"{tmp_path}: left out of this folder: README.md, more/",
            f"{tmp_path / 'd.zip'}: left out of it: in/notes.md",
        )


def test_every_sheet_of_a_workbook_is_read_and_named_in_the_place(tmp_path: Path) -> None:
    path, book = tmp_path / "a.xlsx", Workbook()
    for sheet, scenario in ((book.active, 1), (book.create_sheet("第二"), 2), (book.create_sheet("bad"), None)):
        sheet.append(list(ROW))
        sheet.append(list({**ROW, "scenario": scenario}.values()))
    book.create_sheet("empty")
    book.save(path)
    one, two, bad = read_dialogues([path])
    assert isinstance(one, Record) and isinstance(two, Record) and isinstance(bad, Problem)
    assert (one.place, two.place) == (f"{path}: Sheet: record 1", f"{path}: 第二: record 1")
    assert bad.message == f"{path}: bad: record 1: field scenario is missing; add it"


def test_struct_columns_of_parquet_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame([chat(meta={"id": 7})]).to_parquet(path)
    (found,) = read_dialogues([path], "scenario=meta.id")
    assert isinstance(found, Record) and found.dialogue == PLAIN


def test_a_rubric_may_name_who_is_judged_and_as_whom(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = messages(as_roles({"user": "caller", "assistant": "listener"}))
    path.write_bytes(lines({"source": "mine", "scenario": "7", "messages": log}))
    assert "field character is missing" in problem(path)
    (found,) = read_dialogues([path], judged_role="listener", default_character="the listener")
    assert isinstance(found, Record)
    assert found.dialogue == Dialogue("mine", "the listener", "7", TURNS)


BAD_MAPS = {
    "source": "write FIELD=COLUMN",
    "source=": "write FIELD=COLUMN",
    "sauce=model": "sauce is no field",
    "source=a,Source=b": "source stands twice",
    "source='a": "a text without its end",
    "question_r1='a'": "the same text in every dialogue",
    "question_r1=@file": "@file and @record stand for",
    "source=@folder": "@file and @record stand for",
    "question_r0=x": "question_r0 is no field",
}


@pytest.mark.parametrize("mapping", BAD_MAPS)
def test_a_map_that_is_wrong_is_refused(mapping: str) -> None:
    with pytest.raises(InputError, match=f"^--map .*{BAD_MAPS[mapping]}"):
        parse_map(mapping)


def test_a_map_may_hold_commas_and_quotes_in_its_texts() -> None:
    found = parse_map("character='D''Artagnan, the first',ignore=a,ignore=b,user=Me")
    assert found.constants == {"character": "D'Artagnan, the first"}
    assert (found.ignored, found.roles) == ({"a", "b"}, {"me": "user"})


def test_a_mapped_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(table(ROW))
    assert "--map source=modle: no such column; there are source, character" in problem(path, "source=modle")


def test_a_column_with_dots_in_its_name_goes_before_a_nested_one() -> None:
    found = columns_of(["a.b", "a", *ROW], parse_map("source=A.b,profile=a.c"))
    assert (found.of["source"], found.of["profile"]) == (("a.b",), ("a", "c"))


@pytest.mark.parametrize("column", ["tokens", "answer_r1_score", "id", "topic", "turn", "emotion_type", "q1", "user1"])
def test_a_column_of_another_kind_is_not_taken_for_a_slip_of_the_pen(column: str) -> None:
    assert columns_of([*ROW, column], parse_map("")).unused == (column,)


def test_a_column_that_looks_like_one_that_is_there_is_only_refused_as_a_round() -> None:
    assert columns_of([*ROW, "sources", "scenario_id"], parse_map("")).unused == ("sources", "scenario_id")
    with pytest.raises(Wrong, match="'answers_r1' looks like 'answer_r1'"):
        columns_of([*ROW, "answers_r1"], parse_map(""))


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=5)), min_size=1))
def test_no_text_is_lost_between_messages_and_rounds(said: list[tuple[bool, str]]) -> None:
    turns = turns_of(said)
    for by_user, side in ((True, "user"), (False, "character")):
        parts = [getattr(turn, side) for turn in turns if getattr(turn, side) is not None]
        assert "".join(parts).replace("\n", "") == "".join(t for who, t in said if who == by_user).replace("\n", "")
    assert all(turn.user is not None for turn in turns[1:])
    assert all(turn.character is not None for turn in turns[:-1])
    assert (turns[0].user is None) == (not said[0][0])
    assert (turns[-1].character is None) == said[-1][0]


def test_forms_and_statistics_take_what_was_said() -> None:
    rubric = load_rubric("en")
    one = Dialogue("mine", "x", "7", (Turn(None, "hello"), Turn("a", "b"), Turn("c", None)))
    assert [said for _, said in speeches(one, rubric)] == ["hello", "a", "b", "c"]
    assert matched(one) == "hellob"
    assert sample_answers([one, Dialogue("mine", "x", "8", (Turn("a", None),))])[2] == ["hello"]


# Through the command


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[dict[str, Any], str]]:
    """Scores some dialogues of one file by the stand-in."""

    def score(name: str, content: bytes, *options: str) -> tuple[dict[str, Any], str]:
        folder = tmp_path_factory.mktemp("run")
        (folder / name).write_bytes(content)
        arguments = ("score", folder / name, "--judge", "stand-in", "--run", folder / "run", "--metrics", "fluency")
        result = typed(*arguments, *("--no-report", *options), "--json", cwd=folder)
        return {"code": result.returncode, **json.loads(result.stdout)}, result.stderr

    return score


def test_chat_logs_as_people_have_them_are_scored(judged: Callable[..., tuple[dict[str, Any], str]]) -> None:
    many = [("user" if n % 2 == 0 else "assistant", f"第{n}句话") for n in range(40)]
    records = [
        chat([("assistant", "你来了"), *SAID]),
        {**chat(SAID[:3]), "scenario": "8"},
        {**chat(many), "scenario": "9"},
        {**chat([("user", ""), *SAID[1:]]), "scenario": "10"},
        {**chat([("system", "发条剑士"), *SAID]), "scenario": "11"},
    ]
    found, said = judged(
        "a.jsonl.gz", gzip.compress(lines(*records)), "--report", "--metrics", "fluency,response_diversity"
    )
    kept, _ = read_texts(
        Path(found["run"]), {"mine/司弦/7": Dialogue("", "司弦", "", (Turn(None, "你来了"), *TURNS)).content_digest}
    )
    assert [one.turns[0] for one in kept.values()] == [Turn(None, "你来了")]
    assert "你来了" in (Path(found["run"]) / "report.html").read_text(encoding="utf-8")
    assert (found["code"], found["judgments"], found["missing"]) == (0, 6, {})
    assert "dialogues that end with the user, without a reply: 1" in said


def test_a_reply_without_words_and_one_that_never_came_are_empty_answers(
    judged: Callable[..., tuple[dict[str, Any], str]],
) -> None:
    records = [
        chat([*SAID, ("user", "a"), ("assistant", " ")]),
        {**chat([("user", "a")]), "scenario": "8"},
        {**chat(), "scenario": "9"},
    ]
    found, _ = judged("a.jsonl", lines(*records))
    assert (found["code"], found["judgments"], found["missing"]) == (1, 3, {"empty_answer": 2})


def test_mapped_columns_are_scored_under_their_names(judged: Callable[..., tuple[dict[str, Any], str]]) -> None:
    found, _ = judged("a.csv", table(FROM_MODEL), "--map", "source=model,character=bot_name,scenario=id")
    assert (found["code"], found["leaderboard"][0]["source"]) == (0, "mine")
    manifest = json.loads((Path(found["run"]) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["data"]["map"] == "source=model,character=bot_name,scenario=id"


def test_the_preview_shows_how_the_first_dialogue_was_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        lines(chat([("system", "发条剑士"), ("assistant", "你来了"), ("user", "a"), ("user", "b\nc")], seed=1))
    )
    shown = typed("data", "preview", path, cwd=tmp_path)
    assert shown.returncode == 0
    for part in (
        f"{path}: jsonl, UTF-8; dialogues: 1, rounds: 2",
        "not used: seed",
        "assistant is the character, who is judged",
        "messages joined to one before by the same speaker: 1",
        "dialogues that end with the user, without a reply: 1",
        "profile: 发条剑士",
        "1 character: 你来了",
        "2 user: a ⏎ b ⏎ c",
    ):
        assert part in shown.stdout
    found = read(typed("data", "preview", path, "--json", cwd=tmp_path))
    assert found["files"][0]["first"]["turns"] == [
        {"user": None, "character": "你来了"},
        {"user": "a\nb\nc", "character": None},
    ]
    assert found["files"][0]["speakers"] == {"system": "profile", "assistant": "judged", "user": "user"}


def test_the_preview_lists_problems_a_line_each_and_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(chat(), chat(), {**IDS, "messages": 5}))
    result = typed("data", "preview", path, cwd=tmp_path)
    first, second, third = result.stderr.splitlines()
    assert (result.returncode, first) == (2, "esrp-judge: 2 problems:")
    assert "record 2: dialogue mine/司弦/7 stands already at" in second
    assert "record 3: field messages is int, not a list" in third
    assert "dialogues: 2, rounds: 2" in result.stdout
    assert typed("data", "preview", path, "--json", cwd=tmp_path).returncode == 2
