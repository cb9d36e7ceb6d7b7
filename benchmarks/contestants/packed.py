"""(b) The engine in this process: packed, or forked where it is told to do without packed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants.prompts import Prompts, scores
from benchmarks.task import Conversation, Job, run
from judge.engines.packed.engine import PackedEngine


class Packed:
    """All metrics of a batch of dialogues in one pass; in the mode ``forked`` a dialogue's in one batch."""

    def __init__(self, job: Job) -> None:
        self._folder, self._refused = Path(job.model), {"packed": "the comparison"} if job.settings["mode"] else {}
        self._prompts = Prompts(job.model)
        self.forget()

    def score(self, dialogues: Sequence[Conversation]) -> list[float | None]:
        return scores(self._engine.level_logprobs(self._prompts.trees(dialogues), self._prompts.level_ids))

    def forget(self) -> None:
        """A new engine, which has computed nothing yet, watched from outside."""
        self._engine = PackedEngine.load(self._folder)
        self._engine.refused = self._refused
        self._tokens, self._seconds = 0, 0.0
        self._engine.model.register_forward_pre_hook(self._begin, with_kwargs=True)
        self._engine.model.register_forward_hook(self._end)

    def _begin(self, model: Any, args: Any, inputs: dict[str, Any]) -> None:
        self._tokens += inputs["input_ids"].numel()
        self._started = time.perf_counter()

    def _end(self, model: Any, args: Any, output: Any) -> None:
        self._seconds += time.perf_counter() - self._started

    def facts(self) -> dict[str, Any]:
        watched = {"computed_tokens": self._tokens, "forward_seconds": self._seconds}
        return {**self._prompts.counts(), "name": self._engine.name, **watched}


if __name__ == "__main__":
    run(Packed)
