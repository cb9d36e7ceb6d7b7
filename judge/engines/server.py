"""Scoring by a server: the prompts of many dialogues at once, each asked by the server's protocol.

What is done where the server is busy or fails is in ``judge.engines.patient_client``, how requests are written and
answers read in ``judge.engines.server_protocols``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from judge.engines import PATIENCE_S, Answer, AnswerLog, Failure, Rows, Text, silent
from judge.engines.llama_cpp import LlamaCppTokenizer
from judge.engines.patient_client import SAME_TOKENS, CutsPrompts, Pace, PatientClient, paced
from judge.engines.served_model import Served, same_model
from judge.engines.server_protocols import Logprobs, Request
from judge.prompting.prompt_tree import Ids, PromptTree

WINDOW = 256
"""Dialogues submitted together: enough to keep the server busy, few enough to keep memory flat."""


SYNC_S = 2.0
"""Seconds after which answers that came are made to survive the machine too."""


Found = TypeVar("Found")


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
        self.served = served
        self.pace = Pace(concurrency, served.slots)
        self._client = PatientClient(
            served.url, served.model, lambda answer: same_model(answer, served.model), patience, self.pace, served.probe
        )
        self.max_tokens = served.max_tokens
        self.on_progress: Callable[[int], None] = silent
        self.log_of: Callable[[PromptTree], AnswerLog | None] = lambda tree: None
        self._unlisted = 0
        self._longest_kept: tuple[int, Request[Logprobs]] | None = None

    def stop_by(self, stop: threading.Event) -> None:
        """Once ``stop`` is set nothing more is asked: what is in flight ends, and no failing server is waited for."""
        self._client.stop = stop
        if isinstance(self.served.tokenizer, LlamaCppTokenizer):
            self.served.tokenizer.stop = stop

    @property
    def report(self) -> dict[str, Any]:
        """See ``Engine.report``; ``unlisted_levels`` is there for a server that lists its likeliest tokens alone.

        It counts the levels that were not among them.
        """
        protocol = self.served.protocol
        return {
            "name": self.name,
            "url": self.served.url,
            "protocol": protocol.name,
            "takes_token_ids": protocol.takes_ids,
            "dialogues_at_once": self.pace.limit,
            "retries": self._client.retries,
            **({} if protocol.lists_all else {"unlisted_levels": self._unlisted}),
            **protocol.report,
        }

    def verify(self, tree: PromptTree) -> None:
        """Nothing to check: prompts are whole."""

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Answer]:
        """See ``Engine.level_logprobs``; what the log of a tree has is not asked for again, and the rest is kept there.

        From a server that lists only its likeliest tokens, a level that is not among them has probability 0 and is
        missing from the level mass, not filled in.

        Raises:
            EngineError: the server failed for too long, or cuts prompts; then answers to cut ones are in no log.
            Interrupted: ``stop`` was set; what came before it is in the logs.
        """
        found = [self._kept(tree, level_ids) for tree in trees]
        # Only these: those that are there would be done at once, and the server would seem to be faster than it is.
        jobs = [partial(self._leaves, tree, level_ids) for tree, kept in zip(trees, found, strict=True) if kept is None]
        asked = iter(self._all(jobs, trees))
        return [next(asked) if kept is None else kept for kept in found]

    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> list[list[Text]]:
        """See ``Engine.generate``; what the log of a tree has is not asked for again, and the rest is kept there.

        Errors as those of ``level_logprobs``. A text is kept as a row of its ids.
        """

        async def written(prompt: Ids, log: AnswerLog | None) -> Text:
            found = await self._rows(
                self.served.protocol.text(prompt, max_tokens), log, lambda ids: list(map(float, ids))
            )
            return found if isinstance(found, Failure) else tuple(map(int, found[0]))

        jobs = [partial(written, prompt, self.log_of(tree)) for tree in trees for prompt in tree.prompts]
        texts = iter(self._all(jobs, trees))
        return [list(islice(texts, len(tree.leaves))) for tree in trees]

    def _kept(self, tree: PromptTree, level_ids: Sequence[Ids]) -> Answer | None:
        """The rows of a tree's leaves where its log has them all; None where something is to be asked.

        The process that kept them may have ended before it was seen whether the server cuts prompts; so the longest
        that was kept is noted.
        """
        log, rows = self.log_of(tree), Rows()
        if log is None:
            return None
        for request in self.served.protocol.levels(tree, level_ids):
            if (kept := log.get(request.key)) is None:
                return None
            if request.longer and (read := log.read(request.key) or 0) > (self._longest_kept or (0,))[0]:
                self._longest_kept = read, request
            rows += kept
        self.on_progress(len(rows))
        return np.array(rows)

    async def _leaves(self, tree: PromptTree, level_ids: Sequence[Ids]) -> Answer:
        """The rows of a tree's leaves; or the first failure among them.

        Its requests are sent one after another, so that the server's prefix cache serves the later ones, and are
        written one by one, so that those of 256 dialogues are not in memory at once.
        """
        log, rows = self.log_of(tree), Rows()
        for request in self.served.protocol.levels(tree, level_ids):
            found = await self._rows(request, log, lambda logprobs: self._row(logprobs, level_ids))
            if isinstance(found, Failure):
                return found
            rows += found
        return np.array(rows)

    async def _rows(
        self, request: Request[Found], log: AnswerLog | None, row: Callable[[Found], list[float]]
    ) -> Rows | Failure:
        """A row of what is found for each prompt of a request: from the log, or asked for and then kept there."""
        key = request.key
        rows = log.get(key) if log else None
        if rows is None:
            answer = await self._client.ask(request)
            if isinstance(answer, Failure):
                return answer
            rows = [row(value) for value in answer.values]
            if log:
                log.add(key, rows, answer.read)
        self.on_progress(len(rows))
        return rows

    def _row(self, logprobs: Logprobs, level_ids: Sequence[Ids]) -> list[float]:
        self._unlisted += sum(not logprobs.keys() & ids for ids in map(set, level_ids))
        row: list[float] = self.served.protocol.by_level(logprobs, level_ids).tolist()
        return row

    def _all(self, jobs: Sequence[Callable[[], Awaitable[Found]]], trees: Sequence[PromptTree]) -> list[Found]:
        """What jobs about some trees find, while the trees' logs are synced again and again."""
        logs = list({id(log): log for log in map(self.log_of, trees) if log}.values())

        async def synced() -> None:
            while True:
                await asyncio.sleep(SYNC_S)
                for log in logs:
                    await asyncio.to_thread(log.sync)

        async def everything() -> list[Found]:
            async with self._client.opened():
                if self._longest_kept:
                    self._client.check_all_read(self._longest_kept[1], self._longest_kept[0])
                work = asyncio.ensure_future(paced(jobs, self.pace))
                sync = asyncio.ensure_future(synced())
                try:  # the second ends by an error alone
                    await asyncio.wait([work, sync], return_when=asyncio.FIRST_COMPLETED)
                    if sync.done():
                        sync.result()
                    return work.result()
                finally:
                    for task in (work, sync):
                        task.cancel()
                    await asyncio.gather(work, sync, return_exceptions=True)

        try:
            return asyncio.run(everything())
        except CutsPrompts as error:
            for log in logs:
                log.take_back(error.read - SAME_TOKENS)
            raise
        finally:
            for log in logs:
                log.sync()
