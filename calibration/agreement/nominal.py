"""Agreement on a nominal metric, whose scores are names of kinds: equal or not, with no order and no mean.

What asks how far apart two scores are is not given for it, with the reason. The judge's answer is the most probable
level where it has probabilities, and its score as it is otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from calibration.agreement.metrics import STRATA_COLUMNS, Agreement
from calibration.agreement.reliability import STATISTICS, Reliability
from calibration.agreement.single_ratings import ALL_SAME, RATING_MEASURES, pairs_of_ratings
from calibration.pairing import Paired
from calibration.stats.correlation import ASSOCIATIONS, nominal_kappa, nominal_kappa_draws
from calibration.stats.intervals import Estimate, Floats, Resampler, clustered_mean

NOMINAL = "scores are names of kinds, which have no order (--nominal)"
"""Why a measure that needs an order or a mean is not given."""


def with_names_as_scores(paired: Paired) -> Paired:
    """The metric with the judge's most probable level for its score, where it has levels."""
    if paired.levels is None:
        return paired
    return paired.judged_by(paired.values[np.argmax(paired.levels, axis=1)])


def nominal_agreement(paired: Paired, *, characters: bool = False, seed: int = 0) -> Agreement:
    """Exact agreement and Cohen's (1960) kappa with each rating; arguments as for ``metrics.agreement``.

    The constant predictor gives the most frequent rating.
    """
    paired = with_names_as_scores(paired.labelled)
    item, _, given = paired.one_by_one
    weights = paired.weights[item]
    over = paired.characters if characters else None
    resampler = Resampler(paired.groups, over, seed=seed)

    def exact(predicted: Floats) -> Estimate:
        return clustered_mean(
            (predicted == given).astype(float), paired.groups[item], weights, None if over is None else over[item]
        )

    def kappa(value: float, draws: Floats | None = None) -> Estimate:
        if not np.isfinite(value):
            return Estimate(None, reason=ALL_SAME)
        return Estimate(value) if draws is None else Estimate(value, *resampler.interval(value, draws))

    judge = paired.judge[item]
    draws = nominal_kappa_draws(judge, given, weights, resampler.at(item)) if resampler.is_enough else None
    kinds, place = np.unique(given, return_inverse=True)
    most_frequent = np.full(len(given), kinds[np.argmax(np.bincount(place, weights))])
    people = dict.fromkeys(("exact", "kappa"), Estimate(None, reason="no item has two ratings"))
    if paired.counts.max() > 1:
        one, other, each = pairs_of_ratings(paired)
        both = np.append(one, other), np.append(other, one), np.append(each, each)
        people = {
            "exact": Estimate(float(np.average(one == other, weights=each))),
            "kappa": kappa(nominal_kappa(*both)),
        }
    of_ratings = [name for name in RATING_MEASURES if name != "exact"]
    none = dict.fromkeys([*of_ratings, "bias", "mae", "rmse"], Estimate(None, reason=NOMINAL))
    no_order = dict.fromkeys(ASSOCIATIONS, Estimate(None, reason=NOMINAL))
    return Agreement(
        metric=paired.metric,
        items=len(paired.items),
        groups=len(np.unique(paired.groups)),
        sources=len(np.unique(paired.sources)),
        scale=paired.scale,
        step=None,
        off_step=0,
        is_nominal=True,
        judge={
            "exact": exact(judge),
            "kappa": kappa(nominal_kappa(judge, given, weights), draws),
            **none,
            **no_order,
        },
        constant={"exact": exact(most_frequent), **none},
        people=people | {"within_one": Estimate(None, reason=NOMINAL), "qwk": Estimate(None, reason=NOMINAL)},
        within=no_order,
        systems=no_order,
        strata=pd.DataFrame(columns=STRATA_COLUMNS),
    )


def without_order(found: Reliability) -> Reliability:
    """How well annotators agree, without what needs an order: only nominal alpha is left."""
    none = Estimate(None, reason=NOMINAL)
    return replace(
        found,
        alpha_ordinal=none,
        alpha_interval=none,
        ceiling=dict.fromkeys(STATISTICS, none),
        pairs=found.pairs.iloc[:0],
        annotators=found.annotators.iloc[:0],
    )
