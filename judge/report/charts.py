"""Charts of the judge beside people: agreement, the matrix of metrics, reliability diagrams, Bland–Altman."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from calibration import Paired
from calibration.stats.intervals import clustered_mean
from judge.report.load_run import Run
from judge.report.tables import People, interval_of
from judge.report.texts import (
    Cell,
    Colour,
    Figure,
    Interval,
    Key,
    Table,
    label,
    metric_key,
    number,
    numbers,
    short,
    visible,
)
from judge.scoring.summary import STATISTICS
from judge.types import LEVELS, RESPONSE_DIVERSITY

COLOURS = 12


DASHES = ("solid", "dash", "dot")


ALL = ""


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of scores: ends of the line, ends of the box, and its middle."""


SCALE = [LEVELS[0], LEVELS[-1]]


HEAT = [[0, Colour("heat-low")], [1, Colour("heat-high")]]
"""The colours of a heat map, from low to high; the theme's ink can be read on all of them."""


ROW_HEIGHT = 30


MIN_SPAN = 0.5
"""The least span of the scale that a heat map's colours are spread over, in points, so that noise looks like noise."""


def colour(place: int) -> Colour:
    """The colour of a source by its place in their order."""
    return Colour(f"source-{place % COLOURS}")


def figures_of(run: Run, published: pd.DataFrame) -> list[Figure]:
    """All charts of a run that there is anything to draw in.

    Args:
        run: the run.
        published: people's means where they are published: ``source, metric, mean``.
    """
    found = [diversity(run)]
    if run.judgments["score"].notna().any():
        found += [radar(run, published), sources_heat(run), characters_heat(run), distributions(run), levels(run)]
    return [figure for figure in found if figure.plots]


def radar(run: Run, published: pd.DataFrame) -> Figure:
    """Nine metrics by source; one source at a time beside people's published means, where there are any."""
    judged = _wide(run.leaderboard, run.metrics, run.sources)
    people = _wide(published, run.metrics, run.sources) if len(published) else judged * np.nan
    rings = [_ring(judged.loc[[s]], s, colour(i), DASHES[i // 4 % 3]) for i, s in enumerate(run.sources)]
    plots = {ALL: _polar(rings)}
    rows: list[list[Cell]] = [[source, *numbers(judged.loc[source], 2)] for source in run.sources]
    for place, source in enumerate(run.sources):
        pair = [{**rings[place], "fill": "toself", "opacity": 0.9}]
        if people.loc[source].notna().any():
            pair.append(_ring(people.loc[[source]], Key("published"), Colour("people"), "dash"))
            rows.append([Key("published.of", {"source": source}), *numbers(people.loc[source], 2)])
        plots[str(place)] = _polar(pair)
    choices: dict[str, Key | str] = {
        ALL: Key("all.sources"),
        **{str(place): source for place, source in enumerate(run.sources)},
    }
    return Figure("radar", plots, Table([Key("source"), *map(metric_key, run.metrics)], rows), choices)


def _wide(means: pd.DataFrame, metrics: list[str], sources: list[str]) -> pd.DataFrame:
    return means.pivot(index="source", columns="metric", values="mean").reindex(index=sources, columns=metrics)


def _ring(row: pd.DataFrame, name: str | Key, tint: Colour, dash: str) -> dict[str, Any]:
    """A closed line through the means of a source, the only row."""
    around = [*row.columns, row.columns[0]]
    return {
        "type": "scatterpolar",
        "r": numbers(row[around].to_numpy()[0]),
        "theta": [metric_key(metric) for metric in around],
        "name": name if isinstance(name, Key) else label(name),
        "mode": "lines+markers",
        "line": {"color": tint, "dash": dash, "width": 2},
        "marker": {"color": tint, "size": 5},
    }


def _polar(traces: list[dict[str, Any]]) -> dict[str, Any]:
    axis = {
        "radialaxis": {"range": SCALE, "dtick": 1, "angle": 90, "tickangle": 90},
        "angularaxis": {"direction": "clockwise"},
    }
    return {"data": traces, "layout": {"polar": axis, "height": 520, "showlegend": True}}


def heat(z: pd.DataFrame, columns: Sequence[Any]) -> dict[str, Any]:
    """A heat map of a table, its rows from above."""
    rows = [str(name) for name in z.index]
    low, high = _ends(z)
    trace = {
        "type": "heatmap",
        "z": [numbers(row) for row in z.to_numpy()],
        "x": list(columns),
        "y": [label(name) for name in rows],
        "zmin": low,
        "zmax": high,
        "colorscale": HEAT,
        "texttemplate": "%{z:.2f}",
        "textfont": {"color": Colour("ink")},
        "hovertemplate": "%{y}<br>%{x}: %{z:.2f}<extra></extra>",
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
    }
    ticks = {"type": "category", "tickvals": [label(name) for name in rows], "ticktext": [short(name) for name in rows]}
    axes = {"yaxis": {**ticks, "autorange": "reversed"}, "xaxis": {"type": "category", "side": "top"}}
    return {"data": [trace], "layout": {**axes, "height": 150 + ROW_HEIGHT * len(rows)}}


def _ends(z: pd.DataFrame) -> tuple[float, float]:
    low, high = (number(f(z.to_numpy(float))) if z.notna().any(axis=None) else None for f in (np.nanmin, np.nanmax))
    if low is None or high is None:
        return float(SCALE[0]), float(SCALE[1])
    widened = max(MIN_SPAN - (high - low), 0) / 2
    return low - widened, high + widened


def sources_heat(run: Run) -> Figure:
    """Sources by metrics."""
    z = _wide(run.leaderboard, run.metrics, run.sources)
    return _heat_figure("sources", z, run, "source")


def characters_heat(run: Run) -> Figure:
    """Characters by metrics, over all sources."""
    z = run.judgments.pivot_table(index="character", columns="metric", values="score", dropna=False)
    return _heat_figure("characters", z.reindex(columns=run.metrics), run, "character")


def _heat_figure(name: str, z: pd.DataFrame, run: Run, of: str) -> Figure:
    heads = [metric_key(metric) for metric in run.metrics]
    names = [str(name) for name in z.index]
    rows = [[one, *numbers(z.loc[one], 2)] for one in names]
    filters = (of, [visible(one) for one in names])
    return Figure(name, {ALL: heat(z, heads)}, Table([Key(of), *heads], rows), filters=filters)


def diversity(run: Run) -> Figure:
    """Response diversity by source, a variant for each statistic."""
    rows = run.diversity[run.diversity["level"] == "source"].sort_values("source")
    names = [name for name in (*STATISTICS, RESPONSE_DIVERSITY) if rows[name].notna().any()]
    table = Table(
        [Key("source"), *(Key(f"diversity.{name}") for name in names)],
        [[row["source"], *numbers((row[name] for name in names), 3)] for row in rows.to_dict("records")],
    )
    plots = {name: _bars(rows, name) for name in names}
    return Figure("diversity", plots, table, {name: Key(f"diversity.{name}") for name in names})


def _bars(rows: pd.DataFrame, name: str) -> dict[str, Any]:
    rows = rows.dropna(subset=name).sort_values(name)
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": numbers(rows[name]),
        "y": [label(source) for source in rows["source"]],
        "marker": {"color": Colour("judge")},
        "texttemplate": "%{x:.3f}",
        "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
    }
    ticks = {"tickvals": trace["y"], "ticktext": [short(source) for source in rows["source"]], "type": "category"}
    layout = {"xaxis": {"title": {"text": Key(f"diversity.{name}")}, "rangemode": "tozero"}, "yaxis": ticks}
    return {"data": [trace], "layout": {**layout, "height": 110 + ROW_HEIGHT * len(rows)}}


def distributions(run: Run) -> Figure:
    """How scores are spread within each source, a variant for each metric."""
    plots, rows = {}, []
    for metric, part in run.judgments.groupby("metric", sort=False):
        found = part.groupby("source")["score"].quantile(np.array(QUANTILES)).unstack().reindex(run.sources)
        plots[str(metric)] = _boxes(found)
        rows += [[metric_key(str(metric)), source, *numbers(found.loc[source], 2)] for source in run.sources]
    heads = [Key("metric"), Key("source"), *(Key(f"quantile.{quantile:.0%}".rstrip("%")) for quantile in QUANTILES)]
    return Figure("distributions", plots, Table(heads, rows), {metric: metric_key(metric) for metric in plots})


def _boxes(found: pd.DataFrame) -> dict[str, Any]:
    names = ("lowerfence", "q1", "median", "q3", "upperfence")
    columns = {name: numbers(found[quantile]) for name, quantile in zip(names, found.columns, strict=True)}
    labels = [label(str(source)) for source in found.index]
    tint = {"line": {"color": Colour("judge"), "width": 1.5}, "fillcolor": Colour("judge-soft"), "showlegend": False}
    trace = {"type": "box", "orientation": "h", "y": labels, **columns, **tint, "name": Key("score")}
    ticks = {"type": "category", "tickvals": labels, "ticktext": [short(str(source)) for source in found.index]}
    layout = {
        "xaxis": {"range": SCALE, "dtick": 1, "title": {"text": Key("score")}},
        "height": 110 + ROW_HEIGHT * len(labels),
    }
    return {"data": [trace], "layout": {**layout, "yaxis": {**ticks, "autorange": "reversed"}}}


def levels(run: Run) -> Figure:
    """How probability falls on the levels by metric; beside it mass and entropy."""
    columns = [f"p{level}" for level in LEVELS]
    groups = run.judgments.groupby("metric")
    means = groups[columns].mean().reindex(run.metrics)
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "x": numbers(means[column]),
            "y": [metric_key(metric) for metric in run.metrics],
            "name": str(level),
            "marker": {"color": Colour(f"level-{level}")},
            "hovertemplate": f"%{{y}}, {level}: %{{x:.1%}}<extra></extra>",
        }
        for level, column in zip(LEVELS, columns, strict=True)
    ]
    axes = {"xaxis": {"range": [0, 1], "tickformat": ".0%"}, "yaxis": {"type": "category", "autorange": "reversed"}}
    layout = {**axes, "barmode": "stack", "height": 120 + ROW_HEIGHT * len(run.metrics), "showlegend": True}
    layout["legend"] = {"traceorder": "normal"}
    heads: list[Key | str] = [Key("metric"), *columns, Key("mass.median"), Key("mass.low"), Key("entropy")]
    rows = [
        [
            metric_key(metric),
            *numbers(means.loc[metric], 3),
            *_certainty(run.judgments[run.judgments["metric"] == metric]),
        ]
        for metric in run.metrics
    ]
    return Figure("levels", {ALL: {"data": traces, "layout": layout}}, Table(heads, rows))


def _certainty(judgments: pd.DataFrame) -> list[float | None]:
    """Median mass, the lowest one in a hundred, and mean entropy in bits, of 2.32 for five levels alike."""
    chances = judgments[[f"p{level}" for level in LEVELS]].dropna().to_numpy(float)
    entropy = -(chances * np.log2(np.where(chances > 0, chances, 1))).sum(axis=1)
    mass = judgments["mass"].dropna()
    return numbers((mass.median(), mass.quantile(0.01), entropy.mean()), 3) if len(mass) else [None] * 3


BINS = 10
"""Bins of a reliability diagram, of equally many items each."""


MIN_BINNED = 5
"""Items that a bin needs."""


DRAWN = 400
"""Points of a Bland–Altman plot that are drawn; the lines are of all."""


LIMITS = 1.96
"""Limits of agreement in standard deviations (Bland and Altman 1986)."""


DRAWN_STATISTICS = {"spearman": "person_left_out", "mae": "person_left_out", "qwk": "person_with_person"}
"""What is drawn of agreement, and which figure of people stands beside it."""


def agreement_figures(people: People, calibrated: pd.DataFrame | None) -> list[Figure]:
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
    for statistic, person in DRAWN_STATISTICS.items():
        parts = {"judge": "agreement", "people": person, "constant": "constant"}
        cells = {
            who: [interval_of(found, part, statistic) for found in metrics.values()] for who, part in parts.items()
        }
        plots[statistic] = _dots(list(metrics), cells, statistic)
        columns = zip(metrics, *cells.values(), strict=True)
        rows += [[Key(f"statistic.{statistic}"), metric_key(metric), *each] for metric, *each in columns]
    heads = [Key("statistic"), Key("metric"), Key("of.judge"), Key("of.people"), Key("of.constant")]
    return Figure("agreement", plots, Table(heads, rows), {s: Key(f"statistic.{s}") for s in DRAWN_STATISTICS})


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
            "error_x": {
                "type": "data",
                "symmetric": False,
                "color": Colour(who),
                "thickness": 1.5,
                **_shared_ends(each),
            },
        }
        for who, each in cells.items()
        if any(one.value is not None for one in each)
    ]
    axes = {"xaxis": {"title": {"text": Key(f"statistic.{statistic}")}, "zeroline": True}}
    rows = {"yaxis": {"type": "category", "autorange": "reversed"}, "height": 140 + 32 * len(metrics)}
    return {"data": traces, "layout": {**axes, **rows, "showlegend": True}}


def _shared_ends(each: list[Interval]) -> dict[str, list[float]]:
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
                            **_shared_ends([y for _, _, y in cells])},
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
