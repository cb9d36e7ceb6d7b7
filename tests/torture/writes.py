"""Kill -9 at every step of every write: made, filled, synced, renamed, its folder synced; of each file of a run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

from tests.helpers.chatanime import METRICS
from tests.torture import runs

STEPS = ((tempfile, "mkstemp"), (os, "fdopen"), (os, "fsync"), (os, "replace"))
"""The calls by which a file comes to be; death comes before one of them."""
SMALL = {"limit": 8, "metrics": METRICS[:2]}


def run(count: int, seed: int, folder: Path) -> list[str]:
    """Kill a small run at ``count`` of its steps, drawn at random, or at all of them; the failures."""
    data, reported = runs.write_data(folder / "data.jsonl", 2), folder / "reported"
    unbroken = runs.complete(data, folder / "unbroken", reported, **SMALL)
    steps = _count_steps(data, folder / "counted", reported)
    chosen = sorted(random.Random(seed).sample(range(steps), min(count, steps)))
    failures = [failure for step in chosen for failure in _die_at(step, data, folder / "run", unbroken, reported)]
    print(f"writes: killed at {len(chosen)} of {steps} steps, {len(failures)} failures", flush=True)
    return failures


def _die_at(step: int, data: Path, run: Path, unbroken: Path, reported: Path) -> list[str]:
    shutil.rmtree(run, ignore_errors=True)
    with runs.session(data, run, reported, partial(_watch_steps, None, step), **SMALL) as process:
        process.join()
    if not runs.killed(process):
        return [f"step {step}: the session ended with {process.exitcode} and was not killed"]
    there = runs.judgments_there(run)
    runs.complete(data, run, reported, **SMALL)
    lost = there > runs.judgments_there(run)
    return [f"step {step}: {problem}" for problem in [*runs.differences(run, unbroken), *["judgments lost"] * lost]]


def _count_steps(data: Path, run: Path, reported: Path) -> int:
    log = reported.with_name("steps")
    with runs.session(data, run, reported, partial(_watch_steps, log, None), **SMALL) as process:
        process.join()
    return log.stat().st_size


def _watch_steps(log: Path | None, fatal: int | None) -> None:
    """Have each step write a byte to ``log``, and the ``fatal``-th kill this process before it is done."""
    taken = iter(range(10**6))

    def watched(real, *arguments, **named):  # type: ignore[no-untyped-def]
        if next(taken) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if log:
            with log.open("ab") as file:
                file.write(b".")
        return real(*arguments, **named)

    for module, name in STEPS:
        setattr(module, name, partial(watched, getattr(module, name)))
