"""The commands ``estimate`` and ``compare``: means of systems, each with what it is a mean of, and differences.

The numbers come from ``judge.human_ratings.agreement``; here they are only asked for and printed. pandas and the
statistics are imported when a command runs, so that ``--help`` stays quick.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calibration.names import meant
from judge.cli.common import (
    Annotations,
    Annotators,
    Generalise,
    Json,
    ManyScores,
    MapRatings,
    OfJudge,
    OfJudges,
    Repeats,
    Scale,
    Scores,
    as_one_json,
    names,
    refuse_unwritable,
    some_names,
)
from judge.cli.console import console, line, plain_table, show_remarks, show_scales
from judge.errors import InputError
from judge.files import as_json_text, rows_of, save_csv
from judge.types import OVERALL

if TYPE_CHECKING:
    import pandas as pd

    from calibration import Comparison, Pairing
    from calibration.system_differences import Difference


LEGEND = """judge mean: what the judge gives; its interval says nothing of human ratings
human mean, with labels: prediction-powered, of the systems that have human ratings of some items
human mean, if new: as if nobody had rated the system, from how judge and annotators differ on the others
labels: rated items, and how many would be as tight without the judge; ranks: by the judge's means, all at once"""


def chosen(table: pd.DataFrame, metrics: tuple[str, ...]) -> list[str]:
    """The metrics to show: those named; else the overall mean, or all where there is none."""
    there = list(dict.fromkeys(table["metric"]))
    found = []
    for metric in metrics:
        if (known := meant(metric, there)) is None:
            raise InputError(f"--metrics {metric}: not rated and judged; choose from {', '.join(there)}")
        found.append(known)
    return found or ([OVERALL] if OVERALL in there else there)


def show_estimates(pairing: Pairing, table: pd.DataFrame, metrics: list[str]) -> None:
    """Print a table per metric and what cannot be said."""
    from rich.text import Text

    from calibration.system_means import JUDGE_MEAN, LABELLED, NEW_SYSTEM
    from judge.human_ratings.agreement import name_of

    heads = {JUDGE_MEAN: "judge mean", LABELLED: "human mean, with labels", NEW_SYSTEM: "human mean, if new"}
    out = console()
    for metric in metrics:
        rows = table[table["metric"] == metric]
        judged = rows[rows["target"] == JUDGE_MEAN].sort_values("mean", ascending=False)
        cells = []
        for source in judged["source"]:
            by_target = {row["target"]: row for row in rows_of(rows[rows["source"] == source])}
            labelled, ranks = by_target[LABELLED], by_target[JUDGE_MEAN]
            labels = f"{labelled['labelled']:,.0f}"
            if labelled["equivalent_labels"] is not None:
                labels += f" (as {labelled['equivalent_labels']:,.0f})"
            rank = "–" if ranks["rank_low"] is None else f"{ranks['rank_low']:.0f}–{ranks['rank_high']:.0f}"
            means = (_with_interval(one["mean"], one["low"], one["high"]) for one in map(by_target.get, heads) if one)
            cells.append((str(source), *means, labels, rank))
        titles = ("source", *heads.values(), "labels", "ranks")
        out.print(plain_table(f"{metric}: means by {name_of(pairing)}", titles, cells))
    out.print(Text(LEGEND))
    shown = table[table["metric"].isin(metrics) & (table["reason"].fillna("") != "")]
    for (target, reason), part in shown.groupby(["target", "reason"], sort=False):
        out.print(line(f"- {target} of {', '.join(dict.fromkeys(part['source']))}: {reason}"))
    remarked = table[table["metric"].isin(metrics) & (table["remark"] != "")]
    for (name, target, remark), part in remarked.groupby(["metric", "target", "remark"], sort=False):
        out.print(line(f"- {name}: {target} of {', '.join(part['source'])}: {remark}"))
    show_scales({name: pairing.scales[name] for name in metrics})
    show_remarks(pairing.remarks)


def _with_interval(value: float | None, low: float | None, high: float | None, form: str = ".2f") -> str:
    """A number and its confidence interval, or as much as is known."""
    if value is None:
        return "–"
    return f"{value:{form}}" + ("" if low is None or high is None else f" [{low:{form}}, {high:{form}}]")


def show_comparison(pairing: Pairing, found: dict[str, Comparison]) -> None:
    """Print the differences, by the judge and by annotators, and what it would take to settle them."""
    from rich.text import Text

    from calibration.system_means import LABELLED
    from judge.human_ratings.agreement import name_of

    def cells(one: Difference) -> tuple[str, str]:
        p = "–" if one.p is None else f"{one.p:.3f}" if one.p >= 0.001 else "<.001"
        return _with_interval(one.value, one.low, one.high, "+.2f"), p

    # The systems are the same on every metric, so the first metric names them.
    out, first = console(), next(iter(found.values()))
    rated = any(one.human.value is not None for one in found.values())
    heads = ("metric", "by the judge", "p", *(("by annotators", "p") if rated else ()), "outlook")
    rows = [
        (name, *cells(one.judge), *(cells(one.human) if rated else ()), one.judge.outlook)
        for name, one in found.items()
    ]
    out.print(plain_table(f"{first.a} less {first.b}, by {name_of(pairing)}", heads, rows))
    out.print(Text("by the judge: paired over scenarios, target: judge mean; outlook: of that difference"))
    if rated:
        out.print(line(f"by annotators: difference of prediction-powered means, target: {LABELLED}"))
    elif any(one.annotators for one in pairing.metrics.values()):
        out.print(line(f"by annotators: {first.human.reason}"))
    show_scales(pairing.scales)
    show_remarks(pairing.remarks)


def comparison_json(pairing: Pairing, found: dict[str, Comparison]) -> str:
    """All of it for programs."""
    metrics = {
        name: {
            by: {**asdict(difference), "outlook": difference.outlook}
            for by, difference in (("judge", one.judge), ("human", one.human))
        }
        for name, one in found.items()
    }
    first = next(iter(found.values()))
    about = {"judge": pairing.judge, "scales": pairing.scales, "remarks": list(pairing.remarks)}
    return as_json_text({**about, "a": first.a, "b": first.b, "metrics": metrics})


def estimate(
    scores: ManyScores,
    annotations: Annotations,
    out: Annotated[Path | None, typer.Option(help="Also write all metrics and targets to this CSV file.")] = None,
    metrics: Annotated[str, typer.Option(help="Metrics to show, with commas; the overall mean by default.")] = "",
    judge: OfJudges = None,
    annotators: Annotators = "",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    columns: MapRatings = None,
    average_repeats: Repeats = False,
    as_json: Json = False,
) -> int:
    """Estimate means of systems, each with what it is a mean of: the judge's, the human mean, that of a new system.

    Several judges are taken together: their mean is the judge.
    """
    from calibration import mean_panel
    from judge.human_ratings import agreement

    refuse_unwritable(out)
    people = some_names(annotators, "--annotators")
    judged = agreement.read_judges(scores, annotations, scale, judge, people, average_repeats, columns=columns)
    pairings = {name: one.pairing for name, one in judged.items()}
    pairing = mean_panel(pairings) if len(pairings) > 1 else next(iter(pairings.values()))
    table = agreement.estimate_all(pairing, generalise == "characters")
    shown = chosen(table, names(metrics))
    if out:
        save_csv(out, table)
    if as_json:
        facts = {"judge": pairing.judge, "scales": pairing.scales, "remarks": list(pairing.remarks)}
        print(as_one_json(facts, estimates=table))
    else:
        show_estimates(pairing, table, shown)
    return 0


def compare(
    scores: Scores,
    a: Annotated[str, typer.Argument(metavar="A", help="A system (its source).")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another system.")],
    annotations: Annotated[Path | None, typer.Option(help="Human ratings, to compare by them too.")] = None,
    judge: OfJudge = None,
    annotators: Annotators = "",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    columns: MapRatings = None,
    average_repeats: Repeats = False,
    as_json: Json = False,
) -> int:
    """Compare two systems over the scenarios that both answer, and say what it would take to settle the difference."""
    from judge.human_ratings import agreement
    from judge.human_ratings.agreement import read_pairing, read_unrated

    if annotations:
        people = some_names(annotators, "--annotators")
        pairing = read_pairing(scores, annotations, scale, judge, people, average_repeats, columns=columns)
    else:
        pairing = read_unrated(scores, scale, judge)
    found = agreement.compare_all(pairing, a, b, generalise == "characters")
    if as_json:
        print(comparison_json(pairing, found))
    else:
        show_comparison(pairing, found)
    return 0
