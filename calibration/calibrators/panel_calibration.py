"""A panel's calibration: from several judges' scores to one on the human scale, in one JSON file bound to them.

It predicts mean ratings; an annotator's own ratings, other metrics and anchor dialogues are for a calibration of one
judge (``calibration``). The scores of anchor items are kept of each judge, so that one that has moved is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from calibration.calibrators.calibration import (
    PANEL_FORMAT,
    as_json,
    conformal_quantile,
    far_from_training,
    levels_of,
    load_as,
    save_as,
)
from calibration.calibrators.drift import Anchor, Drift, anchor_of, drift_of
from calibration.calibrators.maps import usual_range
from calibration.calibrators.panel import (
    Additive,
    PanelGain,
    Reading,
    fit_panel,
    gain_of,
    mean_panel,
    out_of_fold,
    panel_remarks,
    together,
)
from calibration.errors import InputError
from calibration.pairing import Pairing, one_judge
from calibration.stats.intervals import Floats

VERSION = 1
"""Of the file's layout; a file of another one is refused."""


@dataclass(frozen=True, slots=True)
class Member:
    """A judge of the panel."""

    name: str
    judge_id: str
    """By which it is known again: of a run its ``judge_id``, of a table the name in the column ``judge``."""
    identity: dict[str, Any]
    """What makes the judge, by part; empty for a plain table of scores."""
    anchor: tuple[Anchor, ...]


@dataclass(frozen=True, slots=True)
class FittedPanel:
    """The panel of one metric."""

    reading: Reading
    map: Additive
    trained: tuple[float, float]
    """Between which means of the judges the middle 95% of those in training lie."""
    half_width: float | None
    """Of the interval of an item's mean rating; None where too few items were left out to give one."""
    gain: PanelGain
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelCalibration:
    """A panel's maps to the human scale."""

    judges: tuple[Member, ...]
    created: str
    metrics: dict[str, FittedPanel]

    def save(self, path: str | Path) -> None:
        """Write as JSON; the same calibration gives the same bytes."""
        save_as(path, PANEL_FORMAT, VERSION, LAYOUT, self)

    @classmethod
    def load(cls, path: str | Path) -> PanelCalibration:
        """Read what ``save`` wrote; raises InputError as ``Calibration.load`` does."""
        return load_as(path, PANEL_FORMAT, VERSION, LAYOUT)

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest score of each metric."""
        return {metric: one.reading.scale for metric, one in self.metrics.items()}

    def drift(self, judge_id: str, scores: pd.DataFrame) -> Drift | None:
        """How far a judge's scores of its anchor items have moved; None where none of them is among the scores."""
        anchor = next(one.anchor for one in self.judges if one.judge_id == judge_id)
        if not scores["item_id"].isin([item for item, _, _ in anchor]).any():
            return None
        ends = dict.fromkeys((metric for _, metric, _ in anchor), (0.0, 0.0))
        place = [one.judge_id for one in self.judges].index(judge_id)
        return drift_of(anchor, scores, ends | {name: one.reading.scales[place] for name, one in self.metrics.items()})

    def predict(self, scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """Scores on the human scale: item_id, metric, calibrated, low, high, in_range, by metric in the first's order.

        A row is an item that any judge scored; where one of them did not, it is missing (NaN, and not in range).
        ``low``, ``high`` and ``in_range`` are as in ``Calibration.predict``.

        Args:
            scores: by ``judge_id``, as ``read_scores`` returns them, of one judge each.

        Raises:
            InputError: a judge of the panel is not there; no metric has a map; a judge's levels are not those that were
                fitted on.
        """
        if lost := [one.name for one in self.judges if one.judge_id not in scores]:
            raise InputError(
                f"the panel needs the scores of {', '.join(lost)} as well; give a run or table that has them"
            )
        tables = {one.judge_id: one_judge(scores[one.judge_id]) for one in self.judges}
        parts = []
        for metric, fitted in self.metrics.items():
            own = {judge: table[table["metric"] == metric].set_index("item_id") for judge, table in tables.items()}
            items = pd.concat([pd.Series(1, table.index) for table in own.values()]).index.unique()
            if items.empty:
                continue
            matrix = np.column_stack([table["score"].reindex(items).to_numpy(float) for table in own.values()])
            there = np.isfinite(matrix).all(axis=1)
            values, inside = np.full((3, len(items)), np.nan), np.zeros(len(items), dtype=bool)
            if there.any():
                levels = []
                for member, count in zip(self.judges, fitted.reading.levels, strict=True):
                    given = levels_of(own[member.judge_id].loc[items[there]])
                    if count and (given is None or given.shape[1] != count or not np.isfinite(given).all()):
                        raise InputError(
                            f"scores of {metric!r} by {member.name}: the panel was fitted on {count} levels; give the "
                            "probabilities p1, p2, … of every judgment"
                        )
                    levels.append(given if count else None)
                columns = fitted.reading.columns(matrix[there], levels)
                low, high = fitted.reading.scale
                found = np.clip(fitted.map.predict(columns), low, high)
                half = high - low if fitted.half_width is None else fitted.half_width
                values[:, there] = found, np.clip(found - half, low, high), np.clip(found + half, low, high)
                mean: Floats = columns[:, 0]
                inside[there] = (mean >= fitted.trained[0] - 1e-9) & (mean <= fitted.trained[1] + 1e-9)
            table = {"item_id": items, "metric": metric, "calibrated": values[0], "low": values[1], "high": values[2]}
            parts.append(pd.DataFrame({**table, "in_range": inside}))
        if not parts:
            raise InputError(f"the scores are of no metric that was calibrated ({', '.join(self.metrics)})")
        return pd.concat(parts, ignore_index=True)

    def about(self, predicted: pd.DataFrame) -> list[str]:
        """What is to be known of what ``predict`` returned, a sentence each."""
        lost = int(predicted["calibrated"].isna().sum())
        said = (
            [f"{lost:,} of {len(predicted):,} items have no score of some judge, and so none of the panel."]
            if lost
            else []
        )
        return [*said, *far_from_training(self.metrics, predicted)]


LAYOUT = TypeAdapter(PanelCalibration)
"""How a file holds it: its fields by name, and ``format`` and ``version`` beside them."""


def fit_panel_calibration(
    pairings: Mapping[str, Pairing],
    *,
    judges: Mapping[str, tuple[str, Mapping[str, Any]]],
    seed: int = 0,
    created: str | None = None,
) -> PanelCalibration:
    """Choose and fit a panel for every metric that all judges have.

    Args:
        pairings: by judge, of the same human ratings.
        judges: of each its ``judge_id`` and identity.
        seed: random seed of the folds.
        created: when, as text; now where None.

    Raises:
        InputError: two judges are the same; no rated item of a metric was scored by all.
    """
    ids = [judge_id for judge_id, _ in judges.values()]
    if twice := [name for name, (judge_id, _) in judges.items() if ids.count(judge_id) > 1]:
        raise InputError(f"{' and '.join(twice)} are one judge; give each judge of a panel once")
    metrics = {}
    for metric in mean_panel(pairings).metrics:
        found = together(pairings, metric)
        if found is None or not found.paired.counts.any():
            continue
        columns, ratings = found.training
        fitted = fit_panel(columns, ratings, found.reading.levels, seed)
        folds = out_of_fold(columns, ratings, found.reading.levels, seed)
        half_width = None
        if folds is not None:
            errors = np.abs(np.clip(folds.panel[0], *found.reading.scale) - ratings.scores)
            half_width = conformal_quantile(errors, ratings.weights)
        metrics[metric] = FittedPanel(
            reading=found.reading,
            map=fitted.panel,
            trained=usual_range(columns[:, 0], ratings.weights),
            half_width=half_width,
            gain=gain_of(found, fitted, folds, seed=seed),
            remarks=tuple(panel_remarks(found)),
        )
    if not metrics:
        raise InputError(f"no rated item was scored by all of {', '.join(pairings)}; give judges of the same items")
    return PanelCalibration(
        judges=tuple(
            Member(name, judge_id, as_json(identity), tuple(anchor_of(pairings[name], seed)))
            for name, (judge_id, identity) in judges.items()
        ),
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        metrics=metrics,
    )
