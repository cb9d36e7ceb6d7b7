"""A table of ratings and a table of scores put side by side.

Nothing is dropped in silence: what has no counterpart is counted and listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from calibration import matching
from calibration.matching import levels_of, one_judge
from calibration.paired import Paired, Pairing
from calibration.remarks import remarks
from calibration.resampling import Floats, Labels
from calibration.tables import Scale

__all__ = ["pair", "without_ratings"]


def pair(
    ratings: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    judge: str | None = None,
    annotators: Sequence[str] = (),
    scale: Scale = None,
    composites: Mapping[str, Sequence[str]] | None = None,
) -> Pairing:
    """Put ratings beside scores, joined by ``item_id`` and ``metric``.

    Args:
        ratings: as ``read_ratings`` returns them.
        scores: as ``read_scores`` returns them; several answers of one judge to one item are averaged.
        judge: which judge, where the table holds several.
        annotators: only these; all where empty.
        scale: of every metric, or of each; None takes it from the levels, or else from what was given.
        composites: means of several metrics to add as metrics of their own (name -> members).

    What only the ratings tell of an item (its group; its character, where all are known) is taken from them.

    Raises:
        TableError: the judge or an annotator is not in the table or has to be named; no metric or no item is in both;
            an item has two inclusion probabilities, sources or groups.
    """
    ratings, every = matching.of_annotators(ratings, annotators), one_judge(scores, judge)
    matching.refuse_two_chances(ratings)
    scores = matching.on_shared_metrics(matching.completed(every, ratings), ratings)
    unjudged = matching.without_counterpart(ratings, scores)
    judged = matching.with_composites(scores[scores["score"].notna()], composites)
    rated = matching.with_composites(matching.averaged(ratings[~unjudged]), composites, ["annotator"])
    by_metric = dict(iter(rated.groupby("metric", sort=False)))
    metrics = {
        str(metric): _paired(str(metric), by_metric[metric], table, scale)
        for metric, table in judged.groupby("metric", sort=False)
        if metric in by_metric
    }
    pairing = Pairing(
        judge=_name(scores),
        metrics=metrics,
        unjudged=ratings.loc[unjudged, ["item_id", "metric", "annotator"]].reset_index(drop=True),
        missing=_missing(scores),
        unrated={metric: int((one.counts == 0).sum()) for metric, one in metrics.items()},
        remarks=(),
    )
    return replace(pairing, remarks=tuple(remarks(pairing, ratings, every)))


def without_ratings(
    scores: pd.DataFrame,
    *,
    judge: str | None = None,
    scale: Scale = None,
    composites: Mapping[str, Sequence[str]] | None = None,
) -> Pairing:
    """A judge's scores as a pairing with no ratings in it; arguments and errors as for ``pair``."""
    scores = one_judge(scores, judge)
    judged = matching.with_composites(scores[scores["score"].notna()], composites)
    none = pd.DataFrame({name: pd.Series(dtype=object) for name in ("item_id", "metric", "annotator", "score")})
    by_metric = judged.groupby("metric", sort=False)
    metrics = {str(metric): _paired(str(metric), none, table, scale) for metric, table in by_metric}
    return Pairing(
        _name(scores), metrics, none, _missing(scores), {name: len(one.items) for name, one in metrics.items()}, ()
    )


def _name(scores: pd.DataFrame) -> str | None:
    return str(scores["judge"].iloc[0]) if "judge" in scores else None


def _missing(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.loc[scores["score"].isna(), ["item_id", "metric"]].reset_index(drop=True)


def _paired(metric: str, ratings: pd.DataFrame, scores: pd.DataFrame, scale: Scale) -> Paired:
    index = pd.Index(scores["item_id"])
    annotators = tuple(sorted(ratings["annotator"].unique()))
    matrix = np.full((len(index), len(annotators)), np.nan)
    row, column = (
        known.get_indexer(pd.Index(ratings[name]))
        for known, name in ((index, "item_id"), (pd.Index(annotators), "annotator"))
    )
    matrix[row, column] = ratings["score"]
    judge = scores["score"].to_numpy(float)
    levels, named = levels_of(scores), scale.get(metric) if isinstance(scale, Mapping) else scale
    ends = _scale(named, levels, np.append(ratings["score"].to_numpy(float), judge))
    return Paired(
        metric=metric,
        scale=ends,
        items=_labels(scores["item_id"]),
        sources=_labels(scores["source"]),
        groups=_labels(scores["group"]),
        characters=_labels(scores["character"]) if "character" in scores else None,
        judge=judge,
        levels=levels if _are_levels_of(levels, ends, named is not None) else None,
        ratings=matrix,
        annotators=annotators,
        weights=_weights(ratings, index),
        lengths=_lengths(scores),
    )


def _labels(column: pd.Series) -> Labels:
    return column.astype(str).to_numpy(dtype=object)


def _lengths(scores: pd.DataFrame) -> Floats | None:
    """Shape (items,), where every item has one."""
    if "length" not in scores:
        return None
    lengths = pd.to_numeric(scores["length"], errors="coerce").to_numpy(float, na_value=np.nan)
    return lengths if np.isfinite(lengths).all() else None


def _scale(named: tuple[float, float] | None, levels: Floats | None, given: Floats) -> tuple[float, float]:
    """The scale that was named; else that of the levels, if all fits it; else the whole numbers around all."""
    if named is not None:
        return float(named[0]), float(named[1])
    low, high = (float(end) for end in np.round([given.min(), given.max()], 6))
    if levels is not None and low >= 1 and high <= levels.shape[1]:
        return 1.0, float(levels.shape[1])
    return float(np.floor(low)), float(np.ceil(high))


def _are_levels_of(levels: Floats | None, scale: tuple[float, float], named: bool) -> bool:
    """Whether there is a level for each whole score of the scale; of one that was not named, from 1 on."""
    low, high = np.floor(scale[0]), np.ceil(scale[1])
    return levels is not None and levels.shape[1] == high - low + 1 and (named or low == 1)


def _weights(ratings: pd.DataFrame, index: pd.Index) -> Floats:
    weights = np.ones(len(index))
    if "inclusion_probability" in ratings:
        weights[index.get_indexer(pd.Index(ratings["item_id"]))] = 1 / ratings["inclusion_probability"].to_numpy(float)
    return weights
