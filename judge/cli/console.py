"""How the commands print for a person: consoles, tables, progress, the stand-in's warning.

Knows no results, only texts and numbers. rich is imported where it is used, since every command imports this module
and most of what they do prints nothing with it.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from judge.errors import plain

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.progress import Progress, TaskID
    from rich.table import Table
    from rich.text import Text

STAND_IN_WARNING = (
    "STAND-IN judge: these scores mean nothing. They show that the way works; use a real judge for results."
)


SILENCE_S = 2.0
"""The longest that a wait goes on without a word, in seconds."""


SECONDS_BETWEEN_LINES = 10.0
"""Between two lines of progress where there is no terminal to draw a bar on."""


def console(stderr: bool = False) -> Console:
    """A console that reads no markup; where there is no terminal its lines are wide enough for the tables."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=None if terminal else 160)


def line(text: str, style: str = "") -> Text:
    """Text that may hold names or words of data, without anything that the terminal would obey."""
    from rich.text import Text

    return Text(plain(text), style=style)


class TerminalProgress:
    """Progress on stderr (``judge.progress.Progress``): a bar on a terminal, otherwise a plain line now and then.

    From its making on it never waits longer than ``SILENCE_S`` without a word, until a stage has its first answer.
    """

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._bar: Progress | None = None
        self._what, self._unit, self._total, self._done = "", "", 0, 0
        self._new = self._tokens = self._under_way = 0
        self._started = self._last_line = self._spoke = time.monotonic()
        self._waits = [("starting", self._started)]
        """What is waited for and since when: first the beginning, or a stage without an answer; then what is busy."""
        self._over = threading.Event()
        threading.Thread(target=self._break_silence, daemon=True).start()

    def note(self, text: str) -> None:
        """Something the user should know, on a line of its own."""
        self._console.print(line(text))
        self._spoke = time.monotonic()

    def begin(self, what: str, total: int, done: int, unit: str = "judgments") -> None:
        """A stage begins that has ``total`` of what ``unit`` names, of which ``done`` are there already."""
        self.finish()
        self._what, self._unit, self._total, self._done = what, unit, total, done
        self._new = self._tokens = self._under_way = 0
        self._started = self._last_line = time.monotonic()
        if done == total:
            return
        if done:
            self.note(f"{what}: {done:,} of {total:,} {unit} were there already")
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[speed]}"), console=self._console)
            self._bar.add_task(what, total=total, completed=done, speed="")
            self._bar.start()
        self._waits = [(f"{what}: none yet", self._started)]

    def under_way(self, count: int) -> None:
        """``count`` more are answered and not written yet."""
        self._under_way += count
        self._show()

    def advance(self, count: int, tokens: int) -> None:
        """``count`` more are done, whose prompts had ``tokens`` tokens in all."""
        self._new, self._tokens, self._done = self._new + count, self._tokens + tokens, self._done + count
        self._under_way = max(self._under_way - count, 0)
        self._show()

    def _show(self) -> None:
        """Move the bar, or write a line if the last one was some time ago."""
        is_first, self._waits = bool(self._waits), []
        now, answered = time.monotonic(), self._new + self._under_way
        self._spoke = now
        done = min(self._done + self._under_way, self._total)
        rate = answered / max(now - self._started, 1e-9)
        speed = (f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s") + (
            f", {self._tokens / 1e6:,.1f}M prompt tokens" if self._tokens else ""
        )
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, speed=speed)
        elif is_first or now - self._last_line > SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last_line = now
            left = (self._total - done) / max(rate, 1e-9)
            self.note(f"{self._what}: {done:,} of {self._total:,} {self._unit}, {speed}, {left:,.0f} s left")

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Says what goes on, for as long as it does: beside a bar, or by a line.

        Its time does not count as time of the stage that is going on, so that rates are those of the work itself.
        """
        wait = (what, time.monotonic())
        self._waits.append(wait)
        try:
            yield
        finally:
            self._waits = [one for one in self._waits if one is not wait]  # an answer may have come meanwhile
            self._started += time.monotonic() - wait[1]

    def _break_silence(self) -> None:
        while not self._over.wait(SILENCE_S / 4):
            now, waits = time.monotonic(), list(self._waits)
            if not waits or now - self._spoke < SILENCE_S:
                continue
            what, since = waits[-1]
            text = f"{what}: {now - since:.0f} s so far"
            if self._bar:
                self._bar.update(self._bar.task_ids[0], speed=text)
            else:
                self.note(text)

    def finish(self) -> None:
        """Take the bar away, and say no more of the stage."""
        self._waits = []
        if self._bar:
            self._bar.stop()
            self._bar = None

    def close(self) -> None:
        """Say no more at all."""
        self._over.set()
        self.finish()


def titled(title: str, table: Table, below: str = "") -> Group:
    """A table under its title, with a remark below it; both may be wider than it is."""
    from rich.console import Group

    return Group(
        *([line(title, "table.title")] if title else []), table, *([line(below, "table.caption")] if below else [])
    )


def plain_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Group:
    """A table of texts: the first ``left`` columns to the left, the others to the right, as they hold numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number >= left else "left", overflow="fold")
    for row in rows:
        table.add_row(*(line(cell) for cell in row))
    return titled(title, table)


@contextmanager
def terminal_progress() -> Iterator[TerminalProgress]:
    """Progress on stderr that is taken away at the end, whatever ends it."""
    progress = TerminalProgress()
    try:
        yield progress
    finally:
        progress.close()


NONE = "–"
"""Stands in a table where there is no value."""


def cell(value: float | None, form: str = ".2f") -> str:
    """A number as a table shows it; a dash where it is missing (None or NaN)."""
    return NONE if value is None or math.isnan(value) else format(value, form)


class FetchProgress:
    """Bars for downloads on a terminal; a line per finished file otherwise."""

    def __init__(self) -> None:
        from rich.progress import Progress

        self._console = console(stderr=True)
        self._bars = Progress(console=self._console, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> FetchProgress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def show(self, name: str, done: int, size: int) -> None:
        """``done`` of the ``size`` bytes of a file are here."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=size)
        self._bars.update(self._tasks[name], completed=done)
        if done == size and not self._console.is_terminal:
            self._console.print(line(f"{name}: {size:,} bytes"))


def show_scales(scales: Mapping[str, tuple[float, float, float | None]]) -> None:
    """Print the scale of each metric, as (lowest, highest, step or None): once, where it is that of all."""
    metrics: dict[str, list[str]] = {}
    for name, (low, high, step) in scales.items():
        metrics.setdefault(f"{low:g} to {high:g}" + ("" if step is None else f" in steps of {step:g}"), []).append(name)
    for scale, of in metrics.items():
        console().print(line(f"* Scale: {scale}" + ("." if len(metrics) == 1 else f" ({', '.join(of)}).")))


def show_remarks(remarks: Iterable[str]) -> None:
    """Print warnings below a table, a line each."""
    for remark in remarks:
        console().print(line(f"- {remark}"))
