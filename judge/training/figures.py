"""What a judge reaches on dialogues whose ratings are known: its loss, and its correlation with the mean ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from calibration import Pairing, compare_judges, pair
from calibration.stats.correlation import MIN_CORRELATED, spearman
from calibration.stats.intervals import Estimate
from judge.scoring.judge import Judge
from judge.training.targets import RatedDialogue
from judge.types import Judgment

AT_ONCE = 64
"""Dialogues whose prompts are in memory together."""


SMALLEST = 1e-12
"""A probability below this counts as this, so that a loss is a number."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric on the held-out dialogues, by the base judge and the trained one."""

    metric: str
    dialogues: int
    groups: int
    base: float | None
    """Spearman's correlation with the mean ratings; None where it is undefined."""
    trained: float | None
    gain: Estimate
    """Trained less base, with its paired interval over groups where there are enough."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a judge reaches on some dialogues."""

    loss: float
    """What training lowers (``loss.leaf_losses``): the weighted mean over answer slots."""
    pairing: Pairing


def measure(
    judge: Judge, name: str, rated: Sequence[RatedDialogue], ratings: pd.DataFrame, mass_weight: float
) -> Measured:
    """Judge some dialogues, and put the judgments beside their ratings.

    Args:
        judge: the judge.
        name: what it is called in what is found.
        rated: dialogues that fit into the judge's context.
        ratings: of these dialogues and perhaps others.
        mass_weight: as for ``leaf_losses``.
    """
    metrics = [metric for metric in judge.scheme.metrics if any(metric in one.targets for one in rated)]
    found: list[dict[str, Judgment]] = []
    for start in range(0, len(rated), AT_ONCE):
        prompts = judge.prompts([one.dialogue for one in rated[start : start + AT_ONCE]], metrics)
        found += [dict(zip(metrics, one.judgments, strict=True)) for one in judge.judge(prompts, metrics)]
    slots = [(one, metric, judged[metric]) for one, judged in zip(rated, found, strict=True) for metric in one.targets]
    losses = [_loss(one.targets[metric], judgment, mass_weight) for one, metric, judgment in slots]
    rows = [
        {
            "item_id": one.dialogue.id,
            "source": one.dialogue.source,
            "character": one.dialogue.character,
            "group": one.group,
            "metric": metric,
            "judge": name,
            "score": judgment.score,
        }
        for one, metric, judgment in slots
    ]
    groups = {one.dialogue.id: one.group for one in rated}
    own = ratings[ratings["item_id"].isin(groups)]
    own = own.assign(group=own["item_id"].map(groups))
    scores = pd.DataFrame(rows).astype({"score": float})
    loss = float(np.average(losses, weights=[one.weight for one, _, _ in slots]))
    return Measured(loss, pair(own, scores, scale=judge.scheme.scales))


def constant_loss(learned: Sequence[RatedDialogue], rated: Sequence[RatedDialogue]) -> float:
    """The loss, on some dialogues, of always answering with the mean target of each metric; label mass is not lost."""
    total = weights = 0.0
    for metric in {metric: None for one in learned for metric in one.targets}:
        known, asked = ([one for one in some if metric in one.targets] for some in (learned, rated))
        targets = np.array([one.targets[metric] for one in known])
        mean = np.average(targets, axis=0, weights=[one.weight for one in known])
        for one in asked:
            total -= one.weight * float(np.dot(one.targets[metric], np.log(np.maximum(mean, SMALLEST))))
            weights += one.weight
    return total / weights


def _loss(target: Sequence[float], judgment: Judgment, mass_weight: float) -> float:
    """The loss of one judgment; of one that is none, the largest that is still a number."""
    chances = [0.0] * len(target) if judgment.probabilities is None else list(judgment.probabilities.values())
    log_mass = float(np.log(max(judgment.mass or 0.0, SMALLEST)))
    return -float(np.dot(target, np.log(np.maximum(chances, SMALLEST)))) - mass_weight * log_mass


def spearmans(paired: Pairing) -> dict[str, float]:
    """Spearman's correlation of each metric; NaN where one side is constant or there are too few dialogues."""
    found = {}
    for metric, one in paired.metrics.items():
        rated = one.at(np.isfinite(one.human))
        enough = len(rated.items) >= MIN_CORRELATED
        found[metric] = float(spearman(rated.judge, rated.human, rated.weights)) if enough else float("nan")
    return found


def mean_spearman(paired: Pairing) -> float | None:
    """The mean over the metrics that have one; None where none has."""
    known = [value for value in spearmans(paired).values() if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def compared(base: Pairing, trained: Pairing, seed: int) -> list[Figure]:
    """Two judges of the same dialogues side by side, a metric a row, in the order of the base's metrics."""
    gains = {one.metric: one for one in compare_judges({"trained": trained, "base": base}, seed=seed)}
    before, after = spearmans(base), spearmans(trained)

    def known(value: float) -> float | None:
        return value if np.isfinite(value) else None

    return [
        Figure(
            metric,
            gains[metric].items,
            len(set(one.groups[np.isfinite(one.human)])),
            known(before[metric]),
            known(after.get(metric, float("nan"))),
            gains[metric].spearman,
        )
        for metric, one in base.metrics.items()
        if metric in gains
    ]
