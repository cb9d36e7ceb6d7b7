"""Ratings and judge scores of the same items, metric by metric, as arrays: what every statistic here takes.

Nothing is dropped in silence: what has no counterpart is counted and listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.resampling import Floats, Labels
from calibration.tables import Scale, TableError

__all__ = ["Paired", "Pairing", "one_judge", "pair", "without_ratings"]

MOST_LISTED = 5


@dataclass(frozen=True, slots=True)
class Paired:
    """One metric: a judge's scores of some items, and what people rated of them.

    ``judge`` is never NaN; ``ratings`` is NaN where an annotator did not rate an item, and a row of NaN is an item that
    nobody rated. ``weights`` is 1 / inclusion probability (1 where none is given).
    """

    metric: str
    scale: tuple[float, float]
    """Lowest and highest score."""
    items: Labels
    sources: Labels
    groups: Labels
    """Shape (items,), as ``items`` and ``sources``: what is resampled together."""
    characters: Labels | None
    judge: Floats
    """Shape (items,): the judge's expected score."""
    levels: Floats | None
    """Shape (items, K): the probability of each whole score of the scale; None where the table has none."""
    ratings: Floats
    """Shape (items, annotators)."""
    annotators: tuple[str, ...]
    weights: Floats
    lengths: Floats | None = None
    """Shape (items,): how long what was judged is, in any unit; None where the table does not say."""

    @property
    def human(self) -> Floats:
        """Shape (items,): the mean rating of each item; NaN where nobody rated it."""
        counts = self.counts
        return np.where(counts > 0, np.nansum(self.ratings, axis=1) / np.maximum(counts, 1), np.nan)

    @property
    def counts(self) -> NDArray[np.intp]:
        """Shape (items,): how many people rated each item."""
        return np.asarray(np.isfinite(self.ratings).sum(axis=1), dtype=np.intp)

    @property
    def labelled(self) -> Paired:
        """The items that somebody rated."""
        return self.at(self.counts > 0)

    @property
    def values(self) -> Floats:
        """The whole scores of the scale."""
        return np.arange(np.floor(self.scale[0]), np.ceil(self.scale[1]) + 1)

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Paired:
        """Some of the items."""
        return replace(
            self,
            items=self.items[chosen],
            sources=self.sources[chosen],
            groups=self.groups[chosen],
            characters=None if self.characters is None else self.characters[chosen],
            judge=self.judge[chosen],
            levels=None if self.levels is None else self.levels[chosen],
            ratings=self.ratings[chosen],
            weights=self.weights[chosen],
            lengths=None if self.lengths is None else self.lengths[chosen],
        )

    def judged_by(self, scores: Floats) -> Paired:
        """The same items with other scores in the judge's place, and no distribution."""
        return replace(self, judge=scores, levels=None)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Every metric that both people and the judge scored, and what has no counterpart.

    ``metrics`` holds all items the judge scored, rated or not. ``unjudged`` are ratings without a score of the judge,
    ``missing`` judgments that could not be made: each a table with ``item_id`` and ``metric``.
    """

    judge: str | None
    """The judge's name, where the table of scores tells it."""
    metrics: dict[str, Paired]
    unjudged: pd.DataFrame
    missing: pd.DataFrame
    unrated: dict[str, int]
    """How many judged items of each metric nobody rated."""
    remarks: tuple[str, ...]
    """What a reader should know of the pairing, a sentence each."""


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

    Raises:
        TableError: the judge or an annotator is not in the table or has to be named; no metric or no item is in both;
            an item has two inclusion probabilities or two sources.
    """
    scores, ratings = one_judge(scores, judge), _of_annotators(ratings, annotators)
    scores = _on_shared_metrics(scores, ratings)
    unjudged = _without_counterpart(ratings, scores[scores["score"].notna()])
    missing = scores.loc[scores["score"].isna(), ["item_id", "metric"]].reset_index(drop=True)
    judged = _with_composites(scores[scores["score"].notna()], composites, [])
    rated = _with_composites(ratings[~unjudged], composites, ["annotator"])
    by_metric = dict(iter(rated.groupby("metric", sort=False)))
    metrics = {
        str(metric): _paired(str(metric), by_metric[metric], table, scale)
        for metric, table in judged.groupby("metric", sort=False)
        if metric in by_metric
    }
    lost = ratings.loc[unjudged, ["item_id", "metric", "annotator"]].reset_index(drop=True)
    unrated = {metric: int((one.counts == 0).sum()) for metric, one in metrics.items()}
    name = str(scores["judge"].iloc[0]) if "judge" in scores else None
    return Pairing(name, metrics, lost, missing, unrated, _remarks(lost, missing, ratings, scores, metrics))


def without_ratings(
    scores: pd.DataFrame,
    *,
    judge: str | None = None,
    scale: Scale = None,
    composites: Mapping[str, Sequence[str]] | None = None,
) -> Pairing:
    """A judge's scores as a pairing with no ratings in it; arguments and errors as for ``pair``."""
    scores = one_judge(scores, judge)
    missing = scores.loc[scores["score"].isna(), ["item_id", "metric"]].reset_index(drop=True)
    judged = _with_composites(scores[scores["score"].notna()], composites, [])
    none = pd.DataFrame({name: pd.Series(dtype=object) for name in ("item_id", "metric", "annotator", "score")})
    by_metric = judged.groupby("metric", sort=False)
    metrics = {str(metric): _paired(str(metric), none, table, scale) for metric, table in by_metric}
    name = str(scores["judge"].iloc[0]) if "judge" in scores else None
    return Pairing(name, metrics, none, missing, {metric: len(one.items) for metric, one in metrics.items()}, ())


def _on_shared_metrics(scores: pd.DataFrame, ratings: pd.DataFrame) -> pd.DataFrame:
    chosen = scores[scores["metric"].isin(ratings["metric"].unique())]
    if chosen.empty:
        rated, judged = (", ".join(sorted(set(some["metric"]))[:MOST_LISTED]) for some in (ratings, scores))
        raise TableError("ratings and scores", [(0, f"no metric in common (people: {rated}; judge: {judged})")])
    return chosen


def _without_counterpart(ratings: pd.DataFrame, scores: pd.DataFrame) -> NDArray[np.bool_]:
    """Shape (ratings,): which ratings have no score."""
    key = ["item_id", "metric"]
    found = ~pd.MultiIndex.from_frame(ratings[key]).isin(pd.MultiIndex.from_frame(scores[key]))
    if found.all():
        raise TableError("ratings and scores", [(0, "no item in common; check how item_id is written in both")])
    return np.asarray(found)


def one_judge(scores: pd.DataFrame, judge: str | None = None) -> pd.DataFrame:
    """The scores of one judge, a row per item and metric: means over its samples."""
    there = sorted(scores["judge"].unique()) if "judge" in scores else []
    if judge is not None and judge not in there:
        raise TableError("scores", [(0, f"no judge {judge!r} (found: {', '.join(there) or 'no column judge'})")])
    if judge is None and len(there) > 1:
        raise TableError("scores", [(0, f"several judges ({', '.join(there)}); name one (--judge)")])
    chosen = scores[scores["judge"] == judge] if judge is not None else scores
    key = ["item_id", "metric"]
    if not chosen.duplicated(key).any():
        return chosen
    numbers = [name for name in chosen if name == "score" or name in _level_names(chosen)]
    means = chosen.groupby(key, sort=False)[numbers].transform("mean")
    return chosen.assign(**{name: means[name] for name in numbers}).drop_duplicates(key)


def _of_annotators(ratings: pd.DataFrame, annotators: Sequence[str]) -> pd.DataFrame:
    there = sorted(ratings["annotator"].unique())
    for name in annotators:
        if name not in there:
            raise TableError("ratings", [(0, f"no annotator {name!r} (found: {', '.join(there[:20])})")])
    return ratings[ratings["annotator"].isin(annotators)] if annotators else ratings


def _with_composites(
    table: pd.DataFrame, composites: Mapping[str, Sequence[str]] | None, who: list[str]
) -> pd.DataFrame:
    """The table with rows for means of several metrics, where all of them are there."""
    key = ["item_id", *who]
    added = [table]
    for name, members in (composites or {}).items():
        rows = table[table["metric"].isin(members)]
        grouped = rows.groupby(key, sort=False)["score"]
        whole = rows.assign(score=grouped.transform("mean"))[grouped.transform("count") == len(set(members))]
        added.append(whole.drop_duplicates(key).assign(metric=name).drop(columns=_level_names(table)))
    return pd.concat(added, ignore_index=True)


def _paired(metric: str, ratings: pd.DataFrame, scores: pd.DataFrame, scale: Scale) -> Paired:
    index = pd.Index(scores["item_id"])
    annotators = tuple(sorted(ratings["annotator"].unique()))
    means = ratings.groupby(["item_id", "annotator"], sort=False)["score"].mean().reset_index()
    matrix = np.full((len(index), len(annotators)), np.nan)
    row, column = index.get_indexer(means["item_id"]), pd.Index(annotators).get_indexer(means["annotator"])
    matrix[row, column] = means["score"]
    names = [name for name in _level_names(scores) if scores[name].notna().all()]
    levels = scores[names].to_numpy(float) if names else None
    return Paired(
        metric=metric,
        scale=_scale(metric, scale, levels, matrix, scores["score"].to_numpy(float)),
        items=_labels(scores["item_id"]),
        sources=_labels(scores["source"]),
        groups=_labels(scores["group"]),
        characters=_labels(scores["character"]) if "character" in scores else None,
        judge=scores["score"].to_numpy(float),
        levels=levels,
        ratings=matrix,
        annotators=annotators,
        weights=_weights(metric, ratings, index),
        lengths=scores["length"].to_numpy(float) if "length" in scores else None,
    )


def _labels(column: pd.Series) -> Labels:
    return column.astype(str).to_numpy(dtype=object)


def _level_names(table: pd.DataFrame) -> list[str]:
    """The columns p1, p2, ... as far as they go on."""
    names: list[str] = []
    while f"p{len(names) + 1}" in table:
        names.append(f"p{len(names) + 1}")
    return names


def _scale(metric: str, scale: Scale, levels: Floats | None, ratings: Floats, judge: Floats) -> tuple[float, float]:
    """The scale that was named; else that of the levels; else the whole numbers around all that was given."""
    if isinstance(scale, Mapping):
        scale = scale.get(metric)
    if scale is not None:
        return float(scale[0]), float(scale[1])
    if levels is not None:
        return 1.0, float(levels.shape[1])
    given = np.concatenate([ratings[np.isfinite(ratings)], judge])
    low, high = given.min(), given.max()
    return float(np.floor(low)), float(np.ceil(high))


def _weights(metric: str, ratings: pd.DataFrame, index: pd.Index) -> Floats:
    weights = np.ones(len(index))
    if "inclusion_probability" not in ratings:
        return weights
    chances = ratings.groupby("item_id")["inclusion_probability"]
    torn = chances.nunique(dropna=False)
    if (torn > 1).any():
        item = torn.index[torn > 1][0]
        raise TableError("ratings", [(0, f"item {item!r} has two inclusion probabilities on {metric!r}; give it one")])
    first = chances.first()
    weights[index.get_indexer(first.index)] = 1 / first.to_numpy(float)
    return weights


def _remarks(
    unjudged: pd.DataFrame,
    missing: pd.DataFrame,
    ratings: pd.DataFrame,
    scores: pd.DataFrame,
    metrics: dict[str, Paired],
) -> tuple[str, ...]:
    remarks = []
    if repeats := int(ratings.duplicated(["item_id", "metric", "annotator"]).sum()):
        remarks.append(f"{repeats:,} ratings repeat one by the same annotator; they were averaged.")
    if len(unjudged):
        first = ", ".join(unjudged["item_id"].drop_duplicates()[:MOST_LISTED])
        remarks.append(
            f"{len(unjudged):,} of {len(ratings):,} ratings have no score of the judge (first items: {first})."
        )
    if len(missing):
        remarks.append(f"{len(missing):,} judgments are missing and left out.")
    only = sorted(set(scores["metric"]) - set(metrics))
    if only:
        remarks.append(f"No rated item was judged on {', '.join(only)}.")
    for metric, one in metrics.items():
        judged, rated = (float(one.judge.min()), float(one.judge.max())), float(np.nanmax(one.ratings))
        least = float(np.nanmin(one.ratings))
        if judged[0] > rated or judged[1] < least:
            remarks.append(
                f"On {metric} the judge's scores ({judged[0]:.2f} to {judged[1]:.2f}) and people's ratings ({least:g} "
                f"to {rated:g}) do not overlap: they are on different scales; differences mean nothing, correlations "
                "may."
            )
    return tuple(remarks)
