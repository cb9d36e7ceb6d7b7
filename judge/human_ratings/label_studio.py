"""A Label Studio project: its labelling configuration and tasks out, its exports back in (seen with 1.23.2).

What is read is not yet checked against the plan: that is the work of ``blinding.import_entries``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import pandas as pd

from calibration.names import fold
from judge.human_ratings.blinding import (
    Aside,
    Entry,
    Found,
    Key,
    Task,
    Wrong,
    anchors,
    speeches,
    wording_of,
    writable,
)
from judge.prompting.rubric import Rubric

SIDE_BY_SIDE = "display: flex; gap: 2em; align-items: flex-start"
READING = "flex: 1; position: sticky; top: 0; max-height: 90vh; overflow: auto; white-space: pre-wrap"
RATING = "flex: 1"
LINES = "white-space: pre-wrap; font-weight: normal; font-size: 14px"
"""CSS of the page that annotators see: two columns, the dialogue that stays in view, the metrics, and longer texts."""


def labelling_config(rubric: Rubric, metrics: Sequence[str], tasks: Sequence[Task]) -> str:
    """The XML of a project: the dialogue, and for each metric its definition and a choice among its anchors."""
    headings = wording_of(rubric).headings
    view = Element("View", style=SIDE_BY_SIDE)
    reading = SubElement(view, "View", style=READING)
    # A task must have every field that the configuration shows, so the profile is shown where any task has one.
    shown = ["character", *(["profile"] if any(task.dialogue.profile for task in tasks) else [])]
    for name in shown:
        _header(reading, headings[name], "4")
        SubElement(reading, "Text", name=name, value=f"${name}", valueType="text")
    _header(reading, headings["dialogue"], "4")
    how = {"name": "dialogue", "value": "$dialogue", "layout": "dialogue", "nameKey": "author", "textKey": "text"}
    SubElement(reading, "Paragraphs", how)
    rating = SubElement(view, "View", style=RATING)
    _header(rating, rubric.texts.rules, "6", LINES)
    for metric in metrics:
        about = rubric.metrics[metric]
        _header(rating, about.title, "4")
        _header(rating, about.definition, "6", LINES)
        choices = SubElement(
            rating, "Choices", name=metric, toName="dialogue", choice="single-radio", showInline="false"
        )
        for level, text in anchors(rubric, metric).items():
            # The alias is what is exported: the level alone, not the text of its anchor.
            SubElement(choices, "Choice", value=_literal(text), alias=str(level))
    indent(view)
    return tostring(view, encoding="unicode") + "\n"


def _header(parent: Element, text: str, size: str, style: str = "") -> None:
    """Add a text of ours to the page."""
    SubElement(parent, "Header", value=_literal(text), size=size, style=style)


def _literal(text: str) -> str:
    """Text in an attribute, where a ``$`` would begin the name of a task's field."""
    return writable(text).replace("$", "＄")


def label_studio_tasks(tasks: Sequence[Task], rubric: Rubric) -> list[dict[str, Any]]:
    """Tasks to import into the project, in their order; nothing in them names the system."""
    found = []
    for task in tasks:
        one = task.dialogue
        said = [{"author": who, "text": text} for who, text in speeches(one, rubric)]
        data = {"character": one.character, "profile": one.profile or "", "dialogue": said}
        found.append({"data": {"task": task.code, "raters": task.raters, **data}})
    return found


def task_entries(path: Path, tasks: pd.DataFrame, key: Key, names: Mapping[str, str]) -> Iterator[Found]:
    """What the tasks of a JSON export hold: an entry per annotation and metric of the key.

    Annotations that were skipped, drafts, and answers to controls that are not of the plan are counted.

    Args:
        path: where they were read.
        tasks: a task a row, with ``data``, ``annotations`` and, where there are any, ``drafts``.
        key: of the plan.
        names: ids of metrics by their folded names and titles.
    """
    for number, task in enumerate(tasks.to_dict(orient="records"), 1):
        place = f"{path}: record {number}"
        try:
            code, annotations = str(task["data"]["task"]), list(task["annotations"])
        except (KeyError, TypeError):
            yield Wrong(place, "has no data.task or no annotations; export the project's tasks again, as JSON")
            continue
        for one in annotations:
            yield from _annotation(place, code, one, key, names)
        drafts = task.get("drafts")
        yield from [Aside("drafts, which were not submitted")] * (len(drafts) if isinstance(drafts, list) else 0)


def _annotation(place: str, task: str, annotation: Any, key: Key, names: Mapping[str, str]) -> Iterator[Found]:
    """What one annotator gave of one task: an entry a metric, empty where the annotator left it out."""
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        yield Wrong(place, "holds an annotation without a result; export it again")
        return
    if annotation.get("was_cancelled"):
        yield Aside("annotations that were skipped or cancelled")
        return
    place = f"{place}, annotation {annotation.get('id')}"
    who = annotation.get("completed_by")  # the user's number, or an object with it and the e-mail address
    who = who.get("email") or who.get("id") if isinstance(who, dict) else who
    annotator = "" if who is None else str(who).strip()
    given: list[tuple[str, object]] = []
    for control in annotation["result"]:
        if isinstance(control, dict) and "from_name" not in control:  # a relation, which joins two other answers
            yield Aside(f"results of kind {str(control.get('type'))!r}, which are of no control")
            continue
        try:
            name = str(control["from_name"])
            metric, kind = names.get(fold(name)), control["type"]
            if metric is None:
                yield Aside(f"answers to {name!r} ({kind}), which is no metric of this plan")
            elif kind in ("rating", "choices", "number"):
                given.append((metric, chosen(dict(control["value"]))))
            else:
                yield Wrong(
                    place, f"control {name!r} is of kind {kind!r}, not rating or choices; rate it by one of these"
                )
        except (KeyError, TypeError):
            yield Wrong(place, "holds a result that is neither a rating nor a choice; export it again")
    # A metric that was left out is an empty cell, so that it is counted and not lost.
    unrated = set(key.metrics) - {metric for metric, _ in given}
    for metric, score in [*given, *((metric, None) for metric in key.metrics if metric in unrated)]:
        yield Entry(place, task, metric, annotator, score)


def chosen(value: Any) -> object:
    """What was chosen, of a control's value in any export.

    ``{"rating": 4}`` or ``{"choices": ["4"]}`` in JSON; ``"4"`` or ``[{"rating": 4}]`` in JSON-MIN; the same as text in
    CSV. What cannot be read comes back as it is, so that it is refused as no level.

    Raises:
        TypeError: an object that is neither a rating nor a choice.
    """
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, list):
        return chosen(value[0]) if len(value) == 1 else f"{len(value)} choices"
    if not isinstance(value, dict):
        return value
    if "choices" in value:
        return chosen(value["choices"])
    if found := [value[kind] for kind in ("rating", "number") if kind in value]:
        return found[0]
    raise TypeError(f"neither a rating nor a choice: {value}")
