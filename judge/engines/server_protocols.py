"""What a server is asked to complete, and how its answer is read: log-probabilities of one token, or a text.

A vLLM server takes prompts as token ids and answers with them; any other OpenAI-compatible server takes messages and
answers with texts, whose ids are code points (``judge.prompting.safe_tokenizer``).
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
"""So far above 0 a log-probability may be."""


UNREADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What ``Request.read`` raises of an answer that has another shape."""


Value = TypeVar("Value")


Logprobs = dict[int, float]
"""By token id (by code point from a text)."""


@dataclass(frozen=True, slots=True)
class Request(Generic[Value]):
    """What is asked of a server, and ``read``, which takes a value for each prompt from the answer."""

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
        exact = {"logprobs": 0, "logprob_token_ids": tokens, "allowed_token_ids": tokens}
        more = {"max_tokens": 1, **exact, "return_tokens_as_token_ids": True}
        return [self._request(prompts, more, partial(_by_id, frozenset(tokens)))]

    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """Ask what the model writes after a prompt, its likeliest token each time."""
        if not self.takes_ids:
            return self._request([prompt], {"max_tokens": max_tokens}, _text)
        return self._request([prompt], {"max_tokens": max_tokens, "return_token_ids": True}, _token_ids)

    def _request(self, prompts: Sequence[Ids], more: dict[str, Any], read: Callable[[Any], Value]) -> Request[Value]:
        """One request for some prompts; a server that takes messages takes one prompt at a time."""
        body = {"model": self.model, "temperature": 0, **more}
        read_all = partial(_each, len(prompts), read)
        if self.takes_ids:
            return Request("/v1/completions", body | {"prompt": [list(prompt) for prompt in prompts]}, read_all)
        return Request("/v1/chat/completions", body | {"messages": messages(prompts[0])}, read_all)


def _each(count: int, read: Callable[[Any], Value], answer: Any) -> list[Value]:
    choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
    if len(choices) != count:
        raise ValueError(f"{len(choices)} answers to {count} prompts")
    return [read(choice) for choice in choices]


def _by_id(tokens: frozenset[int], choice: Any) -> Logprobs:
    listed = choice["logprobs"]["top_logprobs"][0].items()
    found = _checked({int(name.removeprefix("token_id:")): float(value) for name, value in listed})
    if not tokens <= found.keys():
        raise MissingTokens("the log-probabilities of some levels are missing")
    return found


def _by_text(choice: Any) -> Logprobs:
    """Tokens of one character once blanks are cut off; what two tokens write alike is added up."""
    found: dict[int, list[float]] = {}
    for entry in choice["logprobs"]["content"][0]["top_logprobs"]:
        if len(text := str(entry["token"]).strip()) == 1:
            found.setdefault(ord(text), []).append(float(entry["logprob"]))
    return _checked({token: float(np.logaddexp.reduce(values)) for token, values in found.items()})


def _checked(found: Logprobs) -> Logprobs:
    if any(value > ROUNDING for value in found.values()):
        raise ValueError("a log-probability above 0")
    return found


def _token_ids(choice: Any) -> Ids:
    return tuple(map(int, choice["token_ids"]))


def _text(choice: Any) -> Ids:
    return tuple(map(ord, choice["message"]["content"] or ""))
