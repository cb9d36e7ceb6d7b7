"""Stopping a run politely: the first Ctrl-C or termination signal asks, a second one ends the work at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Protocol


class Progress(Protocol):
    """Listens to a run."""

    def begin(self, what: str, total: int, done: int, unit: str = "judgments") -> None:
        """A stage of so many judgments, or of what ``unit`` says, begins; ``done`` of them were there before."""

    def advance(self, count: int, tokens: int) -> None:
        """So many more were written, whose prompts had so many tokens in all."""

    def under_way(self, count: int) -> None:
        """So many more are answered, and not written yet."""

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Something that may take long and of which no part can be counted goes on."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """Tells nothing."""

    def begin(self, what: str, total: int, done: int, unit: str = "judgments") -> None:
        """Nothing."""

    def advance(self, count: int, tokens: int) -> None:
        """Nothing."""

    def under_way(self, count: int) -> None:
        """Nothing."""

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def note(self, text: str) -> None:
        """Nothing."""


SILENT = Silent()
"""Where nobody is told."""


@contextmanager
def stoppable(quiet: bool = False) -> Iterator[threading.Event]:
    """An event that is set by the first signal; outside the main thread, which gets no signals, it never is.

    Unless it is to be quiet, the user is told that the signal was heard.
    """
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        if not quiet:
            print("stopping after what is in flight; once more to stop at once", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
