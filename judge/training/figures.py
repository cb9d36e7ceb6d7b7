"""What a judge reaches on dialogues whose ratings are known: its loss, and its agreement with the mean ratings.

Four judges are put side by side on the same held-out dialogues: the base and the trained one, as they are and
calibrated. What is fitted is never fitted on what is held out; the trained judge's calibration neither on what it
learned from, where it is nearer to people than it will ever be again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from calibration import Pairing, compare_judges, fit_calibration, pair
from calibration.agreement.reliability import ceiling
from calibration.pairing import Paired
from calibration.stats.correlation import MIN_CORRELATED, spearman, spearman_draws
from calibration.stats.intervals import Estimate, Resampler
from judge.errors import EngineError, InputError
from judge.scoring.judge import Judge
from judge.scoring.run_folder import scores_of
from judge.training.targets import RatedDialogue
from judge.types import Judgment

AT_ONCE = 64
"""Dialogues whose prompts are in memory together."""


SMALLEST = 1e-12
"""A probability below this counts as this, so that a loss is a number."""


JUDGES = ("base", "calibrated base", "trained", "calibrated trained")
"""The judges that are compared."""


GAINS = ("base", "calibrated base")
"""The judges that the trained one is held against."""


ALL = "mean of metrics"
"""The row for all metrics together."""


SYSTEM, SCENARIOS = "system", "scenarios"
"""What a figure is about: dialogues of the system that was left out, or of scenarios and characters held out."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric, or the mean of all, on some held-out dialogues."""

    about: str
    """``SYSTEM`` or ``SCENARIOS``."""
    metric: str
    dialogues: int
    groups: int
    spearman: dict[str, float | None]
    """By judge: Spearman's correlation with the mean ratings; None where it is undefined or there is no such judge."""
    gains: dict[str, Estimate]
    """Spearman of the trained judge less that of each of ``GAINS``, with its paired interval over groups."""
    ceiling: Estimate
    """The human ceiling: Spearman of one annotator with the mean of the others, averaged over annotators."""
    errors: dict[str, float | None]
    """By judge, and of a ``constant`` (the mean rating of what was learned from): mean absolute error, in points."""
    means: dict[str, float | None]
    """By judge, and of the ``annotators``: the mean over the dialogues, in points."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a judge said of some dialogues."""

    loss: float
    """What training lowers (``loss.leaf_losses``): the weighted mean over answer slots."""
    scores: pd.DataFrame
    """As ``load_scores`` gives them: a row a dialogue and rated metric."""
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
            "source": one.dialogue.source,
            "character": one.dialogue.character,
            "scenario": one.dialogue.scenario,
            "metric": metric,
            "judge": name,
            "score": judgment.score,
            "prompt_tokens": float("nan"),
            **{f"p{level}": chance for level, chance in (judgment.probabilities or {}).items()},
        }
        for one, metric, judgment in slots
    ]
    levels = [f"p{level}" for level in judge.scheme.all_levels]
    columns = ["source", "character", "scenario", "metric", "judge", "score", "prompt_tokens", *levels]
    scores = scores_of(pd.DataFrame(rows, columns=columns).astype({"score": float}), judge.scheme)
    scores["group"] = [one.group for one, _, _ in slots]
    groups = {one.dialogue.id: one.group for one in rated}
    own = ratings[ratings["item_id"].isin(groups)]
    if scores["score"].isna().all():
        raise EngineError(
            f"{judge.name} gives no score at all: its numbers are none; lower --rate, or choose another judge"
        )
    loss = float(np.average(losses, weights=[one.weight for one, _, _ in slots]))
    pairing = pair(own.assign(group=own["item_id"].map(groups)), scores, scale=judge.scheme.scales)
    return Measured(loss, scores, pairing)


def calibrated(held_out: Measured, known: Pairing, seed: int, notes: list[str]) -> Pairing | None:
    """What was said of the held-out dialogues, by maps that are fitted on others; None where none could be fitted."""
    name = known.judge or "judge"
    try:
        calibration = fit_calibration(known, judge_id=name, seed=seed)
        found = calibration.predict(held_out.scores)
    except InputError as error:
        notes.append(f"There is no calibrated {name}, as no map could be fitted: {error}.")
        return None
    by_item = {metric: part.set_index("item_id")["calibrated"] for metric, part in found.groupby("metric")}
    metrics = {
        metric: one.judged_by(by_item[metric].reindex(one.items).to_numpy(float))
        for metric, one in held_out.pairing.metrics.items()
        if metric in by_item
    }
    return replace(held_out.pairing, judge=f"calibrated {name}", metrics=metrics)


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


def mean_spearman(paired: Pairing) -> float | None:
    """The mean of Spearman's correlation over the metrics that have one; None where none has."""
    return _mean(_spearman(one.labelled) for one in paired.metrics.values())


def figures_of(
    judges: Mapping[str, Pairing], known: Pairing, about: str, chosen: Iterable[str], seed: int
) -> list[Figure]:
    """All judges side by side on some of the held-out dialogues: a metric a row, then all metrics together.

    Args:
        judges: by the names of ``JUDGES``, of the same dialogues.
        known: ratings of what was learned from, whose mean is the constant.
        about: ``SYSTEM`` or ``SCENARIOS``.
        chosen: the ids of the dialogues.
        seed: random seed of the bootstrap.
    """
    items = np.array(list(chosen), dtype=object)
    part = _shared(judges, items)
    gains = {
        other: {
            one.metric: one.spearman
            for one in compare_judges({"trained": part["trained"], other: part[other]}, seed=seed)
        }
        for other in GAINS
        if other in part
    }
    rows = []
    for metric, base in part["base"].metrics.items():
        sides = {name: one.metrics[metric] for name, one in part.items() if metric in one.metrics}
        learned = known.metrics[metric].labelled if metric in known.metrics else None
        constant = float("nan") if learned is None else np.average(learned.human, weights=learned.weights)
        scores = {name: side.judge for name, side in sides.items()}
        off = {**scores, "constant": np.full(len(base.human), constant)}
        rows.append(
            Figure(
                about,
                metric,
                len(base.items),
                len(set(base.groups)),
                {name: _spearman(sides[name]) if name in sides else None for name in JUDGES},
                {other: by_metric[metric] for other, by_metric in gains.items() if metric in by_metric},
                ceiling(base, Resampler(base.groups, seed=seed))["spearman"],
                {name: _average(np.abs(value - base.human), base.weights) for name, value in off.items()},
                {name: _average(value, base.weights) for name, value in {**scores, "annotators": base.human}.items()},
            )
        )
    return [*rows, _of_all(rows, part, about, seed)] if len(rows) > 1 else rows


def _shared(judges: Mapping[str, Pairing], items: np.ndarray) -> dict[str, Pairing]:
    """Those of some items that somebody rated and all judges have a score of, of each metric that has any.

    A map that gives no score of a metric at all is left out of it, and the others are not.
    """
    parts: dict[str, dict[str, Paired]] = {name: {} for name in judges}
    for metric in judges["base"].metrics:
        sides = {name: one.metrics[metric] for name, one in judges.items() if metric in one.metrics}
        sides = {name: side for name, side in sides.items() if np.isfinite(side.judge).any()}
        common = set(map(str, items))
        for side in sides.values():
            common &= set(side.items[np.isfinite(side.judge) & np.isfinite(side.human)].astype(str))
        for name, side in sides.items() if common else ():
            parts[name][metric] = side.at(np.isin(side.items.astype(str), sorted(common)))
    return {name: replace(judges[name], metrics=metrics) for name, metrics in parts.items()}


def _of_all(rows: Sequence[Figure], part: Mapping[str, Pairing], about: str, seed: int) -> Figure:
    """The means over metrics; a gain is the mean over the metrics on which both judges have a correlation."""
    groups = {str(group) for one in part["base"].metrics.values() for group in one.groups}
    errors, means = ({name: None for row in rows for name in getattr(row, of)} for of in ("errors", "means"))
    return Figure(
        about,
        ALL,
        max(row.dialogues for row in rows),
        len(groups),
        {name: _mean(row.spearman[name] for row in rows) for name in JUDGES},
        {other: _mean_gain(part["trained"], part[other], seed) for other in GAINS if other in part},
        Estimate(_mean(row.ceiling.value for row in rows), reason="it is defined on no metric"),
        {name: _mean(row.errors.get(name) for row in rows) for name in errors},
        {name: _mean(row.means.get(name) for row in rows) for name in means},
    )


def _mean_gain(trained: Pairing, other: Pairing, seed: int) -> Estimate:
    """The mean gain over metrics; with an interval where all metrics have dialogues of the same groups.

    Their draws are then of the same groups, so that a draw of the mean is the mean of the metrics' draws.
    """
    gains, draws, drawn = [], [], set()
    resampler = None
    for metric in (name for name in trained.metrics if name in other.metrics):
        one, against = trained.metrics[metric], other.metrics[metric]
        values = _spearman(one), _spearman(against)
        if values[0] is None or values[1] is None:
            continue
        gains.append(values[0] - values[1])
        resampler = Resampler(one.groups, seed=seed)
        drawn.add(tuple(sorted(set(map(str, one.groups)))))
        if resampler.is_enough:
            sides = [spearman_draws(side.judge, side.human, side.weights, resampler) for side in (one, against)]
            draws.append(sides[0] - sides[1])
    if resampler is None:
        return Estimate(None, reason="no metric has a gain")
    value = float(np.mean(gains))
    together = np.mean(draws, axis=0) if draws and len(drawn) == 1 else None
    return resampler.estimate(value, together, "no metric has a gain")


def _spearman(one: Paired) -> float | None:
    """None where one side is constant or there are too few dialogues."""
    if len(one.items) < MIN_CORRELATED:
        return None
    value = float(spearman(one.judge, one.human, one.weights))
    return value if np.isfinite(value) else None


def _average(values: np.ndarray, weights: np.ndarray) -> float | None:
    value = float(np.average(values, weights=weights))
    return value if np.isfinite(value) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
