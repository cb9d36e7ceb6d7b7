"""How well annotators agree with each other on one metric: the most a judge can be held to.

Krippendorff's alpha asks whether ratings are more alike than by chance. The human ceiling is how near one annotator
comes to the mean of the others. The tables say which two annotators agree, and who rates strictly. What the design of
the ratings cannot tell is not estimated; a warning says so. Scores of the judge are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse, stats

from calibration.pairing import MOST_LISTED, Paired
from calibration.stats.correlation import MIN_CORRELATED, kappa, pearson, pearson_draws, spearman, spearman_draws
from calibration.stats.intervals import MIN_GROUPS, Estimate, Floats, Labels, Resampler, clustered_mean, codes, ratio
from calibration.stats.krippendorff import ALONE, LEVELS, alphas

STATISTICS = ("spearman", "pearson", "rmse", "mae")
"""What the human ceiling consists of."""


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
    active = np.flatnonzero(np.isfinite(paired.ratings).any(axis=0))
    names = tuple(paired.annotators[column] for column in active)
    rated = replace(paired, ratings=paired.ratings[:, active], annotators=names).labelled
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

    An annotator for whom a correlation is undefined is left out of its mean; in a draw, of the mean of that draw.

    Args:
        rated: items with at least one rating.
        resampler: of the same items.
    """
    others = others_mean(rated.ratings)
    known = np.isfinite(others)
    included = np.flatnonzero(known.sum(axis=0) >= MIN_CORRELATED)
    if not len(included):
        return dict.fromkeys(STATISTICS, Estimate(None, reason=FEW if known.any() else ALONE))
    points, draws = [], []
    for annotator in included:
        at = known[:, annotator]
        own, rest, weights = rated.ratings[at, annotator], others[at, annotator], rated.weights[at]
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
    return {
        name: resampler.estimate(value, by_statistic.get(name), STILL)
        for name, value in zip(STATISTICS, _mean(points)[0], strict=True)
    }


def others_mean(ratings: Floats) -> Floats:
    """The mean of the other annotators' ratings beside each rating: shape (items, annotators), NaN where there is none.

    Rounded to 9 decimals, so that equal means are ties in whatever order they were added.
    """
    known = np.isfinite(ratings)
    given = np.where(known, ratings, 0.0)
    left = known.sum(axis=1, keepdims=True) - known  # how many others rated the item
    mean = (given.sum(axis=1, keepdims=True) - given) / np.maximum(left, 1)
    return np.where(known & (left > 0), np.round(mean, 9), np.nan)


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
    known = np.isfinite(rated.ratings)
    pairs = []
    for one, other in combinations(range(len(rated.annotators)), 2):
        both = known[:, one] & known[:, other]
        if n := int(both.sum()):
            shared = rated.ratings[both, one], rated.ratings[both, other], rated.weights[both]
            enough = n >= MIN_CORRELATED
            agreement = (float(spearman(*shared)), kappa(*shared)) if enough else (np.nan, np.nan)
            pairs.append((rated.annotators[one], rated.annotators[other], n, *agreement))
    annotators = []
    apart = rated.ratings - others_mean(rated.ratings)
    for column, name in enumerate(rated.annotators):
        severity = clustered_mean(apart[:, column], rated.groups, rated.weights, characters)
        own, weights = rated.ratings[known[:, column], column], rated.weights[known[:, column]]
        variance = float(np.average((own - np.average(own, weights=weights)) ** 2, weights=weights))
        # Weights say whom an item stands for, not how often it was rated: the correction for n is by ratings.
        spread = (variance * len(own) / (len(own) - 1)) ** 0.5 if len(own) > 1 else None
        annotators.append((name, len(own), severity.value, severity.low, severity.high, spread))
    table = pd.DataFrame(annotators, columns=ANNOTATORS)
    return pd.DataFrame(pairs, columns=PAIRS), table.astype(dict.fromkeys(ANNOTATORS[2:], float))


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
    # The product counts, for every two annotators, the items that both rated.
    known = np.isfinite(rated.ratings).astype(float)
    shared = (known.T @ known)[np.triu_indices(known.shape[1], 1)].astype(int)
    if people and len(shared) and shared.min() < shared.max():
        warnings.append(f"Two annotators have from {shared.min():,} to {shared.max():,} items in common.")
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
    item, annotator = np.nonzero(np.isfinite(rated.ratings))
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
    beside_others = np.isfinite(others_mean(rated.ratings)).sum(axis=0)
    names = [name for name, n in zip(rated.annotators, beside_others, strict=True) if n < MIN_CORRELATED]
    if names and len(names) < len(rated.annotators):
        more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        warnings.append(
            f"The human ceiling leaves out who rated fewer than {MIN_CORRELATED} items that others rated too: "
            f"{', '.join(names[:MOST_LISTED])}{more}."
        )
    return warnings
