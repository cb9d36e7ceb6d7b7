"""Coverage of the confidence intervals where the truth is known: ``python -m benchmarks.coverage``.

On simulated data: human ratings and a judge's scores share effects of groups (scenarios) and of items; some items, or
all items of some groups, are rated. Naive intervals that take items for independent are measured for comparison. On
HANNA: each of 11 systems is left out, on 6 metrics by 5 judges, and the human mean of all its ratings is the truth.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.planning import hanna, hanna_folder
from calibration.pairing import pair
from calibration.stats.intervals import Estimate, Floats, clustered_mean
from calibration.stats.prediction_powered import powered_mean
from calibration.system_means import JUDGE_MEAN, NEW_SYSTEM, estimate

SETS = 2000
PEOPLE, JUDGE = 3.0, 3.3
"""The true means of ratings and of scores."""


@dataclass(frozen=True, slots=True)
class Case:
    """``groups`` of ``size`` items; ``labels`` of them rated: at random, by unequal chances, or whole groups.

    The judge ``sees`` so much of what ratings have in common, and errs by group with an SD of ``leaning``.
    """

    groups: int
    size: int
    labels: int
    how: str = "items"
    sees: float = 0.6
    leaning: float = 0.4


CASES = [
    Case(60, 10, 150), Case(60, 10, 60), Case(60, 10, 150, "unequal"), Case(60, 10, 120, "groups"),
    Case(20, 10, 60), Case(12, 10, 60), Case(8, 10, 40), Case(8, 10, 16),
    Case(60, 10, 120, "groups", leaning=1.0), Case(60, 10, 150, sees=0), Case(12, 10, 60, sees=0),
    Case(8, 10, 40, sees=0),
]  # fmt: skip


def draw(case: Case, generator: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.intp], Floats]:
    """human (NaN where not rated), judge, groups, weights: shape (items,) each."""
    group = np.repeat(np.arange(case.groups), case.size)
    shared, leaning = generator.normal(0, [[0.5], [case.leaning]], (2, case.groups))
    quality = shared[group] + generator.normal(0, 0.7, len(group))
    human = PEOPLE + quality + generator.normal(0, 0.5, len(group))
    judge = JUDGE + case.sees * quality + leaning[group] + generator.normal(0, 0.4, len(group))
    # Even chances, or three times as high ones for what the judge likes.
    sizes = np.where((judge > JUDGE) & (case.how == "unequal"), 3.0, 1.0)
    chances = sizes / sizes.sum() * case.labels
    if case.how == "groups":
        chosen = np.isin(group, generator.choice(case.groups, case.labels // case.size, replace=False))
    else:  # systematic sampling: points at equal distances on the sum of the chances, in random order
        points = (generator.random() + np.arange(case.labels)) * chances.sum() / case.labels
        order = generator.permutation(len(group))
        chosen = np.isin(np.arange(len(group)), order[np.searchsorted(np.cumsum(chances[order]), points)])
    return np.where(chosen, human, np.nan), judge, group, 1 / chances


def intervals(case: Case, generator: np.random.Generator) -> dict[str, tuple[Estimate, float]]:
    """The intervals of one data set, each with its truth."""
    human, judge, group, weights = draw(case, generator)
    items = np.arange(len(judge))
    naive = powered_mean(human, judge)
    return {
        "judge mean": (clustered_mean(judge, group), JUDGE),
        "judge mean, items independent": (clustered_mean(judge, items), JUDGE),
        "prediction-powered": (powered_mean(human, judge, group, weights=weights).estimate, PEOPLE),
        "ratings alone": (powered_mean(human, judge, group, weights=weights, lambda_=0).estimate, PEOPLE),
        "prediction-powered, items independent": (naive.estimate, PEOPLE),
    }


def coverage(case: Case, sets: int, seed: int = 0) -> pd.DataFrame:
    """A row a kind of interval: how often it covers its truth, its mean half-width, how often it is given."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(sets):
        for kind, (mean, truth) in intervals(case, generator).items():
            if mean.low is None or mean.high is None:
                rows.append((kind, np.nan, np.nan, 0.0))
            else:
                rows.append((kind, float(mean.low <= truth <= mean.high), (mean.high - mean.low) / 2, 1.0))
    table = pd.DataFrame(rows, columns=["interval", "covers", "half_width", "given"])
    return table.groupby("interval", sort=False).mean()


def leaving_one_out(folder: Path) -> pd.DataFrame:
    """A row a judge, metric, system of HANNA and interval: whether it covers the human mean, its half-width.

    *scenario only* is the judge mean's interval; *shifted* the same, moved by how judge and people differ elsewhere.
    """
    ratings, scores = hanna(folder)
    truth = ratings.groupby(["metric", "source"])["score"].mean().rename("truth").reset_index()
    tables = []
    for judge in sorted(set(scores["judge"])):
        table = estimate(pair(ratings, scores, judge=judge)).merge(truth).assign(judge=judge)
        by_target = table.set_index(["target", "metric", "source"])
        own, new = by_target.loc[JUDGE_MEAN], by_target.loc[NEW_SYSTEM]
        shift = new["mean"] - own["mean"]
        moved = own.assign(low=own["low"] + shift, high=own["high"] + shift)
        kinds = {"new system": new, "scenario only": own, "scenario only, shifted": moved}
        tables += [one.assign(interval=kind).reset_index() for kind, one in kinds.items()]
    table = pd.concat(tables, ignore_index=True)
    covers = table["truth"].between(table["low"], table["high"])
    return table.assign(covers=covers, half_width=(table["high"] - table["low"]) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS, help="simulated data sets a case")
    parser.add_argument("--data", type=Path, default=hanna_folder(), help="the folder of HANNA's tables")
    options = parser.parse_args()
    for case in CASES:
        print(f"\n{case}: nominal 95%, {options.sets:,} data sets")
        print(coverage(case, options.sets).round(3).to_string(), flush=True)
    if not options.data.is_dir():
        print(f"\nno HANNA at {options.data}: set ESRP_SHARED_DATA, or give --data")
        return
    table = leaving_one_out(options.data)
    spread = table.drop_duplicates(["metric", "source"]).groupby("metric")["truth"].std().mean()
    print(f"\nHANNA, one system left out: {len(table) // 3} cases; human means of systems have SD {spread:.2f}")
    print(table.groupby("interval")[["covers", "half_width"]].mean().round(3).to_string())


if __name__ == "__main__":
    main()
