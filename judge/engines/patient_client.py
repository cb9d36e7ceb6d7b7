"""Asking a server many things at once, with patience where it is busy, drops requests or restarts.

A request that fails is tried again with growing pauses, until the server has answered nothing at all for ``patience``
seconds. A request that keeps failing while the server answers others is at fault itself: it becomes a ``Failure``, and
the rest goes on. How long a request waits in the server's own queue no client can see; so none is given up while the
server answers others. Knows nothing of levels, judges or replies: a ``Request`` says what is sent and how the answer is
read.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx

from judge.engines import Failure
from judge.engines.connections import API_KEY, connecting, through
from judge.engines.served_model import TIMEOUT
from judge.engines.server_protocols import (
    BUSY,
    REFUSED,
    UNREADABLE,
    MissingTokens,
    PromptCut,
    Request,
    Value,
    Withheld,
    answer_of,
    prompt_tokens,
    said,
)
from judge.errors import EngineError, Interrupted, one_line
from judge.types import CONTENT_FILTER, ENGINE_FAILED

FIRST, MOST = 8, 64
"""How many dialogues are asked about at the same time at first, and at most, where the server does not say."""


FASTER = 1.1
"""By how much asking about twice as many has to be faster, so that it is done."""


FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Seconds between the first two tries, and the most between any two."""


STEP_S = 0.2
"""Seconds after which a pause looks whether the user stopped it."""


GRACE_S = 1.0
"""Seconds for which what is in flight may end after an error."""


TOO_MANY = 429
"""The HTTP status code by which a server says that it is asked too much."""


TOO_LATE = frozenset({408, 503, 504})
"""HTTP status codes by which a server, or what stands before it, gives up what waits there for too long."""


FEWEST_READ = 256
"""Tokens. No server cuts prompts to so few, so a smaller count is no sign of it."""


SAME_TOKENS = 4
"""Two prompts that differ by so few tokens are of one length."""


SLOW_S = 30.0
"""Seconds that a dialogue may wait for others: above, it is seen whether fewer at once are answered as fast."""


SHOWN_TRY = 2
"""The failure of one request at which the user is told: the first may pass by itself."""


TRIES = 5
"""Failures of one request after which the server is asked something that it has answered before; and dialogues that a
server may refuse before it has answered one."""


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answered(Generic[Value]):
    """What came back for each prompt of a request, and how many tokens of them the server read, where it says so."""

    values: list[Value]
    read: int | None


class CutsPrompts(EngineError):
    """A server was found to read no more than ``read`` tokens of a prompt: what it answered to as many is void."""

    def __init__(self, message: str, read: int) -> None:
        super().__init__(message)
        self.read = read


class HttpRefusal(EngineError):
    """A server answers by an HTTP status that another try will not change."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Transient(Exception):
    """A request failed in a way that may pass, so that another try is worth it."""


class _TooMany(_Transient):
    """The server is asked too much, for which no request is at fault."""


FAILED = (httpx.TransportError, TimeoutError, _Transient)
"""Errors of a request after which another try may succeed."""


@dataclass(slots=True)
class _Failing:
    """How often a request failed, since when by ``time.monotonic()``, and the seconds to wait before the next try."""

    tries: int = 0
    since: float = 0.0
    pause: float = FIRST_PAUSE_S

    def again(self, answered_at: float) -> None:
        """It failed once more; the server answered another request at ``answered_at``.

        Patience counts from the first failure and not from the request, as a large batch may take minutes; and anew
        from every answer to another.
        """
        self.tries += 1
        self.since = max(self.since or time.monotonic(), answered_at)


class Pace:
    """How many dialogues a server is asked about at the same time: as many as make it faster.

    It begins with a few and doubles them while that makes the server faster, or takes what the server has slots for.
    Of a slow server, where each then waits for long, it tries half as many while that makes it no slower.

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
        self._best, self._halving, self._slowed = 0.0, False, clock()
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
        if self._halving and rate * FASTER < self._best:
            self._is_found, self.limit = True, self.limit * 2
        elif self._halving:
            self._halve_if_slow(rate)
        elif self._best and rate < FASTER * self._best:
            self.limit = max(self.limit // 2, 1)
            self._halve_if_slow(rate)
        else:
            self._best, self._is_found = rate, self.limit >= MOST
            self.limit = min(self.limit * 2, MOST)
        self.begin()

    def _halve_if_slow(self, rate: float) -> None:
        """Half as many are to be tried next, where each waits for long; otherwise it stays at these."""
        self._best = max(self._best, rate)
        self._halving = self.limit > 1 and self.limit / self._best > SLOW_S
        if self._halving:
            self.limit //= 2
        self._is_found = not self._halving

    def slower(self, since: float) -> None:
        """A request sent at ``since`` was too much: half as many, and no more; once for all that were under way."""
        if since >= self._slowed and not self._is_fixed:
            self._is_found, self.limit, self._slowed = True, max(self.limit // 2, 1), self._clock()
            self.begin()

    def now(self) -> float:
        """The time by its clock."""
        return self._clock()


async def paced(jobs: Sequence[Callable[[], Awaitable[Result]]], pace: Pace) -> list[Result]:
    """What jobs return, as many of them at the same time as the pace says.

    Args:
        jobs: each is about one dialogue.
        pace: how many at once.

    Raises:
        EngineError: the first that a job raised; what still runs a moment later is cancelled.
        Interrupted: a job raised it; what still ran has ended.
    """
    waiting = deque(enumerate(jobs))
    running: dict[asyncio.Task[Result], int] = {}
    found: dict[int, Result] = {}
    stopped = None
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
        patience: seconds without any answer during which a failing request is tried again.
        pace: how many requests are sent at the same time at most; it is told when that is too much.
        probe: a request that the server has answered already.
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
        probe: Request[Any],
        key: str = API_KEY,
        models: str = "/v1/models",
    ) -> None:
        self.url, self.model, self.patience, self.pace = url, model, patience, pace
        self.retries = 0
        self.stop: threading.Event | None = None
        self.note: Callable[[str], None] | None = None
        self._is_there, self._probe, self._key, self._models = is_there, probe, key, models
        self._client: httpx.AsyncClient | None = None
        self._answered: Request[Any] | None = None
        self._answered_at = 0.0
        self._in_flight, self._refused_first = 0, 0
        self._limits: set[asyncio.Timeout] = set()
        self._checking, self._most_read = asyncio.Lock(), FEWEST_READ
        self._checks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connections to the server, for as long as this lasts.

        CutsPrompts at the end where the server was found to cut prompts; until then no answer is to be relied on.
        """
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=max(MOST, self.pace.limit))
        timeout = httpx.Timeout(None, connect=TIMEOUT.connect)  # the time for an answer is looked after in ``_send``
        options, self._checking = connecting(self.url, self._key), asyncio.Lock()  # a lock is of one event loop
        async with httpx.AsyncClient(**options, timeout=timeout, limits=limits) as self._client:
            try:
                yield
                await asyncio.gather(*self._checks)
            finally:
                for check in self._checks:
                    check.cancel()
                await asyncio.gather(*self._checks, return_exceptions=True)
                self._checks = []

    async def ask(self, asked: Request[Value]) -> Answered[Value] | Failure:
        """What comes back for each prompt, after as many tries as patience allows; or a failure of this request alone.

        Raises:
            HttpRefusal: the server refuses whatever it is asked, or by a status that no request is at fault for.
            EngineError: the server fails for too long, has another model now, or was found to cut prompts.
            Interrupted: the user stopped it, before this was asked or while the server failed.
        """
        self._heed_stop("")
        for check in self._checks:
            if check.done():
                check.result()
        failing = _Failing()
        while True:
            try:
                if failing.tries:
                    await self._check_still_there()
                return await self._try(asked)
            except FAILED as error:
                failing.again(self._answered_at)
                if failing.tries >= TRIES and not isinstance(error, _TooMany) and await self._answers_others():
                    return Failure(ENGINE_FAILED, one_line(error))
                self._give_up_or_tell(failing, error)
            self.retries += 1
            # Pauses of random length, so that 32 requests that failed together do not come back together.
            await self._pause(failing.pause * random.uniform(0.5, 1.0))
            failing.pause = min(2 * failing.pause, LONGEST_PAUSE_S)

    def _give_up_or_tell(self, failing: _Failing, error: Exception) -> None:
        """EngineError where patience would end before the next try; otherwise the user is told once that it fails."""
        reason = one_line(error) or type(error).__name__
        if time.monotonic() - failing.since + failing.pause > self.patience:
            way = through(self.url)
            raise EngineError(f"{self.url} fails since {self.patience:.0f} s ({reason}){way}") from error
        if self.note and failing.tries == SHOWN_TRY:
            self.note(f"{self.url} fails ({reason}); it is tried again for {self.patience:.0f} s")
            self.note = None

    async def _answers_others(self) -> bool:
        """Whether the server answers again what it has answered before: then a request that fails is at fault."""
        with suppress(*FAILED, HttpRefusal):
            return not isinstance(await self._try(self._answered or self._probe, is_again=True), Failure)
        return False

    async def _pause(self, seconds: float) -> None:
        """Wait; Interrupted as soon as the user stops it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._heed_stop(f" while {self.url} failed")
            await asyncio.sleep(min(left, STEP_S))

    def _heed_stop(self, when: str) -> None:
        if self.stop and self.stop.is_set():
            raise Interrupted(f"stopped{when}")

    async def _try(self, asked: Request[Value], is_again: bool = False) -> Answered[Value] | Failure:
        """One try; ``_Transient`` or an error of the connection where another may succeed.

        ``is_again``: the server has answered it before, so that a refusal is not its fault.
        """
        response = await self._send(asked)
        if not response.is_success:
            return await self._refused(asked, response, is_again)
        try:
            whole = answer_of(response)
            found = Answered(asked.read(whole), prompt_tokens(whole))
        except PromptCut as error:
            raise EngineError(f"{self.url} {error}") from error
        except UNREADABLE as error:
            if isinstance(error, MissingTokens) and asked.wider:
                return await self._try(asked.wider())
            if isinstance(error, Withheld):
                return Failure(CONTENT_FILTER, one_line(error))
            raise _Transient(f"an answer that cannot be read: {one_line(error)}") from error
        self._heard()
        self.check_all_read(asked, found.read)
        if not is_again:
            self._answered = asked
        return found

    async def _refused(self, asked: Request[Any], response: httpx.Response, is_again: bool) -> Failure:
        """The failure of a request by whose status the server finds fault with it alone; an error for other statuses.

        ``_Transient`` where another try may succeed, otherwise ``HttpRefusal``.
        """
        answer = f"HTTP {response.status_code}: {said(response)}"
        if response.status_code == TOO_MANY:
            raise _TooMany(answer)
        if response.status_code in BUSY:
            raise _Transient(answer)
        if response.status_code in REFUSED and not is_again:
            if reason := asked.at_fault(response):
                return Failure(reason, answer)
            # Refused at once it is this prompt that the server finds fault with, but only if it takes others.
            self._refused_first += 1
            if self._answered or (self._refused_first < TRIES and await self._answers_others()):
                return Failure(ENGINE_FAILED, answer)
        raise HttpRefusal(self._refusal(response, answer), response.status_code)

    def check_all_read(self, asked: Request[Any], read: int | None) -> None:
        """Begin to see whether the server reads more tokens of a longer prompt than the ``read`` ones of this request.

        Where it does not, it cuts prompts to that length: the next ``ask``, or at the latest the end of ``opened``,
        raises CutsPrompts. It is asked so beside the others, whenever it has read more than ever before, which happens
        a few times in a run; a server that fails on the longer prompt is asked ``TRIES`` times and then believed.
        """
        if asked.longer and read is not None and read > self._most_read:
            self._most_read = read
            self._checks.append(asyncio.ensure_future(self._refuse_cuts(asked.longer, read)))

    async def _refuse_cuts(self, longer: Callable[[], Request[Any]], read: int) -> None:
        async with self._checking:
            if read < self._most_read:
                return  # a check of more tokens waits behind this one, and says the same of fewer
            more = await self._tokens_read(longer())
        if more is not None and abs(more - read) <= SAME_TOKENS:
            cut = PromptCut("of one prompt and as many of a longer one", read)
            raise CutsPrompts(f"{self.url} {cut}", read)

    async def _tokens_read(self, asked: Request[Any]) -> int | None:
        """How many tokens of a request the server reads; None where it refuses it, fails on it or does not say."""
        for number in range(TRIES):
            if number:
                await self._pause(FIRST_PAUSE_S * 2 ** (number - 1))
            try:
                response = await self._send(asked, is_next=True)
            except httpx.TransportError:
                continue
            except TimeoutError:  # it was waited for long enough
                return None
            with suppress(*UNREADABLE):
                if response.is_success:
                    return prompt_tokens(answer_of(response))
            if not response.is_success and response.status_code not in BUSY:  # refused and not cut, being too long
                return None
        return None

    def _refusal(self, response: httpx.Response, answer: str) -> str:
        """What is said of a status that another try will not change."""
        if response.status_code in (401, 403):
            return f"{self.url} refuses the key ({answer}){through(self.url)}; set {self._key} to the server's key"
        return f"{self.url} answers {answer}{through(self.url)}"

    async def _send(self, asked: Request[Any], is_next: bool = False) -> httpx.Response:
        """The response to a request, which is sent when its turn has come; one that ``is_next`` before all that wait.

        TimeoutError where the server answers nothing at all for as long as ``TIMEOUT`` says: a request may wait behind
        others in the server's queue, so every answer to another begins its time anew.
        """
        assert self._client, "the connections are not opened"
        async with self._turn(is_next):
            sent = self.pace.now()
            try:
                async with asyncio.timeout(TIMEOUT.read) as limit:
                    self._limits.add(limit)
                    response = await self._client.post(f"{self.url}{asked.path}", json=asked.body)
            except (TimeoutError, httpx.ConnectTimeout):
                self.pace.slower(sent)
                raise
            finally:
                self._limits.discard(limit)
        if response.status_code in {TOO_MANY} | TOO_LATE:
            self.pace.slower(sent)
        return response

    @asynccontextmanager
    async def _turn(self, is_next: bool) -> AsyncIterator[None]:
        """Wait until fewer requests are in flight than may be, and count one more for as long as this lasts.

        One that ``is_next`` is counted while it waits, so that the next place is its own; there is one such at a time.
        """
        self._in_flight += is_next
        counted = is_next
        try:
            while self._in_flight - is_next >= self.pace.limit:  # fewer than were begun, as it was asked too much
                await self._pause(STEP_S)
            self._in_flight += not is_next
            counted = True
            yield
        finally:
            self._in_flight -= counted

    def _heard(self) -> None:
        """The server has answered: whoever waits for an answer of it goes on waiting."""
        self._answered_at = time.monotonic()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + (TIMEOUT.read or 0.0))

    async def _check_still_there(self) -> None:
        """Raises EngineError where the server has come back with another model, whose texts must not be mixed in."""
        assert self._client, "the connections are not opened"
        response = await self._client.get(f"{self.url}{self._models}", timeout=TIMEOUT)
        if response.is_success:
            try:
                same = self._is_there(response.json())
            except ValueError:  # not JSON
                same = False
            if not same:
                raise EngineError(f"{self.url} does not serve {self.model} any more")
