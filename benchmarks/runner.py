"""Runs one contestant once: a process in its own environment, watched for memory and time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.entries import Entry
from benchmarks.machine import PeakMemory, session_processes
from benchmarks.server import Server
from benchmarks.task import Job, one_line

ROOT = Path(__file__).resolve().parents[1]
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DEEPEVAL_TELEMETRY_OPT_OUT": "YES",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No contestant asks the network for anything."""


def python_of(environment: Path) -> Path:
    """An environment's interpreter."""
    return environment / "bin" / "python"


def missing(environment: Path) -> str | None:
    """Why an environment cannot be used, in a line; None where it can. A log is left there only by what failed."""
    log = environment / "install.log"
    if python_of(environment).exists() and not log.is_file():
        return None
    said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    faults = [line for line in said if line.startswith("ERROR")] or said or ["`make bench` makes it"]
    return one_line(f"cannot be installed: {faults[-1]}")


def run_once(entry: Entry, job: Job, environment: Path, folder: Path, server: Server | None = None) -> dict[str, Any]:
    """One repeat: the contestant's result with ``peak_mb``, or ``error``."""
    problem = missing(environment)
    if problem:
        return {"error": problem}
    job.write(folder / "job.json")
    (folder / "result.json").unlink(missing_ok=True)
    module = f"benchmarks.contestants.{entry.module}"
    command = [str(python_of(environment)), "-m", module, str(folder / "job.json"), str(folder / "result.json")]
    environ = {**os.environ, **QUIET, **job.settings.get("environment", {}), "PYTHONPATH": str(ROOT)}
    log = folder / f"{entry.key}.log"
    late = False
    with log.open("wb") as output, ExitStack() as stack:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=output, start_new_session=True
        )
        stack.callback(_end, process)
        watched = [process.pid, *([server.session] if server else [])]
        peaks = [stack.enter_context(PeakMemory(session)) for session in watched]
        try:
            process.wait(timeout=entry.limit_s)
        except subprocess.TimeoutExpired:
            late = True
    found = {"error": f"stopped after {entry.limit_s:.0f} s"} if late else _result(folder / "result.json", log)
    if "error" in found:
        found["error"] = found["error"].replace(f"{folder}{os.sep}", "")
    return {**found, "peak_mb": round(sum(peak.megabytes for peak in peaks))}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, which are in its session."""
    for pid in session_processes(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def _result(place: Path, log: Path) -> dict[str, Any]:
    """What a contestant wrote; the last line of its log as ``error`` where it ended without."""
    if place.is_file():
        return dict(json.loads(place.read_text(encoding="utf-8")))
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line for line in lines if line.strip()] or ["it ended without a word"]
    return {"error": one_line(said[-1])}
