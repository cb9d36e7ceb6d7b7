"""Scoring by a server: the prompts of many dialogues at once, each asked by the server's protocol.

What is done where the server is busy or fails is in ``judge.engines.patient_client``, how requests are written and
answers read in ``judge.engines.server_protocols``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from judge.engines import PATIENCE_S, Answer, Array, Failure, Text, silent
from judge.engines.patient_client import Pace, PatientClient, paced
from judge.engines.served_model import Served, same_model
from judge.engines.server_protocols import Logprobs, Request, Value
from judge.prompting.prompt_tree import Ids, PromptTree

WINDOW = 256
"""Dialogues submitted together: enough to keep the server busy, few enough to keep memory flat."""


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
            served.url, served.model, lambda answer: same_model(answer, served.model), patience, self.pace
        )
        self.max_tokens = served.max_tokens
        self.on_progress: Callable[[int], None] = silent
        self._unlisted = 0

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
            "retries": self._client.retries,
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

        async def one(requests: Iterable[Request[Value]]) -> list[Value] | Failure:
            values: list[Value] = []
            for request in requests:
                answer = await self._client.ask(request)
                if isinstance(answer, Failure):
                    return answer
                values += answer
            self.on_progress(len(values))
            return values

        async def everything() -> list[list[Value] | Failure]:
            async with self._client.opened():
                jobs = [partial(one, requests) for requests in asked]
                return await paced(jobs, self.pace, lambda: self._client.is_proven)

        return asyncio.run(everything())
