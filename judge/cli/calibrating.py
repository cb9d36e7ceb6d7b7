"""What ``calibrate`` and ``score --calibration`` do and show: maps to people's scale, fitted, checked and applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.text import Text

from calibration import Calibration, CalibrationError, Pairing, TableError, fit_calibration
from calibration.calibrators.anchors import Drift
from calibration.calibrators.maps import KINDS
from calibration.matching import one_judge
from judge.anchors import frozen, rescored
from judge.cli.common import as_json_text, write_csv
from judge.cli.inputs import is_run, read_judge_scores
from judge.errors import InputError
from judge.files import replacing, sha256
from judge.judging import Judge
from judge.run import data_files
from judge.store import CALIBRATED, CALIBRATED_KEY, load_judgments, read_manifest, scores_of
from judge.summary import scores_table
from judge.terminal import console, line, plain_table
from judge.types import METRICS

if TYPE_CHECKING:
    from calibration import FittedMetric

CALIBRATED_SCORES = "scores_calibrated.csv"
CALIBRATED_COLUMNS = ["calibrated", "low", "high", "in_range"]
LEGEND = """map: the simplest within one standard error of the best, by the way of leaving out that is named below
RMSE: root mean squared difference from the mean rating of items left out, of the map, of the judge as it is, and
of saying the same of every item; spread: SD of the sources' calibrated means over that of their human means"""


def fit(scores: Path, pairing: Pairing, maps: tuple[str, ...], seed: int) -> tuple[Calibration, list[str]]:
    """A calibration of a run's or a table's judge, and what the user should know of it."""
    if unknown := [name for name in maps if name not in KINDS]:
        raise InputError(f"--maps {', '.join(unknown)}: there is none such; choose from {', '.join(KINDS)}")
    kinds = maps or None
    if not is_run(scores):
        return fit_calibration(pairing, judge_id=pairing.judge or scores.name, kinds=kinds, seed=seed), []
    manifest = read_manifest(scores)
    judge_id, identity = manifest["judge"]["judge_id"], manifest["identity"]
    fitted = fit_calibration(pairing, judge_id=judge_id, identity=identity, kinds=kinds, seed=seed)
    return _with_dialogues(fitted, data_files(manifest["data"]["paths"]))


def _with_dialogues(fitted: Calibration, data: list[Path]) -> tuple[Calibration, list[str]]:
    """The calibration with its anchor dialogues, which a later run scores again."""
    items = {item for item, _, _ in fitted.anchor}
    try:
        kept = frozen(data, items)
    except InputError as error:
        kept, reason = {}, f" ({error})"
    else:
        reason = ""
    if len(kept) == len(items):
        return replace(fitted, dialogues=kept), []
    lost = f"{len(items) - len(kept)} of {len(items)} anchor dialogues are not where the run read them{reason}"
    return replace(fitted, dialogues=kept), [f"{lost}; whether the judge moves cannot be seen by those"]


def save(calibration: Calibration, path: Path) -> None:
    """Write the file; InputError where it cannot be written."""
    try:
        calibration.save(path)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror}); name another file") from error


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration to be applied to a run: from which file, and who is told how it went."""

    calibration: Calibration
    path: Path
    note: Callable[[str], None]

    @classmethod
    def load(cls, path: Path, note: Callable[[str], None]) -> Calibrated:
        """From a file; InputError where it is no calibration."""
        try:
            return cls(Calibration.load(path), path, note)
        except CalibrationError as error:
            raise InputError(f"--calibration {error}") from error

    def check(self, judge: Judge) -> None:
        """Refuse a judge that is not the calibration's, or has moved since, by an InputError."""
        try:
            self.calibration.refuse_another(judge.identity.judge_id, asdict(judge.identity))
            if self.calibration.dialogues:
                self._check_drift(judge)
            else:
                self.note("the calibration keeps no dialogues: whether the judge has moved since cannot be seen")
        except CalibrationError as error:
            raise InputError(f"--calibration {self.path}: {error}") from error

    def _check_drift(self, judge: Judge) -> None:
        drift = refuse_moved(self.calibration, rescored(judge, self.calibration.dialogues))
        largest = max(drift.largest.values())
        self.note(f"calibration: {drift.compared} anchor judgments are as they were, to within {largest:.1g}")

    def _predicted(self, scores: pd.DataFrame) -> pd.DataFrame:
        try:
            return self.calibration.predict(scores)
        except CalibrationError as error:
            raise InputError(f"--calibration {self.path}: {error}") from error

    def apply(self, run: Path) -> None:
        """Write a run's scores on people's scale, a row a judgment and a row a dialogue."""
        (run / CALIBRATED).unlink(missing_ok=True)
        judgments = load_judgments(run)
        scores = scores_of(judgments)
        judgments["item_id"] = scores["item_id"]
        table = judgments.merge(self._predicted(scores), on=["item_id", "metric"], how="left", validate="one_to_one")
        kept = table[[*CALIBRATED_KEY, *CALIBRATED_COLUMNS]].assign(calibration=sha256(self.path)[:12])
        with replacing(run / CALIBRATED) as file:
            kept.to_parquet(file, index=False)
        metrics = [metric for metric in METRICS if metric in set(table["metric"])]
        write_csv(run / CALIBRATED_SCORES, scores_table(table.assign(score=table["calibrated"]), metrics))


def to_dict(calibration: Calibration) -> dict[str, Any]:
    """What ``--json`` prints: by metric what was chosen, why, and how well it does."""
    metrics = {name: _metric_dict(one) for name, one in calibration.metrics.items()}
    facts = {"judge_id": calibration.judge_id, "groups": calibration.groups, "sources": list(calibration.sources)}
    return {**facts, "metrics": metrics}


def _metric_dict(one: FittedMetric) -> dict[str, Any]:
    return {
        "map": one.calibrator.name,
        "map_of_a_named_annotator": one.named.name,
        "why": one.chosen_by,
        "items": one.items,
        "ratings": one.ratings,
        "trained_on_scores": list(one.trained),
        "half_width": one.half_width,
        "left_out": {
            scheme: {kind: {n: asdict(f) for n, f in _figures(e).items()} for kind, e in kinds.items()}
            for scheme, kinds in one.evaluations.items()
        },
        "not_tried": one.skipped,
        "remarks": list(one.remarks),
    }


def _figures(evaluation: Any) -> dict[str, Any]:
    return {name: getattr(evaluation, name) for name in evaluation.__slots__}


def show(calibration: Calibration, path: Path, remarks: list[str]) -> None:
    """Print what was chosen for each metric, how well it does on items left out, and remarks."""
    out = console()
    heads = ("metric", "items", "map", "RMSE", "as it is", "constant", "spread")
    rows = [(name, f"{one.items:,}", one.calibrator.name, *_row(one)) for name, one in calibration.metrics.items()]
    out.print(plain_table(f"maps from {calibration.judge_id} to people's scale", heads, rows))
    out.print(Text(LEGEND + "\n"))
    for name, one in calibration.metrics.items():
        for text in (one.chosen_by, *one.remarks):
            out.print(line(f"* {name}: {text}"))
    for remark in remarks:
        out.print(line(f"- {remark}"))
    out.print(line(f"written to {path}; use it: esrp-judge score … --calibration {path}"))


def _row(one: FittedMetric) -> tuple[str, ...]:
    headline = next(iter(one.evaluations.values()), {})
    figures = [
        headline[kind].rmse.value if kind in headline else None for kind in (one.calibrator.name, "raw", "constant")
    ]
    chosen = headline.get(one.calibrator.name)
    figures.append(chosen.system_spread_ratio.value if chosen else None)
    return tuple("–" if value is None else f"{value:.2f}" for value in figures)


def use(path: Path, scores: Path, judge: str | None, annotator: str | None) -> pd.DataFrame:
    """The scores of a run or a table on people's scale; InputError where the calibration is not for their judge."""
    try:
        calibration, table = Calibration.load(path), one_judge(read_judge_scores(scores, None, source="any"), judge)
        if is_run(scores):
            manifest = read_manifest(scores)
            calibration.refuse_another(manifest["judge"]["judge_id"], manifest["identity"])
        elif "judge" in table:
            calibration.refuse_another(str(table["judge"].iloc[0]), {})
        if table["item_id"].isin([item for item, _, _ in calibration.anchor]).any():
            refuse_moved(calibration, table)
        return calibration.predict(table, annotator)
    except (CalibrationError, TableError) as error:
        raise InputError(f"--use {path}: {error}") from error


def refuse_moved(calibration: Calibration, scores: pd.DataFrame) -> Drift:
    """How far the judge is from what it gave the anchors; CalibrationError where that is too far."""
    drift = calibration.drift(scores)
    if drift.moved:
        worst, largest = max(drift.largest.items(), key=lambda item: item[1])
        raise CalibrationError(
            f"the judge has moved: on {worst} it differs by up to {largest:.3f} from what it gave the calibration's "
            "anchors; calibrate it again"
        )
    return drift


def as_json(calibration: Calibration, path: Path, remarks: list[str]) -> str:
    """All of it for programs."""
    return as_json_text({"file": str(path), **to_dict(calibration), "remarks": remarks})
