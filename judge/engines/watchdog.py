"""A watchdog: has something done where a sign of life stays away too long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def watchdog(patience: float, bite: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Gives what is to be called as a sign of life; calls ``bite``, once, if none came for ``patience`` seconds."""
    sign, over = threading.Event(), threading.Event()

    def watch() -> None:
        while sign.wait(patience):
            sign.clear()
            if over.is_set():
                return
        bite()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield sign.set
    finally:
        over.set()
        sign.set()
        thread.join()
