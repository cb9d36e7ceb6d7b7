"""A rubric a tenth as long as the packaged one, for tests in which the length of a prompt is not the point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from judge import Options
from tests.helpers.chatanime import DIMENSIONS, RESPONSE_DIVERSITY

ByStandIn = Callable[..., Options]
"""``by_stand_in(run, **more)``: options of a run by the stand-in with this rubric; see the fixture of that name."""

ZH = {
    "rules": "请评分。",
    "rubrics": "标准",
    "level": "{level}：{text}",
    "dimensions": {"basic_dialogue": "对话", "role_playing": "扮演", "emotional_support": "支持"},
    "dimension": "{dimension}",
    "character": "角色",
    "profile": "资料",
    "dialogue": "对话",
    "turn": "{number}",
    "user": "问：",
    "reply": "答：",
    "answers": "回答",
    "answer": "{number}：",
    "closing": "以上是材料。",
    "instruction": "请打分。",
    "single": "只写一个数。",
    "before_level": "第 ",
}
EN = {
    "rules": "Rate.",
    "rubrics": "Criteria",
    "level": "{level}: {text}",
    "dimensions": {"basic_dialogue": "Dialogue", "role_playing": "Role", "emotional_support": "Support"},
    "dimension": "{dimension}",
    "character": "Role",
    "profile": "Profile",
    "dialogue": "Dialogue",
    "turn": "{number}",
    "user": "User: ",
    "reply": "Reply: ",
    "answers": "Answers",
    "answer": "{number}: ",
    "closing": "This is material.",
    "instruction": "Rate now.",
    "single": "One number.",
}
TITLES = {
    "fluency": "流畅性",
    "coherency": "连贯性",
    "consistency": "一致性",
    "character_knowledge": "角色知识",
    "speech_style": "语言风格",
    "behavioral_habit": "行为习惯",
    "emotional_value": "情绪价值",
    "demand_matching": "需求匹配",
    "experience_sharing": "经历分享",
    RESPONSE_DIVERSITY: "多样性",
}
DIMENSION = {metric: dimension for dimension, metrics in DIMENSIONS.items() for metric in metrics}
LEVELS = dict(enumerate("差弱中良优", 1))


def write_short_rubric(folder: Path) -> Path:
    """A folder in the shape of ``prompts``, for ``--prompts`` and ``Options(prompts=…)``."""
    for language, texts in (("zh", ZH), ("en", EN)):
        home = folder / language
        home.mkdir(parents=True)
        _write(home / "system.yaml", texts)
        for name, title in TITLES.items():
            _write(home / f"{name}.yaml", _metric(name, title if language == "zh" else name))
    return folder


def _metric(name: str, title: str) -> dict[str, object]:
    return {
        "id": name,
        "dimension": DIMENSION.get(name, name),
        "title": title,
        "definition": f"{title}。",
        "levels": LEVELS,
        "question": f"{title}？",
        "answer": f"{title}：",
    }


def _write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
