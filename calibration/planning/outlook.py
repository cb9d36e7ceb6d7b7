"""How certain the human mean of each system is now, and how certain a plan may expect to make it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.planning.frame import Frame
from calibration.planning.waves import rated_weights
from calibration.resampling import MIN_GROUPS, Floats, codes, t_quantile

__all__ = ["FROM_DOUBT", "FROM_RATINGS", "FROM_SPREAD", "expected", "outlook"]

PRIOR = 10
"""The spread of a source is drawn towards that of all as if so many of its ratings had had it."""
FROM_RATINGS = "ratings so far"
FROM_DOUBT = "the judge's uncertainty, as if it were right about it"
FROM_SPREAD = "the spread of the judge's scores, as if people's were alike"

Codes = NDArray[np.intp]


def outlook(frame: Frame) -> pd.DataFrame:
    """What is known of each source's human mean, a row a metric and source.

    Columns: metric, source, open (the variance over items of what a rating would add to the judge), lambda_ (how much
    of the judge's differences people share), judged (the variance of the judge's own mean over groups), before (the
    half-width to expect of the interval with the labels there are; NaN where there is none), labelled (items), basis
    (what ``open`` rests on).
    """
    source, group = (codes(frame.items[name].to_numpy(object)) for name in ("source", "group"))
    tables = [_of_metric(frame, column, source, group) for column in range(len(frame.metrics))]
    return pd.concat(tables, ignore_index=True)


def expected(frame: Frame, known: pd.DataFrame, chances: Floats, share: Floats) -> pd.DataFrame:
    """An ``outlook`` with what a draw with ``chances`` (1 for items rated) is to bring: labelled_after, after.

    The expected variance is ``open`` times the expected sum of squared weights (each source's sum to 1), plus
    ``lambda_``^2 times ``judged``; t has as many degrees of freedom as there will be groups with labels, less one.
    ``share`` is that of the draw beside earlier ones (see ``waves``).
    """
    source, group = (codes(frame.items[name].to_numpy(object)) for name in ("source", "group"))
    size = np.bincount(source)
    labelled = np.bincount(source, weights=chances)
    groups = np.minimum(labelled.round(), _spread_over(source, group, len(size)))
    each = codes(known["source"].to_numpy(object))
    squares = np.where(frame.rated, rated_weights(frame, share) ** 2, share**2 / chances)
    inflation = np.bincount(source, weights=squares) / size**2
    after = _half_width(known, inflation[each], groups[each])
    return known.assign(labelled_after=labelled[each], after=after)


def _half_width(known: pd.DataFrame, inflation: Floats, groups: Floats) -> Floats:
    variance = known["open"] * inflation + known["lambda_"] ** 2 * known["judged"]
    quantile = np.array([np.nan if few < MIN_GROUPS else t_quantile(few - 1) for few in groups])
    return np.asarray(quantile * np.sqrt(variance), dtype=float)


def _spread_over(source: Codes, group: Codes, count: int) -> Floats:
    """Shape (sources,): in how many groups each has items."""
    cells = np.unique(np.stack([source, group]), axis=1)
    return np.bincount(cells[0], minlength=count).astype(float)


def _of_metric(frame: Frame, column: int, source: Codes, group: Codes) -> pd.DataFrame:
    count = int(source.max()) + 1
    judge, human = frame.judge[:, column], frame.human[:, column]
    lambda_, open_, basis = _open(judge, human, frame.doubt[:, column], source)
    rated = np.flatnonzero(np.isfinite(human))
    weights = np.bincount(source[rated], weights=frame.weights[rated], minlength=count)
    squares = np.bincount(source[rated], weights=frame.weights[rated] ** 2, minlength=count)
    groups = _spread_over(source[rated], group[rated], count)
    table = pd.DataFrame({"metric": frame.metrics[column], "source": sorted(set(frame.items["source"]))})
    table = table.assign(open=open_, lambda_=lambda_, judged=_judged(judge, source, group), basis=basis)
    table = table.assign(labelled=np.bincount(source[rated], minlength=count))
    return table.assign(before=_half_width(table, squares / np.maximum(weights, 1.0) ** 2, groups))


def _judged(judge: Floats, source: Codes, group: Codes) -> Floats:
    """Shape (sources,): the variance of the judge's mean over groups, as ``clustered_variance`` has it."""
    known = np.flatnonzero(np.isfinite(judge))
    own, size = _own(judge[known], source[known], int(source.max()) + 1)
    sums = np.zeros((len(size), int(group.max()) + 1))
    np.add.at(sums, (source[known], group[known]), own)
    groups = _spread_over(source[known], group[known], len(size))
    return np.asarray((sums**2).sum(axis=1) / np.maximum(size, 1) ** 2 * groups / np.maximum(groups - 1, 1))


def _open(judge: Floats, human: Floats, doubt: Floats, source: Codes) -> tuple[float, Floats, str]:
    """lambda, ``open`` by source, and what they rest on."""
    count = int(source.max()) + 1
    known, rated = np.flatnonzero(np.isfinite(judge)), np.flatnonzero(np.isfinite(human))
    if len(rated) - len(set(source[rated])) >= PRIOR:
        by_judge, by_people = (_own(scores[rated], source[rated], count)[0] for scores in (judge, human))
        spread = float(by_judge @ by_judge)
        lambda_ = float(np.clip(by_judge @ by_people / spread, 0, 1)) if spread > 0 else 0.0
        return lambda_, _drawn_together(by_people - lambda_ * by_judge, source[rated], count), FROM_RATINGS
    if np.isfinite(doubt[known]).all():
        sums = np.bincount(source[known], weights=doubt[known], minlength=count)
        return 1.0, sums / np.maximum(np.bincount(source[known], minlength=count), 1), FROM_DOUBT
    own, _ = _own(judge[known], source[known], count)
    return 0.0, _drawn_together(own, source[known], count), FROM_SPREAD


def _own(scores: Floats, source: Codes, count: int) -> tuple[Floats, Floats]:
    """Scores less the mean of their source; how many there are of each source."""
    size = np.bincount(source, minlength=count).astype(float)
    means = np.bincount(source, weights=scores, minlength=count) / np.maximum(size, 1)
    return scores - means[source], size


def _drawn_together(own: Floats, source: Codes, count: int) -> Floats:
    """Shape (sources,): the variance of each source from its deviations, drawn towards that of all."""
    squares = np.bincount(source, weights=own**2, minlength=count)
    freedom = np.maximum(np.bincount(source, minlength=count) - 1, 0)
    pooled = float(squares.sum()) / max(int(freedom.sum()), 1)
    return np.asarray((squares + PRIOR * pooled) / (freedom + PRIOR))
