"""What a probe's numbers say, in words: a verdict per row, and a sentence per metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["CONTROLS", "NOTICED", "PASSING", "remark", "sentence", "verdict"]

PASSING = 0.8
"""From this AUC on a control passes a probe, which then proves nothing."""
CONTROLS = {"length": "length", "bag": "a bag of characters"}
"""Controls that see the text: column and what it is called."""

NOTICED, AS_SURFACE, PROVES_NOTHING = "noticed", "as surface", "proves nothing"
NOT_NOTICED, REVERSED, UNKNOWN = "not noticed", "rated higher", "cannot be said"


def verdict(row: Mapping[str, Any]) -> str:
    """What a probe says of a judge, from its AUC ``auc`` with ``auc_low, auc_high``, and ``length_auc, bag_auc``.

    ``noticed``: the interval lies above .5 and above every control. ``as surface``: above .5, but a control lies in
    the interval or above. ``proves nothing``: above .5, but a control passes. ``not noticed``: .5 or less is in the
    interval; ``rated higher``: it lies under .5. ``cannot be said``: there is no interval.
    """
    if row["auc_low"] is None:
        return UNKNOWN
    if row["auc_high"] < 0.5:
        return REVERSED
    if row["auc_low"] <= 0.5:
        return NOT_NOTICED
    best = _strongest(row)[1]
    if best >= PASSING:
        return PROVES_NOTHING
    return AS_SURFACE if best >= row["auc_low"] else NOTICED


def remark(row: Mapping[str, Any]) -> str:
    """The verdict as part of a sentence, with the control that it rests on."""
    control, best = _strongest(row)
    alone = f"{control} alone: AUC {_short(best)}"
    passes = f"; {alone}" if best >= PASSING else ""
    return {
        UNKNOWN: f"nothing can be said: {row['reason']}",
        REVERSED: f"rated higher than the clean ones (AUC {_short(row['auc'])})",
        NOT_NOTICED: f"not noticed (AUC {_short(row['auc'])}{passes})",
        PROVES_NOTHING: f"{alone}, so this proves nothing",
        AS_SURFACE: f"cannot be told from {control} ({alone.split(': ')[1]})",
        NOTICED: f"noticed (AUC {_short(row['auc'])}; {alone})",
    }[row["verdict"]]


def sentence(metric: str, rows: Sequence[Mapping[str, Any]], strengths: Sequence[str]) -> str:
    """What the probes aimed at a metric say, one at its strongest each; and from which strength on it is noticed."""
    strongest = [row for row in rows if row["strength"] == strengths[-1]]
    if all(row["verdict"] == UNKNOWN for row in strongest):
        why = remark(strongest[0]) if strongest else "no degradation applies to these items"
        return f"{metric}: {why}."
    noticed = [f"{row['degradation']}{_since(row, rows, strengths)}" for row in strongest if row["verdict"] == NOTICED]
    rest = [f"{row['degradation']}: {remark(row)}" for row in strongest if row["verdict"] != NOTICED]
    return f"{metric}: notices {', '.join(noticed) or 'none for certain'}{''.join(f'; {part}' for part in rest)}."


def _since(strong: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], strengths: Sequence[str]) -> str:
    """The weakest strength from which on all are noticed, where that is not the strongest alone."""
    verdicts = {row["strength"]: row["verdict"] for row in rows if row["degradation"] == strong["degradation"]}
    seen = [strength for k, strength in enumerate(strengths) if all(verdicts[s] == NOTICED for s in strengths[k:])]
    return f" (from {seen[0]} on)" if len(seen) > 1 else ""


def _strongest(row: Mapping[str, Any]) -> tuple[str, float]:
    """The control that tells most, and its AUC; 0 where none could be had."""
    return max(((name, row[f"{column}_auc"] or 0.0) for column, name in CONTROLS.items()), key=lambda pair: pair[1])


def _short(value: float) -> str:
    """Two decimals without the 0 before the point."""
    return f"{value:.2f}".removeprefix("0")
