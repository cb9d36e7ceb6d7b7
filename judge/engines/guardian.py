"""A process that outlives ours and then ends vLLM's, which would go on for ever and keep the GPU's memory.

Run as a script with the id of the process to outlive. Linux only, as vLLM is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

POLL_S = 0.2
TITLE = "VLLM"
"""How the titles of vLLM's processes begin."""


def stand_guard() -> subprocess.Popen[bytes]:
    """Start the guardian of this process; it ends when this process does."""
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    none = subprocess.DEVNULL
    return subprocess.Popen(command, start_new_session=True, stdin=none, stdout=none, stderr=none)


def guard(parent: int) -> None:
    """Wait until the parent is gone, then kill what vLLM's processes it had last."""
    engines: set[int] = set()
    while os.getppid() == parent:
        with suppress(OSError):  # the parent is just going
            engines = _engines(parent)
        time.sleep(POLL_S)
    for pid in engines:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _engines(parent: int) -> set[int]:
    tasks = Path(f"/proc/{parent}/task").iterdir()
    children = {int(pid) for task in tasks for pid in (task / "children").read_text(encoding="ascii").split()}
    return {pid for pid in children if _title(pid).startswith(TITLE)}


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    return ""


if __name__ == "__main__":
    guard(int(sys.argv[1]))
