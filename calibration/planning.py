"""Which items to have rated next, so that the means of all systems become as certain as a budget allows.

A plan is a random sample: every item of the frame can be drawn and its chance is known exactly, so that what is rated
speaks for all, by weights of 1 / chance. Chances are higher where ratings tell more: in the sources whose means are the
least certain, and within a source for the items that the judge is unsure of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.stats.intervals import MIN_GROUPS, Floats, codes, t_quantile
from calibration.tables import level_columns


@dataclass(frozen=True, slots=True)
class Frame:
    """All items that the judge scored on some metric, in the order of the scores; NaN where something is not known."""

    items: pd.DataFrame
    """item_id, source, character and scenario where known, group."""
    metrics: tuple[str, ...]
    judge: Floats
    """Shape (items, metrics), as ``doubt`` and ``human``."""
    doubt: Floats
    """The variance of the judge's distribution over levels."""
    human: Floats
    """The mean rating."""
    weights: Floats
    """Shape (items,): 1 / inclusion probability of those rated, 1 of the others."""
    sampled: bool
    """Whether the ratings came with inclusion probabilities."""

    @property
    def rated(self) -> NDArray[np.bool_]:
        """Shape (items,): whether an item was rated on some metric."""
        return np.asarray(np.isfinite(self.human).any(axis=1))


def frame(scores: pd.DataFrame, ratings: pd.DataFrame | None = None) -> Frame:
    """The frame of ``scores`` (as ``read_scores`` gives them) and ``ratings`` (as ``read_ratings`` does, if any)."""
    known = scores[scores["score"].notna()]
    names = [name for name in ("item_id", "source", "character", "scenario", "group") if name in known]
    items = known[names].drop_duplicates("item_id").reset_index(drop=True)
    index, metrics = pd.Index(items["item_id"]), tuple(map(str, dict.fromkeys(known["metric"])))
    judge = _wide(known, "score", index, metrics)
    levels = level_columns(known)
    variance = np.full(len(known), np.nan)
    if levels:
        chances, values = known[levels].to_numpy(float), np.arange(1, len(levels) + 1)
        # Of a table on several scales the last columns are empty on a shorter one.
        chances = np.where(np.isnan(chances).all(axis=1, keepdims=True), np.nan, np.nan_to_num(chances))
        # Of a judge that is all but sure, rounding may leave a variance just under 0.
        variance = np.maximum(chances @ values**2 - (chances @ values) ** 2, 0.0)
    doubt = _wide(known.assign(doubt=variance), "doubt", index, metrics)
    if ratings is None or ratings.empty:
        return Frame(items, metrics, judge, doubt, np.full(judge.shape, np.nan), np.ones(len(index)), False)
    human = np.where(np.isfinite(judge), _wide(ratings, "score", index, metrics), np.nan)
    weights = np.ones(len(index))
    if sampled := "inclusion_probability" in ratings:
        drawn = ratings.groupby("item_id")["inclusion_probability"].first().reindex(index).fillna(1.0)
        weights = 1 / drawn.to_numpy(float)
    return Frame(items, metrics, judge, doubt, human, weights, sampled)


def _wide(table: pd.DataFrame, column: str, index: pd.Index, metrics: tuple[str, ...]) -> Floats:
    """Shape (items, metrics): the mean of a column for each item and metric."""
    means = table.groupby(["item_id", "metric"])[column].mean().unstack("metric")
    return means.reindex(index=index, columns=list(metrics)).to_numpy(float)


def inclusion_probabilities(sizes: Floats, budget: float) -> Floats:
    """Chances in proportion to ``sizes``, none over 1, that sum to ``budget``; shape (items,).

    Items whose chance would pass 1 are certain, and the rest of the budget is shared out among the others, until it
    fits (Sarndal, Swensson and Wretman 1992, "Model Assisted Survey Sampling", section 3.6.1).

    Args:
        sizes: shape (items,), above 0.
        budget: the expected size of the sample, at most the number of items.
    """
    certain = np.zeros(len(sizes), dtype=bool)
    while True:
        rest = sizes * ~certain
        chances = np.where(certain, 1.0, rest * (budget - certain.sum()) / max(rest.sum(), np.finfo(float).tiny))
        over = (chances > 1) & ~certain
        if not over.any():
            return np.asarray(np.minimum(chances, 1.0))
        certain |= over


def systematic(chances: Floats, generator: np.random.Generator) -> NDArray[np.intp]:
    """The items drawn, in order: systematic sampling with unequal probabilities (Madow 1949, "On the theory of
    systematic sampling, II").

    One random number places a grid of step 1 over the running sum of the chances, and an item is drawn where a point
    falls on its stretch: so each item is drawn with its own chance exactly, as many are drawn as the chances sum to,
    and any run of items in the order given gets its share to within one.

    Args:
        chances: shape (items,), from 0 to 1, with a whole sum.
        generator: of the one random number.
    """
    certain = np.flatnonzero(chances >= 1)
    others = np.flatnonzero((chances > 0) & (chances < 1))
    size = round(float(chances[others].sum()))
    if size == 0:
        return certain
    ends = np.cumsum(chances[others])
    # The step is 1 up to rounding: scaled, so that the last point cannot fall beyond the last item.
    points = (generator.random() + np.arange(size)) * float(ends[-1]) / size
    return np.sort(np.concatenate([certain, others[np.searchsorted(ends[:-1], points, side="right")]]))


def new_share(frame: Frame, budget: int) -> Floats:
    """Shape (items,): the share of a new draw of ``budget`` items in the estimate for each item's source.

    As many labels as an even draw would bring, of all there would be then. It is 1 where the earlier ratings come
    without inclusion probabilities: nobody knows what they speak for but themselves.
    """
    source = codes(frame.items["source"].to_numpy(object))
    rated = np.bincount(source, weights=frame.rated)
    # An even draw brings a system as many items as any other, but no more than it has left.
    left = np.bincount(source) - rated
    even = np.minimum(left, budget / max(1, int(np.count_nonzero(left))))
    share = np.where(rated > 0, even / np.maximum(even + rated, 1), 1.0)
    return np.asarray(share[source] if frame.sampled else np.ones(len(source)))


def rated_weights(frame: Frame, share: Floats) -> Floats:
    """Shape (items,): what an item rated before weighs beside a new draw with ``share``; 0 for the others."""
    source = codes(frame.items["source"].to_numpy(object))
    weights = np.where(frame.rated, frame.weights, 0.0)
    # Scaled so that the weights of a system's rated items sum to the number of all its items, as those of a draw do.
    whole = np.bincount(source)[source] / np.maximum(np.bincount(source, weights=weights)[source], 1e-9)
    return np.where(frame.rated, (1 - share) * weights * whole + share, 0.0)


def together(frame: Frame, budget: int, chances: Floats, drawn: NDArray[np.bool_]) -> pd.DataFrame:
    """item_id and inclusion_probability of the items rated before and those drawn, for when they are read as one.

    The probability is 1 / weight, times what makes the largest 1: means with weights do not change by it.

    Args:
        frame, budget: of the draw.
        chances: shape (items,), what each was drawn with.
        drawn: shape (items,), whether it was.
    """
    share = new_share(frame, budget)
    weights = np.where(frame.rated, rated_weights(frame, share), share / chances)
    here = frame.rated | drawn
    chance = min(float(np.min(weights[here])), 1.0) / weights[here]
    return pd.DataFrame({"item_id": frame.items["item_id"][here], "inclusion_probability": chance}).reset_index(
        drop=True
    )


PRIOR = 10
"""The variance of a system is shrunk towards that of all systems, as if so many of its ratings came from all."""


FROM_RATINGS = "ratings so far"


FROM_DOUBT = "the judge's uncertainty, as if it were right about it"


FROM_SPREAD = "the spread of the judge's scores, as if people's were alike"


Codes = NDArray[np.intp]


def outlook(frame: Frame) -> pd.DataFrame:
    """What is known of each source's human mean, a row a metric and source.

    Columns: metric, source, open (the variance over items of what a rating would add to the judge), lambda_ (how much
    of the judge's differences annotators share), judged (the variance of the judge's own mean over groups), before (the
    half-width to expect of the interval with the labels there are; NaN where there is none), labelled (items), basis
    (what ``open`` rests on).
    """
    source, group = (codes(frame.items[name].to_numpy(object)) for name in ("source", "group"))
    count, tables = int(source.max()) + 1, []
    for column, metric in enumerate(frame.metrics):
        judge, human = frame.judge[:, column], frame.human[:, column]
        lambda_, open_, basis = _open(judge, human, frame.doubt[:, column], source)
        rated = np.flatnonzero(np.isfinite(human))
        weights = np.bincount(source[rated], weights=frame.weights[rated], minlength=count)
        squares = np.bincount(source[rated], weights=frame.weights[rated] ** 2, minlength=count)
        table = pd.DataFrame({"metric": metric, "source": sorted(set(frame.items["source"]))})
        # The variance of the judge's own mean over groups, as ``clustered_variance`` has it, for all sources at once.
        scored = np.flatnonzero(np.isfinite(judge))
        own, size = _own(judge[scored], source[scored], count)
        sums = np.zeros((count, int(group.max()) + 1))
        np.add.at(sums, (source[scored], group[scored]), own)
        k = _spread_over(source[scored], group[scored], count)
        judged = (sums**2).sum(axis=1) / np.maximum(size, 1) ** 2 * k / np.maximum(k - 1, 1)
        table = table.assign(open=open_, lambda_=lambda_, judged=judged, basis=basis)
        table = table.assign(labelled=np.bincount(source[rated], minlength=count))
        groups = _spread_over(source[rated], group[rated], count)
        tables.append(table.assign(before=_half_width(table, squares / np.maximum(weights, 1.0) ** 2, groups)))
    return pd.concat(tables, ignore_index=True)


def expected(frame: Frame, known: pd.DataFrame, chances: Floats, share: Floats) -> pd.DataFrame:
    """An ``outlook`` with what a draw with ``chances`` (1 for items rated) is to bring: labelled_after, after.

    The expected variance is ``open`` times the expected sum of squared weights (each source's sum to 1), plus
    ``lambda_``^2 times ``judged``; t has as many degrees of freedom as there will be groups with labels, less one.
    ``share`` is that of the new draw beside earlier ratings (see ``new_share``).
    """
    source, group = (codes(frame.items[name].to_numpy(object)) for name in ("source", "group"))
    size = np.bincount(source)
    labelled = np.bincount(source, weights=chances)
    groups = np.minimum(labelled.round(), _spread_over(source, group, len(size)))
    each = codes(known["source"].to_numpy(object))
    squares = np.where(frame.rated, rated_weights(frame, share) ** 2, share**2 / chances)
    inflation = np.bincount(source, weights=squares) / size**2
    after = _half_width(known, inflation[each], groups[each])
    return known.assign(labelled_after=labelled[each], after=after)


def _half_width(known: pd.DataFrame, inflation: Floats, groups: Floats) -> Floats:
    """Shape (rows of an ``outlook``,): of Student's t interval; NaN under eight groups."""
    variance = known["open"] * inflation + known["lambda_"] ** 2 * known["judged"]
    quantile = np.array([np.nan if few < MIN_GROUPS else t_quantile(few - 1) for few in groups])
    return np.asarray(quantile * np.sqrt(variance), dtype=float)


def _spread_over(source: Codes, group: Codes, count: int) -> Floats:
    """Shape (sources,): in how many groups each has items."""
    cells = np.unique(np.stack([source, group]), axis=1)
    return np.bincount(cells[0], minlength=count).astype(float)


def _open(judge: Floats, human: Floats, doubt: Floats, source: Codes) -> tuple[float, Floats, str]:
    """How much of the judge's differences annotators share, the variance that is open in each system, and the basis.

    With enough ratings both come from them. Without, the judge's own distributions over levels are taken, as if it were
    right about them; without those, the spread of its scores.

    Args:
        judge, human, doubt: shape (items,), as in ``Frame``, on one metric.
        source: shape (items,), the number of each item's system.

    Returns:
        lambda; ``open``, shape (systems,); and the basis in words.
    """
    count = int(source.max()) + 1
    known, rated = np.flatnonzero(np.isfinite(judge)), np.flatnonzero(np.isfinite(human))
    if len(rated) - len(set(source[rated])) >= PRIOR:
        by_judge, by_people = (_own(scores[rated], source[rated], count)[0] for scores in (judge, human))
        spread = float(by_judge @ by_judge)
        lambda_ = float(np.clip(by_judge @ by_people / spread, 0, 1)) if spread > 0 else 0.0
        return lambda_, _drawn_together(by_people - lambda_ * by_judge, source[rated], count), FROM_RATINGS
    if np.isfinite(doubt[known]).all():
        sums = np.bincount(source[known], weights=doubt[known], minlength=count)
        return 1.0, sums / np.maximum(np.bincount(source[known], minlength=count), 1), FROM_DOUBT
    own, _ = _own(judge[known], source[known], count)
    return 0.0, _drawn_together(own, source[known], count), FROM_SPREAD


def _own(scores: Floats, source: Codes, count: int) -> tuple[Floats, Floats]:
    """Scores less the mean of their source; how many there are of each source."""
    size = np.bincount(source, minlength=count).astype(float)
    means = np.bincount(source, weights=scores, minlength=count) / np.maximum(size, 1)
    return scores - means[source], size


def _drawn_together(own: Floats, source: Codes, count: int) -> Floats:
    """Shape (sources,): the variance of each source from its deviations, drawn towards that of all."""
    squares = np.bincount(source, weights=own**2, minlength=count)
    freedom = np.maximum(np.bincount(source, minlength=count) - 1, 0)
    pooled = float(squares.sum()) / max(int(freedom.sum()), 1)
    return np.asarray((squares + PRIOR * pooled) / (freedom + PRIOR))


OVERLAP = 30
"""Items that several annotators rate; fewer say too little of how far annotators agree."""


RATERS = 3
"""Annotators who rate each item of the overlap."""


FLOOR = 0.5
"""The part of the budget that is shared out evenly over sources, and over the items of each: a guard against a wrong
guess of where ratings tell more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Items to be rated, and what to expect of it."""

    table: pd.DataFrame
    """A row an item to be rated: item_id, source, character and scenario where known, group, inclusion_probability,
    overlap (whether several annotators are to rate it), raters (how many)."""
    frame: pd.DataFrame
    """A row for every item: item_id, inclusion_probability, rated (those rated already, whose chance is 1)."""
    together: pd.DataFrame
    """item_id and inclusion_probability of the items rated already and those of the plan, for when their ratings are
    read as one table: see the function ``together``. Without earlier ratings, as in ``table`` (to a factor)."""
    expected: pd.DataFrame
    """A row a metric and source: metric, source, before, after (half-widths to expect of the 95% interval of its human
    mean; NaN where there is none), labelled, labelled_after (items), basis (what the expectation rests on)."""
    remarks: tuple[str, ...]
    """What whoever carries the plan out should know, a sentence each."""


def plan(
    scores: pd.DataFrame,
    budget: int,
    *,
    ratings: pd.DataFrame | None = None,
    overlap: int = OVERLAP,
    raters_per_overlap: int = RATERS,
    seed: int = 0,
) -> Plan:
    """Draw ``budget`` items to be rated on every metric, ``overlap`` of them by several annotators.

    Before anybody rated, systems get even shares: where the judge is unsure, annotators need not be (on HANNA, shares
    by the judge's uncertainty made the widest interval wider). Afterwards a system gets items in proportion to the
    variance that its ratings leave open beside the judge, less the items that it has already. (Neyman's allocation,
    1934, goes by the root of the variance and makes the sum of the variances least. Going by the variance itself makes
    all intervals equally wide.) Items of a system get chances in proportion to the judge's SD over levels, where it is
    known. Both are mixed half and half with even shares.

    The draw is systematic, in the order of systems and characters and at random within them, so that each gets its
    share to within one. The overlap is drawn from it in the order of characters.

    Items that have a rating are not drawn again; ``together`` has what they weigh beside the new ones. Earlier ratings
    without an ``inclusion_probability`` may have been chosen in any way, and count for themselves only.

    Args:
        scores: as ``read_scores`` returns them, of one judge; with p1..pK the judge's uncertainty is used.
        budget: how many items.
        ratings: the human ratings so far, as ``read_ratings`` returns them.
        overlap: how many items, as part of the budget, are each rated by the same several annotators.
        raters_per_overlap: how many annotators rate the overlap.
        seed: the same seed draws the same items.

    Raises:
        InputError: the budget is more than the items there are, or less than the overlap; several judges.
    """
    judges = sorted(set(scores["judge"])) if "judge" in scores else []
    if len(judges) > 1:
        raise InputError(f"scores of several judges ({', '.join(judges)}); give those of one")
    items = frame(scores, ratings)
    _check(budget, int((~items.rated).sum()), overlap, raters_per_overlap)
    generator = np.random.default_rng(seed)
    known = outlook(items)
    chances = _chances(items, known, budget)
    drawn = _in_order(items.items, ["source", "character"], np.flatnonzero(~items.rated), generator)
    chosen = drawn[systematic(chances[drawn], generator)]
    again = _in_order(items.items, ["character", "source"], chosen, generator)
    several = again[systematic(np.full(budget, overlap / budget), generator)] if overlap else again[:0]
    table = items.items.assign(inclusion_probability=chances).loc[np.sort(chosen)]
    table["overlap"] = table.index.isin(several)
    table["raters"] = np.where(table["overlap"], raters_per_overlap, 1)
    after = expected(items, known, chances, new_share(items, budget))
    whole = pd.DataFrame({"item_id": items.items["item_id"], "inclusion_probability": chances, "rated": items.rated})
    remarks = _remarks(items, after, budget, overlap, raters_per_overlap)
    columns = ["metric", "source", "before", "after", "labelled", "labelled_after", "basis"]
    both = together(items, budget, chances, np.isin(np.arange(len(chances)), chosen))
    return Plan(table.reset_index(drop=True), whole, both, after[columns], remarks)


def _check(budget: int, unrated: int, overlap: int, raters: int) -> None:
    """InputError where there can be no such plan."""
    if budget < 1:
        raise InputError(f"a budget of {budget} items; give at least 1")
    if budget > unrated:
        raise InputError(f"a budget of {budget} is more than the {unrated} items left to rate; give at most {unrated}")
    if not 0 <= overlap <= budget:
        raise InputError(
            f"a budget of {budget} holds no overlap of {overlap} items; raise it, or lower the overlap (--overlap)"
        )
    if overlap and raters < 2:
        raise InputError(f"an overlap rated by {raters} people shows no agreement; give at least 2, or no overlap")


def _chances(items: Frame, known: pd.DataFrame, budget: int) -> Floats:
    """With what chance each item is drawn: shape (items,); 1 for those rated already.

    Half of the budget is shared out evenly, over sources and over the items of each; the other half goes where ratings
    tell more.
    """
    left = ~items.rated
    source = items.items["source"].to_numpy(object)[left]
    counts = pd.Series(source).value_counts()
    # Of each source: in proportion to the variance that its ratings leave open, less what was rated already. Variances
    # are relative to the metric's mean, so that no metric counts more because its scores spread more.
    scale = known.groupby("metric")["open"].transform("mean")
    relative = (known["open"] / scale.where(scale > 0)).where(known["basis"] == FROM_RATINGS).fillna(1.0)
    need = relative.groupby(known["source"]).mean()
    labelled = known.groupby("source")["labelled"].max()
    aim = (budget + labelled.sum()) * need / need.sum()
    lacking = (aim - labelled).clip(lower=0.0).reindex(counts.index).clip(upper=counts)
    even = pd.Series(1 / len(counts), index=counts.index)
    shares = FLOOR * even + (1 - FLOOR) * (lacking / lacking.sum() if lacking.sum() > 0 else even)
    sizes = (shares / counts).reindex(source).to_numpy(float)
    # Of each item: in proportion to the judge's SD over levels, relative to its source's mean; as it is where the judge
    # gives no probabilities.
    doubt = items.doubt[left]
    doubt = doubt[:, np.isfinite(doubt).all(axis=0) & (np.nan_to_num(doubt).sum(axis=0) > 0)]
    if doubt.shape[1]:
        spread = pd.Series(np.sqrt((doubt / doubt.mean(axis=0)).mean(axis=1)))
        mean = spread.groupby(source).transform("mean")
        sizes = sizes * (FLOOR + (1 - FLOOR) * (spread / mean.where(mean > 0)).fillna(1.0).to_numpy(float))
    chances = np.ones(len(items.items))
    chances[left] = inclusion_probabilities(np.asarray(sizes, dtype=float), budget)
    return chances


def _in_order(
    items: pd.DataFrame, by: list[str], rows: NDArray[np.intp], generator: np.random.Generator
) -> NDArray[np.intp]:
    """Rows in the order of some columns (as far as they are there), at random within them."""
    shuffled = items.iloc[generator.permutation(rows)]
    return shuffled.sort_values([name for name in by if name in items], kind="stable").index.to_numpy(np.intp)


def _remarks(items: Frame, after: pd.DataFrame, budget: int, overlap: int, raters: int) -> tuple[str, ...]:
    """What whoever carries the plan out should know."""
    ratings = budget + overlap * (raters - 1)
    remarks = [
        f"{budget:,} items are {ratings:,} ratings of each metric: {overlap} items are for the same {raters} people, "
        "each of whom rates all of them; the others are for one person each."
    ]
    remarks.append(
        "Keep inclusion_probability beside every rating: means without it lean towards items that were likelier."
    )
    if 0 < overlap < OVERLAP:
        remarks.append(f"An overlap under {OVERLAP} items says little of how far people agree.")
    if done := int(items.rated.sum()):
        remarks.append(
            f"{done:,} items are rated already and not drawn again; to read their ratings with the new ones as one "
            "table, take the inclusion_probability of both from `together`."
        )
    if np.isnan(items.doubt).any():
        remarks.append("Scores without probabilities p1..pK say nothing of the judge's uncertainty.")
    if not (after["basis"] == FROM_RATINGS).all():
        remarks.append("Where nobody rated enough yet, the widths to expect rest on the judge alone.")
    few = sorted(set(after.loc[after["after"].isna(), "source"]))
    if few:
        remarks.append(
            f"Under {MIN_GROUPS} groups will have labels of {', '.join(few)}: no interval of its human mean."
        )
    return tuple(remarks)
