"""The page's charts, each with the table that says the same: of a run's scores, and of the judge beside human ratings.

A chart is plain data as plotly takes it, in which a text is a ``Key`` and a colour a ``Colour`` until the page's script
puts in the language and the theme. Names from data go through ``label``. Knows nothing of the page around it.
"""

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
    DIGITS,
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
from judge.types import Scheme

COLOURS = 12
"""Colours of the theme that systems are told apart by."""


DASHES = ("solid", "dash", "dot")
"""Lines of systems whose colours are near each other."""


ALL = ""
"""The name of the variant of a chart that shows everything, and of the only one."""


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of scores: ends of the line, ends of the box, and its middle."""


FEWEST_AROUND = 3
"""A radar chart needs so many metrics."""


SHADES = 5
"""Colours of the theme for levels, from the worst to the best."""


HEAT = [[0, Colour("heat-low")], [1, Colour("heat-high")]]
"""The colours of a heat map, from low to high; the theme's ink can be read on all of them."""


ROW_HEIGHT = 30
"""Height of a row of a chart, in pixels."""


MIN_SPAN = 0.5
"""The least span of the scale that a heat map's colours are spread over, in points, so that noise looks like noise."""


def colour(place: int) -> Colour:
    """The colour of a system by its place in their order."""
    return Colour(f"source-{place % COLOURS}")


def figures_of(run: Run, published: pd.DataFrame) -> list[Figure]:
    """All charts of a run that there is anything to draw in.

    Args:
        run: the run.
        published: human means where they are published: ``source, metric, mean``.
    """
    found = [diversity(run)]
    if run.judgments["score"].notna().any():
        found += [sources_heat(run), characters_heat(run), distributions(run), levels(run)]
        if not run.scheme.is_mixed and len(run.metrics) >= FEWEST_AROUND:
            found.append(radar(run, published))
    return [figure for figure in found if figure.plots]


def radar(run: Run, published: pd.DataFrame) -> Figure:
    """The metrics, which have one scale, by system.

    There is a variant for each system alone, beside its published human means where there are any.
    """
    judged = _wide(run.leaderboard, run.metrics, run.sources)
    people = _wide(published, run.metrics, run.sources) if len(published) else judged * np.nan
    scale = _ends(run.scheme, run.metrics[0])
    rings = [_ring(judged.loc[[s]], s, colour(i), DASHES[i // 4 % 3]) for i, s in enumerate(run.sources)]
    plots = {ALL: _polar(rings, scale)}
    rows: list[list[Cell]] = [[source, *numbers(judged.loc[source], 2)] for source in run.sources]
    for place, source in enumerate(run.sources):
        pair = [{**rings[place], "fill": "toself", "opacity": 0.9}]
        if people.loc[source].notna().any():
            pair.append(_ring(people.loc[[source]], Key("published"), Colour("people"), "dash"))
            rows.append([Key("published.of", {"source": source}), *numbers(people.loc[source], 2)])
        plots[str(place)] = _polar(pair, scale)
    choices: dict[str, Key | str] = {
        ALL: Key("all.sources"),
        **{str(place): source for place, source in enumerate(run.sources)},
    }
    return Figure("radar", plots, Table([Key("source"), *map(metric_key, run.metrics)], rows), choices)


def _wide(means: pd.DataFrame, metrics: list[str], sources: list[str]) -> pd.DataFrame:
    """Means as a table of systems × metrics, NaN where there is none."""
    return means.pivot(index="source", columns="metric", values="mean").reindex(index=sources, columns=metrics)


def _ring(row: pd.DataFrame, name: str | Key, tint: Colour, dash: str) -> dict[str, Any]:
    """A closed line through the means of a system, which is the only row."""
    around = [*row.columns, row.columns[0]]  # back to the first metric, which closes the line
    return {
        "type": "scatterpolar",
        "r": numbers(row[around].to_numpy()[0]),
        "theta": [metric_key(metric) for metric in around],
        "name": name if isinstance(name, Key) else label(name),
        "mode": "lines+markers",
        "line": {"color": tint, "dash": dash, "width": 2},
        "marker": {"color": tint, "size": 5},
    }


def shades(count: int) -> list[str]:
    """The names of the theme's colours of so many levels: ``1`` to ``5``, and ``1-2`` for one halfway between."""
    places = [1 + (SHADES - 1) * place / max(count - 1, 1) for place in range(count)]
    return [f"{place:g}" if place.is_integer() else f"{place:.2f}" for place in places]


def _ends(scheme: Scheme, metric: str) -> list[int]:
    """The lowest and the highest level of a metric."""
    return [scheme.levels[metric][0], scheme.levels[metric][-1]]


def _polar(traces: list[dict[str, Any]], scale: list[int]) -> dict[str, Any]:
    """A radar chart of closed lines."""
    axis = {
        "radialaxis": {"range": scale, "dtick": 1, "angle": 90, "tickangle": 90},
        "angularaxis": {"direction": "clockwise"},
    }
    return {"data": traces, "layout": {"polar": axis, "height": 520, "showlegend": True}}


def heat(z: pd.DataFrame, columns: Sequence[Any], scales: Sequence[Sequence[float]] | None = None) -> dict[str, Any]:
    """A heat map of a table of scores or correlations, its first row at the top.

    Args:
        z: the table.
        columns: what its columns are called.
        scales: the ends of each column's scale, where they differ: colours then say where on its scale a value is.
    """
    rows = [str(name) for name in z.index]
    shown = [numbers(row) for row in z.to_numpy()]
    if scales:
        lowest, highest = np.array(scales, float).T
        z = (z - lowest) / (highest - lowest)
    low, high = 0.0, 1.0
    if np.isfinite(z.to_numpy(float)).any():
        low, high = (round(float(end(z.to_numpy(float))), DIGITS) for end in (np.nanmin, np.nanmax))
        # Where all values are close together, the full range of colours would make noise look like a finding.
        widened = max(MIN_SPAN - (high - low), 0) / 2
        low, high = low - widened, high + widened
    trace = {
        "type": "heatmap",
        "z": [numbers(row) for row in z.to_numpy()],
        **({"text": shown} if scales else {}),
        "x": list(columns),
        "y": [label(name) for name in rows],
        "zmin": low,
        "zmax": high,
        "colorscale": HEAT,
        "texttemplate": "%{text:.2f}" if scales else "%{z:.2f}",
        "textfont": {"color": Colour("ink")},
        "hovertemplate": "%{y}<br>%{x}: %{text:.2f}<extra></extra>"
        if scales
        else "%{y}<br>%{x}: %{z:.2f}<extra></extra>",
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
    }
    ticks = {"type": "category", "tickvals": [label(name) for name in rows], "ticktext": [short(name) for name in rows]}
    axes = {"yaxis": {**ticks, "autorange": "reversed"}, "xaxis": {"type": "category", "side": "top"}}
    return {"data": [trace], "layout": {**axes, "height": 150 + ROW_HEIGHT * len(rows)}}


def sources_heat(run: Run) -> Figure:
    """Systems by metrics."""
    return _heat_figure("sources", _wide(run.leaderboard, run.metrics, run.sources), run, "source")


def characters_heat(run: Run) -> Figure:
    """Characters by metrics, over all systems."""
    z = run.judgments.pivot_table(index="character", columns="metric", values="score", dropna=False)
    return _heat_figure("characters", z.reindex(columns=run.metrics), run, "character")


def _heat_figure(name: str, z: pd.DataFrame, run: Run, of: str) -> Figure:
    """A heat map whose rows are values of the dialogues' filter ``of``."""
    heads = [metric_key(metric) for metric in run.metrics]
    names = [str(name) for name in z.index]
    rows = [[one, *numbers(z.loc[one], 2)] for one in names]
    filters = (of, [visible(one) for one in names])
    scales = [_ends(run.scheme, metric) for metric in run.metrics] if run.scheme.is_mixed else None
    return Figure(name, {ALL: heat(z, heads, scales)}, Table([Key(of), *heads], rows), filters=filters)


def diversity(run: Run) -> Figure:
    """Response diversity by system, a variant for each statistic: bars from the lowest to the highest."""
    rows = run.diversity[run.diversity["level"] == "source"].sort_values("source")
    names = [name for name in (*STATISTICS, run.scheme.set_metric or "") if name in rows and rows[name].notna().any()]
    plots: dict[str, Any] = {}
    for name in names:
        known = rows.dropna(subset=name).sort_values(name)
        sources = [label(source) for source in known["source"]]
        trace = {
            "type": "bar",
            "orientation": "h",
            "x": numbers(known[name]),
            "y": sources,
            "marker": {"color": Colour("judge")},
            "texttemplate": "%{x:.3f}",
            "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
        }
        ticks = {"tickvals": sources, "ticktext": [short(source) for source in known["source"]], "type": "category"}
        title = {"text": Key(f"diversity.{name}")}
        axes: dict[str, Any] = {"xaxis": {"title": title, "rangemode": "tozero"}, "yaxis": ticks}
        plots[name] = {"data": [trace], "layout": {**axes, "height": 110 + ROW_HEIGHT * len(sources)}}
    table = Table(
        [Key("source"), *(Key(f"diversity.{name}") for name in names)],
        [[row["source"], *numbers((row[name] for name in names), 3)] for row in rows.to_dict("records")],
    )
    return Figure("diversity", plots, table, {name: Key(f"diversity.{name}") for name in names})


def distributions(run: Run) -> Figure:
    """How scores are spread within each system, a variant for each metric: boxes by ``QUANTILES``."""
    labels = [label(source) for source in run.sources]
    ticks = {"type": "category", "tickvals": labels, "ticktext": [short(source) for source in run.sources]}
    layout: dict[str, Any] = {
        "height": 110 + ROW_HEIGHT * len(labels),
        "yaxis": {**ticks, "autorange": "reversed"},
    }
    tint: dict[str, Any] = {
        "line": {"color": Colour("judge"), "width": 1.5},
        "fillcolor": Colour("judge-soft"),
        "showlegend": False,
    }
    parts_of_a_box = ("lowerfence", "q1", "median", "q3", "upperfence")
    plots: dict[str, Any] = {}
    rows: list[list[Cell]] = []
    for metric, part in run.judgments.groupby("metric", sort=False):
        found = part.groupby("source")["score"].quantile(np.array(QUANTILES)).unstack().reindex(run.sources)
        box = {name: numbers(found[quantile]) for name, quantile in zip(parts_of_a_box, found.columns, strict=True)}
        trace = {"type": "box", "orientation": "h", "y": labels, **box, **tint, "name": Key("score")}
        axis = {"range": _ends(run.scheme, str(metric)), "dtick": 1, "title": {"text": Key("score")}}
        plots[str(metric)] = {"data": [trace], "layout": {**layout, "xaxis": axis}}
        rows += [[metric_key(str(metric)), source, *numbers(found.loc[source], 2)] for source in run.sources]
    heads = [Key("metric"), Key("source"), *(Key(f"quantile.{quantile:.0%}".rstrip("%")) for quantile in QUANTILES)]
    return Figure("distributions", plots, Table(heads, rows), {metric: metric_key(metric) for metric in plots})


def levels(run: Run) -> Figure:
    """How the judge's probability is spread over the levels, by metric; the table has label mass and entropy too.

    Entropy is in bits: five equally likely levels, say, have 2.32. The low label mass is the first percentile over
    dialogues.
    """
    # The set metric may have levels that no metric of a dialogue has.
    every = sorted({level for metric in run.metrics for level in run.scheme.levels[metric]})
    columns = [f"p{level}" for level in every]
    means = run.judgments.groupby("metric")[columns].mean().reindex(run.metrics)
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "x": numbers(means[column]),
            "y": [metric_key(metric) for metric in run.metrics],
            "name": str(level),
            "marker": {"color": Colour(f"level-{shade}")},
            "hovertemplate": f"%{{y}}, {level}: %{{x:.1%}}<extra></extra>",
        }
        for level, column, shade in zip(every, columns, shades(len(every)), strict=True)
    ]
    axes = {"xaxis": {"range": [0, 1], "tickformat": ".0%"}, "yaxis": {"type": "category", "autorange": "reversed"}}
    layout = {**axes, "barmode": "stack", "height": 120 + ROW_HEIGHT * len(run.metrics), "showlegend": True}
    layout["legend"] = {"traceorder": "normal"}
    rows: list[list[Cell]] = []
    for metric in run.metrics:
        own = run.judgments[run.judgments["metric"] == metric]
        there = [f"p{level}" for level in run.scheme.levels[metric]]
        chances, mass = own[there].dropna().to_numpy(float), own["mass"].dropna()
        # Where a chance is 0 its logarithm is taken of 1, as 0 · log 0 counts as 0.
        entropy = -(chances * np.log2(np.where(chances > 0, chances, 1))).sum(axis=1)
        certainty = (mass.median(), mass.quantile(0.01), entropy.mean()) if len(mass) else (None,) * 3
        rows.append([metric_key(metric), *numbers(means.loc[metric], 3), *numbers(certainty, 3)])
    heads: list[Key | str] = [Key("metric"), *columns, Key("mass.median"), Key("mass.low"), Key("entropy")]
    return Figure("levels", {ALL: {"data": traces, "layout": layout}}, Table(heads, rows))


# The judge beside human ratings

BINS = 10
"""Bins of a reliability diagram, of equally many items each."""


MIN_BINNED = 5
"""Items that a bin needs."""


DRAWN = 400
"""Points of a Bland–Altman plot that are drawn; the lines are of all."""


LIMITS = 1.96
"""Limits of agreement in standard deviations (Bland and Altman 1986)."""


DRAWN_STATISTICS = {"spearman": "person_left_out", "mae": "person_left_out", "qwk": "person_with_person"}
"""What is drawn of agreement, and which figure of annotators stands beside it."""


SYMBOLS = {"judge": "circle", "people": "diamond-open", "constant": "x-thin-open"}
"""Markers of the judge, of annotators and of the constant predictor; the names are also those of their colours."""


def agreement_figures(people: People, calibrated: pd.DataFrame | None) -> list[Figure]:
    """All charts of a judge beside human ratings.

    Args:
        people: the run and its human ratings.
        calibrated: calibrated scores, ``item_id, metric, calibrated``, where a calibration was applied.
    """
    found = people.assessment.to_dict()
    matrix = [_matrix(found["discriminant"])] if found["discriminant"] else []
    rated = {metric: paired.labelled for metric, paired in people.pairing.metrics.items()}
    return [_agreement(found["metrics"]), *matrix, _reliability(rated, calibrated), _bland_altman(rated)]


def _agreement(metrics: Mapping[str, Any]) -> Figure:
    """The judge, an annotator and the constant by metric, with their intervals; a variant for each statistic."""
    plots: dict[str, Any] = {}
    table: list[list[Cell]] = []
    rows = {"yaxis": {"type": "category", "autorange": "reversed"}, "height": 140 + 32 * len(metrics)}
    for statistic, person in DRAWN_STATISTICS.items():
        parts = {"judge": "agreement", "people": person, "constant": "constant"}
        cells = {
            who: [interval_of(found, part, statistic) for found in metrics.values()] for who, part in parts.items()
        }
        traces = [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [one.value for one in each],
                "y": [metric_key(metric) for metric in metrics],
                "name": Key(f"of.{who}"),
                "marker": {"color": Colour(who), "size": 10, "symbol": SYMBOLS[who], "line": {"width": 2}},
                "error_x": {"color": Colour(who), "thickness": 1.5, **_error_bars(each)},
            }
            for who, each in cells.items()
            if any(one.value is not None for one in each)
        ]
        axes = {"xaxis": {"title": {"text": Key(f"statistic.{statistic}")}, "zeroline": True}}
        plots[statistic] = {"data": traces, "layout": {**axes, **rows, "showlegend": True}}
        columns = zip(metrics, *cells.values(), strict=True)
        table += [[Key(f"statistic.{statistic}"), metric_key(metric), *each] for metric, *each in columns]
    heads = [Key("statistic"), Key("metric"), Key("of.judge"), Key("of.people"), Key("of.constant")]
    return Figure("agreement", plots, Table(heads, table), {s: Key(f"statistic.{s}") for s in DRAWN_STATISTICS})


def _error_bars(each: list[Interval]) -> dict[str, Any]:
    """Intervals as plotly takes them: how far their ends lie from the values, 0 where there is none."""
    above = [0.0 if o.high is None or o.value is None else round(o.high - o.value, 4) for o in each]
    below = [0.0 if o.low is None or o.value is None else round(o.value - o.low, 4) for o in each]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}


def _matrix(found: Mapping[str, Any]) -> Figure:
    """Correlations of the judge's metrics (rows) with the annotators' (columns)."""
    table = pd.DataFrame.from_dict(found["spearman"], orient="index", dtype=float)
    plot = heat(table, [metric_key(metric) for metric in table.columns])
    plot["data"][0]["y"] = [metric_key(metric) for metric in table.index]
    plot["layout"] |= {
        "yaxis": {"type": "category", "autorange": "reversed", "title": {"text": Key("of.judge")}},
        "xaxis": {"type": "category", "side": "bottom", "title": {"text": Key("of.people.ratings")}},
    }
    rows = [[metric_key(str(row)), *numbers(table.loc[row], 2)] for row in table.index]
    return Figure("matrix", {ALL: plot}, Table([Key("metric"), *(metric_key(c) for c in table.columns)], rows))


def _reliability(rated: Mapping[str, Paired], calibrated: pd.DataFrame | None) -> Figure:
    """Reliability diagrams: the mean rating in bins of the score, and of the calibrated score where it is known.

    Where only some items of a metric have a calibrated score, its bins are of those.
    """
    looks = {"before": ("judge", "circle"), "after": ("people", "square")}
    plots: dict[str, Any] = {}
    rows: list[list[Cell]] = []
    for metric, paired in rated.items():
        # The diagram before calibration is of the score as it is, that after of the calibrated score.
        sides = {"before": paired}
        if calibrated is not None:
            own = calibrated[calibrated["metric"] == metric].set_index("item_id")["calibrated"]
            scores = own.reindex(paired.items).to_numpy(float)
            if (known := np.isfinite(scores)).any():
                sides["after"] = paired.at(known).judged_by(scores[known])
        ends = list(paired.scale)
        line = {"color": Colour("axis"), "dash": "dot", "width": 1}
        traces: list[dict[str, Any]] = [
            {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip", "name": Key("diagonal"),
             "line": line}
        ]  # fmt: skip
        for side, one in sides.items():
            cells, (tint, symbol) = _binned(one), looks[side]
            y = [mean for _, _, mean in cells]
            trace = {"type": "scatter", "mode": "lines+markers", "name": Key(f"calibration.{side}")}
            trace |= {"x": numbers(x for _, x, _ in cells), "y": [mean.value for mean in y]}
            trace |= {"error_y": {"color": Colour(tint), "thickness": 1, **_error_bars(y)}}
            trace |= {"marker": {"color": Colour(tint), "symbol": symbol, "size": 8}}
            traces.append({**trace, "line": {"color": Colour(tint), "width": 1.5}})
            rows += [[metric_key(metric), Key(f"calibration.{side}"), n, number(x, 2), mean] for n, x, mean in cells]
        axes = {of: {"title": {"text": Key(f"mean.{who}")}, "range": ends} for of, who in
                (("xaxis", "judge"), ("yaxis", "people"))}  # fmt: skip
        plots[metric] = {"data": traces, "layout": {**axes, "height": 460, "showlegend": True}}
    heads = [Key("metric"), Key("scores"), Key("items"), Key("mean.judge"), Key("mean.people")]
    return Figure("reliability", plots, Table(heads, rows), {metric: metric_key(metric) for metric in plots})


def _binned(paired: Paired) -> list[tuple[int, float, Interval]]:
    """Items, the judge's mean, and the mean rating with its interval, of bins of equally many items."""
    # Bins of equally many items and not of equal width: most scores of a lenient judge would fall into one bin.
    order = np.argsort(paired.judge, kind="stable")
    count = max(1, min(BINS, len(order) // MIN_BINNED))
    bins = []
    for part in (paired.at(places) for places in np.array_split(order, count) if len(places)):
        mean = clustered_mean(part.human, part.groups, part.weights)
        ends = Interval(*numbers((mean.value, mean.low, mean.high), 3))
        bins.append((len(part.items), float(np.average(part.judge, weights=part.weights)), ends))
    return bins


def _bland_altman(rated: Mapping[str, Paired]) -> Figure:
    """Judge less mean rating against the mean of both, with the bias and the limits of agreement."""
    plots: dict[str, Any] = {}
    rows: list[list[Cell]] = []
    for metric, paired in rated.items():
        ends = list(paired.scale)
        axes = {"xaxis": {"title": {"text": Key("middle")}, "range": ends}, "yaxis": {"title": {"text": Key("apart")}}}
        apart, middle = paired.judge - paired.human, (paired.judge + paired.human) / 2
        bias = float(np.average(apart, weights=paired.weights))
        half = LIMITS * float(np.average((apart - bias) ** 2, weights=paired.weights)) ** 0.5
        # Evenly spaced items, the first and the last among them, so that a page is the same every time.
        drawn = np.unique(np.linspace(0, len(apart) - 1, min(DRAWN, len(apart))).astype(int))
        points: dict[str, Any] = {"type": "scatter", "mode": "markers"}
        points |= {"x": numbers(middle[drawn], 2), "y": numbers(apart[drawn], 2)}
        points |= {"name": Key("dialogue"), "marker": {"color": Colour("judge"), "size": 6, "opacity": 0.55}}
        lines = [
            {
                "type": "scatter",
                "mode": "lines",
                "x": ends,
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
        plots[metric] = {"data": [points, *lines], "layout": {**axes, "height": 460, "showlegend": True}}
        rows.append([metric_key(metric), len(apart), *numbers((bias, bias - half, bias + half), 2)])
    heads = [Key("metric"), Key("items"), Key("bias"), Key("limit.low"), Key("limit.high")]
    return Figure("bland_altman", plots, Table(heads, rows), {metric: metric_key(metric) for metric in plots})
