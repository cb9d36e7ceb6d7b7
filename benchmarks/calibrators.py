"""Calibrators on people's ratings, each system left out: ``python -m benchmarks.calibrators``.

On LLM-Rubric (Hashemi et al. 2024), whose dialogues five versions of a system wrote: everything, the choice of the map
included, is learned from four versions, and the fifth is predicted. *default* is the map that is chosen.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.planning import hanna_folder
from calibration.calibrators.cross_validation import group_folds
from calibration.calibrators.features import training
from calibration.calibrators.maps import KINDS
from calibration.calibrators.model_selection import jackknife, select
from calibration.pairing import Pairing, pair
from calibration.stats.correlation import spearman
from calibration.stats.intervals import Floats, codes
from calibration.tables import read_ratings, read_scores

MAPS = ("raw", "linear", "ordinal", "raters", "default")


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a map says of items that it was not fitted on."""

    items: Floats
    """Shape (items,): the mean rating."""
    ratings: Floats
    """Shape (ratings,): each rating, its annotator named."""


def llm_rubric(folder: Path) -> Pairing:
    """The ratings and scores, a version of the system as the source of its dialogues."""
    ratings = read_ratings(folder / "human.csv", (1, 4), repeats="keep")
    version = ratings["item_id"].str.extract(r":(V\d)_", expand=False)
    scores = read_scores(folder / "judge.csv", (1, 4), source=dict(zip(ratings["item_id"], version, strict=True)))
    return pair(ratings.assign(source=version), scores, scale=(1, 4))


def left_out(pairing: Pairing, metric: str, split: str, seed: int) -> dict[str, Predicted]:
    """Predictions of each map by versions left out, or by five folds of dialogues."""
    paired, items, ratings = training(pairing, metric)
    folds = codes(paired.sources) if split == "versions" else group_folds(paired.groups, seed)
    found = {name: Predicted(paired.judge.copy(), paired.judge[ratings.item].copy()) for name in MAPS}
    for fold in np.unique(folds):
        held = folds == fold
        of_held = ratings.of(held)
        names = [ratings.annotators[place] for place in ratings.annotator[of_held]]
        known = set(paired.items[~held])
        rest = {name: one.at(np.array([item in known for item in one.items])) for name, one in pairing.metrics.items()}
        choice = select(Pairing(None, rest, pairing.unjudged, pairing.missing, {}, ()), metric, seed=seed)
        for name in MAPS[1:]:
            kinds = (choice.chosen, choice.chosen_named) if name == "default" else (name, name)
            fitted = [KINDS[kind](paired.scale, seed).fit(items.at(~held), ratings.at(~held)) for kind in kinds]
            found[name].items[held] = fitted[0].predict(items.at(held))
            found[name].ratings[of_held] = fitted[1].predict(items.at(ratings.item[of_held]), names)
    return found


def table(pairing: Pairing, metric: str, split: str, seeds: int) -> pd.DataFrame:
    """A row a map and seed: RMSE and Spearman of mean ratings, RMSE of ratings by name; errors by jackknife."""
    paired, _, ratings = training(pairing, metric)
    labels = paired.sources if split == "versions" else paired.groups
    rows = []
    for seed in range(seeds):
        found = left_out(pairing, metric, split, seed)
        line = (found["linear"].items - ratings.mean) ** 2
        for name, one in found.items():
            error, each = (one.items - ratings.mean) ** 2, (one.ratings - ratings.scores) ** 2
            worse = error - line
            se = jackknife(lambda kept, values=worse: float(values[kept].mean()), labels)
            row = {
                "map": name,
                "seed": seed,
                "rmse": error.mean() ** 0.5,
                "se": jackknife(lambda kept, values=error: float(values[kept].mean() ** 0.5), labels),
                "spearman": float(spearman(one.items, ratings.mean, np.ones(len(error)))),
                "rmse_ratings": each.mean() ** 0.5,
                "worse_than_line_in_se": worse.mean() / se if se else 0.0,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=hanna_folder().parent / "llm_rubric", help="LLM-Rubric's tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--metrics", nargs="*", default=["Q0"], help="questions, Q0 to Q8")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"no LLM-Rubric at {options.data}: set ESRP_SHARED_DATA, or give --data")
    pairing = llm_rubric(options.data)
    for metric in options.metrics:
        for split in ("versions", "dialogues"):
            print(f"\n{metric}, {split} left out")
            print(table(pairing, metric, split, options.seeds).round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
