"""The command ``probe``: judge dialogues and their degraded forms, and say what is noticed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import (
    Characters,
    Data,
    Engine,
    Few,
    Json,
    Judge,
    Language,
    Layout,
    Map,
    Protocol,
    RubricName,
    Sources,
    Url,
    names,
    refuse_unwritable,
)
from judge.cli.console import STAND_IN_WARNING, cell, console, line, plain_table, terminal_progress
from judge.files import as_json_text, save_text
from judge.types import CHATANIME, STAND_IN

if TYPE_CHECKING:
    import pandas as pd

    from judge.robustness.probe_analysis import ProbeAssessment
    from judge.robustness.probes import Probed


LEGEND = """drop: mean score less that of the degraded form, ± half its 95% interval
AUC: clean told from degraded, by the judge; by length; by a bag of characters
(told of other scenarios which are degraded); .5 is chance
noticed: more than chance and more than length or characters tell;
proves nothing: length or characters alone have an AUC of .8 or more"""


LEGEND_FOR_ALL = """random: AUC of random scores
lower: share of dialogues whose own degraded form scores lower
"""


SPREAD = """*: the metric aimed at; specific: its drop at the strongest less the mean of
the other metrics' drops, ± half its 95% interval
in order: share of dialogues whose scores fall from mild to medium to strong
(1/6 by chance); means: whether the mean scores do"""


HEADS = ("probe", "n", "drop", "AUC", "length", "chars", "random", "lower", "verdict")


ROOM_FOR_ALL = 105
"""Columns of a terminal from which on the table has all of its own."""


LEFT_OUT = ("n", "random", "lower")


WIDE, NARROW = 4, 4
"""Of more metrics than these, each is headed by so many letters."""


def show_probes(probed: Probed, assessment: ProbeAssessment) -> None:
    """Print what was noticed, how specific it is, a sentence per metric, and the stand-in's warning."""
    from rich.text import Text

    out = console()
    title = f"{probed.judge} on {probed.dialogues:,} dialogues and their degraded forms"
    # On a narrow terminal some columns are left out, so that no row breaks in two.
    heads = [head for head in HEADS if out.width >= ROOM_FOR_ALL or head not in LEFT_OUT]
    out.print(plain_table(title, heads, ([cells[head] for head in heads] for cells in _row_cells(assessment.rows))))
    out.print(Text(LEGEND_FOR_ALL * (out.width >= ROOM_FOR_ALL) + LEGEND + "\n"))
    metrics = list(dict.fromkeys(assessment.matrix["metric"])) if len(assessment.matrix) else []
    names = ("", *(metric[:NARROW] if len(metrics) > WIDE else metric for metric in metrics))
    drops = _drop_cells(assessment.matrix, metrics, probed.aims)
    out.print(plain_table("drops at the strongest, in hundredths of a level", names, drops))
    orders = ("", "applies to", "specific", "in order", "means")
    out.print(plain_table("aimed at one metric, and in order of strength", orders, _order_cells(probed, assessment)))
    out.print(Text(SPREAD + "\n"))
    for sentence in assessment.sentences:
        out.print(line(f"* {sentence}"))
    for remark in assessment.remarks:
        out.print(line(f"- {remark}"))
    for reason, count in probed.missing.items():
        out.print(line(f"missing: {count:,} judgments, {reason}"))
    if probed.judge == STAND_IN:
        out.print(line(STAND_IN_WARNING, "bold red"))


def _row_cells(rows: pd.DataFrame) -> Iterator[dict[str, str]]:
    """A line per metric, and under it its probes; cells by the head of their column."""
    from judge.robustness.probe_analysis import short_number

    for metric, own in rows.groupby("metric", sort=False) if len(rows) else ():
        yield {**dict.fromkeys(HEADS, ""), HEADS[0]: str(metric)}
        for row in own.to_dict(orient="records"):
            numbers = ("auc", "length_auc", "bag_auc", "random_auc", "lower")
            cells = (f" {row['degradation']} {row['strength']}", f"{row['n']:,}", _with_half(row, "drop"))
            yield dict(
                zip(HEADS, (*cells, *(short_number(row[name]) for name in numbers), row["verdict"]), strict=True)
            )


def _drop_cells(matrix: pd.DataFrame, metrics: list[str], aims: Mapping[str, str]) -> Iterator[list[str]]:
    """A line per degradation at its strongest."""
    import pandas as pd

    from judge.robustness.degradations import STRENGTHS

    strongest = matrix[matrix["strength"] == STRENGTHS[-1]]
    for name, part in strongest.groupby("degradation", sort=False):
        drops = part.set_index("metric")["drop"].reindex(metrics)
        aim = aims[str(name)]
        cells = ("–" if pd.isna(drop) else f"{round(100 * drop)}" for drop in drops)
        yield [str(name), *(f"{cell}{'*' * (metric == aim)}" for metric, cell in zip(metrics, cells, strict=True))]


def _order_cells(probed: Probed, assessment: ProbeAssessment) -> Iterator[list[str]]:
    """A line per degradation: to how many dialogues it applies, how specific and how ordered drops are."""
    import pandas as pd

    from judge.robustness.degradations import STRENGTHS

    # A degradation that applies to no dialogue has an order but no row of its own.
    rows = assessment.rows[assessment.rows["strength"] == STRENGTHS[-1]].set_index("degradation")
    for order in assessment.orders.to_dict(orient="records"):
        name = str(order["degradation"])
        specific = _with_half(rows.loc[name].to_dict(), "specific") if name in rows.index else "–"
        applies = f"{probed.applied[name]:,} of {probed.dialogues:,}"
        means = "–" if pd.isna(order["means_in_order"]) else ("in order" if order["means_in_order"] else "not")
        yield [name, applies, specific, cell(order["in_order"], ".0%"), means]


def _with_half(row: dict[Any, Any], name: str) -> str:
    """A mean and half of its interval, where it has one."""
    import pandas as pd

    from judge.robustness.probe_analysis import short_number

    if pd.isna(row[name]):
        return "–"
    half = "" if pd.isna(row[f"{name}_low"]) else f" ±{short_number((row[f'{name}_high'] - row[f'{name}_low']) / 2)}"
    return f"{short_number(row[name])}{half}"


def probe(
    data: Data = None,
    mapping: Map = "",
    judge: Judge = "auto",
    engine: Engine = "auto",
    url: Url = None,
    protocol: Protocol = "auto",
    sources: Sources = "",
    characters: Characters = "",
    limit: Few = 100,
    rubric: RubricName = CHATANIME,
    language: Language = None,
    layout: Layout = "auto",
    seed: Annotated[int, typer.Option(help="Of the degradations.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write all that --json prints to this file.")] = None,
    as_json: Json = False,
) -> int:
    """Does the judge notice degraded answers? Needs no ratings by people.

    Dialogues are degraded in ways aimed at one metric each, in three strengths, and judged beside the dialogues as they
    are: how far scores drop, how well they tell the two apart, and whether length or a bag of characters would do as
    well. No run is written.
    """
    from judge.types import Options

    refuse_unwritable(out)
    options = Options(
        mapping=mapping,
        judge=judge,
        engine=engine,
        url=url,
        protocol=protocol,
        sources=names(sources),
        characters=names(characters),
        limit=limit,
        rubric=rubric,
        language=language,
        layout=layout,
    )
    with terminal_progress() as progress:
        from judge.robustness.degradations import STRENGTHS
        from judge.robustness.probe_analysis import assess_probes
        from judge.robustness.probes import probe as probe_judge

        probed = probe_judge(data or [], options, seed, progress)
        with progress.busy("assessing the judgments"):
            assessment = assess_probes(probed.judgments, probed.texts, probed.aims, STRENGTHS, seed)
    shown = ("judge", "judge_id", "dialogues", "missing", "settings", "aims", "applied")
    facts = {name: getattr(probed, name) for name in shown}
    found = as_json_text({**facts, "strengths": list(STRENGTHS), **assessment.to_dict()})
    if out:
        save_text(out, found)
    if as_json:
        print(found)
    else:
        show_probes(probed, assessment)
    return 1 if probed.missing else 0
