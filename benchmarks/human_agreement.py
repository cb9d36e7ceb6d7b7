"""What a small judge reaches on public human ratings: as it is, calibrated, trained, and trained and calibrated.

``python -m benchmarks.human_agreement FOLDER`` works in a folder, where what is done is not done again. Conversations
are put into folds, and for each a judge is trained on the conversations of the others. All judges are measured on the
same held-out dialogues, as ``train`` measures its own: the base is calibrated on the other folds, the trained judge on
those conversations of the other folds that it did not learn from, since on what it learned from it is nearer to people
than it will ever be again.
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
from calibration import fit_calibration, pair
from calibration.agreement.metrics import agreement
from calibration.agreement.reliability import ceiling
from calibration.calibrators.cross_validation import group_folds
from calibration.stats.intervals import Estimate, Resampler
from judge import Options, TrainOptions, load_rubric, load_scores, score, train
from judge.progress import Silent
from judge.training.figures import SCENARIOS, Figure, figures_of
from judge.training.tables import TextTable, number, tables_of
from tests.helpers.real_models import smollm2


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
    # How well the judge answers is what is measured, so one that hardly answers with a level is not refused.
    score([dialogues], Options(judge=judge, rubric=given.rubric, run=folder, engine="packed", min_mass=0.0))
    return of_groups(load_scores(folder), given, groups)


def calibrated(given: RatedSet, known: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """The scores of ``asked`` by maps that are fitted on the scores of ``known``."""
    scales = load_rubric(None, given.rubric).scheme.scales
    ratings = given.ratings[given.ratings["item_id"].isin(known["item_id"])]
    found = fit_calibration(pair(ratings, known, scale=scales), judge_id="judge").predict(asked)
    together = asked.merge(found[["item_id", "metric", "calibrated"]], on=["item_id", "metric"])
    return together[["item_id", "source", "metric", "group"]].assign(score=together["calibrated"])


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


def base_alone(given: RatedSet, base: pd.DataFrame) -> list[dict[str, Any]]:
    """How the base agrees on all dialogues, a metric each: its Spearman, that of annotators, and mean absolute errors.

    The constant is the mean rating of the same dialogues, so it does a little better than it would on new ones.
    """
    rows = []
    for metric, one in pair(given.ratings, base, scale=load_rubric(None, given.rubric).scheme.scales).metrics.items():
        found, people = agreement(one), ceiling(one, Resampler(one.groups))["spearman"]
        errors = {"base_error": found.judge["mae"], "constant_error": found.constant["mae"]}
        both = {"spearman": found.judge["spearman"], "people": people, **errors}
        rows.append({"metric": metric, "dialogues": found.items, **{name: asdict(each) for name, each in both.items()}})
    return rows


def base_table(given: RatedSet, rows: Sequence[dict[str, Any]]) -> str:
    """The table of ``base_alone``, the mean of all metrics in bold."""
    names = ("spearman", "people", "base_error", "constant_error")
    cells = [[row["metric"], str(row["dialogues"]), *(number(row[name]["value"]) for name in names)] for row in rows]
    means = [number(float(np.mean([row[name]["value"] for row in rows]))) for name in names]
    heads = ("metric", "dialogues", "base", "people", "error of base", "error of constant")
    title = "Base alone, on all dialogues: Spearman with the mean human ratings, mean absolute error in points"
    return markdown(given, TextTable(title, heads, (*map(tuple, cells), ("mean of metrics", cells[0][1], *means))))


def figures(setting: Setting, given: RatedSet, base: pd.DataFrame) -> list[Figure]:
    """All judges side by side on the dialogues of all folds that are held out."""
    scales = load_rubric(None, given.rubric).scheme.scales
    groups = np.array(sorted(given.ratings["group"].unique()), dtype=object)
    folds = group_folds(groups, setting.how.seed, setting.folds)
    found = []
    for fold in range(setting.taken):
        held, rest = list(groups[folds == fold]), list(groups[folds != fold])
        judge, watched = trained_judge(setting, given, fold, of_groups(given.ratings, given, rest))
        trained = scored(setting, given, str(judge), f"trained-{fold}", [*watched, *held])
        said = {}
        for name, scores, known in (("base", base, rest), ("trained", trained, watched)):
            asked = of_groups(scores, given, held)
            said[name] = asked
            said[f"calibrated {name}"] = calibrated(given, of_groups(scores, given, known), asked)
        asked = of_groups(given.ratings, given, held)
        judges = {name: pair(asked, scores, scale=scales) for name, scores in said.items()}
        known = pair(of_groups(given.ratings, given, rest), base, scale=scales)
        found.append(figures_of(judges, known, SCENARIOS, asked["item_id"].unique(), setting.how.seed + fold))
    return [averaged(rows) if len(found) > 1 else rows[0] for rows in zip(*found, strict=True)]


def averaged(folds: Sequence[Figure]) -> Figure:
    """One metric on all folds: means over folds, each of which has a judge and maps of its own.

    Correlations are not pooled: those of a map would fall below 0, as the other folds lie high where a fold lies low.
    """

    def mean(field: str) -> dict[str, float | None]:
        some = pd.DataFrame([getattr(one, field) for one in folds], dtype=float).mean()
        return {str(name): None if np.isnan(value) else float(value) for name, value in some.items()}

    first = folds[0]
    gains = {name: _mean_of([one.gains[name] for one in folds if name in one.gains]) for name in first.gains}
    ceiling_of = _mean_of([one.ceiling for one in folds])
    counts = sum(one.dialogues for one in folds), sum(one.groups for one in folds)
    return Figure(
        first.about, first.metric, *counts, mean("spearman"), gains, ceiling_of, mean("errors"), mean("means")
    )


def _mean_of(folds: Sequence[Estimate]) -> Estimate:
    """The mean of what independent folds give, where they give something; its interval is as wide as theirs tell."""
    known = [one for one in folds if one.value is not None]
    if not known:
        return folds[0]
    value = float(np.mean([one.value for one in known]))
    halves = [(one.high - one.low) / 2 for one in known if one.low is not None and one.high is not None]
    if len(halves) < len(known):
        return Estimate(value)
    half = float(np.sqrt(np.sum(np.square(halves)))) / len(known)
    return Estimate(value, value - half, value + half)


def markdown(given: RatedSet, table: TextTable) -> str:
    """A table of one data set, its last line, the mean of all metrics, in bold."""
    *rows, mean = table.rows
    lines = [table.heads, ["---"] * len(table.heads), *rows, [f"**{cell}**" for cell in mean]]
    return "\n".join([f"\n{given.name}. {table.title}\n", *(f"| {' | '.join(line)} |" for line in lines)])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where runs, judges and results are kept")
    parser.add_argument("--sets", nargs="*", default=[name for name in rubrics() if name != "texts"])
    parser.add_argument("--judge", help="model folder or GGUF file; SmolLM2-135M-Instruct where none is named")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--taken", type=int, help="hold out only so many of the folds; 0 trains nothing")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    how = TrainOptions("lora", given.epochs, given.rate, batch_tokens=4000, held_out=0.1, seed=given.seed)
    taken = given.folds if given.taken is None else given.taken
    setting = Setting(given.folder, given.judge or str(smollm2()), given.folds, taken, how)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        started = time.monotonic()
        data = rated_set(name, given.folder)
        groups = sorted(data.ratings["group"].unique())
        base = scored(setting, data, setting.judge, "base", groups)
        alone, found = base_alone(data, base), figures(setting, data, base) if setting.taken else []
        result: dict[str, Any] = {
            "conversations": len(groups),
            "folds": setting.folds,
            "held_out_folds": setting.taken,
            "training": how.that_matter,
            "seconds": round(time.monotonic() - started),
            "base_alone": alone,
            "figures": [asdict(one) for one in found],
        }
        (given.folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        tables = [base_table(data, alone), *(markdown(data, table) for table in tables_of(found, None))]
        print("\n".join(tables), flush=True)


if __name__ == "__main__":
    main()
