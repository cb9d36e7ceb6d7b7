"""The machine and its memory: what stands above the table, and how much a contestant's processes hold."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

INTERVAL_S = 0.1


def describe() -> dict[str, Any]:
    """CPU, cores, memory, system, Python."""
    cpu = _field(Path("/proc/cpuinfo"), "model name") or platform.processor()
    memory = _field(Path("/proc/meminfo"), "MemTotal") or "0 kB"
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.split()[0]) / 2**20),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions(environment: Path, names: Sequence[str]) -> dict[str, str]:
    """The versions of those of ``names`` that are installed in an environment."""
    found = metadata.distributions(path=[str(folder) for folder in environment.glob("lib/python*/site-packages")])
    known = {distribution.name.lower().replace("_", "-"): distribution.version for distribution in found}
    return {name: known[name] for name in names if name in known}


class PeakMemory:
    """Watches the processes of a session: the sum of each one's largest resident size (``VmHWM``), in MB.

    Pages that processes share count once for each, and peaks at different moments are added: it is an upper bound.
    """

    def __init__(self, session: int) -> None:
        self._session = session
        self._peaks: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        """What was seen so far."""
        return sum(self._peaks.values()) / 1000

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self.look()

    def look(self) -> None:
        """Take note of every process of the session."""
        for pid in session_processes(self._session):
            peak = _field(Path(f"/proc/{pid}/status"), "VmHWM")
            if peak:
                self._peaks[pid] = int(peak.split()[0]) * 1.024


def session_processes(session: int) -> list[int]:
    """The ids of the processes of a session."""
    found = []
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]:
        with suppress(OSError):  # it has just ended
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            # "pid (title) state parent group session …", where the title may itself hold blanks and brackets.
            if int(status.rpartition(")")[2].split()[3]) == session:
                found.append(pid)
    return found


def _field(file: Path, name: str) -> str | None:
    """The value of a line ``name: value`` in a file of ``/proc``; None where there is none."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
