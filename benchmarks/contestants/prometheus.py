"""(e) prometheus-eval's absolute grading over the server.

Settings ``mode``: ``short`` has the server allow a score and no feedback; ``short-async`` does the same through its
asynchronous client, which as released drops every parameter and is given them here; ``feedback`` has the server allow
feedback of a fixed length and then a score, as a trained judge would give; ``defaults`` sets nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import prometheus_eval.litellm as client
from prometheus_eval import PrometheusEval
from prometheus_eval.prompts import SCORE_RUBRIC_TEMPLATE

from benchmarks.server import Served
from benchmarks.task import Conversation, Guide, Job, run

SHORT = {
    "max_tokens": 16,
    "temperature": 0,
    "extra_body": {"structured_outputs": {"choice": [f"Score{level}" for level in range(1, 6)]}},
}
"""The shortest answers that its parser reads as a score."""
FEEDBACK_TOKENS = 60
"""Feedback is so many digits, a token each: what a random model writes of itself, only that here it ends."""
FEEDBACK = {
    "max_tokens": FEEDBACK_TOKENS + 16,
    "temperature": 0,
    "extra_body": {"structured_outputs": {"regex": rf"[0-9]{{{FEEDBACK_TOKENS}}} \[RESULT\] [1-5]"}},
}
PARAMETERS = {"defaults": {}, "feedback": FEEDBACK}


class Prometheus:
    """One ``absolute_grade`` of all judgments."""

    def __init__(self, job: Job) -> None:
        served = Served(job.server)
        self.forget, self.facts = served.forget, served.facts
        mode = job.settings["mode"]
        self._params = PARAMETERS.get(mode, SHORT)
        self._rubrics = [_rubric(guide) for guide in job.metrics]
        self._grader = PrometheusEval(model=_client(mode == "short-async", "hosted_vllm/tiny", job.server))

    def score(self, dialogues: Sequence[Conversation]) -> list[float | None]:
        pairs = [(dialogue, rubric) for dialogue in dialogues for rubric in self._rubrics]
        _, found = self._grader.absolute_grade(
            instructions=[dialogue.task for dialogue, _ in pairs],
            responses=[dialogue.transcript for dialogue, _ in pairs],
            rubric=[rubric for _, rubric in pairs],
            reference_answers=[None] * len(pairs),
            params=self._params,
        )
        return list(found)


def _client(concurrent: bool, name: str, server: str) -> Any:
    if not concurrent:
        return client.LiteLLM(name, api_base=server)
    client.acompletion = partial(client.acompletion, **SHORT)
    return client.AsyncLiteLLM(name, api_base=server, requests_per_minute=10**9)


def _rubric(guide: Guide) -> str:
    anchors = {f"score{level}_description": text for level, text in guide.levels.items()}
    return SCORE_RUBRIC_TEMPLATE.format(criteria=guide.criterion, **anchors)


if __name__ == "__main__":
    run(Prometheus)
