"""What annotators are told, in the rubric's language: the headings of a form, and how to fill it in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from judge.rubric import Rubric
from judge.types import LEVELS, Dialogue


@dataclass(frozen=True, slots=True)
class Wording:
    """Our own words of a form."""

    ratings: str
    guide: str
    headings: dict[str, str]
    how: str
    """How to fill in a sheet."""
    refusal: str
    """What is said of a cell that holds no level."""


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
        how="每行一段对话。在“评分者”一栏写自己的名字（始终用同一个），各项填 1 到 5 的整数，确实无法判断的留空。"
        "请不要改动“任务”一栏和表头方括号里的字。各人独立评分，评完之前不要互相商量。",
        refusal="请填 1 到 5 的整数，或留空。",
    ),
    "en": Wording(
        ratings="Ratings",
        guide="Guide",
        headings={
            "task": "Task",
            "raters": "People to rate it",
            "annotator": "Annotator",
            "character": "Character",
            "profile": "Profile",
            "dialogue": "Dialogue",
        },
        how="One dialogue a row. Write your name under Annotator (always the same one) and a whole number from 1 to 5 "
        "under each metric; leave a cell empty where you really cannot tell. Do not change the column Task, nor what "
        "stands in square brackets in the headings. Rate on your own, and do not confer before all is rated.",
        refusal="A whole number from 1 to 5, or nothing.",
    ),
}
_UNWRITABLE = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, and so neither a workbook nor a labelling configuration."""


def writable(text: str) -> str:
    """Text as XML can hold it: with line feeds, and a replacement character for what has no place there."""
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def speeches(dialogue: Dialogue, rubric: Rubric) -> list[tuple[str, str]]:
    """Who speaks, and what is said, in order."""
    user, character = (name.strip(" :：") for name in (rubric.texts.user, rubric.texts.reply))
    return [speech for turn in dialogue.turns for speech in ((user, turn.user), (character, turn.character))]


def anchors(rubric: Rubric, metric: str) -> dict[int, str]:
    """What each level of a metric looks like, in a line that begins with the level."""
    texts = rubric.metrics[metric].levels
    return {level: rubric.texts.level.format(level=level, text=texts[level]) for level in LEVELS}
