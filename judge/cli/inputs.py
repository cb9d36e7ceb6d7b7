"""What the commands about people read: a run or a table of scores, and a table of ratings, put side by side."""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge.errors import InputError
from judge.types import COMPOSITES, LEVELS, METRICS

if TYPE_CHECKING:
    import pandas as pd

    from calibration import Pairing

OWN_SCALE = {metric: (float(LEVELS[0]), float(LEVELS[-1])) for metric in METRICS}

NUMBER = r"-?\d+(?:\.\d+)?"
Scale = Any
"""As ``calibration`` takes it: of every metric, of each, or None."""


def name_of(pairing: Pairing) -> str:
    """What the judge is called."""
    return pairing.judge or "the judge"


def is_run(path: Path) -> bool:
    """Whether a path is a run and not a table."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path}: no such run or table ({error.strerror}); check the path") from error
    return stat.S_ISDIR(mode)


def read_annotations(path: Path, scale: Scale = (1, 5), *, average_repeats: bool = False) -> pd.DataFrame:
    """People's ratings; InputError where the file cannot be used."""
    from calibration import TableError, read_ratings

    try:
        return read_ratings(path, scale, repeats="keep" if average_repeats else "error")
    except TableError as error:
        text = str(error).replace("read with repeats='keep'", "average them (--average-repeats)")
        raise InputError(f"--annotations {text}") from error


def read_judge_scores(
    path: Path, scale: Scale, ratings: pd.DataFrame | None = None, source: str | None = None
) -> pd.DataFrame:
    """A judge's scores of a run or a table, which may leave out sources where ratings tell them or ``source`` does."""
    from calibration import TableError, read_scores

    if is_run(path):
        from judge.store import load_scores

        return load_scores(path)
    known = {} if ratings is None else dict(zip(ratings["item_id"], ratings["source"], strict=True))
    try:
        return read_scores(path, scale, source=known or source)
    except TableError as error:
        raise InputError(str(error)) from error


def read_pairing(
    path: Path,
    annotations: Path,
    scale: str | None,
    judge: str | None = None,
    annotators: tuple[str, ...] = (),
    average_repeats: bool = False,
    with_composites: bool = True,
) -> Pairing:
    """Ratings beside the scores of a run or a table; InputError where they do not go together."""
    from calibration import TableError, pair

    scales = scale_of(path, scale)
    ratings = read_annotations(annotations, scales, average_repeats=average_repeats)
    scores = read_judge_scores(path, scales, ratings)
    composites = _composites(scores) if with_composites else {}
    try:
        return pair(ratings, scores, judge=judge, annotators=annotators, scale=scales, composites=composites)
    except TableError as error:
        raise InputError(str(error)) from error


def read_unrated(path: Path, scale: str | None, judge: str | None = None) -> Pairing:
    """The scores of a run or a table with no ratings beside them."""
    from calibration import TableError, without_ratings

    scales = scale_of(path, scale)
    scores = read_judge_scores(path, scales)
    try:
        return without_ratings(scores, judge=judge, scale=scales, composites=_composites(scores))
    except TableError as error:
        raise InputError(str(error)) from error


def _composites(scores: pd.DataFrame) -> Mapping[str, tuple[str, ...]]:
    """The means to add: ours, where the scores are on our metrics."""
    return COMPOSITES if set(METRICS) & set(scores["metric"]) else {}


def scale_of(path: Path, text: str | None) -> Scale:
    """The scale that was named; else a run's own, and None for a table, whose scores tell it."""
    if text:
        return parse_scale(text)
    return OWN_SCALE if is_run(path) else None


def parse_scale(text: str) -> Scale:
    """``1-5`` for every metric, or ``a=1-5,b=0-3`` for each."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    found = [re.fullmatch(rf"(?:(.+?)\s*=\s*)?({NUMBER})-({NUMBER})", part) for part in parts]
    scales = {match[1]: (float(match[2]), float(match[3])) for match in found if match}
    fit = all(low < high < math.inf for low, high in scales.values())
    if not parts or len(scales) != len(parts) or not fit:
        raise InputError(f"--scale {text}: not understood; write 1-5, or one for each metric: fluency=1-5,empathy=0-3")
    if None in scales and len(scales) > 1:
        raise InputError(f"--scale {text}: give one scale for every metric, or one for each")
    return scales.get(None, scales)
