"""Servers of decisions: typed questions about a material in, the probability of each answer out, no text.

Each metric is a question of the type ``score``: its definition is the question, its anchors are the levels, the
dialogue is the material. What prompt a server makes of them is its own, so such a judge has the layout ``decision``.
Levels are counted from 0 there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from judge.engines.server_protocols import (
    REFUSED,
    UNREADABLE,
    Ask,
    Logprobs,
    Protocol,
    Request,
    answer_of,
    as_many,
    said,
    told,
)
from judge.errors import InputError
from judge.prompting.message_tokenizer import question, texts
from judge.prompting.prompt_tree import DECISION, Ids, PromptTree

Probabilities = dict[int, float]
"""The probability of each level of a question by its number, from 0."""


Answered = list[tuple[Probabilities | None, float | None]]
"""For each question the probabilities and the label mass; None for a refusal, and for a mass that is not told."""


@dataclass(frozen=True)
class Decisions(Protocol):
    """What the two protocols share. ``knows_mass``: whether this server tells how much probability the labels had."""

    exact = "the probabilities of the levels among themselves"
    inexact = "the prompt, which is the server's own; which weights stand behind the model's name"
    takes_ids = False
    writes = False
    layouts: ClassVar[tuple[str, ...]] = (DECISION,)

    knows_mass: bool = False

    @abstractmethod
    def _asked(self, material: str, questions: Sequence[tuple[str, list[str]]]) -> tuple[str, dict[str, Any]]:
        """The path and body that ask some questions, each with its levels, about a material."""

    @abstractmethod
    def _answered(self, answer: Any, count: int) -> Answered:
        """What the server answers to so many questions."""

    def levels(self, tree: PromptTree, level_ids: Sequence[Ids]) -> Iterator[Request[Logprobs]]:
        """See ``Protocol.levels``: one request for all leaves. Without a label mass the levels sum to 1."""
        material = texts(tree.root + tree.character + tree.opening + tree.dialogue)
        asked = [question(leaf) for leaf in tree.leaves]
        path, body = self._asked(
            material, [(instructions, [text for _, text in anchors]) for instructions, anchors in asked]
        )

        def read(answer: Any) -> list[Logprobs]:
            found = self._answered(answer, len(asked))
            return [
                self._by_digit([digit for digit, _ in anchors], probabilities, mass)
                for (_, anchors), (probabilities, mass) in zip(asked, found, strict=True)
            ]

        yield Request(path, body, read)

    def _by_digit(self, digits: Sequence[str], probabilities: Probabilities | None, mass: float | None) -> Logprobs:
        """Log-probabilities by the code points of the levels' digits; no numbers where the server refused."""
        if probabilities is None:
            return dict.fromkeys(map(ord, digits), float("nan"))
        if (mass is not None) is not self.knows_mass:
            raise ValueError("a label mass that is told only now and then")
        values = [probabilities[place] for place in range(len(digits))]
        if len(probabilities) != len(digits) or min(values) < 0 or not np.isclose(sum(values), 1.0, atol=1e-2):
            raise ValueError("probabilities that are none")
        with np.errstate(divide="ignore"):
            logs = np.log(np.array(values) * (1.0 if mass is None else mass))
        return dict(zip(map(ord, digits), logs.tolist(), strict=True))

    def by_level(self, logprobs: Logprobs, level_ids: Sequence[Ids]) -> Any:
        """See ``Protocol.by_level``; a level has one label here, and a question need not have every level."""
        return np.array([logprobs.get(ids[0], -np.inf) for ids in level_ids])

    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """Never asked for: such servers write no text."""
        raise NotImplementedError(self.name)

    def tried(self, ask: Ask) -> tuple[Protocol, Request[Any]]:
        """See ``Protocol.tried``."""
        path, body = self._asked("1", [("1?", ["no", "yes"])])
        asked = Request(path, body, lambda answer: self._answered(answer, 1))
        response = ask(asked)
        if response.status_code in REFUSED:
            said_so = f"HTTP {response.status_code}: {said(response)}"
            raise InputError(
                f"answers no decisions at {path} ({said_so}); leave out --protocol, or serve the model by vLLM"
            )
        try:
            ((probabilities, mass),) = asked.read(answer_of(response.raise_for_status()))
        except UNREADABLE as error:
            raise InputError(
                f"answers no decisions at {path}{told(error)}; leave out --protocol, or serve the model by vLLM"
            ) from error
        if probabilities is None:
            raise InputError(f"refuses a question at {path}, so it cannot be a judge; have it serve another model")
        return replace(self, knows_mass=mass is not None), asked


@dataclass(frozen=True)
class SystemOne(Decisions):
    """``/v1/systemone`` of vLLM 0.32, SGLang 0.5, llama.cpp, Ollama 0.35; the first two tell the label mass."""

    name = "systemone"

    def _asked(self, material: str, questions: Sequence[tuple[str, list[str]]]) -> tuple[str, dict[str, Any]]:
        asked = {
            str(number): {"type": "score", "instructions": instructions, "criteria": levels}
            for number, (instructions, levels) in enumerate(questions)
        }
        return "/v1/systemone", {"model": self.model, "state": material, "questions": asked}

    def _answered(self, answer: Any, count: int) -> Answered:
        found: Answered = []
        for number in map(str, range(count)):
            one = answer["answers"][number]
            mass = (answer.get("diagnostics") or {}).get(number, {}).get("label_mass", one.get("x_label_mass"))
            probabilities = {int(level): float(p) for level, p in one["probabilities"].items()}
            found.append((probabilities, None if mass is None else float(mass)))
        return found


@dataclass(frozen=True)
class OpenAIDecisions(Decisions):
    """``/v1/decisions`` as OpenAI has it (beta, autumn 2026): answers in the order of the questions, no label mass."""

    name = "decisions"

    def _asked(self, material: str, questions: Sequence[tuple[str, list[str]]]) -> tuple[str, dict[str, Any]]:
        asked = [
            {
                "type": "score",
                "name": str(number),
                "instructions": instructions,
                "levels": [{"label": str(level), "description": text} for level, text in enumerate(levels)],
            }
            for number, (instructions, levels) in enumerate(questions)
        ]
        return "/v1/decisions", {"model": self.model, "input": material, "questions": asked}

    def _answered(self, answer: Any, count: int) -> Answered:
        answers = as_many(answer["answers"], range(count))
        return [
            (None, None)
            if one["type"] == "refusal"
            else ({int(level["label"]): float(level["probability"]) for level in one["probabilities"]}, None)
            for one in answers
        ]
