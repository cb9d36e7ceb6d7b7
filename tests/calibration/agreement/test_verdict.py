"""The verdict's rules, from intervals and never from values alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.agreement.assess import verdict
from calibration.agreement.metrics import Agreement, agreement
from calibration.agreement.reliability import Reliability, reliability
from calibration.stats.intervals import Estimate
from tests.helpers.pairs import metric


@pytest.fixture(scope="module")
def measured() -> tuple[Agreement, Reliability]:
    """Sixty items of six sources in ten groups, two raters, and a judge who is near to them."""
    generator = np.random.default_rng(1)
    ratings = generator.integers(1, 6, (60, 1)) + generator.integers(-1, 2, (60, 2))
    judge = ratings.mean(axis=1) + generator.normal(0, 0.5, 60)
    paired = metric(judge, ratings, groups=np.arange(60) // 6, sources=np.arange(60) % 6, scale=(0, 6))
    return agreement(paired), reliability(paired)


def judged(
    measured: tuple[Agreement, Reliability], *, items: Estimate, systems: Estimate, **changes
) -> tuple[str, str, str]:
    found, own = measured
    sides = {"judge": {**found.judge, "spearman": items}, "systems": {**found.systems, "pairwise_accuracy": systems}}
    changed = replace(found, **sides, **changes)
    said = verdict(changed, own, "a judge")
    assert said.sentence.startswith("On m, a judge ") and said.why in said.sentence
    return said.word, said.why, said.sentence


GOOD, ORDER = Estimate(0.6, 0.5, 0.7), Estimate(0.9, 0.8, 1.0)
UNDEFINED = Estimate(None, reason="one side is constant")
RULES = {
    "rank": (GOOD, ORDER, {}, "rank", "90% [80%, 100%] of the pairs of 6 systems"),
    "at the bound": (GOOD, Estimate(0.9, 0.75, 1.0), {}, "rank", "90%"),
    "order unsure": (GOOD, Estimate(0.9, 0.74, 1.0), {}, "estimate", "90% [74%, 100%]"),
    "five sources": (GOOD, ORDER, {"sources": 5}, "rank", "of 5 systems"),
    "four sources": (GOOD, ORDER, {"sources": 4}, "estimate", "4 rated systems, and ranking needs 5"),
    "one source": (GOOD, ORDER, {"sources": 1}, "estimate", "1 rated system, and ranking needs 5"),
    "order without interval": (GOOD, Estimate(1.0), {}, "estimate", "too few groups have all of them"),
    "no order": (GOOD, UNDEFINED, {}, "estimate", "cannot be said (one side is constant)"),
    "maybe none": (Estimate(0.4, -0.01, 0.8), ORDER, {}, "do not use", "may be none"),
    "at nought": (Estimate(0.4, 0.0, 0.8), ORDER, {}, "do not use", "may be none"),
    "against people": (Estimate(-0.4, -0.6, -0.2), ORDER, {}, "do not use", "is below 0"),
    "few groups": (Estimate(0.9), ORDER, {"groups": 7}, "do not use", "7 rated groups of at least 8"),
    "one group": (Estimate(0.9), ORDER, {"groups": 1}, "do not use", "1 rated group of at least 8"),
    "no interval": (Estimate(0.9), ORDER, {}, "do not use", "too few or too alike"),
    "undefined": (UNDEFINED, ORDER, {}, "do not use", "undefined (one side is constant)"),
}


@pytest.mark.parametrize("case", RULES)
def test_rules(measured: tuple[Agreement, Reliability], case: str):
    items, systems, changes, word, why = RULES[case]
    found = judged(measured, items=items, systems=systems, **changes)
    assert found[0] == word and why in found[1], found


def test_the_sentence_gives_the_evidence_beside_the_constant_and_a_person(measured: tuple[Agreement, Reliability]):
    found, own = measured
    sentence = verdict(found, own, "a judge").sentence
    spearman, mae, constant = found.judge["spearman"], found.judge["mae"].value, found.constant["mae"].value
    for part in (
        "60 items",
        f"{spearman.value:.2f} [{spearman.low:.2f}, {spearman.high:.2f}]",
        f"human ceiling: {own.ceiling['spearman'].value:.2f}",
        f"mean absolute difference {mae:.2f} (the constant predictor's: {constant:.2f})",
    ):
        assert part in sentence


def test_a_judge_without_sense_is_not_to_be_used():
    """By chance one of forty comes through."""
    words = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        paired = metric(generator.uniform(1, 5, 40), generator.integers(1, 6, (40, 2)))
        words.append(verdict(agreement(paired, seed=seed), reliability(paired), "noise").word)
    assert words.count("do not use") >= 8 and "rank" not in words
