"""What a judge's scores of clean and degraded dialogues say: every statistic, controls beside it, words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from calibration.changes import mean_changes, score_changes
from calibration.probing import controls, words
from calibration.probing.discrimination import auc, in_order, share_lower
from calibration.resampling import MIN_GROUPS, Estimate, Floats, Labels, clustered_mean

__all__ = ["ProbeAssessment", "assess_probes"]

FORM = ["degradation", "strength"]
CELL = [*FORM, "metric"]


@dataclass(frozen=True, slots=True)
class ProbeAssessment:
    """What probes say of a judge. Intervals (``…_low, …_high``) are of 95%, over groups; none under eight groups.

    ``rows``, one per degradation and strength, on the ``metric`` it is aimed at: ``n`` items, ``groups``, ``missing``;
    mean scores ``clean, degraded`` and their difference ``drop``; ``lower``, the share of items that score lower
    degraded; ``auc``, clean against degraded; ``specific``, the drop less the mean of the other metrics' drops; the AUC
    of what needs no judge, ``length_auc, bag_auc``, and of what cannot tell, ``random_auc, permuted_auc``; ``verdict``
    and ``remark`` (``calibration.probing.words``).
    ``matrix`` has ``n, drop, auc`` of every degradation, strength and metric. ``orders`` has per degradation
    ``in_order``, the share of items whose scores fall with each strength, and ``means_in_order``.
    """

    rows: pd.DataFrame = field(repr=False)
    matrix: pd.DataFrame = field(repr=False)
    orders: pd.DataFrame = field(repr=False)
    sentences: tuple[str, ...]
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What programs read: tables as lists of rows, NaN as None."""
        tables = {name: getattr(self, name) for name in ("rows", "matrix", "orders")}
        records = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        return {**records, "sentences": list(self.sentences), "remarks": list(self.remarks)}


def assess_probes(
    judgments: pd.DataFrame, texts: pd.DataFrame, aims: Mapping[str, str], strengths: Sequence[str], seed: int = 0
) -> ProbeAssessment:
    """Every statistic of a judge's scores of items as they are and in degraded forms.

    Args:
        judgments: a row per form and metric: ``degradation, strength`` (both "" of an item as it is), ``item_id, group,
            metric, score`` (NaN where it is missing).
        texts: a row per form: ``degradation, strength, item_id, text``, for the controls.
        aims: of each degradation the metric that it is aimed at, in the order to show.
        strengths: mildest first.
        seed: of the controls that draw.
    """
    forms = [(name, strength) for name in aims for strength in strengths]
    is_clean = judgments["degradation"] == ""
    changed = score_changes(judgments[is_clean], judgments[~is_clean])
    changed["before"], changed["score"] = changed["before"].astype(float), changed["score"].astype(float)
    parts = {(str(d), str(s)): part for (d, s), part in changed.groupby(FORM, sort=False)}
    text_of = texts.set_index([*FORM, "item_id"])["text"]
    drops = mean_changes(changed, CELL).set_index(CELL)
    rows = [
        _row(form, aims[form[0]], parts[form], drops, text_of, np.random.default_rng([seed, number]))
        for number, form in enumerate(forms)
        if form in parts
    ]
    return ProbeAssessment(
        rows=pd.DataFrame(rows),
        matrix=pd.DataFrame([cell for form in forms if form in parts for cell in _cells(form, parts[form], drops)]),
        orders=pd.DataFrame([_order(name, aims[name], parts, strengths) for name in aims]),
        sentences=tuple(
            words.sentence(metric, [row for row in rows if row["metric"] == metric], strengths)
            for metric in dict.fromkeys(aims.values())
        ),
        remarks=tuple(_remarks(rows)),
    )


def _row(
    form: tuple[str, str],
    metric: str,
    part: pd.DataFrame,
    drops: pd.DataFrame,
    text_of: pd.Series[str],
    generator: np.random.Generator,
) -> dict[str, Any]:
    own = _known(part, metric)
    clean, degraded, groups = _scores(own)
    before, after = ([str(text_of[(*names, item)]) for item in own["item_id"]] for names in (("", ""), form))
    found = auc(clean, degraded, groups)
    change = drops.loc[[(*form, metric)]].iloc[0]
    row: dict[str, Any] = {
        "metric": metric,
        **dict(zip(FORM, form, strict=True)),
        "n": len(own),
        "groups": len(set(groups)),
        "missing": int(change["missing"]),
        "clean": _value(change["before"]),
        "degraded": _value(change["after"]),
        **_drop(change),
        **_named("lower", share_lower(clean, degraded, groups)),
        **_named("auc", found),
        **_named("specific", _specific(part, metric)),
        **_controls(before, after, clean, degraded, groups, generator),
        "reason": found.reason or f"under {MIN_GROUPS} groups",
    }
    row["verdict"] = words.verdict(row)
    return {**row, "remark": words.remark(row)}


def _controls(
    before: list[str],
    after: list[str],
    clean: Floats,
    degraded: Floats,
    groups: Labels,
    generator: np.random.Generator,
) -> dict[str, float | None]:
    return {
        **_named("length_auc", controls.length(before, after, groups)),
        **_named("bag_auc", controls.bag_of_characters(before, after, groups)),
        **_named("random_auc", controls.random(groups, generator)),
        **_named("permuted_auc", controls.permuted(clean, degraded, groups, generator)),
    }


def _specific(part: pd.DataFrame, metric: str) -> Estimate:
    """By how much more a metric drops than the others do on the average, over items that have all of them."""
    changes = part.pivot(index=["item_id", "group"], columns="metric", values="change").dropna()
    others = changes.drop(columns=metric).mean(axis=1)
    return clustered_mean((others - changes[metric]).to_numpy(float), _labels(changes.index.get_level_values("group")))


def _cells(form: tuple[str, str], part: pd.DataFrame, drops: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for metric in part["metric"].unique():
        own = _known(part, metric)
        names = {**dict(zip(FORM, form, strict=True)), "metric": metric, "n": len(own)}
        yield {**names, **_drop(drops.loc[[(*form, metric)]].iloc[0]), **_named("auc", auc(*_scores(own)))}


def _order(
    name: str, metric: str, parts: Mapping[tuple[str, str], pd.DataFrame], strengths: Sequence[str]
) -> dict[str, Any]:
    """Whether scores fall from strength to strength, over items that have all of them."""
    there = [_known(parts[name, s], metric).assign(strength=s) for s in strengths if (name, s) in parts]
    wide = pd.concat(there).pivot(index=["item_id", "group"], columns="strength", values="score") if there else None
    if wide is None or len(wide.columns) < len(strengths) or wide.dropna().empty:
        none = Estimate(None)
        return {"metric": metric, "degradation": name, "n": 0, **_named("in_order", none), "means_in_order": None}
    scores = wide.dropna()[list(strengths)]
    found = in_order(scores.to_numpy(float), _labels(scores.index.get_level_values("group")))
    falling = bool((np.diff(scores.mean()) < 0).all())
    names = {"metric": metric, "degradation": name, "n": len(scores)}
    return {**names, **_named("in_order", found), "means_in_order": falling}


def _remarks(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How often intervals of what cannot tell hold .5, as 95% of them should."""
    for column, name in (("random_auc", "random scores"), ("permuted_auc", "permuted labels")):
        known = [row for row in rows if row[f"{column}_low"] is not None]
        held = sum(row[f"{column}_low"] <= 0.5 <= row[f"{column}_high"] for row in known)
        if known:
            yield f"{name}: {held} of {len(known)} intervals of the AUC hold .5 (95% should)"


def _known(part: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric that have both scores."""
    return part[(part["metric"] == metric) & part["change"].notna()]


def _scores(own: pd.DataFrame) -> tuple[Floats, Floats, Labels]:
    return own["before"].to_numpy(float), own["score"].to_numpy(float), _labels(own["group"])


def _labels(values: Any) -> Labels:
    return np.asarray([str(value) for value in values], dtype=object)


def _drop(change: pd.Series[Any]) -> dict[str, float | None]:
    """A mean change as a drop."""
    values = [_value(change[name]) for name in ("change", "high", "low")]
    return dict(zip(("drop", "drop_low", "drop_high"), (None if v is None else -v for v in values), strict=True))


def _named(name: str, found: Estimate) -> dict[str, float | None]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _value(number: Any) -> float | None:
    return None if pd.isna(number) else float(number)
