"""A model that is spoken with on a server: messages in, a reply out. Any OpenAI-compatible chat completions will do.

Unlike a judge it need not give log-probabilities. It is asked once before anything else, so that a wrong address, key
or model shows at once, and so that it is known which fields the server refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx

from judge.engines import Sampling
from judge.engines.connections import API_KEY
from judge.engines.message_protocols import THINKING_OFF, THOUGHTS, WAYS, Manner
from judge.engines.served_model import address, asking, facts, listed_models, short_name
from judge.engines.server_protocols import (
    ABSENT,
    REFUSED,
    UNREADABLE,
    WITHHELD,
    Request,
    answer_of,
    as_many,
    said,
    told,
)
from judge.errors import InputError, plain
from judge.prompting.message_tokenizer import without_brackets
from judge.types import CONTENT_FILTER

OPTIONAL = ("seed", "top_p")
"""Fields that a server may refuse and that are then left out."""


TRIED_TOKENS = 16
"""The most tokens of the reply by which a server is tried: enough to see whether it begins with a thought."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote: the text without thoughts, why it ended (``stop``, ``length``, …), and its tokens if known.

    ``has_thought`` says that thoughts were taken out.
    """

    text: str
    finish: str
    prompt_tokens: int | None = None
    tokens: int | None = None
    has_thought: bool = False


@dataclass(frozen=True)
class ChatServer:
    """A model on a server, and the manner in which the server lets itself be asked.

    ``left_out`` are fields of ``OPTIONAL`` that it refuses; ``thinks`` says that it begins with a thought whatever it
    is told. ``slots`` is how many requests it works on at once, where it says so; ``listed`` the models that it says
    it has; ``key`` the environment variable with its key. ``prefix`` is what its paths begin
    with after the address: nothing where the address has a version of its own (``…/api/paas/v4``).
    """

    url: str
    model: str
    key: str = API_KEY
    prefix: str = "/v1"
    slots: int | None = None
    listed: tuple[str, ...] = ()
    manner: Manner = field(default_factory=Manner)
    left_out: tuple[str, ...] = ()
    thinks: bool = False

    @property
    def name(self) -> str:
        """The model's name, without a folder."""
        return short_name(self.model)

    @property
    def is_listed(self) -> bool:
        """Whether the server says that it has the model."""
        return self.model in self.listed

    @property
    def report(self) -> dict[str, Any]:
        """What the manifest says of it."""
        manner = {name: value for name, value in asdict(self.manner).items() if name not in ("listed", "tokens")}
        return {"url": self.url, "manner": manner, "left_out": list(self.left_out), "thinks": self.thinks}

    def request(self, messages: Sequence[tuple[str, str]], sampling: Sampling, max_tokens: int) -> Request[Reply]:
        """Ask for a reply.

        Args:
            messages: (role, text) of each; texts get other brackets where they could spell a control token.
            sampling: how it is drawn.
            max_tokens: the most tokens of the reply, thoughts included.
        """
        asked = [{"role": role, "content": without_brackets(text)} for role, text in messages]
        if not self.manner.system and asked[0]["role"] == "system":
            first = f"{asked[0]['content']}\n\n{asked[1]['content']}"
            asked = [{"role": "user", "content": first}, *asked[2:]]
        drawn = {name: value for name, value in asdict(sampling).items() if name not in self.left_out}
        if not self.manner.temperature:
            del drawn["temperature"]
        body = {
            "model": self.model,
            "messages": asked,
            self.manner.limit: max(max_tokens, self.manner.tokens),
            **drawn,
            **({"stream": True} if self.manner.streamed else {}),
            **THINKING_OFF[self.manner.thinking],
        }
        return Request(f"{self.prefix}/chat/completions", body, lambda answer: [_reply(answer)])


TRIAL = [("system", "请简短地回答。"), ("user", "你好。")]
"""What a server is asked to see whether it answers."""


def trial(server: ChatServer) -> Request[Reply]:
    """A request that any model of chat answers."""
    return server.request(TRIAL, Sampling(temperature=0.7, top_p=0.9, seed=1), TRIED_TOKENS)


def find_chat_server(
    url: str, model: str = "auto", key: str = API_KEY, option: str = "--model", place: str = "--url"
) -> ChatServer:
    """Find the model of a server, and how the server lets itself be asked, by asking once.

    Args:
        url: the server's address, with or without ``/v1``.
        model: the server's name for it; ``auto`` for the only one.
        key: the environment variable with its key.
        option, place: what the options are called that name the model and the address, for messages.

    Raises:
        InputError: the address, the key or the model is wrong, or it does not answer as chat completions do.
        EngineError: there is no server.
    """
    url = address(url, place, key)
    with asking(url, key, f"check {place} and {option}", place) as client:
        prefix, listing = "/v1", client.get(f"{url}/v1/models")
        if listing.status_code in ABSENT and (other := client.get(f"{url}/models")).status_code not in ABSENT:
            prefix, listing = "", other
        if listing.status_code not in ABSENT:
            listing.raise_for_status()
        known = (
            [one for one in listed_models(answer_of(listing)) if isinstance(one, dict)] if listing.is_success else []
        )
        names = [str(one.get("id")) for one in known]
        chosen = next((name for name in names if model in (name, short_name(name))), model)
        if model == "auto":
            if len(names) != 1:
                raise InputError(f"{option}: {url} serves {', '.join(names[:20]) or 'no model'}; name one")
            chosen = names[0]
        is_llama_cpp = any(one.get("owned_by") == "llamacpp" for one in known)
        slots = facts(client, f"{url}/props").get("total_slots") if is_llama_cpp else None
        server = ChatServer(url, chosen, key, prefix, slots if isinstance(slots, int) else None, tuple(names))
        return _tried(client, server, f"; it serves {plain(', '.join(names[:20]))}" if names else "")


def _tried(client: httpx.Client, server: ChatServer, served: str) -> ChatServer:
    """The server in the manner in which it answers; InputError where it does not."""
    thinking: ChatServer | None = None  # the first manner in which it answers, though with a thought
    while True:
        request = trial(server)
        response = client.post(f"{server.url}{request.path}", json=request.body)
        following = None
        if response.status_code in REFUSED:
            following = _after(server, said(response))
            if following is None and thinking:
                return thinking
        if response.status_code in ABSENT and not served and server.prefix:
            following = replace(server, prefix="")  # it lists no models, so that its paths are not known yet
        elif response.status_code in ABSENT:
            raise InputError(f"{server.url} has no model {server.model} ({said(response)}){served}")
        if following is None:
            response.raise_for_status()
            try:
                (reply,) = request.read(answer_of(response))
            except UNREADABLE as error:
                raise InputError(
                    f"{server.url} does not answer as chat completions do{told(error)}; check the address"
                ) from error
            if not reply.has_thought:
                return server
            thinking = thinking or replace(server, thinks=True)
            ways = WAYS[WAYS.index(server.manner.thinking) + 1 : -1]  # the last way is to say nothing
            if not ways:
                return thinking
            following = replace(server, manner=replace(server.manner, thinking=ways[0]))
        server = following


def _after(server: ChatServer, refusal: str) -> ChatServer | None:
    """The server in the manner to try next, by the words of a refusal; None where none is left."""
    for name in OPTIONAL:
        if name in refusal.lower() and name not in server.left_out:
            return replace(server, left_out=(*server.left_out, name))
    manner = server.manner.after(refusal)
    return replace(server, manner=manner) if manner else None


def _reply(answer: Any) -> Reply:
    """The reply of chat completions' answer."""
    choice = as_many(answer["choices"], [None])[0]
    message, usage = choice["message"], answer.get("usage") or {}
    text, is_thought = without_thoughts(message.get("content") or "")
    apart = message.get("reasoning") or message.get("reasoning_content")
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    prompt_tokens, tokens = (count if isinstance(count, int) else None for count in counts)
    end = str(choice.get("finish_reason") or "")
    end = CONTENT_FILTER if end.lower() in WITHHELD else end
    return Reply(text, end, prompt_tokens, tokens, is_thought or bool(apart))


def without_thoughts(text: str) -> tuple[str, bool]:
    """A reply without the thought that it begins with, and whether there was one.

    A thought is in ``<think>`` and ``</think>``, of which a template may have opened the first. One that was never
    closed is all that there is.
    """
    head, mark, tail = text.partition("</think>")
    if mark and (head.lstrip().startswith(THOUGHTS) or "<think" not in head):
        return tail.strip(), True
    if head.lstrip().startswith(THOUGHTS):
        return "", True
    return text.strip(), False
