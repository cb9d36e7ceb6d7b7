"""From a run's folder to ``report.html``: plain data is gathered, then put into the template of ``assets``.

The page needs no network and sends nothing: scripts and styles stand in it, and its Content-Security-Policy lets no
other run. Text from data is escaped by the template, by ``json_block`` for the script, and by ``label`` for plotly.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from calibration import chatanime_means
from judge.errors import InputError
from judge.files import replacing
from judge.report import charts, tables
from judge.report.load_run import Entries, Run, make_entries, read_run
from judge.report.tables import Check, People, Training, leaderboards, published_table, tables_of, verdicts
from judge.report.texts import (
    LANGUAGES,
    Colour,
    Figure,
    Interval,
    Key,
    Sentence,
    Speaker,
    Table,
    asset,
    load_texts,
    metric_key,
    number,
    visible,
)
from judge.types import STAND_IN, is_whole

UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What could end a script element, or a line of a script, and how JSON writes it instead."""


STYLE_OF_PLOTLY = "plotly.js-style-global"
"""An element by whose presence plotly knows that the page brings the few rules it needs itself."""


STYLES_OF_MAPS = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
"""The ids by which plotly looks whether the styles of its maps are there; otherwise it would add them. The page has no
maps, so it brings empty elements with these ids, and the Content-Security-Policy has nothing to refuse."""


REPORT = "report.html"
"""The page's file in a run's folder."""


DIALOGUES = 600
"""How many dialogues a page holds by default."""


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
    warnings: list[Sentence]
    published: Table | None
    checks: list[Check]
    training: Training | None
    entries: Entries


def write_report(
    folder: Path,
    people: People | None = None,
    published: pd.DataFrame | None = None,
    *,
    out: Path | None = None,
    dialogues: int = DIALOGUES,
    language: str | None = None,
) -> Path:
    """Write the report of a finished run as one HTML file that needs no network; the same input gives the same bytes.

    Args:
        folder: the run's.
        people: the run and its human ratings, where there are any.
        published: the run's means beside published ones (``calibration.agreement_with_published``).
        out: the file; by default ``report.html`` in the run.
        dialogues: how many dialogues it holds; of more, a chosen set.
        language: ``zh`` or ``en``, shown first; by default that of the run's rubric.

    Raises:
        InputError: there is no such run, it is not finished, or the file cannot be written.
    """
    ratings = people.ratings if people else None
    run = read_run(folder, [] if ratings is None else ratings["item_id"].unique())
    own = str(run.manifest["identity"].get("language"))
    language = language or (own if own in LANGUAGES else LANGUAGES[-1])
    if language not in LANGUAGES:
        raise InputError(f"--language {language}: choose from {', '.join(LANGUAGES)}")
    calibrated = run.judgments if "calibrated" in run.judgments else None
    assessment = people.assessment.to_dict() if people else None
    content = Content(
        run=run,
        language=language,
        leaderboards=leaderboards(run, people),
        figures=charts.figures_of(run, pd.DataFrame() if published is None else chatanime_means()),
        people_figures=charts.agreement_figures(people, calibrated) if people else [],
        people_tables=tables_of(people) if people else {},
        assessment=assessment,
        warnings=[Sentence(one) for one in people.assessment.remarks] if people else [],
        verdicts=verdicts(assessment) if assessment else [],
        published=None if published is None else published_table(published, run.scheme),
        checks=tables.read_checks(run),
        training=tables.training_of(run),
        entries=make_entries(run, dialogues, ratings),
    )
    path = out or folder / REPORT
    try:
        with replacing(path) as file:
            file.write(render(content).encode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file with --out") from error
    return path


def render(content: Content) -> str:
    """The page as HTML."""
    own = str(content.run.manifest["identity"].get("language"))
    texts, plotly = load_texts(content.run.scheme, own), get_plotlyjs()
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
    figures = {figure.name: figure for figure in (*content.figures, *content.people_figures)}
    data = {
        "language": content.language,
        "texts": texts,
        "metrics": content.run.metrics,
        "mixed": content.run.scheme.is_mixed,
        "levels": [content.run.scheme.levels[metric] for metric in content.run.metrics],
        "figures": {name: {"plots": figure.plots, "filters": figure.filters} for name, figure in figures.items()},
        "dialogues": content.entries.rows,
    }
    manifest = content.run.manifest
    counted = {kind: len(names) for kind, names in manifest["units"].items()}  # for a reader, not every part by name
    return environment.get_template("page.html.j2").render(
        content=content,
        run=content.run,
        published=content.published,
        levels="; ".join(dict.fromkeys(map(listed_levels, content.run.scheme.levels.values()))),
        manifest=manifest,
        stand_in=content.run.judge == STAND_IN,
        figures=figures,
        policy=_policy([plotly, script], [style]),
        plotly=Markup(plotly),
        script=Markup(script),
        style=Markup(style),
        style_of_plotly=STYLE_OF_PLOTLY,
        styles_of_maps=sorted(set(STYLES_OF_MAPS.findall(plotly))),
        data=Markup(json_block(data)),
        shown_manifest=visible(json.dumps({**manifest, "units": counted}, ensure_ascii=False, indent=2)),
    )


def _policy(scripts: list[str], styles: list[str]) -> str:
    """The page's Content-Security-Policy: these scripts and styles by their hashes, and nothing else.

    Plotly paints heat maps as ``data:`` images and sets style attributes, which are let through for it.
    """

    def hashes(texts: list[str]) -> str:
        digests = (base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() for text in texts)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src-elem {hashes(styles)}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def listed_levels(levels: tuple[int, ...]) -> str:
    """Levels as a reader sees them: ``1–5``, or one by one where there are gaps."""
    return f"{levels[0]}–{levels[-1]}" if is_whole(levels) else ", ".join(map(str, levels))


def json_block(value: Any) -> str:
    """JSON that cannot end the script element it stands in; ValueError for NaN."""

    def plain(value: Any) -> Any:
        match value:
            case Key(key, facts):
                return {"text": key, "facts": dict(facts)}
            case Colour(name):
                return {"colour": name}
        raise TypeError(f"{type(value).__name__} has no place in the page's data")

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain)
    for character, written in UNSAFE.items():
        text = text.replace(character, written)
    return text


def digits(value: Any, places: int = 2) -> str:
    """A number for a reader; a dash where it is missing."""
    found = number(value)
    if found is None:
        return "–"
    # A whole number is a count and has no decimals.
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
