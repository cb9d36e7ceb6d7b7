"""How far a judge can stand in for people: every statistic of every metric, in one call, and a verdict on each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from calibration.agreement.alt_test import AltTest, alternative_annotator_test
from calibration.agreement.by_metric import Agreement, agreement
from calibration.agreement.discriminant import Discriminant, discriminant_validity
from calibration.agreement.reliability import Reliability, reliability
from calibration.agreement.verdict import Verdict, verdict
from calibration.paired import Paired, Pairing
from calibration.resampling import Estimate, clustered_mean

__all__ = ["Assessment", "MetricAssessment", "assess"]

Raters = Literal["people", "slots"]


@dataclass(frozen=True, slots=True)
class MetricAssessment:
    """One metric: how people agree with each other, how the judge agrees with them, and what it may be used for."""

    reliability: Reliability
    agreement: Agreement
    alt_test: AltTest
    verdict: Verdict
    family_bias: Estimate | None
    """Judge minus people on sources of the judge's own family, less that on the others; None where not known."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """All metrics of one judge."""

    judge: str
    metrics: dict[str, MetricAssessment]
    discriminant: Discriminant | None
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What programs read: numbers by name, None where undefined, with intervals and reasons beside them."""
        return {
            "judge": self.judge,
            "remarks": list(self.remarks),
            "metrics": {name: _metric_dict(one) for name, one in self.metrics.items()},
            "discriminant": _discriminant_dict(self.discriminant),
        }

    @property
    def table(self) -> pd.DataFrame:
        """A row a number: ``metric, of, statistic, value, low, high, reason``."""
        rows = [
            {"metric": name, "of": of, "statistic": statistic, **_plain(estimate)}
            for name, one in self.metrics.items()
            for of, estimates in _estimates(one).items()
            for statistic, estimate in estimates.items()
        ]
        return pd.DataFrame(rows, columns=["metric", "of", "statistic", "value", "low", "high", "reason"])


def assess(
    pairing: Pairing,
    judge: str,
    *,
    raters: Raters = "people",
    characters: bool = False,
    scoring: Literal["rmse", "accuracy"] = "rmse",
    epsilon: float | None = None,
    kind: Literal["expert", "skilled", "crowd"] = "expert",
    composites: Iterable[str] = (),
    same_family: Sequence[str] = (),
    seed: int = 0,
) -> Assessment:
    """Assess a judge on every metric of a pairing.

    Args:
        judge: its name, for the sentences.
        raters: whether annotators are people (a name is one person everywhere) or only slots of a form.
        characters: generalise over characters too.
        scoring, epsilon, kind: of the alternative annotator test.
        composites: metrics that are means of others, which the matrix of metrics leaves out.
        same_family: sources of the judge's own family of models.
        seed: of the bootstrap.
    """

    def one(paired: Paired) -> MetricAssessment:
        own = reliability(paired, raters=raters, characters=characters, seed=seed)
        found = agreement(paired, characters=characters, seed=seed)
        test = alternative_annotator_test(paired, scoring=scoring, epsilon=epsilon, kind=kind, raters=raters)
        bias = _family_bias(paired, same_family, characters)
        return MetricAssessment(own, found, test, verdict(found, own, judge), bias)

    rated = {name: paired.labelled for name, paired in pairing.metrics.items()}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        metrics = dict(zip(rated, threads.map(one, rated.values()), strict=True))
    simple = {name: paired for name, paired in rated.items() if name not in set(composites)}
    return Assessment(judge, metrics, discriminant_validity(simple), _remarks(pairing, metrics))


def _family_bias(paired: Paired, same_family: Sequence[str], characters: bool) -> Estimate | None:
    """How much more the judge favours its own family, with an interval over groups (and characters)."""
    own = np.isin(paired.sources, list(same_family))
    if own.all() or not own.any():
        return None
    apart = paired.judge - paired.human
    shares = [np.average(side, weights=paired.weights) for side in (own, ~own)]
    means = [np.average(apart[side], weights=paired.weights[side]) for side in (own, ~own)]
    influence = np.where(own, (apart - means[0]) / shares[0], -(apart - means[1]) / shares[1])
    ways = paired.characters if characters else None
    return clustered_mean(influence + means[0] - means[1], paired.groups, paired.weights, ways)


def _remarks(pairing: Pairing, metrics: Mapping[str, MetricAssessment]) -> tuple[str, ...]:
    """What holds for the whole once; what holds for some metrics with their names."""
    said: dict[str, list[str]] = {}
    for name, one in metrics.items():
        refused = (
            [f"The alternative annotator test was not done: {one.alt_test.reason}."] if one.alt_test.reason else []
        )
        for remark in (*one.reliability.remarks, *refused):
            said.setdefault(remark, []).append(name)
    named = (r if len(names) == len(metrics) else f"{', '.join(names)}: {r}" for r, names in said.items())
    return (*pairing.remarks, *named)


def _estimates(one: MetricAssessment) -> dict[str, dict[str, Estimate]]:
    own, found = one.reliability, one.agreement
    alphas = {f"alpha_{level}": getattr(own, f"alpha_{level}") for level in ("nominal", "ordinal", "interval")}
    return {
        "raters": alphas,
        "person_left_out": own.ceiling,
        "judge": found.judge,
        "constant": found.constant,
        "person_with_person": found.people,
        "within_scenario": found.within,
        "system": found.systems,
        "length": found.length,
        "same_family": {"bias": one.family_bias} if one.family_bias else {},
    }


def _metric_dict(one: MetricAssessment) -> dict[str, Any]:
    own, found, test = one.reliability, one.agreement, one.alt_test
    parts = _estimates(one)
    return {
        "n": found.items,
        "groups": found.groups,
        "sources": found.sources,
        "reliability": {
            **_values(parts["raters"]),
            "raters": own.raters,
            "ratings_per_item": own.ratings_per_item,
            "intervals": _intervals(parts["raters"]),
            "pairs": _records(own.pairs),
            "annotators": _records(own.annotators),
        },
        "agreement": {**_values(found.judge), "intervals": _intervals(found.judge)},
        "undefined": {name: reasons for name, part in parts.items() if (reasons := _undefined(part))},
        **{
            name: {**_values(parts[name]), "intervals": _intervals(parts[name])}
            for name in ("constant", "person_left_out", "person_with_person", "within_scenario", "system", "length")
        },
        "strata": _records(found.strata),
        "same_family": _plain(one.family_bias) if one.family_bias else None,
        "alt_test": {
            "winning_rate": test.winning_rate,
            "advantage_probability": test.advantage_probability,
            "passed": test.passed,
            "epsilon": test.epsilon,
            "scoring": test.scoring,
            "winning_rate_by_group": test.winning_rate_by_group,
            "annotators": _records(test.by_annotator),
            "reason": test.reason,
        },
        "verdict": one.verdict.word,
        "sentence": one.verdict.sentence,
    }


def _discriminant_dict(found: Discriminant | None) -> dict[str, Any] | None:
    if found is None:
        return None
    matrix = {row: {c: _number(v) for c, v in cells.items()} for row, cells in found.matrix.to_dict("index").items()}
    halo = {"judge": found.judge_halo, "people": found.human_halo}
    return {"spearman": matrix, "halo": halo, "own_is_highest": found.own_is_highest}


def _values(estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in estimates.items()}


def _undefined(estimates: Mapping[str, Estimate]) -> dict[str, str | None]:
    return {name: estimate.reason for name, estimate in estimates.items() if estimate.value is None}


def _intervals(estimates: Mapping[str, Estimate]) -> dict[str, list[float | None]]:
    return {name: [e.low, e.high] for name, e in estimates.items() if e.low is not None}


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "reason": estimate.reason}


def _number(value: Any) -> Any:
    """A value of a table as JSON has it: NaN is None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): _number(value) for name, value in row.items()} for row in table.to_dict("records")]
