"""A calibration: one judge's maps to the human scale, all metrics, in one file bound to that judge."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.calibrators.drift import Anchor, Drift, anchor_of, drift_of
from calibration.calibrators.features import Items, Ratings, features, signals, training
from calibration.calibrators.maps import KINDS, Calibrator, calibrator_from_dict, calibrator_to_dict, in_range, to_plain
from calibration.calibrators.model_selection import Evaluation, Figure, OutOfFold, Selection, select
from calibration.errors import InputError
from calibration.pairing import Pairing, one_judge
from calibration.stats.intervals import Floats

COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class FittedMetric:
    """The maps of one metric, and how they were chosen."""

    calibrator: Calibrator
    """To an item's mean rating."""
    named: Calibrator
    """To the rating of an annotator who is named."""
    scale: tuple[float, float]
    trained: tuple[float, float]
    """Lowest and highest score of the judge in training."""
    half_width: float | None
    """Of the interval of an item's mean rating; None where too few items were left out to give one."""
    half_width_named: float | None
    """Of the interval of one annotator's rating."""
    chosen_by: str
    named_by: str
    evaluations: dict[str, dict[str, Evaluation]]
    """How items were left out (the headline first) -> kind -> figures; ``raw`` and ``constant`` stand beside."""
    skipped: dict[str, str]
    remarks: tuple[str, ...]
    items: int
    ratings: int

    def predict(self, items: Items, annotator: str | None = None) -> tuple[Floats, Floats, Floats]:
        """Shape (items,) each: the calibrated score and its interval; see ``Calibration.predict``."""
        calibrator, half = (
            (self.calibrator, self.half_width) if annotator is None else (self.named, self.half_width_named)
        )
        found, (low, high) = calibrator.predict(items, annotator), self.scale
        half = high - low if half is None else half
        return found, np.clip(found - half, low, high), np.clip(found + half, low, high)


def fit_metric(pairing: Pairing, metric: str, kinds: Iterable[str] | None = None, seed: int = 0) -> FittedMetric:
    """Choose among the kinds (all where None) and fit what was chosen to all rated items."""
    selection = select(pairing, metric, kinds, seed)
    paired, items, ratings = training(pairing, selection.metric)
    chosen, named = (
        KINDS[kind](paired.scale, seed).fit(items, ratings) for kind in (selection.chosen, selection.chosen_named)
    )
    ways = [] if selection.headline is None else [selection.headline, *selection.others]
    widths = (None, None) if not ways else _half_widths(selection, ways[0], ratings)
    return FittedMetric(
        calibrator=chosen,
        named=named,
        scale=paired.scale,
        trained=(float(items.judge.min()), float(items.judge.max())),
        half_width=widths[0],
        half_width_named=widths[1],
        chosen_by=selection.why,
        named_by=selection.why_named,
        evaluations={way.scheme: way.evaluations for way in ways},
        skipped=selection.skipped,
        remarks=selection.remarks,
        items=len(items.judge),
        ratings=int(np.isfinite(ratings.scores).sum()),
    )


def conformal_quantile(errors: Floats, weights: Floats) -> float | None:
    """The smallest error under which 95% of the weight lies, a new item of mean weight counted as the largest.

    With equal weights it is the ceil(0.95 (n + 1))-th smallest of n (Papadopoulos et al. 2002; Barber et al. 2021,
    section 1.2, for cross-validated residuals); None where n is too small to have one.
    """
    order = np.argsort(errors, kind="stable")
    share = np.cumsum(weights[order]) / (weights.sum() + weights.mean())
    enough = np.flatnonzero(share >= COVERAGE - 1e-12)
    return float(errors[order][enough[0]]) if len(enough) else None


def _half_widths(selection: Selection, found: OutOfFold, ratings: Ratings) -> tuple[float | None, float | None]:
    """Of an item's mean rating, and of one annotator's rating."""
    of_items = np.abs(found.predicted[selection.chosen] - ratings.mean)
    item, rater = np.nonzero(np.isfinite(ratings.scores))
    of_ratings = np.abs(found.rated[selection.chosen_named] - ratings.scores)[item, rater]
    return conformal_quantile(of_items, ratings.weights), conformal_quantile(of_ratings, ratings.weights[item])


# As plain numbers


def metric_to_dict(fitted: FittedMetric) -> dict[str, Any]:
    """What a file holds of a metric."""
    rest = {name: getattr(fitted, name) for name in fitted.__slots__ if name not in ("calibrator", "named")}
    maps = {"calibrator": calibrator_to_dict(fitted.calibrator), "named": calibrator_to_dict(fitted.named)}
    return {**maps, **to_plain(rest)}


def metric_from_dict(saved: Mapping[str, Any]) -> FittedMetric:
    """The one that ``metric_to_dict`` was taken of; raises KeyError, TypeError or ValueError for anything else."""
    parts = dict(saved)
    parts["calibrator"] = calibrator_from_dict(saved["calibrator"])
    parts["named"] = calibrator_from_dict(saved["named"])
    for name in ("scale", "trained"):
        low, high = saved[name]
        parts[name] = (float(low), float(high))
    for name in ("half_width", "half_width_named"):
        parts[name] = None if saved[name] is None else float(saved[name])
    parts["remarks"] = tuple(saved["remarks"])
    parts["evaluations"] = {
        scheme: {kind: _evaluation(figures) for kind, figures in kinds.items()}
        for scheme, kinds in saved["evaluations"].items()
    }
    return FittedMetric(**parts)


def _evaluation(saved: Mapping[str, Any]) -> Evaluation:
    return Evaluation(**{name: Figure(**figure) for name, figure in saved.items()})


FORMAT = "esrp-calibration"


VERSION = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """One judge's maps to the human scale."""

    judge_id: str
    identity: dict[str, Any]
    """What makes the judge, by part (model, rubric, ...); empty for a plain table of scores."""
    metrics: dict[str, FittedMetric]
    groups: int
    """How many groups the rated items are of."""
    sources: tuple[str, ...]
    created: str
    anchor: tuple[Anchor, ...]
    dialogues: dict[str, Any] = field(default_factory=dict)
    """What the anchor items are, by id, as plain values: for whoever scores them again; nothing here reads it."""

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest score of each metric."""
        return {metric: one.scale for metric, one in self.metrics.items()}

    def save(self, path: str | Path) -> None:
        """Write as JSON; the same calibration gives the same bytes."""
        saved = {"format": FORMAT, "version": VERSION, **_to_dict(self)}
        text = json.dumps(saved, ensure_ascii=False, indent=1, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what ``save`` wrote.

        Raises InputError: no such file, not JSON, not a calibration, another version, damaged.
        """
        saved = _read(Path(path))
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise InputError(f"{path}: not a calibration; give a file that was written by fitting one")
        if saved.get("version") != VERSION:
            raise InputError(f"{path}: format version {saved.get('version')}, not {VERSION}; fit it again")
        try:
            return _from_dict(saved)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            raise InputError(f"{path}: a damaged calibration ({reason}); fit it again") from error

    def refuse_another(self, judge_id: str, identity: Mapping[str, Any]) -> None:
        """Raise InputError, naming the parts that differ, if this is not the judge it was fitted on."""
        mine, other = self.identity, _as_json(identity)
        parts = [name for name in {**mine, **other} if mine.get(name) != other.get(name)] if mine and other else []
        if parts or judge_id != self.judge_id:
            which = ", ".join(parts) or f"judge_id ({self.judge_id}, not {judge_id})"
            raise InputError(f"the calibration was fitted on another judge: {which} differs; fit it on this one")

    def predict(self, scores: pd.DataFrame, annotator: str | None = None) -> pd.DataFrame:
        """Scores on the human scale: item_id, metric, calibrated, low, high, in_range, in the order of ``scores``.

        Metrics without a map are left out. A missing score stays missing (NaN, and not in range).

        ``low`` and ``high`` are the calibrated value less and plus the 95% quantile of the absolute errors on items
        left out (the ceil(0.95 (n + 1))-th smallest of n; of weighted items, by weight), within the scale. They hold
        the mean rating (with an annotator: that annotator's rating) of 95% of items like those rated, by as many
        raters as those had; not of each item, and not a mean over items. Where n is under 19 they are the scale.

        Args:
            scores: columns item_id, metric, score and, where the judge gives them, p1..pK; a row an item and metric,
                or several told apart by sample_index, which are averaged.
            annotator: whose ratings to predict; one who was not seen in training is taken for an average one.

        Raises:
            InputError: a column is missing, a judgment is there twice or of several judges, no metric has a map,
                or levels that a map needs are missing.
        """
        _check(scores, self.metrics)
        scores = one_judge(scores).reset_index(drop=True)
        judged = scores[scores["score"].notna()]
        tables = {metric: _signals(judged[judged["metric"] == metric]) for metric in self.metrics}
        parts = [
            _predicted(metric, one, scores[scores["metric"] == metric], tables, annotator)
            for metric, one in self.metrics.items()
        ]
        return pd.concat(parts).sort_index().reset_index(drop=True)

    def drift(self, scores: pd.DataFrame) -> Drift:
        """How far the judge's scores of the anchor items have moved; raises InputError where none is there."""
        _check_columns(scores)
        try:
            return drift_of(self.anchor, scores, self.scales)
        except ValueError as error:
            raise InputError(str(error)) from error


def fit_calibration(
    pairing: Pairing,
    *,
    judge_id: str,
    identity: Mapping[str, Any] | None = None,
    kinds: Iterable[str] | None = None,
    seed: int = 0,
    created: str | None = None,
) -> Calibration:
    """Choose and fit a map for every metric.

    Args:
        pairing: ratings and scores of the same items.
        judge_id, identity: what the calibration is bound to.
        kinds: which calibrators to choose among; all where None.
        seed: of the folds.
        created: when, as text; now where None.
    """
    wanted = None if kinds is None else list(kinds)
    metrics = {metric: fit_metric(pairing, metric, wanted, seed) for metric in pairing.metrics}
    rated = [one.labelled for one in pairing.metrics.values()]
    return Calibration(
        judge_id=judge_id,
        identity=_as_json(identity or {}),
        metrics=metrics,
        groups=len({str(group) for one in rated for group in one.groups}),
        sources=tuple(sorted({str(source) for one in rated for source in one.sources})),
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        anchor=tuple(anchor_of(pairing, seed)),
    )


# Predicting from a table


def _check(scores: pd.DataFrame, metrics: Mapping[str, FittedMetric]) -> None:
    _check_columns(scores)
    if not scores["metric"].isin(list(metrics)).any():
        raise InputError(f"the scores are of no metric that was calibrated ({', '.join(metrics)})")
    if "judge" in scores and scores["judge"].nunique() > 1:
        raise InputError(f"the scores are of several judges ({', '.join(scores['judge'].unique())}); give one's")
    again = ["sample_index"] if "sample_index" in scores else []
    twice = scores[scores.duplicated(["item_id", "metric", *again])]
    if len(twice):
        item, metric = twice[["item_id", "metric"]].iloc[0]
        raise InputError(f"item {item!r} is scored twice on {metric!r}; give one judge's scores, one an item")


def _check_columns(scores: pd.DataFrame) -> None:
    if absent := [name for name in ("item_id", "metric", "score") if name not in scores]:
        raise InputError(f"the scores have no column {', '.join(absent)}; add or rename one")


def _levels(table: pd.DataFrame) -> Floats | None:
    """Shape (items, K): the level probabilities of one metric's judgments; None where it has none at all."""
    names = [name for name in table if re.fullmatch(r"p[1-9]\d*", str(name)) and table[name].notna().any()]
    return table[sorted(names, key=lambda name: int(str(name)[1:]))].to_numpy(float) if names else None


def _signals(judged: pd.DataFrame) -> pd.DataFrame:
    """The signals of one metric by item."""
    columns = signals(judged["score"].to_numpy(float), _levels(judged))
    return pd.DataFrame(columns, index=pd.Index(judged["item_id"]))


def _predicted(
    metric: str, fitted: FittedMetric, rows: pd.DataFrame, tables: Mapping[str, pd.DataFrame], annotator: str | None
) -> pd.DataFrame:
    """One metric's rows of what ``predict`` returns, with the index of ``rows``."""
    there = rows["score"].notna().to_numpy()
    judged = rows[there]
    judge = judged["score"].to_numpy(float)
    values = np.full((3, len(rows)), np.nan)
    if len(judged):
        items = Items(judge, _levels(judged), features(tables, judged["item_id"].to_numpy(dtype=object)))
        try:
            values[:, there] = fitted.predict(items, annotator)
        except ValueError as error:
            raise InputError(f"scores of {metric!r}: {error}; give the levels its map was fitted on") from error
    inside = in_range(rows["score"].to_numpy(float), fitted.trained)
    columns = dict(zip(("calibrated", "low", "high"), values, strict=True))
    return rows[["item_id", "metric"]].assign(**columns, in_range=inside)


# The file


def _to_dict(calibration: Calibration) -> dict[str, Any]:
    metrics = {metric: metric_to_dict(one) for metric, one in calibration.metrics.items()}
    rest = {name: getattr(calibration, name) for name in calibration.__slots__ if name != "metrics"}
    return {**to_plain(rest), "metrics": metrics}


def _from_dict(saved: Mapping[str, Any]) -> Calibration:
    if strangers := {str(metric) for _, metric, _ in saved["anchor"]} - set(saved["metrics"]):
        raise ValueError(f"anchors of {', '.join(sorted(strangers))}, which have no map")
    return Calibration(
        judge_id=str(saved["judge_id"]),
        identity=dict(saved["identity"]),
        metrics={metric: metric_from_dict(one) for metric, one in saved["metrics"].items()},
        groups=int(saved["groups"]),
        sources=tuple(saved["sources"]),
        created=str(saved["created"]),
        anchor=tuple((str(item), str(metric), float(score)) for item, metric, score in saved["anchor"]),
        dialogues=dict(saved["dialogues"]),
    )


def _read(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: cannot be read (a folder, a pipe or a device); give a file")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; give a file that was written by fitting a calibration") from None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _as_json(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as it is after a file has held it, so that the two compare; raises InputError."""
    try:
        return dict(json.loads(json.dumps(dict(identity), ensure_ascii=False, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"the identity cannot be saved as JSON ({error}); give text and numbers") from error
