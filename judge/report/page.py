"""Puts plain data into the template: one page with its script, its style and plotly in it, closed to the network.

What comes from data reaches the page as escaped text, or inside a JSON block that the script reads and writes by
``textContent``. The policy of the page allows the scripts and the style in it by their hashes and nothing else; only
style *attributes* are free, which plotly sets and which can load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from judge.report.checks import Check
from judge.report.entries import Entries
from judge.report.figures import metric_key
from judge.report.reading import Run
from judge.report.texts import Speaker, asset, load_texts
from judge.report.values import Colour, Figure, Interval, Key, Table, number, visible
from judge.types import STAND_IN

UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What could end a script element, or a line of a script, and how JSON writes it instead."""
STYLE_OF_PLOTLY = "plotly.js-style-global"
"""An element by whose presence plotly knows that the page brings the few rules it needs itself."""
STYLES_OF_MAPS = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
"""Where plotly looks whether styles of its maps are there, which it would add otherwise; the page has no maps."""


@dataclass(frozen=True, slots=True)
class Content:
    """All that a page shows, as plain data."""

    run: Run
    language: str
    leaderboards: dict[str, list[dict[str, Any]]]
    figures: list[Figure]
    people_figures: list[Figure]
    people_tables: dict[str, Table]
    assessment: dict[str, Any] | None
    verdicts: list[dict[str, Any]]
    published: Table | None
    checks: list[Check]
    entries: Entries


def render(content: Content) -> str:
    """The page."""
    texts, plotly = load_texts(), get_plotlyjs()
    script, style = asset("report.js"), asset("report.css")
    speaker = Speaker(texts, content.language)
    environment = Environment(
        loader=PackageLoader("judge.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(t=speaker.say, both=speaker.both, named=speaker.named, plain=speaker.plain)
    environment.globals.update(metric_key=metric_key, is_number=is_number, Key=Key)
    environment.filters.update(interval=interval, digits=digits, visible=visible)
    return environment.get_template("page.html.j2").render(
        content=content,
        run=content.run,
        published=content.published,
        manifest=content.run.manifest,
        stand_in=content.run.judge == STAND_IN,
        figures={figure.name: figure for figure in (*content.figures, *content.people_figures)},
        policy=_policy([plotly, script], [style]),
        plotly=Markup(plotly),
        script=Markup(script),
        style=Markup(style),
        style_of_plotly=STYLE_OF_PLOTLY,
        styles_of_maps=sorted(set(STYLES_OF_MAPS.findall(plotly))),
        data=Markup(json_block(_data(content, texts))),
        shown_manifest=_short_manifest(content.run.manifest),
    )


def _data(content: Content, texts: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What the script needs."""
    figures = {
        figure.name: {"plots": figure.plots, "filters": figure.filters}
        for figure in (*content.figures, *content.people_figures)
    }
    metrics = content.run.metrics
    return {"language": content.language, "texts": texts, "metrics": metrics, "figures": figures,
            "dialogues": content.entries.rows}  # fmt: skip


def json_block(value: Any) -> str:
    """JSON that cannot end the script element it stands in; ValueError for NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    for character, written in UNSAFE.items():
        text = text.replace(character, written)
    return text


def _plain(value: Any) -> Any:
    match value:
        case Key(key, facts):
            return {"text": key, "facts": dict(facts)}
        case Colour(name):
            return {"colour": name}
    raise TypeError(f"{type(value).__name__} has no place in the page's data")


def _policy(scripts: list[str], styles: list[str]) -> str:
    """The page's Content-Security-Policy. ``data:`` images are what plotly paints heat maps with."""
    return (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src-elem {_hashes(styles)}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _short_manifest(manifest: dict[str, Any]) -> str:
    """The manifest for a reader: parts are counted, not listed."""
    units = {kind: len(names) for kind, names in manifest["units"].items()}
    return visible(json.dumps({**manifest, "units": units}, ensure_ascii=False, indent=2))


def digits(value: Any, places: int = 2) -> str:
    """A number for a reader; a dash where it is missing."""
    found = number(value)
    if found is None:
        return "–"
    return f"{found:,.0f}" if isinstance(value, int) else _rounded(found, places)


def interval(value: Interval | None, places: int = 2) -> str:
    """A value with its interval, as far as they are known."""
    if value is None or value.value is None:
        return "–"
    middle, low, high = (None if one is None else _rounded(one, places) for one in (value.value, value.low, value.high))
    return f"{middle}" if low is None or high is None else f"{middle} [{low}, {high}]"


def _rounded(value: float, places: int) -> str:
    """With so many places; what rounds to nothing has no sign."""
    return f"{round(value, places) + 0.0:,.{places}f}"


def is_number(value: Any) -> bool:
    """Whether a cell is set to the right."""
    return isinstance(value, (int, float, Interval)) or value is None
