"""What a user gets wrong, over all commands: one line on stderr with what it is about, exit code 2, nothing written."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.commands import refused, typed
from tests.helpers.pairs import tables
from tests.helpers.paths import EXAMPLE, RATINGS

ROW = '{"source": "s", "character": "c", "scenario": 1, "question_r1": "q", "answer_r1": "a"}'
RATED = "source,character,scenario,metric,annotator,score\n"
FILES = {
    "empty.json": b"",
    "hello.json": b"hello",
    "cut.json": b'{"c": [{"dialog_id": 1, "ques',
    "latin.json": '{"caractère": []}'.encode("latin-1"),
    "lacks.jsonl": f"{ROW}\n{ROW.replace('answer_r1', 'answer')}".encode(),
    "twice.jsonl": f"{ROW}\n{ROW}".encode(),
    "silent.jsonl": ROW.replace('"a"', '" "').encode(),
    "bidi.jsonl": f"{ROW}\n{ROW}".replace('"s"', '"a\\u202eb"').encode(),
    "escape.jsonl": ROW.replace('"s"', '"a\\u001b[31mb"').encode(),
    "elsewhere.csv": f"{RATED}a,b,c,fluency,x,3\n".encode(),
    "charm.csv": f"{RATED}a,b,c,charm,x,3\n".encode(),
    "seven.csv": f"{RATED}a,b,c,fluency,x,7\n".encode(),
    "nothing.csv": b"",
    "others.csv": b"item_id,source,metric,annotator,score\nx,plain,fluency,a,3\n",
    "brace.json": b"{",
    "bare.json": b"{}",
    "future.json": b'{"format": "esrp-calibration", "version": 99}',
    "precious/notes.txt": b"x",
}
"""What stands in the folder in which commands are typed; with it the tables below."""
SCORE = "--judge stand-in"
AGREE = "agree scores.csv --annotations ratings.csv"
LAYOUTS = "layouts {plain} {steady} --judge stand-in --annotations"

CASES: dict[str, tuple[str, list[str]]] = {
    # Files of dialogues
    "data: missing": (f"score nowhere.json {SCORE}", ["nowhere.json", "no such file", "check the path"]),
    "data: empty": (f"score empty.json {SCORE}", ["empty.json", "is empty"]),
    "data: not JSON": (f"score hello.json {SCORE}", ["hello.json", "not JSON", "fix"]),
    "data: cut short": (f"score cut.json {SCORE}", ["cut.json", "not JSON at line 1", "fix"]),
    "data: encoding": (f"score latin.json {SCORE}", ["latin.json", "not UTF-8", "save it as UTF-8"]),
    "data: lacks a field": (f"score lacks.jsonl {SCORE}", ["lacks.jsonl: record 2", "field answer_r1 is missing"]),
    "data: twice": (f"score twice.jsonl {SCORE}", ["twice.jsonl: record 2", "twice.jsonl: record 1", "remove one"]),
    "data: right to left": (f"score bidi.jsonl {SCORE}", ["stands already"]),
    "data: escape": (f"score escape.jsonl {SCORE}", ["control character"]),
    "data: no judge named": ("score silent.jsonl", ["JUDGE=qwen3-0.6b", "JUDGE=stand-in", "mean nothing"]),
    # Options of score
    "score: metric": ("score --metrics fluency,charm", ["--metrics charm", "choose from fluency"]),
    "score: no metric": ("score --metrics ,", ["--metrics names none"]),
    "score: language": ("score --language fr", ["--language fr", "zh, en"]),
    "score: layout": ("score --layout chat", ["--layout chat", "prefill, question, separate"]),
    "score: engine": ("score --engine warp", ["--engine warp", "auto"]),
    "score: orderings": ("score --orderings 3", ["--orderings 3"]),
    "score: judge": ("score --judge gpt-4", ["--judge gpt-4", "qwen3-0.6b"]),
    "score: empty judge": ("score --judge ''", ["--judge", "neither a preset"]),
    "score: source": ("score --sources z", ["--sources z", "plain, steady"]),
    "score: limit": ("score --limit 0", ["--limit 0"]),
    "score: limit in words": ("score --limit few", ["--limit", "--help"]),
    "score: prompts": ("score --prompts nowhere", ["--rubric nowhere", "rubric new"]),
    "score: unknown option": ("score --speed 9", ["--speed", "--help"]),
    "score: no run": ("score --run precious", ["is not a run", "--run"]),
    "score: calibration not JSON": ("score --run r --calibration brace.json", ["not JSON"]),
    "score: calibration of nothing": ("score --run r --calibration bare.json", ["not a calibration"]),
    "score: calibration to come": ("score --run r --calibration future.json", ["version 99"]),
    # show
    "show: nobody": ("show plain/nobody/1", ["no dialogue plain/nobody/1", "for instance plain/"]),
    "show: escape": ("show '\x1b[31m'", ["no dialogue \N{REPLACEMENT CHARACTER}[31m", "source/character/scenario"]),
    "show: metric": ("show x --metric mood", ["--metrics mood", "not a metric of the rubric chatanime"]),
    "show: diversity": ("show {id} --metric response_diversity", ["response_diversity", "not of one dialogue"]),
    "show: layout": ("show {id} --layout odd", ["--layout odd"]),
    "show: data": (f"show x nowhere.jsonl {SCORE}", ["nowhere.jsonl", "no such file"]),
    "show: silent": (f"show s/c/1 silent.jsonl {SCORE}", ["s/c/1", "no judge is asked"]),
    # layouts, attack, probe
    "layouts: other items": (
        f"{LAYOUTS} elsewhere.csv", ["--annotations", "none of its 1 items", "a/b/c", "source/character/scenario"],
    ),
    "layouts: other metrics": (f"{LAYOUTS} charm.csv", ["--annotations", "rates none of fluency", "but charm"]),
    "layouts: scale": (f"{LAYOUTS} seven.csv", ["--annotations", "seven.csv", "record 1", "off the scale"]),
    "layouts: no ratings": (f"{LAYOUTS} nothing.csv", ["--annotations", "nothing.csv", "no records"]),
    "layouts: out": (f"layouts {SCORE} --out no/a.csv", ["--out"]),
    "attack: out": (f"attack {SCORE} --out no/a.json", ["--out"]),
    "probe: out": (f"probe {SCORE} --out no/a", ["cannot be written"]),
    # report
    "report: nowhere": ("report nowhere", ["nowhere"]),
    "report: no run": ("report precious", ["no run there"]),
    "report: language": ("report {run} --language fr", ["--language fr", "zh, en"]),
    "report: out": ("report {run} --out none/x.html", ["--out", "cannot be written"]),
    # Options of agree
    "agree: scale of one number": (f"{AGREE} --scale 5", ["--scale 5", "write 1-5"]),
    "agree: scale upside down": (f"{AGREE} --scale 5-1", ["--scale 5-1"]),
    "agree: scale with dots": (f"{AGREE} --scale 1..2-5", ["esrp-judge: --scale 1..2-5: not understood; write 1-5"]),
    "agree: scale without end": (f"{AGREE} --scale 1-{'9' * 400}", ["--scale 1-999"]),
    "agree: two scales for all": (f"{AGREE} --scale 1-5,2-6", ["--scale 1-5,2-6"]),
    "agree: no scale": (f"{AGREE} --scale ,", ["--scale ,"]),
    "agree: annotator": (f"{AGREE} --annotators a0,zoe", ["no annotator 'zoe'", "a0, a1, a2"]),
    "agree: no annotator": (f"{AGREE} --annotators ,", ["--annotators names none"]),
    "agree: judge": (f"{AGREE} --judge x", ["no judge 'x'", "no column judge"]),
    "agree: epsilon": (f"{AGREE} --epsilon nan", ["--epsilon nan", "from 0 to 1"]),
    "agree: raters": (f"{AGREE} --raters robots", ["--raters", "slots"]),
    "agree: characters": (f"{AGREE} --generalise characters", ["no column 'character'"]),
    "agree: out is a file": (f"{AGREE} --out ratings.csv", ["--out ratings.csv", "cannot be written"]),
    "agree: out under a file": (f"{AGREE} --out ratings.csv/x", ["--out ratings.csv/x", "cannot be written"]),
    "agree: out with a folder": (f"{AGREE} --out taken", ["--out taken", "holds a folder agreement.csv"]),
    "agree: ratings a folder": (f"{AGREE} --annotations taken", ["--annotations taken", "a folder", "give a file"]),
    "agree: ratings nowhere": (f"{AGREE} --annotations no.csv", ["--annotations no.csv", "no such file"]),
    "agree: scores for ratings": (f"{AGREE} --annotations scores.csv", ["scores.csv", "no column 'annotator'"]),
    "agree: no ratings named": ("agree scores.csv", ["scores.csv", "--annotations FILE"]),
    "agree: no means": ("agree {run}", ["no published means of its sources", "--annotations FILE"]),
    "agree: nowhere": ("agree nowhere.csv --annotations ratings.csv", ["nowhere.csv", "no such run or table"]),
    "agree: no name of a file": (
        f"agree {'x' * 4000} --annotations ratings.csv", ["no such run or table", "File name too long"],
    ),
    "agree: a folder of other things": ("agree precious --annotations ratings.csv", ["precious", "no run there"]),
    "agree: an empty folder": ("agree empty --annotations ratings.csv", ["empty", "no run there"]),
    # Tables that do not go together
    "tables: other metrics": ("agree metric.csv --annotations ratings.csv", ["no metric in common", "judge: other)"]),
    "tables: other items": ("agree items.csv --annotations ratings.csv", ["no item in common"]),
    "tables: other sources": (
        "agree sources.csv --annotations ratings.csv", ["item 'i0'", "source 'x' among the scores"],
    ),
    "tables: all missing": ("agree missing.csv --annotations ratings.csv", ["every score", "judge them again"]),
    "tables: several judges": ("agree judges.csv --annotations ratings.csv", ["several judges (x, y)", "--judge"]),
    "tables: a repeat": ("agree scores.csv --annotations repeat.csv", ["already in record 1", "--average-repeats"]),
    "tables: no ratings": ("agree scores.csv --annotations unrated.csv", ["unrated.csv", "no records"]),
    "tables: two chances": ("agree scores.csv --annotations chances.csv", ["two inclusion probabilities"]),
    # calibrate, estimate, compare, plan
    "calibrate: nothing to fit or use": ("calibrate scores.csv", ["--annotations"]),
    "calibrate: other dialogues": ("calibrate {run} --annotations others.csv", ["no item in common"]),
    "calibrate: out": ("calibrate {run} --annotations {ratings} --out no/such/file", ["cannot be written"]),
    "estimate: other dialogues": ("estimate {run} --annotations others.csv", ["no item in common"]),
    "estimate: metric": ("estimate {run} --annotations {ratings} --metrics nonsense", ["--metrics nonsense"]),
    "compare: source": ("compare {run} plain nobody", ["no source 'nobody'"]),
    "plan: budget": ("plan {run} --budget 73 --out plan.csv", ["give at most 72"]),
    "plan: out": ("plan {run} --budget 40 --out no/such/file", ["cannot be written"]),
}  # fmt: skip


def write_tables(folder: Path) -> None:
    """Good ratings and scores, and forms of them that do not go together."""
    ratings, scores = tables(metrics=("kind", "fluent"), sources=6)
    written = {
        "ratings": ratings,
        "repeat": pd.concat([ratings, ratings[:1].assign(score=1)]),
        "unrated": ratings[:0],
        "chances": ratings.assign(inclusion_probability=[0.5, *[0.25] * (len(ratings) - 1)]),
        "scores": scores,
        "metric": scores[:40].assign(metric="other"),
        "items": scores.assign(item_id="x" + scores["item_id"]),
        "sources": scores.assign(source="x"),
        "missing": scores.assign(score=None),
        "judges": pd.concat([scores.assign(judge="x"), scores.assign(judge="y")]),
    }
    for name, table in written.items():
        table.to_csv(folder / f"{name}.csv", index=False)


@pytest.fixture(scope="module")
def folder(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands are typed."""
    folder = tmp_path_factory.mktemp("refusals")
    for name in ("taken/agreement.csv", "empty", "precious"):
        (folder / name).mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    write_tables(folder)
    return folder


@pytest.fixture(scope="module")
def there(example_run: Path) -> dict[str, object]:
    """What stands elsewhere: the packaged example, its ratings, and a run of it."""
    plain, steady = EXAMPLE
    first = next(iter(json.loads(plain.read_text(encoding="utf-8"))))
    return {"plain": plain, "steady": steady, "ratings": RATINGS, "run": example_run, "id": f"plain/{first}/1"}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_nothing_is_written(folder: Path, there: dict[str, object], case: str) -> None:
    line, parts = CASES[case]
    before = contents(folder)
    result = typed(*shlex.split(line.format_map(there)), cwd=folder)
    refused(result, *parts)
    assert "\x1b" not in result.stderr and "\u202e" not in result.stderr
    assert contents(folder) == before


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every file of a folder with what is in it, and its folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
