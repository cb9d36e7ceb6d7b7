"""What to score and how, as the user says it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from judge.errors import InputError

OVERALL = "overall"
"""The mean of all metrics of a rubric, beside those of its dimensions."""


CHATANIME = "chatanime"
"""The packaged rubric that is taken where none is named."""


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


UNKNOWN_LETTERS = "unknown_letters"
"""The judge's tokenizer cannot write more than a few of the text's characters."""


NOT_FINITE = "not_finite"
"""The model's probabilities are no numbers, or carry no mass on any level."""


ENGINE_FAILED = "engine_failed"
"""The engine failed on this dialogue again and again, and answered others meanwhile."""


CONTENT_FILTER = "content_filter"
"""A server's filter refused the text, or withheld the answer."""


TRANSIENT: frozenset[str] = frozenset({ENGINE_FAILED, CONTENT_FILTER})
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

    ``levels`` maps each level, worst to best, to its anchor; ``question`` is put to the judge where the metric is asked
    in the user's turn, ``answer`` is how the judge's answer begins where it is begun for it. ``scale`` says once more
    which levels there are, where they are not those of the whole rubric. ``like`` names the metric of ChatAnime that
    this one resembles, so that probes aimed at that one are aimed at this one too.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    id: str
    title: str
    definition: str
    levels: dict[int, str]
    question: str
    answer: str
    dimension: str = ""
    scale: str | tuple[int, ...] | int | None = None
    like: str = ""


def is_whole(levels: Sequence[int]) -> bool:
    """Whether levels, given upwards, are whole numbers without a gap."""
    return tuple(levels) == tuple(range(levels[0], levels[-1] + 1))


def scales_of(levels: Mapping[str, Sequence[int]]) -> dict[str, tuple[float, float]]:
    """Lowest and highest level of each metric."""
    return {metric: (float(own[0]), float(own[-1])) for metric, own in levels.items()}


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a rubric rates, without its words: which metrics on which levels, and which means of them are given."""

    rubric: str
    """The rubric's name."""
    levels: dict[str, tuple[int, ...]]
    """Of each metric of a dialogue, in the order in which they are shown: its levels, worst to best."""
    dimensions: dict[str, tuple[str, ...]]
    """The metrics of each dimension; a metric may be of none."""
    composites: dict[str, tuple[str, ...]]
    """The means of metrics, each with its members, which have one scale: of dimensions, of the rubric's own, and of
    all metrics (``OVERALL``)."""
    set_metric: str | None
    """The metric of a system's answers as one character across scenarios; None where there is none."""
    set_levels: tuple[int, ...]
    """Its levels."""
    titles: dict[str, str]
    """What metrics, dimensions, composites and the set metric are called."""
    likes: dict[str, str]
    """Of a metric that resembles one of ChatAnime's: which."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of a dialogue, in the order in which they are shown."""
        return tuple(self.levels)

    @property
    def all_metrics(self) -> tuple[str, ...]:
        """The metrics of a dialogue, and the set metric behind them."""
        return (*self.metrics, *([self.set_metric] if self.set_metric else []))

    @property
    def all_levels(self) -> tuple[int, ...]:
        """Every level that some metric has, upwards."""
        return tuple(sorted({*self.set_levels, *(level for levels in self.levels.values() for level in levels)}))

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest level of each metric."""
        return scales_of(self.levels)

    @property
    def is_mixed(self) -> bool:
        """Whether metrics differ in their levels."""
        return len(set(self.levels.values())) > 1

    def columns(self, metrics: Collection[str]) -> list[str]:
        """The columns of a table of scores on some metrics: these, then each mean that has all its members there."""
        means = [name for name, members in self.composites.items() if set(members) <= set(metrics)]
        return [*(metric for metric in self.levels if metric in metrics), *means]


@dataclass(frozen=True, slots=True)
class Judgment:
    """A judge's rating on one metric, as a distribution over its levels; or why there is none.

    ``probabilities`` has for each level its probability, which sum to 1; ``mass`` is what they summed to before
    renormalising, in [0, 1]. Exactly one of ``probabilities`` and ``error`` is set.
    """

    probabilities: dict[int, float] | None
    mass: float | None
    error: str | None = None

    @property
    def score(self) -> float | None:
        """Expected level; None where there is no judgment."""
        if self.probabilities is None:
            return None
        return sum(level * p for level, p in self.probabilities.items())


def digest(value: object, length: int = 32) -> str:
    """Hash of a JSON-like value, the same on every machine: ``length`` hexadecimal digits of its sha256."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


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

    ``rubric`` is the name of a packaged one, or a folder. No ``language`` is that of the rubric, and Chinese where it
    has several; no ``metrics`` are all of the rubric.

    Raises:
        InputError: an unknown engine, or options that do not go together. (Rubric, language, metrics, layout,
            orderings and judge are checked where used.)
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
    rubric: str | Path = CHATANIME
    language: str | None = None
    layout: str = "auto"
    orderings: int = 1
    answer_form: str = "auto"
    min_mass: float = MIN_MASS
    metrics: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    characters: tuple[str, ...] = ()
    limit: int | None = None
    shard: str = ""
    """Which share of the run, as ``2/3``; empty for all of it."""
    ray: str = ""
    """The address of a Ray cluster whose workers judge, or ``auto``; empty for this machine."""
    workers: int | None = None
    gpus_per_worker: int | None = None
    mapping: str = ""
    """Which columns of the data are which fields; the option is called ``--map``."""
    rationales: int = 0

    def __post_init__(self) -> None:
        if self.rationales < 0:
            raise InputError(f"--rationales {self.rationales}: must be 0 or more")
        if self.shard and (self.rationales or not self.run):
            raise InputError("--shard needs --run, the folder that all shards share, and takes no --rationales")
        self._check_ray()
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

    def _check_ray(self) -> None:
        """InputError where what is said of a Ray cluster does not go together."""
        if not self.ray:
            if self.workers is not None or self.gpus_per_worker is not None:
                raise InputError("--workers and --gpus-per-worker are of a Ray cluster; give its address by --ray")
            return
        if self.url or self.devices or self.shard or self.rationales or self.tensor_parallel != 1:
            raise InputError("--ray takes no --url, --devices, --shard, --rationales or --tensor-parallel")
        if self.engine == "packed" and (self.gpus_per_worker or 0) > 1:
            raise InputError(f"--gpus-per-worker {self.gpus_per_worker} splits the judge, which --engine packed cannot")
        for name, count, least in (("workers", self.workers, 1), ("gpus-per-worker", self.gpus_per_worker, 0)):
            if count is not None and count < least:
                raise InputError(f"--{name} {count}: must be at least {least}")

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
