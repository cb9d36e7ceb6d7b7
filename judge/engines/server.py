"""Scoring by a server: many requests at once, and patience with a server that is busy, drops them or restarts.

A request that fails is tried again with growing pauses until ``patience`` is over. A request that keeps failing while
the server answers others is at fault itself: it becomes a ``Failure``, and the run goes on. How requests are written
and answers read is in ``judge.engines.server_protocols``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from typing import Any

import httpx
import numpy as np

from judge.engines import PATIENCE_S, Answer, Array, Failure, Text, by_level, silent
from judge.engines.served_model import TIMEOUT, Served, headers, said, same_model
from judge.engines.server_protocols import UNREADABLE, Logprobs, Request, Value
from judge.errors import EngineError, one_line
from judge.prompting.prompt_tree import Ids, PromptTree
from judge.types import ENGINE_FAILED, TOO_LONG

CONCURRENCY = 32
"""The most dialogues that are asked about at the same time."""


WINDOW = 256
"""Dialogues submitted together: enough to keep the server busy, few enough to keep memory flat."""


LONGEST_PAUSE_S = 10.0
"""The most seconds between two tries."""


BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP status codes of failures that may pass, so that another try is worth it."""


REFUSED = frozenset({400, 413, 422})
"""HTTP status codes that find fault with the request itself."""


TRIES = 5
"""Failures of one request after which the server is asked something that it has answered before."""


class _Transient(Exception):
    """A request failed in a way that may pass, so that another try is worth it."""


class ServerEngine:
    """Scores prompt trees on a server.

    Args:
        served: the server's model.
        patience: seconds during which a failing request is tried again.
    """

    name = "server"
    window = WINDOW
    is_packed = False

    def __init__(self, served: Served, patience: float = PATIENCE_S) -> None:
        self.served, self.patience = served, patience
        self.max_tokens = served.max_tokens
        self.on_progress: Callable[[int], None] = silent
        self._retries = self._unlisted = 0
        self._answered: Request[Any] | None = None

    @property
    def report(self) -> dict[str, Any]:
        """See ``Engine.report``; ``unlisted_levels`` counts levels that were not among the tokens a server listed."""
        counts = {"retries": self._retries, "unlisted_levels": self._unlisted}
        asked = {} if self.served.takes_ids else {"asked_in_the_manner": asdict(self.served.manner)}
        return {"name": self.name, "url": self.served.url, "takes_token_ids": self.served.takes_ids, **counts, **asked}

    def verify(self, tree: PromptTree) -> None:
        """Nothing to check: prompts are whole."""

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Answer]:
        """See ``Engine.level_logprobs``.

        From a server that lists only its likeliest tokens, a level that is not among them has probability 0 and is
        missing from the level mass, not filled in.
        """

        def requests(tree: PromptTree) -> Iterator[Request[Logprobs]]:
            # A generator, so that the bodies of 256 dialogues are written as their turn comes and not all at once.
            yield from self.served.completions.levels([tree.prompt(i) for i in range(len(tree.leaves))], level_ids)

        def levels(logprobs: Logprobs) -> Array:
            if self.served.takes_ids:
                return by_level(logprobs, level_ids)
            self._unlisted += sum(not logprobs.keys() & ids for ids in map(set, level_ids))
            return by_level({token: logprobs.get(token, -np.inf) for ids in level_ids for token in ids}, level_ids)

        found = self._answers([requests(tree) for tree in trees])
        return [one if isinstance(one, Failure) else np.stack([levels(row) for row in one]) for one in found]

    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> list[list[Text]]:
        """See ``Engine.generate``."""
        prompts = [tree.prompt(leaf) for tree in trees for leaf in range(len(tree.leaves))]
        found = self._answers([[self.served.completions.text(prompt, max_tokens)] for prompt in prompts])
        texts = iter([one if isinstance(one, Failure) else one[0] for one in found])
        return [list(islice(texts, len(tree.leaves))) for tree in trees]

    def _answers(self, asked: Sequence[Iterable[Request[Value]]]) -> list[list[Value] | Failure]:
        """For each dialogue's requests, the values that came back; or the first failure among them.

        The requests of a dialogue are sent one after another, so that the server's prefix cache serves the later ones.
        """

        async def one(client: httpx.AsyncClient, gate: asyncio.Semaphore, requests: Iterable[Request[Value]]) -> Any:
            values: list[Value] = []
            async with gate:
                for request in requests:
                    answer = await self._ask(client, request)
                    if isinstance(answer, Failure):
                        return answer
                    values += answer
            self.on_progress(len(values))
            return values

        async def everything() -> list[list[Value] | Failure]:
            gate = asyncio.Semaphore(CONCURRENCY)
            limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
            async with httpx.AsyncClient(headers=headers(), timeout=TIMEOUT, limits=limits) as client:
                tasks = [asyncio.create_task(one(client, gate, requests)) for requests in asked]
                try:
                    return list(await asyncio.gather(*tasks))
                finally:  # gather ends at the first error, and what still runs must not outlive the client
                    for task in tasks:
                        task.cancel()

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
            raise _Transient(f"HTTP {response.status_code}: {said(response)}")
        if response.status_code in REFUSED and not self.served.takes_ids and "context" in said(response):
            return Failure(TOO_LONG)
        # Refused at once it is this prompt that the server finds fault with, but only if it has taken others.
        if response.status_code in REFUSED and self._answered:
            return Failure(ENGINE_FAILED)
        if not response.is_success:
            raise EngineError(f"{self.served.url} answers HTTP {response.status_code}: {said(response)}")
        try:
            found = asked.read(response.json())
        except UNREADABLE as error:
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
