"""A table of ratings and a table of scores put side by side.

Nothing is dropped in silence: what has no counterpart is counted and listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.errors import TableError
from calibration.stats.intervals import Floats, Labels
from calibration.tables import Scale


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
        """Shape (items,): the mean rating of each item; NaN where nobody rated it.

        Rounded to 9 decimals, so that equal means are ties.
        """
        means = np.nansum(self.ratings, axis=1) / np.maximum(self.counts, 1)
        return np.where(self.counts > 0, np.round(means, 9), np.nan)

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


BOTH = "ratings and scores"


KEY = ["item_id", "metric"]


MOST_LISTED = 5


def one_judge(scores: pd.DataFrame, judge: str | None = None) -> pd.DataFrame:
    """The scores of one judge, a row per item and metric: means over its samples."""
    there = sorted(scores["judge"].unique()) if "judge" in scores else []
    if judge is not None and judge not in there:
        raise TableError("scores", [(0, f"no judge {judge!r} (found: {', '.join(there) or 'no column judge'})")])
    if judge is None and len(there) > 1:
        raise TableError("scores", [(0, f"several judges ({', '.join(there)}); name one (--judge)")])
    chosen = scores[scores["judge"] == judge] if judge is not None else scores
    return _means(chosen, KEY, ["score", *level_names(chosen)])


def of_annotators(ratings: pd.DataFrame, annotators: Sequence[str]) -> pd.DataFrame:
    """The ratings of some annotators; of all where none is named."""
    there = sorted(ratings["annotator"].unique())
    for name in annotators:
        if name not in there:
            raise TableError("ratings", [(0, f"no annotator {name!r} (found: {', '.join(there[:20])})")])
    return ratings[ratings["annotator"].isin(annotators)] if annotators else ratings


def averaged(ratings: pd.DataFrame) -> pd.DataFrame:
    """A row per item, metric and annotator: means over ratings that repeat one."""
    return _means(ratings, [*KEY, "annotator"], ["score"])


def on_shared_metrics(scores: pd.DataFrame, ratings: pd.DataFrame) -> pd.DataFrame:
    """The scores of metrics that people rated."""
    chosen = scores[scores["metric"].isin(ratings["metric"].unique())]
    if chosen.empty:
        rated, judged = (", ".join(sorted(set(some["metric"]))[:MOST_LISTED]) for some in (ratings, scores))
        raise TableError(BOTH, [(0, f"no metric in common (people: {rated}; judge: {judged})")])
    return chosen


def without_counterpart(ratings: pd.DataFrame, scores: pd.DataFrame) -> NDArray[np.bool_]:
    """Shape (ratings,): which ratings have no score."""
    judged = scores[scores["score"].notna()]
    if judged.empty:
        raise TableError("scores", [(0, "every score of a metric that people rated is missing; judge them again")])
    found = pd.MultiIndex.from_frame(ratings[KEY]).isin(pd.MultiIndex.from_frame(judged[KEY]))
    if not found.any():
        raise TableError(BOTH, [(0, "no item in common; check how item_id is written in both")])
    return ~np.asarray(found)


def completed(scores: pd.DataFrame, ratings: pd.DataFrame) -> pd.DataFrame:
    """Scores with what only the ratings tell of their items: the group, and the character where all are known.

    Raises:
        TableError: the two tables put an item in two groups, or give it two sources.
    """
    first = ratings.drop_duplicates("item_id").set_index("item_id")
    items, own = scores["item_id"], scores["group"]
    source, group = items.map(first["source"]), items.map(first["group"])
    _refuse_torn(items, scores["source"], source, "source")
    _refuse_torn(items, own.where(own != items), group.where(group != items), "group")
    scores = scores.assign(group=own.where((own != items) | group.isna(), group))
    if "character" in first and "character" not in scores and items.isin(first.index).all():
        return scores.assign(character=items.map(first["character"]))
    return scores


def refuse_two_chances(ratings: pd.DataFrame) -> None:
    """TableError where an item has two inclusion probabilities on one metric."""
    if "inclusion_probability" not in ratings:
        return
    counts = ratings.groupby(KEY)["inclusion_probability"].nunique(dropna=False)
    if (counts > 1).any():
        item, metric = counts.index[counts > 1][0]
        raise TableError("ratings", [(0, f"item {item!r} has two inclusion probabilities on {metric!r}; give it one")])


def with_composites(
    table: pd.DataFrame, composites: Mapping[str, Sequence[str]] | None, who: Sequence[str] = ()
) -> pd.DataFrame:
    """The table with rows for means of several metrics, where all of them are there and the mean is not there itself.

    A row is one of an item, metric and ``who``, and not repeated.
    """
    key = ["item_id", *who]
    added = [table]
    for name, members in (composites or {}).items():
        if name in table["metric"].unique():
            continue
        rows = table[table["metric"].isin(members)]
        grouped = rows.groupby(key, sort=False)["score"]
        whole = rows.assign(score=grouped.transform("mean"))[grouped.transform("count") == len(set(members))]
        added.append(whole.drop_duplicates(key).assign(metric=name).drop(columns=level_names(table)))
    return pd.concat(added, ignore_index=True)


def level_names(table: pd.DataFrame) -> list[str]:
    """The columns p1, p2, ... as far as they go on."""
    names: list[str] = []
    while f"p{len(names) + 1}" in table:
        names.append(f"p{len(names) + 1}")
    return names


def levels_of(scores: pd.DataFrame) -> Floats | None:
    """Shape (items, K), where every item has them."""
    levels = scores[level_names(scores)].to_numpy(float)
    return levels if levels.shape[1] > 1 and np.isfinite(levels).all() else None


def _means(table: pd.DataFrame, key: list[str], columns: list[str]) -> pd.DataFrame:
    """One row for rows of the same key: the first, with the means of some columns."""
    if not table.duplicated(key).any():
        return table
    means = table.groupby(key, sort=False)[columns].transform("mean")
    return table.assign(**{name: means[name] for name in columns}).drop_duplicates(key)


def _refuse_torn(items: pd.Series, judged: pd.Series, rated: pd.Series, what: str) -> None:
    torn = judged.notna() & rated.notna() & (judged != rated)
    if torn.any():
        item, one, other = (some[torn].iloc[0] for some in (items, judged, rated))
        text = f"item {item!r} has {what} {one!r} among the scores and {other!r} among the ratings; make them the same"
        raise TableError(BOTH, [(0, text)])


ROUNDING = 1e-6


def remarks(pairing: Pairing, ratings: pd.DataFrame, scores: pd.DataFrame) -> Iterator[str]:
    """What to know of two tables beside what became of them."""
    if repeats := int(ratings.duplicated(["item_id", "metric", "annotator"]).sum()):
        yield f"{repeats:,} ratings repeat one by the same annotator; they were averaged."
    if lost := len(pairing.unjudged):
        first = ", ".join(pairing.unjudged["item_id"].drop_duplicates()[:MOST_LISTED])
        yield f"{lost:,} of {len(ratings):,} ratings have no score of the judge (first items: {first})."
    if len(pairing.missing):
        yield f"{len(pairing.missing):,} judgments are missing and left out."
    judged, rated = set(scores["metric"]), set(ratings["metric"])
    if judged - rated:
        yield f"Nobody rated {', '.join(sorted(judged - rated))}."
    if only := judged & rated - set(pairing.metrics):
        yield f"No rated item was judged on {', '.join(sorted(only))}."
    for one in pairing.metrics.values():
        yield from _unused(one, scores[scores["metric"] == one.metric])
        yield from _on_scales(one)


def _unused(one: Paired, scores: pd.DataFrame) -> Iterator[str]:
    """What the scores tell and was not used; ``scores`` has no rows where the metric is a composite."""
    low, high = one.scale
    if len(scores) and one.levels is None and levels_of(scores[scores["score"].notna()]) is not None:
        yield (
            f"On {one.metric} p1..p{len(level_names(scores))} are not the whole scores from {low:g} to {high:g}: they "
            "were not used (name the scale if p1 is not of 1)."
        )
    if "length" in scores and one.lengths is None:
        yield f"On {one.metric} the column 'length' does not hold a number for every item: it was not used."


def _on_scales(one: Paired) -> Iterator[str]:
    """Whether judge and people seem to be on one scale."""
    low, high, known = one.judge.min(), one.judge.max(), one.ratings[np.isfinite(one.ratings)]
    said = f"On {one.metric} the judge's scores ({low:.2f} to {high:.2f})"
    if low > known.max() or high < known.min():
        yield (
            f"{said} and people's ratings ({known.min():g} to {known.max():g}) do not overlap: if they are on "
            "different scales, differences mean nothing; correlations may."
        )
    elif low < one.scale[0] - ROUNDING or high > one.scale[1] + ROUNDING:
        yield (
            f"{said} leave the scale of {one.scale[0]:g} to {one.scale[1]:g}: if they are on another than people's, "
            "differences mean nothing; correlations may."
        )
    if known.min() < one.scale[0] or known.max() > one.scale[1]:
        yield (
            f"On {one.metric} people's ratings ({known.min():g} to {known.max():g}) leave the scale of "
            f"{one.scale[0]:g} to {one.scale[1]:g}."
        )


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
    ratings, every = of_annotators(ratings, annotators), one_judge(scores, judge)
    refuse_two_chances(ratings)
    scores = on_shared_metrics(completed(every, ratings), ratings)
    unjudged = without_counterpart(ratings, scores)
    judged = with_composites(scores[scores["score"].notna()], composites)
    rated = with_composites(averaged(ratings[~unjudged]), composites, ["annotator"])
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
    judged = with_composites(scores[scores["score"].notna()], composites)
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
