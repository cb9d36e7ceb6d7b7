"""Requests to a server and how their answers are read: log-probabilities of one token, or a text. Sends nothing.

A vLLM server takes prompts as token ids and answers with token ids. Any other OpenAI-compatible server takes messages
and answers with texts, in which characters stand for tokens: an id is a code point (see
``judge.prompting.message_tokenizer``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from judge.prompting.message_tokenizer import messages
from judge.prompting.prompt_tree import Ids

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


THOUGHTS = ("<think", "<|channel|>", "<|think", "<thought")
"""How the token begins that opens a thought, or a channel for one."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a server of messages lets itself be asked: what it refuses of the first manner is found by trying.

    ``limit`` is its name for the most tokens, ``tokens`` the fewest that it writes, ``listed`` how many likely tokens
    it lists. ``temperature`` says whether 0 may be asked for, ``system`` whether there may be a message of that role,
    ``thinking`` whether chat templates may be told not to open a thought.
    """

    limit: str = "max_tokens"
    tokens: int = 1
    listed: int = 20
    temperature: bool = True
    system: bool = True
    thinking: bool = True

    def after(self, refusal: str) -> Manner | None:
        """The manner to try next, by the words in which a server refused this one; None where none is left."""
        said = refusal.lower()
        changes: dict[str, dict[str, Any]] = {
            "max_completion_tokens": {"limit": "max_completion_tokens"},
            "top_logprobs": {"listed": 5},
            "temperature": {"temperature": False},
            "system": {"system": False},
            "minimum": {"tokens": FEWEST},
            "at least": {"tokens": FEWEST},
            "": {"thinking": False},  # the one field that is in no description of this protocol
        }
        tried = (replace(self, **change) for word, change in changes.items() if word in said)
        return next((manner for manner in tried if manner != self), None)

    def body(self, prompt: Ids, tokens: int) -> dict[str, Any]:
        """What every request says: the messages, and how many tokens are to be written at most."""
        asked = messages(prompt)
        if not self.system:
            asked = [{"role": "user", "content": "\n\n".join(message["content"] for message in asked)}]
        return {
            "messages": asked,
            self.limit: max(tokens, self.tokens),
            **({"temperature": 0} if self.temperature else {}),
            **({"chat_template_kwargs": {"enable_thinking": False}} if self.thinking else {}),
        }


FEWEST = 16
"""The tokens that are asked for where a server writes no single one."""


@dataclass(frozen=True, slots=True)
class Completions:
    """What the model of a server can be asked; ``takes_ids`` says whether prompts are token ids or messages."""

    model: str
    takes_ids: bool
    manner: Manner

    def levels(self, prompts: Sequence[Ids], level_ids: Sequence[Ids]) -> list[Request[Logprobs]]:
        """Ask for one token after each prompt, and the log-probabilities of the levels' tokens or of the likeliest.

        ``read`` raises ``MissingTokens`` where tokens can be named and do not all come back.
        """
        if not self.takes_ids:
            listed = {"logprobs": True, "top_logprobs": self.manner.listed}
            return [self._request([prompt], self.manner.body(prompt, 1) | listed, _by_text) for prompt in prompts]
        tokens = [token for ids in level_ids for token in ids]
        # `logprob_token_ids` has the tokens' log-probabilities over the whole vocabulary returned, whether they are
        # likely or not; `allowed_token_ids` keeps any other token from being written and listed.
        exact = {"logprobs": 0, "logprob_token_ids": tokens, "allowed_token_ids": tokens}
        more = {"max_tokens": 1, "temperature": 0, **exact, "return_tokens_as_token_ids": True}
        return [self._request(prompts, more, partial(_by_id, frozenset(tokens)))]

    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """Ask what the model writes after a prompt, its likeliest token each time."""
        if not self.takes_ids:
            more = self.manner.body(prompt, max_tokens)
            return self._request([prompt], more, lambda choice: tuple(map(ord, choice["message"]["content"] or "")))
        more = {"max_tokens": max_tokens, "temperature": 0, "return_token_ids": True}
        return self._request([prompt], more, lambda choice: tuple(map(int, choice["token_ids"])))

    def _request(self, prompts: Sequence[Ids], more: dict[str, Any], read: Callable[[Any], Value]) -> Request[Value]:
        """One request for some prompts; a server that takes messages takes one prompt at a time."""

        def read_all(answer: Any) -> list[Value]:
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            if len(choices) != len(prompts):
                raise ValueError(f"{len(choices)} answers to {len(prompts)} prompts")
            return [read(choice) for choice in choices]

        body = {"model": self.model, **more}
        if self.takes_ids:
            return Request("/v1/completions", body | {"prompt": [list(prompt) for prompt in prompts]}, read_all)
        return Request("/v1/chat/completions", body, read_all)


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
        if len(text := _text(entry).strip(BLANKS)) == 1:
            found.setdefault(ord(text), []).append(float(entry["logprob"]))
    return _checked({token: float(np.logaddexp.reduce(values)) for token, values in found.items()})


BLANKS = " \t\r\n\u3000\u2581\u0120\u010a"
"""What may stand before a digit: blanks, and how tokenizers spell a blank (``▁``, ``Ġ``) and a line break (``Ċ``)."""


def first_token(answer: Any) -> str:
    """The text of the token that a server of messages wrote first; empty where it says what was likely alone."""
    return _text({"token": "", **answer["choices"][0]["logprobs"]["content"][0]})


def _text(entry: Any) -> str:
    """The text of a listed token: of its bytes, where a server gives them, as its name may be spelt in any way."""
    given = entry.get("bytes")
    return bytes(given).decode("utf-8", "replace") if given else str(entry["token"])


def _checked(found: Logprobs) -> Logprobs:
    """The same log-probabilities; ValueError where one is above 0, as the answer then has something else there."""
    if any(value > ROUNDING for value in found.values()):
        raise ValueError("a log-probability above 0")
    return found
