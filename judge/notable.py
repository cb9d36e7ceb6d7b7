"""Which dialogues are worth a look where a run has more than anyone reads: the telling ones, and a sample of all.

Every choice is made by value and, at equal values, by a hash of the id, so that the same run gives the same page.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice, zip_longest

import numpy as np
import pandas as pd

from judge.types import LEVELS, digest

SHARES = {"explained": 6, "suspicious": 6, "missing": 12, "disputed": 6, "worst": 6, "best": 6, "uncertain": 6}
"""Each reason fills at most one part in so many; the sample fills the rest."""
SAMPLE = "sample"
EXTREMES = ("worst", "uncertain", "best", "suspicious")
"""Reasons to have a dialogue's scores explained."""


def spread(judgments: pd.DataFrame) -> pd.Series[float]:
    """The standard deviation of each judgment's distribution, in points of the scale."""
    chances, levels = judgments[[f"p{level}" for level in LEVELS]].to_numpy(float), np.array(LEVELS, float)
    mean = chances @ levels
    return pd.Series(np.sqrt(np.maximum(chances @ levels**2 - mean**2, 0)), judgments.index)


def by_dialogue(
    judgments: pd.DataFrame, human: pd.DataFrame | None = None, explained: Collection[str] = ()
) -> pd.DataFrame:
    """A row per dialogue (``item_id``): ``source, character, score, spread, dispute, suspicious, missing, explained``.

    ``score`` and ``spread`` are means over the metrics that were judged; ``dispute`` is the mean distance from people's
    mean rating, NaN where nobody rated.

    Args:
        judgments: with ``item_id``.
        human: people's mean ratings: ``item_id, metric, human``.
        explained: the dialogues whose scores have a rationale.
    """
    rows = judgments.assign(spread=spread(judgments), dispute=np.nan)
    if human is not None:
        rows = rows.merge(human, on=["item_id", "metric"], how="left")
        rows["dispute"] = (rows["score"] - rows["human"]).abs()
    rows = rows.assign(suspicious=rows["suspicious"].fillna("") != "", missing=rows["error"].notna())
    how = {"source": "first", "character": "first", **dict.fromkeys(("score", "spread", "dispute"), "mean")}
    found = rows.groupby("item_id", sort=False).agg({**how, "suspicious": "any", "missing": "any"})
    return found.assign(explained=found.index.isin(list(explained)))


def select(dialogues: pd.DataFrame, most: int) -> dict[str, list[str]]:
    """At most so many dialogues, each with the reasons why it is among them, in the order of the run.

    Args:
        dialogues: as ``by_dialogue`` gives them.
        most: where there are no more than this, all are taken, for no reason.
    """
    if len(dialogues) <= most:
        return {str(item): [] for item in dialogues.index}
    ordered = _shuffled(dialogues)
    reasons: dict[str, list[str]] = {}
    for reason, part in SHARES.items():
        for item in _picked(ordered, reason)[: most // part]:
            reasons.setdefault(item, []).append(reason)
    for item in _in_turns(ordered):
        if len(reasons) >= most:
            break
        reasons.setdefault(item, []).append(SAMPLE)
    return {str(item): reasons[item] for item in dialogues.index if item in reasons}


def notable(dialogues: pd.DataFrame, most: int) -> list[str]:
    """At most so many dialogues that are extreme in some way, an equal number in each, in the order of the run.

    Args:
        dialogues: as ``by_dialogue`` gives them.
        most: how many.
    """
    ordered = _shuffled(dialogues)
    ranks = zip_longest(*(_picked(ordered, reason) for reason in EXTREMES))
    found = dict.fromkeys(item for rank in ranks for item in rank if item is not None)
    chosen = set(islice(found, most))
    return [str(item) for item in dialogues.index if item in chosen]


def _shuffled(dialogues: pd.DataFrame) -> pd.DataFrame:
    """In the order of a hash of their ids: what decides between equal values."""
    lots = pd.Series({item: digest([item]) for item in dialogues.index}, dtype=str)
    return dialogues.loc[lots.sort_values().index]


def _picked(dialogues: pd.DataFrame, reason: str) -> list[str]:
    """The dialogues that a reason is for, those it is most for first."""
    if reason in ("explained", "suspicious", "missing"):
        return list(dialogues.index[dialogues[reason]])
    column = {"worst": "score", "best": "score", "uncertain": "spread", "disputed": "dispute"}[reason]
    known = dialogues[column].dropna()
    return list(known.sort_values(ascending=reason == "worst", kind="stable").index)


def _in_turns(dialogues: pd.DataFrame) -> list[str]:
    """All of them, one of every source and character after another, so that a sample has each of these."""
    turn = dialogues.groupby(["source", "character"], sort=False).cumcount()
    return list(turn.sort_values(kind="stable").index)
