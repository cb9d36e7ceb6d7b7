"""Two tables, ratings and scores, made to match: one judge, chosen annotators, shared metrics, one group to an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.files import TableError
from calibration.resampling import Floats

__all__ = [
    "MOST_LISTED",
    "averaged",
    "completed",
    "level_names",
    "levels_of",
    "of_annotators",
    "on_shared_metrics",
    "one_judge",
    "refuse_two_chances",
    "with_composites",
    "without_counterpart",
]

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
