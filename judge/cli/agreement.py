"""What ``agree`` does and shows: an assessment of a run or table, and published means beside a run of ChatAnime."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.text import Text

from calibration import agreement_with_published, assess, chatanime_means
from calibration.files import read_records
from calibration.resampling import Estimate
from judge.cli.common import as_json_text, write_csv, writing_to
from judge.cli.inputs import is_run, name_of, read_judge_scores, read_pairing
from judge.errors import InputError, one_line
from judge.families import same_family
from judge.files import replacing
from judge.terminal import STAND_IN_WARNING, console, line, plain_table
from judge.types import COMPOSITES, RESPONSE_DIVERSITY, STAND_IN

if TYPE_CHECKING:
    from calibration import Assessment, Pairing

LEGEND = """alpha: Krippendorff's, ordinal, of people; Spearman: of judge and mean rating; person: a person left out
MAE: mean absolute difference from the mean rating; constant: that of saying the same of every item
QWK: quadratic weighted kappa with each rating; systems: pairs of sources ordered as people do
alt: winning rate of the alternative annotator test (the judge may stand in for a person from .5 on)"""
ROOM_FOR_ALL = 110
"""Columns of a terminal from which on the table has all of its own."""
LEFT_OUT = ("n", "constant", "QWK", "alt")
OUTPUTS = ("agreement.csv", "agreement.json")
DISTINCT = "response_diversity (distinct-2)"


@dataclass(frozen=True, slots=True)
class Published:
    """A run's system means beside the published ones of ChatAnime, a row a metric."""

    judge: str
    table: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """By metric, NaN as None."""
        records = json.loads(self.table.set_index("metric").to_json(orient="index"))
        return {"judge": self.judge, "metrics": records}


def assess_run(
    scores: Path,
    annotations: Path,
    *,
    scale: str | None,
    judge: str | None,
    annotators: tuple[str, ...],
    average_repeats: bool,
    **how: Any,
) -> Assessment:
    """Read, pair and assess; ``how`` goes to ``calibration.assess``."""
    return assess_pairing(read_pairing(scores, annotations, scale, judge, annotators, average_repeats), **how)


def assess_pairing(pairing: Pairing, **how: Any) -> Assessment:
    """Assess what was paired; ``how`` goes to ``calibration.assess``."""
    name = name_of(pairing)
    sources = {source for paired in pairing.metrics.values() for source in paired.labelled.sources}
    try:
        return assess(pairing, name, composites=COMPOSITES, same_family=same_family(name, sources), **how)
    except ValueError as error:
        raise InputError(str(error)) from error


def compare_with_published(scores: Path) -> Published | None:
    """A run's means beside ChatAnime's published ones; None for a table, or a run without three of its sources."""
    if not is_run(scores):
        return None
    judgments = read_judge_scores(scores, None)
    means = judgments.groupby(["source", "metric"])["score"].mean().rename("mean").reset_index()
    if (scores / "diversity.csv").is_file():
        means = pd.concat([means, _diversity_means(scores / "diversity.csv")], ignore_index=True)
    table = agreement_with_published(means, _published())
    return None if table.empty else Published(str(judgments["judge"].iloc[0]), table)


def _diversity_means(path: Path) -> pd.DataFrame:
    """The judge's rating of diversity and distinct-2, which needs no judge, as two metrics."""
    both = {RESPONSE_DIVERSITY: RESPONSE_DIVERSITY, "distinct_2": DISTINCT}
    try:
        table = read_records(path)
        table = table.assign(**{column: pd.to_numeric(table[column]) for column in both})
        by_source = table[table["level"] == "source"]
        parts = [by_source[["source"]].assign(metric=name, mean=by_source[column]) for column, name in both.items()]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); score again with this run as --run") from error
    return pd.concat(parts).dropna(subset="mean")


def _published() -> pd.DataFrame:
    means = chatanime_means()
    again = means[means["metric"] == RESPONSE_DIVERSITY].assign(metric=DISTINCT)
    return pd.concat([means, again], ignore_index=True)


def write_agreement(folder: Path, table: pd.DataFrame, found: dict[str, Any]) -> None:
    """All numbers as a table, and all that ``--json`` prints."""
    with writing_to(folder):
        write_csv(folder / OUTPUTS[0], table)
        with replacing(folder / OUTPUTS[1]) as file:
            file.write(as_json_text(found).encode() + b"\n")


def show_agreement(assessment: Assessment) -> None:
    """Print the table, what it says, a sentence per metric, and remarks."""
    out = console()
    rows = [{"metric": name, **_row(one)} for name, one in assessment.metrics.items()]
    heads = [head for head in rows[0] if out.width >= ROOM_FOR_ALL or head not in LEFT_OUT]
    cells = [[row[head] for head in heads] for row in rows]
    out.print(plain_table(f"{assessment.judge} beside people", heads, cells))
    out.print(Text(LEGEND + "\n"))
    for one in assessment.metrics.values():
        out.print(line(f"* {one.verdict.sentence}"))
    if halo := assessment.discriminant:
        out.print(line(f"* {_halo(halo)}"))
    for remark in assessment.remarks:
        out.print(line(f"- {remark}"))
    if assessment.judge == STAND_IN:
        out.print(Text(STAND_IN_WARNING, style="bold red"))


def _row(one: Any) -> dict[str, str]:
    found = one.agreement
    rate = one.alt_test.winning_rate
    return {
        "n": f"{found.items:,}",
        "alpha": _cell(one.reliability.alpha_ordinal),
        "Spearman": _cell(found.judge["spearman"]),
        "person": _cell(one.reliability.ceiling.get("spearman")),
        "MAE": _cell(found.judge["mae"]),
        "constant": _cell(found.constant["mae"]),
        "QWK": _cell(found.judge["qwk"]),
        "systems": _cell(found.systems["pairwise_accuracy"], "{:.0%}"),
        "alt": "–" if rate is None else f"{rate:.2f}",
        "verdict": one.verdict.word,
    }


def _cell(estimate: Estimate | None, form: str = "{:.2f}") -> str:
    return "–" if estimate is None or estimate.value is None else form.format(estimate.value)


def _halo(found: Any) -> str:
    judge, people = (f"{halo:.2f}" if halo is not None else "–" for halo in (found.judge_halo, found.human_halo))
    own = "–" if found.own_is_highest is None else f"{found.own_is_highest:.0%}"
    return (
        f"Metrics correlate at {judge} among themselves in the judge's scores and at {people} in people's; {own} of "
        "the judge's metrics go with people's same metric more than with any other."
    )


def show_published(published: Published) -> None:
    """Print a run's means beside the published ones."""
    out = console()
    heads = ("metric", "sources", "decided pairs", "in their order", "p", "Spearman", "Pearson")
    rows = [
        (
            str(row["metric"]),
            f"{row['sources']:.0f}",
            f"{row['decided']:.0f} of {row['pairs']:.0f}",
            _number(row["alike"], "{:g}"),
            _number(row["p_value"], "{:.3f}"),
            _number(row["spearman"]),
            _number(row["pearson"]),
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


def _number(value: float, form: str = "{:.2f}") -> str:
    return "–" if pd.isna(value) else form.format(value)
