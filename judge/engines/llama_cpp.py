"""llama.cpp's server: token ids by its own tokenizer, the probability of any token, the chat template of the GGUF.

Routes and fields are those of its ``tools/server/README.md``: ``/props``, ``/tokenize``, ``/detokenize``,
``/apply-template`` and ``/completion``.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import httpx

from judge.engines.connections import API_KEY, connecting, through
from judge.engines.server_protocols import (
    BUSY,
    UNREADABLE,
    ByIds,
    Logprobs,
    Request,
    all_of,
    all_read,
    answer_of,
    said,
)
from judge.errors import EngineError, InputError, Interrupted, one_line
from judge.prompting.chat_tokenizer import ChatTokenizer
from judge.prompting.message_tokenizer import without_brackets
from judge.prompting.prompt_tree import Ids, PromptTree
from judge.types import digest

LISTED = 512
"""How many likely tokens are asked for; where a level is not among them, all are."""


ALL = 2**31 - 1
"""More tokens than any vocabulary has."""


CHATML = "<|im_start|>"
"""Begins a message in ChatML."""


CONTROL = re.compile(r"[<\[\]].+[>\]\[]", re.DOTALL)
"""What a token looks like that steers a model: it begins and ends with a bracket (``<|im_end|>``, ``[INST]``)."""


@dataclass(frozen=True)
class LlamaCpp(ByIds):
    """llama.cpp's ``/completion``: ``n_probs`` likely tokens with their ids, over the whole vocabulary."""

    name = "llama.cpp"
    remedy = "update llama.cpp to a build of 2025 or later"
    context_option = "-c"

    def tokens_of(self, text: str, is_trusted: bool = True, with_beginning: bool = False) -> Request[int]:
        """See ``ByIds.tokens_of``; of text from outside, control tokens are read as the characters that they are."""
        body = {"content": text, "parse_special": is_trusted, "add_special": with_beginning}
        return self._request("/tokenize", body, lambda answer: [int(token) for token in answer["tokens"]])

    def pieces_of(self, text: str) -> Request[tuple[int, str]]:
        """Ask for the ids of text from outside, each with the text that it writes."""

        def read(answer: Any) -> list[tuple[int, str]]:
            # A piece that is no whole character comes as bytes.
            return [(int(t["id"]), t["piece"] if isinstance(t["piece"], str) else "") for t in answer["tokens"]]

        return self._request("/tokenize", {"content": text, "parse_special": False, "with_pieces": True}, read)

    def text_of(self, ids: Sequence[int]) -> Request[str]:
        """Ask for the text that ids write."""
        return self._request("/detokenize", {"tokens": list(ids)}, lambda answer: [str(answer["content"])])

    def rendered(self, messages: list[dict[str, str]], is_finished: bool) -> Request[str]:
        """Ask for messages in the chat template."""
        # A template that tells the date tells always the same, as a run goes on another day.
        variables = {"enable_thinking": False, "date_string": "01 Jan 2025"}
        more = {"add_generation_prompt": not is_finished, "chat_template_kwargs": variables}
        return self._request("/apply-template", {"messages": messages, **more}, lambda answer: [str(answer["prompt"])])

    def levels(self, tree: PromptTree, level_ids: Sequence[Ids]) -> Iterator[Request[Logprobs]]:
        """See ``Protocol.levels``: a request a leaf, one after another, so that a slot's cache has all but the leaf."""
        tokens = frozenset(token for ids in level_ids for token in ids)
        for prompt in tree.prompts:
            yield self._listed(prompt, tokens, LISTED)

    def text(self, prompt: Ids, max_tokens: int) -> Request[Ids]:
        """See ``Protocol.text``."""
        body = {"n_predict": max_tokens, "return_tokens": True}
        return self._completion(prompt, body, "tokens", lambda found: tuple(map(int, found)))

    def _listed(self, prompt: Ids, tokens: frozenset[int], count: int) -> Request[Logprobs]:
        def read(found: Any) -> Logprobs:
            return all_of(tokens, {int(entry["id"]): float(entry["logprob"]) for entry in found[0]["top_logprobs"]})

        wider = partial(self._listed, prompt, tokens, ALL) if count < ALL else None
        return self._completion(prompt, {"n_predict": 1, "n_probs": count}, "completion_probabilities", read, wider)

    def _completion(
        self,
        prompt: Ids,
        body: dict[str, Any],
        field: str,
        read: Callable[[Any], Any],
        wider: Callable[[], Request[Any]] | None = None,
    ) -> Request[Any]:
        """A request for what follows a prompt, of whose answer one field is read."""

        def read_all(answer: Any) -> list[Any]:
            all_read(answer.get("tokens_evaluated"), [prompt])
            return [read(answer[field])]

        # Greedy; the penalties and samplers that a server may have set would otherwise change what is written.
        fixed = {"temperature": 0, "samplers": ["temperature"], "cache_prompt": True}
        fields = {"response_fields": [field, "tokens_evaluated"]}
        return self._request("/completion", {"prompt": list(prompt), **fixed, **fields, **body}, read_all, wider)

    def _request(
        self,
        path: str,
        body: dict[str, Any],
        read: Callable[[Any], list[Any]],
        wider: Callable[[], Request[Any]] | None = None,
    ) -> Request[Any]:
        return Request(path, {"model": self.model, **body}, read, wider)


class LlamaCppTokenizer(ChatTokenizer):
    """The tokenizer and chat template of a llama.cpp server's model, asked over the network.

    Once ``stop`` is set a failing server is not waited for.

    Args:
        protocol: how the server is asked.
        url: its address.
        patience: seconds during which a server that does not answer is asked again.

    Raises:
        InputError: the server refuses.
        EngineError: it does not answer, or answers nonsense, for too long.
        Interrupted: ``stop`` was set while it failed.
    """

    def __init__(self, protocol: LlamaCpp, url: str, patience: float) -> None:
        self.protocol, self.place, self._patience = protocol, url, patience
        self.stop = threading.Event()
        self._client = httpx.Client(**connecting(url), timeout=60.0)
        weakref.finalize(self, self._client.close)
        (props,) = self._send("GET", Request(f"/props?model={protocol.model}", {}, lambda answer: [dict(answer)]))
        self._template = str(props.get("chat_template") or "")
        # Where the file has none the server shows ChatML, whose marks are no tokens of such a model.
        if CHATML in self._template and len(self._ask(protocol.tokens_of(CHATML))) != 1:
            self._template = ""
        self.bos = str(props.get("bos_token") or "")
        self.end = str(props.get("eos_token") or "")
        begins = self._ask(protocol.tokens_of("a", with_beginning=True))[:1] != self._ask(protocol.tokens_of("a"))[:1]
        self.beginning = self.bos if begins else ""
        ends = self._ask(protocol.tokens_of(self.end)) if self.end else []
        self.control_ids = frozenset(ends if len(ends) == 1 else [])
        # Rubrics, characters and profiles come again with every dialogue.
        self._trusted = lru_cache(maxsize=4096)(lambda text: tuple(self._ask(protocol.tokens_of(text))))
        self._untrusted = lru_cache(maxsize=4096)(self._guarded)

    def encode(self, text: str) -> tuple[int, ...]:
        """See ``Tokenizer.encode``."""
        return self._trusted(text)

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        """See ``Tokenizer.encode_untrusted``.

        The server reads no control token in it; a text in which one of the vocabulary's other tokens looks like one (as
        ``<think>`` does in some models) has other brackets.
        """
        return self._untrusted(text)

    def _guarded(self, text: str) -> tuple[int, ...]:
        found = self._ask(self.protocol.pieces_of(text))
        if any(CONTROL.fullmatch(piece.strip()) for _, piece in found):
            found = self._ask(self.protocol.pieces_of(without_brackets(text)))
        return tuple(token for token, _ in found)

    def text(self, ids: Sequence[int]) -> str:
        """See ``Tokenizer.text``."""
        return str(self._ask(self.protocol.text_of(ids))[0])

    @property
    def has_template(self) -> bool:
        """See ``Tokenizer.has_template``."""
        return bool(self._template)

    @property
    def digest(self) -> str:
        """Hash of what can be seen of it: how it cuts some texts, and the template (32 hexadecimal digits)."""
        seen = [self.encode(text) for text in (SAMPLE, f"{self.bos}{SAMPLE}{self.end}")]
        return digest([seen, self._template or self.beginning])

    def _render(self, messages: list[dict[str, str]], is_finished: bool = False) -> str:
        text = str(self._ask(self.protocol.rendered(messages, is_finished))[0])
        # The server leaves the first token out where it would put it there itself.
        return text if text.startswith(self.beginning) else self.beginning + text

    def _ask(self, request: Request[Any]) -> list[Any]:
        return self._send("POST", request)

    def _send(self, method: str, request: Request[Any]) -> list[Any]:
        """What the server answers; asked again while it is away, busy, loading or answers nonsense."""
        began, pause = time.monotonic(), 0.2
        while True:
            try:
                response = self._client.request(method, f"{self.place}{request.path}", json=request.body)
                if response.is_success:
                    return request.read(answer_of(response))
                reason = f"HTTP {response.status_code}: {said(response)}"
            except (httpx.TransportError, *UNREADABLE) as error:
                reason = one_line(error) or type(error).__name__
            else:
                if response.status_code in (401, 403):
                    way = through(self.place)
                    raise InputError(f"{self.place} refuses the key ({reason}){way}; set {API_KEY} to the server's key")
                if response.status_code not in BUSY:
                    raise InputError(f"{self.place} refuses {request.path} ({reason}); {self.protocol.remedy}")
            if time.monotonic() - began + pause > self._patience:
                way = through(self.place)
                raise EngineError(
                    f"{self.place} fails since {self._patience:.0f} s ({reason}){way}; run the same command again when "
                    "it answers"
                )
            if self.stop.wait(pause):
                raise Interrupted(f"stopped while {self.place} failed")
            pause = min(2 * pause, 10.0)


SAMPLE = "评分：3，因为她说“没关系”。 Score: 4 <|im_end|>"
"""A text that two different tokenizers hardly cut alike: two scripts, full-width punctuation, a control token."""
