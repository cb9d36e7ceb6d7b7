"""Several judges of the same items side by side: how much more one agrees with human ratings than another.

Both judges are compared over the items that both scored and somebody rated, with the same draws of groups, so that what
makes an item hard for both is no part of the difference. How each agrees on its own is ``assess``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from calibration.agreement.alt_test import TIE
from calibration.agreement.nominal import NOMINAL, with_names_as_scores
from calibration.pairing import Paired, Pairing
from calibration.stats.correlation import CONSTANT, MIN_CORRELATED, spearman, spearman_draws
from calibration.stats.intervals import Estimate, Floats, Resampler, clustered_mean


@dataclass(frozen=True, slots=True)
class JudgeDifference:
    """How two judges differ in their agreement with the mean ratings of one metric."""

    metric: str
    a: str
    b: str
    items: int
    """Rated items that both scored."""
    spearman: Estimate
    """Spearman's correlation of ``a`` less that of ``b``, with a paired bootstrap interval over groups."""
    mae: Estimate
    """The mean absolute difference of ``a`` less that of ``b``, in points: below 0 where ``a`` is nearer."""
    exact: Estimate
    """The share of ratings that ``a`` equals less that of ``b``, in the scale's steps; of names where it is nominal."""

    def to_dict(self) -> dict[str, Any]:
        """What programs read of it."""
        return asdict(self)


def compare_judges(
    pairings: Mapping[str, Pairing], *, nominal: Iterable[str] = (), characters: bool = False, seed: int = 0
) -> list[JudgeDifference]:
    """Every two judges on every metric that both have, in the order of the judges.

    Args:
        pairings: by judge, of the same human ratings.
        nominal: metrics whose scores are names of kinds: of these only ``exact`` is given.
        characters: intervals that hold for other characters too.
        seed: random seed of the bootstrap.
    """
    metrics = dict.fromkeys(metric for one in pairings.values() for metric in one.metrics)
    names = set(nominal)
    return [
        _difference(
            (a, b), (pairings[a].metrics[metric], pairings[b].metrics[metric]), metric in names, characters, seed
        )
        for metric in metrics
        for a, b in combinations(pairings, 2)
        if metric in pairings[a].metrics and metric in pairings[b].metrics
    ]


def _difference(
    judges: tuple[str, str], sides: tuple[Paired, Paired], is_nominal: bool, characters: bool, seed: int
) -> JudgeDifference:
    """Two judges on one metric."""
    one, other = (side.labelled for side in sides)
    shared = np.intersect1d(one.items.astype(str), other.items.astype(str), return_indices=True)
    one, other = one.at(shared[1]), other.at(shared[2])
    human, weights, over = one.human, one.weights, one.characters if characters else None
    if not len(human):
        none = Estimate(None, reason="no rated item was scored by both")
        return JudgeDifference(one.metric, *judges, 0, none, none, none)
    item, _, rating = one.one_by_one
    scores = [with_names_as_scores(side).judge if is_nominal else side.in_steps(side.judge) for side in (one, other)]
    first, second = (np.abs(score[item] - rating) < TIE for score in scores)
    over_ratings = None if over is None else over[item]
    exact = clustered_mean(first.astype(float) - second, one.groups[item], weights[item], over_ratings)
    if is_nominal:
        none = Estimate(None, reason=NOMINAL)
        return JudgeDifference(one.metric, *judges, len(human), none, none, exact)
    nearer: Floats = np.abs(one.judge - human) - np.abs(other.judge - human)
    mae = clustered_mean(nearer, one.groups, weights, over)
    values = [float(spearman(side.judge, human, weights)) for side in (one, other)]
    if len(human) < MIN_CORRELATED or not np.isfinite(values).all():
        reason = f"under {MIN_CORRELATED} items" if len(human) < MIN_CORRELATED else CONSTANT
        return JudgeDifference(one.metric, *judges, len(human), Estimate(None, reason=reason), mae, exact)
    resampler = Resampler(one.groups, over, seed=seed)
    apart = values[0] - values[1]
    ends: tuple[float | None, float | None] = (None, None)
    if resampler.is_enough:
        draws = [spearman_draws(side.judge, human, weights, resampler) for side in (one, other)]
        ends = resampler.interval(apart, draws[0] - draws[1])
    return JudgeDifference(one.metric, *judges, len(human), Estimate(apart, *ends), mae, exact)
