"""What a contestant is asked and what it answers: the job and the result, as JSON files between processes.

Uses the standard library alone, as every contestant imports it in an environment of its own.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue: who plays whom, and its rounds as pairs of user and character."""

    source: str
    character: str
    scenario: str
    turns: Sequence[Sequence[str]]

    @property
    def task(self) -> str:
        """What the character was asked to do, for a judge that wants an instruction."""
        return f"扮演动漫角色「{self.character}」，回应用户的心事。"

    @property
    def transcript(self) -> str:
        """All rounds as plain text."""
        return "\n".join(f"用户：{user}\n{self.character}：{answer}" for user, answer in self.turns)


@dataclass(frozen=True, slots=True)
class Guide:
    """One metric's rubric: its title, its definition, and an anchor for each level."""

    title: str
    definition: str
    levels: dict[str, str]

    @property
    def criterion(self) -> str:
        """Title and definition."""
        return f"{self.title}：{self.definition}"


@dataclass(frozen=True, slots=True)
class Job:
    """A model, what to judge with it and how; every dialogue is judged on every metric, a dialogue's together."""

    model: str
    dialogues: list[Conversation]
    warm_up: list[Conversation]
    metrics: list[Guide]
    server: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write the job as JSON."""
        file.write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Job:
        """Read what ``write`` wrote."""
        fields = json.loads(file.read_text(encoding="utf-8"))
        for name in ("dialogues", "warm_up"):
            fields[name] = [Conversation(**dialogue) for dialogue in fields[name]]
        fields["metrics"] = [Guide(**guide) for guide in fields["metrics"]]
        return cls(**fields)


class Contestant(Protocol):
    """A judge that is made from a job."""

    def score(self, dialogues: Sequence[Conversation]) -> list[float | None]:
        """What is timed: a score for each judgment, dialogue by dialogue; None where it failed."""
        ...

    def forget(self) -> None:
        """Empty the caches that the warm-up filled."""
        ...

    def facts(self) -> dict[str, Any]:
        """What else is known afterwards: ``prompt_tokens``, ``unique_tokens``, ``computed_tokens``, …"""
        ...


def run(make: Callable[[Job], Contestant]) -> None:
    """A contestant's whole life: read the job, load, warm up, score against the clock, write the result."""
    job, place = Job.read(Path(sys.argv[1])), Path(sys.argv[2])
    try:
        begun = time.perf_counter()
        contestant = make(job)
        if job.warm_up:
            contestant.score(job.warm_up)
        contestant.forget()
        ready = time.perf_counter()
        scores = contestant.score(job.dialogues)
        seconds = time.perf_counter() - ready
        result = {"load_seconds": ready - begun, "seconds": seconds, "scores": scores, **contestant.facts()}
    except Exception as error:  # whatever a library raises is this contestant's result
        traceback.print_exc()
        result = {"error": one_line(f"{type(error).__name__}: {error}")}
    place.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")


def one_line(text: str, width: int = 300) -> str:
    """The text without line breaks, cut to a width."""
    joined = " ".join(text.split())
    return joined if len(joined) <= width else f"{joined[: width - 1]}…"
