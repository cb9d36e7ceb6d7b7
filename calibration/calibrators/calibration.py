"""A calibration: one judge's maps to the human scale, all metrics, in one JSON file bound to that judge.

This module takes tables and gives tables and that file. What a run is, and how a dialogue is scored again for a drift
check, it must not know: the anchor dialogues are kept as plain values for whoever does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from calibration.calibrators.drift import Anchor, Drift, anchor_of, drift_of
from calibration.calibrators.features import Items, features, signals_table, training
from calibration.calibrators.maps import KINDS, Calibrator, Raters, usual_range
from calibration.calibrators.model_selection import Evaluation, select
from calibration.errors import InputError
from calibration.pairing import Pairing, one_judge
from calibration.stats.intervals import LEVEL, Floats

FORMAT = "esrp-calibration"
"""What a file says it is."""


PANEL_FORMAT = "esrp-panel-calibration"
"""What that of several judges says (``panel_calibration``)."""


VERSION = 2
"""Of the file's layout; a file of another one is refused."""


FEWEST_TO_TELL, MOST_UNLIKE = 20, 0.15
"""Of so many items, so many unlike 95% of those in training are more than chance makes likely."""


@dataclass(frozen=True, slots=True)
class FittedMetric:
    """The maps of one metric, and how they were chosen."""

    calibrator: Calibrator
    """To an item's mean rating."""
    named: Calibrator
    """To the rating of an annotator who is named."""
    scale: tuple[float, float]
    trained: tuple[float, float]
    """Between which of the judge's scores the middle 95% of those in training lie."""
    half_width: float | None
    """Of the interval of an item's mean rating; None where too few items were left out to give one."""
    half_width_named: float | None
    """Of the interval of one annotator's rating."""
    chosen_by: str
    named_by: str
    evaluations: dict[str, dict[str, Evaluation]]
    """How items were left out (the headline first) -> kind -> figures. ``raw`` is the judge's score as it is."""
    skipped: dict[str, str]
    remarks: tuple[str, ...]
    items: int
    ratings: int

    def predict(self, items: Items, annotators: Sequence[str] | None = None) -> tuple[Floats, Floats, Floats]:
        """Shape (items,) each: the calibrated score and its interval; see ``Calibration.predict``.

        ``annotators`` are whose ratings of the items to predict, one an item; None for the mean rating.
        """
        calibrator, half = (
            (self.calibrator, self.half_width) if annotators is None else (self.named, self.half_width_named)
        )
        found, (low, high) = calibrator.predict(items, annotators), self.scale
        half = high - low if half is None else half
        return found, np.clip(found - half, low, high), np.clip(found + half, low, high)

    def in_range(self, items: Items, is_named: bool = False) -> NDArray[np.bool_]:
        """Shape (items,): which items are like 95% of those in training; the map is a guess for others."""
        near = (items.judge >= self.trained[0] - 1e-9) & (items.judge <= self.trained[1] + 1e-9)
        chosen = self.named if is_named else self.calibrator
        if isinstance(chosen, Raters) and chosen.coefficients_.any():
            near &= chosen.standardiser_.distance(items.signals) <= chosen.reach_ + 1e-9
        return near


def fit_metric(pairing: Pairing, metric: str, kinds: Iterable[str] | None = None, seed: int = 0) -> FittedMetric:
    """Choose among the kinds (all where None) and fit what was chosen to all rated items."""
    selection = select(pairing, metric, kinds, seed)
    paired, items, ratings = training(pairing, selection.metric)
    chosen, named = (
        KINDS[kind](paired.scale, seed).fit(items, ratings) for kind in (selection.chosen, selection.chosen_named)
    )
    ways = [] if selection.headline is None else [selection.headline, *selection.others]
    half_width = half_width_named = None
    if selection.headline is not None:
        # Widths come from errors on items left out: on items that a map was fitted on, errors are too small.
        of_items = np.abs(selection.headline.predicted[selection.chosen][0] - ratings.mean)
        half_width = conformal_quantile(of_items, ratings.weights)
        of_ratings = np.abs(selection.headline.rated[selection.chosen_named][0] - ratings.scores)
        half_width_named = conformal_quantile(of_ratings, ratings.weights[ratings.item])
    return FittedMetric(
        calibrator=chosen,
        named=named,
        scale=paired.scale,
        trained=usual_range(items.judge, ratings.weights),
        half_width=half_width,
        half_width_named=half_width_named,
        chosen_by=selection.why,
        named_by=selection.why_named,
        evaluations={way.split.scheme: way.evaluations for way in ways},
        skipped=selection.skipped,
        remarks=selection.remarks,
        items=len(items.judge),
        ratings=len(ratings.scores),
    )


def conformal_quantile(errors: Floats, weights: Floats) -> float | None:
    """The smallest error under which 95% of the weight lies, a new item of mean weight counted as the largest.

    With equal weights it is the ceil(0.95 (n + 1))-th smallest of n (Papadopoulos et al. 2002; Barber et al. 2021,
    section 1.2, for cross-validated residuals); None where n is too small to have one.
    """
    # The new item's own weight is in the denominator: its error could be the largest of all.
    order = np.argsort(errors, kind="stable")
    share = np.cumsum(weights[order]) / (weights.sum() + weights.mean())
    enough = np.flatnonzero(share >= LEVEL - 1e-12)
    return float(errors[order][enough[0]]) if len(enough) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One judge's maps to the human scale."""

    judge_id: str
    identity: dict[str, Any]
    """What makes the judge, by part (model, rubric, ...); empty for a plain table of scores."""
    groups: int
    """How many groups the rated items are of."""
    sources: tuple[str, ...]
    created: str
    anchor: tuple[Anchor, ...]
    dialogues: dict[str, Any] = field(default_factory=dict)
    """The anchor dialogues by item id, as plain values: for whoever scores them again; nothing here reads them."""
    metrics: dict[str, FittedMetric]

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest score of each metric."""
        return {metric: one.scale for metric, one in self.metrics.items()}

    def save(self, path: str | Path) -> None:
        """Write as JSON; the same calibration gives the same bytes."""
        save_as(path, FORMAT, VERSION, LAYOUT, self)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what ``save`` wrote.

        Raises:
            InputError: there is no such file, it is not JSON or no calibration, is of another version, or is damaged.
        """
        found = load_as(path, FORMAT, VERSION, LAYOUT)
        if strangers := {metric for _, metric, _ in found.anchor} - set(found.metrics):
            listed = ", ".join(sorted(strangers))
            raise InputError(f"{path}: a damaged calibration (anchors of {listed}, which have no map); fit it again")
        return found

    def refuse_another(self, judge_id: str, identity: Mapping[str, Any]) -> None:
        """Raise InputError, naming the parts that differ, if this is not the judge it was fitted on."""
        mine, other = self.identity, as_json(identity)
        parts = [name for name in {**mine, **other} if mine.get(name) != other.get(name)] if mine and other else []
        if parts or judge_id != self.judge_id:
            which = ", ".join(parts) or f"judge_id ({self.judge_id}, not {judge_id})"
            raise InputError(f"the calibration was fitted on another judge: {which} differs; fit it on this one")

    def predict(self, scores: pd.DataFrame, annotator: str | pd.DataFrame | None = None) -> pd.DataFrame:
        """Scores on the human scale: item_id, metric, calibrated, low, high, in_range, in the order of ``scores``.

        Metrics without a map are left out. A missing score stays missing (NaN, and not in range).

        ``low`` and ``high`` are the calibrated value less and plus the 95% quantile of the absolute errors on items
        left out (the ceil(0.95 (n + 1))-th smallest of n; of weighted items, by weight), within the scale. They hold
        the mean rating (with an annotator: that annotator's rating) of 95% of items like those rated, by as many
        annotators as those had; not of each item, and not a mean over items. Where n is under 19 they are the scale.
        ``in_range`` is whether an item is like 95% of those in training.

        Args:
            scores: columns item_id, metric, score and, where the judge gives them, p1..pK; a row an item and metric,
                or several told apart by sample_index, which are averaged.
            annotator: whose ratings to predict, one whose ratings were trained on; or a table of item_id and annotator
                (and metric), of which each row is predicted, in its order, with the column annotator beside.

        Raises:
            InputError: a column is missing, a judgment is there twice or of several judges, no metric has a map,
                levels that a map needs are missing, nothing is known of an annotator, or an asked item has no score.
        """
        _check_columns(scores)
        if not scores["metric"].isin(list(self.metrics)).any():
            raise InputError(f"the scores are of no metric that was calibrated ({', '.join(self.metrics)})")
        if "judge" in scores and scores["judge"].nunique() > 1:
            raise InputError(f"the scores are of several judges ({', '.join(scores['judge'].unique())}); give one's")
        twice = scores[
            scores.duplicated(["item_id", "metric", *(["sample_index"] if "sample_index" in scores else [])])
        ]
        if len(twice):
            item, metric = twice[["item_id", "metric"]].iloc[0]
            raise InputError(f"item {item!r} is scored twice on {metric!r}; give one judge's scores, one an item")
        scores = one_judge(scores).reset_index(drop=True)
        asked = self._asked(scores, annotator)
        by_metric = {metric: scores[scores["metric"] == metric] for metric in self.metrics}
        judged = {metric: rows[rows["score"].notna()] for metric, rows in by_metric.items()}
        # Some maps use what the judge said of the same item on other metrics: the signals of all are needed for each.
        tables = {
            metric: signals_table(rows["item_id"].to_numpy(object), rows["score"].to_numpy(float), levels_of(rows))
            for metric, rows in judged.items()
        }
        parts = []
        for metric, fitted in self.metrics.items():
            rows, levels = asked[asked["metric"] == metric], levels_of(judged[metric])
            there = rows["place"].isin(judged[metric].index)
            values, inside = np.full((3, len(rows)), np.nan), np.zeros(len(rows), dtype=bool)
            if there.any():
                place = judged[metric].index.get_indexer(pd.Index(rows.loc[there, "place"]))
                own = judged[metric].iloc[place]
                signals = features(tables, own["item_id"].to_numpy(dtype=object))
                items = Items(own["score"].to_numpy(float), None if levels is None else levels[place], signals)
                who = None if annotator is None else rows.loc[there, "annotator"].tolist()
                try:
                    values[:, there.to_numpy()] = fitted.predict(items, who)
                except ValueError as error:
                    raise InputError(f"scores of {metric!r}: {error}; give the levels its map was fitted on") from error
                inside[there.to_numpy()] = fitted.in_range(items, who is not None)
            columns = dict(zip(("calibrated", "low", "high"), values, strict=True))
            parts.append(rows.drop(columns="place").assign(**columns, in_range=inside))
        found = pd.concat(parts).sort_index().reset_index(drop=True)
        return found if isinstance(annotator, pd.DataFrame) else found.drop(columns="annotator", errors="ignore")

    def _asked(self, scores: pd.DataFrame, annotator: str | pd.DataFrame | None) -> pd.DataFrame:
        """What to predict, a row each: item_id, metric, annotator where one is named, and the place in ``scores``."""
        key = ["item_id", "metric"]
        known = {name for one in self.metrics.values() for name in getattr(one.named, "severities_", ())}
        rows = scores[key].assign(place=np.arange(len(scores)))
        if isinstance(annotator, pd.DataFrame):
            if absent := [name for name in ("item_id", "annotator") if name not in annotator]:
                raise InputError(f"the table of annotators has no column {', '.join(absent)}; add or rename one")
            on = [name for name in key if name in annotator]
            wanted = annotator[[*on, "annotator"]].drop_duplicates()
            rows = wanted.merge(rows, on=on, how="left")
            if lost := rows["place"].isna().sum():
                item = rows.loc[rows["place"].isna(), "item_id"].iloc[0]
                raise InputError(f"{lost:,} of {len(rows):,} rows are of items without a score (first: {item!r})")
            rows = rows.astype({"place": int})[[*key, "annotator", "place"]]
        elif annotator is not None:
            rows = rows.assign(annotator=annotator)
        strangers = sorted(set(rows.get("annotator", [])) - known) if known else []
        if strangers:
            more = f" and {len(strangers) - 5} more" if len(strangers) > 5 else ""
            listed = ", ".join(repr(name) for name in strangers[:5])
            raise InputError(
                f"nothing is known of annotator {listed}{more} (known: {', '.join(sorted(known)[:20])}"
                f"{', …' if len(known) > 20 else ''})"
            )
        return rows

    def stand_ins(self, scores: pd.DataFrame, annotator: str | pd.DataFrame | None = None) -> list[str]:
        """Where ``predict`` has to do without something that the maps were fitted on, a sentence each.

        A map may read what the judge said on every metric; where a metric or its levels are not in the table, their
        averages in training stand in for them.
        """
        said, names = [], list(self.metrics)
        by_metric = {metric: scores[scores["metric"] == metric] for metric in names}
        # By column of ``features``: the score of each metric, then its levels.
        is_there = [
            there for rows in by_metric.values() for there in (rows["score"].notna().any(), levels_of(rows) is not None)
        ]
        for number, (metric, fitted) in enumerate(self.metrics.items()):
            chosen = fitted.calibrator if annotator is None else fitted.named
            if not is_there[2 * number]:
                continue
            if isinstance(chosen, Raters):
                read = zip(chosen.standardiser_.used_, chosen.coefficients_, strict=False)  # gaps come last
                lacking = [names[column // 2] for column, weight in read if weight and not is_there[column]]
                if lacking:
                    listed = ", ".join(dict.fromkeys(lacking))
                    said.append(f"The map of {metric} reads more of {listed} than is there: averages stand in for it.")
            elif annotator is not None:
                said.append(f"The map of {metric} does not tell annotators apart: these are mean ratings.")
        return said

    def far_from_training(self, predicted: pd.DataFrame) -> list[str]:
        """A sentence for each metric of which many more items than usual are unlike those in training.

        Args:
            predicted: what ``predict`` returned.
        """
        return far_from_training(self.metrics, predicted)

    def drift(self, scores: pd.DataFrame) -> Drift:
        """How far the judge's scores of the anchor items have moved; raises InputError where none is there."""
        _check_columns(scores)
        try:
            return drift_of(self.anchor, scores, self.scales)
        except ValueError as error:
            raise InputError(str(error)) from error


LAYOUT = TypeAdapter(Calibration)
"""How a file holds a calibration: its fields by name, and ``format`` and ``version`` beside them."""


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
        seed: random seed of the folds.
        created: when, as text; now where None.
    """
    wanted = None if kinds is None else list(kinds)
    metrics = {metric: fit_metric(pairing, metric, wanted, seed) for metric in pairing.metrics}
    rated = [one.labelled for one in pairing.metrics.values()]
    return Calibration(
        judge_id=judge_id,
        identity=as_json(identity or {}),
        metrics=metrics,
        groups=len({str(group) for one in rated for group in one.groups}),
        sources=tuple(sorted({str(source) for one in rated for source in one.sources})),
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        anchor=tuple(anchor_of(pairing, seed)),
    )


def _check_columns(scores: pd.DataFrame) -> None:
    if absent := [name for name in ("item_id", "metric", "score") if name not in scores]:
        raise InputError(f"the scores have no column {', '.join(absent)}; add or rename one")


def levels_of(table: pd.DataFrame) -> Floats | None:
    """Shape (items, K): the level probabilities of one metric's judgments; None where it has none at all."""
    names = [name for name in table if re.fullmatch(r"p[1-9]\d*", str(name)) and table[name].notna().any()]
    return table[sorted(names, key=lambda name: int(str(name)[1:]))].to_numpy(float) if names else None


def far_from_training(metrics: Iterable[str], predicted: pd.DataFrame) -> list[str]:
    """A sentence for each metric of which many more items than usual are unlike those in training (``in_range``)."""
    said = []
    for metric in metrics:
        there = predicted[(predicted["metric"] == metric) & predicted["calibrated"].notna()]
        share = 1 - there["in_range"].mean() if len(there) else 0.0
        if len(there) >= FEWEST_TO_TELL and share > MOST_UNLIKE:
            said.append(
                f"On {metric} {share:.0%} of {len(there):,} items are unlike 95% of those the map was fitted on "
                "(in_range): there it is a guess."
            )
    return said


# The file

T = TypeVar("T")


def save_as(path: str | Path, name: str, version: int, layout: TypeAdapter[T], what: T) -> None:
    """Write as JSON, with the format's name and version."""
    saved = {"format": name, "version": version, **layout.dump_python(what)}
    text = json.dumps(saved, ensure_ascii=False, indent=1, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")


def load_as(path: str | Path, name: str, version: int, layout: TypeAdapter[T]) -> T:
    """Read what ``save_as`` wrote.

    Raises:
        InputError: there is no such file, it is not JSON or not of this format, is of another version, or is damaged.
    """
    saved = read_json(Path(path))
    if isinstance(saved, dict) and saved.get("format") == PANEL_FORMAT != name:
        raise InputError(f"{path}: is of several judges together; use it by calibrate --use, on runs of all of them")
    if not isinstance(saved, dict) or saved.get("format") != name:
        raise InputError(f"{path}: not a calibration; give a file that was written by fitting one")
    if saved.get("version") != version:
        raise InputError(f"{path}: format version {saved.get('version')}, not {version}; fit it again")
    try:
        found = layout.validate_python(saved)
        # A learned number that is not there would be its default, which no map may predict with.
        again = {"format": name, "version": version, **layout.dump_python(found)}
        if json.loads(json.dumps(again, allow_nan=False)) != saved:
            raise ValueError("parts are missing or are not what was written")
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".replace("\n", " ")
        raise InputError(f"{path}: a damaged calibration ({reason}); fit it again") from error
    except (ValueError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise InputError(f"{path}: a damaged calibration ({reason}); fit it again") from error
    return found


def read_json(path: Path) -> Any:
    """The JSON of a file, which has no NaN or infinity in it. Raises InputError."""

    def no_number(text: str) -> float:
        raise ValueError(f"{text} is not JSON")

    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: cannot be read (a folder, a pipe or a device); give a file")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; give a file that was written by fitting a calibration") from None


def as_json(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as it is after a file has held it, so that the two compare; raises InputError."""
    try:
        return dict(json.loads(json.dumps(dict(identity), ensure_ascii=False, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"the identity cannot be saved as JSON ({error}); give text and numbers") from error
