"""Two processes on one run, and a clock that is set back: both end well, and nothing is there twice."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.torture import runs


def run(count: int, seed: int, folder: Path) -> list[str]:
    """Two processes on one run ``count`` times, once on files from tomorrow; the failures."""
    data, reported = runs.write_data(folder / "data.jsonl", 4), folder / "reported"
    unbroken = runs.complete(data, folder / "unbroken", reported)
    failures = [failure for number in range(count) for failure in _two(data, folder / f"run-{number}", unbroken)]
    failures += _from_tomorrow(data, folder / "tomorrow", unbroken, reported)
    print(f"clashes: {count} runs by two processes, 1 from tomorrow, {len(failures)} failures", flush=True)
    return failures


def _two(data: Path, run: Path, unbroken: Path) -> list[str]:
    first, second = (run.with_name(f"reported-{number}") for number in (1, 2))
    with runs.session(data, run, first) as one, runs.session(data, run, second) as other:
        one.join()
        other.join()
    codes = [process.exitcode for process in (one, other)]
    return ([f"two processes ended with {codes}"] if any(codes) else []) + runs.differences(run, unbroken)


def _from_tomorrow(data: Path, run: Path, unbroken: Path, reported: Path) -> list[str]:
    """Go on with a run whose files say that they were written tomorrow, as they do once a clock is set back."""
    with runs.session(data, run, reported) as process:
        runs.wait_for(lambda: runs.parts(run), process)
    tomorrow = time.time() + 24 * 3600
    for path in (*run.rglob("*"), run):
        os.utime(path, (tomorrow, tomorrow))
    return runs.differences(runs.complete(data, run, reported), unbroken)
