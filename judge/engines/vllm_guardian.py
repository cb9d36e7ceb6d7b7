"""A process that outlives ours and ends vLLM's processes once they are orphans, which would go on for ever.

So does an engine whose run was killed, and a worker whose engine was; they keep the GPU's memory. Run as a script with
the id of the process to outlive. Linux only, as vLLM is.
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
    """Until the parent is gone and vLLM's processes are, kill each of them that is not below the parent any more."""
    known: set[int] = set()
    while known or os.getppid() == parent:
        known |= {child for pid in (parent, *known) for child in _children(pid)}
        known = {pid for pid in known if _stat(pid)[0].startswith(TITLE)}
        for orphan in [pid for pid in known if _stat(pid)[1] not in (parent, *known)]:
            with suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
        time.sleep(POLL_S)


def _children(pid: int) -> set[int]:
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return {int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()}
    return set()


def _stat(pid: int) -> tuple[str, int]:
    """A process's title and the id of its parent; nothing of one that is gone or a zombie."""
    with suppress(OSError):
        title, _, rest = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").partition("(")[2].rpartition(")")
        state, parent = rest.split()[:2]
        return ("" if state == "Z" else title), int(parent)
    return "", 0


if __name__ == "__main__":
    guard(int(sys.argv[1]))
