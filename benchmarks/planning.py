"""What a plan is worth: ``python -m benchmarks.planning`` draws labels of HANNA's stories again and again.

All 1,056 stories of HANNA are rated, so the truth is known: some ratings are revealed as a plan says, the human mean of
every system is estimated from them and the judge, and put beside the mean of all ratings. The judge is the mean of
HANNA's five, and their disagreement its uncertainty. Beside the plan stand a simple random choice of as many stories, a
plan in two halves, the second of which knows the first's ratings, and a plan by a judge that is less sure the better
people like a story, whose labels mislead unless they are weighted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.pairing import Paired, pair
from calibration.planning import plan
from calibration.system_means import labelled_means
from calibration.tables import read_ratings, read_scores

BUDGET = 200
DRAWS = 200
PROMPTS = 96
"""Stories are numbered source by source; those of one prompt are a group."""

Chances = pd.Series
"""Inclusion probability of the items to be revealed, by item_id."""


def hanna_folder() -> Path:
    """Where HANNA's tables are looked for, as by the tests."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("ESRP_SHARED_DATA") or beside) / "human" / "hanna"


def hanna(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ratings and scores of HANNA, grouped by prompt."""
    ratings, scores = read_ratings(folder / "human.csv", None), read_scores(folder / "judge.csv", None)
    numbers = [table["item_id"].str.removeprefix("story").astype(int) for table in (ratings, scores)]
    prompts = [(number % PROMPTS).astype(str) for number in numbers]
    return ratings.assign(group=prompts[0]), scores.assign(group=prompts[1])


def panel(scores: pd.DataFrame) -> pd.DataFrame:
    """The mean of several judges: each gives its score to the two whole levels around it, p1..p5 are the means."""
    score = scores["score"].clip(1, 5).to_numpy()
    levels = np.clip(1 - np.abs(score[:, None] - np.arange(1, 6)), 0, 1)
    table = scores.drop(columns=["judge", "score"]).assign(**{f"p{level + 1}": levels[:, level] for level in range(5)})
    names = ["item_id", "source", "metric", "group"]
    means = table.groupby(names, sort=False)[[f"p{level}" for level in range(1, 6)]].mean().reset_index()
    return means.assign(score=means[[f"p{level}" for level in range(1, 6)]].to_numpy() @ np.arange(1, 6))


def at_random(ratings: pd.DataFrame, scores: pd.DataFrame, budget: int, seed: int) -> Chances:
    """Every item alike."""
    items = scores["item_id"].unique()
    chosen = np.random.default_rng(seed).choice(items, budget, replace=False)
    return pd.Series(budget / len(items), index=chosen)


def planned(ratings: pd.DataFrame, scores: pd.DataFrame, budget: int, seed: int) -> Chances:
    """As a plan says that knows no rating."""
    return plan(scores, budget, seed=seed).table.set_index("item_id")["inclusion_probability"]


def in_halves(ratings: pd.DataFrame, scores: pd.DataFrame, budget: int, seed: int) -> Chances:
    """As two plans say, the second of which knows the ratings of the first."""
    first = planned(ratings, scores, budget // 2, seed)
    known = ratings[ratings["item_id"].isin(first.index)]
    known = known.assign(inclusion_probability=known["item_id"].map(first))
    second = plan(scores, budget - budget // 2, ratings=known, seed=seed + 1)
    return second.together.set_index("item_id")["inclusion_probability"]


def leaning(ratings: pd.DataFrame, scores: pd.DataFrame, budget: int, seed: int) -> Chances:
    """As a plan says for a judge that is less sure of what people like: up to even odds of lowest and highest."""
    liked = ratings.groupby("item_id")["score"].mean().rank(pct=True) ** 2
    unsure = scores["item_id"].map(liked)
    ends = {1: 0.5, 5: 0.5}
    levels = {f"p{k}": scores[f"p{k}"] * (1 - unsure) + ends.get(k, 0.0) * unsure for k in range(1, 6)}
    return planned(ratings, scores.assign(**levels), budget, seed)


WAYS: dict[str, Callable[[pd.DataFrame, pd.DataFrame, int, int], Chances]] = {
    "simple random": at_random,
    "plan": planned,
    "plan in two halves": in_halves,
    "plan by a leaning judge": leaning,
}


def reveal(paired: Paired, chances: Chances, weighted: bool = True) -> Paired:
    """Only the ratings of some items, with their weights (or weights of 1)."""
    shown = pd.Series(paired.items).map(chances).to_numpy(float)
    ratings = np.where(np.isfinite(shown)[:, None], paired.ratings, np.nan)
    weights = np.where(np.isfinite(shown), 1 / shown, 1.0) if weighted else np.ones(len(shown))
    return replace(paired, ratings=ratings, weights=weights)


def simulate(ratings: pd.DataFrame, scores: pd.DataFrame, budget: int, draws: int, ways: list[str]) -> pd.DataFrame:
    """A row a way, weighting, draw, metric and source: truth, mean, low, high."""
    metrics = pair(ratings, scores).metrics
    truths = {name: pd.Series(one.human).groupby(pd.Index(one.sources)).mean() for name, one in metrics.items()}
    tables = []
    for draw in range(draws):
        for way in ways:
            chances = WAYS[way](ratings, scores, budget, 2 * draw)
            for weighted in (True, False) if way == "plan by a leaning judge" else (True,):
                for name, one in metrics.items():
                    table = labelled_means(reveal(one, chances, weighted))[["source", "mean", "low", "high"]]
                    table = table.assign(truth=table["source"].map(truths[name]), metric=name, draw=draw)
                    tables.append(table.assign(way=way if weighted else f"{way}, weights left out"))
    return pd.concat(tables, ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a way: the widest interval of a metric's systems, the bias, the coverage of the mean of all ratings.

    A system without an interval counts as infinitely wide. ``bias_z`` is the mean error over its standard error.
    """
    half = ((table["high"] - table["low"]) / 2).fillna(np.inf)
    table = table.assign(half=half, error=table["mean"] - table["truth"])
    rows = {}
    for way, one in table.groupby("way", sort=False):
        widest = one.groupby(["draw", "metric"])["half"].max()
        each = one.groupby("draw")["error"].mean()
        known = one[np.isfinite(one["half"])]
        rows[way] = {
            "widest_median": widest.median(), "widest_90%": widest.quantile(0.9),
            "no_interval": float(np.isinf(one["half"]).mean()), "half_mean": known["half"].mean(),
            "rmse": float(np.sqrt((one["error"] ** 2).mean())), "bias": each.mean(),
            "bias_z": each.mean() / (each.std(ddof=1) / np.sqrt(len(each))),
            "coverage": float((known["error"].abs() <= known["half"]).mean()),
        }  # fmt: skip
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=hanna_folder(), help="the folder of HANNA's tables")
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--draws", type=int, default=DRAWS)
    options = parser.parse_args()
    ratings, scores = hanna(options.data)
    table = simulate(ratings, panel(scores), options.budget, options.draws, list(WAYS))
    print(f"{options.budget} of {scores['item_id'].nunique()} stories, {options.draws} draws")
    print(summary(table).round(3).to_string())


if __name__ == "__main__":
    main()
