"""A run keeps the dialogues that it judged: its texts are there without the input, and in another place."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from judge import Options, load_judgments, score
from judge.data.dataset import Corpus
from judge.data.dialogues import example_dialogues, example_files
from judge.progress import Silent
from judge.scoring.parts import DIALOGUES, keep_dialogues
from judge.scoring.run_folder import read_texts
from judge.types import Dialogue
from tests.helpers.chatanime import ALL_METRICS, LEVELS, RESPONSE_DIVERSITY
from tests.helpers.commands import read, typed
from tests.helpers.paths import ROOT

PROMPTS = ROOT / "prompts" / "chatanime" / "zh"
SOME = example_dialogues()[::3]
"""12 dialogues of each of two sources."""


def write_data(path: Path, dialogues: list[Dialogue]) -> Path:
    rows = [
        {
            "source": one.source,
            "character": one.character,
            "scenario": one.scenario,
            "profile": one.profile,
            "turns": [{"user": turn.user, "character": turn.character} for turn in one.turns],
        }
        for one in dialogues
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rubric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rubric of few words, by which prompts are short and scoring is quick."""
    home = tmp_path_factory.mktemp("rubric")
    for metric in ALL_METRICS:
        full = yaml.safe_load((PROMPTS / f"{metric}.yaml").read_text(encoding="utf-8"))
        short = {**full, "definition": metric, "levels": {level: str(level) for level in LEVELS}}
        (home / f"{metric}.yaml").write_text(yaml.safe_dump(short, allow_unicode=True), encoding="utf-8")
    texts = yaml.safe_load((PROMPTS / "system.yaml").read_text(encoding="utf-8"))
    (home / "system.yaml").write_text(yaml.safe_dump({**texts, "rules": "评分。"}, allow_unicode=True), "utf-8")
    return home


def judged(data: Path, run: Path, rubric: Path, listener: Silent | None = None, *more: str) -> Path:
    options = Options(judge="stand-in", run=run, rubric=rubric, metrics=("fluency", *more))
    return score([data], options, listener).run


def texts(run: Path) -> tuple[dict[str, Dialogue], str | None]:
    """All texts of a run's current judgments."""
    table = load_judgments(run)
    ids = table["source"] + "/" + table["character"] + "/" + table["scenario"]
    return read_texts(run, dict(zip(ids, table["content_digest"], strict=True)))


class Noting(Silent):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def moved(rubric: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run named ``run`` that was made elsewhere, and nothing of the data that it read."""
    folder = tmp_path_factory.mktemp("made")
    data = write_data(folder / "data.jsonl", SOME)
    judged(data, folder / "run", rubric, None, RESPONSE_DIVERSITY)
    data.unlink()
    return Path(shutil.move(folder / "run", tmp_path_factory.mktemp("elsewhere") / "run")).parent


@pytest.fixture
def run(moved: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(moved / "run", tmp_path / "run"))


def without_file(run: Path) -> Path:
    """The run as versions left it that kept no dialogues."""
    (run / DIALOGUES).unlink()
    return run


@pytest.fixture(scope="module")
def ratings(moved: Path) -> Path:
    """The example's ratings of what was judged."""
    path = moved / "ratings.csv"
    given = pd.read_csv(example_files()[0].with_name("ratings.csv"), dtype=str)
    given[given["metric"] == "fluency"].to_csv(path, index=False)
    return path


def test_the_file_holds_the_dialogues_as_they_are(moved: Path) -> None:
    table = pq.read_table(moved / "run" / DIALOGUES)
    assert table.column_names == ["content_digest", "source", "character", "scenario", "profile", "turns"]
    expected = sorted([one.id, one.content_digest, one.profile, len(one.turns)] for one in SOME)
    rows = table.to_pylist()
    ids = ["/".join((row["source"], row["character"], row["scenario"])) for row in rows]
    assert expected == sorted(
        [item, row["content_digest"], row["profile"], len(row["turns"])] for item, row in zip(ids, rows, strict=True)
    )


def test_a_moved_run_without_its_input_has_every_text(moved: Path) -> None:
    assert texts(moved / "run") == ({one.id: one for one in SOME}, None)


def test_a_moved_run_without_its_input_is_reported_with_its_texts(moved: Path) -> None:
    read(typed("report", "run", "--out", "page.html", "--json", cwd=moved))
    page = (moved / "page.html").read_text(encoding="utf-8")
    assert page.count('"turns":') == len(SOME)
    assert all(one.turns[0].user in page for one in SOME)


def test_a_moved_run_without_its_input_gives_forms_for_annotators(moved: Path) -> None:
    how = ["--budget", "20", "--overlap", "0", "--format", "label-studio", "--out", "plan.csv", "--json"]
    written = read(typed("plan", "run", *how, cwd=moved))
    tasks = (moved / written["forms"][1]).read_text(encoding="utf-8")
    planned = {row["item_id"] for row in written["plan"]}
    asked = [one for one in SOME if one.id in planned]
    assert len(asked) == 20 == len(json.loads(tasks))
    assert all(one.turns[0].character.splitlines()[0] in tasks for one in asked)


def test_a_moved_run_without_its_input_gives_a_calibration_all_its_anchor_dialogues(moved: Path, ratings: Path) -> None:
    found = read(typed("calibrate", "run", "--annotations", ratings, "--out", "c.json", "--json", cwd=moved))
    assert not [remark for remark in found["remarks"] if "anchor dialogues" in remark]
    saved = json.loads((moved / "c.json").read_text(encoding="utf-8"))
    anchors = {item for item, _, _ in saved["anchor"]}
    assert anchors and set(saved["dialogues"]) == anchors


def test_texts_that_an_old_run_lost_are_said_to_be_gone(run: Path, ratings: Path) -> None:
    how = ["run", "--annotations", ratings, "--out", "c.json", "--json"]
    found = read(typed("calibrate", *how, cwd=without_file(run).parent))
    assert any("of 24 anchor dialogues are gone" in remark for remark in found["remarks"])


def test_an_old_run_is_read_where_its_input_is_and_gains_the_file_when_it_goes_on(rubric: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.jsonl", SOME[:4])
    run = judged(data, tmp_path / "run", rubric)
    kept = (run / DIALOGUES).read_bytes()
    assert set(texts(without_file(run))[0]) == {one.id for one in SOME[:4]}
    judged(data, run, rubric)
    assert (run / DIALOGUES).read_bytes() == kept
    (run / DIALOGUES).unlink()
    data.unlink()
    found, why = texts(run)
    assert found == {} and "no such file" in str(why)


def test_dialogues_of_earlier_data_stay_while_parts_hold_judgments_of_them(rubric: Path, tmp_path: Path) -> None:
    first, second, third = SOME[:4], SOME[2:6], SOME[4:8]
    data = tmp_path / "data.jsonl"
    for some in (first, second, third):
        run = judged(write_data(data, some), tmp_path / "run", rubric)
    assert len(pq.read_table(run / DIALOGUES)) == 8
    for part in (run / "judgments").glob("part-*"):
        if set(pq.read_table(part)["content_digest"].to_pylist()) == {one.content_digest for one in first}:
            part.unlink()
    judged(write_data(data, second), run, rubric)
    assert set(pq.read_table(run / DIALOGUES)["scenario"].to_pylist()) == {one.scenario for one in SOME[2:8]}
    assert texts(run)[0] == {one.id: one for one in second}


@pytest.mark.parametrize("length", [0, 100, -40])
def test_a_damaged_file_is_named_and_written_anew(rubric: Path, tmp_path: Path, length: int) -> None:
    data = write_data(tmp_path / "data.jsonl", SOME[:4])
    run = judged(data, tmp_path / "run", rubric)
    sound = (run / DIALOGUES).read_bytes()
    (run / DIALOGUES).write_bytes(sound[:length])
    found, why = texts(run)
    assert found == {} and f"{run / DIALOGUES}: is damaged" in str(why)
    listener = Noting()
    judged(data, run, rubric, listener)
    assert any("is damaged" in note and "written anew" in note for note in listener.notes)
    assert (run / DIALOGUES).read_bytes() == sound


def test_a_flipped_bit_in_a_text_is_found(rubric: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.jsonl", SOME[:4])
    run = judged(data, tmp_path / "run", rubric)
    sound = (run / DIALOGUES).read_bytes()
    for place in range(60, len(sound) // 2, 97):
        (run / DIALOGUES).write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        found, why = texts(run)
        assert why or found == {one.id: one for one in SOME[:4]}


def test_no_more_than_a_row_group_is_held_at_a_time(tmp_path: Path) -> None:
    many = [
        Dialogue(one.source, one.character, f"{copy}-{one.scenario}", one.turns, one.profile)
        for copy in range(125)
        for one in SOME
    ]
    (tmp_path / "run").mkdir()
    with closing(Corpus([write_data(tmp_path / "data.jsonl", many)])) as corpus:
        assert keep_dialogues(tmp_path / "run", corpus) is None
    about = pq.ParquetFile(tmp_path / "run" / DIALOGUES).metadata
    assert about.num_rows == len(many) == 3000
    assert max(about.row_group(i).num_rows for i in range(about.num_row_groups)) <= 1024
