"""What a small judge reaches on public human ratings: asked as it is, calibrated, trained, and trained and calibrated.

``python -m benchmarks.human_agreement FOLDER`` works in a folder, where what is done is not done again. Conversations
are put into folds. A calibration is fitted, and a judge trained, on the conversations of the other folds, and all four
are measured on the same held-out dialogues, beside a constant (the mean rating of the other folds) and annotators among
themselves. A calibration of the trained judge is fitted on those conversations of the other folds that ``train`` kept
for its own validation and figures, since on what it learned from it is surer than on anything new. Correlations are
taken within each fold and averaged: pooled over folds, each of which has a judge and a map of its own, they would be
lower for no fault of a judge.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.human_data import RatedSet, rated_set, rubrics
from calibration import Pairing, fit_calibration, pair
from calibration.agreement.reliability import ceiling
from calibration.calibrators.cross_validation import group_folds
from calibration.pairing import Paired
from calibration.stats.correlation import spearman, spearman_draws
from calibration.stats.intervals import Estimate, Floats, Resampler
from judge import Options, TrainOptions, load_rubric, load_scores, score, train
from judge.progress import Silent
from tests.helpers.real_models import smollm2

JUDGES = ("zero-shot", "calibrated", "trained", "trained, calibrated")

GAINS = (("trained", "zero-shot"), ("trained", "calibrated"))


class Noting(Silent):
    """Prints how each epoch of a training ended."""

    def note(self, text: str) -> None:
        print(f"  {text}", flush=True)


@dataclass(frozen=True, slots=True)
class Setting:
    """How the benchmark is run."""

    folder: Path
    judge: str
    folds: int
    """Into how many folds conversations are put."""
    taken: int
    """How many of them are held out, one after the other."""
    how: TrainOptions


@dataclass(frozen=True, slots=True)
class Line:
    """One metric, or the mean over all of them (``all``), on all held-out dialogues."""

    metric: str
    dialogues: int
    spearman: dict[str, float]
    """Of each judge with the mean ratings, and under ``annotators`` the human ceiling."""
    gains: dict[str, Estimate]
    """``A less B`` of two judges' Spearman, with its paired interval over conversations."""
    error: dict[str, float]
    """Mean absolute error, as a share of the scale: of each judge, and under ``constant`` of the mean rating."""


def of_groups(table: pd.DataFrame, given: RatedSet, groups: Sequence[str]) -> pd.DataFrame:
    """The rows of some conversations, each with its conversation as group."""
    group = table["item_id"].map(dict(zip(given.ratings["item_id"], given.ratings["group"], strict=True)))
    return table.assign(group=group)[group.isin(groups)].reset_index(drop=True)


def scored(setting: Setting, given: RatedSet, judge: str, run: str, groups: Sequence[str]) -> pd.DataFrame:
    """A judge's scores of the dialogues of some conversations."""
    folder = setting.folder / f"{given.name}-{run}"
    dialogues = folder.with_suffix(".jsonl")
    lines = given.dialogues.read_text(encoding="utf-8").splitlines(keepends=True)
    wanted = {item.rpartition("/")[2] for item in of_groups(given.ratings, given, groups)["item_id"]}
    dialogues.write_text("".join(one for one in lines if json.loads(one)["scenario"] in wanted), encoding="utf-8")
    # What the judge answers with is measured here, so that one that hardly answers with a level is not refused.
    score([dialogues], Options(judge=judge, rubric=given.rubric, run=folder, engine="packed", min_mass=0.0))
    return of_groups(load_scores(folder), given, groups)


def calibrated(given: RatedSet, ratings: pd.DataFrame, known: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Scores of ``asked`` by maps that are fitted on ratings of ``known``."""
    scales = load_rubric(None, given.rubric).scheme.scales
    fitted = fit_calibration(pair(ratings, known, scale=scales), judge_id="judge")
    found = fitted.predict(asked)
    return asked.merge(found[["item_id", "metric", "calibrated"]]).assign(score=lambda rows: rows["calibrated"])


def trained_judge(setting: Setting, given: RatedSet, fold: int, ratings: pd.DataFrame) -> tuple[Path, list[str]]:
    """A judge trained on some ratings, and the conversations of these that it did not learn from."""
    judge = setting.folder / f"{given.name}-judge-{fold}"
    if not judge.exists():
        table = judge.with_suffix(".csv")
        ratings.to_csv(table, index=False)
        options = Options(judge=setting.judge, rubric=given.rubric)
        train([given.dialogues], table, judge, options, setting.how, Noting())
    split = json.loads((judge / "training.json").read_text(encoding="utf-8"))["split"]
    return judge, [*split["validation_groups"], *split["held_out_groups"]]


def held_out_scores(setting: Setting, given: RatedSet) -> list[dict[str, Pairing]]:
    """For each fold what every judge, and the constant, says of its dialogues, beside their ratings."""
    scales = load_rubric(None, given.rubric).scheme.scales
    groups = np.array(sorted(given.ratings["group"].unique()), dtype=object)
    folds = group_folds(groups, setting.how.seed, setting.folds)
    zero_shot = scored(setting, given, setting.judge, "zero-shot", list(groups))
    found = []
    for fold in range(setting.taken):
        rest, held = list(groups[folds != fold]), list(groups[folds == fold])
        known, asked = of_groups(given.ratings, given, rest), of_groups(given.ratings, given, held)
        before = of_groups(zero_shot, given, held)
        judge, watched = trained_judge(setting, given, fold, known)
        after = scored(setting, given, str(judge), f"trained-{fold}", [*watched, *held])
        new = of_groups(after, given, held)
        means = known.groupby("metric")["score"].mean()
        tables = {
            "zero-shot": before,
            "calibrated": calibrated(given, known, of_groups(zero_shot, given, rest), before),
            "trained": new,
            "trained, calibrated": calibrated(
                given, of_groups(known, given, watched), of_groups(after, given, watched), new
            ),
            "constant": before.assign(score=before["metric"].map(means)),
        }
        keep = ["item_id", "source", "metric", "score", "group"]
        found.append({name: pair(asked, one[keep], scale=scales) for name, one in tables.items()})
    return found


def lines_of(given: RatedSet, folds: Sequence[dict[str, Pairing]], seed: int) -> list[Line]:
    """The mean over metrics, and then each metric."""
    metrics = list(folds[0]["zero-shot"].metrics)
    values, draws = correlations(folds, metrics, seed)
    lines = []
    for metric in ("all", *metrics):
        some = metrics if metric == "all" else [metric]
        chosen = [metrics.index(one) for one in some]
        of = {judge: float(values[judge][chosen].mean()) for judge in JUDGES}
        gains = {}
        for one, other in GAINS:
            low, high = np.nanquantile((draws[one] - draws[other])[chosen].mean(axis=0), [0.025, 0.975])
            gains[f"{one} less {other}"] = Estimate(of[one] - of[other], float(low), float(high))
        top = float(np.mean([_ceiling(given, folds, one) for one in some]))
        error = {name: float(np.mean([_error(folds, name, one) for one in some])) for name in ("constant", *JUDGES)}
        dialogues = max(sum(len(fold["zero-shot"].metrics[one].items) for fold in folds) for one in some)
        lines.append(Line(metric, dialogues, {"annotators": top, **of}, gains, error))
    return lines


def correlations(
    folds: Sequence[dict[str, Pairing]], metrics: Sequence[str], seed: int
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Spearman's correlation of each judge by metric, the mean over folds; and the same in draws of conversations.

    Shapes (metrics,) and (metrics, draws). A judge that says the same of all dialogues ranks nothing, which counts as
    0. Folds in which all ratings of a metric are equal are left out for all judges.
    """
    values: dict[str, list[Floats]] = {judge: [] for judge in JUDGES}
    draws: dict[str, list[Floats]] = {judge: [] for judge in JUDGES}
    for number, fold in enumerate(folds):
        # The same draws of conversations for all judges and metrics: what is hard for all is no part of a difference.
        both = [pd.Series(one.groups, one.items) for one in fold["zero-shot"].metrics.values()]
        items = pd.concat(both).groupby(level=0).first()
        resampler = Resampler(items.to_numpy(object), seed=seed + number)
        for judge in JUDGES:
            sides = [fold[judge].metrics[metric] for metric in metrics]
            values[judge].append(
                np.array([_or_nothing(one, spearman(one.judge, one.human, one.weights)) for one in sides])
            )
            drawn = [resampler.at(items.index.get_indexer(pd.Index(one.items))) for one in sides]
            each = [
                spearman_draws(one.judge, one.human, one.weights, draw) for one, draw in zip(sides, drawn, strict=True)
            ]
            draws[judge].append(np.stack([_or_nothing(one, draw) for one, draw in zip(sides, each, strict=True)]))
    means = ({judge: _mean(some) for judge, some in of.items()} for of in (values, draws))
    return next(means), next(means)


def _or_nothing(paired: Paired, found: Floats) -> Floats:
    """Correlations, or 0 where the judge says the same of all dialogues and annotators do not."""
    is_constant = np.ptp(paired.judge) < 1e-9 < np.ptp(paired.human)
    return np.zeros_like(found) if is_constant else found


def _mean(folds: Sequence[Floats]) -> Floats:
    """The mean over the folds in which something is defined; NaN where nothing is."""
    known = np.ma.masked_invalid(np.stack(folds))
    return np.asarray(known.mean(axis=0).filled(np.nan))


def _error(folds: Sequence[dict[str, Pairing]], name: str, metric: str) -> float:
    """Mean absolute error on one metric as a share of its scale."""
    sides = [fold[name].metrics[metric] for fold in folds]
    low, high = sides[0].scale
    return float(np.mean(np.concatenate([np.abs(one.judge - one.human) for one in sides]))) / (high - low)


def _ceiling(given: RatedSet, folds: Sequence[dict[str, Pairing]], metric: str) -> float:
    """An annotator against the mean of the others, on average, on all held-out dialogues of a metric."""
    items = {item for fold in folds for item in fold["zero-shot"].metrics[metric].items}
    own = given.ratings[given.ratings["item_id"].isin(items) & (given.ratings["metric"] == metric)]
    paired = pair(own, own.drop_duplicates("item_id").drop(columns="annotator")).metrics[metric]
    value = ceiling(paired, Resampler(paired.groups))["spearman"].value
    return float("nan") if value is None else value


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The table of some results, a data set's mean over metrics in bold above its metrics."""
    heads = ["", "dialogues", "annotators", *JUDGES, *(f"{a} less {b}" for a, b in GAINS), "error: constant", *JUDGES]
    rows = [heads, ["---", *["--:"] * (len(heads) - 1)]]
    for result in results:
        for line in result["lines"]:
            bold = "**" if line["metric"] == "all" else ""
            cells = [result["set"] if bold else line["metric"].replace("_", " "), str(line["dialogues"])]
            cells += [f"{value:.2f}" for value in line["spearman"].values()]
            cells += [
                f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})" for one in line["gains"].values()
            ]
            cells += [f"{value:.1%}" for value in line["error"].values()]
            rows.append([f"{bold}{cell}{bold}" for cell in cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where runs, judges and results are kept")
    parser.add_argument("--sets", nargs="*", default=[name for name in rubrics() if name != "texts"])
    parser.add_argument("--judge", help="model folder or GGUF file; SmolLM2-135M-Instruct where none is named")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--taken", type=int, help="hold out only so many of the folds")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    how = TrainOptions("lora", given.epochs, given.rate, batch_tokens=4000, held_out=0.1, seed=given.seed)
    setting = Setting(given.folder, given.judge or str(smollm2()), given.folds, given.taken or given.folds, how)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        started = time.monotonic()
        data = rated_set(name, given.folder)
        lines = lines_of(data, held_out_scores(setting, data), given.seed)
        result = {
            "set": name,
            "conversations": data.ratings["group"].nunique(),
            "folds": setting.folds,
            "held_out_folds": setting.taken,
            "training": how.that_matter,
            "seconds": round(time.monotonic() - started),
            "lines": [asdict(line) for line in lines],
        }
        (given.folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    there = [given.folder / f"{name}.json" for name in rubrics()]
    print(markdown([json.loads(path.read_text(encoding="utf-8")) for path in there if path.is_file()]))


if __name__ == "__main__":
    main()
