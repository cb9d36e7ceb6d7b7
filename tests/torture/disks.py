"""Disks that fill up or turn read-only in the middle of a run. Needs the right to mount; see ``can_mount``."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from judge.errors import GO_ON
from tests.torture import runs


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a disk in memory on a folder."""
    try:
        with disk(folder / "tried", kilobytes=64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of so many kilobytes at a folder, while this lasts."""
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def run(count: int, seed: int, folder: Path) -> list[str]:
    """Fill ``count`` disks of random sizes and turn one read-only; the failures."""
    if not can_mount(folder):
        print("disks: left out, as this user may not mount")
        return []
    draw = random.Random(seed)
    data, reported = runs.write_data(folder / "data.jsonl", 4), folder / "reported"
    unbroken = runs.complete(data, folder / "unbroken", reported)
    size = sum(path.stat().st_size for path in unbroken.rglob("*") if path.is_file()) // 1024
    failures = [
        failure
        for number in range(count)
        for failure in _fill(folder / f"full-{number}", draw.randrange(16, size), data, unbroken)
    ]
    failures += _turn_read_only(folder / "read-only", data, unbroken, reported)
    print(f"disks: {count} filled and 1 turned read-only, {len(failures)} failures", flush=True)
    return failures


def _fill(mount: Path, kilobytes: int, data: Path, unbroken: Path) -> list[str]:
    """Score by the command onto a disk that is too small, then make room and do so again."""
    command = [sys.executable, "-m", "judge", "score", str(data), "--judge", "stand-in", "--run", str(mount / "run")]
    how: dict[str, Any] = {"capture_output": True, "text": True}
    how["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}  # as the unbroken run, so that the same bytes come out
    with disk(mount, kilobytes):
        full = subprocess.run(command, check=False, **how)
        error = full.stderr.strip().splitlines()[-1]
        failures = [] if full.returncode == 3 else [f"{kilobytes} KB: exit code {full.returncode}: {error}"]
        for wanted in (f"the disk at {mount}", " judgments are saved in ", f"{GO_ON}: esrp-judge score "):
            failures += [] if wanted in error else [f"{kilobytes} KB: the error lacks {wanted!r}: {error}"]
        _mount("-o", "remount,size=64m", mount)
        again = subprocess.run(command, check=False, **how)
        return failures + ([again.stderr] if again.returncode else runs.differences(mount / "run", unbroken))


def _turn_read_only(mount: Path, data: Path, unbroken: Path, reported: Path) -> list[str]:
    run = mount / "run"
    with disk(mount, 65536):
        with runs.session(data, run, reported) as process:
            runs.wait_for(lambda: runs.parts(run), process)
            while subprocess.run(["mount", "-o", "remount,ro", mount], check=False, capture_output=True).returncode:
                pass  # busy while a file is being written
            process.join()
        failures = [] if process.exitcode == 3 else [f"read-only: exit code {process.exitcode}"]
        there, said = runs.judgments_there(run), runs.reported_done(reported)
        failures += [f"read-only: {said} reported as done, {there} there"] if there < said else []
        _mount("-o", "remount,rw", mount)
        runs.complete(data, run, reported)
        return failures + runs.differences(run, unbroken)
