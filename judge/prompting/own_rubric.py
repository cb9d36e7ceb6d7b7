"""A rubric of one's own: begun as a copy of a packaged one, and checked beyond what reading it refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import product
from pathlib import Path

from judge.errors import InputError
from judge.prompting.chat_tokenizer import Tokenizer
from judge.prompting.prompt_tree import LAYOUTS, PromptWriter
from judge.prompting.rubric import Rubric, languages, load_rubric, packaged
from judge.types import is_whole

OTHER_FILES = ("system", "rubric", "rationale")
"""The files of a rubric that are no metric."""


def begin_rubric(folder: Path, source: str, language: str | None = None) -> list[Path]:
    """Copy a packaged rubric into a new folder, under the folder's name; returns the files.

    Args:
        folder: where to; it is made, and may be there if it is empty.
        source: the name of the packaged rubric.
        language: which of its languages; None for all that it has.

    Raises:
        InputError: no such rubric or language, or the folder is not empty or cannot be written.
    """
    if source not in packaged():
        raise InputError(f"--from {source}: no packaged rubric; choose from {', '.join(packaged())}")
    there = languages(source)
    if language is not None and language not in there:
        raise InputError(f"--language {language}: {source} is in {', '.join(there)}; choose one of these")
    home = resources.files("prompts") / source
    copied = {name: home / name for name in there if language in (None, name) and (home / name).is_dir()}
    # A rubric in one language needs no folder for it.
    parts = {"": next(iter(copied.values()), home)} if len(copied) < 2 else copied
    name = re.sub(r"[^\w-]", "-", folder.resolve().name) or "own"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: is there already and is not empty; name a new folder")
        written = []
        for part, files in parts.items():
            for file in sorted((one for one in files.iterdir() if one.is_file()), key=lambda one: one.name):
                text = file.read_text(encoding="utf-8")
                if file.name == "rubric.yaml":
                    text = re.sub(r"(?m)^name: .*$", f"name: {name}", text)
                path = folder / part / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error
    return written


@dataclass(frozen=True, slots=True)
class RubricCheck:
    """A rubric in each of its languages, and what to look at: ``warnings`` stop nothing.

    ``layouts`` says of each layout and language whether a judge's answers can be read: how many tokens its prompt takes
    before the dialogue, or why they cannot. None where no judge was named.
    """

    rubrics: tuple[Rubric, ...]
    warnings: tuple[str, ...]
    layouts: dict[str, str] | None


def check_rubric(rubric: str | Path, tokenizer: Tokenizer | None = None) -> RubricCheck:
    """Read a rubric in every language that it has, and look for what reading alone lets pass.

    Args:
        rubric: the name of a packaged one, or a folder.
        tokenizer: of the judge that is to use it.

    Raises:
        InputError: it cannot be read, its languages do not rate the same, or the judge can answer in no layout.
    """
    found = [load_rubric(language, rubric) for language in languages(rubric)]
    first = found[0]
    for other in found[1:]:
        if replace(first.scheme, titles={}) != replace(other.scheme, titles={}):
            raise InputError(
                f"{rubric}: {first.language} and {other.language} do not rate the same (metrics, levels, dimensions, "
                "composites, set metric, like); make their rubric.yaml and metrics alike"
            )
    warnings = [*_unused_files(rubric, first), *_of_scheme(first)]
    return RubricCheck(tuple(found), tuple(warnings), None if tokenizer is None else _layouts(found, tokenizer))


def _unused_files(rubric: str | Path, first: Rubric) -> Sequence[str]:
    """Files of the user's that nothing reads."""
    if str(rubric) in packaged():
        return []
    known = {f"{name}.yaml" for name in (*OTHER_FILES, *first.outline.names)}
    there = sorted(path for path in Path(rubric).rglob("*.y*ml") if path.name not in known)
    return [f"{path}: is not named in rubric.yaml, so it is not used" for path in there]


def _of_scheme(rubric: Rubric) -> Sequence[str]:
    """What follows from metrics and levels that a user may not expect."""
    scheme, found = rubric.scheme, []
    if scheme.is_mixed:
        found.append("metrics differ in their levels: means are given only of metrics with the same ones")
    if two := [str(level) for level in scheme.all_levels if level > 9]:
        found.append(f"level {', '.join(two)} has two digits: only a judge that writes it as one token can use it")
    if gaps := [name for name, own in scheme.levels.items() if not is_whole(own)]:
        found.append(f"the levels of {', '.join(gaps)} have gaps, which a reader of the scores has to know")
    return found


def _layouts(rubrics: Sequence[Rubric], tokenizer: Tokenizer) -> dict[str, str]:
    """Of each layout and language how many tokens all prompts share, or why the answers cannot be read.

    InputError where they can be read in none.
    """
    found, refusals = {}, []
    for rubric, layout in product(rubrics, LAYOUTS):
        name = f"{layout} · {rubric.language}" if len(rubrics) > 1 else layout
        try:
            writer = PromptWriter(rubric, tokenizer, layout)
        except InputError as error:
            found[name] = str(error)
            refusals.append(error)
        else:
            found[name] = f"{writer.root_tokens:,} tokens before the dialogue; levels {_written(writer)}"
    if len(refusals) == len(found):
        raise refusals[0]
    return found


def _written(writer: PromptWriter) -> str:
    """The levels as the tokens write that are read for them."""
    by_level = zip(writer.levels, writer.level_ids, strict=True)
    return ", ".join(
        f"{level} ({' '.join(repr(writer.tokenizer.text([one])) for one in ids)})" for level, ids in by_level
    )
