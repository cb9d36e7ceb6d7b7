"""Kill -9 at random moments of a real run: nothing that was reported as done is lost, and the end is the same."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from tests.torture import runs

SOURCES = 24
"""So many that a run is killed some ten times before it is done."""
LONGEST_S = 1.5


def run(count: int, seed: int, folder: Path, sources: int = SOURCES) -> list[str]:
    """Kill sessions of a run ``count`` times, a new run beginning where one ends; the failures."""
    draw = random.Random(seed)
    data, reported = runs.write_data(folder / "data.jsonl", sources), folder / "reported"
    unbroken = runs.complete(data, folder / "unbroken", reported)
    failures: list[str] = []
    killed = completed = 0
    while killed < count:
        kills, found = _break(data, folder / "run", unbroken, reported, draw, count - killed)
        killed, completed, failures = killed + kills, completed + 1, failures + found
        print(f"kills: {killed} of {count}, {completed} runs completed, {len(failures)} failures", flush=True)
    return failures


def _break(
    data: Path, run: Path, unbroken: Path, reported: Path, draw: random.Random, most: int
) -> tuple[int, list[str]]:
    """Kill one run again and again, at most so often, then complete it: how often, and what is wrong."""
    shutil.rmtree(run, ignore_errors=True)
    failures: list[str] = []
    kills = 0
    while kills < most and not (run / "leaderboard.csv").exists():
        if _kill_one(data, run, reported, draw.uniform(0, LONGEST_S)):
            kills += 1
            there, said = runs.judgments_there(run), runs.reported_done(reported)
            failures += [f"kill {kills}: {said} were reported as done, {there} are there"] if there < said else []
    runs.complete(data, run, reported)
    return kills, failures + runs.differences(run, unbroken)


def _kill_one(data: Path, run: Path, reported: Path, delay: float) -> bool:
    """Kill a session some time after it wrote its first part; False where it was done before."""
    before = runs.parts(run)
    with runs.session(data, run, reported) as process:
        runs.wait_for(lambda: runs.parts(run) - before, process)
        time.sleep(delay)
        runs.kill(process)
        return runs.killed(process)
