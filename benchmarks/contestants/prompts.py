"""The project's own prompts for contestants that take token ids, and the scores read off their answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.task import Conversation
from benchmarks.tokens import unique_tokens
from judge.engines import Array
from judge.prompting.prompt_tree import PromptTree, PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.scoring.judge import judgment
from judge.types import Dialogue, Turn


class Prompts:
    """Writes prompts in one of the project's layouts, and keeps the last ones to count their tokens."""

    def __init__(self, model: str, layout: str = "prefill") -> None:
        self._writer = PromptWriter(load_rubric(), JudgeTokenizer(Path(model)), layout)
        self.level_ids = self._writer.level_ids
        self._last: list[PromptTree] = []

    def trees(self, conversations: Sequence[Conversation]) -> list[PromptTree]:
        """A tree for each dialogue, with a leaf for each metric."""
        metrics = self._writer.rubric.scheme.metrics
        self._last = [self._writer.dialogue(_dialogue(conversation), metrics) for conversation in conversations]
        return self._last

    def counts(self) -> dict[str, Any]:
        """How many tokens the last prompts have, each in full, and together."""
        prompts = every_prompt(self._last)
        return {"prompt_tokens": sum(map(len, prompts)), "unique_tokens": unique_tokens(prompts)}


def every_prompt(trees: Sequence[PromptTree]) -> list[tuple[int, ...]]:
    """The prompts of all leaves, a tree's together."""
    return [prompt for tree in trees for prompt in tree.prompts]


def scores(logprobs: Sequence[Array]) -> list[float | None]:
    """The score of each leaf from the levels' log-probabilities, shape (leaves, 5) a tree."""
    return [judgment(leaf[np.newaxis]).score for tree in logprobs for leaf in tree]


def _dialogue(conversation: Conversation) -> Dialogue:
    turns = tuple(Turn(user, character) for user, character in conversation.turns)
    return Dialogue(conversation.source, conversation.character, conversation.scenario, turns)
