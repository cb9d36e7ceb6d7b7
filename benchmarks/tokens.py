"""How many tokens have to be computed at all: what a set of prompts has in common counts once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer


def unique_tokens(prompts: Iterable[Sequence[int]]) -> int:
    """The number of different non-empty beginnings of the prompts: the nodes of their trie, its root aside.

    In sorted order a prompt shares most with the one before it, so only what goes beyond that is new.
    """
    ordered = sorted(map(tuple, prompts))
    first = len(ordered[0]) if ordered else 0
    return first + sum(len(prompt) - _shared(before, prompt) for before, prompt in pairwise(ordered))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common beginning, by halving, as comparing slices is much faster than a loop."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Requests:
    """Counts the tokens of the prompts in recorded chat requests, as the server's chat template writes them."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)

    def counts(self, record: Path) -> dict[str, int]:
        """How many requests a record holds, and the unique tokens of their prompts."""
        lines = record.read_text(encoding="utf-8").splitlines()
        prompts = [self._ids(json.loads(line)) for line in lines]
        return {
            "requests": len(prompts),
            "recorded_tokens": sum(map(len, prompts)),
            "unique_tokens": unique_tokens(prompts),
        }

    def _ids(self, request: dict[str, Any]) -> list[int]:
        """The token ids of a request's prompt, by the model's chat template."""
        messages = []
        for message in request["messages"]:
            content = message["content"]  # a text, or a list of parts
            text = content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)
            messages.append({**message, "content": text})
        rendered = self._tokenizer.apply_chat_template(
            messages, tools=request.get("tools"), add_generation_prompt=True, tokenize=False
        )
        return list(self._tokenizer.encode(rendered, add_special_tokens=False))
