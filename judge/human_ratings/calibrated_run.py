"""A calibration and a run: fitting one to a run's scores, and applying one to another run of the same judge.

A calibration keeps some of its dialogues, the anchors. Before it is applied, the judge scores them again: where a score
has moved, the judge is no longer the one that the calibration was fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from calibration import Calibration, Pairing, PanelCalibration, fit_calibration, fit_panel_calibration
from calibration.calibrators.calibration import PANEL_FORMAT, read_json
from calibration.calibrators.drift import Drift
from calibration.calibrators.maps import KINDS
from calibration.pairing import one_judge
from calibration.records import read_records
from judge.errors import InputError, naming
from judge.files import replacing, save_csv, sha256
from judge.human_ratings.agreement import Judged, is_run, read_judge_scores
from judge.scoring.judge import Judge
from judge.scoring.run_folder import (
    CALIBRATED,
    CALIBRATED_KEY,
    item_ids,
    load_judgments,
    read_manifest,
    read_texts,
    scheme_of,
    scores_of,
)
from judge.scoring.summary import scores_table
from judge.types import Dialogue, Turn

AT_A_TIME = 16
"""Dialogues that are scored together."""


def rescored(judge: Judge, kept: Mapping[str, Any]) -> pd.DataFrame:
    """Scores of a calibration's anchor dialogues by the judge as it is now.

    Args:
        judge: with its model.
        kept: the anchor dialogues by id, as the calibration's file has them.

    Returns:
        ``item_id, metric, score``; the score is NaN where there is none.

    Raises:
        InputError: a dialogue in the file is damaged.
    """
    dialogues, rows = [], []
    try:
        for values in kept.values():
            sides = [(turn["user"], turn["character"]) for turn in values["turns"]]
            turns = tuple(Turn(*(text if text is None else str(text) for text in side)) for side in sides)
            source, character, scenario = (str(values[name]) for name in ("source", "character", "scenario"))
            dialogues.append(Dialogue(source, character, scenario, turns, values["profile"]))
    except (KeyError, TypeError) as error:
        raise InputError("the calibration's anchor dialogues are damaged; fit it again") from error
    for start in range(0, len(dialogues), AT_A_TIME):
        some = dialogues[start : start + AT_A_TIME]
        metrics = judge.scheme.metrics
        for dialogue, judged in zip(some, judge.judge(judge.prompts(some, metrics), metrics), strict=True):
            scores = (judgment.score for judgment in judged.judgments)
            rows += [(dialogue.id, metric, score) for metric, score in zip(metrics, scores, strict=True)]
    return pd.DataFrame(rows, columns=["item_id", "metric", "score"]).astype({"score": float})


CALIBRATED_SCORES = "scores_calibrated.csv"


CALIBRATED_COLUMNS = ["calibrated", "low", "high", "in_range"]


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
    # The calibration with its anchor dialogues, which a later run scores again; and a warning where some are gone.
    items = {item for item, _, _ in fitted.anchor}
    judgments = load_judgments(scores)
    digests = dict(zip(item_ids(judgments), judgments["content_digest"], strict=True))
    found, why = read_texts(scores, {item: digests[item] for item in items})
    kept = replace(fitted, dialogues={item: asdict(dialogue) for item, dialogue in found.items()})
    if len(found) == len(items):
        return kept, []
    reason = f" ({why})" if why else ""
    gone = f"the texts of {len(items) - len(found)} of {len(items)} anchor dialogues are gone{reason}"
    return kept, [f"{gone}; whether the judge moves cannot be seen by those"]


def fit_panel(judged: Mapping[str, Judged], seed: int) -> PanelCalibration:
    """A calibration of several judges together; see ``calibration.fit_panel_calibration``."""
    judges: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, one in judged.items():
        if is_run(one.path):
            manifest = read_manifest(one.path)
            judges[name] = manifest["judge"]["judge_id"], manifest["identity"]
        else:
            judges[name] = one.pairing.judge or one.path.stem, {}
    return fit_panel_calibration({name: one.pairing for name, one in judged.items()}, judges=judges, seed=seed)


def is_of_a_panel(path: Path) -> bool:
    """Whether a file says that it is a panel's calibration; InputError where it cannot be read."""
    with naming("--use"):
        saved = read_json(path)
    return isinstance(saved, dict) and saved.get("format") == PANEL_FORMAT


def use_panel(path: Path, scores: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """The panel's scores of the items of runs and tables on the human scale, and what the user should know of them.

    Judges that are not of the panel are left out.

    Raises:
        InputError: a judge of the panel is not among them, is there twice, or has moved.
    """
    with naming(f"--use {path}:"):
        calibration = PanelCalibration.load(path)
    found: dict[str, pd.DataFrame] = {}
    for one in scores:
        table = read_judge_scores(one, None, source="any")
        if is_run(one):
            by_judge = {read_manifest(one)["judge"]["judge_id"]: table}
        elif "judge" in table:
            by_judge = {str(name): rows for name, rows in table.groupby("judge", sort=False)}
        else:
            by_judge = {one.stem: table}
        if again := set(found) & set(by_judge) & {member.judge_id for member in calibration.judges}:
            raise InputError(f"{one}: judge {min(again)} was there before; give each judge's scores once")
        found |= by_judge
    with naming(f"--use {path}:"):
        predicted = calibration.predict(found)
        for member in calibration.judges:
            drift = calibration.drift(member.judge_id, found[member.judge_id])
            if drift is not None:
                refuse_drift(drift, member.name)
    return predicted, calibration.about(predicted)


def save(calibration: Calibration | PanelCalibration, path: Path) -> None:
    """Write the file; InputError where it cannot be written."""
    try:
        calibration.save(path)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror}); name another file") from error


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration to be applied to a run; ``note`` is called with what the user should know."""

    calibration: Calibration
    path: Path
    note: Callable[[str], None]

    @classmethod
    def load(cls, path: Path, note: Callable[[str], None]) -> Calibrated:
        """From a file; InputError where it is no calibration."""
        with naming("--calibration"):
            return cls(Calibration.load(path), path, note)

    def check(self, judge: Judge) -> None:
        """Refuse a judge that is not the calibration's, or has moved since, by an InputError."""
        with naming(f"--calibration {self.path}:"):
            self.calibration.refuse_another(judge.identity.judge_id, asdict(judge.identity))
            if not self.calibration.dialogues:
                self.note("the calibration keeps no dialogues: whether the judge has moved since cannot be seen")
                return
            drift = refuse_moved(self.calibration, rescored(judge, self.calibration.dialogues))
        largest = max(drift.largest.values())
        self.note(f"calibration: {drift.compared} anchor judgments are as they were, to within {largest:.1g}")

    def apply(self, run: Path) -> None:
        """Write a run's scores on the human scale, by judgment and by dialogue."""
        # What an earlier calibration wrote goes first: it would be joined to the judgments that are read here.
        (run / CALIBRATED).unlink(missing_ok=True)
        judgments, scheme = load_judgments(run), scheme_of(read_manifest(run))
        scores = scores_of(judgments, scheme)
        judgments["item_id"] = scores["item_id"]
        with naming(f"--calibration {self.path}:"):
            predicted = self.calibration.predict(scores)
        for text in self.calibration.far_from_training(predicted):
            self.note(text)
        table = judgments.merge(predicted, on=["item_id", "metric"], how="left", validate="one_to_one")
        kept = table[[*CALIBRATED_KEY, *CALIBRATED_COLUMNS]].assign(calibration=sha256(self.path)[:12])
        with replacing(run / CALIBRATED) as file:
            kept.to_parquet(file, index=False)
        metrics = [metric for metric in scheme.metrics if metric in set(table["metric"])]
        save_csv(run / CALIBRATED_SCORES, scores_table(table.assign(score=table["calibrated"]), scheme, metrics))


def use(
    path: Path, scores: Path, judge: str | None, annotator: str | None, pairs: Path | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """The scores of a run or a table on the human scale, and what the user should know of them.

    Args:
        path: the calibration.
        scores: the run or table.
        judge: which judge, where a table holds several.
        annotator: whose ratings to predict; None for the mean rating.
        pairs: a table of item_id and annotator, to predict each of these ratings instead.

    Raises:
        InputError: the calibration is of another judge, or the judge has moved since; an annotator or item is unknown.
    """
    whose: str | pd.DataFrame | None = annotator
    if pairs is not None:
        with naming("--pairs"):
            whose = read_records(pairs).table
    with naming(f"--use {path}:"):
        calibration = Calibration.load(path)
    notes: list[str] = []
    given = read_judge_scores(scores, None, source="any", notes=notes)
    with naming(f"--use {path}:"):
        table = one_judge(given, judge)
        if is_run(scores):
            manifest = read_manifest(scores)
            calibration.refuse_another(manifest["judge"]["judge_id"], manifest["identity"])
        elif "judge" in table:
            calibration.refuse_another(str(table["judge"].iloc[0]), {})
        # A table may hold the anchors or not. Where it does, they show whether the judge is still the same.
        if table["item_id"].isin([item for item, _, _ in calibration.anchor]).any():
            refuse_moved(calibration, table)
        found = calibration.predict(table, whose)
        return found, [*notes, *calibration.stand_ins(table, whose), *calibration.far_from_training(found)]


def refuse_moved(calibration: Calibration, scores: pd.DataFrame) -> Drift:
    """How far the judge is from what it gave the anchors; InputError where that is too far."""
    drift = calibration.drift(scores)
    refuse_drift(drift)
    return drift


def refuse_drift(drift: Drift, judge: str = "the judge") -> None:
    """InputError where a judge has moved."""
    if drift.moved:
        worst, largest = max(drift.largest.items(), key=lambda item: item[1])
        raise InputError(
            f"{judge} has moved: on {worst} it differs by up to {largest:.3f} from what it gave the calibration's "
            "anchors; calibrate it again"
        )
