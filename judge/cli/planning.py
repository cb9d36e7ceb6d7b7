"""What ``plan`` does and shows: which dialogues people should rate next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from calibration import Plan, PlanError, plan
from judge.cli.common import as_one_json
from judge.cli.forms import Forms
from judge.cli.inputs import read_annotations, read_judge_scores, scale_of
from judge.errors import InputError
from judge.terminal import console, line, plain_table


def make_plan(
    scores: Path,
    budget: int,
    annotations: Path | None,
    scale: str | None,
    judge: str | None,
    average_repeats: bool,
    **how: Any,
) -> Plan:
    """Read, and plan; ``how`` goes to ``calibration.planning.plan``."""
    scales = scale_of(scores, scale)
    ratings = read_annotations(annotations, scales, average_repeats=average_repeats) if annotations else None
    table = read_judge_scores(scores, scales, ratings)
    if judge is not None and "judge" in table:
        table = table[table["judge"] == judge].reset_index(drop=True)
    try:
        return plan(table, budget, ratings=ratings, **how)
    except PlanError as error:
        raise InputError(str(error)) from error


def show_plan(found: Plan, out: Path, together: Path | None, forms: Forms | None) -> None:
    """Print what to expect of the plan, by source, remarks, and which files are whose."""
    screen = console()
    by_source = found.expected.groupby("source", sort=False)
    counts = found.table.groupby("source").size()
    rows = [
        (str(source), f"{counts.get(source, 0):,}", _widths(part["before"]), _widths(part["after"]))
        for source, part in by_source
    ]
    title = "half-widths to expect of the human means' 95% intervals (smallest to largest over metrics)"
    screen.print(plain_table(title, ("source", "to rate", "now", "with this plan"), rows))
    for remark in found.remarks:
        screen.print(line(f"- {remark}"))
    screen.print(line(f"{len(found.table):,} dialogues in {out}; keep its inclusion_probability beside the ratings"))
    if together:
        screen.print(line(f"read with the earlier ratings as one table, give all of them the chances in {together}"))
    if forms:
        screen.print(line(f"for the annotators: {', '.join(map(str, forms.files))}"))
        screen.print(
            line(f"not for them: {forms.key}, which import-annotations needs, and {out}: they tell the sources")
        )


def _widths(values: pd.Series[float]) -> str:
    known = values.dropna()
    if known.empty:
        return "–"
    return f"{known.min():.2f}" if known.min() == known.max() else f"{known.min():.2f}–{known.max():.2f}"


def plan_json(found: Plan, out: Path, together: Path | None, forms: Forms | None) -> str:
    """All of it for programs."""
    facts = {"file": str(out), "together": str(together) if together else None, "remarks": list(found.remarks)}
    if forms:
        facts |= {"forms": [str(path) for path in forms.files], "key": str(forms.key)}
    return as_one_json(facts, plan=found.table, expected=found.expected)
