"""What to score and how, as the user says it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from judge.errors import InputError

LEVELS = (1, 2, 3, 4, 5)
"""The rating scale, worst to best."""


DIMENSIONS: dict[str, tuple[str, str, str]] = {
    "basic_dialogue": ("fluency", "coherency", "consistency"),
    "role_playing": ("character_knowledge", "speech_style", "behavioral_habit"),
    "emotional_support": ("emotional_value", "experience_sharing", "demand_matching"),
}
"""The three dimensions, each with the ids of its three metrics."""


METRICS: tuple[str, ...] = tuple(metric for metrics in DIMENSIONS.values() for metric in metrics)
"""The nine metrics of a dialogue, in the order they are always shown."""


OVERALL = "overall"
"""The mean of all nine metrics, beside those of the dimensions."""


COMPOSITES: dict[str, tuple[str, ...]] = {**DIMENSIONS, OVERALL: METRICS}
"""The means of metrics, each with its members."""


RESPONSE_DIVERSITY = "response_diversity"
"""The tenth metric: of a source's answers as one character across scenarios, not of one dialogue."""


STAND_IN = "STAND-IN"
"""The name of the stand-in judge in every row, table and page."""


STAND_IN_MARK = "esrp_judge_stand_in"
"""What the stand-in's ``config.json`` says of itself, so that it is known under any name."""


EMPTY_ANSWER = "empty_answer"
"""A reply of the character's is blank, or it never spoke."""


TOO_FEW_ANSWERS = "too_few_answers"
"""A source answered as a character fewer than twice, so its answers cannot be compared."""


TOO_LONG = "too_long"
"""The prompt is longer than the model takes."""


NOT_FINITE = "not_finite"
"""The model's probabilities are no numbers, or carry no mass on any level."""


ENGINE_FAILED = "engine_failed"
"""The engine failed on this dialogue again and again, and answered others meanwhile."""


TRANSIENT: frozenset[str] = frozenset({ENGINE_FAILED})
"""Errors of a judgment that may be gone on another try."""


MIN_MASS = 0.8
"""The median label mass under which a judge does not understand what it is asked."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One round: what the user said, and what the character answered.

    None is a side that said nothing there: where the character opened the dialogue, or the user had the last word.
    An empty text is a message without words.
    """

    user: str | None
    character: str | None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation of a user with a character as played by a source (a model, or people)."""

    source: str
    character: str
    scenario: str
    turns: tuple[Turn, ...]
    profile: str | None = None

    @property
    def id(self) -> str:
        """``source/character/scenario``."""
        return f"{self.source}/{self.character}/{self.scenario}"

    @property
    def replies(self) -> tuple[str, ...]:
        """What the character said, a text a round; rounds in which it said nothing are left out."""
        return tuple(turn.character for turn in self.turns if turn.character is not None)

    @property
    def is_answered(self) -> bool:
        """Whether the character said something, and none of its replies is blank."""
        return bool(self.replies) and all(map(str.strip, self.replies))

    @property
    def content_digest(self) -> str:
        """Hash of what a judge reads: turns, character and profile (32 hexadecimal digits)."""
        return digest([self.character, self.profile, [[turn.user, turn.character] for turn in self.turns]])


@dataclass(frozen=True, slots=True)
class Metric:
    """A rubric for one metric: what is rated, what each level looks like, and how it is asked.

    ``levels`` maps 1..5 to the anchor of that level; ``question`` is put to the judge where the metric is asked in
    the user's turn, ``answer`` is how the judge's answer begins where it is begun for it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    id: str
    dimension: str
    title: str
    definition: str
    levels: dict[int, str]
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Judgment:
    """A judge's rating on one metric, as a distribution over the five levels; or why there is none.

    ``probabilities`` sum to 1 (levels 1..5); ``mass`` is what they summed to before renormalising, in [0, 1].
    Exactly one of ``probabilities`` and ``error`` is set.
    """

    probabilities: tuple[float, ...] | None
    mass: float | None
    error: str | None = None

    @property
    def score(self) -> float | None:
        """Expected level, in [1, 5]; None where there is no judgment."""
        if self.probabilities is None:
            return None
        return sum(level * p for level, p in zip(LEVELS, self.probabilities, strict=True))


def digest(value: object, length: int = 32) -> str:
    """Hash of a JSON-like value, the same on every machine: ``length`` hexadecimal digits of its sha256."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


ALL_METRICS = (*METRICS, RESPONSE_DIVERSITY)


ANSWER_FORMS = ("none", "space", "newline", "level")
"""What may stand between the place where an answer begins and the digit of its level: a blank, or a word of the rubric.

Models differ in what they write first: most the digit itself, others a blank, which many tokenizers make a token of its
own, and small ones hardly a digit at all unless a word leads to it.
"""


ENGINES = ("auto", "packed", "vllm", "server")


AS_ASKED = "as asked for"
"""Why a judge was chosen that was named."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to score; each field is the command's option of the same name.

    Raises:
        InputError: an unknown metric or engine, or options that do not go together. (Language, layout, orderings and
            judge are checked where used.)
    """

    run: Path | None = None
    judge: str = "auto"
    engine: str = "auto"
    url: str | None = None
    protocol: str = "auto"
    concurrency: int | None = None
    patience: float = 300.0
    devices: tuple[str, ...] = ()
    tensor_parallel: int = 1
    language: str = "zh"
    layout: str = "auto"
    orderings: int = 1
    answer_form: str = "auto"
    min_mass: float = MIN_MASS
    metrics: tuple[str, ...] = ALL_METRICS
    sources: tuple[str, ...] = ()
    characters: tuple[str, ...] = ()
    limit: int | None = None
    mapping: str = ""
    """Which columns of the data are which fields; the option is called ``--map``."""
    prompts: Path | None = None
    rationales: int = 0

    def __post_init__(self) -> None:
        if not self.metrics:
            raise InputError(f"--metrics names none; choose from {', '.join(ALL_METRICS)}")
        for metric in self.metrics:
            if metric not in ALL_METRICS:
                raise InputError(f"--metrics {metric}: unknown metric; choose from {', '.join(ALL_METRICS)}")
        if self.rationales < 0:
            raise InputError(f"--rationales {self.rationales}: must be 0 or more")
        if self.answer_form not in ("auto", *ANSWER_FORMS):
            forms = ", ".join(("auto", *ANSWER_FORMS))
            raise InputError(f"--answer-form {self.answer_form}: unknown form; choose one of {forms}")
        if not 0 <= self.min_mass <= 1:
            raise InputError(f"--min-mass {self.min_mass}: give a number from 0 to 1")
        if self.engine not in ENGINES:
            raise InputError(f"--engine {self.engine}: unknown engine; choose one of {', '.join(ENGINES)}")
        self._check_server()
        if self.tensor_parallel < 1 or (self.tensor_parallel > 1 and (self.devices or self.engine == "packed")):
            raise InputError("--tensor-parallel must be at least 1, and needs --engine vllm without --devices")

    def _check_server(self) -> None:
        """InputError where what is said of a server does not go together."""
        if self.engine == "server" and not self.url:
            raise InputError("--engine server needs --url, the server's address; `make serve` starts one")
        if self.url and self.engine not in ("auto", "server"):
            raise InputError(f"--engine {self.engine} takes no --url; leave one of them out")
        if self.url and (self.devices or self.tensor_parallel != 1):
            raise InputError("--devices and --tensor-parallel are the server's own choice; leave them out with --url")
        if not self.url and (self.protocol != "auto" or self.concurrency is not None):
            raise InputError("--protocol and --concurrency say how a server is asked; give its address by --url")
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"--concurrency {self.concurrency}: must be at least 1")
