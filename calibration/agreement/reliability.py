"""How well annotators agree with each other on one metric: the most a judge can be held to.

Krippendorff's alpha asks whether ratings are more alike than by chance. The human ceiling is how near one annotator
comes to the mean of the others. The tables say which two annotators agree, and who rates strictly. What the design of
the ratings cannot tell is not estimated; a warning says so. Scores of the judge are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import comb
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, stats

from calibration.pairing import MOST_LISTED, Paired
from calibration.stats.correlation import MIN_CORRELATED, kappa, pearson, pearson_draws, spearman, spearman_draws
from calibration.stats.intervals import MIN_GROUPS, Estimate, Floats, Labels, Resampler, clustered_mean, codes, ratio
from calibration.stats.krippendorff import ALONE, LEVELS, alphas

STATISTICS = ("spearman", "pearson", "rmse", "mae")
"""What the human ceiling consists of."""


CORRELATIONS = ("spearman", "pearson")
"""Those of them that lie from -1 to 1."""


MOST_LEVELS = 24
"""More different scores than this are put into so many bins of ranks for the draws of Spearman's correlation."""


STILL = "no annotator's ratings vary where those of the others do"


FEW = f"nobody rated {MIN_CORRELATED} items that others rated too"


SLOTS = "the annotators are slots that different persons fill"


PAIRS = ("annotator_1", "annotator_2", "n", "spearman", "kappa")


ANNOTATORS = ("annotator", "n", "severity", "low", "high", "spread")


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well annotators agree on one metric. An estimate without a value has the reason why."""

    metric: str
    items: int
    """Items with at least one rating."""
    raters: int
    """Annotators who rated at least one item."""
    ratings_per_item: float
    """Mean over those items; NaN where there are none."""
    alpha_nominal: Estimate
    alpha_ordinal: Estimate
    alpha_interval: Estimate
    """Krippendorff's alpha: 1 is full agreement, 0 is what chance gives."""
    ceiling: dict[str, Estimate]
    """The human ceiling, by the names of ``STATISTICS``: an annotator against the mean of the others, averaged over
    annotators."""
    pairs: pd.DataFrame
    """annotator_1, annotator_2, n (items both rated), spearman, kappa (quadratic weights): a row for every two
    annotators who share an item. NaN on fewer than 3 items, or where ratings do not vary."""
    annotators: pd.DataFrame
    """annotator, n (ratings), severity (own rating less the others' mean of the item, averaged, in points: below 0 is
    strict), its 95% interval low and high, spread (standard deviation of own ratings). NaN where unknown."""
    remarks: tuple[str, ...]
    """Warnings about these ratings, a sentence each."""


def reliability(
    paired: Paired, *, raters: Literal["people", "slots"] = "people", characters: bool = False, seed: int = 0
) -> Reliability:
    """How well the annotators of a metric agree.

    Args:
        paired: the metric; the judge's scores are not looked at.
        raters: "slots" where a name such as ``annotator_1`` stands for whoever came first, and so on. Then only alpha
            is estimated.
        characters: intervals that hold for other characters as well as for other groups.
        seed: random seed of the bootstrap.

    Raises:
        ValueError: characters are asked for and not known.
    """
    if characters and paired.characters is None:
        raise ValueError("no column 'character' to generalise over; leave it out")
    rated = paired.labelled
    active = np.unique(rated.one_by_one[1])
    if len(active) < len(rated.annotators):
        names = tuple(rated.annotators[column] for column in active)
        rated = replace(rated, ratings=rated.ratings[:, active], annotators=names)
    over = rated.characters if characters else None
    people = raters == "people"
    alpha = dict.fromkeys(LEVELS, Estimate(None, reason="nobody rated an item"))
    top = dict.fromkeys(STATISTICS, Estimate(None, reason="nobody rated an item"))
    if len(rated.items):
        resampler = Resampler(rated.groups, over, seed=seed)
        alpha = alphas(rated.ratings, resampler)
        # A slot is filled by different persons, so there is no one whose ratings could be held against the others'.
        top = ceiling(rated, resampler) if people else dict.fromkeys(STATISTICS, Estimate(None, reason=SLOTS))
    pairs, annotators = pd.DataFrame(columns=PAIRS), pd.DataFrame(columns=ANNOTATORS)
    if people and len(rated.items):
        pairs, annotators = _tables(rated, over)
    return Reliability(
        metric=paired.metric,
        items=len(rated.items),
        raters=len(rated.annotators),
        ratings_per_item=float(rated.counts.mean()) if len(rated.items) else float("nan"),
        alpha_nominal=alpha["nominal"],
        alpha_ordinal=alpha["ordinal"],
        alpha_interval=alpha["interval"],
        ceiling=top,
        pairs=pairs,
        annotators=annotators,
        remarks=tuple(_warnings(rated, over, people)),
    )


def ceiling(rated: Paired, resampler: Resampler) -> dict[str, Estimate]:
    """The human ceiling: each of ``STATISTICS`` of an annotator against the mean of the others, on average.

    An annotator for whom a correlation is undefined is left out of its mean; in a draw, of the mean of that draw. With
    few items an annotator the draws are biased, so intervals are moved to lie about the value.

    Args:
        rated: items with at least one rating.
        resampler: of the same items.
    """
    item, annotator, value = rated.one_by_one
    others = others_mean(item, value)
    shared = np.isfinite(others)
    beside = np.bincount(annotator[shared], minlength=len(rated.annotators))
    included = np.flatnonzero(beside >= MIN_CORRELATED)
    if not len(included):
        return dict.fromkeys(STATISTICS, Estimate(None, reason=FEW if shared.any() else ALONE))
    points, draws = [], []
    for one_of_them in included:
        mine = shared & (annotator == one_of_them)
        at, own, rest, weights = item[mine], value[mine], others[mine], rated.weights[item[mine]]
        one = (own, rest, weights)
        errors = np.stack([np.ones(len(own)), (own - rest) ** 2, np.abs(own - rest)], axis=1) * weights[:, None]
        _, squared, absolute = errors.sum(axis=0) / weights.sum()
        # Points have the shape of a single draw, so that both are averaged over annotators alike.
        points.append(np.array([[spearman(*one), pearson(*one), squared**0.5, absolute]]))
        if resampler.is_enough:
            drawn = resampler.at(at)
            n, squared, absolute = drawn.sums(errors).T
            # Fine scores are ranked in bins, so that a draw costs no more than one of whole scores.
            ranks = spearman_draws(_bins(own), _bins(rest), weights, drawn)
            rest_of_them = pearson_draws(*one, drawn), np.sqrt(ratio(squared, n)), ratio(absolute, n)
            draws.append(np.stack([ranks, *rest_of_them], axis=1))
    by_statistic = dict(zip(STATISTICS, _mean(draws).T, strict=True)) if draws else {}
    found = {}
    for name, value in zip(STATISTICS, _mean(points)[0], strict=True):
        one_left_out = resampler.estimate(value, by_statistic.get(name), STILL, centred=True)
        if one_left_out.low is not None and one_left_out.high is not None:  # moving may lead beyond what there can be
            least, most = (-1.0, 1.0) if name in CORRELATIONS else (0.0, np.inf)
            one_left_out = replace(one_left_out, low=max(one_left_out.low, least), high=min(one_left_out.high, most))
        found[name] = one_left_out
    return found


def others_mean(item: NDArray[np.intp], value: Floats) -> Floats:
    """The mean of the other ratings of the same item beside each rating; NaN where there is none.

    Rounded to 9 decimals, so that equal means are ties in whatever order they were added.

    Args:
        item, value: shape (ratings,), the place of each rating's item, and its score.
    """
    left = np.bincount(item)[item] - 1  # how many others rated the item
    mean = (np.bincount(item, value)[item] - value) / np.maximum(left, 1)
    return np.where(left > 0, np.round(mean, 9), np.nan)


def _bins(values: Floats) -> Floats:
    """Scores as they are; the number of their bin of ranks where more than ``MOST_LEVELS`` of them differ."""
    if len(np.unique(values)) <= MOST_LEVELS:
        return values
    return np.asarray((stats.rankdata(values) - 0.5) * MOST_LEVELS // len(values))


def _mean(annotators: list[Floats]) -> Floats:
    """The mean over annotators of what is defined: shape (draws, statistics), NaN where nothing is."""
    stacked = np.stack(annotators)
    known = np.isfinite(stacked)
    return ratio(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(float))


def _tables(rated: Paired, characters: Labels | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``Reliability.pairs`` and ``Reliability.annotators``: who agrees with whom, and who rates strictly."""
    item, annotator, value = rated.one_by_one
    of_annotator = np.split(np.argsort(annotator, kind="stable"), np.cumsum(np.bincount(annotator))[:-1])
    pairs = []
    for one, other, n in _shared_items(rated):
        agreement = (np.nan, np.nan)
        if n >= MIN_CORRELATED:
            first, second = of_annotator[one], of_annotator[other]
            both, at, beside = np.intersect1d(item[first], item[second], assume_unique=True, return_indices=True)
            shared = value[first[at]], value[second[beside]], rated.weights[both]
            agreement = float(spearman(*shared)), kappa(*shared)
        pairs.append((rated.annotators[one], rated.annotators[other], n, *agreement))
    annotators = []
    apart = value - others_mean(item, value)
    for name, mine in zip(rated.annotators, of_annotator, strict=True):
        own, at = value[mine], item[mine]
        weights = rated.weights[at]
        over = None if characters is None else characters[at]
        severity = clustered_mean(apart[mine], rated.groups[at], weights, over)
        variance = float(np.average((own - np.average(own, weights=weights)) ** 2, weights=weights))
        # Weights say whom an item stands for, not how often it was rated: the correction for n is by ratings.
        spread = (variance * len(own) / (len(own) - 1)) ** 0.5 if len(own) > 1 else None
        annotators.append((name, len(own), severity.value, severity.low, severity.high, spread))
    table = pd.DataFrame(annotators, columns=ANNOTATORS)
    return pd.DataFrame(pairs, columns=PAIRS), table.astype(dict.fromkeys(ANNOTATORS[2:], float))


def _shared_items(rated: Paired) -> Iterator[tuple[int, int, int]]:
    """Every two annotators who share an item, and how many they share."""
    item, annotator, _ = rated.one_by_one
    shape = len(rated.items), len(rated.annotators)
    known = sparse.csr_array((np.ones(len(item), dtype=int), (item, annotator)), shape=shape)
    shared = sparse.triu(known.T @ known, 1).tocsr()  # by the first annotator, then by the second
    shared.sort_indices()
    found = shared.tocoo()
    yield from zip(found.row.tolist(), found.col.tolist(), found.data.tolist(), strict=True)


def _warnings(rated: Paired, characters: Labels | None, people: bool) -> list[str]:
    """What a reader has to know of the ratings: what cannot be said of them first, then how they lie."""
    if not len(rated.items):
        return ["Nobody rated an item."]
    warnings = []
    counts = rated.counts
    if counts.max() < 2:
        warnings.append(
            "Every item has one rating: agreement between annotators (alpha, human ceiling) cannot be estimated."
        )
    ways = {"groups": rated.groups, "characters": characters}
    few = [f"{k} {name}" for name, way in ways.items() if way is not None and (k := len(set(way))) < MIN_GROUPS]
    if few:
        warnings.append(f"There are no intervals: {' and '.join(few)}, of {MIN_GROUPS} needed.")
    if not people:
        warnings.append(f"There is no human ceiling, kappa of pairs or severity: {SLOTS}.")
    else:
        warnings += _about_annotators(rated)
    if counts.min() < counts.max():
        several = int((counts > 1).sum())
        warnings.append(
            f"Items have from {counts.min()} to {counts.max()} ratings; alpha is of the {several:,} of {len(counts):,} "
            "items that have two or more."
        )
    shared = [n for _, _, n in _shared_items(rated)]
    fewest = 0 if len(shared) < comb(len(rated.annotators), 2) else min(shared, default=0)
    if people and shared and fewest < max(shared):
        warnings.append(f"Two annotators have from {fewest:,} to {max(shared):,} items in common.")
    if np.ptp(rated.weights) > 0:
        warnings.append(
            "Items were drawn with unequal chances: the human ceiling, pairs and severity are weighted for it, "
            "alpha is not."
        )
    return warnings


def _about_annotators(rated: Paired) -> list[str]:
    """Who cannot be compared with whom, as they rated nothing in common; and who is not in the human ceiling."""
    warnings = []
    by = {"characters": rated.characters, "sources": rated.sources, "items": rated.items}
    item, annotator, value = rated.one_by_one
    for name, code in ((name, codes(way)) for name, way in by.items() if way is not None):
        # Sets without a link are the connected components of a graph of labels and annotators, an edge for each rating.
        labels = int(code.max()) + 1
        size = labels + rated.ratings.shape[1]
        links = sparse.coo_array((np.ones(len(item)), (code[item], labels + annotator)), shape=(size, size))
        sets = int(sparse.csgraph.connected_components(links, directed=False, return_labels=False))
        if sets > 1:
            warnings.append(
                f"The annotators fall into {sets} sets that rated no {name} in common: severity is against others of "
                f"the same set, and how strict a set is cannot be told from what its {name} are like."
            )
            break
    beside_others = np.bincount(annotator[np.isfinite(others_mean(item, value))], minlength=len(rated.annotators))
    names = [name for name, n in zip(rated.annotators, beside_others, strict=True) if n < MIN_CORRELATED]
    if names and len(names) < len(rated.annotators):
        more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        warnings.append(
            f"The human ceiling leaves out who rated fewer than {MIN_CORRELATED} items that others rated too: "
            f"{', '.join(names[:MOST_LISTED])}{more}."
        )
    return warnings
