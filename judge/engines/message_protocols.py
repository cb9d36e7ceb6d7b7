"""Servers that take texts: chat completions, and the older completions; levels are found among the likeliest tokens.

Characters stand for tokens in prompts and answers: an id is a code point (see ``judge.prompting.message_tokenizer``).
Such servers differ in what they refuse and in how they spell tokens, so each is asked once before it is scored with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from judge.engines import Array, by_level
from judge.engines.server_protocols import (
    REFUSED,
    UNREADABLE,
    WITHHELD,
    Ask,
    Logprobs,
    Protocol,
    Request,
    Withheld,
    answer_of,
    as_many,
    checked,
    said,
    told,
)
from judge.errors import InputError, plain
from judge.prompting.message_tokenizer import TextTokenizer, messages
from judge.prompting.prompt_tree import LAYOUTS, Ids, PromptTree

THOUGHTS = ("<think", "<|channel|>", "<|think", "<thought")
"""How the token begins that opens a thought, or a channel for one."""


THINKING_OFF: dict[str, dict[str, Any]] = {
    "template": {"chat_template_kwargs": {"enable_thinking": False}},
    "effort": {"reasoning_effort": "none"},
    "think": {"think": False},
    "unsaid": {},
}
"""The fields by which servers are told not to think: vLLM, SGLang, llama.cpp; Ollama's and others'; Ollama's own."""


WAYS = tuple(THINKING_OFF)


FEWEST = 16
"""The tokens that are asked for where a server writes no single one."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a server of texts lets itself be asked: what it refuses of the first manner is found by trying.

    ``limit`` is its name for the most tokens, ``tokens`` the fewest that it writes, ``listed`` how many likely tokens
    it lists. ``temperature`` says whether 0 may be asked for, ``system`` whether there may be a message of that role,
    ``streamed`` whether it answers by a stream only. ``thinking`` is how it is told not to think (``THINKING_OFF``).
    """

    limit: str = "max_tokens"
    tokens: int = 1
    listed: int = 20
    temperature: bool = True
    system: bool = True
    streamed: bool = False
    thinking: str = "template"

    def after(self, refusal: str) -> Manner | None:
        """The manner to try next, by the words in which a server refused this one; None where none is left."""
        said = refusal.lower()
        changes: dict[str, dict[str, Any]] = {
            "max_completion_tokens": {"limit": "max_completion_tokens"},
            "logprobs": {"listed": 5},
            "temperature": {"temperature": False},
            "system": {"system": False},
            "minimum": {"tokens": FEWEST},
            "at least": {"tokens": FEWEST},
            "stream": {"streamed": True},
            "": {"thinking": WAYS[min(WAYS.index(self.thinking) + 1, len(WAYS) - 1)]},  # in no description of chat
        }
        tried = (replace(self, **change) for word, change in changes.items() if word in said)
        return next((manner for manner in tried if manner != self), None)

    @property
    def fields(self) -> dict[str, Any]:
        """What every request says besides its prompt and how many tokens it asks for."""
        return {
            **({"temperature": 0} if self.temperature else {}),
            **({"stream": True} if self.streamed else {}),
            **THINKING_OFF[self.thinking],
        }


@dataclass(frozen=True)
class Chat(Protocol):
    """Chat completions, as OpenAI, Ollama and most other servers have them: messages in, ``top_logprobs`` out."""

    name = "chat"
    exact = "the probabilities of the levels among the likeliest tokens that it lists (20, of some servers 5)"
    inexact = (
        "levels that are not listed, which count as missing label mass; the tokens and the chat template are the "
        "server's, and so is what stands behind the model's name"
    )
    takes_ids = False
    lists_all = False
    layouts: ClassVar[tuple[str, ...]] = tuple(name for name, layout in LAYOUTS.items() if not layout.answer_begun)
    path: ClassVar[str] = "/v1/chat/completions"

    manner: Manner = field(default_factory=Manner)

    def levels(self, tree: PromptTree, level_ids: Sequence[Ids]) -> Iterator[Request[Logprobs]]:
        """See ``Protocol.levels``: a request a leaf."""
        for prompt in tree.prompts:
            yield self._request(self._body(prompt, 1) | self._listing(), True)

    def _request(self, body: dict[str, Any], may_be_longer: bool) -> Request[Logprobs]:
        longer = partial(self._request, self._with_more(body), False) if may_be_longer else None
        return Request(self.path, body, lambda answer: [_read(_choice(answer))], longer=longer)

    def _with_more(self, body: dict[str, Any]) -> dict[str, Any]:
        """The same with more text in its prompt."""
        *first, last = body["messages"]
        return {**body, "messages": [*first, {**last, "content": more_of(last["content"])}]}

    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """See ``Protocol.text``."""
        return Request(self.path, self._body(prompt, max_tokens), lambda answer: [self._written(_choice(answer))])

    def by_level(self, logprobs: Logprobs, level_ids: Sequence[Ids]) -> Array:
        """See ``Protocol.by_level``; a level that is not among the likeliest tokens has probability 0."""
        found = {token: logprobs.get(token, -np.inf) for ids in level_ids for token in ids}
        return by_level(found, level_ids)

    @property
    def report(self) -> dict[str, Any]:
        """See ``Protocol.report``."""
        return {"asked_in_the_manner": asdict(self.manner)}

    def tried(self, ask: Ask) -> tuple[Protocol, Request[Any]]:
        """See ``Protocol.tried``."""
        tokenizer = TextTokenizer()
        head, tail = tokenizer.chat("1–5？")
        tree = PromptTree(tokenizer.encode(head + "？"), (), (), (), (tokenizer.encode(tail),))
        (request,) = self.levels(tree, tokenizer.level_ids(tail, range(1, 6)))
        response = ask(request)
        if response.status_code in REFUSED and (manner := self.manner.after(said(response))):
            return replace(self, manner=manner).tried(ask)
        response.raise_for_status()
        try:
            answer = answer_of(response)
            thought = _thought(answer)
            _ = thought or request.read(answer)
        except UNREADABLE as error:
            raise InputError(f"gives no log-probabilities{told(error)}, so it cannot be a judge") from error
        return self._without_thought(thought, ask) if thought else (self, request)

    def _without_thought(self, thought: str, ask: Ask) -> tuple[Protocol, Request[Any]]:
        """The protocol told in the next way not to think; InputError where none is left."""
        following = WAYS[WAYS.index(self.manner.thinking) + 1 : -1]  # the last way is to say nothing
        if not following:
            raise InputError(
                f"begins its answers with a thought ({plain(thought)!r}), so no level can be read; switch thinking off "
                "there (llama.cpp: --reasoning-budget 0), or serve a model that does not think"
            )
        return replace(self, manner=replace(self.manner, thinking=following[0])).tried(ask)

    def _body(self, prompt: Ids, tokens: int) -> dict[str, Any]:
        asked = messages(prompt)
        if not self.manner.system:
            asked = [{"role": "user", "content": "\n\n".join(message["content"] for message in asked)}]
        limit = {self.manner.limit: max(tokens, self.manner.tokens)}
        return {"model": self.model, "messages": asked, **limit, **self.manner.fields}

    def _listing(self) -> dict[str, Any]:
        return {"logprobs": True, "top_logprobs": self.manner.listed}

    @staticmethod
    def _written(choice: Any) -> Ids:
        return tuple(map(ord, choice["message"]["content"] or ""))


@dataclass(frozen=True)
class Completions(Chat):
    """The older completions, of servers without chat: one text in, ``logprobs`` by text out."""

    name = "completions"
    inexact = f"{Chat.inexact}; no chat template is used"
    path = "/v1/completions"

    manner: Manner = field(default_factory=lambda: Manner(thinking="unsaid"))

    def _body(self, prompt: Ids, tokens: int) -> dict[str, Any]:
        text = "\n\n".join([*(message["content"] for message in messages(prompt)), ""])
        return {
            "model": self.model,
            "prompt": text,
            self.manner.limit: max(tokens, self.manner.tokens),
            **self.manner.fields,
        }

    def _with_more(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "prompt": more_of(body["prompt"])}

    def _listing(self) -> dict[str, Any]:
        return {"logprobs": self.manner.listed}

    @staticmethod
    def _written(choice: Any) -> Ids:
        return tuple(map(ord, choice["text"] or ""))


MORE = 400
"""The fewest characters by which a longer prompt is longer: some dozens of tokens in any language."""


def more_of(text: str) -> str:
    """A text and a quarter of it again, or ``MORE`` characters."""
    more = text[: max(len(text) // 4, 1)] or " "
    return text + "\n" + more * (MORE // len(more) + 1)


BLANKS = " \t\r\n\u3000\u2581\u0120\u010a"
"""What may stand before a digit: blanks, and how tokenizers spell a blank (``▁``, ``Ġ``) and a line break (``Ċ``)."""


def likeliest(choice: Any) -> Logprobs:
    """Log-probabilities, by code point, of those of the likeliest first tokens that are one character but for blanks.

    Several tokens may be the same character (``4`` and `` 4``); their probabilities are added.

    Args:
        choice: of an answer, in the shape of chat completions (``content[0].top_logprobs``, a list of entries) or in
            that of the older completions (``top_logprobs[0]``, texts with log-probabilities), which some servers give
            in their chat completions too.
    """
    found: dict[int, list[float]] = {}
    for text, logprob in _listed(choice["logprobs"]):
        if len(text := text.strip(BLANKS)) == 1:
            found.setdefault(ord(text), []).append(logprob)
    with np.errstate(invalid="ignore"):  # a server may say NaN
        return checked({token: float(np.logaddexp.reduce(values)) for token, values in found.items()})


def _read(choice: Any) -> Logprobs:
    """See ``likeliest``; Withheld where a filter left out what it reads."""
    try:
        return likeliest(choice)
    except UNREADABLE as error:
        if isinstance(choice, dict) and str(choice.get("finish_reason")).lower() in WITHHELD:
            raise Withheld("a filter withheld the answer") from error
        raise


def _listed(logprobs: Any) -> list[tuple[str, float]]:
    """The texts of the tokens that are listed for the first place, with their log-probabilities."""
    if logprobs.get("content"):
        first: Any = logprobs["content"][0]["top_logprobs"]
    else:
        first = logprobs["top_logprobs"][0]
    if isinstance(first, dict):
        return [(text, float(logprob)) for text, logprob in first.items()]
    return [(_text(entry), float(entry["logprob"])) for entry in first]


def _text(entry: Any) -> str:
    """The text of a listed token: of its bytes, where a server gives them, as its name may be spelt in any way."""
    given = entry.get("bytes")
    return bytes(given).decode("utf-8", "replace") if given else str(entry["token"])


def _choice(answer: Any) -> Any:
    """The only choice of an answer."""
    return as_many(answer["choices"], [None])[0]


def _thought(answer: Any) -> str:
    """The beginning of the thought by which an answer begins; empty where it does not begin by one."""
    try:
        choice = _choice(answer)
        message = choice.get("message") or {}
        thought = message.get("reasoning") or message.get("reasoning_content") or ""
        content = (choice.get("logprobs") or {}).get("content") or [{"token": ""}]
        first = _text({"token": "", **content[0]})
    except UNREADABLE:
        return ""
    return str(thought)[:20] or (first if first.startswith(THOUGHTS) else "")
