"""Several processes on one run: the same tables as one makes, and nothing lost where one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from judge import InputError
from judge.models.hardware import Gpu, Hardware
from judge.scoring.multi_gpu import Share, check

CPUS = Hardware(2, 8.0, (), None, None, None)
GPUS = Hardware(2, 8.0, (Gpu(0, "a", 24.0, 20.0, (9, 0)), Gpu(1, "b", 24.0, 20.0, (9, 0))), "580", "13.0", None)


def command(run: Path, prompts: Path, devices: str = "cpu,cpu") -> list[str]:
    options = ["--judge", "stand-in", "--prompts", str(prompts), "--run", str(run), "--devices", devices]
    return [sys.executable, "-m", "judge", "score", *options]


def tables(run: Path) -> list[str]:
    return [(run / name).read_text(encoding="utf-8") for name in ("scores.csv", "leaderboard.csv", "diversity.csv")]


def workers_of(pid: int) -> list[int]:
    """Processes that were started by another and work on a run."""
    found = subprocess.run(["ps", "-eww", "-o", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()[1:]]
    return [int(child) for child, parent, args in rows if int(parent) == pid and "spawn_main" in args]


def test_shares_are_every_unit_once() -> None:
    batches = list(range(7))
    assert sorted(Share(0, 3).of(batches) + Share(1, 3).of(batches) + Share(2, 3).of(batches)) == batches


def test_two_processes_make_the_tables_of_one(example_run: Path, short_rubric: Path, tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path / "run", short_rubric), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "judgments: 654 of 654 judgments" in done.stderr  # more, if they did each other's work
    assert tables(tmp_path / "run") == tables(example_run)
    engines = json.loads((tmp_path / "run" / "manifest.json").read_text())["engines"]
    assert [(engine["device"], engine["name"]) for engine in engines] == [("cpu", "packed")] * 2


@pytest.mark.long
def test_a_process_that_is_killed_ends_the_run_and_the_same_command_goes_on(
    example_run: Path, short_rubric: Path, tmp_path: Path
) -> None:
    work = subprocess.Popen(
        command(tmp_path / "run", short_rubric), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while len(workers := workers_of(work.pid)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(workers[0], signal.SIGKILL)
    _, said = work.communicate(timeout=120)
    assert work.returncode == 3
    assert "the process of device cpu died (-9)" in said and "run the same command again to go on" in said
    assert workers_of(work.pid) == []
    again = subprocess.run(command(tmp_path / "run", short_rubric), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert tables(tmp_path / "run") == tables(example_run)


@pytest.mark.parametrize(
    ("devices", "hardware", "message"),
    [
        (("0",), CPUS, "--devices 0: no such device; there is cpu"),
        (("2",), GPUS, "--devices 2: no such device; there is 0, 1"),
        (("cpu",), GPUS, "--devices cpu: no such device"),
        (("1", "1"), GPUS, "stands twice"),
    ],
)
def test_devices_that_are_not_there_are_refused(devices: tuple[str, ...], hardware: Hardware, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(devices, hardware)
