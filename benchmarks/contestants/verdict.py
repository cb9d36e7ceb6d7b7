"""(g) Verdict's JudgeUnit over the server, through its own pipeline and threads, its rate limiter off.

Settings ``mode``: ``short`` reads the expectation off one token's probabilities (``WeightedSummedScoreExtractor``);
``defaults`` leaves the extractor as it is, which asks for a call of a tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verdict import Pipeline
from verdict.common.judge import JudgeUnit
from verdict.extractor import WeightedSummedScoreExtractor
from verdict.model import vLLMModel
from verdict.scale import DiscreteScale
from verdict.schema import Schema
from verdict.util import ratelimit

from benchmarks.server import Served
from benchmarks.task import Conversation, Guide, Job, run

PROMPT = "{source.task}请按评分标准为角色的发言打分。\n\n{source.dialogue}\n\n{source.rubric}\n"
SHORT = {"max_tokens": 1}


class Verdict:
    """One pipeline over all judgments."""

    def __init__(self, job: Job) -> None:
        served = Served(job.server)
        self.forget, self.facts = served.forget, served.facts
        ratelimit.disable()
        self._short = job.settings["mode"] == "short"
        self._server = job.server
        self._rubrics = [_rubric(guide) for guide in job.metrics]

    def score(self, dialogues: Sequence[Conversation]) -> list[float | None]:
        rows = [
            Schema.of(task=dialogue.task, dialogue=dialogue.transcript, rubric=rubric)
            for dialogue in dialogues
            for rubric in self._rubrics
        ]
        table, columns = (Pipeline() >> self._unit()).run_from_list(rows)
        return [_level(value) for value in table[columns[0]]]

    def _unit(self) -> Any:
        unit = JudgeUnit(DiscreteScale((1, 5))).prompt(PROMPT)
        unit = unit.via(vLLMModel("tiny", self._server, "none"), **(SHORT if self._short else {}))
        return unit.extract(WeightedSummedScoreExtractor()) if self._short else unit


def _rubric(guide: Guide) -> str:
    return "\n".join([guide.criterion, *(f"{level} 分：{text}" for level, text in guide.levels.items())])


def _level(value: float) -> float | None:
    """None for what is on no level: its expectation is 0 where it found none among the tokens."""
    return float(value) if 1 <= value <= 5 else None


if __name__ == "__main__":
    run(Verdict)
