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
from calibration.agreement.metrics import Agreement, Discriminant, agreement, discriminant_validity
from calibration.agreement.reliability import Reliability, reliability
from calibration.pairing import Paired, Pairing
from calibration.stats.intervals import MIN_GROUPS, Estimate, clustered_mean

Word = Literal["rank", "estimate", "do not use"]


USES: dict[Word, str] = {
    "rank": "may be used to rank systems",
    "estimate": "may be used to estimate means beside human labels, not to rank systems",
    "do not use": "should not be used",
}


MIN_SYSTEMS = 5
"""Under so many rated sources nothing is said of ranking."""


MIN_ACCURACY = 0.75
"""The lower end of the interval of pairwise accuracy over systems from which on a judge may rank them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``word`` is the verdict, ``why`` the measured reason, ``sentence`` all of it as one could quote it."""

    word: Word
    why: str
    sentence: str


def verdict(agreement: Agreement, reliability: Reliability, judge: str) -> Verdict:
    """The verdict by fixed rules, from intervals and never from values alone.

    *do not use*: no interval can be given, or that of Spearman's correlation over items does not lie above 0, so that
    the judge is not shown to know more than a constant. *rank*: over at least five sources the interval of pairwise
    accuracy lies at .75 or above. *estimate*: all else; a judge that goes with people lets labels reach further.
    """
    word, why = _word(agreement)
    sentence = f"On {agreement.metric}, {judge} {USES[word]}: {why}. {_evidence(agreement, reliability)}"
    return Verdict(word, why, sentence)


def _word(agreement: Agreement) -> tuple[Word, str]:
    items, systems, sources = agreement.judge["spearman"], agreement.systems["pairwise_accuracy"], agreement.sources
    if items.value is None:
        return "do not use", f"its correlation with people is undefined ({items.reason})"
    if items.low is None:
        return "do not use", _too_little(agreement)
    if items.low <= 0:
        against = items.high is not None and items.high < 0
        return "do not use", f"its correlation with people {'is below 0' if against else 'may be none'}"
    if sources < MIN_SYSTEMS:
        return "estimate", f"{_counted(sources, 'rated source')}, and ranking needs {MIN_SYSTEMS}"
    if systems.low is None:
        reason = systems.reason or "too few groups have all of them for an interval"
        return "estimate", f"how it orders the {sources} sources cannot be said ({reason})"
    told = f"it orders {_said(systems, percent=True)} of the pairs of {sources} sources as people do"
    return ("rank" if systems.low >= MIN_ACCURACY else "estimate"), told


def _too_little(agreement: Agreement) -> str:
    """Why there is no interval."""
    if agreement.groups < MIN_GROUPS:
        return f"{_counted(agreement.groups, 'rated group')} of at least {MIN_GROUPS} tell too little"
    return "the rated items are too few or too alike for an interval of its correlation with people"


def _evidence(agreement: Agreement, reliability: Reliability) -> str:
    person = reliability.ceiling.get("spearman", Estimate(None))
    beside = f" (a person left out: {_said(person)})" if person.value is not None else ""
    judge, constant = agreement.judge["mae"].value or 0.0, agreement.constant["mae"].value or 0.0
    return (
        f"Over {_counted(agreement.items, 'item')} its Spearman correlation with the mean rating is "
        f"{_said(agreement.judge['spearman'])}{beside}, its mean absolute difference {judge:.2f} (the constant "
        f"predictor's: {constant:.2f})."
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _said(estimate: Estimate, percent: bool = False) -> str:
    """A value with its interval, as in ``.45 [.41, .50]``."""
    if estimate.value is None:
        return f"undefined ({estimate.reason})"
    form = "{:.0%}" if percent else "{:.2f}"
    ends = (
        ""
        if estimate.low is None or estimate.high is None
        else f" [{form}, {form}]".format(estimate.low, estimate.high)
    )
    return form.format(estimate.value) + ends


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
