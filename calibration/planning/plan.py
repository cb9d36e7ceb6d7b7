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

from calibration.planning.frame import Frame, frame
from calibration.planning.outlook import FROM_RATINGS, expected, outlook
from calibration.planning.sampling import inclusion_probabilities, systematic
from calibration.planning.waves import new_share, together
from calibration.resampling import MIN_GROUPS, Floats

__all__ = ["Plan", "PlanError", "plan"]

OVERLAP = 30
"""Items that several people are to rate alike; fewer say too little of how people agree."""
RATERS = 3
FLOOR = 0.5
"""The part of the budget that is shared out evenly over sources, and over the items of each: a guard against a wrong
guess of where ratings tell more."""


class PlanError(ValueError):
    """A plan that cannot be made: what is wrong and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Items to be rated, and what to expect of it."""

    table: pd.DataFrame
    """A row an item to be rated: item_id, source, character and scenario where known, group, inclusion_probability,
    overlap (whether several people are to rate it), raters (how many)."""
    frame: pd.DataFrame
    """A row for every item: item_id, inclusion_probability, rated (those rated already, whose chance is 1)."""
    together: pd.DataFrame
    """item_id and inclusion_probability of the items rated already and those of the plan, for when their ratings are
    read as one table: see ``waves``. Without earlier ratings, as in ``table`` (to a factor)."""
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
    """Draw ``budget`` items to be rated on every metric, ``overlap`` of them by several people.

    Before anybody rated, sources get even shares: that the judge is unsure of one does not tell that people are (on
    HANNA, shares by its uncertainty made the widest interval wider). Then they get items in proportion to the variance
    that their ratings leave open beside the judge (Neyman's allocation, 1934, is by its root and makes the sum of the
    variances least; by the variance itself it makes all intervals equally wide), what they have already counted in.
    Items of a source get chances in proportion to the judge's SD over levels, where it is known. Both are mixed half
    and half with even shares. The draw is systematic, in the order of sources and
    characters and at random within them, so that each gets its share to within one; the overlap is drawn from it in
    the order of characters.

    Items that have a rating are not drawn again; ``together`` has what they weigh beside the new ones. Earlier ratings
    without an ``inclusion_probability`` may have been chosen in any way, and count for themselves only.

    Args:
        scores: as ``read_scores`` returns them, of one judge; with p1..pK the judge's uncertainty is used.
        budget: how many items.
        ratings: what people rated so far, as ``read_ratings`` returns it.
        overlap: how many items are to be rated by the same people, all of them by each; part of the budget.
        raters_per_overlap: by how many.
        seed: the same seed draws the same items.

    Raises:
        PlanError: the budget is more than the items there are, or less than the overlap; several judges.
    """
    _check_judge(scores)
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


def _check_judge(scores: pd.DataFrame) -> None:
    judges = sorted(set(scores["judge"])) if "judge" in scores else []
    if len(judges) > 1:
        raise PlanError(f"scores of several judges ({', '.join(judges)}); give those of one")


def _check(budget: int, unrated: int, overlap: int, raters: int) -> None:
    if budget < 1:
        raise PlanError(f"a budget of {budget} items; give at least 1")
    if budget > unrated:
        raise PlanError(f"a budget of {budget} is more than the {unrated} items left to rate; give at most {unrated}")
    if not 0 <= overlap <= budget:
        raise PlanError(f"a budget of {budget} holds no overlap of {overlap} items; raise it, or lower the overlap")
    if overlap and raters < 2:
        raise PlanError(f"an overlap rated by {raters} people shows no agreement; give at least 2, or no overlap")


def _chances(items: Frame, known: pd.DataFrame, budget: int) -> Floats:
    """Shape (items,): the chance of each item; 1 for those rated already."""
    chances = np.ones(len(items.items))
    left = ~items.rated
    source = items.items["source"].to_numpy(object)[left]
    share = _shares(known, pd.Series(source).value_counts(), budget)
    each = share / pd.Series(source).value_counts()
    tilt = _tilt(items.doubt[left], source)
    chances[left] = inclusion_probabilities(each.reindex(source).to_numpy(float) * tilt, budget)
    return chances


def _shares(known: pd.DataFrame, left: pd.Series[int], budget: int) -> pd.Series[float]:
    """The part of the budget of each source that has items left."""
    scale = known.groupby("metric")["open"].transform("mean")
    relative = (known["open"] / scale.where(scale > 0)).where(known["basis"] == FROM_RATINGS).fillna(1.0)
    need = relative.groupby(known["source"]).mean()
    labelled = known.groupby("source")["labelled"].max()
    aim = (budget + labelled.sum()) * need / need.sum()
    lacking = (aim - labelled).clip(lower=0.0).reindex(left.index).clip(upper=left)
    even = pd.Series(1 / len(left), index=left.index)
    return FLOOR * even + (1 - FLOOR) * (lacking / lacking.sum() if lacking.sum() > 0 else even)


def _tilt(doubt: Floats, source: NDArray[np.object_]) -> Floats:
    """How much more than its source's others an item tells: mean 1 in each source, at least FLOOR."""
    known = doubt[:, np.isfinite(doubt).all(axis=0) & (np.nan_to_num(doubt).sum(axis=0) > 0)]
    if known.shape[1] == 0:
        return np.ones(len(source))
    spread = pd.Series(np.sqrt((known / known.mean(axis=0)).mean(axis=1)))
    mean = spread.groupby(source).transform("mean")
    return np.asarray(FLOOR + (1 - FLOOR) * (spread / mean.where(mean > 0)).fillna(1.0), dtype=float)


def _in_order(
    items: pd.DataFrame, by: list[str], rows: NDArray[np.intp], generator: np.random.Generator
) -> NDArray[np.intp]:
    """Rows in the order of some columns (as far as they are there), at random within them."""
    shuffled = items.iloc[generator.permutation(rows)]
    return shuffled.sort_values([name for name in by if name in items], kind="stable").index.to_numpy(np.intp)


def _remarks(items: Frame, after: pd.DataFrame, budget: int, overlap: int, raters: int) -> tuple[str, ...]:
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
