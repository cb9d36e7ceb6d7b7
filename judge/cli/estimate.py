"""What ``estimate`` and ``compare`` do and show: means of systems, each with what it is a mean of, and differences."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.text import Text

from calibration import Comparison, Pairing
from calibration.system_means import JUDGE_MEAN, LABELLED, NEW_SYSTEM
from judge.cli.common import (
    Annotations,
    Annotators,
    Generalise,
    Json,
    OfJudge,
    Repeats,
    Scale,
    Scores,
    as_one_json,
    names,
    refuse_unwritable,
    some_names,
)
from judge.cli.console import console, line, plain_table
from judge.errors import InputError
from judge.files import as_json_text, save_csv
from judge.human_ratings.agreement import name_of
from judge.types import OVERALL

HEADS = {JUDGE_MEAN: "judge mean", LABELLED: "human mean, with labels", NEW_SYSTEM: "human mean, if new"}


LEGEND = """judge mean: what the judge gives; its interval says nothing of people
human mean, with labels: prediction-powered, of the systems that people rated some items of
human mean, if new: as if nobody had rated the system, from how judge and people differ on the others
labels: rated items, and how many would be as tight without the judge; ranks: by the judge's means, all at once"""


def chosen(table: pd.DataFrame, metrics: tuple[str, ...]) -> list[str]:
    """The metrics to show: those named; else the overall mean, or all where there is none."""
    there = list(dict.fromkeys(table["metric"]))
    for metric in metrics:
        if metric not in there:
            raise InputError(f"--metrics {metric}: not rated and judged; choose from {', '.join(there)}")
    return list(metrics) or ([OVERALL] if OVERALL in there else there)


def show_estimates(pairing: Pairing, table: pd.DataFrame, metrics: list[str]) -> None:
    """Print a table per metric and what cannot be said."""
    out = console()
    for metric in metrics:
        rows = table[table["metric"] == metric]
        by_source = {source: part.set_index("target") for source, part in rows.groupby("source", sort=False)}
        judged = rows[rows["target"] == JUDGE_MEAN].sort_values("mean", ascending=False)
        cells = [_row(source, by_source[source]) for source in judged["source"]]
        heads = ("source", *HEADS.values(), "labels", "ranks")
        out.print(plain_table(f"{metric}: means by {name_of(pairing)}", heads, cells))
    out.print(Text(LEGEND))
    shown = table[table["metric"].isin(metrics) & (table["reason"].fillna("") != "")]
    for (target, reason), part in shown.groupby(["target", "reason"], sort=False):
        out.print(line(f"- {target} of {', '.join(dict.fromkeys(part['source']))}: {reason}"))


def estimates_json(pairing: Pairing, table: pd.DataFrame) -> str:
    """Every row, for programs."""
    return as_one_json({"judge": pairing.judge, "remarks": list(pairing.remarks)}, estimates=table)


def _row(source: Any, one: pd.DataFrame) -> tuple[str, ...]:
    labelled, judged = (one.loc[target].to_dict() for target in (LABELLED, JUDGE_MEAN))
    as_tight = labelled["equivalent_labels"]
    labels = f"{labelled['labelled']:,.0f}" + ("" if pd.isna(as_tight) else f" (as {as_tight:,.0f})")
    ranks = "–" if pd.isna(judged["rank_low"]) else f"{judged['rank_low']:.0f}–{judged['rank_high']:.0f}"
    return (str(source), *(_mean(one.loc[target]) for target in HEADS), labels, ranks)


def _mean(row: Any) -> str:
    if pd.isna(row["mean"]):
        return "–"
    ends = "" if pd.isna(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['mean']:.2f}{ends}"


def show_comparison(pairing: Pairing, found: dict[str, Comparison]) -> None:
    """Print the differences, by judge and by people, and what it would take to settle them."""
    out, first = console(), next(iter(found.values()))
    rated = any(one.human.value is not None for one in found.values())
    heads = ("metric", "by the judge", "p", *(("by people", "p") if rated else ()), "outlook")
    rows = [
        (name, _difference(one.judge), _p(one.judge), *((_difference(one.human), _p(one.human)) if rated else ()),
         one.judge.outlook)
        for name, one in found.items()
    ]  # fmt: skip
    out.print(plain_table(f"{first.a} less {first.b}, by {name_of(pairing)}", heads, rows))
    out.print(Text("by the judge: paired over scenarios, target: judge mean; outlook: of that difference"))
    if rated:
        out.print(line(f"by people: difference of prediction-powered means, target: {LABELLED}"))
    elif any(one.annotators for one in pairing.metrics.values()):
        out.print(line(f"by people: {first.human.reason}"))


def _difference(one: Any) -> str:
    if one.value is None:
        return "–"
    ends = "" if one.low is None else f" [{one.low:+.2f}, {one.high:+.2f}]"
    return f"{one.value:+.2f}{ends}"


def _p(one: Any) -> str:
    if one.p is None:
        return "–"
    return f"{one.p:.3f}" if one.p >= 0.001 else "<.001"


def comparison_json(pairing: Pairing, found: dict[str, Comparison]) -> str:
    """All of it for programs."""
    metrics = {name: {"judge": _as_dict(one.judge), "human": _as_dict(one.human)} for name, one in found.items()}
    first = next(iter(found.values()))
    facts = {"judge": pairing.judge, "a": first.a, "b": first.b, "remarks": list(pairing.remarks)}
    return as_json_text({**facts, "metrics": metrics})


def _as_dict(one: Any) -> dict[str, Any]:
    return {**asdict(one), "outlook": one.outlook}


def estimate(
    scores: Scores,
    annotations: Annotations,
    out: Annotated[Path | None, typer.Option(help="Also write all metrics and targets to this CSV file.")] = None,
    metrics: Annotated[str, typer.Option(help="Metrics to show, with commas; the overall mean by default.")] = "",
    judge: OfJudge = None,
    annotators: Annotators = "",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    average_repeats: Repeats = False,
    as_json: Json = False,
) -> int:
    """Estimate means of systems, each with what it is a mean of: the judge's, people's, people's of a new system."""
    from judge.human_ratings import agreement
    from judge.human_ratings.agreement import read_pairing

    refuse_unwritable(out)
    pairing = read_pairing(scores, annotations, scale, judge, some_names(annotators, "--annotators"), average_repeats)
    table = agreement.estimate_all(pairing, generalise == "characters")
    shown = chosen(table, names(metrics))
    if out:
        save_csv(out, table)
    if as_json:
        print(estimates_json(pairing, table))
    else:
        show_estimates(pairing, table, shown)
    return 0


def compare(
    scores: Scores,
    a: Annotated[str, typer.Argument(metavar="A", help="A source.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another source.")],
    annotations: Annotated[Path | None, typer.Option(help="People's ratings, to compare by them too.")] = None,
    judge: OfJudge = None,
    annotators: Annotators = "",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    average_repeats: Repeats = False,
    as_json: Json = False,
) -> int:
    """Compare two sources over the scenarios that both answer, and say what it would take to settle the difference."""
    from judge.human_ratings import agreement
    from judge.human_ratings.agreement import read_pairing, read_unrated

    if annotations:
        pairing = read_pairing(
            scores, annotations, scale, judge, some_names(annotators, "--annotators"), average_repeats
        )
    else:
        pairing = read_unrated(scores, scale, judge)
    found = agreement.compare_all(pairing, a, b, generalise == "characters")
    if as_json:
        print(comparison_json(pairing, found))
    else:
        show_comparison(pairing, found)
    return 0
