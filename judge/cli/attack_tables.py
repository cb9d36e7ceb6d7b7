"""How the outcome of an attack is drawn on a terminal, and what to look at in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.text import Text

from judge.attacks.attacking import LEVEL_ORDER, RUBRIC_LANGUAGE
from judge.attacks.suite import BENIGN
from judge.rewriting import Rewritten
from judge.terminal import STAND_IN_WARNING, console, line, plain_table
from judge.types import STAND_IN

if TYPE_CHECKING:
    from judge.cli.attacking import Robustness

NONE = "–"
FAMILIES = ("family", "change", "beyond", "+1", "top", "mass", "flag", "miss")
BIAS = ("bias", "value", "95% interval", "n")
SOURCES = ("family of models", "judge mean", "95% interval", "n")
"""The heads of the three tables."""
LEGEND = """change: mean change of scores over all metrics; ± a 95% interval over scenarios
beyond: the same from harmless text in the same dialogues (benign), not from none
+1: share raised by at least 1; top: of scores under 4.5, share raised to that
mass: change of the mass of the levels; flag: share that the detector flags
miss: judgments missing, as of answers that an attack empties"""
BIASES = {
    (LEVEL_ORDER, "mean_change"): "levels listed downwards: mean change",
    (LEVEL_ORDER, "rank_agreement"): "levels listed downwards: rank agreement",
    (RUBRIC_LANGUAGE, "mean_change"): "rubric in the other language: mean change",
    (RUBRIC_LANGUAGE, "rank_agreement"): "rubric in the other language: rank agreement",
    ("length", "rank_association"): "length of answers: rank association",
    ("own_family", "own_less_others"): "own family less others, same scenes",
}


def show_robustness(found: Rewritten, robustness: Robustness) -> None:
    """Print the outcome of an attack: families, biases, sources by family of models, and what to look at."""
    out = console()
    asked = f"{found.settings['layout']}, {found.settings['language']}"
    title = f"{found.judge} ({asked}) on {found.dialogues:,} dialogues, under attack"
    out.print(plain_table(title, FAMILIES, map(_family, _records(robustness.families))))
    out.print(Text(LEGEND + "\n"))
    out.print(plain_table("what scores hang on", BIAS, map(_bias, _records(robustness.bias))))
    out.print(plain_table("judge means by the source's family", SOURCES, map(_source, _records(robustness.sources))))
    for remark in robustness.remarks:
        out.print(line(f"* {remark}"))
    if found.judge == STAND_IN:
        out.print(Text(STAND_IN_WARNING, style="bold red"))


def remarks(robustness: Robustness) -> list[str]:
    """What to look at, in words."""
    attacks = robustness.families[robustness.families["family"] != BENIGN]
    known = attacks.dropna(subset="change")
    return [
        *_on_changes(known, robustness.families),
        f"flagged of the dialogues as they are: {robustness.flagged_originals:.1%}; of harmless text that quotes "
        f"scores or speaks of judges: {_share(robustness, BENIGN)}; of attacks worded unlike those that the detector "
        f"knows (veiled): {_share(robustness, 'veiled')}. A flag alters no score, and no flag is no proof",
        *_on_what_is_not_given(robustness.bias),
        "whether the judge favours its own family is not known without people's ratings: its sources may be better",
    ]


def _on_changes(attacks: pd.DataFrame, families: pd.DataFrame) -> list[str]:
    if attacks.empty:
        return ["no change is given: no dialogue was judged both as it is and rewritten"]
    most = attacks.sort_values("change").iloc[-1]
    harmless = families.loc[families["family"] == BENIGN, "change"]
    beside = "" if harmless.dropna().empty else f" (harmless text: {float(harmless.iloc[0]):+.2f})"
    upwards = f"moves scores most upwards: {most['family']}, {most['change']:+.2f} on the average{beside}"
    raised = [row["family"] for row in _records(attacks) if (row["beyond_low"] or 0) > 0]
    return [
        upwards if most["change"] > 0 else f"no attack moves scores upwards on the average{beside}",
        f"raise scores beyond what harmless text does (interval above 0): {', '.join(raised) or 'none'}",
    ]


def _on_what_is_not_given(bias: pd.DataFrame) -> list[str]:
    lacking = [row for row in _records(bias) if row["value"] is None]
    return [f"{BIASES[row['bias'], row['measure']]}: not given, as {row['reason']}" for row in lacking]


def _share(robustness: Robustness, family: str) -> str:
    shares = robustness.families.loc[robustness.families["family"] == family, "flagged"]
    return NONE if shares.empty else f"{float(shares.iloc[0]):.1%}"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, with None where there is no value."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict(orient="records")
    ]


def _family(row: dict[str, Any]) -> Sequence[str]:
    shares = [_cell(row[name], ".0%") for name in ("raised", "to_top")]
    mass, flagged = _cell(row["mass_change"], "+.2f"), _cell(row["flagged"], ".0%")
    moved = (_change(row["change"], row["low"]), _change(row["beyond"], row["beyond_low"]))
    return row["family"], *moved, *shares, mass, flagged, f"{row['missing']:,}"


def _change(value: float | None, low: float | None) -> str:
    """A mean change and the half-width of its interval."""
    return _cell(value, "+.2f") + ("" if value is None or low is None else f" ±{value - low:.2f}")


def _bias(row: dict[str, Any]) -> Sequence[str]:
    return BIASES[row["bias"], row["measure"]], _cell(row["value"], "+.2f"), _interval(row), f"{row['n']:,}"


def _source(row: dict[str, Any]) -> Sequence[str]:
    name = f"{row['family']} (the judge's own)" if row["own"] else row["family"]
    return name, _cell(row["mean"], ".2f"), _interval(row, ".2f"), f"{row['n']:,}"


def _interval(row: dict[str, Any], form: str = "+.2f") -> str:
    if row["low"] is None or row["high"] is None:
        return NONE
    return f"{row['low']:{form}} to {row['high']:{form}}"


def _cell(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)
