"""Rubbish in the place of every kind of file: read, or refused in a line, in seconds and a bounded memory.

``make torture`` does the same with files by the ten thousand.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from calibration import TableError
from calibration.records import read_records
from judge.data.dataset import Corpus
from judge.data.dialogues import Problem, read_dialogues
from judge.errors import InputError
from judge.prompting.rubric import load_rubric
from tests.helpers.commands import without_waits
from tests.torture import fuzz, mutation
from tests.torture.rubbish import rubbish

SEED = 7


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rubbish")


@pytest.fixture(scope="module")
def kinds(home: Path) -> list[fuzz.Kind]:
    return fuzz.kinds(home)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Less memory than a bomb would take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (fuzz.address_space() + fuzz.MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_the_good_files_are_read(kinds: list[fuzz.Kind], home: Path) -> None:
    for kind in kinds:
        path = home / kind.name
        path.write_bytes(kind.write(kind.value))
        kind.read(path)


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.long)])
def test_spoilt_files_are_read_or_refused_in_our_words(kinds: list[fuzz.Kind], home: Path, count: int) -> None:
    few = [kind for kind in kinds if not kind.name.endswith(".yaml")]
    found = [fuzz.trial(few, home, SEED, number) for number in range(count)]
    assert [wrong for wrong in found if wrong] == []


def test_spoilt_rubrics_are_refused_in_our_words(kinds: list[fuzz.Kind], home: Path) -> None:
    rubrics = [kind for kind in kinds if kind.name.endswith(".yaml")]
    assert [wrong for number in range(30) if (wrong := fuzz.trial(rubrics, home, SEED, number))] == []


@pytest.mark.parametrize(
    "name",
    [
        "chatanime.json",
        "dialogues.csv",
        "ratings.jsonl",
        pytest.param("scores.parquet", marks=pytest.mark.long),
        "fluency.yaml",
    ],
)
def test_what_is_no_file_or_has_no_end_is_refused(kinds: list[fuzz.Kind], home: Path, name: str) -> None:
    assert fuzz.refusals([kind for kind in kinds if kind.name == name], home) == []


def test_a_reader_that_fails_in_another_way_is_found(tmp_path: Path) -> None:
    def crash(path: Path) -> None:
        raise KeyError(path.name)

    def endless(path: Path) -> None:
        while True:
            pass

    def at_length(path: Path) -> None:
        raise InputError("\x1b".join(["x"] * 3) + "\n  y" * 50)

    assert fuzz.told(crash, tmp_path) == f"KeyError: '{tmp_path.name}'"
    assert fuzz.told(endless, tmp_path, seconds=0.2) == "_TooSlow: "
    assert "nobody can read" in str(fuzz.told(at_length, tmp_path))


def test_the_bombs_are_small_and_would_go_off(tmp_path: Path) -> None:
    bombs = {name: make for name, make in rubbish(".parquet").items() if name.startswith("bomb")}
    for name, make in bombs.items():
        make(path := tmp_path / f"{name}.parquet")
        about = pq.ParquetFile(path).metadata
        assert path.stat().st_size < 2**20
        assert about.num_rows * about.num_columns + about.row_group(0).total_byte_size > 2**27
        with pytest.raises(TableError, match="in so small a file"):
            read_records(path)
        with pytest.raises(InputError, match="in so small a file"):
            Corpus([path])


@pytest.mark.parametrize(
    "value", ["!!timestamp x", "!!int ''", "!!bool x", "2020-13-45", "!!python/name:os.system", "&a [*a]", "9" * 5000]
)
def test_yaml_that_its_reader_fails_on_is_refused(home: Path, kinds: list[fuzz.Kind], value: str) -> None:
    kind = next(kind for kind in kinds if kind.name == "fluency.yaml")
    path = home / kind.name
    path.write_text(f"title: {value}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"fluency\.yaml"):
        kind.read(path)


def test_half_a_character_is_refused_wherever_it_stands(tmp_path: Path, home: Path) -> None:
    row = dict(mutation.DIALOGUES[0])
    for field in row:
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({**row, field: "好\ud800"}), encoding="utf-8")
        (found,) = read_dialogues([path])
        assert isinstance(found, Problem) and f"{field} holds half a character" in found.message
    path.write_text(json.dumps({**mutation.RATINGS[0], "annotator": "\udfff"}), encoding="utf-8")
    with pytest.raises(TableError, match="not a JSON object"):
        read_records(path)


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\u2028b", "a\x9bb", "a\x00"])
def test_a_name_is_one_line_of_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({**mutation.DIALOGUES[0], "source": name}), encoding="utf-8")
    (found,) = read_dialogues([path])
    assert isinstance(found, Problem) and "field source holds a line break or a control character" in found.message


@pytest.mark.parametrize("mark", ["\\ue010", "\\ue000", "\\x1b", "\\ud800"])
def test_a_rubric_holds_no_mark_and_nothing_unprintable(home: Path, kinds: list[fuzz.Kind], mark: str) -> None:
    kind = next(kind for kind in kinds if kind.name == "fluency.yaml")
    path = home / kind.name
    text = kind.write(kind.value | {"title": "TITLE"}).decode("utf-8")
    path.write_text(text.replace("TITLE", f'"a{mark}"'), encoding="utf-8")
    with pytest.raises(InputError, match=r"mark slots|control character"):
        kind.read(path)


def test_a_calibration_with_a_part_of_another_kind_is_damaged(kinds: list[fuzz.Kind], home: Path) -> None:
    kind = next(kind for kind in kinds if kind.name == "calibration.json")
    metric = kind.value["metrics"]["fluency"]
    others = {name: one for name, one in kind.value["metrics"].items() if name != "fluency"}
    spoilt = [
        {**kind.value, "metrics": {**others, "fluency": {**metric, "half_width": "wide"}}},
        {**kind.value, "metrics": {**others, "fluency": {**metric, "half_width_named": {}}}},
        {**kind.value, "metrics": others},
        {**kind.value, "groups": float("1e999")},
    ]
    for value in spoilt:
        (path := home / kind.name).write_text(json.dumps(value).replace("Infinity", "1e999"), encoding="utf-8")
        with pytest.raises(InputError, match="damaged calibration"):
            kind.read(path)


COMMANDS = [
    ["diversity", "RUBBISH.json"],
    ["score", "RUBBISH.csv", "--judge", "stand-in"],
    ["score", "--judge", "stand-in", "--prompts", "RUBBISH.json"],
    ["score", "--judge", "x" * 5000],
    ["agree", "RUBBISH.jsonl", "--annotations", "RUBBISH.csv"],
    ["compare", "RUBBISH.parquet", "a", "b"],
    ["calibrate", "RUBBISH.csv", "--use", "RUBBISH.json"],
    ["diversity", "长" * 200 + ".json"],
]


@pytest.mark.parametrize("make", ["pipe", pytest.param("folder", marks=pytest.mark.long)])
def test_the_command_says_so_in_a_line(tmp_path: Path, make: str) -> None:
    for suffix in (".json", ".csv", ".jsonl", ".parquet"):
        rubbish(suffix)[make](tmp_path / f"RUBBISH{suffix}")
    program = "import sys, json\nfrom judge.cli import main\n" + (
        "for command in json.load(sys.stdin):\n"
        "    sys.argv[1:] = command\n"
        "    try: main()\n"
        "    except SystemExit as stopped: print(stopped.code, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(COMMANDS), cwd=tmp_path, capture_output=True, text=True,
        check=True, timeout=120, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    said = [line for line in without_waits(done.stderr) if not line.startswith("  ")]  # of a list of problems
    assert said[1::2] == ["2"] * len(COMMANDS), done.stderr
    assert all(line.startswith("esrp-judge: ") and "internal" not in line for line in said[::2])
    assert not done.stdout


def test_the_packaged_rubric_is_still_read() -> None:
    assert load_rubric("zh").metrics
