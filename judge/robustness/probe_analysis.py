"""What a judge's scores of clean and degraded dialogues say.

Every statistic stands beside controls: what length or a bag of characters would achieve without a judge, and what
random scores or permuted labels give by chance. Fixed rules turn them into verdicts and sentences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from calibration.stats.intervals import (
    MIN_GROUPS,
    Estimate,
    Floats,
    Labels,
    clustered_mean,
    clustered_variance,
    student,
)
from judge.robustness.attack_analysis import mean_changes, score_changes


def auc(clean: Floats, degraded: Floats, groups: Labels) -> Estimate:
    """The chance that a clean item scores above a degraded one, ties counting half, with its 95% interval.

    The variance is that of the placement values of both sides (DeLong, DeLong and Clarke-Pearson 1988), summed within
    groups before squaring, as an item and its degraded form depend on each other (Obuchowski 1997, "Nonparametric
    analysis of clustered ROC curve data", eq. 4, with one sum over both sides); Student's t, cut to [0, 1].

    Args:
        clean, degraded, groups: shape (items,), finite; an item's group is that of both its forms.
    """
    if not len(clean):
        return Estimate(None, reason="there is no item that has both scores")
    above, below = placements(clean, degraded)
    value = float(above.mean())
    # What each item adds to the error of the AUC, by its clean and by its degraded form.
    influence = (above - value + below - value) / len(clean)
    return _within(student(value, *clustered_variance(influence, groups)))


def placements(clean: Floats, degraded: Floats) -> tuple[Floats, Floats]:
    """Placement values: for each clean item the share of degraded ones below it, and for each degraded item the share
    of clean ones above it. Ties count half. Both have shape (items,).
    """
    # An item's rank among all less its rank on its own side is the number of items of the other side below it, where
    # mid-ranks count a tie half.
    ranks = rankdata(np.concatenate([clean, degraded]))
    above = (ranks[: len(clean)] - rankdata(clean)) / len(degraded)
    below = 1 - (ranks[len(clean) :] - rankdata(degraded)) / len(clean)
    return above, below


def share_lower(clean: Floats, degraded: Floats, groups: Labels) -> Estimate:
    """The share of items whose own degraded form scores lower, ties counting half."""
    return _within(clustered_mean((1 + np.sign(clean - degraded)) / 2, groups))


def in_order(scores: Floats, groups: Labels) -> Estimate:
    """The share of items whose scores fall from each strength to the next, ties not counting; 1/6 by chance.

    Args:
        scores: shape (items, strengths), mildest first.
    """
    return _within(clustered_mean((np.diff(scores, axis=1) < 0).all(axis=1).astype(float), groups))


def _within(found: Estimate) -> Estimate:
    """A share's interval cut to where shares lie."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


FOLDS = 5
"""Folds in which the bag of characters is cross-validated; fewer where there are fewer groups."""


def length(clean: Sequence[str], degraded: Sequence[str], groups: Labels) -> Estimate:
    """The AUC of the number of characters as a score; of longer-is-better and shorter-is-better the higher one."""
    before, after = (np.array([len(text) for text in texts], dtype=float) for texts in (clean, degraded))
    return max((auc(sign * before, sign * after, groups) for sign in (1.0, -1.0)), key=lambda found: found.value or 0.0)


def bag_of_characters(clean: Sequence[str], degraded: Sequence[str], groups: Labels) -> Estimate:
    """The AUC of a logistic regression on how often each character stands in a text, on groups it has not seen.

    Unlike a judge, it learns from the other groups which texts are degraded. Whole groups are held out, as the two
    forms of an item share most of their text.
    """
    folds = min(FOLDS, len(set(groups)))
    if folds < 2:
        return Estimate(None, reason="there is one group only, so none is left to try it on")
    counts = CountVectorizer(analyzer="char", lowercase=False).fit_transform([*clean, *degraded])
    is_clean = np.repeat([1, 0], len(clean))
    scores = np.empty(len(is_clean))
    for train, test in GroupKFold(folds).split(counts, groups=np.tile(groups, 2)):
        fitted = LogisticRegression(solver="liblinear", max_iter=1000).fit(counts[train], is_clean[train])
        scores[test] = fitted.decision_function(counts[test])
    return auc(scores[is_clean == 1], scores[is_clean == 0], groups)


def random(groups: Labels, generator: np.random.Generator) -> Estimate:
    """The AUC of a judge that draws its scores."""
    return auc(generator.random(len(groups)), generator.random(len(groups)), groups)


def permuted(clean: Floats, degraded: Floats, groups: Labels, generator: np.random.Generator) -> Estimate:
    """The AUC of the judge's own scores, where a coin decides for each pair which score is called clean."""
    kept = generator.random(len(clean)) < 0.5
    return auc(np.where(kept, clean, degraded), np.where(kept, degraded, clean), groups)


PASSING = 0.8
"""A control with so high an AUC passes the probe by itself. That a judge passes it then proves nothing."""


CONTROLS = {"length": "length", "bag": "a bag of characters"}
"""Controls that see the text: column and what it is called."""


NOTICED, AS_SURFACE, PROVES_NOTHING = "noticed", "as surface", "proves nothing"


NOT_NOTICED, REVERSED, UNKNOWN = "not noticed", "rated higher", "cannot be said"


def verdict(row: Mapping[str, Any]) -> str:
    """What a probe says of a judge, from its AUC ``auc`` with ``auc_low, auc_high``, and ``length_auc, bag_auc``.

    ``noticed``: the interval lies above .5 and above every control. ``as surface``: above .5, but a control lies in
    the interval or above. ``proves nothing``: above .5, but a control passes. ``not noticed``: .5 or less is in the
    interval; ``rated higher``: it lies under .5. ``cannot be said``: there is no interval.
    """
    if row["auc_low"] is None:
        return UNKNOWN
    if row["auc_high"] < 0.5:
        return REVERSED
    if row["auc_low"] <= 0.5:
        return NOT_NOTICED
    best = _strongest(row)[1]
    if best >= PASSING:
        return PROVES_NOTHING
    return AS_SURFACE if best >= row["auc_low"] else NOTICED


def remark(row: Mapping[str, Any]) -> str:
    """The verdict as part of a sentence, with the control that it rests on."""
    control, best = _strongest(row)
    alone = f"{control} alone: AUC {short_number(best)}"
    passes = f"; {alone}" if best >= PASSING else ""
    return {
        UNKNOWN: f"nothing can be said: {row['reason']}",
        REVERSED: f"rated higher than the clean ones (AUC {short_number(row['auc'])})",
        NOT_NOTICED: f"not noticed (AUC {short_number(row['auc'])}{passes})",
        PROVES_NOTHING: f"{alone}, so this proves nothing",
        AS_SURFACE: f"cannot be told from {control} ({alone.split(': ')[1]})",
        NOTICED: f"noticed (AUC {short_number(row['auc'])}; {alone})",
    }[row["verdict"]]


def sentence(metric: str, rows: Sequence[Mapping[str, Any]], strengths: Sequence[str]) -> str:
    """What the probes aimed at a metric say, each at its strongest, and from which strength on it is noticed."""
    strongest = [row for row in rows if row["strength"] == strengths[-1]]
    if all(row["verdict"] == UNKNOWN for row in strongest):
        why = remark(strongest[0]) if strongest else "no degradation applies to these items"
        return f"{metric}: {why}."
    verdicts = {(row["degradation"], row["strength"]): row["verdict"] for row in rows}
    noticed, rest = [], []
    for row in strongest:
        name = row["degradation"]
        if row["verdict"] != NOTICED:
            rest.append(f"; {name}: {remark(row)}")
            continue
        # The strengths from which on, up to the strongest, all are noticed.
        seen = [s for k, s in enumerate(strengths) if all(verdicts[name, s] == NOTICED for s in strengths[k:])]
        noticed.append(f"{name} (from {seen[0]} on)" if len(seen) > 1 else name)
    return f"{metric}: notices {', '.join(noticed) or 'none for certain'}{''.join(rest)}."


def _strongest(row: Mapping[str, Any]) -> tuple[str, float]:
    """The control with the highest AUC, and that AUC; 0 where there is none."""
    return max(((name, row[f"{column}_auc"] or 0.0) for column, name in CONTROLS.items()), key=lambda pair: pair[1])


def short_number(value: float) -> str:
    """A number with two decimals, without the 0 before the point; a dash where there is none."""
    if pd.isna(value):
        return "–"
    text = f"{value:.2f}"
    return text if abs(value) >= 1 or text == "1.00" else text.replace("0.", ".").replace("-.00", ".00")


FORM = ["degradation", "strength"]


CELL = [*FORM, "metric"]


@dataclass(frozen=True, slots=True)
class ProbeAssessment:
    """What probes say of a judge. Intervals (``…_low, …_high``) are of 95%, over groups; none under eight groups.

    ``rows``, one per degradation and strength, on the ``metric`` it is aimed at: ``n`` items, ``groups``, ``missing``;
    mean scores ``clean, degraded`` and their difference ``drop``; ``lower``, the share of items that score lower
    degraded; ``auc``, clean against degraded; ``specific``, the drop less the mean of the other metrics' drops; the AUC
    of what needs no judge, ``length_auc, bag_auc``, and of what cannot tell, ``random_auc, permuted_auc``; ``verdict``
    and ``remark`` (``judge.robustness.probe_analysis``).
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
    rows, cells = [], []
    # Each form has a generator of its own, so that its controls do not depend on which other forms there are.
    for number, form in enumerate(forms):
        if form not in parts:
            continue
        part, generator = parts[form], np.random.default_rng([seed, number])
        rows.append(_row(form, aims[form[0]], part, drops, text_of, generator))
        for metric in part["metric"].unique():
            own, change = _known(part, metric), drops.loc[[(*form, metric)]].iloc[0]
            names = {**dict(zip(FORM, form, strict=True)), "metric": metric, "n": len(own)}
            cells.append({**names, **_drop(change), **_named("auc", auc(*_scores(own)))})
    # How often the intervals of the two controls that cannot tell hold .5.
    remarks = []
    for column, name in (("random_auc", "random scores"), ("permuted_auc", "permuted labels")):
        known = [row for row in rows if row[f"{column}_low"] is not None]
        held = sum(row[f"{column}_low"] <= 0.5 <= row[f"{column}_high"] for row in known)
        if known:
            remarks.append(f"{name}: {held} of {len(known)} intervals of the AUC hold .5 (95% should)")
    return ProbeAssessment(
        rows=pd.DataFrame(rows),
        matrix=pd.DataFrame(cells),
        orders=pd.DataFrame([_order(name, aims[name], parts, strengths) for name in aims]),
        sentences=tuple(
            sentence(metric, [row for row in rows if row["metric"] == metric], strengths)
            for metric in dict.fromkeys(aims.values())
        ),
        remarks=tuple(remarks),
    )


def _row(
    form: tuple[str, str],
    metric: str,
    part: pd.DataFrame,
    drops: pd.DataFrame,
    text_of: pd.Series[str],
    generator: np.random.Generator,
) -> dict[str, Any]:
    """A row of ``ProbeAssessment.rows``: one degradation at one strength, on the metric that it is aimed at."""
    own = _known(part, metric)
    clean, degraded, groups = _scores(own)
    before, after = ([str(text_of[(*names, item)]) for item in own["item_id"]] for names in (("", ""), form))
    change = drops.loc[[(*form, metric)]].iloc[0]
    # By how much more a metric drops than the others do on the average, over items that have all of them.
    changes = part.pivot(index=["item_id", "group"], columns="metric", values="change").dropna()
    beyond = changes.drop(columns=metric).mean(axis=1) - changes[metric]
    row: dict[str, Any] = {
        "metric": metric,
        **dict(zip(FORM, form, strict=True)),
        "n": len(own),
        "groups": len(set(groups)),
        "missing": int(change["missing"]),
        "clean": _value(change["before"]),
        "degraded": _value(change["after"]),
        **_drop(change),
    }
    estimates = {
        "lower": share_lower(clean, degraded, groups),
        "auc": auc(clean, degraded, groups),
        "specific": clustered_mean(beyond.to_numpy(float), _labels(beyond.index.get_level_values("group"))),
        "length_auc": length(before, after, groups),
        "bag_auc": bag_of_characters(before, after, groups),
        "random_auc": random(groups, generator),
        "permuted_auc": permuted(clean, degraded, groups, generator),
    }
    for name, estimate in estimates.items():
        row |= _named(name, estimate)
    row["reason"] = estimates["auc"].reason or f"under {MIN_GROUPS} groups"
    row["verdict"] = verdict(row)
    return {**row, "remark": remark(row)}


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


def _known(part: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric that have both scores."""
    return part[(part["metric"] == metric) & part["change"].notna()]


def _scores(own: pd.DataFrame) -> tuple[Floats, Floats, Labels]:
    """Clean scores, degraded scores and groups, of shape (items,) each."""
    return own["before"].to_numpy(float), own["score"].to_numpy(float), _labels(own["group"])


def _labels(values: Any) -> Labels:
    return np.asarray([str(value) for value in values], dtype=object)


def _drop(change: pd.Series[Any]) -> dict[str, float | None]:
    """A mean change as a drop: with the other sign, so that the ends of its interval change places."""
    values = [_value(change[name]) for name in ("change", "high", "low")]
    return dict(zip(("drop", "drop_low", "drop_high"), (None if v is None else -v for v in values), strict=True))


def _named(name: str, found: Estimate) -> dict[str, float | None]:
    """An estimate as three columns: its value, and the ends of its interval."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _value(number: Any) -> float | None:
    return None if pd.isna(number) else float(number)
