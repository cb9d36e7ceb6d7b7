"""(b) The packed engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants.prompts import Prompts, scores
from benchmarks.task import Conversation, Job, run
from judge.engines.packed import PackedEngine


class Packed:
    """All metrics of a batch of dialogues in one pass."""

    def __init__(self, job: Job) -> None:
        self._folder = Path(job.model)
        self._prompts = Prompts(job.model)
        self._engine = _load(self._folder)

    def score(self, dialogues: Sequence[Conversation]) -> list[float | None]:
        return scores(self._engine.level_logprobs(self._prompts.trees(dialogues), self._prompts.level_ids))

    def forget(self) -> None:
        """A new engine, which has computed nothing yet."""
        self._engine = _load(self._folder)

    def facts(self) -> dict[str, Any]:
        known = {name: getattr(self._engine, name, None) for name in ("name", "computed_tokens", "forward_seconds")}
        return {**self._prompts.counts(), **known}


def _load(folder: Path) -> Any:
    return getattr(PackedEngine, "load", PackedEngine)(folder)


if __name__ == "__main__":
    run(Packed)
