"""Models that are spoken with, one protocol: on a server, or in this process.

A speaker takes the messages of a conversation and says what comes next. Many conversations go on at the same time in
one thread; a model in this process is given together what waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import takewhile
from typing import Any, Protocol

from judge.collection.role_prompt import Message
from judge.engines import Failure, Sampling, Writer
from judge.engines.chat_server import ChatServer, Reply, trial, without_thoughts
from judge.engines.patient_client import HttpRefusal, Pace, PatientClient
from judge.engines.served_model import same_model
from judge.errors import InputError
from judge.models.checkpoint import Checkpoint
from judge.prompting.prompt_tree import Ids
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import TOO_LONG


class Speaker(Protocol):
    """A model that is spoken with."""

    name: str
    """What it is called, which is the system of its dialogues."""
    pace: Pace
    """How many conversations go on at the same time."""

    @property
    def retries(self) -> int:
        """Further tries of what failed at first."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from other models, as far as that is known."""
        ...

    @property
    def runs_by(self) -> dict[str, str]:
        """Engine and precision, which the last bits of a probability depend on; nothing where they are not known."""
        ...

    @property
    def report(self) -> dict[str, Any]:
        """How it went so far, for the manifest."""
        ...

    def opened(self, stop: threading.Event, note: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """What it needs while it is spoken with; ``stop`` ends its waiting, and ``note`` is told what to know."""
        ...

    async def say(self, messages: Sequence[Message], sampling: Sampling, max_tokens: int) -> Reply | Failure:
        """What it says next; or why it says nothing to these messages although it answers others.

        Raises:
            InputError: the key is refused.
            EngineError: the model, its server or the machine failed.
            Interrupted: the user stopped it while the server failed.
        """
        ...


class ServedSpeaker:
    """A model on a server.

    Args:
        server: where it is and how it is asked.
        patience: seconds during which a failing request is tried again.
        pace: how many conversations go on at the same time; it is slowed down where the server is asked too much.
    """

    def __init__(self, server: ChatServer, patience: float, pace: Pace) -> None:
        self.server, self.name, self.pace = server, server.name, pace

        def is_there(answer: Any) -> bool:
            return not server.is_listed or same_model(answer, server.model)

        self._client = PatientClient(
            server.url,
            server.model,
            is_there,
            patience,
            self.pace,
            trial(server),
            server.key,
            f"{server.prefix}/models",
        )

    @property
    def retries(self) -> int:
        """See ``Speaker.retries``."""
        return self._client.retries

    @property
    def identity(self) -> dict[str, Any]:
        """Its name, which is all that is known of the weights."""
        return {"name": self.server.model, "weights": "unverified"}

    @property
    def runs_by(self) -> dict[str, str]:
        """See ``Speaker.runs_by``."""
        return {}

    @property
    def report(self) -> dict[str, Any]:
        """See ``Speaker.report``."""
        return {**self.server.report, "conversations_at_once": self.pace.limit}

    def opened(self, stop: threading.Event, note: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """See ``Speaker.opened``."""
        self._client.stop, self._client.note = stop, note
        return self._client.opened()

    async def say(self, messages: Sequence[Message], sampling: Sampling, max_tokens: int) -> Reply | Failure:
        """See ``Speaker.say``."""
        asked = self.server.request([(one.role, one.content) for one in messages], sampling, max_tokens)
        try:
            found = await self._client.ask(asked)
        except HttpRefusal as refusal:
            if refusal.status in (401, 403):
                raise InputError(str(refusal)) from refusal
            raise
        return found if isinstance(found, Failure) else found.values[0]


class LocalSpeaker:
    """A model in this process, loaded when it is opened.

    Nothing is tried again: ``retries`` is 0.

    Args:
        checkpoint: its files.
        engine: the name of what runs it.
        dtype: the precision in which it is run.
        load: makes the engine that runs it.
        window: how many conversations go on at the same time.
    """

    def __init__(
        self, checkpoint: Checkpoint, engine: str, dtype: str, load: Callable[[], Writer], window: int
    ) -> None:
        self.checkpoint, self.name = checkpoint, checkpoint.name
        self._engine_name, self._dtype = engine, dtype
        self.pace, self.retries = Pace(window), 0
        self.tokenizer: JudgeTokenizer = checkpoint.tokenizer
        self._load = load
        self._engine: Writer | None = None
        self._waiting: list[tuple[Ids, Sampling, int, asyncio.Future[Reply]]] = []

    @property
    def identity(self) -> dict[str, Any]:
        """Its name and the hashes of its files."""
        return {
            "name": self.name,
            "weights": self.checkpoint.weights_digest,
            "config": self.checkpoint.config_digest,
            "tokenizer": self.tokenizer.digest,
        }

    @property
    def runs_by(self) -> dict[str, str]:
        """See ``Speaker.runs_by``."""
        return {"engine": self._engine_name, "precision": self._dtype}

    @property
    def report(self) -> dict[str, Any]:
        """See ``Speaker.report``."""
        return {"folder": str(self.checkpoint.folder), **self.runs_by}

    @asynccontextmanager
    async def opened(self, stop: threading.Event, note: Callable[[str], None]) -> AsyncIterator[None]:
        """See ``Speaker.opened``: the model is loaded."""
        self._engine = self._engine or self._load()
        yield

    async def say(self, messages: Sequence[Message], sampling: Sampling, max_tokens: int) -> Reply | Failure:
        """See ``Speaker.say``."""
        assert self._engine, "the model is not loaded"
        prompt = self.prompt(messages)
        if len(prompt) + max_tokens > self._engine.max_tokens:
            return Failure(TOO_LONG)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            # Conversations that can go on do so before this is called, so that all that wait are asked together.
            loop.call_soon(self._answer, self._engine)
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((prompt, sampling, max_tokens, future))
        return await future

    def prompt(self, messages: Sequence[Message]) -> Ids:
        """The ids of a conversation up to the first word of what comes next; texts hold no control token."""
        around = self.tokenizer.conversation([one.role for one in messages])
        ids = [*self.tokenizer.encode(around[0])]
        for message, after in zip(messages, around[1:], strict=True):
            ids += self.tokenizer.encode_untrusted(message.content)
            ids += self.tokenizer.encode(after)
        return tuple(ids)

    def _answer(self, engine: Writer) -> None:
        """Answer all that wait."""
        asked, self._waiting = self._waiting, []
        try:
            most = max(tokens for *_, tokens, _ in asked)
            written = engine.write([prompt for prompt, *_ in asked], [sampling for _, sampling, *_ in asked], most)
        except Exception as error:  # it is theirs who wait
            for *_, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (prompt, _, tokens, future), ids in zip(asked, written, strict=True):
            if not future.done():
                future.set_result(self._reply(prompt, ids, tokens))

    def _reply(self, prompt: Ids, ids: Ids, max_tokens: int) -> Reply:
        kept = list(takewhile(lambda token: token not in self.tokenizer.control_ids, ids))
        text, has_thought = without_thoughts(self.tokenizer.text(kept))
        finish = "length" if len(kept) == len(ids) >= max_tokens else "stop"
        return Reply(text, finish, len(prompt), len(ids), has_thought)
