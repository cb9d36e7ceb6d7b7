"""Charts of the judge beside people: agreement, the matrix of metrics, reliability diagrams, Bland–Altman."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from calibration import Paired
from calibration.resampling import clustered_mean
from judge.report.figures import ALL, SCALE, heat, metric_key
from judge.report.people import People, interval_of
from judge.report.values import Colour, Figure, Interval, Key, Table, number, numbers

BINS = 10
"""Bins of a reliability diagram, of equally many items each."""
MIN_BINNED = 5
"""Items that a bin needs."""
DRAWN = 400
"""Points of a Bland–Altman plot that are drawn; the lines are of all."""
LIMITS = 1.96
"""Limits of agreement in standard deviations (Bland and Altman 1986)."""
STATISTICS = {"spearman": "person_left_out", "mae": "person_left_out", "qwk": "person_with_person"}
"""What is drawn of agreement, and which figure of people stands beside it."""


def figures_of(people: People, calibrated: pd.DataFrame | None) -> list[Figure]:
    """All charts of a judge beside people.

    Args:
        people: the run beside people's ratings.
        calibrated: scores on people's scale, ``item_id, metric, calibrated``, where a calibration was applied.
    """
    found = people.assessment.to_dict()
    matrix = [_matrix(found["discriminant"])] if found["discriminant"] else []
    rated = {metric: paired.labelled for metric, paired in people.pairing.metrics.items()}
    return [_agreement(found["metrics"]), *matrix, _reliability(rated, calibrated), _bland_altman(rated)]


def _agreement(metrics: Mapping[str, Any]) -> Figure:
    """The judge, a person and the constant, by metric, a variant for each statistic."""
    plots, rows = {}, []
    for statistic, person in STATISTICS.items():
        parts = {"judge": "agreement", "people": person, "constant": "constant"}
        cells = {
            who: [interval_of(found, part, statistic) for found in metrics.values()] for who, part in parts.items()
        }
        plots[statistic] = _dots(list(metrics), cells, statistic)
        columns = zip(metrics, *cells.values(), strict=True)
        rows += [[Key(f"statistic.{statistic}"), metric_key(metric), *each] for metric, *each in columns]
    heads = [Key("statistic"), Key("metric"), Key("of.judge"), Key("of.people"), Key("of.constant")]
    return Figure("agreement", plots, Table(heads, rows), {s: Key(f"statistic.{s}") for s in STATISTICS})


def _dots(metrics: list[str], cells: Mapping[str, list[Interval]], statistic: str) -> dict[str, Any]:
    symbols = {"judge": "circle", "people": "diamond-open", "constant": "x-thin-open"}
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [one.value for one in each],
            "y": [metric_key(metric) for metric in metrics],
            "name": Key(f"of.{who}"),
            "marker": {"color": Colour(who), "size": 10, "symbol": symbols[who], "line": {"width": 2}},
            "error_x": {"type": "data", "symmetric": False, "color": Colour(who), "thickness": 1.5, **_ends(each)},
        }
        for who, each in cells.items()
        if any(one.value is not None for one in each)
    ]
    axes = {"xaxis": {"title": {"text": Key(f"statistic.{statistic}")}, "zeroline": True}}
    rows = {"yaxis": {"type": "category", "autorange": "reversed"}, "height": 140 + 32 * len(metrics)}
    return {"data": traces, "layout": {**axes, **rows, "showlegend": True}}


def _ends(each: list[Interval]) -> dict[str, list[float]]:
    """How far the ends of intervals lie from the values; 0 where there is none."""
    above = [0.0 if o.high is None or o.value is None else round(o.high - o.value, 4) for o in each]
    below = [0.0 if o.low is None or o.value is None else round(o.value - o.low, 4) for o in each]
    return {"array": above, "arrayminus": below}


def _matrix(found: Mapping[str, Any]) -> Figure:
    table = pd.DataFrame.from_dict(found["spearman"], orient="index", dtype=float)
    plot = heat(table, [metric_key(metric) for metric in table.columns])
    names = [metric_key(metric) for metric in table.index]
    plot["data"][0]["y"] = names
    plot["layout"] |= {
        "yaxis": {"type": "category", "autorange": "reversed", "title": {"text": Key("of.judge")}},
        "xaxis": {"type": "category", "side": "bottom", "title": {"text": Key("of.people.ratings")}},
    }
    rows = [[metric_key(str(row)), *numbers(table.loc[row], 2)] for row in table.index]
    return Figure("matrix", {ALL: plot}, Table([Key("metric"), *(metric_key(c) for c in table.columns)], rows))


def _reliability(rated: Mapping[str, Paired], calibrated: pd.DataFrame | None) -> Figure:
    """Reliability diagrams: people's mean rating in bins of the judge's score, before and after calibration."""
    plots, rows = {}, []
    for metric, paired in rated.items():
        sides = {"before": paired}
        if calibrated is not None and (after := _calibrated(paired, metric, calibrated)):
            sides["after"] = after
        bins = {side: _binned(one) for side, one in sides.items()}
        plots[metric] = _diagram(bins, paired.scale)
        for side, cells in bins.items():
            rows += [[metric_key(metric), Key(f"calibration.{side}"), n, number(x, 2), y] for n, x, y in cells]
    heads = [Key("metric"), Key("scores"), Key("items"), Key("mean.judge"), Key("mean.people")]
    return Figure("reliability", plots, Table(heads, rows), {metric: metric_key(metric) for metric in plots})


def _calibrated(paired: Paired, metric: str, calibrated: pd.DataFrame) -> Paired | None:
    """The same items with their calibrated scores, where they all have one."""
    rows = calibrated[calibrated["metric"] == metric].set_index("item_id")["calibrated"]
    scores = rows.reindex(paired.items).to_numpy(float)
    known = np.isfinite(scores)
    return paired.at(known).judged_by(scores[known]) if known.any() else None


def _binned(paired: Paired) -> list[tuple[int, float, Interval]]:
    """Items, the judge's mean and people's mean with its interval, of bins of equally many items."""
    order = np.argsort(paired.judge, kind="stable")
    count = max(1, min(BINS, len(order) // MIN_BINNED))
    return [_bin(paired.at(part)) for part in np.array_split(order, count) if len(part)]


def _bin(part: Paired) -> tuple[int, float, Interval]:
    mean = clustered_mean(part.human, part.groups, part.weights)
    ends = Interval(number(mean.value, 3), number(mean.low, 3), number(mean.high, 3))
    return len(part.items), float(np.average(part.judge, weights=part.weights)), ends


def _diagram(bins: Mapping[str, list[tuple[int, float, Interval]]], scale: tuple[float, float]) -> dict[str, Any]:
    ends = list(scale)
    line = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip", "name": Key("diagonal")}
    traces: list[dict[str, Any]] = [{**line, "line": {"color": Colour("axis"), "dash": "dot", "width": 1}}]
    looks = {"before": ("judge", "circle"), "after": ("people", "square")}
    for side, cells in bins.items():
        tint, symbol = looks[side]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": numbers(x for _, x, _ in cells),
                "y": [y.value for _, _, y in cells],
                "error_y": {"type": "data", "symmetric": False, "color": Colour(tint), "thickness": 1,
                            **_ends([y for _, _, y in cells])},
                "name": Key(f"calibration.{side}"),
                "marker": {"color": Colour(tint), "symbol": symbol, "size": 8},
                "line": {"color": Colour(tint), "width": 1.5},
            }
        )  # fmt: skip
    axes = {"xaxis": {"title": {"text": Key("mean.judge")}, "range": ends}}
    return {"data": traces, "layout": {**axes, "yaxis": {"title": {"text": Key("mean.people")}, "range": ends},
                                       "height": 460, "showlegend": True}}  # fmt: skip


def _bland_altman(rated: Mapping[str, Paired]) -> Figure:
    """Judge less people against the mean of both, with the bias and the limits of agreement."""
    plots, rows = {}, []
    for metric, paired in rated.items():
        apart, middle = paired.judge - paired.human, (paired.judge + paired.human) / 2
        bias = float(np.average(apart, weights=paired.weights))
        half = LIMITS * float(np.average((apart - bias) ** 2, weights=paired.weights)) ** 0.5
        plots[metric] = _differences(middle, apart, bias, half)
        rows.append([metric_key(metric), len(apart), *numbers((bias, bias - half, bias + half), 2)])
    heads = [Key("metric"), Key("items"), Key("bias"), Key("limit.low"), Key("limit.high")]
    return Figure("bland_altman", plots, Table(heads, rows), {metric: metric_key(metric) for metric in plots})


def _differences(middle: Any, apart: Any, bias: float, half: float) -> dict[str, Any]:
    drawn = np.unique(np.linspace(0, len(apart) - 1, min(DRAWN, len(apart))).astype(int))
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(middle[drawn], 2),
        "y": numbers(apart[drawn], 2),
        "name": Key("dialogue"),
        "marker": {"color": Colour("judge"), "size": 6, "opacity": 0.55},
    }
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": SCALE,
            "y": [round(at, 3)] * 2,
            "name": Key(name),
            "line": {"color": Colour("people"), "dash": dash, "width": 2},
        }
        for name, at, dash in (
            ("bias", bias, "solid"),
            ("limit.low", bias - half, "dash"),
            ("limit.high", bias + half, "dash"),
        )
    ]
    axes = {"xaxis": {"title": {"text": Key("middle")}, "range": SCALE}, "yaxis": {"title": {"text": Key("apart")}}}
    return {"data": [points, *lines], "layout": {**axes, "height": 460, "showlegend": True}}
