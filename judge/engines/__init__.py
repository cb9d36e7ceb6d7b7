"""What turns prompt trees into log-probabilities of the levels: one protocol, one module an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from judge.errors import EngineError
from judge.prompting.prompt_tree import Ids, PromptTree

Array = NDArray[np.float64]


PATIENCE_S = 300.0
"""Seconds for which an engine is waited for that fails or is silent."""


Answer = Array | str
"""Log-probabilities, or the error that stands for them."""


Text = Ids | str
"""The ids of a text in the tokenizer that wrote its prompt, or the error that stands for it."""


class Engine(Protocol):
    """A model that answers prompt trees."""

    window: int
    """How many dialogues it takes together at best; what is judged together is written, or lost, together."""
    max_tokens: int
    """The longest prompt it takes."""

    @property
    def report(self) -> dict[str, Any]:
        """How it went so far, for the manifest: ``name`` and what the engine counts."""
        ...

    def verify(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> None:
        """Check on a few trees that the engine scores this model rightly; where it does not, score in a surer way."""
        ...

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> Sequence[Answer]:
        """For each tree, shape (leaves, 5): log of the probability of each level's tokens, summed, at each leaf.

        Where one tree cannot be answered and others can, the error of its judgments: ``TOO_LONG``, ``ENGINE_FAILED``.

        Raises:
            EngineError: the model or the machine failed.
        """
        ...

    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> Sequence[Sequence[Text]]:
        """For each tree, what the model writes at each leaf: its likeliest token each time, at most ``max_tokens``.

        The prompts must leave room for them. What cannot be answered is its error, as in ``level_logprobs``.

        Raises:
            EngineError: the model or the machine failed.
        """
        ...


def by_level(logprobs: Mapping[int, float], level_ids: Sequence[Ids]) -> Array:
    """Log-probability of each level, shape (5,), from those of its tokens.

    Raises:
        EngineError: that of a token is not there.
    """
    try:
        return np.array([np.logaddexp.reduce([logprobs[token] for token in ids]) for ids in level_ids])
    except KeyError as error:
        raise EngineError(f"no log-probability came back for token {error}, which writes a level") from error
