"""Scoring by a server: many requests at once, and patience with a server that is busy, drops them or restarts.

A request that fails is tried again with growing pauses until ``patience`` is over. A request that keeps failing while
the server answers others is at fault itself: it becomes a ``Failure``, and the run goes on. How requests are written
and answers read is in ``judge.engines.server_protocols``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import httpx
import numpy as np

from judge.engines import PATIENCE_S, Answer, Array, Failure, Text, silent
from judge.engines.served_model import TIMEOUT, Served, headers, same_model
from judge.engines.server_protocols import (
    REFUSED,
    UNREADABLE,
    Logprobs,
    MissingTokens,
    Request,
    Value,
    answer_of,
    said,
)
from judge.errors import EngineError, one_line
from judge.prompting.prompt_tree import Ids, PromptTree
from judge.types import ENGINE_FAILED, TOO_LONG

FIRST, MOST = 8, 64
"""How many dialogues are asked about at the same time at first, and at most, where the server does not say."""


FASTER = 1.1
"""By how much asking about twice as many has to be faster, so that it is done."""


WINDOW = 256
"""Dialogues submitted together: enough to keep the server busy, few enough to keep memory flat."""


LONGEST_PAUSE_S = 10.0
"""The most seconds between two tries."""


BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP status codes of failures that may pass, so that another try is worth it."""


TOO_MANY = 429
"""The HTTP status code by which a server says that it is asked too much."""


TRIES = 5
"""Failures of one request after which the server is asked something that it has answered before; and dialogues that a
server may refuse before it has answered one."""


class _Refused(EngineError):
    """A server that has answered nothing yet finds fault with a request: with this one, or with all of ours."""


class _Transient(Exception):
    """A request failed in a way that may pass, so that another try is worth it."""


class Pace:
    """How many dialogues a server is asked about at the same time: as many as make it faster.

    It begins with a few and doubles them while that makes the server faster, or takes what the server has slots for.

    Args:
        asked: how many the user wants; None to find it.
        slots: how many requests the server works on at once; None where it does not say.
        clock: seconds that pass.
    """

    def __init__(
        self, asked: int | None = None, slots: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = asked or min(slots or FIRST, MOST)
        self._is_fixed, self._is_found, self._clock = bool(asked), bool(asked or slots), clock
        self._best = 0.0
        self.begin()

    def begin(self) -> None:
        """Measure anew, as the server had nothing to do for a while."""
        self._done, self._since = 0, self._clock()

    def done(self) -> None:
        """A dialogue is answered; after as many as are asked about at once it is seen whether more are faster."""
        self._done += 1
        if self._is_found or self._done < self.limit:
            return
        rate = self._done / max(self._clock() - self._since, 1e-9)
        if self._best and rate < FASTER * self._best:
            self._is_found, self.limit = True, max(self.limit // 2, 1)
        else:
            self._best, self._is_found = rate, self.limit >= MOST
            self.limit = min(self.limit * 2, MOST)
        self.begin()

    def slower(self) -> None:
        """The server says that it is asked too much: half as many, and no more; once for all that were under way."""
        if self._done and not self._is_fixed:
            self._is_found, self.limit = True, max(self.limit // 2, 1)
            self.begin()


class ServerEngine:
    """Scores prompt trees on a server.

    Args:
        served: the server's model.
        patience: seconds during which a failing request is tried again.
        concurrency: how many dialogues are asked about at the same time; None to find what suits the server.
    """

    name = "server"
    window = WINDOW

    def __init__(self, served: Served, patience: float = PATIENCE_S, concurrency: int | None = None) -> None:
        self.served, self.patience = served, patience
        self.pace = Pace(concurrency, served.slots)
        self.max_tokens = served.max_tokens
        self.on_progress: Callable[[int], None] = silent
        self._retries = self._unlisted = 0
        self._answered: Request[Any] | None = None

    @property
    def report(self) -> dict[str, Any]:
        """See ``Engine.report``; ``unlisted_levels`` counts levels that were not among the tokens a server listed."""
        protocol = self.served.protocol
        return {
            "name": self.name,
            "url": self.served.url,
            "protocol": protocol.name,
            "takes_token_ids": protocol.takes_ids,
            "dialogues_at_once": self.pace.limit,
            "retries": self._retries,
            "unlisted_levels": self._unlisted,
            **protocol.report,
        }

    def verify(self, tree: PromptTree) -> None:
        """Nothing to check: prompts are whole."""

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Answer]:
        """See ``Engine.level_logprobs``.

        From a server that lists only its likeliest tokens, a level that is not among them has probability 0 and is
        missing from the level mass, not filled in.
        """

        protocol = self.served.protocol

        def levels(logprobs: Logprobs) -> Array:
            self._unlisted += sum(not logprobs.keys() & ids for ids in map(set, level_ids))
            return protocol.by_level(logprobs, level_ids)

        # Requests are made one by one, so that those of 256 dialogues are not all written at once.
        found = self._answers([protocol.levels(tree, level_ids) for tree in trees])
        return [one if isinstance(one, Failure) else np.stack([levels(row) for row in one]) for one in found]

    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> list[list[Text]]:
        """See ``Engine.generate``."""
        prompts = [prompt for tree in trees for prompt in tree.prompts]
        found = self._answers([[self.served.protocol.text(prompt, max_tokens)] for prompt in prompts])
        texts = iter([one if isinstance(one, Failure) else one[0] for one in found])
        return [list(islice(texts, len(tree.leaves))) for tree in trees]

    def _answers(self, asked: Sequence[Iterable[Request[Value]]]) -> list[list[Value] | Failure]:
        """For each dialogue's requests, the values that came back; or the first failure among them.

        The requests of a dialogue are sent one after another, so that the server's prefix cache serves the later ones.
        """

        async def one(client: httpx.AsyncClient, requests: Iterable[Request[Value]]) -> Any:
            values: list[Value] = []
            for request in requests:
                answer = await self._ask(client, request)
                if isinstance(answer, Failure):
                    return answer
                values += answer
            self.on_progress(len(values))
            return values

        async def everything() -> list[list[Value] | Failure]:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=max(MOST, self.pace.limit))
            waiting = deque(enumerate(asked))
            running: dict[asyncio.Task[Any], int] = {}
            found: dict[int, list[Value] | Failure] = {}
            refused = 0
            self.pace.begin()
            async with httpx.AsyncClient(headers=headers(), timeout=TIMEOUT, limits=limits) as client:
                try:
                    while waiting or running:
                        while waiting and len(running) < self.pace.limit:
                            place, requests = waiting.popleft()
                            running[asyncio.create_task(one(client, requests))] = place
                        for task in (await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))[0]:
                            place = running.pop(task)
                            try:
                                found[place] = task.result()
                            except _Refused:
                                # Once it answers others it is this dialogue that it finds fault with.
                                refused += 1
                                if self._answered is None and (refused >= TRIES or not (waiting or running)):
                                    raise
                                found[place] = Failure(ENGINE_FAILED)
                            self.pace.done()
                finally:  # the first error ends it all, and what still runs must not outlive the client
                    for task in running:
                        task.cancel()
            return [found[place] for place in range(len(asked))]

        return asyncio.run(everything())

    async def _ask(self, client: httpx.AsyncClient, asked: Request[Value]) -> list[Value] | Failure:
        """What comes back for each prompt, after as many tries as patience allows; or a failure of this request alone.

        Raises:
            EngineError: the server fails for too long, or has another model now.
        """
        first_failure: float | None = None
        tries, pause = 0, 0.5
        while True:
            try:
                if tries:
                    await self._check_still_there(client)
                return await self._try(client, asked)
            except (httpx.TransportError, TimeoutError, _Transient) as error:
                tries += 1
                # Patience counts from the first failure and not from the request: a large batch may take minutes.
                first_failure = first_failure or time.monotonic()
                if tries >= TRIES and self._answered is not None:
                    # Where it answers again what it has answered before, the failing request is at fault.
                    with suppress(httpx.TransportError, TimeoutError, _Transient):
                        if await self._try(client, self._answered):
                            return Failure(ENGINE_FAILED)
                if time.monotonic() - first_failure + pause > self.patience:
                    reason = one_line(error) or type(error).__name__
                    raise EngineError(f"{self.served.url} fails since {self.patience:.0f} s ({reason})") from error
            self._retries += 1
            # Pauses of random length, so that 32 requests that failed together do not come back together.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _try(self, client: httpx.AsyncClient, asked: Request[Value]) -> list[Value] | Failure:
        """One try; ``_Transient`` or an error of the connection where another may succeed."""
        async with asyncio.timeout(TIMEOUT.read):  # for all of it: httpx would allow that long for every byte of a body
            response = await client.post(f"{self.served.url}{asked.path}", json=asked.body)
        if response.status_code in BUSY:
            if response.status_code == TOO_MANY:
                self.pace.slower()
            raise _Transient(f"HTTP {response.status_code}: {said(response)}")
        if response.status_code in REFUSED and "context" in said(response):
            return Failure(TOO_LONG)
        # Refused at once it is this prompt that the server finds fault with, but only if it has taken others.
        if response.status_code in REFUSED and self._answered:
            return Failure(ENGINE_FAILED)
        if not response.is_success:
            error = _Refused if response.status_code in REFUSED else EngineError
            raise error(f"{self.served.url} answers HTTP {response.status_code}: {said(response)}")
        try:
            found = asked.read(answer_of(response))
        except UNREADABLE as error:
            if isinstance(error, MissingTokens) and asked.wider:
                return await self._try(client, asked.wider())
            raise _Transient(f"an answer that cannot be read: {one_line(error)}") from error
        self._answered = asked
        return found

    async def _check_still_there(self, client: httpx.AsyncClient) -> None:
        """Raises EngineError where the server has come back with another model, whose scores must not be mixed in."""
        response = await client.get(f"{self.served.url}/v1/models")
        if response.is_success:
            try:
                same = same_model(response.json(), self.served)
            except ValueError:  # not JSON
                same = False
            if not same:
                raise EngineError(f"{self.served.url} does not serve {self.served.model} any more")
