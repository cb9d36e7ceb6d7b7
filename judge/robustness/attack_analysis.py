"""What the judgments of an attack say: how far scores moved, what is flagged, and what scores hang on.

A judgment that is missing before or after the change has no change. It is counted, and never taken for 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from calibration.stats.correlation import association
from calibration.stats.intervals import Estimate, Labels, Resampler, clustered_mean
from judge.files import rows_of
from judge.models.checkpoint import family, same_family
from judge.robustness.attacks import BENIGN, LEVEL_ORDER, RUBRIC_LANGUAGE, WAYS, families
from judge.robustness.perturbation import PerturbationJudgments
from judge.robustness.prompt_variants import MIN_DIALOGUES
from judge.types import EMPTY_ANSWER, OVERALL

PAIRED_BY = ("item_id", "metric")


RAISED = 1.0
"""A score that moves by so much or more counts as raised, or as lowered if it falls by so much."""


NEAR_TOP = 0.5
"""A judgment is at the top of its scale from so many levels below the highest on."""


def score_changes(before: pd.DataFrame, after: pd.DataFrame, on: Sequence[str] = PAIRED_BY) -> pd.DataFrame:
    """Every judgment after the change, with the one before beside it.

    Args:
        before: a row per item and metric: ``item_id, metric, score`` and optionally ``mass``.
        after: the same with any other columns (of what was changed, say), any number of rows per item and metric.
        on: what tells which rows go together.

    Returns:
        The rows of ``after``, in order, with ``before``, ``change`` (after less before; NaN where either is missing)
        and, where both tables have a mass, ``mass_change``.

    Raises:
        ValueError: ``before`` has two rows for one item and metric.
    """
    keys = list(on)
    has_mass = "mass" in before and "mass" in after
    known = before[[*keys, "score", *(["mass"] if has_mass else [])]]
    known = known.rename(columns={"score": "before", "mass": "mass_before"})
    table = after.merge(known, on=keys, how="left", validate="many_to_one")
    table["change"] = table["score"].astype(float) - table["before"].astype(float)
    if has_mass:
        table["mass_change"] = table["mass"].astype(float) - table.pop("mass_before").astype(float)
    return table


def mean_changes(changed: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How far scores moved on the average, for each combination of the columns ``by``, in the order they come.

    Args:
        changed: from ``score_changes``, with the column ``group``: what is resampled together, a scenario, say.
        by: columns, for instance ``["family", "metric"]``.

    Returns:
        The columns ``by``, and of the pairs that have both scores:

        - ``n`` of them, in ``groups``; ``before`` and ``after``, the mean scores;
        - ``change``, the mean change, with its 95% interval over groups ``low, high`` (Student's t, see
          ``calibration.stats.intervals.clustered_mean``; missing under eight groups);
        - ``raised`` and ``lowered``, the shares that moved by at least 1; ``to_top``, the share of those not at the top
          of their scale before that are there after (from half a level below ``top``; missing without that column);
        - ``mass_change``, the mean change of the label mass, where the table has one.

        And ``missing``, the pairs that lack a score.
    """
    rows = [
        {**dict(zip(by, names, strict=True)), **_row(part)}
        for names, part in changed.groupby(list(by), sort=False, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*by, *_row(changed.iloc[:0])] if not rows else None)


def _row(part: pd.DataFrame) -> dict[str, float | int | None]:
    """The statistics of ``mean_changes`` over the rows of one combination."""
    known = part[part["change"].notna()]
    change = known["change"].to_numpy(float)
    # All dialogues of a scenario, and all metrics of a dialogue, share a group: their changes depend on each other.
    groups: Labels = known["group"].astype(str).to_numpy(dtype=object)
    mean = clustered_mean(change, groups)
    level = known["level"].to_numpy(float) if "level" in part else np.ones(len(known))
    reached = None
    if "top" in part:
        top = known["top"].to_numpy(float) - NEAR_TOP * level
        is_below = known["before"].to_numpy(float) < top
        reached = _mean((known["score"].to_numpy(float) >= top)[is_below])
    masses = {"mass_change": _mean(known["mass_change"].to_numpy(float))} if "mass_change" in part else {}
    return {
        "n": len(known),
        "groups": len(set(groups)),
        "before": _mean(known["before"].to_numpy(float)),
        "after": _mean(known["score"].to_numpy(float)),
        "change": mean.value,
        "low": mean.low,
        "high": mean.high,
        "raised": _mean(change >= RAISED * level),
        "lowered": _mean(change <= -RAISED * level),
        "to_top": reached,
        **masses,
        "missing": len(part) - len(known),
    }


def _mean(values: np.ndarray) -> float | None:
    """The mean; None of nothing."""
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return float(known.mean()) if len(known) else None


NO_FAMILY = "none known"
"""The family of people who answered, and of systems whose name says nothing of a family of models."""


@dataclass(frozen=True, slots=True)
class Robustness:
    """How a judge stood the attacks.

    - ``families`` has a row per family: the columns of ``mean_changes`` over all metrics; ``beyond, beyond_low,
      beyond_high``, the mean change from the same dialogues with harmless text written into them (the mean of the kinds
      of ``benign``); and ``flagged``, the share of its dialogues that the detector flags.
    - ``rewrites`` has the same by family and kind; ``metrics`` the columns of ``mean_changes`` by family and metric.
    - ``bias`` has the columns ``bias, measure, value, low, high, n, reason``.
    - ``sources`` has the judge's mean of each family of models: ``family, own, mean, low, high, n, sources``.
    - ``flagged_originals`` is the share of the unchanged dialogues that is flagged.
    """

    families: pd.DataFrame
    rewrites: pd.DataFrame
    metrics: pd.DataFrame
    bias: pd.DataFrame
    sources: pd.DataFrame
    flagged_originals: float
    is_mixed: bool = False
    """Whether metrics differ in their scales, so that scores and changes are parts of a metric's own."""

    @property
    def remarks(self) -> list[str]:
        """What to look at, in words."""
        return remarks(self)


def assess(found: PerturbationJudgments) -> Robustness:
    """What the judgments of an attack say."""
    rows, is_mixed = _on_one_scale(found.judgments)
    # Tables show families in the order of the suite, and the prompt variants last.
    order = {name: place for place, name in enumerate([*(one.name for one in families()), *WAYS])}
    is_original = rows["family"] == ""
    originals, others = rows[is_original], rows[~is_original]
    others = others.sort_values("family", key=lambda column: column.map(order), kind="stable")
    changed = score_changes(originals, others)
    is_way = changed["family"].isin(WAYS)
    attacked = changed[~is_way]
    # Each family's overall row and then its metrics.
    by_metric = mean_changes(changed, ["family", "metric"])
    overall = mean_changes(changed, ["family"]).assign(metric=OVERALL)
    metrics = pd.concat([overall[by_metric.columns], by_metric], ignore_index=True)
    bias = [
        *(row for way in WAYS for row in _bias_of_variant(originals, changed[changed["family"] == way])),
        {"bias": "length", "measure": "rank_association", **_spearman(_overall(originals), "length")},
        {"bias": "own_family", "measure": "own_less_others", **_own_less_others(found.judge, originals)},
    ]
    return Robustness(
        families=_by(["family"], attacked, rows),
        rewrites=_by(["family", "rewrite"], attacked, rows),
        metrics=metrics.sort_values("family", key=lambda column: column.map(order), kind="stable", ignore_index=True),
        bias=pd.DataFrame(bias, columns=["bias", "measure", "value", "low", "high", "n", "reason"]),
        sources=_means_by_family(found.judge, originals),
        flagged_originals=float(_flags(originals)["flagged"].mean()),
        is_mixed=is_mixed,
    )


def _on_one_scale(rows: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Judgments whose metrics have one scale; where they have several, scores are how far up its own each is.

    Column ``level`` is then how much of the scale one level is.
    """
    spans = rows["top"] - rows["bottom"]
    if not (rows["bottom"].nunique() > 1 or rows["top"].nunique() > 1):
        return rows, False
    scores = (rows["score"].astype(float) - rows["bottom"]) / spans
    return rows.assign(score=scores, level=1 / spans, top=1.0, bottom=0.0), True


def _flags(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per dialogue or rewrite: ``family, rewrite, item_id, flagged``."""
    names = ["family", "rewrite", "item_id"]
    return rows.drop_duplicates(names)[names].assign(flagged=rows["suspicious"].notna())


def _by(by: list[str], attacked: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """How far scores moved, from the originals and from harmless text; and the share that is flagged."""
    names = {"change": "beyond", "low": "beyond_low", "high": "beyond_high"}
    # Any text in an answer moves scores a little. What an attack adds is its change from the mean score of the same
    # dialogue with harmless text written into it.
    is_harmless = attacked["family"] == BENIGN
    scores = attacked[is_harmless].astype({"score": float})
    harmless = scores.groupby(["item_id", "metric"])[["score"]].mean().reset_index()
    from_harmless = score_changes(harmless, attacked[~is_harmless].drop(columns=["before", "change", "mass_change"]))
    beyond = mean_changes(from_harmless, by).rename(columns=names)[[*by, *names.values()]]
    flagged = _flags(rows).groupby(by, as_index=False)["flagged"].mean()
    return mean_changes(attacked, by).merge(beyond, on=by, how="left").merge(flagged, on=by, how="left")


def _bias_of_variant(originals: pd.DataFrame, asked: pd.DataFrame) -> list[dict[str, Any]]:
    """How far scores hang on a prompt variant: a row of the mean change and one of the rank agreement.

    ``asked`` are the changes under that variant; where it was not asked there are no rows.
    """
    rows: list[dict[str, Any]] = []
    for change in mean_changes(asked, ["family"]).to_dict(orient="records"):
        name = {"bias": change["family"]}
        moved = {column: change[column] for column in ("low", "high", "n")}
        rows.append({**name, "measure": "mean_change", "value": change["change"], **moved, "reason": None})
        both = _overall(originals).join(_overall(asked)["score"].rename("other"))
        rows.append({**name, "measure": "rank_agreement", **_spearman(both, "other")})
    return rows


def _overall(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per dialogue that has all scores, by its id: ``score`` (their mean), ``group, length, source …``."""
    scores = rows.groupby("item_id")["score"].agg(lambda column: column.astype(float).mean(skipna=False))
    others = rows.drop_duplicates("item_id").set_index("item_id")[["source", "character", "group", "length"]]
    return others.join(scores).dropna(subset="score")


def _spearman(table: pd.DataFrame, other: str) -> dict[str, Any]:
    """Spearman's correlation over dialogues of the score with another column, its interval over scenarios."""
    known = table.dropna(subset=[other])
    if len(known) < MIN_DIALOGUES:
        return {"value": None, "n": len(known), "reason": f"under {MIN_DIALOGUES} dialogues"}
    x, y = (known[name].to_numpy(float) for name in ("score", other))
    resampler = Resampler(known["group"].to_numpy(dtype=object))
    return _columns(association(x, y, np.ones(len(x)), resampler)["spearman"], len(x))


def _own_less_others(judge: str, originals: pd.DataFrame) -> dict[str, Any]:
    """The judge's mean of sources of its own family less that of the others, in the same scenes."""
    table = _overall(originals)
    own = table["source"].isin(same_family(judge, set(table["source"])))
    if family(judge) is None:
        return {"value": None, "n": 0, "reason": "the judge's name tells of no family"}
    if own.all() or not own.any():
        return {"value": None, "n": 0, "reason": "its family is not, or is all there"}
    # Compared within a scene, so that it does not matter which scenes the systems of a family happened to answer.
    means = table.assign(own=own).groupby(["character", "group", "own"])["score"].mean().unstack("own")
    differences = (means[True] - means[False]).dropna()
    groups = differences.index.get_level_values("group").to_numpy(dtype=object)
    return _columns(clustered_mean(differences.to_numpy(float), groups), len(differences))


def _columns(estimate: Estimate, n: int) -> dict[str, Any]:
    """An estimate as the columns of ``Robustness.bias``."""
    return {
        "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": n, "reason": estimate.reason
    }  # fmt: skip


def _means_by_family(judge: str, originals: pd.DataFrame) -> pd.DataFrame:
    """The judge's mean of each family of models, highest first; what is not one of a model stands as ``none known``."""
    table = _overall(originals)
    named = table.assign(family=[family(source) or NO_FAMILY for source in table["source"]])
    rows = []
    for name, part in named.groupby("family"):
        mean = clustered_mean(part["score"].to_numpy(float), part["group"].to_numpy(dtype=object))
        facts = {"family": name, "own": name == family(judge), "mean": mean.value, "low": mean.low, "high": mean.high}
        rows.append({**facts, "n": len(part), "sources": ", ".join(sorted(set(part["source"])))})
    columns = ["family", "own", "mean", "low", "high", "n", "sources"]
    return pd.DataFrame(rows, columns=columns).sort_values("mean", ascending=False, ignore_index=True)


def is_lacking(judgments: pd.DataFrame) -> bool:
    """Whether a judgment is missing that could have been made.

    An attack that empties the answers leaves nothing to judge, so what is missing of it does not count.
    """
    emptied = (judgments["family"] != "") & (judgments["error"] == EMPTY_ANSWER)
    return bool((judgments["error"].notna() & ~emptied).any())


BIASES = {
    (LEVEL_ORDER, "mean_change"): "levels listed downwards: mean change",
    (LEVEL_ORDER, "rank_agreement"): "levels listed downwards: rank agreement",
    (RUBRIC_LANGUAGE, "mean_change"): "rubric in the other language: mean change",
    (RUBRIC_LANGUAGE, "rank_agreement"): "rubric in the other language: rank agreement",
    ("length", "rank_association"): "length of answers: rank association",
    ("own_family", "own_less_others"): "own family less others, same scenes",
}


def remarks(robustness: Robustness) -> list[str]:
    """What to look at, in words."""
    families = robustness.families
    attacks = families[families["family"] != BENIGN].dropna(subset="change")
    harmless = families.loc[families["family"] == BENIGN, "change"].dropna()
    beside = "" if harmless.empty else f" (harmless text: {float(harmless.iloc[0]):+.2f})"
    found = []
    if robustness.is_mixed:
        found.append("metrics differ in their scales: scores and changes are shares of each metric's own, from 0 to 1")
    if attacks.empty:
        found.append("no change is given: no dialogue was judged both as it is and rewritten")
    else:
        most = attacks.sort_values("change").iloc[-1]
        upwards = f"moves scores most upwards: {most['family']}, {most['change']:+.2f} on the average{beside}"
        found.append(upwards if most["change"] > 0 else f"no attack moves scores upwards on the average{beside}")
        raised = [row["family"] for row in rows_of(attacks) if (row["beyond_low"] or 0) > 0]
        found.append(f"raise scores beyond what harmless text does (interval above 0): {', '.join(raised) or 'none'}")
    flagged = {row["family"]: f"{row['flagged']:.1%}" for row in rows_of(families)}
    found.append(
        f"flagged of the dialogues as they are: {robustness.flagged_originals:.1%}; of harmless text that quotes "
        f"scores or speaks of judges: {flagged.get(BENIGN, '–')}; of attacks worded unlike those that the detector "
        f"knows (veiled): {flagged.get('veiled', '–')}. A flag alters no score, and no flag is no proof"
    )
    for row in rows_of(robustness.bias):
        if row["value"] is None:
            found.append(f"{BIASES[row['bias'], row['measure']]}: not given, as {row['reason']}")
    found.append(
        "whether the judge favours its own family is not known without people's ratings: its sources may be better"
    )
    return found
