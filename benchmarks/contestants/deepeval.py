"""(f) DeepEval's GEval over the server, through its own concurrent ``evaluate``.

Settings ``mode``: ``short`` gives the steps of evaluation and has the server allow a score with an empty reason;
``defaults`` gives the criterion alone, so that it writes the steps first, and sets nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from deepeval import evaluate
from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig, ErrorConfig
from deepeval.metrics import GEval
from deepeval.metrics.g_eval import Rubric
from deepeval.models import LocalModel
from deepeval.test_case import LLMTestCase, SingleTurnParams

from benchmarks.server import Served
from benchmarks.task import Conversation, Guide, Job, run

CONCURRENT = 32
ANSWER = {
    "type": "object",
    "properties": {"reason": {"enum": [""]}, "score": {"enum": [1, 2, 3, 4, 5]}},
    "required": ["reason", "score"],
    "additionalProperties": False,
}
SHORT = {
    "max_tokens": 32,
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER}},
}


class DeepEval:
    """One ``evaluate`` of all dialogues with a GEval per metric."""

    def __init__(self, job: Job) -> None:
        served = Served(job.server)
        self.forget, self.facts = served.forget, served.facts
        self._short = job.settings["mode"] == "short"
        self._guides = job.metrics
        kwargs = SHORT if self._short else {}
        self._model = LocalModel(model="tiny", base_url=job.server, api_key="none", generation_kwargs=kwargs)

    def score(self, dialogues: Sequence[Conversation]) -> list[float | None]:
        found = evaluate(
            [LLMTestCase(name=str(i), input=d.task, actual_output=d.transcript) for i, d in enumerate(dialogues)],
            [self._metric(number, guide) for number, guide in enumerate(self._guides)],
            async_config=AsyncConfig(max_concurrent=CONCURRENT),
            display_config=DisplayConfig(show_indicator=False, print_results=False, inspect_after_run=False),
            error_config=ErrorConfig(ignore_errors=True),
            cache_config=CacheConfig(write_cache=False),
        )
        scores = {
            (int(case.name), metric.name.split()[0]): metric.score
            for case in found.test_results
            for metric in case.metrics_data or []
        }
        pairs = [(i, f"metric{number}") for i in range(len(dialogues)) for number in range(len(self._guides))]
        return [_level(scores.get(pair)) for pair in pairs]

    def _metric(self, number: int, guide: Guide) -> GEval:
        return GEval(
            name=f"metric{number}",
            criteria=guide.criterion,
            evaluation_steps=[guide.criterion] if self._short else None,
            rubric=[Rubric(score_range=(int(n), int(n)), expected_outcome=text) for n, text in guide.levels.items()],
            evaluation_params=[SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT],
            model=self._model,
        )


def _level(share: float | None) -> float | None:
    """A level from where it stands between the lowest and the highest."""
    return None if share is None else 1 + 4 * share


if __name__ == "__main__":
    run(DeepEval)
