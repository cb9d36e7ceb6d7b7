"""What is told while a run goes on, and to whom: a protocol, and the listener that tells nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Listens to a run."""

    def begin(self, what: str, total: int, done: int, unit: str = "judgments") -> None:
        """A stage of so many judgments, or of what ``unit`` says, begins; ``done`` of them were there before."""

    def advance(self, count: int, tokens: int) -> None:
        """So many more were written, whose prompts had so many tokens in all."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """Tells nothing."""

    def begin(self, what: str, total: int, done: int, unit: str = "judgments") -> None:
        """Nothing."""

    def advance(self, count: int, tokens: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
