"""Runs to be broken: their data, sessions in processes of their own that can be killed, and what must hold after."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from judge import Options, load_judgments, score
from judge.data.dialogues import example_dialogues
from judge.errors import JudgeError
from judge.progress import Silent

TABLES = ("scores.csv", "leaderboard.csv", "diversity.csv")
KEY = ["source", "character", "scenario", "metric", "content_digest"]
Prepare = Callable[[], None]
"""What a session does to itself before it begins, such as to plant a fault."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["judge.scoring.run", "judge.engines.packed.engine", "judge.models.stand_in", "transformers"]
)


def write_data(path: Path, sources: int) -> Path:
    """Dialogues of so many sources, made of the example's two: 36 a source, 32 or so a batch."""
    with path.open("w", encoding="utf-8") as file:
        for copy in range(sources // 2):
            for dialogue in example_dialogues():
                turns = [{"user": t.user, "character": t.character + "。" * copy} for t in dialogue.turns]
                names = {"character": dialogue.character, "scenario": dialogue.scenario, "turns": turns}
                print(json.dumps({"source": f"{dialogue.source}-{copy}", **names}, ensure_ascii=False), file=file)
    return path


class _Telling(Silent):
    """Writes how many judgments were reported as done, where that outlives the process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._done: dict[str, int] = {}
        self._stage = ""

    def begin(self, what: str, total: int, done: int) -> None:
        self._stage, self._done[what] = what, done

    def advance(self, judgments: int, tokens: int) -> None:
        self._done[self._stage] += judgments
        os.pwrite(self._file, f"{self._done.get('dialogues', 0):12}".encode(), 0)


def _session(data: Path, run: Path, reported: Path, prepare: Prepare | None, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)  # beside other work, two threads wait for each other most of the time
    if prepare:
        prepare()
    try:
        score([data], Options(run=run, **{"judge": "stand-in", **options}), _Telling(reported))
    except JudgeError as error:
        sys.exit(error.exit_code)


@contextmanager
def session(
    data: Path, run: Path, reported: Path, prepare: Prepare | None = None, **options: Any
) -> Iterator[BaseProcess]:
    """A process that scores; it and all that it started are gone after."""
    process = _context.Process(target=_session, args=(data, run, reported, prepare, options))
    process.start()
    try:
        yield process
    finally:
        kill(process)


def kill(process: BaseProcess) -> None:
    """Kill -9, and wait until it is gone."""
    process.kill()
    process.join()


def complete(data: Path, run: Path, reported: Path, **options: Any) -> Path:
    """The run, brought to its end by a session that nobody breaks."""
    with session(data, run, reported, **options) as process:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"an unbroken session ended with exit code {process.exitcode}")
    return run


def parts(run: Path) -> set[Path]:
    """The parts of a run, relative to it."""
    return {path.relative_to(run) for path in run.glob("*/part-*.parquet")}


def judgments_there(run: Path) -> int:
    """How many judgments a broken run holds, each checked against the hash of its part."""
    return len(load_judgments(run)) if (run / "manifest.json").exists() else 0


def reported_done(reported: Path) -> int:
    """How many judgments the last session said were done."""
    text = reported.read_text(encoding="ascii") if reported.exists() else ""
    return int(text or 0)


def wait_for(what: Callable[[], object], process: BaseProcess, seconds: float = 300.0) -> None:
    """Wait until something holds or the process is gone; RuntimeError where neither comes."""
    end = time.monotonic() + seconds
    while process.is_alive() and not what():
        if time.monotonic() > end:
            raise RuntimeError(f"nothing happened for {seconds:.0f} s")
        time.sleep(0.01)


def differences(run: Path, unbroken: Path) -> list[str]:
    """What is not as in an unbroken run, byte for byte."""
    made = [name for name in TABLES if (unbroken / name).is_file()]
    found = [name for name in made if (run / name).read_bytes() != (unbroken / name).read_bytes()]
    found += [f"only one has {path}" for path in parts(run) ^ parts(unbroken)]
    both = parts(run) & parts(unbroken)
    found += [str(path) for path in both if (run / path).read_bytes() != (unbroken / path).read_bytes()]
    doubled = load_judgments(run).duplicated(KEY).sum()
    return [*found, f"{doubled} judgments are there twice"] if doubled else found


def killed(process: BaseProcess) -> bool:
    """Whether a process died of kill -9."""
    return process.exitcode == -signal.SIGKILL
