"""How a server is asked for levels and texts, and how its answers are read; sends nothing itself.

Here is what all protocols share, and those of servers that take token ids as vLLM and SGLang do. The others are in
``judge.engines.llama_cpp``, ``judge.engines.message_protocols`` and ``judge.engines.decision_protocols``; which of them
a server speaks is found by ``judge.engines.served_model``.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import httpx

from judge.engines import Array, by_level
from judge.errors import InputError, discreet, flat
from judge.prompting.prompt_tree import LAYOUTS, Ids, PromptTree
from judge.types import CONTENT_FILTER, TOO_LONG, digest

ROUNDING = 1e-3
"""How far above 0 a log-probability may be: servers round."""


UNREADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What ``Request.read`` raises where the answer has another shape."""


REFUSED = frozenset({400, 413, 422})
"""HTTP status codes that find fault with the request itself."""


BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP status codes of failures that may pass, so that another try is worth it."""


ABSENT = frozenset({404, 405, 501})
"""HTTP status codes of a server that has no such route, or no model for it."""


Value = TypeVar("Value")


Logprobs = dict[int, float]
"""Log-probabilities by token id, or by code point from a server that answers with texts."""


FILTERED = re.compile(
    r"content[ _-]?(filter|management|policy|moderation)|data[ _]?inspection|(inappropriate|sensitive|risky) content",
    re.I,
)
"""How servers say that a filter refused a request."""


WITHHELD = frozenset({CONTENT_FILTER, "sensitive", "safety"})
"""How servers name the end of an answer that a filter withholds."""


def fault_of(response: httpx.Response) -> str | None:
    """What is wrong with a prompt that a server refuses, where it says so: a filter, or the length."""
    if FILTERED.search(response.text):
        return CONTENT_FILTER
    return TOO_LONG if "context" in said(response) else None


@dataclass(frozen=True, slots=True)
class Request(Generic[Value]):
    """A request: the path after the server's address, the JSON body, and how the answer is read.

    ``read`` takes the answer's JSON and returns a value for each prompt. It raises one of ``UNREADABLE`` where the
    answer has another shape, and ``MissingTokens`` where it lacks a level; then ``wider`` makes the request that asks
    for more, if there is one. ``at_fault`` takes an answer of a status in ``REFUSED`` and returns the reason of the
    ``Failure`` where it says what is wrong with this request. ``read`` raises ``Withheld`` where a filter withheld the
    answer, and ``PromptCut`` where the server read less than was sent. Where that cannot be counted, ``longer`` makes
    the same request with more text.
    """

    path: str
    body: dict[str, Any]
    read: Callable[[Any], list[Value]]
    wider: Callable[[], Request[Value]] | None = None
    at_fault: Callable[[httpx.Response], str | None] = fault_of
    longer: Callable[[], Request[Value]] | None = None

    @property
    def key(self) -> str:
        """Hash of what is sent (32 hexadecimal digits)."""
        return digest([self.path, self.body])


class MissingTokens(ValueError):
    """An answer lacks the log-probabilities of tokens that were named."""


class PromptCut(Exception):
    """A server read less of a prompt than was sent; what stands behind the server's name in a message."""

    def __init__(self, sent: str, read: int) -> None:
        super().__init__(
            f"cuts prompts: it read {read:,} tokens {sent}; give it a longer context there (Ollama: "
            "OLLAMA_CONTEXT_LENGTH), or ask for less at once by --layout separate"
        )


class Withheld(ValueError):
    """A filter withheld an answer."""


class HiddenError(ValueError):
    """An answer is the report of an error, although its status says that all is well."""


Ask = Callable[[Request[Any]], httpx.Response]
"""Sends a request once; failures to connect are raised, refusals are returned."""


@dataclass(frozen=True)
class Protocol(ABC):
    """How one kind of server is asked. ``model`` is the server's name for its model.

    ``exact`` and ``inexact`` say to people what is known of a level's probability and what is not; ``layouts`` are
    those that the server can be given, the best first; ``knows_mass`` says whether the answers show how much
    probability is on no level, ``lists_all`` whether they have every level.
    """

    name: ClassVar[str]
    exact: ClassVar[str]
    inexact: ClassVar[str] = "which weights stand behind the model's name"
    takes_ids: ClassVar[bool] = True
    lists_all: ClassVar[bool] = True
    writes: ClassVar[bool] = True
    layouts: ClassVar[tuple[str, ...]] = tuple(LAYOUTS)

    model: str
    knows_mass: bool = True

    @abstractmethod
    def levels(self, tree: PromptTree, level_ids: Sequence[Ids]) -> Iterator[Request[Logprobs]]:
        """Ask for the probability of each level at each leaf of a tree."""

    @abstractmethod
    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """Ask what the model writes after a prompt, its likeliest token each time."""

    @abstractmethod
    def tried(self, ask: Ask) -> tuple[Protocol, Request[Any]]:
        """The protocol as the server lets itself be asked, found by asking for a level once; and what it was asked.

        Raises:
            InputError: the server does not give the probabilities of levels, and what would make it.
            httpx.HTTPStatusError: it refuses for another reason.
        """

    def by_level(self, logprobs: Logprobs, level_ids: Sequence[Ids]) -> Array:
        """Log-probability of each level, shape (levels,); EngineError where one is missing that has to be there."""
        return by_level(logprobs, level_ids)

    @property
    def report(self) -> dict[str, Any]:
        """What the manifest says of it besides its name."""
        return {}


@dataclass(frozen=True)
class ByIds(Protocol):
    """A server that takes token ids and gives the probability of any token over the whole vocabulary."""

    exact = "the probability of each level over the whole vocabulary; prompts are token ids"
    remedy: ClassVar[str]
    """What to do about a server that does not give them."""
    context_option: ClassVar[str]
    """The option of the server by which it is given a longer context."""

    def tokens_of(self, text: str) -> Request[int]:
        """Ask for the ids of a text in the server's tokenizer, control tokens in it read as such."""
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return Request("/tokenize", body, lambda answer: [int(token) for token in answer["tokens"]])

    def tried(self, ask: Ask) -> tuple[Protocol, Request[Any]]:
        """See ``Protocol.tried``."""
        ids = tuple(answered(ask, self.tokens_of("1 2 3 4 5")))
        tree = PromptTree(ids, (), (), (), ((ids[-1],),))
        (asked,) = self.levels(tree, [(token,) for token in sorted(set(ids))])
        try:
            answered(ask, asked)
        except UNREADABLE as error:
            says = told(error)
            raise InputError(
                f"its {self.name} gives no log-probabilities of chosen tokens{says}; {self.remedy}"
            ) from error
        return self, asked


@dataclass(frozen=True)
class Vllm(ByIds):
    """vLLM's completions: ``logprob_token_ids`` (vLLM 0.32, OpenAI-compatible server)."""

    name = "vllm"
    remedy = "serve the model by vLLM 0.32 or later"
    context_option = "--max-model-len"

    def levels(self, tree: PromptTree, level_ids: Sequence[Ids]) -> Iterator[Request[Logprobs]]:
        """See ``Protocol.levels``: one request for all leaves."""
        tokens = [token for ids in level_ids for token in ids]
        # `logprob_token_ids` has the tokens' log-probabilities over the whole vocabulary returned, whether they are
        # likely or not; `allowed_token_ids` keeps any other token from being written and listed.
        exact = {"logprobs": 0, "logprob_token_ids": tokens, "allowed_token_ids": tokens}
        more = {"max_tokens": 1, "temperature": 0, **exact, "return_tokens_as_token_ids": True}
        yield self._request(tree.prompts, more, partial(self._found, frozenset(tokens)))

    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """See ``Protocol.text``."""
        more = {"max_tokens": max_tokens, "temperature": 0, "return_token_ids": True}
        return self._request([prompt], more, lambda choice: tuple(map(int, choice["token_ids"])))

    def _request(self, prompts: Sequence[Ids], more: dict[str, Any], read: Callable[[Any], Value]) -> Request[Value]:
        def read_all(answer: Any) -> list[Value]:
            all_read(prompt_tokens(answer), prompts)
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            return [read(choice) for choice in as_many(choices, prompts)]

        body = {"model": self.model, **more, "prompt": [list(prompt) for prompt in prompts]}
        return Request("/v1/completions", body, read_all)

    @staticmethod
    def _found(tokens: frozenset[int], choice: Any) -> Logprobs:
        listed = choice["logprobs"]["top_logprobs"][0].items()
        return all_of(tokens, {int(name.removeprefix("token_id:")): float(value) for name, value in listed})


@dataclass(frozen=True)
class Sglang(ByIds):
    """SGLang's own route ``/generate``: ``token_ids_logprob`` (SGLang 0.5, native API)."""

    name = "sglang"
    remedy = "update SGLang to 0.5 or later"
    context_option = "--context-length"

    def levels(self, tree: PromptTree, level_ids: Sequence[Ids]) -> Iterator[Request[Logprobs]]:
        """See ``Protocol.levels``: one request for all leaves."""
        tokens = [token for ids in level_ids for token in ids]
        more = {"return_logprob": True, "logprob_start_len": -1, "token_ids_logprob": tokens}
        yield self._request(tree.prompts, 1, more, partial(self._found, frozenset(tokens)))

    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """See ``Protocol.text``."""
        return self._request([prompt], max_tokens, {}, lambda one: tuple(map(int, one["output_ids"])))

    def _request(
        self, prompts: Sequence[Ids], tokens: int, more: dict[str, Any], read: Callable[[Any], Value]
    ) -> Request[Value]:
        def read_all(answer: Any) -> list[Value]:
            found = answer if isinstance(answer, list) else [answer]
            for one, prompt in zip(as_many(found, prompts), prompts, strict=True):
                all_read(one["meta_info"].get("prompt_tokens"), [prompt])
            return [read(one) for one in found]

        sampling = {"max_new_tokens": tokens, "temperature": 0}
        body = {"input_ids": [list(prompt) for prompt in prompts], "sampling_params": sampling, **more}
        return Request("/generate", body, read_all)

    @staticmethod
    def _found(tokens: frozenset[int], one: Any) -> Logprobs:
        (listed,) = one["meta_info"]["output_token_ids_logprobs"]  # one token was written; each is (logprob, id, text)
        return all_of(tokens, {int(entry[1]): float(entry[0]) for entry in listed})


def as_many(answers: list[Any], prompts: Sequence[Any]) -> list[Any]:
    """The answers, of which there must be one a prompt; ValueError otherwise."""
    if len(answers) != len(prompts):
        raise ValueError(f"{len(answers)} answers to {len(prompts)} prompts")
    return answers


def all_read(count: Any, prompts: Sequence[Ids]) -> None:
    """PromptCut where a server counts fewer tokens than some prompts have; nothing where it counts none."""
    sent = sum(map(len, prompts))
    if isinstance(count, int) and 0 < count < sent:
        raise PromptCut(f"of {sent:,}", count)


def prompt_tokens(answer: Any) -> int | None:
    """The tokens of the prompts as an answer counts them; None where it does not."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def all_of(tokens: frozenset[int], found: Logprobs) -> Logprobs:
    """Log-probabilities that were found; MissingTokens where one of ``tokens`` is not among them."""
    if not tokens <= checked(found).keys():
        raise MissingTokens("the log-probabilities of some levels are missing")
    return found


def checked(found: Logprobs) -> Logprobs:
    """The same log-probabilities; ValueError where one is above 0, as the answer then has something else there."""
    if any(value > ROUNDING for value in found.values()):
        raise ValueError("a log-probability above 0")
    return found


def said(response: httpx.Response) -> str:
    """The message of a server's error, on one line, without secrets."""
    try:
        content = response.json()
        error = content.get("error", content)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return discreet(flat(str(text)))[:160]


def told(error: Exception) -> str:
    """What the server said in an answer that could not be read, in brackets; empty where it said nothing."""
    return f" ({error})" if isinstance(error, HiddenError) else ""


def answer_of(response: httpx.Response) -> Any:
    """The JSON of an answer; of one that came as a stream of events, its pieces put together.

    Some proxies stream whatever they are asked: the texts and listed tokens of a choice then come piece by piece.

    Raises:
        HiddenError: it is the report of an error.
        ValueError: it is no JSON.
    """
    if "event-stream" in response.headers.get("content-type", ""):
        lines = (line[5:].strip() for line in response.text.splitlines() if line.startswith("data:"))
        events = [json.loads(line) for line in lines if line and line != "[DONE]"]
    else:
        events = [response.json()]
    if any(isinstance(event, dict) and event.get("error") for event in events):
        raise HiddenError(said(response))
    return events[0] if len(events) == 1 else _joined(events)


def _joined(events: list[Any]) -> Any:
    """The answer of which a stream's events are the pieces."""
    choices = [choice for event in events for choice in event.get("choices") or []]
    deltas = [choice.get("delta") or {} for choice in choices]
    listed = [entry for choice in choices for entry in (choice.get("logprobs") or {}).get("content") or []]
    names = ("content", "reasoning", "reasoning_content")
    message = {name: "".join(delta.get(name) or "" for delta in deltas) for name in names}
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    usage: dict[str, Any] = next((event["usage"] for event in reversed(events) if event.get("usage")), {})
    choice = {"index": 0, "message": message, "logprobs": {"content": listed}, "finish_reason": (ends or [None])[-1]}
    return {"choices": [choice], "usage": usage}


def answered(ask: Ask, request: Request[Value]) -> list[Value]:
    """What a server answers to a request, or to the wider one where a level is missing; raises what these raise."""
    answer = answer_of(ask(request).raise_for_status())
    try:
        return request.read(answer)
    except MissingTokens:
        if request.wider is None:
            raise
        return answered(ask, request.wider())
