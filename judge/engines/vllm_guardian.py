"""A process that outlives ours and kills vLLM's processes once they are orphans.

A vLLM engine whose run was killed would go on for ever and keep the GPU's memory, as would a worker whose engine was
killed. A process killed by SIGKILL cannot clean up behind itself, so another process must.

This file is run as a script by ``python -I -S``, with the id of the process to outlive. So it starts in milliseconds,
and reads neither the environment nor installed packages: it imports the standard library only. Linux only, as vLLM is.
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
"""Seconds between two checks of the processes."""


TITLE = "VLLM"
"""The beginning of the names of vLLM's processes; children of ours with other names are left alone."""


def stand_guard() -> subprocess.Popen[bytes]:
    """Start the guardian of this process; it ends when this process does."""
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    none = subprocess.DEVNULL
    # A session of its own: Ctrl-C in the terminal, or a signal to our process group, must not end the guardian first.
    return subprocess.Popen(command, start_new_session=True, stdin=none, stdout=none, stderr=none)


def guard(parent: int) -> None:
    """Kill each of vLLM's processes that becomes an orphan, until the parent and all of them are gone.

    Args:
        parent: id of the process to outlive.
    """
    # An orphan cannot be found by asking whose child it was, since the system gives it another parent. So the processes
    # are remembered while their parents live.
    known: set[int] = set()
    while known or os.getppid() == parent:
        for pid in (parent, *known):
            with suppress(OSError):  # Linux lists children by the thread that started them
                for task in Path(f"/proc/{pid}/task").iterdir():
                    known |= set(map(int, (task / "children").read_text(encoding="ascii").split()))
        known = {pid for pid in known if _stat(pid)[0].startswith(TITLE)}
        # An orphan's parent is neither ours nor one of vLLM's: the system has given it another.
        for orphan in [pid for pid in known if _stat(pid)[1] not in (parent, *known)]:
            with suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
        time.sleep(POLL_S)


def _stat(pid: int) -> tuple[str, int]:
    """A process's title and the id of its parent; no title for one that is gone or a zombie."""
    with suppress(OSError):
        # "pid (title) state parent …", where the title may itself hold blanks and brackets.
        title, _, rest = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").partition("(")[2].rpartition(")")
        state, parent = rest.split()[:2]
        return ("" if state == "Z" else title), int(parent)
    return "", 0


if __name__ == "__main__":
    guard(int(sys.argv[1]))
