"""Means of systems, each with what it is a mean of: no number without its target.

*judge mean*: what this judge gives a system; the interval is over groups (scenarios).
*human mean of a system with some labels*: what annotators would give it, from ratings of some items by
prediction-powered inference.
*human mean of a new system*: what annotators would give a system that nobody rated, from the judge's mean of it and
how judge and annotators differ on the systems that were rated.

Intervals are as in ``stats.intervals``: under eight groups there is none. A ``reason`` says what is missing and why; it
is empty where nothing is missing. A system is told from others by the column ``source``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from calibration.pairing import Paired, Pairing
from calibration.stats.intervals import MIN_GROUPS, Estimate, Labels, clustered_mean, t_quantile
from calibration.stats.prediction_powered import Powered, equivalent_labels, powered_mean

JUDGE_MEAN = "judge mean"


LABELLED = "human mean of a system with some labels"


NEW_SYSTEM = "human mean of a new system"


MIN_SYSTEMS_TO_PREDICT_ANOTHER = 5
"""With fewer other systems with labels, a new one has no human mean."""


COLUMNS = ["metric", "source", "target", "mean", "low", "high", "n", "labelled", "equivalent_labels", "reason",
           "remark"]  # fmt: skip


OFF_SCALE = "how annotators differ from the judge on the others leads off the scale: it is not like them"


JUDGE_ADDS_NOTHING = "the other systems' human means alone give a tighter interval: the judge adds nothing"


def estimate(pairing: Pairing | Paired, *, characters: bool = False) -> pd.DataFrame:
    """Every target for every metric and source, a row each.

    Columns: metric, source, target, mean, low, high, n (items), labelled (rated items used: none for a judge mean,
    those of the other systems for a new one), equivalent_labels (see ``labelled_means``), reason, remark (what is to be
    known of a number that is there).
    """
    metrics = [pairing] if isinstance(pairing, Paired) else list(pairing.metrics.values())
    kinds = (judge_means, labelled_means, new_system_means)
    tables = [kind(one, characters=characters).assign(metric=one.metric) for one in metrics for kind in kinds]
    table = pd.concat([one.reindex(columns=COLUMNS) for one in tables], ignore_index=True)
    return table.astype({"labelled": "Int64", "equivalent_labels": "Int64"}).fillna({"labelled": 0, "remark": ""})


def judge_means(paired: Paired, *, characters: bool = False) -> pd.DataFrame:
    """The judge's mean of each source, with Student's t interval over groups.

    Columns: source, mean, low, high, target, n (items), groups, reason.

    Args:
        paired: one metric; rated or not makes no difference.
        characters: whether the interval is to hold for other characters too, not for these alone.
    """
    rows: list[dict[str, object]] = []
    for source, one in by_source(paired):
        groups = _fewest(one, characters)
        mean = _sayable(_judge_mean(one, characters), groups)
        rows.append({"source": source, **_row(mean), "target": JUDGE_MEAN, "n": len(one.items), "groups": groups})
    return _table(rows, ["source", "mean", "low", "high", "target", "n", "groups", "reason"])


def labelled_means(paired: Paired, *, characters: bool = False) -> pd.DataFrame:
    """The human mean of each source of which some items are rated: see ``powered_mean``.

    Columns: source, mean, low, high, target, n (items), labelled (of them rated), lambda_, human_mean, human_low,
    human_high (from the ratings alone, weighted), equivalent_labels (how many rated items would give an interval this
    narrow by themselves), reason.
    """
    rows: list[dict[str, object]] = []
    for source, one in by_source(paired):
        plain, powered = human_mean(one, characters, lambda_=0), human_mean(one, characters)
        mean, alone = (_sayable(each.estimate, each.groups, "labels") for each in (powered, plain))
        row = {"source": source, **_row(mean), "target": LABELLED, "n": len(one.items), "labelled": _rated(one)}
        row |= {"human_mean": alone.value, "human_low": alone.low, "human_high": alone.high}
        row |= {"lambda_": None if mean.value is None else powered.lambda_}
        if mean.low is not None and mean.high is not None:
            half = (mean.high - mean.low) / 2
            row["equivalent_labels"] = equivalent_labels(_rated(one), plain.effective_groups, plain.variance, half)
        rows.append(row)
    columns = ["source", "mean", "low", "high", "target", "n", "labelled", "lambda_", "human_mean", "human_low",
               "human_high", "equivalent_labels", "reason"]  # fmt: skip
    return _table(rows, columns).astype({"equivalent_labels": "Int64"})


def new_system_means(paired: Paired, *, characters: bool = False) -> pd.DataFrame:
    """What annotators would give each source if nobody had rated it, from the judge and the other sources' labels.

    The mean is the judge's, moved by the mean of human minus judge over the k other sources with labels. The interval
    predicts: t with k - 1 degrees of freedom, on tau^2 (1 + 1/k) for how that difference varies from system to system,
    plus the variance of the judge's own mean over groups. What would leave the scale ends where it does. It holds as
    far as the new system is like the others. Under five other sources (each with labels in eight groups) there is none.

    Columns: source, mean, low, high, target, n (items), labelled (items of the others), systems (k), judge_mean, shift
    (that mean difference), tau (the SD of those differences), reason, remark (where the human means of the
    others alone would give a tighter interval).
    """
    known = {source: _System.of(one, characters) for source, one in by_source(paired)}
    rows: list[dict[str, object]] = []
    for source, system in known.items():
        others = [other for name, other in known.items() if name != source and other.groups_labelled >= MIN_GROUPS]
        rows.append(
            {"source": source, **_predicted(system, others, paired.scale), "target": NEW_SYSTEM, "n": system.items}
        )
    columns = ["source", "mean", "low", "high", "target", "n", "labelled", "systems", "judge_mean", "shift", "tau",
               "reason", "remark"]  # fmt: skip
    return _table(rows, columns)


@dataclass(frozen=True, slots=True)
class _System:
    """What a source tells of itself as a new system, and of the others as one with labels."""

    items: int
    labelled: int
    judge: Estimate
    groups: int
    groups_labelled: int
    human: float
    """The human mean; NaN without labels."""

    @classmethod
    def of(cls, one: Paired, characters: bool) -> _System:
        judge, human = _judge_mean(one, characters), human_mean(one, characters)
        mean = np.nan if human.estimate.value is None else human.estimate.value
        return cls(len(one.items), _rated(one), judge, _fewest(one, characters), human.groups, mean)


def _predicted(system: _System, others: list[_System], scale: tuple[float, float]) -> dict[str, object]:
    """A row of ``new_system_means``: a prediction interval for the next system from k others."""
    k, labelled = len(others), sum(one.labelled for one in others)
    row: dict[str, object] = {"systems": k, "judge_mean": system.judge.value, "labelled": labelled, "remark": ""}
    if k < MIN_SYSTEMS_TO_PREDICT_ANOTHER:
        few = "only 1 other system has" if k == 1 else f"only {k} other systems have"
        reason = f"{few} labels in {MIN_GROUPS} groups; {MIN_SYSTEMS_TO_PREDICT_ANOTHER} are needed"
        return row | _row(Estimate(None, reason=reason))
    human = np.array([one.human for one in others])
    # The next system differs from the mean shift by tau, as the others do, and the mean shift of k systems is itself
    # uncertain by tau / sqrt(k): together tau^2 (1 + 1/k).
    differences = human - np.array([one.judge.value for one in others], dtype=float)
    shift, tau = float(differences.mean()), float(differences.std(ddof=1))
    judge = system.judge
    assert judge.value is not None
    value, low, high = judge.value + shift, None, None
    if judge.low is not None and judge.high is not None:
        # The standard error of the judge's own mean is read back from the half-width of its t interval.
        own = (judge.high - judge.low) / 2 / t_quantile(system.groups - 1)
        half = t_quantile(k - 1) * float(np.sqrt(tau**2 * (1 + 1 / k) + own**2))
        low, high = (float(np.clip(end, *scale)) for end in (value - half, value + half))
        # The same without the judge: a system that nobody rated, and of which nothing else is known.
        if t_quantile(k - 1) * human.std(ddof=1) * np.sqrt(1 + 1 / k) < half:
            row["remark"] = JUDGE_ADDS_NOTHING
    row |= {"shift": shift, "tau": tau}
    if low is not None and low == high:  # all of the interval lies beyond an end of the scale
        return row | _row(Estimate(None, reason=OFF_SCALE))
    mean = Estimate(float(np.clip(value, *scale)), low, high)
    return row | _row(_sayable(mean, system.groups))


def by_source(paired: Paired) -> list[tuple[str, Paired]]:
    """The items of each system, in the order of the systems' names."""
    return [(str(source), paired.at(paired.sources == source)) for source in sorted(set(paired.sources))]


def _characters(paired: Paired, wanted: bool) -> Labels | None:
    if wanted and paired.characters is None:
        raise ValueError(f"the scores of {paired.metric!r} have no column 'character': leave characters=True out")
    return paired.characters if wanted else None


def _fewest(paired: Paired, characters: bool) -> int:
    """How many groups there are, or characters where they count and are fewer."""
    ways = (paired.groups, _characters(paired, characters))
    return min(len(set(way)) for way in ways if way is not None)


def _rated(one: Paired) -> int:
    """How many items are rated."""
    return int((one.counts > 0).sum())


def _judge_mean(one: Paired, characters: bool) -> Estimate:
    return clustered_mean(one.judge, one.groups, characters=_characters(one, characters))


def human_mean(one: Paired, characters: bool, lambda_: float | None = None) -> Powered:
    """The prediction-powered mean of a system's items; ``lambda_`` 0 takes the ratings alone."""
    who = _characters(one, characters)
    return powered_mean(one.human, one.judge, one.groups, weights=one.weights, characters=who, lambda_=lambda_)


def _sayable(mean: Estimate, groups: int, what: str = "items") -> Estimate:
    """The mean with a reason where there is no interval, and without the interval where it would have no width."""
    if mean.value is None:
        return mean
    if mean.low is None or mean.high is None:
        few = "group has" if groups == 1 else "groups (or characters) have"
        return Estimate(mean.value, reason=f"only {groups} {few} {what}; an interval needs {MIN_GROUPS}")
    # Where all groups have the same mean, the width is rounding error: an interval would pretend certainty.
    if mean.high - mean.low < 1e-12 * max(1.0, abs(mean.value)):
        reason = "its groups do not differ, so nothing can be said of how far off it may be"
        return Estimate(mean.value, reason=reason)
    return mean


def _row(mean: Estimate) -> dict[str, object]:
    return {"mean": mean.value, "low": mean.low, "high": mean.high, "reason": mean.reason or ""}


def _table(rows: list[dict[str, object]], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=columns)
    numbers = [name for name in columns if name not in ("source", "target", "reason", "remark", "equivalent_labels")]
    return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})
