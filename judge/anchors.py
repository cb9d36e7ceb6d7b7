"""The dialogues that a calibration keeps, so that any later run can first see whether the judge is still the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from judge.corpus import Corpus
from judge.errors import InputError
from judge.judging import Judge
from judge.types import METRICS, Dialogue, Turn

AT_A_TIME = 16
"""Dialogues that are scored together."""


def frozen(data: Sequence[Path], items: Collection[str]) -> dict[str, Any]:
    """The dialogues with these ids as plain values for a file; those that are not in the data are left out."""
    with closing(Corpus(data)) as corpus:
        return {dialogue.id: asdict(dialogue) for dialogue in corpus if dialogue.id in items}


def rescored(judge: Judge, kept: Mapping[str, Any]) -> pd.DataFrame:
    """Scores of frozen dialogues by a judge as it is now: ``item_id, metric, score``; NaN where there is none."""
    dialogues = [_thawed(values) for values in kept.values()]
    rows = []
    for start in range(0, len(dialogues), AT_A_TIME):
        some = dialogues[start : start + AT_A_TIME]
        for dialogue, judged in zip(some, judge.judge(judge.prompts(some, METRICS), METRICS), strict=True):
            scores = (judgment.score for judgment in judged.judgments)
            rows += [(dialogue.id, metric, score) for metric, score in zip(METRICS, scores, strict=True)]
    return pd.DataFrame(rows, columns=["item_id", "metric", "score"]).astype({"score": float})


def _thawed(values: Mapping[str, Any]) -> Dialogue:
    try:
        turns = tuple(Turn(str(turn["user"]), str(turn["character"])) for turn in values["turns"])
        source, character, scenario = (str(values[name]) for name in ("source", "character", "scenario"))
        return Dialogue(source, character, scenario, turns, values["profile"])
    except (KeyError, TypeError) as error:
        raise InputError("the calibration's anchor dialogues are damaged; fit it again") from error
