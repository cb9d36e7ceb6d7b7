"""Rubrics: a folder that says what is rated on which levels, and in which words; a packaged one, or a user's own.

A rubric's folder has ``rubric.yaml`` (what is rated), ``system.yaml`` (the texts of the prompt), a YAML file a metric,
and may have ``rationale.yaml`` (how reasons are asked for). A rubric in several languages has such a folder for each.
Every problem names the file and the field. Nothing here knows of tokens or models.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar
from unicodedata import category

from judge.errors import InputError, listed
from judge.prompting.yaml_files import read_yaml, wrong_placeholders
from judge.types import CHATANIME, OVERALL, Metric, Scheme, digest

FIRST_LANGUAGE = "zh"
"""The language of a rubric in several, where none is named."""


LEVELS = (2, 10)
"""The fewest and the most levels of a metric."""


MISSING = (
    "a rubric has rubric.yaml, system.yaml and one YAML file per metric that rubric.yaml names "
    "(without rubric.yaml: ChatAnime's)"
)
"""The remedy where one is missing."""


RESERVED = ("\ue000", "\ue001", "\ue010", "\ue011", "\ue012")
"""Characters that mark the slots of a prompt and its messages while it is assembled; no rubric may contain them."""


PLACEHOLDERS = {
    "level": ("level", "text"),
    "dimension": ("dimension",),
    "turn": ("number",),
    "answer": ("number",),
    "question": ("dimension", "scores"),
    "score": ("title", "score"),
}
"""The texts of ``system.yaml`` and ``rationale.yaml`` that are filled in, each with the names of its placeholders."""


RESERVED_NAMES = frozenset(
    ["judge", "judge_id", "source", "character", "scenario", "level", "dialogues", "distinct_2", "self_bleu",
     "compression_ratio", "mass", "error", "score", "suspicious", "prompt_tokens", "system", "rubric", "rationale"]
)  # fmt: skip
"""Names that are columns of a run's tables, or files of a rubric."""


MAY_BE_EMPTY = ("dimension", "like", "answers")
"""The texts that need not be written."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What a rubric rates (``rubric.yaml``); the words are in its other files.

    ``judged_role`` is what the speaker who is judged is called in chat logs, and ``character`` the name that it gets in
    a dialogue that names none; without one every dialogue has to. ``scale`` are the levels of all metrics that do not
    say otherwise, as ``1-5`` or as a list. ``metrics`` are those of no dimension. ``composites`` are means beside those
    of the dimensions, each with its metrics.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    language: str
    scale: str | tuple[int, ...] | int | None = None
    judged_role: str = "character"
    character: str | None = None
    dimensions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    composites: dict[str, tuple[str, ...]] = field(default_factory=dict)
    set_metric: str | None = None

    @property
    def of_dialogues(self) -> tuple[str, ...]:
        """The metrics of a dialogue, in order."""
        return (*(metric for metrics in self.dimensions.values() for metric in metrics), *self.metrics)

    @property
    def names(self) -> tuple[str, ...]:
        """All metrics, in order."""
        return (*self.of_dialogues, *([self.set_metric] if self.set_metric else []))


@dataclass(frozen=True, slots=True)
class Texts:
    """What the prompt says besides the metrics (``system.yaml``): the rules, the headings and the closing line."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    rules: str
    rubrics: str
    level: str
    character: str
    profile: str
    dialogue: str
    turn: str
    user: str
    reply: str
    closing: str
    instruction: str
    single: str
    dimensions: dict[str, str] = field(default_factory=dict)
    dimension: str = "{dimension}"
    answers: str = ""
    answer: str = "{number}"
    composites: dict[str, str] = field(default_factory=dict)
    """The titles of the rubric's own composites."""
    before_level: str = "Level "
    """The word of the answer form ``level``, to which the digit is joined."""

    @property
    def of_every_form(self) -> dict[str, Any]:
        """The texts by name that a judge reads whatever its answer form."""
        texts = asdict(self)
        del texts["before_level"], texts["composites"]
        return texts


@dataclass(frozen=True, slots=True)
class RationaleTexts:
    """How a judge is asked for the reasons of its scores in a dimension (``rationale.yaml``)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    question: str
    score: str


@dataclass(frozen=True, slots=True)
class Rubric:
    """All that the judge is told about rating: the texts, the metrics in order, and the set metric where there is one.

    The set metric is of a system's answers as one character across scenarios, response diversity for instance.
    """

    outline: Outline
    texts: Texts
    metrics: dict[str, Metric]
    set_metric: Metric | None
    rationale: RationaleTexts

    @property
    def name(self) -> str:
        """What the rubric is called."""
        return self.outline.name

    @property
    def language(self) -> str:
        """The language that it is in."""
        return self.outline.language

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """The metrics of a dialogue, and the set metric behind them."""
        return (*self.metrics.values(), *([self.set_metric] if self.set_metric else []))

    def metric(self, name: str) -> Metric:
        """A metric of a dialogue, or the set metric."""
        return {metric.id: metric for metric in self.all_metrics}[name]

    @property
    def digest(self) -> str:
        """Hash of every text that a judge reads (32 hexadecimal digits), but for the word of one answer form.

        (A judge's hash of its prompts holds the form that it has.)
        """
        fields = ("id", "dimension", "title", "definition", "levels", "question", "answer")
        metrics = [{name: getattr(metric, name) for name in fields} for metric in self.all_metrics]
        return digest([self.language, self.texts.of_every_form, metrics])

    @property
    def scheme(self) -> Scheme:
        """What is rated, without the words."""
        levels = {name: _levels(metric) for name, metric in self.metrics.items()}
        asked = {**self.outline.dimensions, **self.outline.composites, OVERALL: tuple(self.metrics)}
        # A mean of metrics on different scales would be of no scale, and one of a single metric is that metric.
        alike = {
            name: members
            for name, members in asked.items()
            if len(members) > 1 and len({levels[one] for one in members}) == 1
        }
        if tuple(self.metrics) in self.outline.dimensions.values():  # of the only dimension: the overall mean
            alike = {name: members for name, members in alike.items() if name not in self.outline.dimensions}
        return Scheme(
            rubric=self.name,
            levels=levels,
            dimensions=self.outline.dimensions,
            composites=alike,
            set_metric=self.outline.set_metric,
            set_levels=_levels(self.set_metric) if self.set_metric else (),
            titles={
                **{metric.id: metric.title for metric in self.all_metrics},
                **self.texts.dimensions,
                **self.texts.composites,
            },
            likes={name: metric.like for name, metric in self.metrics.items() if metric.like},
        )

    def heading(self, metric: Metric) -> str:
        """What one metric's guide begins with: title, dimension and definition."""
        lines = [f"## {metric.title}"]
        if metric.dimension in self.texts.dimensions:
            lines.append(self.texts.dimension.format(dimension=self.texts.dimensions[metric.dimension]))
        return "\n".join([*lines, metric.definition])

    def section(self, metric: Metric, ascending: bool = True) -> str:
        """One metric's guide as the judge reads it: title, dimension, definition, and the anchors in order."""
        levels = sorted(metric.levels, reverse=not ascending)
        anchors = [self.texts.level.format(level=level, text=metric.levels[level]) for level in levels]
        return "\n".join([self.heading(metric), *anchors])


def _levels(metric: Metric) -> tuple[int, ...]:
    return tuple(sorted(metric.levels))


def packaged() -> tuple[str, ...]:
    """The names of the packaged rubrics."""
    folders = (one for one in resources.files("prompts").iterdir() if one.is_dir() and not one.name.startswith("_"))
    # The texts of a rubric are in its folder, or in one for each language; a folder without has other prompts.
    rubrics = (one for one in folders if any((home / "system.yaml").is_file() for home in (one, *one.iterdir())))
    return tuple(sorted(rubric.name for rubric in rubrics))


def languages(rubric: str | Path = CHATANIME) -> tuple[str, ...]:
    """The languages that a rubric is in, the one that is taken where none is named first.

    InputError where there is no such rubric.
    """
    home = _home(rubric)
    there = sorted(one.name for one in home.iterdir() if one.is_dir() and (one / "system.yaml").is_file())
    if not there:
        return (_read_outline(home).language,) if (home / "rubric.yaml").is_file() else languages()
    return tuple(sorted(there, key=lambda name: name != FIRST_LANGUAGE))


def load_rubric(language: str | None = None, rubric: str | Path = CHATANIME) -> Rubric:
    """Read a rubric.

    Args:
        language: which of its languages; None for the first of ``languages``.
        rubric: the name of a packaged one, or a folder.

    Raises:
        InputError: no such rubric or language, or a file that is missing or wrong; names every file and field.
    """
    known = languages(rubric)
    if language is not None and language not in known:
        raise InputError(f"--language {language}: the rubric {rubric} is in {', '.join(known)}; choose one of these")
    home, language = _home(rubric), language or known[0]
    home = home / language if (home / language).is_dir() else home
    outline = _read_outline(home, language)
    problems: list[str] = []
    files = {
        name: read_yaml(home / f"{name}.yaml", Texts if name == "system" else Metric, problems, MISSING)
        for name in ("system", *outline.names)
    }
    rationale = home / "rationale.yaml"
    if not rationale.is_file():  # the words do not depend on what is rated, only on the language
        ours = resources.files("prompts") / CHATANIME
        rationale = ours / (outline.language if outline.language in languages() else "en") / "rationale.yaml"
    files["rationale"] = read_yaml(rationale, RationaleTexts, problems, MISSING)
    problems = [*_wrong_outline(home, outline), *(problems or _inconsistencies(home, outline, files))]
    if problems:
        raise InputError(listed(problems))
    metrics = {name: files[name] for name in outline.of_dialogues}
    of_sets = files[outline.set_metric] if outline.set_metric else None
    return Rubric(outline, files["system"], metrics, of_sets, files["rationale"])


def _home(rubric: str | Path) -> Traversable | Path:
    """The folder of a packaged rubric, or the user's; InputError where there is none."""
    if str(rubric) in packaged():
        return resources.files("prompts") / str(rubric)
    if os.path.isdir(rubric):
        return Path(rubric)
    raise InputError(
        f"--rubric {rubric}: neither a packaged rubric ({', '.join(packaged())}) nor a folder; "
        "`esrp-judge rubric new DIR` begins one of your own"
    )


def _read_outline(home: Traversable | Path, language: str = FIRST_LANGUAGE) -> Outline:
    """What a rubric rates; a folder without ``rubric.yaml`` rates what ChatAnime's does in that language."""
    problems: list[str] = []
    place = home / "rubric.yaml"
    if not place.is_file() and language in languages():
        place = resources.files("prompts") / CHATANIME / language / "rubric.yaml"
    outline = read_yaml(place, Outline, problems, MISSING)
    if problems:
        raise InputError(listed(problems))
    found: Outline = outline
    return found


def parse_scale(scale: str | tuple[int, ...] | int) -> tuple[int, ...]:
    """The levels that ``1-5`` or a list stands for; ValueError where it is neither."""
    if isinstance(scale, tuple):
        if len(set(scale)) < len(scale):
            raise ValueError(f"{list(scale)} has a level twice; write each once")
        return tuple(sorted(scale))
    ends = re.fullmatch(r"\s*(\d{1,4})\s*[-–]\s*(\d{1,4})\s*", str(scale))
    if not ends or int(ends[1]) >= int(ends[2]):
        raise ValueError(f"{scale!r} is no scale; write 1-5 or [1, 3, 5]")
    return tuple(range(int(ends[1]), int(ends[2]) + 1))


def _wrong_outline(home: Traversable | Path, outline: Outline) -> Iterator[str]:
    """What is wrong with what a rubric rates: names that are not names, or stand for two things; means of nothing."""
    file = home / "rubric.yaml"
    for field_name in ("name", "language", "judged_role", "character"):
        text = getattr(outline, field_name)
        if text is not None and (not text.strip() or any(category(char) in ("Cc", "Cs") for char in text)):
            yield f"{file}: field {field_name}: {text!r} is no name; write one in a line"
    if not outline.of_dialogues:
        yield f"{file}: names no metric; list them under dimensions or metrics"
    names = [*outline.names, *outline.dimensions, *outline.composites, OVERALL]
    for name, count in Counter(names).items():
        if name in RESERVED_NAMES:
            yield f"{file}: {name!r} is a column of the tables or a file of the rubric; choose another name"
        if count > 1:
            yield f"{file}: {name!r} stands for two things; names of metrics, dimensions and composites all differ"
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            yield f"{file}: {name!r} is no name; use Latin letters, digits and _ (the title can be anything)"
    for name, members in outline.composites.items():
        if strange := sorted(set(members) - set(outline.of_dialogues)) or ([] if members else ["nothing"]):
            yield f"{file}: field composites.{name}: is of {', '.join(strange)}; list metrics of the rubric"


def _inconsistencies(home: Traversable | Path, outline: Outline, files: dict[str, Any]) -> Iterator[str]:
    """What is wrong with files that can each be read: with the texts, then the metrics, then the characters of all."""
    yield from (f"{home / 'system.yaml'}: {problem}" for problem in _wrong_titles(files["system"], outline))
    titles: dict[str, str] = {}
    for name in outline.names:
        metric, file = files[name], home / f"{name}.yaml"
        own = next((title for title, metrics in outline.dimensions.items() if name in metrics), "")
        allowed = (own,) if own else ("", name)  # a metric of no dimension may name itself
        if metric.id != name:
            yield f"{file}: field id: is {metric.id!r}, not {name!r}; the id is the file's name"
        if metric.dimension not in allowed:
            yield f"{file}: field dimension: is {metric.dimension!r}; it must be {allowed[-1]!r} as in rubric.yaml"
        if metric.title in titles:
            yield f"{file}: field title: {metric.title!r} is that of {titles[metric.title]} too; name them apart"
        titles.setdefault(metric.title, name)
        if metric.like and metric.like not in (known := _read_outline(_home(CHATANIME)).of_dialogues):
            yield f"{file}: field like: {metric.like!r} is none of {', '.join(known)}; name one of these, or none"
        yield from (f"{file}: {problem}" for problem in _wrong_levels(metric, outline))
    marks = ", ".join(f"U+{ord(mark):04X}" for mark in RESERVED)
    for name, content in files.items():
        fields = {key: value for key, value in asdict(content).items() if value != "" or key not in MAY_BE_EMPTY}
        file, texts = home / f"{name}.yaml", list(_strings(fields))
        if not all(text.strip() for text in texts):
            yield f"{file}: a text is empty; write it"
        if name in ("system", "rationale"):
            yield from (f"{file}: {problem}" for problem in wrong_placeholders(fields, PLACEHOLDERS))
        if any(mark in text for text in texts for mark in RESERVED):
            yield f"{file}: contains {marks}, which mark slots; remove them"
        if any(category(c) in ("Cc", "Cs") and c not in "\n\t" for text in texts for c in text):
            yield f"{file}: holds a control character or half a character; fix the text"


def _wrong_levels(metric: Metric, outline: Outline) -> Iterator[str]:
    """What is wrong with a metric's levels: their number, what they are, and anchors that say the same."""
    levels = _levels(metric)
    try:
        wanted = parse_scale(metric.scale or outline.scale or levels)
    except ValueError as error:
        yield f"field scale: {error}"
        return
    fewest, most = LEVELS
    if not fewest <= len(wanted) <= most or wanted[0] < 0:
        yield f"field levels: {len(wanted)} levels from {wanted[0]}; a metric has {fewest} to {most} of them, from 0 on"
    elif levels != wanted:
        yield f"field levels: has {list(levels)}; give one anchor for each of {', '.join(map(str, wanted))}"
    anchors = [text.strip().casefold() for text in metric.levels.values()]
    if len(set(anchors)) < len(anchors):
        twice = next(text for text in metric.levels.values() if anchors.count(text.strip().casefold()) > 1)
        yield f"field levels: two levels say {twice.strip()[:60]!r}; say how they differ"


def _wrong_titles(texts: Texts, outline: Outline) -> Iterator[str]:
    """What is wrong with the titles in ``system.yaml``."""
    for title, given, wanted in (
        ("dimensions", texts.dimensions, outline.dimensions),
        ("composites", texts.composites, outline.composites),
    ):
        if set(given) != set(wanted):
            yield f"field {title}: give a title for each of {', '.join(wanted) or 'none'}"
    if outline.set_metric and not texts.answers:
        yield f"field answers: missing; it heads the answers that are rated on {outline.set_metric}"


def _strings(value: Any) -> Iterator[str]:
    """All texts inside dictionaries of dictionaries."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, str):
        yield value
