"""How well people agree with each other on one metric: what a judge can be held to at most.

Alpha asks whether ratings are more alike than by chance; the ceiling, how near one person comes to the others' mean;
the tables, which two persons agree and who rates strictly. What the design of the ratings cannot tell is not
estimated, and said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from calibration.pairing import MOST_LISTED, Paired
from calibration.stats.intervals import MIN_GROUPS, Estimate, Floats, Labels, Resampler, clustered_mean, codes
from calibration.stats.krippendorff import ALONE, LEVELS, alphas, by_cell, midranks, ratio

STATISTICS = ("spearman", "pearson", "rmse", "mae")


LEAST_ITEMS = 3
"""With fewer items that others rated too, a person is left out of the mean over persons: two items always correlate."""


MOST_LEVELS = 24
"""More different scores than this are put into so many bins of ranks for the draws of Spearman's correlation."""


STILL = "no person has ratings that vary beside others' that do"


FEW = f"nobody rated {LEAST_ITEMS} items that others rated too"


def ceiling(rated: Paired, resampler: Resampler) -> dict[str, Estimate]:
    """Each of ``STATISTICS`` of a person against the mean of the others, a mean over persons, with bootstrap interval.

    A person for whom a correlation is undefined (in a draw: in that draw) is left out of its mean.

    Args:
        rated: items that somebody rated.
        resampler: of the same items.
    """
    others = others_mean(rated.ratings)
    known = np.isfinite(others)
    persons = np.flatnonzero(known.sum(axis=0) >= LEAST_ITEMS)
    if not len(persons):
        return dict.fromkeys(STATISTICS, Estimate(None, reason=FEW if known.any() else ALONE))
    points, draws = [], []
    for person in persons:
        at = known[:, person]
        own, rest, weights = rated.ratings[at, person], others[at, person], rated.weights[at]
        points.append(np.array([[*correlations(own, rest, weights), *_errors(own, rest, weights)]]))
        if resampler.is_enough:
            draws.append(_drawn(own, rest, weights, resampler.cells[at], resampler.weights))
    by_statistic = dict(zip(STATISTICS, _mean(draws).T, strict=True)) if draws else {}
    return {
        name: resampler.estimate(value, by_statistic.get(name), STILL)
        for name, value in zip(STATISTICS, _mean(points)[0], strict=True)
    }


def others_mean(ratings: Floats) -> Floats:
    """The mean of the other raters' ratings, beside each rating: shape (items, raters), NaN where there is none.

    Rounded to 9 decimals, so that equal means are ties.
    """
    known = np.isfinite(ratings)
    given = np.where(known, ratings, 0.0)
    left = known.sum(axis=1, keepdims=True) - known
    mean = (given.sum(axis=1, keepdims=True) - given) / np.maximum(left, 1)
    return np.where(known & (left > 0), np.round(mean, 9), np.nan)


def correlations(x: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Spearman's and Pearson's correlation, weighted; NaN where one of the two does not vary."""
    ranked = _moments(_ranks(x, weights), _ranks(y, weights), weights)
    return float(_pearson(ranked.sum(axis=0))), float(_pearson(_moments(x, y, weights).sum(axis=0)))


def _errors(x: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Root mean squared and mean absolute difference, weighted."""
    return float(np.average((x - y) ** 2, weights=weights) ** 0.5), float(np.average(abs(x - y), weights=weights))


def _drawn(own: Floats, rest: Floats, weights: Floats, cells: NDArray[np.intp], drawn: Floats) -> Floats:
    """The statistics in every draw: shape (draws, 4); ``drawn``, shape (draws, cells), is how often cells were."""
    used, cell = np.unique(cells, return_inverse=True)
    drawn = drawn[:, used]
    moments = np.stack([np.bincount(cell, column) for column in _moments(own, rest, weights).T], axis=1)
    sums = drawn @ moments
    n = sums[:, 0]
    squared = np.maximum(sums[:, 3] - 2 * sums[:, 5] + sums[:, 4], 0)
    errors = np.sqrt(ratio(squared, n)), ratio(sums[:, 6], n)
    return np.stack([_spearman(own, rest, weights, cell, drawn), _pearson(sums.T), *errors], axis=1)


def _spearman(own: Floats, rest: Floats, weights: Floats, cell: NDArray[np.intp], drawn: Floats) -> Floats:
    """Spearman's correlation in every draw, among whose own items scores are ranked: shape (draws,)."""
    x, y = _bins(own), _bins(rest)
    shape = int(x.max()) + 1, int(y.max()) + 1
    table = drawn @ by_cell(cell, x * shape[1] + y, (drawn.shape[1], shape[0] * shape[1]), weights)
    table = table.reshape(-1, *shape)
    counts = table.sum(axis=2), table.sum(axis=1)
    n = counts[0].sum(axis=1)
    ranks = [midranks(each) - n[:, None] / 2 for each in counts]
    spreads = [(each * rank**2).sum(axis=1) for each, rank in zip(counts, ranks, strict=True)]
    together = np.einsum("dij,di,dj->d", table, *ranks, optimize=True)
    return ratio(together, np.sqrt(spreads[0] * spreads[1]))


def _moments(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Shape (items, 7): weight times 1, x, y, x², y², xy and |x - y|, both from the middle of x."""
    middle = (x.min() + x.max()) / 2
    x, y = x - middle, y - middle
    return np.stack([np.ones(len(x)), x, y, x**2, y**2, x * y, abs(x - y)], axis=1) * weights[:, None]


def _pearson(sums: Floats) -> Floats:
    """Pearson's correlation from sums of ``_moments``, first axis 7; NaN where x or y does not vary."""
    n, x, y, xx, yy, xy, _ = sums
    spreads = [np.where(n * ss - s**2 > 1e-12 * n * ss, n * ss - s**2, 0.0) for s, ss in ((x, xx), (y, yy))]
    return np.clip(ratio(n * xy - x * y, np.sqrt(spreads[0] * spreads[1])), -1, 1)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """The mid-rank of each value among all, by weight."""
    _, code = np.unique(values, return_inverse=True)
    return np.asarray(midranks(np.bincount(code, weights)[None].astype(float))[0][code])


def _bins(values: Floats) -> NDArray[np.intp]:
    """Scores by number from 0, in their order; bins of ranks where they are many."""
    levels, code = np.unique(values, return_inverse=True)
    if len(levels) > MOST_LEVELS:
        _, code = np.unique(_ranks(values, np.ones(len(values))) * MOST_LEVELS // len(values), return_inverse=True)
    return np.asarray(code, dtype=np.intp)


def _mean(persons: list[Floats]) -> Floats:
    """The mean over persons of what is defined: shape (draws, statistics), NaN where nothing is."""
    stacked = np.stack(persons)
    known = np.isfinite(stacked)
    return ratio(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(float))


SLOTS = "the raters are slots that different persons fill"


PAIRS = ("annotator_1", "annotator_2", "n", "spearman", "kappa")


ANNOTATORS = ("annotator", "n", "severity", "low", "high", "spread")


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well people agree on one metric. An estimate without a value has the reason why."""

    metric: str
    items: int
    """Items that somebody rated."""
    raters: int
    ratings_per_item: float
    """Mean over those items; NaN where there are none."""
    alpha_nominal: Estimate
    alpha_ordinal: Estimate
    alpha_interval: Estimate
    """Krippendorff's alpha: 1 is agreement, 0 what chance gives."""
    ceiling: dict[str, Estimate]
    """spearman, pearson, rmse and mae of a person left out against the mean of the others; means over persons."""
    pairs: pd.DataFrame
    """annotator_1, annotator_2, n (items both rated), spearman, kappa (quadratic weights): a row for two who share any.

    NaN on fewer than 3 items, or where ratings do not vary.
    """
    annotators: pd.DataFrame
    """annotator, n (ratings), severity (own rating less the others' mean of the item, averaged, in points: below 0 is
    strict), its 95% interval low and high, spread (standard deviation of own ratings). NaN where unknown.
    """
    remarks: tuple[str, ...]
    """What a reader should know of these ratings, a sentence each."""


def reliability(
    paired: Paired, *, raters: Literal["people", "slots"] = "people", characters: bool = False, seed: int = 0
) -> Reliability:
    """How well the raters of a metric agree.

    Args:
        paired: the metric; the judge's scores are not looked at.
        raters: "slots" where an annotator's name stands for whoever came first, second and so on: then only alpha.
        characters: intervals for other characters as well as other groups.
        seed: of the bootstrap.

    Raises:
        ValueError: characters are asked for and not known.
    """
    if characters and paired.characters is None:
        raise ValueError("no column 'character' to generalise over; leave it out")
    rated = _rated(paired)
    alpha, top = _estimates(rated, raters == "people", characters, seed)
    persons = raters == "people" and len(rated.items) > 0
    return Reliability(
        metric=paired.metric,
        items=len(rated.items),
        raters=len(rated.annotators),
        ratings_per_item=float(rated.counts.mean()) if len(rated.items) else float("nan"),
        alpha_nominal=alpha["nominal"],
        alpha_ordinal=alpha["ordinal"],
        alpha_interval=alpha["interval"],
        ceiling=top,
        pairs=_pairs(rated) if persons else pd.DataFrame(columns=PAIRS),
        annotators=_annotators(rated, characters) if persons else pd.DataFrame(columns=ANNOTATORS),
        remarks=tuple(_remarks(rated, raters == "people", characters)),
    )


def _rated(paired: Paired) -> Paired:
    """The items that somebody rated, and the raters who rated any."""
    active = np.flatnonzero(np.isfinite(paired.ratings).any(axis=0))
    names = tuple(paired.annotators[column] for column in active)
    return replace(paired, ratings=paired.ratings[:, active], annotators=names).labelled


def _estimates(
    rated: Paired, people: bool, characters: bool, seed: int
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Alpha at each level, and the ceiling."""
    if not len(rated.items):
        nobody = Estimate(None, reason="nobody rated an item")
        return dict.fromkeys(LEVELS, nobody), dict.fromkeys(STATISTICS, nobody)
    resampler = Resampler(rated.groups, rated.characters if characters else None, seed=seed)
    slots = dict.fromkeys(STATISTICS, Estimate(None, reason=SLOTS))
    return alphas(rated.ratings, resampler), ceiling(rated, resampler) if people else slots


# Tables


def _pairs(rated: Paired) -> pd.DataFrame:
    """A row for every two annotators who rated an item in common."""
    rows = []
    for one, other in combinations(range(len(rated.annotators)), 2):
        both = np.isfinite(rated.ratings[:, one]) & np.isfinite(rated.ratings[:, other])
        if n := int(both.sum()):
            x, y, weights = rated.ratings[both, one], rated.ratings[both, other], rated.weights[both]
            enough = n >= LEAST_ITEMS
            agreement = (correlations(x, y, weights)[0], _kappa(x, y, weights)) if enough else (np.nan, np.nan)
            rows.append((rated.annotators[one], rated.annotators[other], n, *agreement))
    return pd.DataFrame(rows, columns=PAIRS)


def _kappa(x: Floats, y: Floats, weights: Floats) -> float:
    """Cohen's kappa with quadratic weights on the whole scale; NaN where both always give the same one score.

    With quadratic weights expected disagreement is (x - y)² of independent ratings, so no table of categories is needed
    and scores in between are allowed (Fleiss and Cohen 1973).
    """
    (mean_x, mean_y), (var_x, var_y) = zip(*(_mean_variance(values, weights) for values in (x, y)), strict=True)
    expected = var_x + var_y + (mean_x - mean_y) ** 2
    observed = float(np.average((x - y) ** 2, weights=weights))
    return 1 - observed / expected if expected > 1e-12 else float("nan")


def _mean_variance(values: Floats, weights: Floats) -> tuple[float, float]:
    mean = float(np.average(values, weights=weights))
    return mean, float(np.average((values - mean) ** 2, weights=weights))


def _annotators(rated: Paired, characters: bool) -> pd.DataFrame:
    """A row for every annotator."""
    apart = rated.ratings - others_mean(rated.ratings)
    rows = []
    for column, name in enumerate(rated.annotators):
        severity = clustered_mean(
            apart[:, column], rated.groups, rated.weights, rated.characters if characters else None
        )
        own = np.isfinite(rated.ratings[:, column])
        n = int(own.sum())
        _, variance = _mean_variance(rated.ratings[own, column], rated.weights[own])
        spread = (variance * n / (n - 1)) ** 0.5 if n > 1 else None
        rows.append((name, n, severity.value, severity.low, severity.high, spread))
    table = pd.DataFrame(rows, columns=ANNOTATORS)
    return table.astype(dict.fromkeys(ANNOTATORS[2:], float))


# Remarks


def _remarks(rated: Paired, people: bool, characters: bool) -> list[str]:
    """What to know of the ratings: what cannot be said of them first, then how they lie."""
    if not len(rated.items):
        return ["Nobody rated an item."]
    remarks = []
    if rated.counts.max() < 2:
        remarks.append("Every item has one rating: how far people agree (alpha, ceiling) cannot be said.")
    remarks += _few(rated, characters)
    if not people:
        remarks.append(f"There is no ceiling, kappa of pairs or severity: {SLOTS}.")
    else:
        remarks += [*_confounded(rated), *_left_out(rated)]
    remarks += _overlap(rated, people)
    if np.ptp(rated.weights) > 0:
        remarks.append(
            "Items were drawn with unequal chances: ceiling, pairs and severity are weighted for it, alpha is not."
        )
    return remarks


def _few(rated: Paired, characters: bool) -> list[str]:
    """Too few groups or characters for intervals."""
    ways = {"groups": rated.groups, "characters": rated.characters if characters else None}
    few = [f"{k} {name}" for name, way in ways.items() if way is not None and (k := len(set(way))) < MIN_GROUPS]
    return [f"There are no intervals: {' and '.join(few)}, of {MIN_GROUPS} needed."] if few else []


def _confounded(rated: Paired) -> list[str]:
    """Raters who cannot be compared, as they rated nothing in common."""
    ways = {"characters": rated.characters, "sources": rated.sources, "items": rated.items}
    for name, way in ways.items():
        if way is not None and (teams := _teams(rated.ratings, way)) > 1:
            return [
                f"The annotators fall into {teams} sets that rated no {name} in common: severity is against others of "
                f"the same set, and how strict a set is cannot be told from what its {name} are like."
            ]
    return []


def _teams(ratings: Floats, way: Labels) -> int:
    """How many sets of raters there are without a link between sets, where two who rated one label are linked."""
    code = codes(way)
    item, rater = np.nonzero(np.isfinite(ratings))
    labels = int(code.max()) + 1
    size = labels + ratings.shape[1]
    links = sparse.coo_array((np.ones(len(item)), (code[item], labels + rater)), shape=(size, size))
    return int(sparse.csgraph.connected_components(links, directed=False, return_labels=False))


def _left_out(rated: Paired) -> list[str]:
    """Persons who are not in the ceiling."""
    shared = np.isfinite(others_mean(rated.ratings)).sum(axis=0)
    names = [name for name, n in zip(rated.annotators, shared, strict=True) if n < LEAST_ITEMS]
    if not names or len(names) == len(rated.annotators):
        return []
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    first = ", ".join(names[:MOST_LISTED])
    return [f"The ceiling leaves out who rated fewer than {LEAST_ITEMS} items beside others: {first}{more}."]


def _overlap(rated: Paired, people: bool) -> list[str]:
    """Items with unlike numbers of ratings, and pairs with unlike numbers of items."""
    counts = rated.counts
    remarks = []
    if counts.min() < counts.max():
        several = int((counts > 1).sum())
        remarks.append(
            f"Items have from {counts.min()} to {counts.max()} ratings; alpha is of the {several:,} of {len(counts):,} "
            "items that have two or more."
        )
    known = np.isfinite(rated.ratings).astype(float)
    shared = (known.T @ known)[np.triu_indices(known.shape[1], 1)].astype(int)
    if people and len(shared) and shared.min() < shared.max():
        remarks.append(f"Two annotators have from {shared.min():,} to {shared.max():,} items in common.")
    return remarks
