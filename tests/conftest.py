"""Fixtures that more than one test file uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from judge import Options, score
from judge.data.dialogues import example_dialogues
from judge.models.stand_in import stand_in_folder
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import STAND_IN_MARK, Dialogue, Turn
from tests.helpers.object_store import object_store
from tests.helpers.rubric import ByStandIn, write_short_rubric


def pytest_configure(config: pytest.Config) -> None:
    """One thread a worker, and a process that it starts: more would wait for each other."""
    if config.getoption("numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = "1"  # before the workers are started, as torch reads it once


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own, for all workers and what they start, so that nothing of the user's is touched."""
    folder = shared_folder(tmp_path_factory) / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["ESRP_CACHE"] = str(folder)
    os.environ["HF_HUB_OFFLINE"] = "1"
    return folder


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a test run have in common, and that of this process where there is none."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def stand_in(cache: Path) -> Path:
    """The stand-in judge's model folder, built by the first worker that needs it."""
    with FileLock(cache / "stand-in.lock"):
        return stand_in_folder()


@pytest.fixture(scope="session")
def short_rubric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``--prompts`` with a rubric that takes a tenth of the packaged one's tokens."""
    return write_short_rubric(tmp_path_factory.mktemp("rubric") / "short")


@pytest.fixture(scope="session")
def by_stand_in(stand_in: Path, short_rubric: Path) -> ByStandIn:
    """Options of a run by the stand-in with the short rubric: ``by_stand_in(run, **more)``."""
    return lambda run=None, **more: Options(**{"judge": "stand-in", "run": run, "rubric": short_rubric, **more})


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
def scored(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which ``esrp-judge score`` was typed with nothing else, and what it printed."""

    def score_in(folder: Path) -> None:
        command = [sys.executable, "-m", "judge", "score"]
        done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
        said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]), encoding="utf-8")

    said = shared_folder(tmp_path_factory) / "said.json"
    folder = built_once(tmp_path_factory, "scored", score_in)
    return folder, subprocess.CompletedProcess(["esrp-judge", "score"], *json.loads(said.read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def example_run(by_stand_in: ByStandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the packaged example by the stand-in with the short rubric, to be read."""
    folder = built_once(tmp_path_factory, "example", lambda folder: score([], by_stand_in(folder / "run")))
    return folder / "run"


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder of this worker's own, copied from one that the first worker to need it has built."""
    original = shared_folder(factory) / f"{name}-built"
    with FileLock(original.with_suffix(".lock")):
        if not original.is_dir():
            original.mkdir()
            build(original)
    return Path(shutil.copytree(original, factory.mktemp(name), dirs_exist_ok=True))


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


@pytest.fixture(scope="module")
def store() -> Iterator[None]:
    """A store with an empty bucket, for this process and those that it starts."""
    if "MOTO_SERVER" not in os.environ:
        pytest.skip("no moto_server: `make test-store` installs it")
    with object_store() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield
