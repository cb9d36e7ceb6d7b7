"""Requests to a server and how their answers are read: log-probabilities of one token, or a text. Sends nothing.

A vLLM server takes prompts as token ids and answers with token ids. Any other OpenAI-compatible server takes messages
and answers with texts, in which characters stand for tokens: an id is a code point (see
``judge.prompting.safe_tokenizer``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from judge.prompting.prompt_tree import Ids
from judge.prompting.safe_tokenizer import messages

ROUNDING = 1e-3
"""How far above 0 a log-probability may be: servers round."""


UNREADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What ``Request.read`` raises where the answer has another shape."""


Value = TypeVar("Value")


Logprobs = dict[int, float]
"""Log-probabilities by token id, or by code point from a server that answers with texts."""


@dataclass(frozen=True, slots=True)
class Request(Generic[Value]):
    """A request: the path after the server's address, the JSON body, and how the answer is read.

    ``read`` takes the answer's JSON and returns a value for each prompt. It raises one of ``UNREADABLE`` where the
    answer has another shape.
    """

    path: str
    body: dict[str, Any]
    read: Callable[[Any], list[Value]]


class MissingTokens(ValueError):
    """An answer lacks the log-probabilities of tokens that were named."""


@dataclass(frozen=True, slots=True)
class Completions:
    """What the model of a server can be asked; ``takes_ids`` says whether prompts are token ids or messages."""

    model: str
    takes_ids: bool

    def levels(self, prompts: Sequence[Ids], level_ids: Sequence[Ids]) -> list[Request[Logprobs]]:
        """Ask for one token after each prompt, and the log-probabilities of the levels' tokens or of the likeliest.

        ``read`` raises ``MissingTokens`` where tokens can be named and do not all come back.
        """
        if not self.takes_ids:
            more: dict[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
            return [self._request([prompt], more, _by_text) for prompt in prompts]
        tokens = [token for ids in level_ids for token in ids]
        # `logprob_token_ids` has the tokens' log-probabilities over the whole vocabulary returned, whether they are
        # likely or not; `allowed_token_ids` keeps any other token from being written and listed.
        exact = {"logprobs": 0, "logprob_token_ids": tokens, "allowed_token_ids": tokens}
        more = {"max_tokens": 1, **exact, "return_tokens_as_token_ids": True}
        return [self._request(prompts, more, partial(_by_id, frozenset(tokens)))]

    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """Ask what the model writes after a prompt, its likeliest token each time."""
        if not self.takes_ids:
            more: dict[str, Any] = {"max_tokens": max_tokens}
            return self._request([prompt], more, lambda choice: tuple(map(ord, choice["message"]["content"] or "")))
        more = {"max_tokens": max_tokens, "return_token_ids": True}
        return self._request([prompt], more, lambda choice: tuple(map(int, choice["token_ids"])))

    def _request(self, prompts: Sequence[Ids], more: dict[str, Any], read: Callable[[Any], Value]) -> Request[Value]:
        """One request for some prompts; a server that takes messages takes one prompt at a time."""

        def read_all(answer: Any) -> list[Value]:
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            if len(choices) != len(prompts):
                raise ValueError(f"{len(choices)} answers to {len(prompts)} prompts")
            return [read(choice) for choice in choices]

        body = {"model": self.model, "temperature": 0, **more}
        if self.takes_ids:
            return Request("/v1/completions", body | {"prompt": [list(prompt) for prompt in prompts]}, read_all)
        return Request("/v1/chat/completions", body | {"messages": messages(prompts[0])}, read_all)


def _by_id(tokens: frozenset[int], choice: Any) -> Logprobs:
    """The log-probabilities of ``tokens`` in one answer; ``MissingTokens`` where one did not come back."""
    listed = choice["logprobs"]["top_logprobs"][0].items()
    found = _checked({int(name.removeprefix("token_id:")): float(value) for name, value in listed})
    if not tokens <= found.keys():
        raise MissingTokens("the log-probabilities of some levels are missing")
    return found


def _by_text(choice: Any) -> Logprobs:
    """The log-probabilities in one answer of those of the likeliest tokens that are one character, but for blanks.

    Several tokens may be the same character (``4`` and `` 4``); their probabilities are added.
    """
    found: dict[int, list[float]] = {}
    for entry in choice["logprobs"]["content"][0]["top_logprobs"]:
        if len(text := str(entry["token"]).strip()) == 1:
            found.setdefault(ord(text), []).append(float(entry["logprob"]))
    return _checked({token: float(np.logaddexp.reduce(values)) for token, values in found.items()})


def _checked(found: Logprobs) -> Logprobs:
    """The same log-probabilities; ValueError where one is above 0, as the answer then has something else there."""
    if any(value > ROUNDING for value in found.values()):
        raise ValueError("a log-probability above 0")
    return found
