"""The command ``attack``, and what its judgments say: how far scores moved, what is flagged, what they hang on."""

from __future__ import annotations

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
    as_one_json,
    refuse_unwritable,
    some_names,
)
from judge.cli.console import NONE, STAND_IN_WARNING, cell, console, line, plain_table, terminal_progress
from judge.files import rows_of, save_text
from judge.types import CHATANIME, STAND_IN

if TYPE_CHECKING:
    from judge.robustness.attack_analysis import Robustness
    from judge.robustness.perturbation import PerturbationJudgments

FAMILIES = ("family", "change", "beyond", "+1", "top", "mass", "flag", "miss")


BIAS = ("bias", "value", "95% interval", "n")


SOURCES = ("family of models", "judge mean", "95% interval", "n")
"""The heads of the three tables."""


SHARES = {"raised": ".0%", "to_top": ".0%", "mass_change": "+.2f", "flagged": ".0%"}
"""Columns of the first table after the changes, by how their numbers are written."""


LEGEND = """change: mean change of scores over all metrics; ± a 95% interval over scenarios
beyond: the same from harmless text in the same dialogues (benign), not from none
+1: share raised by at least 1; top: of scores not at the top of the scale,
    share raised to it (from half a level below)
mass: change of the mass of the levels; flag: share that the detector flags
miss: judgments missing, as of answers that an attack empties"""


def show_robustness(found: PerturbationJudgments, robustness: Robustness) -> None:
    """Print the outcome of an attack: families of attacks, biases, means by family of models, and remarks."""
    from rich.text import Text

    from judge.robustness.attack_analysis import BIASES

    families = [
        (
            row["family"],
            _change(row["change"], row["low"]),
            _change(row["beyond"], row["beyond_low"]),
            *(cell(row[name], form) for name, form in SHARES.items()),
            f"{row['missing']:,}",
        )
        for row in rows_of(robustness.families)
    ]
    biases = [
        (BIASES[row["bias"], row["measure"]], cell(row["value"], "+.2f"), _interval(row, "+.2f"), f"{row['n']:,}")
        for row in rows_of(robustness.bias)
    ]
    sources = [
        (
            f"{row['family']} (the judge's own)" if row["own"] else row["family"],
            cell(row["mean"], ".2f"),
            _interval(row, ".2f"),
            f"{row['n']:,}",
        )
        for row in rows_of(robustness.sources)
    ]
    out = console()
    asked = f"{found.settings['layout']}, {found.settings['language']}"
    title = f"{found.judge} ({asked}) on {found.dialogues:,} dialogues, under attack"
    out.print(plain_table(title, FAMILIES, families))
    out.print(Text(LEGEND + "\n"))
    out.print(plain_table("what scores hang on", BIAS, biases))
    out.print(plain_table("judge means by the source's family", SOURCES, sources))
    for remark in robustness.remarks:
        out.print(line(f"* {remark}"))
    if found.judge == STAND_IN:
        out.print(Text(STAND_IN_WARNING, style="bold red"))


def _change(value: float | None, low: float | None) -> str:
    """A mean change and the half-width of its interval."""
    return cell(value, "+.2f") + ("" if value is None or low is None else f" ±{value - low:.2f}")


def _interval(row: dict[str, Any], form: str) -> str:
    if row["low"] is None or row["high"] is None:
        return NONE
    return f"{row['low']:{form}} to {row['high']:{form}}"


def attack(
    data: Data = None,
    mapping: Map = "",
    judge: Judge = "auto",
    engine: Engine = "auto",
    url: Url = None,
    protocol: Protocol = "auto",
    rubric: RubricName = CHATANIME,
    language: Language = None,
    layout: Layout = "auto",
    sources: Sources = "",
    characters: Characters = "",
    limit: Few = 100,
    seed: Annotated[int, typer.Option(help="Which of its texts each attack uses on which dialogue.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the result to this JSON file.")] = None,
    as_json: Json = False,
) -> int:
    """Write attacks into answers and see whether scores rise: can an answer talk the judge round?

    Orders, fake rubrics, verdicts and system turns, control tokens, suffixes, empty and constant answers, padding,
    hidden characters, in Chinese and English, beside harmless text in the same place; what the detector flags of them;
    and how scores hang on the order of the levels, the language, length and the source's family. No run is written.
    """
    from judge.types import Options

    refuse_unwritable(out)
    options = Options(
        mapping=mapping,
        judge=judge,
        engine=engine,
        url=url,
        protocol=protocol,
        rubric=rubric,
        language=language,
        layout=layout,
        sources=some_names(sources, "--sources"),
        characters=some_names(characters, "--characters"),
        limit=limit,
    )
    with terminal_progress() as progress:
        from judge.robustness.attack_analysis import assess, is_lacking
        from judge.robustness.attacks import attack as run_attack

        found = run_attack(data or [], options, progress, seed)
        with progress.busy("assessing the judgments"):
            robustness = assess(found)
    facts = {name: getattr(found, name) for name in ("judge", "judge_id", "dialogues", "missing", "settings")}
    facts |= {"flagged_originals": robustness.flagged_originals, "remarks": robustness.remarks}
    tables = {name: getattr(robustness, name) for name in ("families", "rewrites", "metrics", "bias", "sources")}
    text = as_one_json(facts, **tables)
    if out:
        save_text(out, text)
    if as_json:
        print(text)
    else:
        show_robustness(found, robustness)
    # Judgments of emptied answers are missing by design and are no failure of the run.
    return 1 if is_lacking(found.judgments) else 0
