"""Scoring by a server: many requests in flight, and patience with a server that is busy, drops them or restarts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np

from judge.engines import PATIENCE_S, Answer, by_level
from judge.errors import EngineError, one_line
from judge.prompt import Ids, PromptTree
from judge.scoring import Array
from judge.served import TIMEOUT, Served, answered, headers, request, said, same_model
from judge.types import ENGINE_FAILED, TOO_LONG

CONCURRENCY = 32
"""Dialogues in flight."""
WINDOW = 256
"""Dialogues asked for together."""
LONGEST_PAUSE_S = 10.0
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP answers that may be another on another try."""
REFUSED = frozenset({400, 413, 422})
"""HTTP answers that find fault with what was asked."""
TRIES = 5
"""After so many in vain it is tried whether the server answers anything."""


class _Transient(Exception):
    """A request failed in a way that another try may mend."""


Request = tuple[list[Ids], tuple[Ids, ...]]
"""Prompts, and the tokens of the levels."""


class ServerEngine:
    """Scores prompt trees on a server.

    Args:
        served: the server's model.
        patience: seconds during which a failing request is tried again.
    """

    window = WINDOW

    def __init__(self, served: Served, patience: float = PATIENCE_S) -> None:
        self.served, self.patience = served, patience
        self.max_tokens = served.max_tokens
        self._retries = self._unlisted = 0
        self._answered: Request | None = None

    @property
    def report(self) -> dict[str, Any]:
        """See ``Engine.report``; ``unlisted`` counts levels that were not among the tokens a server listed."""
        counts = {"retries": self._retries, "unlisted_levels": self._unlisted}
        return {"name": "server", "url": self.served.url, "takes_token_ids": self.served.takes_ids, **counts}

    def verify(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> None:
        """Nothing to check: prompts are whole."""

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Answer]:
        """See ``Engine.level_logprobs``.

        From a server that lists only its likeliest tokens, a level that is not among them has probability 0 and is
        missing from the level mass, not filled in.
        """
        return asyncio.run(self._all(trees, tuple(level_ids)))

    async def _all(self, trees: Sequence[PromptTree], level_ids: tuple[Ids, ...]) -> list[Answer]:
        gate = asyncio.Semaphore(CONCURRENCY)
        limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
        async with httpx.AsyncClient(headers=headers(), timeout=TIMEOUT, limits=limits) as client:
            tasks = [asyncio.create_task(self._one(client, gate, tree, level_ids)) for tree in trees]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _one(
        self, client: httpx.AsyncClient, gate: asyncio.Semaphore, tree: PromptTree, level_ids: tuple[Ids, ...]
    ) -> Answer:
        """Shape (leaves, 5); the error where this dialogue cannot be answered."""
        prompts = [tree.prompt(leaf) for leaf in range(len(tree.leaves))]
        groups = [prompts] if self.served.takes_ids else [[prompt] for prompt in prompts]
        rows: list[Array] = []
        async with gate:
            for group in groups:
                answer = await self._ask(client, (group, level_ids))
                if isinstance(answer, str):
                    return answer
                rows += [self._levels(row, level_ids) for row in answer]
        return np.stack(rows)

    def _levels(self, logprobs: dict[int, float], level_ids: tuple[Ids, ...]) -> Array:
        if self.served.takes_ids:
            return by_level(logprobs, level_ids)
        self._unlisted += sum(not logprobs.keys() & ids for ids in map(set, level_ids))
        return by_level({token: logprobs.get(token, -np.inf) for ids in level_ids for token in ids}, level_ids)

    async def _ask(self, client: httpx.AsyncClient, asked: Request) -> list[dict[int, float]] | str:
        """Log-probabilities by token for each prompt, after as many tries as patience allows; or the error.

        A request that fails while the server answers another one is at fault itself, and the run goes on without it.
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
                first_failure = first_failure or time.monotonic()
                if tries >= TRIES and await self._answers_another(client):
                    return ENGINE_FAILED
                if time.monotonic() - first_failure + pause > self.patience:
                    reason = one_line(error) or type(error).__name__
                    raise EngineError(f"{self.served.url} fails since {self.patience:.0f} s ({reason})") from error
            self._retries += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _try(self, client: httpx.AsyncClient, asked: Request) -> list[dict[int, float]] | str:
        path, body = request(self.served, *asked)
        async with asyncio.timeout(TIMEOUT.read):  # for all of it: a body may come byte by byte
            response = await client.post(f"{self.served.url}{path}", json=body)
        if response.status_code in BUSY:
            raise _Transient(f"HTTP {response.status_code}: {said(response)}")
        if response.status_code in REFUSED and not self.served.takes_ids and "context" in said(response):
            return TOO_LONG
        if response.status_code in REFUSED and self._answered:
            return ENGINE_FAILED
        if not response.is_success:
            raise EngineError(f"{self.served.url} answers HTTP {response.status_code}: {said(response)}")
        found = self._read(response, asked)
        self._answered = asked
        return found

    def _read(self, response: httpx.Response, asked: Request) -> list[dict[int, float]]:
        """What an answer says of every prompt and, where tokens were named, of every token."""
        prompts, level_ids = asked
        try:
            found = answered(self.served, response.json())
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _Transient(f"an answer that cannot be read: {one_line(error)}") from error
        if len(found) != len(prompts):
            raise _Transient(f"{len(found)} answers to {len(prompts)} prompts")
        tokens = {token for ids in level_ids for token in ids} if self.served.takes_ids else set()
        if any(not tokens <= row.keys() for row in found):
            raise _Transient("an answer without the log-probabilities of all levels")
        return found

    async def _answers_another(self, client: httpx.AsyncClient) -> bool:
        """Whether the server answers what it did before."""
        try:
            return self._answered is not None and bool(await self._try(client, self._answered))
        except (httpx.TransportError, TimeoutError, _Transient):
            return False

    async def _check_still_there(self, client: httpx.AsyncClient) -> None:
        """EngineError where the server has come back with another model."""
        response = await client.get(f"{self.served.url}/v1/models")
        if response.is_success:
            try:
                same = same_model(response.json(), self.served)
            except ValueError:
                same = False
            if not same:
                raise EngineError(f"{self.served.url} does not serve {self.served.model} any more")
