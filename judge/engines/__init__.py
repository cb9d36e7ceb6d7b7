"""What turns prompt trees into log-probabilities of the levels: one protocol, one module an engine.

``packed`` runs a model of transformers in this process, ``vllm`` runs vLLM on this machine, ``server`` asks a
server. Engines know token ids and nothing of dialogues, rubrics or judgments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from judge.errors import EngineError
from judge.prompting.prompt_tree import Ids, PromptTree

Array = NDArray[np.float64]


PATIENCE_S = 300.0
"""Seconds for which a failing or silent engine is waited for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands where an engine has no answer to one tree although it answers others.

    ``reason`` becomes the ``error`` of the tree's judgments: ``TOO_LONG``, ``CONTENT_FILTER`` or ``ENGINE_FAILED``.
    ``detail`` is what the engine said, where it said something.
    """

    reason: str
    detail: str = field(default="", compare=False)


Answer = Array | Failure
"""Log-probabilities of the levels, shape (leaves, levels), or why there are none."""


Text = Ids | Failure
"""The ids of a text in the tokenizer that wrote its prompt, or why there is none."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: ``temperature`` 0 is the likeliest each time, ``top_p`` the share that is drawn from.

    Equal seeds give equal texts, up to what batching does to the last bits of a probability.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()
"""The likeliest token each time."""


class Writer(Protocol):
    """A model in this process that writes texts."""

    window: int
    """How many prompts it takes together at best."""
    max_tokens: int
    """The longest prompt it takes, in tokens."""

    def write(self, prompts: Sequence[Ids], samplings: Sequence[Sampling], max_tokens: int) -> Sequence[Ids]:
        """What the model writes after each prompt, at most ``max_tokens``, each by its own sampling.

        What is written ends with the token that ends it, where there is one. The prompts must leave room.

        Raises:
            EngineError: the model or the machine failed.
        """
        ...


Rows = list[list[float]]
"""Log-probabilities of the levels as plain numbers, a row a leaf."""


class AnswerLog(Protocol):
    """Keeps a server's answers as they come, so that none is asked for again after the work was cut short."""

    def get(self, key: str) -> Rows | None:
        """What was answered to the request with this key; None where that is not known."""
        ...

    def read(self, key: str) -> int | None:
        """How many tokens of that request the server said that it read; None where that is not known."""
        ...

    def add(self, key: str, rows: Rows, read: int | None = None) -> None:
        """Keep an answer: from now on a killed process loses it no more."""
        ...

    def take_back(self, read: int) -> None:
        """Forget the answers to requests of which the server read so many tokens or more."""
        ...

    def sync(self) -> None:
        """Have what was kept survive the machine too."""
        ...


class Engine(Protocol):
    """A model that answers prompt trees."""

    window: int
    """How many dialogues it takes together at best; what is judged together is written, or lost, together."""
    max_tokens: int
    """The longest prompt it takes, in tokens."""

    @property
    def name(self) -> str:
        """How it scores: ``packed``, ``forked`` or ``plain`` with why it is not a faster one, ``vllm``, ``server``."""
        ...

    @property
    def report(self) -> dict[str, Any]:
        """How it went so far, for the manifest: ``name`` and what the engine counts."""
        ...

    on_progress: Callable[[int], None]
    """Is called while ``level_logprobs`` works, each time with the number of leaves that were answered since."""

    def verify(self, tree: PromptTree) -> None:
        """Check on a tree that the engine scores this model correctly; if not, use its slower, safe method."""
        ...

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> Sequence[Answer]:
        """For each tree, shape (leaves, levels): the natural log of each level's probability at each leaf.

        Probabilities are over the whole vocabulary. That of a level is summed over the tokens that write it
        (``level_ids``, one tuple a level).

        Raises:
            EngineError: the model or the machine failed.
        """
        ...

    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> Sequence[Sequence[Text]]:
        """For each tree, what the model writes at each leaf: the likeliest token each time, at most ``max_tokens``.

        The prompts must leave room for them.

        Raises:
            EngineError: the model or the machine failed.
        """
        ...


def silent(leaves: int) -> None:
    """Stands for ``Engine.on_progress`` where nobody listens."""


def by_level(logprobs: Mapping[int, float], level_ids: Sequence[Ids]) -> Array:
    """Log-probability of each level, shape (levels,): the log-sum-exp over its tokens.

    Raises:
        EngineError: the log-probability of a token is missing.
    """
    try:
        with np.errstate(invalid="ignore"):  # what a model or a server says may be no number, which is seen later
            return np.array([np.logaddexp.reduce([logprobs[token] for token in ids]) for ids in level_ids])
    except KeyError as error:
        raise EngineError(f"no log-probability came back for token {error}, which writes a level") from error
