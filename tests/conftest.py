"""Fixtures that more than one test file uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from judge.data.dialogues import example_dialogues
from judge.models.stand_in import stand_in_folder
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import STAND_IN_MARK, Dialogue, Turn


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own, for this process and those it starts, so that nothing of the user's is touched."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ESRP_CACHE"] = str(folder)
    os.environ["HF_HUB_OFFLINE"] = "1"
    return folder


@pytest.fixture(scope="session")
def stand_in(cache: Path) -> Path:
    """The stand-in judge's model folder."""
    return stand_in_folder()


@pytest.fixture(scope="session")
def nameless(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in without the mark by which it is known, so that it passes for a judge of the user's own."""
    folder = Path(shutil.copytree(stand_in, tmp_path_factory.mktemp("nameless") / "my-judge"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config[STAND_IN_MARK]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tokenizer(stand_in: Path) -> JudgeTokenizer:
    """The stand-in judge's tokenizer."""
    return JudgeTokenizer(stand_in)


@pytest.fixture(scope="session")
def example() -> list[Dialogue]:
    """The dialogues of the packaged example."""
    return example_dialogues()


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which ``esrp-judge score`` was typed with nothing else, and what it printed."""
    folder = tmp_path_factory.mktemp("scored")
    command = [sys.executable, "-m", "judge", "score"]
    return folder, subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published data: ``$ESRP_SHARED_DATA``, or ``shared/data`` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ESRP_SHARED_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no published data at {folder}: set ESRP_SHARED_DATA to the folder that has it")
    return folder


@pytest.fixture(scope="session")
def chatanime(shared_data: Path) -> dict[str, dict[str, list[Dialogue]]]:
    """ChatAnime: source -> character -> its 60 dialogues."""
    paths = sorted((shared_data / "chatanime").glob("*.json"))
    if not paths:
        pytest.skip(f"no ChatAnime files in {shared_data / 'chatanime'}")
    raw = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    return {
        source: {who: [_dialogue(source, who, row) for row in rows] for who, rows in characters.items()}
        for source, characters in raw.items()
    }


def _dialogue(source: str, character: str, row: dict[str, str]) -> Dialogue:
    turns = tuple(Turn(row[f"question_r{i}"], row[f"answer_r{i}"]) for i in (1, 2))
    return Dialogue(source, character, str(row["dialog_id"]), turns)
