"""The rubric: the texts of the prompt and one guide per metric, read from ``prompts/`` or a folder of the user's.

Every problem names the file and the field. Nothing here knows of tokens or models.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar
from unicodedata import category

import yaml
from pydantic import TypeAdapter, ValidationError

from judge.errors import InputError, listed, one_line
from judge.types import DIMENSIONS, LEVELS, METRICS, RESPONSE_DIVERSITY, Metric, digest

LANGUAGES = ("zh", "en")


RESERVED = ("\ue000", "\ue001", "\ue010", "\ue011", "\ue012")
"""Characters that mark the slots of a prompt and its messages while it is assembled; no rubric may contain them."""


MOST_FAULTS = 20
"""Problems of one file that are named."""


PLACEHOLDERS = {"level": ("level", "text"), "dimension": ("dimension",), "turn": ("number",), "answer": ("number",)}
"""The texts of ``system.yaml`` that are filled in, each with the names of its placeholders."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What the prompt says besides the rubrics (``system.yaml``): the rules, the headings and the closing line."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    rules: str
    rubrics: str
    level: str
    dimensions: dict[str, str]
    dimension: str
    character: str
    profile: str
    dialogue: str
    turn: str
    user: str
    reply: str
    answers: str
    answer: str
    closing: str
    instruction: str
    single: str
    before_level: str = "Level "
    """The word of the answer form ``level``, to which the digit is joined."""

    @property
    def of_every_form(self) -> dict[str, Any]:
        """The texts by name, without the word of one answer form."""
        texts = asdict(self)
        del texts["before_level"]
        return texts


@dataclass(frozen=True, slots=True)
class Rubric:
    """All that the judge is told about rating: the texts, the nine metrics in order, and response diversity."""

    language: str
    texts: Texts
    metrics: dict[str, Metric]
    response_diversity: Metric

    @property
    def digest(self) -> str:
        """Hash of every text in the rubric (32 hexadecimal digits), but for the word of one answer form.

        (A judge's hash of its prompts holds the form that it has.)
        """
        metrics = [asdict(metric) for metric in (*self.metrics.values(), self.response_diversity)]
        return digest([self.language, self.texts.of_every_form, metrics])

    def heading(self, metric: Metric) -> str:
        """What one metric's guide begins with: title, dimension and definition."""
        lines = [f"## {metric.title}"]
        if metric.id != RESPONSE_DIVERSITY:
            lines.append(self.texts.dimension.format(dimension=self.texts.dimensions[metric.dimension]))
        return "\n".join([*lines, metric.definition])

    def section(self, metric: Metric, ascending: bool = True) -> str:
        """One metric's guide as the judge reads it: title, dimension, definition, and the five anchors in order."""
        levels = LEVELS if ascending else LEVELS[::-1]
        anchors = [self.texts.level.format(level=level, text=metric.levels[level]) for level in levels]
        return "\n".join([self.heading(metric), *anchors])


def load_rubric(language: str = "zh", folder: Path | None = None) -> Rubric:
    """Read a rubric: the packaged one of ``language``, or the user's in ``folder`` (or ``folder/language``).

    Raises:
        InputError: an unknown language, or a file that is missing or wrong; names every file and field.
    """
    if language not in LANGUAGES:
        raise InputError(f"--language {language}: unknown language; choose one of {', '.join(LANGUAGES)}")
    if folder is None:
        home: Traversable | Path = resources.files("prompts") / language
    elif os.path.isdir(folder):
        home = folder / language if (folder / language).is_dir() else folder
    else:
        raise InputError(f"--prompts {folder}: no such folder; give one with system.yaml and a YAML file per metric")
    names = ("system", *METRICS, RESPONSE_DIVERSITY)
    problems: list[str] = []
    files = {name: _read(home / f"{name}.yaml", Texts if name == "system" else Metric, problems) for name in names}
    if not problems:
        problems = list(_inconsistencies(home, files))
    if problems:
        raise InputError(listed(problems))
    return Rubric(language, files["system"], {name: files[name] for name in METRICS}, files[RESPONSE_DIVERSITY])


def _read(file: Traversable | Path, kind: type, problems: list[str]) -> Any:
    """The content of a file as a ``kind``; None where it is wrong, and then ``problems`` says why."""
    try:
        if isinstance(file, Path) and os.path.exists(file) and not os.path.isfile(file):
            raise OSError(0, "a folder, a pipe or a device")
        # No aliases: by aliases of aliases a small file could stand for one that fills the memory.
        text = file.read_text(encoding="utf-8")
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise yaml.YAMLError("an alias (*name); write the text out")
        return TypeAdapter(kind).validate_python(yaml.safe_load(text))
    except FileNotFoundError:
        problems.append(f"{file}: missing; a rubric has system.yaml and one YAML file per metric")
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8")
    except OSError as error:
        problems.append(f"{file}: cannot be read ({error.strerror}); check the file")
    except ValidationError as error:
        for fault in error.errors(include_input=False)[:MOST_FAULTS]:
            field = ".".join(str(part) for part in fault["loc"] if part != "[key]") or "(whole file)"
            problems.append(f"{file}: field {field}: {fault['msg'].lower()}; mend it")
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:
        problems.append(f"{file}: not YAML ({one_line(error)}); mend the syntax")  # PyYAML fails in many ways
    return None


def _inconsistencies(home: Traversable | Path, files: dict[str, Any]) -> Iterator[str]:
    """What is wrong with files that can each be read: with the texts, then the metrics, then the characters of all."""
    yield from (f"{home / 'system.yaml'}: {problem}" for problem in _wrong_texts(files["system"]))
    for name in (*METRICS, RESPONSE_DIVERSITY):
        metric, file = files[name], home / f"{name}.yaml"
        dimension = next((title for title, metrics in DIMENSIONS.items() if name in metrics), RESPONSE_DIVERSITY)
        if metric.id != name:
            yield f"{file}: field id: is {metric.id!r}, not {name!r}; the id is the file's name"
        if metric.dimension != dimension:
            yield f"{file}: field dimension: is {metric.dimension!r}; it must be {dimension!r}"
        if tuple(sorted(metric.levels)) != LEVELS:
            yield f"{file}: field levels: has {sorted(metric.levels)}; give one anchor for each of 1 to 5"
    marks = ", ".join(f"U+{ord(mark):04X}" for mark in RESERVED)
    for name, content in files.items():
        file, texts = home / f"{name}.yaml", list(_strings(asdict(content)))
        if not all(text.strip() for text in texts):
            yield f"{file}: a text is empty; write it"
        if any(mark in text for text in texts for mark in RESERVED):
            yield f"{file}: contains {marks}, which mark slots; remove them"
        if any(category(c) in ("Cc", "Cs") and c not in "\n\t" for text in texts for c in text):
            yield f"{file}: holds a control character or half a character; mend the text"


def _wrong_texts(texts: Texts) -> Iterator[str]:
    """What is wrong with the texts of ``system.yaml``: titles of dimensions, and placeholders."""
    if set(texts.dimensions) != set(DIMENSIONS):
        yield f"field dimensions: give a title for each of {', '.join(DIMENSIONS)}"
    for field, names in PLACEHOLDERS.items():
        # Filling the text in shows every fault at once: a name that is missing, unknown, or has a brace too many.
        try:
            filled = getattr(texts, field).format(**{name: f"\0{name}\0" for name in names})
        except (KeyError, IndexError, ValueError, AttributeError):
            filled = ""
        if any(f"\0{name}\0" not in filled for name in names):
            yield f"field {field}: {{{'} and {'.join(names)}}} must stand in it, and nothing else in braces; mend it"


def _strings(value: Any) -> Iterator[str]:
    """All texts inside dictionaries of dictionaries."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, str):
        yield value
