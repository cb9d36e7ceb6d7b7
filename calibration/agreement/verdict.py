"""A plain verdict on one metric: may the judge rank systems, help to estimate their means, or should it not be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from calibration.agreement.by_metric import Agreement
from calibration.agreement.reliability import Reliability
from calibration.resampling import MIN_GROUPS, Estimate

__all__ = ["Verdict", "verdict"]

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
