"""A watchdog over processes that work for us: told of signs of life, it tells of a death or of too long a silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

POLL_S = 0.5


@contextmanager
def watchdog(
    processes: Sequence[BaseProcess], patience: float, tell: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Watch processes while this lasts; gives what is to be called as a sign of life.

    Args:
        processes: which; after ``patience`` seconds without a sign they are killed.
        tell: is told, once, what they did.
    """
    sign, over = threading.Event(), threading.Event()

    def watch() -> None:
        heard = time.monotonic()
        while processes and not over.wait(POLL_S):
            if sign.is_set():
                sign.clear()
                heard = time.monotonic()
            if not all(process.is_alive() for process in processes):
                return tell("died")
            if time.monotonic() - heard > patience:
                for process in processes:
                    process.kill()
                return tell(f"finished nothing for {patience:.0f} s")
        return None

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield sign.set
    finally:
        over.set()
        thread.join()
