"""Kill -9 of runs that score by vLLM in this process; where vLLM is not installed, by the environment that has it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from judge import load_judgments
from tests.torture import runs

TOLERANCE = 1e-4
"""The largest difference of a score from that of an unbroken run: vLLM batches what a broken one has left otherwise."""
SOURCES = 20
"""So many that vLLM takes the dialogues in three windows, each of which is written when it is done."""
OTHER = Path(".venv-vllm/bin/python")


def run(count: int, seed: int, folder: Path) -> list[str]:
    """Kill sessions of a run ``count`` times, a new run beginning where one ends; the failures."""
    draw = random.Random(seed)
    data = runs.write_data(folder / "data.jsonl", SOURCES)
    unbroken = _complete(data, folder / "unbroken")
    failures: list[str] = []
    killed = 0
    while killed < count:
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        while killed < count and not (run / "leaderboard.csv").exists():
            killed += _kill_one(data, run, draw.uniform(0, 3), failures)
            print(f"engines: {killed} of {count}, {len(failures)} failures", flush=True)
        failures += _differences(_complete(data, run), unbroken)
    return failures


def _command(data: Path, run: Path) -> list[str]:
    python = str(OTHER) if OTHER.exists() else sys.executable
    options = ["--judge", "stand-in", "--engine", "vllm", "--metrics", "fluency", "--no-report"]
    return [python, "-m", "judge", "score", str(data), *options, "--run", str(run)]


def _start(data: Path, run: Path) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2", **os.environ}
    return subprocess.Popen(_command(data, run), env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload,no-any-return]


def _complete(data: Path, run: Path) -> Path:
    if _start(data, run).wait():
        raise RuntimeError("an unbroken session failed")
    return run


def _kill_one(data: Path, run: Path, delay: float, failures: list[str]) -> bool:
    """Kill a session some time after it wrote its first part; False where it was done before."""
    before = runs.parts(run)
    process = _start(data, run)
    while process.poll() is None and not runs.parts(run) - before:
        time.sleep(0.05)
    time.sleep(delay)
    there = runs.parts(run)
    process.kill()
    killed = process.wait() == -signal.SIGKILL
    failures += [f"{path} is gone" for path in there - runs.parts(run)]
    runs.judgments_there(run)
    if not _gone(process.pid):
        failures.append("vLLM's own process outlived the one that was killed by a minute")
        os.killpg(process.pid, signal.SIGKILL)
    return killed


def _gone(group: int) -> bool:
    """Whether all that a session started is gone within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.5)
    return False


def _differences(run: Path, unbroken: Path) -> list[str]:
    found, wanted = (load_judgments(path).set_index(runs.KEY).sort_index() for path in (run, unbroken))
    problems = [] if found.index.equals(wanted.index) else ["other judgments than in an unbroken run"]
    problems += ["judgments are there twice"] if found.index.has_duplicates else []
    problems += ["judgments are missing"] if found["score"].isna().any() else []
    largest = (found["score"] - wanted["score"]).abs().max() if not problems else 0.0
    return problems + ([f"a score differs by {largest:.2g}"] if not largest <= TOLERANCE else [])
