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
from scipy import sparse

from calibration.agreement.alpha import LEVELS, alphas
from calibration.agreement.ceiling import LEAST_ITEMS, STATISTICS, ceiling, correlations, others_mean
from calibration.matching import MOST_LISTED
from calibration.paired import Paired
from calibration.resampling import MIN_GROUPS, Estimate, Floats, Labels, Resampler, clustered_mean, codes

__all__ = ["Reliability", "reliability"]

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
