"""What is written and printed: no text of the data is a formula, a command to the terminal, or markup."""

import ast
import io
import json
import sys
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from calibration.records import read_records
from judge import cli as app
from judge.cli.console import console, line, plain_table, titled
from judge.errors import plain, readable
from judge.files import FORMULA, as_json_text, save_csv
from judge.scoring.summary import summarise
from tests.helpers.chatanime import METRICS, SCHEME
from tests.torture.hostile import texts

FORMULAS = ['=HYPERLINK("http://x","y")', "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "－1", "'=1", "''@"]
HARMLESS = ["gpt-4.1", "司弦", "'tis", "a=1", "1", "，", " "]
ESCAPES = [
    "\x1b[2J",
    "\x9b31m",
    "\x1b]8;;http://x\x07link\x1b]8;;\x07",
    "\u202eabc",
    "\rover",
    "a\x00b",
    "[bold]x[/bold]",
]


def written(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    save_csv(path, table)
    return read_records(path).table


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula_and_all_are_read_back(tmp_path: Path, text: str) -> None:
    back = written(pd.DataFrame({"source": [text, "b"], "score": [-1.5, 2.0]}), tmp_path / "t.csv")
    assert list(back["source"]) == [text, "b"]
    assert pd.read_csv(tmp_path / "t.csv", dtype=str)["source"][0].startswith("'")
    assert list(back["score"]) == ["-1.5000", "2.0000"]  # a number is no text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stand_as_they_are(tmp_path: Path, text: str) -> None:
    save_csv(tmp_path / "t.csv", pd.DataFrame({"source": [text]}))
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == f"source\n{text}\n"


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from(FORMULAS), st.text(st.characters(exclude_categories=["Cs"]))), min_size=1))
def test_any_names_are_read_back_and_none_is_a_formula(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("sheets") / "t.csv"
    back = written(pd.DataFrame({"name": names, "other": "x"}), path)
    assert list(back["name"]) == names
    with path.open(encoding="utf-8", newline="") as file:
        cells = pd.read_csv(file, dtype=str, keep_default_na=False, lineterminator="\n")["name"]
    assert not any(FORMULA.match(cell) and not cell.startswith("'") for cell in cells)


def test_the_table_of_scores_holds_no_formula() -> None:
    rows = [
        {"judge": "@j", "source": "=1+1", "character": "+角", "scenario": "-1", "metric": metric, "score": 3.0}
        for metric in METRICS
    ]
    file = io.StringIO()
    board = summarise([pd.DataFrame(rows)], SCHEME, METRICS, file)
    assert file.getvalue().splitlines()[1].startswith("'@j,'=1+1,'+角,'-1,3.0000")
    assert board["source"][0] == "=1+1"  # what stays in memory is the name itself


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_printed_commands_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = console()
    out.print(line(text))
    out.print(plain_table(text, ("head",), [(text,)]))
    print(as_json_text({text: [text]}))
    printed = capsys.readouterr().out
    assert not [c for c in printed if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
    assert "[bold]" in printed if "[bold]" in text else True
    assert json.loads(as_json_text({text: text})) == {text: text}


def test_every_text_can_be_printed() -> None:
    for text in texts(2000, seed=5):
        assert plain(text) == plain(plain(text))
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in plain(text))


def test_chinese_blanks_are_no_control_characters() -> None:
    assert plain("司\u3000弦") == "司\u3000弦"


def test_whatever_is_not_a_constant_is_printed_by_line() -> None:
    """``Text`` takes escape sequences as they are."""
    found = []
    for path in Path(app.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Text":
                made = [part for part in ast.walk(node.args[0]) if isinstance(part, (ast.JoinedStr, ast.Call))]
                found += [f"{path.name}:{node.lineno}"] if made else []
    assert len(found) == 1 and found[0].startswith("console.py")  # ``line`` itself


def test_an_error_is_a_line_that_can_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"no\x1b[2J\u202e\n  such{'长' * 60}.json"
    monkeypatch.setattr(sys, "argv", ["esrp-judge", "diversity", name])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "\x1b" not in said and "\u202e" not in said and "such" in said
    assert len(readable("x" * 10_000)) < 1000


def test_a_title_and_a_remark_that_are_wider_than_their_table_stand_on_a_line_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    title, below = "judge means by a judge (1 to 5)", "a judge: there is no GPU here, and no Hub can be reached"
    console().print(titled(title, Table("head"), below))
    console().print(plain_table(title, ("head",), [("1",)]))
    lines = [row.strip() for row in capsys.readouterr().out.splitlines()]
    assert lines[0] == title and lines.count(title) == 2 and lines.count(below) == 1
