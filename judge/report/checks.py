"""Attacks, probes and comparisons of layouts, where a run's folder holds their results: as plain tables."""

from __future__ import annotations

from dataclasses import dataclass

from judge.report.reading import Run
from judge.report.values import Table


@dataclass(frozen=True, slots=True)
class Check:
    """What one command found: its name, its tables by title, and what a reader should know."""

    name: str
    tables: dict[str, Table]
    remarks: tuple[str, ...]
    other_judge: str | None
    """Of which judge it is, where that is not the run's."""


def read_checks(run: Run) -> list[Check]:
    """Every check whose file is in the run's folder."""
    return []
