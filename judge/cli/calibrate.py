"""The command ``calibrate``: maps to the human scale are fitted or applied, and what was chosen is printed.

The work is done by ``judge.human_ratings.calibrated_run``, which is imported when the command runs.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import (
    Annotators,
    Json,
    ManyScores,
    MapRatings,
    OfJudges,
    Repeats,
    Scale,
    as_one_json,
    names,
    refuse_unwritable,
    some_names,
)
from judge.cli.console import cell, console, line, plain_table, show_remarks, show_scales, terminal_progress
from judge.errors import InputError
from judge.files import as_json_text, save_csv

if TYPE_CHECKING:
    import pandas as pd

    from calibration import Calibration, PanelCalibration


PANEL_LEGEND = """panel: the simplest of mean, best single judge and stacker (judges weighted) that predicts best
MAE, Spearman: with mean ratings of items left out, of the panel and of the best single judge"""


LEGEND = """map: the simplest within one standard error of the best, by the way of leaving out that is named below
RMSE: root mean squared difference from the mean rating of items left out, of the map, of the judge as it is, and
of saying the same of every item; spread: SD of the sources' calibrated means over that of their human means"""


def to_dict(calibration: Calibration) -> dict[str, Any]:
    """What ``--json`` prints: by metric what was chosen, why, and how well it does."""
    facts = {"judge_id": calibration.judge_id, "groups": calibration.groups, "sources": list(calibration.sources)}
    metrics = {
        name: {
            "map": one.calibrator.kind,
            "map_of_a_named_annotator": one.named.kind,
            "why": one.chosen_by,
            "scale": list(one.scale),
            "items": one.items,
            "ratings": one.ratings,
            "trained_on_scores": list(one.trained),
            "half_width": one.half_width,
            "left_out": {
                scheme: {kind: asdict(figures) for kind, figures in kinds.items()}
                for scheme, kinds in one.evaluations.items()
            },
            "not_tried": one.skipped,
            "remarks": list(one.remarks),
        }
        for name, one in calibration.metrics.items()
    }
    return {**facts, "metrics": metrics}


def show(calibration: Calibration, scores: Path, path: Path, remarks: list[str]) -> None:
    """Print what was chosen for each metric, how well it does on items left out, and warnings."""
    from rich.text import Text

    out = console()
    heads = ("metric", "items", "map", "RMSE", "as it is", "constant", "spread")
    rows = []
    for name, one in calibration.metrics.items():
        # The headline way of leaving out comes first; there is none where nothing could be left out.
        headline = next(iter(one.evaluations.values()), {})
        chosen = headline.get(one.calibrator.kind)
        figures = [
            headline[kind].rmse if kind in headline else None for kind in (one.calibrator.kind, "raw", "constant")
        ]
        figures.append(chosen.system_spread_ratio if chosen else None)
        cells = (cell(figure.value if figure else None) for figure in figures)
        rows.append((name, f"{one.items:,}", one.calibrator.kind, *cells))
    out.print(plain_table(f"maps from {calibration.judge_id} to the human scale", heads, rows))
    out.print(Text(LEGEND + "\n"))
    for name, one in calibration.metrics.items():
        for text in (one.chosen_by, *one.remarks):
            out.print(line(f"* {name}: {text}"))
    show_scales({name: (*ends, None) for name, ends in calibration.scales.items()})
    show_remarks(remarks)
    command = "esrp-judge score … --calibration" if scores.is_dir() else "esrp-judge calibrate TABLE --use"
    out.print(line(f"written to {path}; use it: {command} {path}"))


def panel_to_dict(calibration: PanelCalibration) -> dict[str, Any]:
    """What ``--json`` prints of a panel: by metric what it is, and what it gains on the best single judge."""
    metrics = {
        name: {**one.gain.to_dict(), "scale": list(one.reading.scale), "half_width": one.half_width}
        for name, one in calibration.metrics.items()
    }
    return {"judges": {one.name: one.judge_id for one in calibration.judges}, "metrics": metrics}


def answer_panel(calibration: PanelCalibration, path: Path, remarks: list[str], as_json: bool) -> None:
    """Print a panel, for programs or people."""
    if as_json:
        print(as_json_text({"file": str(path), **panel_to_dict(calibration), "remarks": remarks}))
    else:
        show_panel(calibration, path, remarks)


def show_panel(calibration: PanelCalibration, path: Path, remarks: list[str]) -> None:
    """Print what the panel is on each metric, what it gains on the best single judge, and warnings."""
    from rich.text import Text

    out = console()
    heads = ("metric", "items", "panel", "weights", "MAE", "best judge's", "Spearman", "best judge's")
    rows = []
    for name, one in calibration.metrics.items():
        gain = one.gain
        # The mean weighs all alike; its judges' parts by their SDs are not what a reader would take for weights.
        given = {} if gain.how == "mean" else gain.weights or {}
        weights = " ".join(f"{weight:.2f}" for weight in given.values()) or "–"
        figures = (side[measure].value for measure in ("mae", "spearman") for side in (gain.panel, gain.single))
        rows.append((name, f"{gain.items:,}", gain.how, weights, *map(cell, figures)))
    judges = ", ".join(one.name for one in calibration.judges)
    out.print(plain_table(f"panel of {judges}, to the human scale", heads, rows))
    out.print(Text(PANEL_LEGEND + "\n"))
    for one in calibration.metrics.values():
        for text in (one.gain.sentence, *one.remarks):
            out.print(line(f"* {text}"))
    show_scales({name: (*ends, None) for name, ends in calibration.scales.items()})
    show_remarks(remarks)
    out.print(line(f"written to {path}; use it: esrp-judge calibrate RUN|TABLE … --use {path}"))


def used(
    path: Path, scores: list[Path], judge: str | None, annotator: str | None, pairs: Path | None
) -> tuple[pd.DataFrame, list[str]]:
    """Scores on the human scale by a calibration of one judge or of a panel, whose judges are found by their names."""
    from judge.human_ratings import calibrated_run

    if not calibrated_run.is_of_a_panel(path):
        if len(scores) > 1:
            raise InputError(f"--use {path}: is of one judge; give one run or table")
        return calibrated_run.use(path, scores[0], judge, annotator, pairs)
    for option, given in (("--annotator", annotator), ("--pairs", pairs), ("--judge", judge)):
        if given:
            raise InputError(f"{option}: is not for a panel ({path}), which predicts mean ratings by all; leave it out")
    return calibrated_run.use_panel(path, scores)


def calibrate(
    scores: ManyScores,
    annotations: Annotated[Path | None, typer.Option(help="Human ratings, to fit maps to.")] = None,
    use: Annotated[
        Path | None, typer.Option(help="Fit nothing: put the scores on the human scale by this file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write: calibration.json, with --use calibrated.csv.")
    ] = None,
    judge: OfJudges = None,
    annotators: Annotators = "",
    annotator: Annotated[
        str | None, typer.Option(help="With --use: whose ratings to predict; by default the mean rating.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="With --use: a table item_id, annotator; each of these ratings is predicted.")
    ] = None,
    scale: Scale = None,
    columns: MapRatings = None,
    average_repeats: Repeats = False,
    maps: Annotated[
        str, typer.Option(help="Choose among these only: constant, shift, linear, isotonic, ordinal, raters.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Random seed of the folds.")] = 0,
    as_json: Json = False,
) -> int:
    """Fit maps from the judge's scores to the human scale, each metric's chosen on items left out, into a file.

    The file is bound to the judge: it is refused for another, or where the drift check fails. score --calibration uses
    it on a run, --use on any table of scores. Of several judges one map to the human scale is fitted: a panel's.
    """
    from calibration.calibrators.panel import common_remarks
    from judge.human_ratings import calibrated_run
    from judge.human_ratings.agreement import read_judges

    if (annotations is None) == (use is None):
        raise InputError("give human ratings to fit maps to (--annotations), or a calibration to use (--use)")
    if use and annotator and pairs:
        raise InputError("--annotator and --pairs: give one of the two")
    if not use and (annotator or pairs):
        raise InputError(f"{'--annotator' if annotator else '--pairs'}: give the calibration to use as well (--use)")
    out = out or Path("calibrated.csv" if use else "calibration.json")
    refuse_unwritable(out)
    if use:
        table, remarks = used(use, scores, judge, annotator, pairs)
        save_csv(out, table)
        if as_json:
            print(as_one_json({"file": str(out), "remarks": remarks}, scores=table))
        else:
            console().print(line(f"{len(table):,} scores in {out}"))
            show_remarks(remarks)
        return 0
    assert annotations is not None
    people = some_names(annotators, "--annotators")
    with terminal_progress() as progress:
        how: dict[str, Any] = {"with_composites": False, "columns": columns}
        judged = read_judges(scores, annotations, scale, judge, people, average_repeats, **how)
        pairings = {name: one.pairing for name, one in judged.items()}
        own = common_remarks({name: one.remarks for name, one in pairings.items()})
        if len(judged) > 1:
            if maps:
                raise InputError("--maps: is for one judge; leave it out, as a panel is a mean or a weighted sum")
            with progress.busy("fitting a panel to human ratings"):
                panel = calibrated_run.fit_panel(judged, seed)
            calibrated_run.save(panel, out)
        else:
            with progress.busy("fitting maps to human ratings"):
                (alone,) = judged.values()
                calibration, more = calibrated_run.fit(alone.path, alone.pairing, names(maps), seed)
            calibrated_run.save(calibration, out)
    if len(judged) > 1:
        answer_panel(panel, out, own, as_json)
        return 0
    remarks = [*own, *more]
    if as_json:
        print(as_json_text({"file": str(out), **to_dict(calibration), "remarks": remarks}))
    else:
        show(calibration, alone.path, out, remarks)
    return 0
