"""How far a judge can stand in for annotators: every statistic of every metric in one call, and a verdict on each.

The numbers come from the other modules of this folder; here they are put together, judged by fixed rules, and turned
into what programs read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from calibration.agreement.alt_test import MIN_ITEMS, AltTest, alternative_annotator_test
from calibration.agreement.metrics import Agreement, Discriminant, agreement, discriminant_validity
from calibration.agreement.nominal import nominal_agreement, with_names_as_scores, without_order
from calibration.agreement.reliability import Reliability, reliability
from calibration.pairing import Paired, Pairing
from calibration.stats.intervals import MIN_GROUPS, Estimate, clustered_mean
from calibration.stats.krippendorff import LEVELS

Word = Literal["rank", "estimate", "do not use"]


Raters = Literal["people", "slots"]


USES: dict[Word, str] = {
    "rank": "may be used to rank systems",
    "estimate": "may be used to estimate means beside human labels, not to rank systems",
    "do not use": "should not be used",
}


MIN_RANKED = 5
"""With fewer rated systems no judge is said to rank them: three may well be ordered right by chance."""


MIN_ACCURACY = 0.75
"""A judge may rank systems if the interval of its pairwise accuracy over systems lies at this or above."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``word`` is the verdict, ``why`` the measured reason, ``sentence`` all of it as one could quote it."""

    word: Word
    why: str
    sentence: str


@dataclass(frozen=True, slots=True)
class MetricAssessment:
    """One metric: how annotators agree with each other, how the judge agrees with them, and what it may be used for."""

    reliability: Reliability
    agreement: Agreement
    alt_test: AltTest
    verdict: Verdict
    family_bias: Estimate | None
    """Judge minus human ratings on systems of the judge's own family, less that on the others; None if not known."""

    @property
    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """Every estimate, by what it is of and by statistic. The names are those of the JSON keys and of the table."""
        own, found = self.reliability, self.agreement
        return {
            "raters": {f"alpha_{level}": getattr(own, f"alpha_{level}") for level in LEVELS},
            "person_left_out": own.ceiling,
            "judge": found.judge,
            "constant": found.constant,
            "person_with_person": found.people,
            "within_scenario": found.within,
            "system": found.systems,
            "length": found.length,
            "same_family": {"bias": self.family_bias} if self.family_bias else {},
        }

    def to_dict(self) -> dict[str, Any]:
        """What programs read of the metric: numbers by name, None where undefined, with intervals and reasons."""
        own, found, test = self.reliability, self.agreement, self.alt_test
        parts = self.estimates
        values = {part: {name: each.value for name, each in estimates.items()} for part, estimates in parts.items()}
        intervals = {
            part: {name: [each.low, each.high] for name, each in estimates.items() if each.low is not None}
            for part, estimates in parts.items()
        }
        undefined = {
            part: {name: each.reason for name, each in estimates.items() if each.value is None}
            for part, estimates in parts.items()
        }
        return {
            "n": found.items,
            "groups": found.groups,
            "sources": found.sources,
            "scale": list(found.scale),
            "step": found.step,
            "nominal": found.is_nominal,
            "reliability": {
                **values["raters"],
                "raters": own.raters,
                "ratings_per_item": own.ratings_per_item,
                "intervals": intervals["raters"],
                "pairs": _records(own.pairs),
                "annotators": _records(own.annotators),
            },
            "agreement": {**values["judge"], "intervals": intervals["judge"]},
            "undefined": {part: reasons for part, reasons in undefined.items() if reasons},
            **{
                part: {**values[part], "intervals": intervals[part]}
                for part in ("constant", "person_left_out", "person_with_person", "within_scenario", "system", "length")
            },
            "strata": _records(found.strata),
            "same_family": asdict(self.family_bias) if self.family_bias else None,
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
            "verdict": self.verdict.word,
            "sentence": self.verdict.sentence,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """All metrics of one judge."""

    judge: str
    metrics: dict[str, MetricAssessment]
    discriminant: Discriminant | None
    remarks: tuple[str, ...]
    """Warnings, a sentence each."""

    def to_dict(self) -> dict[str, Any]:
        """What programs read: numbers by name, None where undefined, with intervals and reasons beside them."""
        discriminant = None
        if self.discriminant is not None:
            found = self.discriminant
            discriminant = {
                "spearman": dict(zip(found.matrix.index, _records(found.matrix), strict=True)),
                "halo": {"judge": found.judge_halo, "people": found.human_halo},
                "own_is_highest": found.own_is_highest,
            }
        return {
            "judge": self.judge,
            "remarks": list(self.remarks),
            "metrics": {name: one.to_dict() for name, one in self.metrics.items()},
            "discriminant": discriminant,
        }

    @property
    def table(self) -> pd.DataFrame:
        """One number a row: ``metric, of, statistic, value, low, high, reason``."""
        rows = [
            {"metric": name, "of": of, "statistic": statistic, **asdict(estimate)}
            for name, one in self.metrics.items()
            for of, estimates in one.estimates.items()
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
    min_items: int = MIN_ITEMS,
    nominal: Iterable[str] = (),
    same_family: Sequence[str] = (),
    seed: int = 0,
) -> Assessment:
    """Assess a judge on every metric of a pairing.

    Args:
        judge: its name, for the sentences.
        raters: whether an annotator's name is one person everywhere ("people") or only a slot of a form.
        characters: intervals that hold for other characters too.
        scoring, epsilon, kind, min_items: of the alternative annotator test.
        nominal: metrics whose scores are names of kinds; only whether two are equal is asked of them.
        same_family: systems of the judge's own family of models.
        seed: random seed of the bootstrap.

    Raises:
        ValueError: a nominal metric is not there; characters are asked for and not known.
    """
    names = set(nominal)
    if unknown := sorted(names - set(pairing.metrics)):
        raise ValueError(f"no metric {', '.join(unknown)} (there are {', '.join(pairing.metrics)})")

    def one(paired: Paired) -> MetricAssessment:
        own = reliability(paired, raters=raters, characters=characters, seed=seed)
        how: dict[str, Any] = {"epsilon": epsilon, "kind": kind, "raters": raters, "min_items": min_items}
        if paired.metric in names:
            own, found = without_order(own), nominal_agreement(paired, characters=characters, seed=seed)
            test = alternative_annotator_test(with_names_as_scores(paired), scoring="accuracy", **how)
            return MetricAssessment(own, found, test, nominal_verdict(found, judge), None)
        found = agreement(paired, characters=characters, seed=seed)
        test = alternative_annotator_test(paired, scoring=scoring, **how)
        bias = _family_bias(paired, same_family, characters)
        return MetricAssessment(own, found, test, verdict(found, own, judge), bias)

    rated = {name: paired.labelled for name, paired in pairing.metrics.items()}
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # most of the time is spent in numpy, which runs in parallel
        metrics = dict(zip(rated, threads.map(one, rated.values()), strict=True))
    simple = {name: paired for name, paired in rated.items() if name not in names | set(pairing.composites)}
    # A warning that holds for all metrics is given once, one that holds for some with their names.
    by_warning: dict[str, list[str]] = {}
    for name, found in metrics.items():
        refused = found.alt_test.reason
        not_done = [f"The alternative annotator test was not done: {refused}."] if refused else []
        between = found.agreement.off_step
        if between:
            not_done.append(
                f"{between:,} ratings lie between the scale's steps of {found.agreement.step:g}: exact agreement, QWK "
                "and log loss are without them."
            )
        if found.agreement.step is None and not found.agreement.is_nominal:
            not_done.append("Ratings lie in no even steps: exact agreement, QWK and log loss are not given.")
        for warning in (*found.reliability.remarks, *not_done):
            by_warning.setdefault(warning, []).append(name)
    warnings = (
        warning if len(names) == len(metrics) else f"{', '.join(names)}: {warning}"
        for warning, names in by_warning.items()
    )
    return Assessment(judge, metrics, discriminant_validity(simple), (*pairing.remarks, *warnings))


def _family_bias(paired: Paired, same_family: Sequence[str], characters: bool) -> Estimate | None:
    """How much more the judge favours its own family than other systems; None if only one of the two is there."""
    own = np.isin(paired.sources, list(same_family))
    if own.all() or not own.any():
        return None
    apart = paired.judge - paired.human
    shares = [np.average(side, weights=paired.weights) for side in (own, ~own)]
    means = [np.average(apart[side], weights=paired.weights[side]) for side in (own, ~own)]
    # What each item adds to the difference of the two means, to first order: its mean is the difference, and its spread
    # between groups gives the interval, although a group holds items of both sides.
    influence = np.where(own, (apart - means[0]) / shares[0], -(apart - means[1]) / shares[1])
    over = paired.characters if characters else None
    return clustered_mean(influence + means[0] - means[1], paired.groups, paired.weights, over)


def verdict(agreement: Agreement, reliability: Reliability, judge: str) -> Verdict:
    """The verdict by fixed rules, from intervals and never from values alone.

    *do not use*: no interval can be given, or that of Spearman's correlation over items does not lie above 0, so that
    the judge is not shown to know more than a constant. *rank*: over at least five systems the interval of pairwise
    accuracy lies at .75 or above. *estimate*: all else; with a judge that correlates with human ratings, few of them
    reach further.
    """
    over_items, over_systems = agreement.judge["spearman"], agreement.systems["pairwise_accuracy"]
    systems, rated_systems = agreement.sources, _counted(agreement.sources, "rated system")
    groups = _counted(agreement.groups, "rated group")
    word: Word = "do not use"
    if over_items.value is None:
        why = f"its correlation with human ratings is undefined ({over_items.reason})"
    elif over_items.low is None and agreement.groups < MIN_GROUPS:
        why = f"{groups} of at least {MIN_GROUPS} say too little"
    elif over_items.low is None:
        why = "the rated items are too few or too alike for an interval of its correlation with human ratings"
    elif over_items.low <= 0:
        is_against = over_items.high is not None and over_items.high < 0
        why = f"its correlation with human ratings {'is below 0' if is_against else 'may be none'}"
    elif systems < MIN_RANKED:
        word, why = "estimate", f"{rated_systems}, and ranking needs {MIN_RANKED}"
    elif over_systems.low is None:
        reason = over_systems.reason or "too few groups have all of them for an interval"
        word, why = "estimate", f"how it orders the {systems} systems cannot be said ({reason})"
    else:
        word = "rank" if over_systems.low >= MIN_ACCURACY else "estimate"
        accuracy = _said(over_systems, percent=True)
        why = f"it orders {accuracy} of the pairs of {systems} systems as human ratings do"
    items, correlation = _counted(agreement.items, "item"), _said(over_items)
    human = reliability.ceiling.get("spearman", Estimate(None))
    beside = f" (human ceiling: {_said(human)})" if human.value is not None else ""
    of_judge, of_constant = agreement.judge["mae"].value or 0.0, agreement.constant["mae"].value or 0.0
    evidence = (
        f"Over {items} its Spearman correlation with the mean rating is {correlation}{beside}, its mean absolute "
        f"difference {of_judge:.2f} (the constant predictor's: {of_constant:.2f})."
    )
    return Verdict(word, why, f"On {agreement.metric}, {judge} {USES[word]}: {why}. {evidence}")


def nominal_verdict(agreement: Agreement, judge: str) -> Verdict:
    """The verdict on a nominal metric: *estimate* (of shares) where the interval of kappa lies above 0."""
    kappa, exact = agreement.judge["kappa"], agreement.judge["exact"]
    groups = _counted(agreement.groups, "rated group")
    word: Word = "do not use"
    use = USES[word]
    if kappa.value is None:
        why = f"its kappa with ratings is undefined ({kappa.reason})"
    elif kappa.low is None:
        why = f"{groups} of at least {MIN_GROUPS} say too little"
    elif kappa.low <= 0:
        why = "its agreement with ratings may be chance"
    else:
        word, use = "estimate", "may be used to estimate shares beside human labels, not to rank systems"
        why = "it agrees with ratings more than by chance"
    people = agreement.people["kappa"]
    beside = f" (one annotator's with another's: {_said(people)})" if people.value is not None else ""
    evidence = (
        f"Over {_counted(agreement.items, 'item')} its Cohen's kappa with each rating is {_said(kappa)}{beside}, its "
        f"exact agreement {_said(exact, percent=True)} (the most frequent rating's: "
        f"{_said(Estimate(agreement.constant['exact'].value), percent=True)})."
    )
    return Verdict(word, why, f"On {agreement.metric}, {judge} {use}: {why}. {evidence}")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _said(estimate: Estimate, percent: bool = False) -> str:
    """A value with its interval, as in ``0.45 [0.41, 0.50]``."""
    if estimate.value is None:
        return f"undefined ({estimate.reason})"
    value, low, high = (
        "" if number is None else f"{number:.0%}" if percent else f"{number:.2f}"
        for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]" if low and high else value


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows with plain numbers, as JSON has them; a number that is missing or not finite is None."""

    def plain(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return [{str(name): plain(value) for name, value in row.items()} for row in table.to_dict("records")]
