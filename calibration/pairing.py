"""A table of human ratings and a table of a judge's scores put side by side.

Nothing is dropped in silence: what has no counterpart is counted and listed. What the pairs are used for is no matter
of this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.errors import TableError
from calibration.names import fold
from calibration.stats.intervals import Floats, Labels
from calibration.tables import Scale, level_columns

BOTH = "ratings and scores"
"""What an error names where both tables are needed to see it."""


KEY = ["item_id", "metric"]


MOST_LISTED = 5
"""Names that a warning lists before it only counts the others."""


SCALE_TOLERANCE = 1e-6
"""Scores of a judge may leave the scale by so much, in points: an expected score is off by rounding."""


STEPS = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.25, 0.2, 0.1)
"""How far apart neighbouring scores of a scale may be."""


MANY = 6
"""Different ratings from which on all of them lying more than 1 apart is taken for the scale's step."""


MOST_OFF = 0.1
"""Up to this share of ratings may lie between a scale's steps, as means of repeats do."""


STRAY, LEAST_STRAY = 0.005, 1000
"""Ratings at an end of the scale that are under this share, of at least so many, may be slips."""


MOST_APART = 0.5
"""By how many points scores may differ on average from the means of their levels, for the levels to be of the scale."""


@dataclass(frozen=True, slots=True)
class Paired:
    """One metric: a judge's scores of some items, and the human ratings of those items.

    ``judge`` is never NaN. ``ratings`` is NaN where an annotator did not rate an item; a row of NaN is an item that
    nobody rated.
    """

    metric: str
    scale: tuple[float, float]
    """Lowest and highest score."""
    items: Labels
    """Shape (items,): their ids."""
    sources: Labels
    """Shape (items,): the system that produced each."""
    groups: Labels
    """Shape (items,): what is resampled together."""
    characters: Labels | None
    """Shape (items,); None where no character is known of some item."""
    judge: Floats
    """Shape (items,): the judge's expected score."""
    levels: Floats | None
    """Shape (items, K): the probability of each whole score of the scale; None where the table has none."""
    ratings: Floats
    """Shape (items, annotators)."""
    annotators: tuple[str, ...]
    weights: Floats
    """Shape (items,): 1 / inclusion probability, or 1 where none is given."""
    lengths: Floats | None = None
    """Shape (items,): how long what was judged is, in any unit; None where the table does not say."""
    blocks: Labels | None = None
    """Shape (items,): the version or period that each item is of; None where a table does not say it of all."""

    @property
    def human(self) -> Floats:
        """Shape (items,): the mean rating of each item; NaN where nobody rated it.

        Rounded to 9 decimals, so that equal means are ties.
        """
        item, _, value = self.one_by_one
        counts = np.bincount(item, minlength=len(self.items))
        means = np.bincount(item, value, minlength=len(self.items)) / np.maximum(counts, 1)
        return np.where(counts > 0, np.round(means, 9), np.nan)

    @property
    def counts(self) -> NDArray[np.intp]:
        """Shape (items,): how many annotators rated each item."""
        return np.asarray(np.isfinite(self.ratings).sum(axis=1), dtype=np.intp)

    @property
    def one_by_one(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        """The place of the item, of the annotator, and the score of each rating, item by item: shape (ratings,) each.

        With thousands of annotators nearly all of ``ratings`` is NaN: what is done here costs one rating, not one cell.
        """
        item, annotator = np.nonzero(np.isfinite(self.ratings))
        return item, annotator, self.ratings[item, annotator]

    @property
    def labelled(self) -> Paired:
        """The items with at least one rating."""
        rated = self.counts > 0
        return self if rated.all() else self.at(rated)

    @property
    def values(self) -> Floats:
        """Shape (K,): the whole scores of the scale."""
        return np.arange(np.floor(self.scale[0]), np.ceil(self.scale[1]) + 1)

    @property
    def step(self) -> float | None:
        """How far apart neighbouring scores are: the largest of ``STEPS`` in which the ratings lie; None for none.

        Counted from the lowest rating, or, but for a tenth of the ratings, from 0.
        """
        return self._steps[0]

    @property
    def off_step(self) -> NDArray[np.bool_]:
        """Shape (items, annotators): which ratings lie between the steps."""
        step, first = self._steps
        item, annotator, value = self.one_by_one
        off = np.zeros(self.ratings.shape, dtype=bool)
        off[item, annotator] = step is None or ~_is_multiple(value - first, step)
        return off

    @property
    def _steps(self) -> tuple[float | None, float]:
        """The step, and a score that they are counted from."""
        values, counts = np.unique(np.round(self.one_by_one[2], 9), return_counts=True)
        if not len(values):
            return None, 0.0
        first = float(values[0])
        for step in STEPS:
            if (step <= 1 or len(values) >= MANY) and _is_multiple(values - first, step).all():
                return step, first
        for step in (step for step in STEPS if step <= 1):
            if counts[~_is_multiple(values, step)].sum() <= MOST_OFF * counts.sum():
                return step, 0.0
        return None, 0.0

    def in_steps(self, scores: Floats) -> Floats:
        """Scores rounded to the scale's steps, half up, and kept on the scale."""
        found, first = self._steps
        step = found or 1.0
        low = first + step * np.floor((self.scale[0] - first) / step + 1e-9)
        high = first + step * np.ceil((self.scale[1] - first) / step - 1e-9)
        return np.asarray(np.clip(np.round(first + step * np.floor((scores - first) / step + 0.5), 9), low, high))

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
            blocks=None if self.blocks is None else self.blocks[chosen],
        )

    def judged_by(self, scores: Floats) -> Paired:
        """The same items with other scores in the judge's place, and no distribution."""
        return replace(self, judge=scores, levels=None)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Every metric that has both human ratings and scores of the judge, and what has no counterpart."""

    judge: str | None
    """The judge's name, where the table of scores has it."""
    metrics: dict[str, Paired]
    """By name: all items that the judge scored, rated or not."""
    unjudged: pd.DataFrame
    """Ratings without a score of the judge: ``item_id, metric, annotator``."""
    missing: pd.DataFrame
    """Judgments that could not be made: ``item_id, metric``."""
    unrated: dict[str, int]
    """How many judged items of each metric nobody rated."""
    remarks: tuple[str, ...]
    """Warnings about the pairing, a sentence each."""
    composites: tuple[str, ...] = ()
    """Those of the metrics that are means of others."""

    @property
    def scales(self) -> dict[str, tuple[float, float, float | None]]:
        """Lowest and highest score of each metric, and its step; None where ratings lie in none, or there are none."""
        return {name: (*one.scale, one.step) for name, one in self.metrics.items()}


def pair(
    ratings: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    judge: str | None = None,
    annotators: Sequence[str] = (),
    scale: Scale = None,
    composites: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
) -> Pairing:
    """Put human ratings beside a judge's scores, joined by ``item_id`` and ``metric``.

    What only the ratings say of an item (its group and block; its character, where all are known) is taken from them.

    Args:
        ratings: as ``read_ratings`` returns them; ratings that repeat one by the same annotator are averaged.
        scores: as ``read_scores`` returns them; several answers of one judge to one item are averaged.
        judge: which judge, where the table holds several.
        annotators: only these; all where empty.
        scale: of every metric, or of each; None takes it from the levels, or else from the scores and ratings.
        composites: means of several metrics to add as metrics of their own (name -> members).
        notes: what reading the tables had to say; it comes first among the remarks.

    Raises:
        TableError: the judge or an annotator is not in the table or has to be named; no metric or no item is in both;
            an item has two inclusion probabilities, sources or groups.
    """
    if annotators:
        ratings = ratings[ratings["annotator"].isin(_annotators(ratings, annotators))]
    every = one_judge(scores, judge)
    ratings, spelled = in_one_spelling(ratings, every)
    if "inclusion_probability" in ratings:
        chances = ratings.groupby(KEY)["inclusion_probability"].nunique(dropna=False)
        for item, metric in chances.index[chances > 1][:1]:
            text = f"item {item!r} has two inclusion probabilities on {metric!r}; give it one"
            raise TableError("ratings", [(0, text)])
    scores = _completed(every, ratings)
    scores = scores[scores["metric"].isin(ratings["metric"].unique())]
    judged = scores[scores["score"].notna()]  # a missing judgment is no counterpart of a rating
    found = pd.MultiIndex.from_frame(ratings[KEY]).isin(pd.MultiIndex.from_frame(judged[KEY]))
    if scores.empty:
        rated, asked = (", ".join(sorted(set(table["metric"]))[:MOST_LISTED]) for table in (ratings, every))
        raise TableError(
            BOTH,
            [(0, f"no metric in common (human ratings: {rated}; judge: {asked}); name metrics alike in both")],
        )
    if judged.empty:
        raise TableError("scores", [(0, "every score of a rated metric is missing; judge them again")])
    if not found.any():
        _refuse_other_items(ratings, judged)
    scale = _with_composite_scales(scale, composites)
    # Repeats are averaged before means of several metrics are added: an annotator then has one rating of each member.
    averaged = _means(ratings[found], [*KEY, "annotator"], ["score"])
    by_metric = dict(iter(_with_composites(averaged, composites, ["annotator"]).groupby("metric", sort=False)))
    metrics = {
        str(metric): _paired(str(metric), by_metric[metric], table, scale)
        for metric, table in _with_composites(judged, composites).groupby("metric", sort=False)
        if metric in by_metric
    }
    pairing = Pairing(
        judge=str(scores["judge"].iloc[0]) if "judge" in scores else None,
        metrics=metrics,
        unjudged=ratings.loc[~found, [*KEY, "annotator"]].reset_index(drop=True),
        missing=scores.loc[scores["score"].isna(), KEY].reset_index(drop=True),
        unrated={metric: int((one.counts == 0).sum()) for metric, one in metrics.items()},
        remarks=(),
        composites=tuple(name for name in composites or () if name in metrics),
    )
    return replace(pairing, remarks=(*notes, *spelled, *_warnings(pairing, ratings, every, scale is None)))


def without_ratings(
    scores: pd.DataFrame,
    *,
    judge: str | None = None,
    scale: Scale = None,
    composites: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
) -> Pairing:
    """A judge's scores as a pairing with no ratings in it; arguments and errors as for ``pair``."""
    scores = one_judge(scores, judge)
    judged = _with_composites(scores[scores["score"].notna()], composites)
    scale = _with_composite_scales(scale, composites)
    none = pd.DataFrame({name: pd.Series(dtype=object) for name in (*KEY, "annotator", "score")})
    by_metric = judged.groupby("metric", sort=False)
    metrics = {str(metric): _paired(str(metric), none, table, scale) for metric, table in by_metric}
    return Pairing(
        judge=str(scores["judge"].iloc[0]) if "judge" in scores else None,
        metrics=metrics,
        unjudged=none,
        missing=scores.loc[scores["score"].isna(), KEY].reset_index(drop=True),
        unrated={name: len(one.items) for name, one in metrics.items()},
        remarks=tuple(notes),
        composites=tuple(name for name in composites or () if name in metrics),
    )


def one_judge(scores: pd.DataFrame, judge: str | None = None) -> pd.DataFrame:
    """The scores of one judge, an item and metric a row: means of scores and probabilities over several answers.

    Raises:
        TableError: the judge is not in the table, or has to be named as the table holds several.
    """
    there = sorted(scores["judge"].unique()) if "judge" in scores else []
    if judge is not None and judge not in there:
        raise TableError("scores", [(0, f"no judge {judge!r} (found: {', '.join(there) or 'no column judge'})")])
    if judge is None and len(there) > 1:
        raise TableError("scores", [(0, f"several judges ({', '.join(there)}); name one (--judge)")])
    chosen = scores[scores["judge"] == judge] if judge is not None else scores
    return _means(chosen, KEY, ["score", *level_columns(chosen)])


def _annotators(ratings: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Annotators by name, in any case; TableError where one is not there."""
    there = sorted(ratings["annotator"].unique())
    chosen = []
    for name in names:
        same = [name] if name in there else [one for one in there if fold(one) == fold(name)]
        if not same:
            raise TableError("ratings", [(0, f"no annotator {name!r} (found: {', '.join(there[:20])})")])
        chosen += same
    return chosen


def in_one_spelling(ratings: pd.DataFrame, scores: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Ratings with items and sources as the scores write them, where they differ by case, width or blanks only.

    Returns:
        The ratings, and a sentence where any were written otherwise.

    Raises:
        TableError: two items are one by this, and an annotator rated both.
    """
    by_key: dict[str, list[str]] = {}
    for item in scores["item_id"].unique():
        by_key.setdefault(fold(item), []).append(item)
    known = {item for items in by_key.values() for item in items}
    rated = ratings["item_id"].unique()
    same = {item: by_key[fold(item)][0] for item in rated if item not in known and len(by_key.get(fold(item), ())) == 1}
    first = scores.drop_duplicates("item_id").set_index("item_id")
    items = ratings["item_id"].map(same).where(ratings["item_id"].isin(list(same)), ratings["item_id"])
    sources = items.map(first["source"])
    pairs = zip(sources, ratings["source"], strict=True)
    alike = np.array([isinstance(one, str) and fold(one) == fold(own) for one, own in pairs], dtype=bool)
    written = ratings.assign(item_id=items, source=sources.where(alike, ratings["source"]))
    if not same:
        return written, []
    of_one = [*KEY, "annotator"]
    clash = written.duplicated(of_one, keep=False) & ~ratings.duplicated(of_one, keep=False)
    if clash.any():
        row = ratings[clash & ratings["item_id"].isin(list(same))].iloc[0]
        who, both = repr(row["annotator"]), f"{row['item_id']!r} and {same[row['item_id']]!r}"
        raise TableError(
            "ratings",
            [(0, f"annotator {who} rated {both}, spelled alike, on {row['metric']!r}; keep one of the two")],
        )
    one, other = next(iter(same.items()))
    return written, [
        f"Items written otherwise in the ratings were read as the judge's: {len(same):,} ({one!r} as {other!r})."
    ]


def _refuse_other_items(ratings: pd.DataFrame, scores: pd.DataFrame) -> NoReturn:
    """TableError that says why no item of two tables is the same, as far as their columns tell, and what to do."""
    first = f"ratings: {ratings['item_id'].iloc[0]}; scores: {scores['item_id'].iloc[0]}"
    ours, theirs = _parts(ratings), _parts(scores)
    if ours is None and theirs is None:
        raise TableError(BOTH, [(0, f"no item in common; check how item_id is written in both ({first})")])
    if ours is None or theirs is None:
        raise TableError(
            BOTH, [(0, f"no item in common; one has item_id, the other source/character/scenario ({first}); use one")]
        )
    for part in ours:
        if not set(ours[part]) & set(theirs[part]):
            first = f"ratings: {ours[part].iloc[0]!r}; scores: {theirs[part].iloc[0]!r}"
            raise TableError(BOTH, [(0, f"no item in common; no {part} is in both ({first}); write it alike")])
    raise TableError(BOTH, [(0, f"no item in common; write source, character and scenario alike in both ({first})")])


def _parts(table: pd.DataFrame) -> pd.DataFrame | None:
    """The source, character and scenario that items are made of; None where they have ids of their own.

    A run's scores have the scenario as their group only.
    """
    scenario = "scenario" if "scenario" in table else "group"
    if "character" not in table:
        return None
    parts = table[["source", "character", scenario]].set_axis(["source", "character", "scenario"], axis=1)
    is_made = (parts["source"] + "/" + parts["character"] + "/" + parts["scenario"] == table["item_id"]).all()
    return parts if is_made else None


def _completed(scores: pd.DataFrame, ratings: pd.DataFrame) -> pd.DataFrame:
    """Scores with what only the ratings say of their items: the group, the block, the character where all are known.

    Raises:
        TableError: the two tables put an item in two groups, or give it two sources.
    """
    first = ratings.drop_duplicates("item_id").set_index("item_id")
    items, own = scores["item_id"], scores["group"]
    source, group = items.map(first["source"]), items.map(first["group"])
    # An item that is a group of its own in one table has no group there; that of the other table then holds.
    known = {"source": (scores["source"], source), "group": (own.where(own != items), group.where(group != items))}
    for what, (judged, rated) in known.items():
        torn = judged.notna() & rated.notna() & (judged != rated)
        if torn.any():
            item, one, other = (column[torn].iloc[0] for column in (items, judged, rated))
            text = f"item {item!r} has {what} {one!r} among the scores and {other!r} among the ratings; make them equal"
            raise TableError(BOTH, [(0, text)])
    scores = scores.assign(group=own.where((own != items) | group.isna(), group))
    if "character" in first and "character" not in scores and items.isin(first.index).all():
        scores = scores.assign(character=items.map(first["character"]))
    if "block" in first and "block" not in scores:
        scores = scores.assign(block=items.map(first["block"]))
    return scores


def _with_composite_scales(scale: Scale, composites: Mapping[str, Sequence[str]] | None) -> Scale:
    """The scales of metrics, and of each mean of metrics that have one scale in common."""
    if not isinstance(scale, Mapping):
        return scale
    of_members = {name: {scale.get(one) for one in members} for name, members in (composites or {}).items()}
    means = {name: ends for name, (ends, *others) in of_members.items() if ends and not others}
    return {**means, **scale}


def _with_composites(
    table: pd.DataFrame, composites: Mapping[str, Sequence[str]] | None, who: Sequence[str] = ()
) -> pd.DataFrame:
    """The table with rows for means of several metrics, where all of them are there and the mean is not there itself.

    A row is one of an item, a metric and ``who``, and none is repeated.
    """
    key = ["item_id", *who]
    added = [table]
    for name, members in (composites or {}).items():
        if name in table["metric"].unique():
            continue
        # Repeats were averaged before: a count of members is then a count of different metrics.
        rows = table[table["metric"].isin(members)]
        grouped = rows.groupby(key, sort=False)["score"]
        whole = rows.assign(score=grouped.transform("mean"))[grouped.transform("count") == len(set(members))]
        added.append(whole.drop_duplicates(key).assign(metric=name).drop(columns=level_columns(table)))
    return pd.concat(added, ignore_index=True)


def _means(table: pd.DataFrame, key: list[str], columns: list[str]) -> pd.DataFrame:
    """One row for all rows of the same key: the first of them, with the means of some columns."""
    if not table.duplicated(key).any():
        return table
    means = table.groupby(key, sort=False)[columns].transform("mean")
    return table.assign(**{name: means[name] for name in columns}).drop_duplicates(key)


def _paired(metric: str, ratings: pd.DataFrame, scores: pd.DataFrame, scale: Scale) -> Paired:
    """One metric as arrays; ``scores`` has an item a row, ``ratings`` an item and annotator, of items with a score."""
    index = pd.Index(scores["item_id"])
    place = index.get_indexer(pd.Index(ratings["item_id"]))
    annotators = tuple(sorted(ratings["annotator"].unique()))
    # Items by annotators: every rating goes to its row and column, and NaN stays where nobody rated.
    matrix = np.full((len(index), len(annotators)), np.nan)
    matrix[place, pd.Index(annotators).get_indexer(pd.Index(ratings["annotator"]))] = ratings["score"]
    weights = np.ones(len(index))
    if "inclusion_probability" in ratings:
        weights[place] = 1 / ratings["inclusion_probability"].to_numpy(float)
    judge = scores["score"].to_numpy(float)
    levels = _levels(scores)
    named = scale.get(metric) if isinstance(scale, Mapping) else scale
    ends = _scale(named, levels, np.append(ratings["score"].to_numpy(float), judge))
    if levels is not None:
        # A distribution is of use only if it is known which score each level is.
        # There must be a level for each whole score; where the scale was not named, the levels must also start from 1.
        low, high = np.floor(ends[0]), np.ceil(ends[1])
        fits = levels.shape[1] == high - low + 1 and (named is not None or low == 1)
        if not fits or np.abs(levels @ np.arange(low, high + 1) - judge).mean() > MOST_APART:
            levels = None
    lengths = None
    if "length" in scores:
        lengths = pd.to_numeric(scores["length"], errors="coerce").to_numpy(float, na_value=np.nan)
    names = ("item_id", "source", "group", "character", "block")
    labels = {name: scores[name].astype(str).to_numpy(dtype=object) for name in names if name in scores}
    return Paired(
        metric=metric,
        scale=ends,
        items=labels["item_id"],
        sources=labels["source"],
        groups=labels["group"],
        characters=labels.get("character"),
        judge=judge,
        levels=levels,
        ratings=matrix,
        annotators=annotators,
        weights=weights,
        lengths=lengths if lengths is not None and np.isfinite(lengths).all() else None,
        blocks=labels.get("block"),  # unrated items may have none: only rated ones are left out in blocks
    )


def _is_multiple(values: Floats, step: float) -> NDArray[np.bool_]:
    """Which values are whole steps from 0, to the rounding of a file."""
    return np.asarray(np.abs(values / step - np.round(values / step)) < 1e-6)


def _levels(scores: pd.DataFrame) -> Floats | None:
    """Shape (items, K): the probabilities p1..pK; None where an item lacks one.

    Of a table on several scales the last columns are those of the longer ones, and empty on a shorter one.
    """
    levels = scores[level_columns(scores)].to_numpy(float)
    there = np.flatnonzero(np.isfinite(levels).any(axis=0))
    levels = levels[:, : there[-1] + 1 if len(there) else 0]
    return levels if levels.shape[1] > 1 and np.isfinite(levels).all() else None


def _scale(named: tuple[float, float] | None, levels: Floats | None, given: Floats) -> tuple[float, float]:
    """The scale that was named; else that of the levels, if all scores fit it; else the whole numbers around them."""
    if named is not None:
        return float(named[0]), float(named[1])
    low, high = (float(end) for end in np.round([given.min(), given.max()], 6))
    if levels is not None and low >= 1 and high <= levels.shape[1]:
        return 1.0, float(levels.shape[1])
    return float(np.floor(low)), float(np.ceil(high))


def _warnings(pairing: Pairing, ratings: pd.DataFrame, scores: pd.DataFrame, is_guessed: bool) -> Iterator[str]:
    """What a reader has to know of the two tables: what was left out, and scores that do not fit the scale."""
    if repeats := int(ratings.duplicated([*KEY, "annotator"]).sum()):
        yield f"{repeats:,} ratings repeat one by the same annotator; they were averaged."
    if lost := len(pairing.unjudged):
        first = ", ".join(pairing.unjudged["item_id"].drop_duplicates()[:MOST_LISTED])
        yield f"{lost:,} of {len(ratings):,} ratings have no score of the judge (first items: {first})."
    if len(pairing.missing):
        yield f"{len(pairing.missing):,} judgments are missing and left out."
    judged, rated = set(scores["metric"]), set(ratings["metric"])
    if judged - rated:
        yield f"Nobody rated {', '.join(sorted(judged - rated))}."
    if rated - judged:
        yield f"The judge has no scores on {', '.join(sorted(rated - judged))}, which people rated."
    if only := judged & rated - set(pairing.metrics):
        yield f"No rated item was judged on {', '.join(sorted(only))}."
    for one in pairing.metrics.values():
        (low, high), own = one.scale, scores[scores["metric"] == one.metric]  # own is empty for a composite
        if len(own) and one.levels is None and _levels(own[own["score"].notna()]) is not None:
            yield (
                f"On {one.metric} p1..p{len(level_columns(own))} are not the whole scores from {low:g} to {high:g}: "
                "they were not used (name the scale if p1 is not of 1)."
            )
        if "length" in own and one.lengths is None:
            yield f"On {one.metric} the column 'length' does not hold a number for every item: it was not used."
        yield from _about_scales(one)
        if is_guessed:
            yield from _about_a_guessed_scale(one)


def _about_scales(one: Paired) -> Iterator[str]:
    """Whether judge and human ratings seem to be on one scale, and on the scale of the metric."""
    (low, high), judge, known = one.scale, one.judge, one.one_by_one[2]
    scores = f"On {one.metric} the judge's scores ({judge.min():.2f} to {judge.max():.2f})"
    ratings = f"human ratings ({known.min():g} to {known.max():g})"
    if judge.min() > known.max() or judge.max() < known.min():
        yield (
            f"{scores} and {ratings} do not overlap: if they are on different scales, differences mean nothing; "
            "correlations may."
        )
    elif judge.min() < low - SCALE_TOLERANCE or judge.max() > high + SCALE_TOLERANCE:
        yield (
            f"{scores} leave the scale of {low:g} to {high:g}: if they are on another scale than the human ratings, "
            "differences mean nothing; correlations may."
        )
    if known.min() < low or known.max() > high:
        yield f"On {one.metric} {ratings} leave the scale of {low:g} to {high:g}."


def _about_a_guessed_scale(one: Paired) -> Iterator[str]:
    """What speaks against a scale that was read off the scores and ratings."""
    (low, high), judge, known = one.scale, one.judge, one.one_by_one[2]
    first, last = known.min(), known.max()
    vary = last > first and judge.max() > judge.min()
    overlaps = judge.min() <= last and judge.max() >= first
    beyond = max(judge.max() - last, first - judge.min())
    if (
        one.levels is None
        and vary
        and overlaps
        and (beyond > last - first or last == judge.min() or first == judge.max())
    ):
        yield (
            f"On {one.metric} the judge's scores ({judge.min():.2f} to {judge.max():.2f}) and human ratings "
            f"({first:g} to {last:g}) seem to be on different scales: differences then mean nothing, correlations may; "
            "fit a map to the scale of ratings (calibrate), or name the scale (--scale) if it is one."
        )
    values, counts = np.unique(known, return_counts=True)
    is_common = np.flatnonzero(counts >= STRAY * len(known))
    ends = np.r_[values[: is_common[0]], values[is_common[-1] + 1 :]] if len(is_common) else values[:0]
    if len(known) >= LEAST_STRAY and len(ends) and len(is_common) > 1:
        count = int(np.isin(known, ends).sum())
        yield (
            f"On {one.metric} {count:,} of {len(known):,} ratings are {', '.join(f'{end:g}' for end in ends)}, and the "
            f"scale is taken to be {low:g} to {high:g}: name it (--scale) if it is not."
        )
