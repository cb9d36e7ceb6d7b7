"""The maps of one metric: fitted, with the interval of what they predict, and as plain numbers for a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.calibrators.items import Items, Ratings, training
from calibration.calibrators.maps import KINDS, Calibrator, calibrator_from_dict, calibrator_to_dict
from calibration.calibrators.plain import to_plain
from calibration.calibrators.selection import Evaluation, Figure, OutOfFold, Selection, select
from calibration.paired import Pairing
from calibration.resampling import Floats

__all__ = ["FittedMetric", "conformal_quantile", "fit_metric", "metric_from_dict", "metric_to_dict"]

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
