"""What a person sees while and after a run: progress, the leaderboard as a table, the stand-in's warning."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from judge.errors import plain
from judge.layouts import LayoutComparison
from judge.rationales import RATIONALES
from judge.rubric import Rubric
from judge.run import Result
from judge.types import OVERALL, STAND_IN

STAND_IN_WARNING = (
    "STAND-IN judge: these scores mean nothing. They show that the way works; use a real judge for results."
)
ROOM_FOR_METRICS = 120
"""Columns of a terminal from which on the table shows every metric."""
SECONDS_BETWEEN_LINES = 10.0

SCORES = {
    "mass": ("mass", ".2f"),
    "low_mass": ("<.8", ".0%"),
    "mean": ("mean", ".2f"),
    "difference": ("diff", "+.2f"),
    "agreement": ("agree", ".2f"),
    "order_agreement": ("order", ".2f"),
    "halo": ("halo", ".2f"),
}
PEOPLE = {"human_spearman": ("Spearman", ".2f"), "human_pearson": ("Pearson", ".2f"), "human_n": ("ratings", ",.0f")}
COSTS = {
    "missing": ("missing", ",.0f"),
    "prompt_tokens": ("tokens", ",.0f"),
    "unique_tokens": ("unique", ",.0f"),
    "seconds": ("seconds", ",.1f"),
    "judgments_per_second": ("per s", ",.1f"),
}
"""The columns of a comparison of layouts in three tables: each its heading and how its numbers are written."""
LEGEND = """mass: median probability of the five levels; <.8: share of judgments with less
diff: mean difference from the first line; agree: rank agreement with it
order: rank agreement with the other ordering; halo: that among the nine metrics
(Spearman over dialogues, means over metrics)"""


def console(stderr: bool = False) -> Console:
    """A console that reads no markup; where there is no terminal its lines are wide enough for the tables."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=None if terminal else 160)


def line(text: str, style: str = "") -> Text:
    """Text that holds names or words of data, to be printed on one line: nothing in it commands the terminal."""
    return Text(plain(text), style=style)


class TerminalProgress:
    """Progress on stderr: a bar on a terminal, otherwise a plain line now and then."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._bar: Progress | None = None
        self._what, self._unit, self._total, self._done = "", "", 0, 0
        self._new = self._tokens = 0
        self._started = self._last_line = time.monotonic()

    def note(self, text: str) -> None:
        """Something the user should know, on a line of its own."""
        self._console.print(line(text))

    def begin(self, what: str, total: int, done: int, unit: str = "judgments") -> None:
        """A stage of so many of a unit begins, some of which are there already."""
        self.finish()
        self._what, self._unit, self._total, self._done, self._new, self._tokens = what, unit, total, done, 0, 0
        self._started = self._last_line = time.monotonic()
        if done == total:
            return
        if done:
            self.note(f"{what}: {done:,} of {total:,} {unit} were there already")
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[speed]}"), console=self._console)
            self._bar.add_task(what, total=total, completed=done, speed="")
            self._bar.start()

    def advance(self, count: int, tokens: int) -> None:
        """So many more, whose prompts had so many tokens in all."""
        self._new, self._tokens, self._done = self._new + count, self._tokens + tokens, self._done + count
        now = time.monotonic()
        rate = self._new / max(now - self._started, 1e-9)
        speed = f"{rate:,.0f}/s" + (f", {self._tokens / 1e6:,.1f}M prompt tokens" if self._tokens else "")
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done, speed=speed)
        elif now - self._last_line > SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last_line = now
            left = (self._total - self._done) / rate
            self.note(f"{self._what}: {self._done:,} of {self._total:,} {self._unit}, {speed}, {left:,.0f} s left")

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def leaderboard_table(result: Result, rubric: Rubric, width: int) -> Table:
    """Sources by their overall mean, beside which stands the half-width of its interval.

    A column per metric where there is room for them, or else one per dimension.
    """
    board = result.leaderboard
    metrics = {name: metric.title for name, metric in rubric.metrics.items()}
    titles = {OVERALL: OVERALL, **(metrics if width >= ROOM_FOR_METRICS else rubric.texts.dimensions)}
    there = set(board["metric"])
    columns = [column for column in titles if column in there] or [metric for metric in metrics if metric in there]
    title = line(f"judge means by {result.judge} (1 to 5; ± is a 95% interval over scenarios)", "table.title")
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("source", overflow="fold")
    for column in columns:
        table.add_column({**metrics, **titles}[column], justify="right", no_wrap=column == OVERALL)
    for source, cells in sorted(_cells(board).items(), key=lambda item: _last(item[1])):
        table.add_row(line(source), *(_number(*cells[column]) for column in columns))
    return table


def show(result: Result, rubric: Rubric) -> None:
    """Print a finished run: the table, what is missing and why, where the files are."""
    out = console()
    if not result.leaderboard.empty:
        out.print(leaderboard_table(result, rubric, out.width))
    if result.judge == STAND_IN:
        out.print(Text(STAND_IN_WARNING, style="bold red"))
    out.print(line(f"{result.judgments - sum(result.missing.values()):,} judgments in {result.run}"))
    out.print(Text("scores.csv, leaderboard.csv, diversity.csv; how they came about: manifest.json"))
    for reason, count in result.missing.items():
        out.print(line(f"missing: {count:,} judgments, {reason}"))
    if result.suspicious:
        out.print(f"suspicious: {result.suspicious:,} dialogues speak to the judge (column suspicious); scores stand")
    if result.explained:
        out.print(f"{RATIONALES}: why, of {result.explained:,} dialogues; written after the scores, and no evidence")


def _cells(board: pd.DataFrame) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and half-width of the interval by source and metric; no half-width but for the overall mean."""
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    for row in board.to_dict(orient="records"):
        half = (row["high"] - row["low"]) / 2 if row["metric"] == OVERALL and row["high"] is not None else math.nan
        cells.setdefault(row["source"], {})[row["metric"]] = (row["mean"], half)
    return cells


def _last(cells: dict[str, tuple[float, float]]) -> float:
    """Sorts sources by their overall mean, highest first, those without one last."""
    mean = cells.get(OVERALL, (math.nan, math.nan))[0]
    return math.inf if pd.isna(mean) else -mean


def _number(mean: float, half: float) -> str:
    if pd.isna(mean):
        return "–"
    return f"{mean:.2f}" if pd.isna(half) else f"{mean:.2f} ±{half:.2f}"


def show_diversity(table: pd.DataFrame) -> None:
    """Print response diversity, a row per source."""
    out = Table(
        title="response diversity: means over characters (distinct-2: higher is more varied; the others: lower)"
    )
    sources = table[table["level"] == "source"].drop(columns=["level", "character"])
    for column in sources.columns:
        out.add_column(column, justify="left" if column == "source" else "right")
    for source, dialogues, *values in sources.itertuples(index=False):
        out.add_row(line(source), f"{dialogues:,}", *("–" if pd.isna(v) else f"{v:.3f}" for v in values))
    console().print(out)


def show_layouts(comparison: LayoutComparison) -> None:
    """Print a comparison of layouts: scores, agreement with people, cost, and what to look at."""
    out, overall = console(), comparison.overall
    title = f"{comparison.judge} on {comparison.dialogues:,} dialogues, asked in {len(overall)} ways"
    out.print(variants_table(title, overall, SCORES))
    out.print(Text(LEGEND))
    if "human_n" in overall:
        out.print(variants_table("agreement with people: dialogues, means over metrics", overall, PEOPLE))
        for reason, count in overall["human_reason"].value_counts().items():
            out.print(line(f"–: {reason} ({count} variants)"))
    out.print(variants_table("missing judgments, tokens per dialogue, time of scoring", overall, COSTS))
    out.print(Text("tokens: of all nine prompts; unique: with what prompts share counted once\n"))
    for remark in comparison.remarks:
        out.print(line(f"* {remark}"))
    if comparison.judge == STAND_IN:
        out.print(Text(STAND_IN_WARNING, style="bold red"))


def variants_table(title: str, overall: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> Table:
    """A row per variant, with some of its numbers."""
    table = Table(title=line(title, "table.title"), box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    for heading, _ in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in overall.iterrows():
        cells = ("–" if pd.isna(row[column]) else format(row[column], form) for column, (_, form) in columns.items())
        table.add_row(str(name), *cells)
    return table


def plain_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Cells as they are: the first column to the left, numbers to the right."""
    table = Table(title=line(title, "table.title"), box=box.SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(line(cell) for cell in row))
    return table


def show_examination(found: dict[str, Any]) -> None:
    """Print what ``doctor`` found, a line a fact."""
    for name, value in found.items():
        facts = value.items() if isinstance(value, dict) else [("", value)]
        for fact, content in facts:
            print(plain(f"{name}{'.' if fact else ''}{fact}: {'–' if content in (None, ()) else content}"))


class FetchProgress:
    """Bars for downloads on a terminal; a line per finished file otherwise."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._bars = Progress(console=self._console, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> FetchProgress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def show(self, name: str, done: int, size: int) -> None:
        """So many bytes of a file are here."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=size)
        self._bars.update(self._tasks[name], completed=done)
        if done == size and not self._console.is_terminal:
            self._console.print(line(f"{name}: {size:,} bytes"))
