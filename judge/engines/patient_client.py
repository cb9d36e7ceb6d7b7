"""Asking a server many things at once, with patience where it is busy, drops requests or restarts.

A request that fails is tried again with growing pauses until ``patience`` is over. A request that keeps failing while
the server answers others is at fault itself: it becomes a ``Failure``, and the rest goes on. Knows nothing of levels,
judges or replies: a ``Request`` says what is sent and how the answer is read.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import httpx

from judge.engines import Failure
from judge.engines.served_model import API_KEY, TIMEOUT, headers
from judge.engines.server_protocols import REFUSED, UNREADABLE, MissingTokens, Request, Value, answer_of, said
from judge.errors import EngineError, Interrupted, one_line
from judge.types import ENGINE_FAILED

FIRST, MOST = 8, 64
"""How many dialogues are asked about at the same time at first, and at most, where the server does not say."""


FASTER = 1.1
"""By how much asking about twice as many has to be faster, so that it is done."""


LONGEST_PAUSE_S = 10.0
"""The most seconds between two tries."""


STEP_S = 0.2
"""Seconds after which a pause looks whether the user stopped it."""


GRACE_S = 1.0
"""Seconds for which what is in flight may end after an error."""


BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP status codes of failures that may pass, so that another try is worth it."""


TOO_MANY = 429
"""The HTTP status code by which a server says that it is asked too much."""


SHOWN_TRY = 2
"""The failure of one request at which the user is told: the first may pass by itself."""


TRIES = 5
"""Failures of one request after which the server is asked something that it has answered before; and dialogues that a
server may refuse before it has answered one."""


Result = TypeVar("Result")


class HttpRefusal(EngineError):
    """A server answers by an HTTP status that another try will not change."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Transient(Exception):
    """A request failed in a way that may pass, so that another try is worth it."""


class _TooMany(_Transient):
    """The server is asked too much, for which no request is at fault."""


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


async def paced(
    jobs: Sequence[Callable[[], Awaitable[Result]]], pace: Pace, is_proven: Callable[[], bool] = lambda: True
) -> list[Result | Failure]:
    """What jobs return, as many of them at the same time as the pace says.

    Args:
        jobs: each is about one dialogue.
        pace: how many at once.
        is_proven: whether the server has answered anything. Until it has, a request that it refuses may be at fault, or
            all of ours are; once it has, a refused job is a ``Failure``.

    Raises:
        EngineError: the first that a job raised; what still runs a moment later is cancelled.
        Interrupted: a job raised it; what still ran has ended.
    """
    waiting = deque(enumerate(jobs))
    running: dict[asyncio.Task[Result], int] = {}
    found: dict[int, Result | Failure] = {}
    refused, stopped = 0, None
    pace.begin()
    try:
        while waiting or running:
            while waiting and len(running) < pace.limit:
                place, job = waiting.popleft()
                running[asyncio.ensure_future(job())] = place
            for task in (await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))[0]:
                place = running.pop(task)
                try:
                    found[place] = task.result()
                except Interrupted as error:  # what is in flight ends, and nothing begins
                    stopped = error
                    waiting.clear()
                except HttpRefusal as refusal:
                    if refusal.status not in REFUSED:
                        raise
                    # Once it answers others it is this dialogue that it finds fault with.
                    refused += 1
                    if not is_proven() and (refused >= TRIES or not (waiting or running)):
                        raise
                    found[place] = Failure(ENGINE_FAILED)
                pace.done()
    finally:  # the first error ends it all, and what still runs must not outlive the client
        if running:  # answers that are on their way were paid for
            await asyncio.wait(running, timeout=GRACE_S)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if stopped:
        raise stopped
    return [found[place] for place in range(len(jobs))]


class PatientClient:
    """Asks one server.

    Args:
        url: its address.
        model: the server's name for the model that is asked, for messages.
        is_there: whether the server's list of models still has that model.
        patience: seconds during which a failing request is tried again.
        pace: is told when the server is asked too much.
        answered: a request that the server has answered already.
        key: the environment variable with the server's key.
        models: the path of its list of models.

    ``retries`` counts further tries. Once ``stop`` is set nothing more is asked, and no pause is waited out; ``note``
    is told once that the server fails. Either may be None.
    """

    def __init__(
        self,
        url: str,
        model: str,
        is_there: Callable[[Any], bool],
        patience: float,
        pace: Pace,
        answered: Request[Any] | None = None,
        key: str = API_KEY,
        models: str = "/v1/models",
    ) -> None:
        self.url, self.model, self.patience, self.pace = url, model, patience, pace
        self.retries = 0
        self.stop: threading.Event | None = None
        self.note: Callable[[str], None] | None = None
        self._is_there, self._answered, self._key, self._models = is_there, answered, key, models
        self._client: httpx.AsyncClient | None = None

    @property
    def is_proven(self) -> bool:
        """Whether the server has answered a request."""
        return self._answered is not None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connections to the server, for as long as this lasts."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=max(MOST, self.pace.limit))
        async with httpx.AsyncClient(headers=headers(self._key), timeout=TIMEOUT, limits=limits) as self._client:
            yield

    async def ask(self, asked: Request[Value]) -> list[Value] | Failure:
        """What comes back for each prompt, after as many tries as patience allows; or a failure of this request alone.

        Raises:
            HttpRefusal: the server refuses the request, and has answered nothing so far; or its status is one that no
                request is at fault for.
            EngineError: the server fails for too long, or has another model now.
            Interrupted: the user stopped it, before this was asked or while the server failed.
        """
        self._heed_stop("")
        first_failure: float | None = None
        tries, pause = 0, 0.5
        while True:
            try:
                if tries:
                    await self._check_still_there()
                return await self._try(asked)
            except (httpx.TransportError, TimeoutError, _Transient) as error:
                tries += 1
                # Patience counts from the first failure and not from the request: a large batch may take minutes.
                first_failure = first_failure or time.monotonic()
                if tries >= TRIES and self._answered is not None and not isinstance(error, _TooMany):
                    # Where it answers again what it has answered before, the failing request is at fault.
                    with suppress(httpx.TransportError, TimeoutError, _Transient):
                        if await self._try(self._answered):
                            return Failure(ENGINE_FAILED, one_line(error))
                reason = one_line(error) or type(error).__name__
                if time.monotonic() - first_failure + pause > self.patience:
                    raise EngineError(f"{self.url} fails since {self.patience:.0f} s ({reason})") from error
                if self.note and tries == SHOWN_TRY:
                    self.note(f"{self.url} fails ({reason}); it is tried again for {self.patience:.0f} s")
                    self.note = None
            self.retries += 1
            # Pauses of random length, so that 32 requests that failed together do not come back together.
            await self._pause(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _pause(self, seconds: float) -> None:
        """Wait; Interrupted as soon as the user stops it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._heed_stop(f" while {self.url} failed")
            await asyncio.sleep(min(left, STEP_S))

    def _heed_stop(self, when: str) -> None:
        if self.stop and self.stop.is_set():
            raise Interrupted(f"stopped{when}")

    async def _try(self, asked: Request[Value]) -> list[Value] | Failure:
        """One try; ``_Transient`` or an error of the connection where another may succeed."""
        assert self._client, "the connections are not opened"
        async with asyncio.timeout(TIMEOUT.read):  # for all of it: httpx would allow that long for every byte of a body
            response = await self._client.post(f"{self.url}{asked.path}", json=asked.body)
        answer = f"HTTP {response.status_code}: {said(response)}"
        if response.status_code == TOO_MANY:
            self.pace.slower()
            raise _TooMany(answer)
        if response.status_code in BUSY:
            raise _Transient(answer)
        if response.status_code in REFUSED and (reason := asked.at_fault(response)):
            return Failure(reason, answer)
        # Refused at once it is this prompt that the server finds fault with, but only if it has taken others.
        if response.status_code in REFUSED and self._answered:
            return Failure(ENGINE_FAILED, answer)
        if not response.is_success:
            raise HttpRefusal(f"{self.url} answers {answer}", response.status_code)
        try:
            found = asked.read(answer_of(response))
        except UNREADABLE as error:
            if isinstance(error, MissingTokens) and asked.wider:
                return await self._try(asked.wider())
            raise _Transient(f"an answer that cannot be read: {one_line(error)}") from error
        self._answered = asked
        return found

    async def _check_still_there(self) -> None:
        """Raises EngineError where the server has come back with another model, whose texts must not be mixed in."""
        assert self._client, "the connections are not opened"
        response = await self._client.get(f"{self.url}{self._models}")
        if response.is_success:
            try:
                same = self._is_there(response.json())
            except ValueError:  # not JSON
                same = False
            if not same:
                raise EngineError(f"{self.url} does not serve {self.model} any more")
