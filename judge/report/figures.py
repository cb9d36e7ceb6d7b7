"""Charts of what the judge gave: systems, characters, diversity, and what the scores are like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from judge.report.reading import Run
from judge.report.values import Cell, Colour, Figure, Key, Table, label, number, numbers, short, visible
from judge.summary import STATISTICS
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


def metric_key(metric: str) -> Key:
    """What a metric, a dimension or the overall mean is called."""
    return Key(f"metric.{metric}")


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
