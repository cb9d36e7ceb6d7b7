"""Blinding: annotators get dialogues under codes, and only the key says which system and scenario a code stands for.

Here are the tasks and their key, the words that all forms share, and the way back: what annotators entered is checked
against the key and put under the dialogues' names. Nothing that ratings are entered in checks them for us (Label
Studio's server takes a rating of 9), so all of it is checked here. Knows no kind of file but the key's own.
"""

from __future__ import annotations

import json
import math
import random
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from calibration.tables import is_missing, one_spelling, score_of
from judge.errors import InputError, listed, one_line, plain
from judge.files import replacing
from judge.prompting.rubric import Rubric, load_rubric
from judge.types import Dialogue, Scheme, is_whole


@dataclass(frozen=True, slots=True)
class Wording:
    """Our own words of a form."""

    ratings: str
    guide: str
    headings: dict[str, str]
    how: str
    """How to fill in a sheet, with a place for what is written in a cell."""
    refusal: str
    """What is said of a cell that holds no level, with the same place."""
    whole: str
    """What is written in a cell where levels are whole numbers without a gap."""
    listed: str
    """The same where they are not, or differ between metrics."""

    def cell(self, levels: Collection[tuple[int, ...]]) -> str:
        """What is written in a cell, where metrics have these levels."""
        first, *others = dict.fromkeys(levels)
        if others or not is_whole(first):
            return self.listed
        return self.whole.format(low=first[0], high=first[-1])


WORDINGS = {
    "zh": Wording(
        ratings="评分",
        guide="评分标准",
        headings={
            "task": "任务",
            "raters": "需几人评",
            "annotator": "评分者",
            "character": "角色",
            "profile": "角色资料",
            "dialogue": "对话",
        },
        how="每行一段对话。在“评分者”一栏写自己的名字（始终用同一个），各项填{cell}，确实无法判断的留空。"
        "请不要改动“任务”一栏和表头方括号里的字。各人独立评分，评完之前不要互相商量。",
        refusal="请填{cell}，或留空。",
        whole=" {low} 到 {high} 的整数",
        listed="评分标准里为该项列出的级别",
    ),
    "en": Wording(
        ratings="Ratings",
        guide="Guide",
        headings={
            "task": "Task",
            "raters": "Annotators to rate it",
            "annotator": "Annotator",
            "character": "Character",
            "profile": "Profile",
            "dialogue": "Dialogue",
        },
        how="One dialogue a row. Write your name under Annotator (always the same one) and {cell} "
        "under each metric; leave a cell empty where you really cannot tell. Do not change the column Task, nor what "
        "stands in square brackets in the headings. Rate on your own, and do not confer before all is rated.",
        refusal="Write {cell}, or nothing.",
        whole="a whole number from {low} to {high}",
        listed="one of the levels that the guide lists for it",
    ),
}


def wording_of(rubric: Rubric) -> Wording:
    """Our words in the language of a rubric; English where we have none in it."""
    return WORDINGS.get(rubric.language, WORDINGS["en"])


_UNWRITABLE = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, and so neither a workbook nor a labelling configuration."""


def writable(text: str) -> str:
    """Text as XML can hold it: with line feeds, and a replacement character for what has no place there."""
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def speeches(dialogue: Dialogue, rubric: Rubric) -> list[tuple[str, str]]:
    """Who speaks, and what is said, in order."""
    user, character = (name.strip(" :：") for name in (rubric.texts.user, rubric.texts.reply))
    sides = [side for turn in dialogue.turns for side in ((user, turn.user), (character, turn.character))]
    return [(who, text) for who, text in sides if text is not None]


def anchors(rubric: Rubric, metric: str) -> dict[int, str]:
    """What each level of a metric looks like, in a line that begins with the level."""
    texts = rubric.metrics[metric].levels
    return {level: rubric.texts.level.format(level=level, text=texts[level]) for level in sorted(texts)}


CODE_BYTES = 6
"""Random bytes of a code. Nobody can work out a random code, and with so many bytes none comes twice in a plan."""


@dataclass(frozen=True, slots=True)
class Task:
    """One dialogue to be rated, with the chance it was drawn with and how many annotators are to rate it."""

    code: str
    dialogue: Dialogue
    inclusion_probability: float
    raters: int


@dataclass(frozen=True, slots=True)
class Unblinded:
    """What the key says of a task."""

    source: str
    character: str
    scenario: str
    content_digest: str
    inclusion_probability: float
    raters: int


@dataclass(frozen=True, slots=True)
class Key:
    """What is behind the codes of a plan: the metrics that were asked about with their levels, and the tasks by code.

    Earlier versions noted no levels, as all metrics had those of ChatAnime.
    """

    metrics: tuple[str, ...]
    tasks: Mapping[str, Unblinded]
    levels: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: load_rubric().scheme.levels)
    titles: Mapping[str, str] = field(default_factory=dict)
    """What the metrics are called."""


def blind(planned: Iterable[tuple[Dialogue, float, int]]) -> list[Task]:
    """Tasks in a random order, each under a new code.

    A code begins with a letter, so that no spreadsheet takes it for a number. Codes and order come from the operating
    system and not from the plan's random seed, by which an annotator could work out which system a dialogue is of.

    Args:
        planned: dialogues, each with its inclusion probability and how many annotators are to rate it.
    """
    tasks = [Task(f"t{secrets.token_hex(CODE_BYTES)}", *one) for one in planned]
    random.SystemRandom().shuffle(tasks)
    return tasks


def key_of(tasks: Iterable[Task], scheme: Scheme, metrics: Sequence[str]) -> Key:
    """The key of some tasks on some metrics of a rubric."""
    behind = {}
    for task in tasks:
        one = task.dialogue
        names = one.source, one.character, one.scenario, one.content_digest
        behind[task.code] = Unblinded(*names, task.inclusion_probability, task.raters)
    levels = {metric: scheme.levels[metric] for metric in metrics}
    return Key(tuple(metrics), behind, levels, {metric: scheme.titles[metric] for metric in metrics})


def write_key(path: Path, key: Key) -> None:
    """Write a key; an atomic write, as a key in part would lose what its annotators are rating."""
    with replacing(path) as file:
        file.write(json.dumps(asdict(key), ensure_ascii=False, indent=1).encode() + b"\n")


def read_key(path: Path) -> Key:
    """Read a key; InputError where there is none."""
    try:
        return TypeAdapter(Key).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"--key {path}: cannot be read ({error.strerror}); name the key that plan wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = one_line(ValueError(f"{where}: {first['msg']}" if where else first["msg"]))
        raise InputError(f"--key {path}: is not the key of a plan ({problem}); name the one that plan wrote") from error


COLUMNS = ["source", "character", "scenario", "metric", "annotator", "score", "inclusion_probability"]
"""The columns of a table of human ratings as it is written; it is sorted by the first five."""


LONGEST = 60
"""Characters of a cell that a message repeats."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell as it is in a file: who rated which task on which metric how; ``score`` is None where it is empty."""

    place: str
    task: str
    metric: str
    annotator: str
    score: object


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong at a place of a file, and what to do."""

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Aside:
    """Something in a file, in the plural, that is no rating of the plan: it is counted and said, not refused."""

    what: str


Found = Entry | Wrong | Aside
"""What a file with filled-in forms holds."""


@dataclass(frozen=True, slots=True)
class Imported:
    """Ratings under the dialogues' names, and what was not read."""

    ratings: pd.DataFrame
    """A row a rating, columns as in ``COLUMNS``."""
    empty: int
    """How many cells an annotator left empty."""
    notes: tuple[str, ...]
    """What was not read, with counts, and annotators in several spellings: a sentence each."""


def import_entries(found: Iterable[Found], key: Key) -> Imported:
    """The ratings of some files, checked and unblinded, in the order of the dialogues' names.

    Raises:
        InputError: an entry is of no task or metric of the key, has no annotator or no level of the scale, or was given
            twice; all problems are named. Or there is no rating at all.
    """
    # All problems of all files are collected before any is reported, so that one round of corrections is enough.
    everything = list(found)
    problems = [one for one in everything if isinstance(one, Wrong)]
    entries = [one for one in everything if isinstance(one, Entry)]
    asides = Counter(one.what for one in everything if isinstance(one, Aside))
    notes = [f"Not read: {what} ({count:,})." for what, count in asides.items()]
    named = one_spelling([entry.annotator for entry in entries], "Annotator", {}, notes)
    entries = [replace(entry, annotator=name) for entry, name in zip(entries, named, strict=True)]
    given = [entry for entry in entries if not is_missing(entry.score)]
    problems += _wrong(given, key)
    if problems:
        # A damaged record can give the same message for every metric.
        lines = list(dict.fromkeys(plain(f"{one.place}: {one.text}") for one in problems))
        raise InputError(listed(lines))
    if not given:
        raise InputError(" ".join(["no rating in what was given; fill in some first.", *notes]).rstrip("."))
    rows = []
    for entry in given:
        task = key.tasks[entry.task]
        names = task.source, task.character, task.scenario, entry.metric, entry.annotator
        rows.append((*names, level(entry.score, key.levels[entry.metric]), task.inclusion_probability))
    order = {metric: number for number, metric in enumerate(key.metrics)}
    table = pd.DataFrame(rows, columns=COLUMNS).sort_values(
        COLUMNS[:5], key=lambda cells: cells.map(order) if cells.name == "metric" else cells
    )
    # A cell that is empty in one file may be filled in another: there may be a sheet for each metric.
    filled, every = ({(one.task, one.metric, one.annotator) for one in some} for some in (given, entries))
    empty = sum(bool(annotator) for _, _, annotator in every - filled)
    return Imported(table.reset_index(drop=True), empty, tuple(notes))


def level(score: object, levels: Sequence[int]) -> int | None:
    """A cell as one of a metric's levels; None where it is none."""
    number, out_of = score_of(score)
    fits = number in levels and (math.isnan(out_of) or out_of == levels[-1])
    return int(number) if fits else None


def is_empty(cell: object) -> bool:
    """Whether a cell with a name holds nothing."""
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _wrong(given: Iterable[Entry], key: Key) -> Iterator[Wrong]:
    """All that is wrong with ratings, each with its remedy.

    An annotator who rates a dialogue twice is a problem even where both ratings are the same: one of them may stand in
    a file that somebody else should have filled in.
    """
    first: dict[tuple[str, str, str], str] = {}
    for entry in given:
        task, metric, problems = _quoted(entry.task), _quoted(entry.metric), []
        if entry.task not in key.tasks:
            problems.append(f"task {task} is not of this plan; take it out, or give the key it was made with")
        if entry.metric not in key.metrics:
            problems.append(f"metric {metric} is not of this plan (its are {', '.join(key.metrics)}); take it out")
        if not entry.annotator:
            problems.append(f"task {task} is rated, but no annotator is named; write who rated it")
        levels = key.levels.get(entry.metric, ())
        if levels and level(entry.score, levels) is None:
            known = f"{levels[0]} to {levels[-1]}" if is_whole(levels) else ", ".join(map(str, levels))
            wanted = f"not one of {known}; correct it or leave it empty"
            problems.append(f"metric {metric} is {_quoted(entry.score)}, {wanted}")
        cell = entry.task, entry.metric, entry.annotator
        if cell in first:
            who = f"annotator {_quoted(entry.annotator)} rated task {task}"
            problems.append(f"{who} already at {first[cell]}; keep one of the two")
        first.setdefault(cell, entry.place)
        yield from (Wrong(entry.place, problem) for problem in problems)


def _quoted(value: object) -> str:
    """A cell as a message has it: not longer than anyone reads."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
