"""Which family of models a name belongs to: judges tend to favour their own (Panickssery et al. 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable

FAMILIES = {
    "Qwen": ("qwen", "qwq", "tongyi", "xingchen"),
    "DeepSeek": ("deepseek",),
    "GLM": ("glm", "chatglm", "charglm"),
    "GPT": ("gpt", "o1", "o3", "o4", "chatgpt"),
    "Claude": ("claude",),
    "Gemini": ("gemini", "gemma"),
    "Doubao": ("doubao", "seed"),
    "MiniMax": ("minimax", "abab"),
    "Llama": ("llama",),
    "Mistral": ("mistral", "mixtral"),
    "InternLM": ("internlm",),
    "Baichuan": ("baichuan",),
    "ERNIE": ("ernie",),
    "Hunyuan": ("hunyuan",),
    "Kimi": ("kimi", "moonshot"),
    "Yi": ("yi",),
}
"""Families by the words their models' names begin with."""


def family(name: str) -> str | None:
    """The family of a model's name, a preset, a Hub id or a source; None where the name tells of none."""
    words = re.findall(r"[a-z]+\d?", name.lower())
    found = (key for word in words for key, starts in FAMILIES.items() if any(_is_of(word, start) for start in starts))
    return next(found, None)


def same_family(judge: str, sources: Iterable[str]) -> tuple[str, ...]:
    """The sources that are of a judge's family."""
    own = family(judge)
    return tuple(source for source in sources if own is not None and family(source) == own)


def _is_of(word: str, start: str) -> bool:
    """A short name is a whole word (``yi``, ``o1``), a longer one may begin one (``qwen3``, ``chatglm``)."""
    return word == start or word.rstrip("0123456789") == start or (len(start) > 3 and word.startswith(start))
