"""Records of CSV, JSONL and Parquet files as they are there, and the one error that tells what is wrong with a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Problem = tuple[int, str]
"""The record (from 1; 0 for the file as a whole), and what is wrong and what to do, without the file's name."""


_MOST = 20


_LONGEST = 600


class TableError(ValueError):
    """A table that cannot be used: its file, the records, what is wrong with each and what to do.

    One line for one problem; for more, their number, the first 20 a line each, and how many more there are.
    """

    def __init__(self, path: str | Path, problems: Iterable[Problem]) -> None:
        found = sorted(problems, key=lambda problem: problem[0])
        flat = [(record, _shortened(" ".join(text.split()))) for record, text in found]
        lines = [f"record {record}: {text}" if record else text for record, text in flat]
        more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
        many = "\n  ".join([f"{path}: {len(lines)} problems:", *lines[:_MOST], *more])
        super().__init__(f"{path}: {lines[0]}" if len(lines) == 1 else many)


def _shortened(text: str) -> str:
    """A long text without its middle: what it is about stands at the beginning, the remedy at the end."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half:]}"
