"""The command ``agree``: agreement of a run or table with human ratings, or of a ChatAnime run with published means.

The numbers come from ``judge.human_ratings.agreement``; here they are only asked for and printed. pandas and the
statistics are imported when the command runs, so that ``--help`` stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import (
    AnnotatorKind,
    Annotators,
    Epsilon,
    Generalise,
    Json,
    ManyScores,
    MapRatings,
    MinItems,
    Nominal,
    OfJudges,
    Raters,
    Repeats,
    Scale,
    Scoring,
    names,
    refuse_unwritable_folder,
    refuse_wrong_epsilon,
    some_names,
    writing_to,
)
from judge.cli.console import (
    STAND_IN_WARNING,
    cell,
    console,
    line,
    plain_table,
    show_remarks,
    show_scales,
    terminal_progress,
)
from judge.errors import InputError
from judge.files import as_json_text, replacing, save_csv
from judge.types import STAND_IN

if TYPE_CHECKING:
    import pandas as pd

    from calibration import Assessment
    from calibration.stats.intervals import Estimate
    from judge.human_ratings.agreement import JudgesTogether, Published


LEGEND = """alpha: Krippendorff's, ordinal, of annotators; Spearman: of judge and mean rating; human: human ceiling
MAE: mean absolute difference from the mean rating; constant: that of saying the same of every item
QWK: quadratic weighted kappa with each rating; systems: pairs of systems ordered as annotators do
alt: winning rate of the alternative annotator test (the judge may replace an annotator from .5 on)"""


DETAILS = """within: Spearman of judge and mean rating within each scenario, a mean over scenarios; exact: the same
level as one annotator; advantage: how often the judge is as near to the other annotators as the one left out
(alternative annotator test), of whom it may lose by epsilon"""


PANEL_LEGEND = """panel (mean): the mean of all judges' scores, over the items that all scored
panel (in sentences): the simplest of mean, best judge and stacker (judges weighted) that predicts as well as any"""


NOMINAL_NOTE = "Nominal: {}; alpha is the nominal one, and QWK Cohen's kappa."


ROOM_FOR_ALL = 110
"""Columns of a terminal from which on the table has all of its own."""


COLUMNS_OF_A_WIDE_TERMINAL = ("n", "constant", "QWK", "alt")


OUTPUTS = ("agreement.csv", "agreement.json")


def write_agreement(folder: Path, table: pd.DataFrame, found: dict[str, Any]) -> None:
    """All numbers as a table, and all that ``--json`` prints."""
    with writing_to(folder):
        save_csv(folder / OUTPUTS[0], table)
        with replacing(folder / OUTPUTS[1]) as file:
            file.write(as_json_text(found).encode() + b"\n")


def show_agreement(assessment: Assessment) -> None:
    """Print the table, what it says, a sentence per metric, and warnings."""
    from rich.text import Text

    out = console()
    ordered = {name: one for name, one in assessment.metrics.items() if not one.agreement.is_nominal}
    rows = []
    for name, one in assessment.metrics.items():
        found, rate = one.agreement, one.alt_test.winning_rate
        own = one.reliability
        rows.append(
            {
                "metric": name,
                "n": f"{found.items:,}",
                "alpha": _cell(own.alpha_nominal if found.is_nominal else own.alpha_ordinal),
                "Spearman": _cell(found.judge["spearman"]),
                "human": _cell(own.ceiling.get("spearman")),
                "MAE": _cell(found.judge["mae"]),
                "constant": _cell(found.constant["mae"]),
                "QWK": _cell(found.judge["kappa" if found.is_nominal else "qwk"]),
                "systems": _cell(found.systems["pairwise_accuracy"], ".0%"),
                "alt": cell(rate),
                "verdict": one.verdict.word,
            }
        )
    # On a narrow terminal some columns are left out, so that no row breaks in two.
    heads = [head for head in rows[0] if out.width >= ROOM_FOR_ALL or head not in COLUMNS_OF_A_WIDE_TERMINAL]
    cells = [[row[head] for head in heads] for row in rows]
    out.print(plain_table(f"{assessment.judge} and human ratings", heads, cells))
    out.print(Text(LEGEND + "\n"))
    show_scales({name: (*one.agreement.scale, one.agreement.step) for name, one in ordered.items()})
    if of_names := [name for name in assessment.metrics if name not in ordered]:
        out.print(line(f"* {NOMINAL_NOTE.format(', '.join(of_names))}"))
    for one in assessment.metrics.values():
        out.print(line(f"* {one.verdict.sentence}"))
    halo = assessment.discriminant
    if halo and halo.judge_halo is not None and halo.human_halo is not None and halo.own_is_highest is not None:
        out.print(
            line(
                f"* Metrics correlate at {halo.judge_halo:.2f} among themselves in the judge's scores and at "
                f"{halo.human_halo:.2f} in human ratings; {halo.own_is_highest:.0%} of the judge's metrics go with "
                "annotators' same metric more than with any other."
            )
        )
    show_remarks(assessment.remarks)
    if assessment.judge == STAND_IN:
        out.print(Text(STAND_IN_WARNING, style="bold red"))


def show_details(assessment: Assessment) -> None:
    """Print a second table: what the first leaves out."""
    from rich.text import Text

    rows = []
    for name, one in assessment.metrics.items():
        found, within, test = one.agreement.judge, one.agreement.within, one.alt_test
        figures = [found["bias"], found["rmse"], found["pearson"], found["kendall"], within.get("spearman")]
        figures += [found.get("exact"), found.get("log_loss")]
        rows.append((name, *map(_cell, figures), cell(test.advantage_probability), f"{test.epsilon:g}"))
    heads = ("metric", "bias", "RMSE", "Pearson", "Kendall", "within", "exact", "log loss", "advantage", "epsilon")
    console().print(plain_table("in detail", heads, rows))
    console().print(Text(DETAILS + "\n"))


def show_judges(together: JudgesTogether) -> None:
    """Print judges and panel side by side; on each metric the best judge beside the others, and what a panel gains."""
    from rich.text import Text

    from calibration.calibrators.panel import PANEL, common_remarks

    assessments, differences = together.judges, together.differences
    listed = assessments | ({f"{PANEL} (mean)": together.panel} if together.panel else {})
    out = console()
    metrics = dict.fromkeys(name for one in assessments.values() for name in one.metrics)
    rows = []
    for metric in metrics:
        for judge, assessment in listed.items():
            if one := assessment.metrics.get(metric):
                found = one.agreement
                chance = found.judge["kappa" if found.is_nominal else "qwk"]
                figures = (found.judge["spearman"], found.judge["mae"], chance)
                systems = _cell(found.systems["pairwise_accuracy"], ".0%")
                alt = cell(one.alt_test.winning_rate)
                rows.append((metric, judge, f"{found.items:,}", *map(_cell, figures), systems, alt, one.verdict.word))
    heads = ("metric", "judge", "n", "Spearman", "MAE", "QWK", "systems", "alt", "verdict")
    out.print(plain_table("judges and human ratings", heads, rows))
    out.print(Text(LEGEND + "\n"))
    gains = {one.metric: one for one in together.gains}
    names_of_kinds = {
        metric for one in assessments.values() for metric, each in one.metrics.items() if each.agreement.is_nominal
    }
    for metric in metrics:
        there = {name: one.metrics[metric].agreement for name, one in assessments.items() if metric in one.metrics}
        is_nominal = metric in names_of_kinds
        measure = "exact" if is_nominal else "spearman"
        known = {name: value for name, one in there.items() if (value := one.judge[measure].value) is not None}
        best = max(known, key=lambda name: known[name], default=None)
        for apart in differences:
            if apart.metric == metric and best in (apart.a, apart.b):
                sign, other = (1, apart.b) if best == apart.a else (-1, apart.a)
                shown = {"exact agreement": apart.exact}
                if not is_nominal:
                    shown = {"Spearman": apart.spearman, "MAE": apart.mae}
                parts = ", ".join(f"{name} {_signed(each, sign)}" for name, each in shown.items())
                out.print(line(f"* {metric}: {best} less {other}: {parts} (over {apart.items:,} items)"))
        if gain := gains.get(metric):
            out.print(line(f"* {gain.sentence}"))
    if gains:
        out.print(Text(PANEL_LEGEND))
    if of_names := [metric for metric in metrics if metric in names_of_kinds]:
        out.print(line(f"* {NOMINAL_NOTE.format(', '.join(of_names))}"))
    whose = common_remarks({name: one.remarks for name, one in assessments.items()})
    show_remarks([*whose, *together.remarks])


def answer_together(together: JudgesTogether, out: Path | None, as_json: bool) -> None:
    """Write and print what was found of several judges."""
    if out:
        write_agreement(out, together.table, together.to_dict())
    if as_json:
        print(as_json_text(together.to_dict()))
    else:
        show_judges(together)


def _signed(estimate: Estimate, sign: int) -> str:
    """A difference with its interval, or the other way round."""
    if estimate.value is None:
        return f"undefined ({estimate.reason})"
    if estimate.low is None or estimate.high is None:
        return f"{sign * estimate.value:+.2f}"
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    return f"{sign * estimate.value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _cell(estimate: Estimate | None, form: str = ".2f") -> str:
    """The value of an estimate as a table shows it."""
    return cell(estimate.value if estimate else None, form)


def show_published(published: Published) -> None:
    """Print how far a run's system means agree with the published ones."""
    from rich.text import Text

    out = console()
    heads = ("metric", "sources", "decided pairs", "in their order", "p", "Spearman", "Pearson")
    rows = [
        (
            str(row["metric"]),
            f"{row['sources']:.0f}",
            f"{row['decided']:.0f} of {row['pairs']:.0f}",
            cell(row["alike"], "g"),
            cell(row["p_value"], ".3f"),
            cell(row["spearman"]),
            cell(row["pearson"]),
        )
        for row in published.table.to_dict(orient="records")
    ]
    out.print(plain_table(f"{published.judge} beside ChatAnime's published means", heads, rows))
    out.print(
        Text(
            "decided: pairs of sources whose published means differ by more than they can be read off the figure;\n"
            "p: exact, one-sided, over all ways to hand the judge's means to the sources. Six sources are an order to\n"
            "look at, not a proof."
        )
    )
    if published.judge == STAND_IN:
        out.print(Text(STAND_IN_WARNING, style="bold red"))


def agree(
    scores: ManyScores,
    annotations: Annotated[
        Path | None, typer.Option(help="Human ratings; without them, published means of ChatAnime's systems.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write agreement.csv and agreement.json to this folder.")
    ] = None,
    judge: OfJudges = None,
    annotators: Annotators = "",
    raters: Raters = "people",
    scoring: Scoring = "rmse",
    epsilon: Epsilon = None,
    min_items: MinItems = 30,
    annotator_kind: AnnotatorKind = "expert",
    generalise: Generalise = "scenarios",
    scale: Scale = None,
    columns: MapRatings = None,
    nominal: Nominal = "",
    average_repeats: Repeats = False,
    details: Annotated[
        bool, typer.Option("--details", help="Also print bias, RMSE, Pearson, Kendall, within scenarios and more.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Agreement of the judge with human ratings, beside that of annotators with each other, and a verdict per metric.

    Without --annotations: with the published means of ChatAnime's systems, the only human figures there are of it.
    """
    from judge.human_ratings.agreement import ALL, agree_together, assess_pairing, compare_with_published, read_judges

    refuse_unwritable_folder(out, *OUTPUTS)
    refuse_wrong_epsilon(epsilon)
    how: dict[str, Any] = {
        "raters": raters,
        "characters": generalise == "characters",
        "scoring": scoring,
        "epsilon": epsilon,
        "min_items": min_items,
        "kind": annotator_kind,
        "nominal": names(nominal),
    }
    people = some_names(annotators, "--annotators")
    if annotations is None and (len(scores) > 1 or judge == ALL):
        raise InputError("several judges are put beside human ratings: give them (--annotations), or one run")
    published = compare_with_published(scores[0]) if len(scores) == 1 else None
    if annotations is None and published is None:
        raise InputError(
            f"{scores[0]}: no published means of its sources, or of too few; give human ratings (--annotations FILE)"
        )
    assessment = None
    if annotations is not None:
        with terminal_progress() as progress, progress.busy("measuring agreement with human ratings"):
            judged = read_judges(scores, annotations, scale, judge, people, average_repeats, columns=columns)
            if len(judged) > 1:
                together = agree_together({name: one.pairing for name, one in judged.items()}, **how)
            else:
                (one,) = judged.values()
                assessment = assess_pairing(one.pairing, **how)
        if len(judged) > 1:
            answer_together(together, out, as_json)
            return 0
    found = {**(assessment.to_dict() if assessment else {}), "published": published.to_dict() if published else None}
    if out:
        write_agreement(out, next(one.table for one in (assessment, published) if one), found)
    if as_json:
        print(as_json_text(found))
        return 0
    if assessment:
        show_agreement(assessment)
        if details:
            show_details(assessment)
    if published:
        show_published(published)
    return 0
