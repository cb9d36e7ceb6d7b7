"""What to score and how, as the user says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from judge.errors import InputError
from judge.types import METRICS, RESPONSE_DIVERSITY

ALL_METRICS = (*METRICS, RESPONSE_DIVERSITY)
ENGINES = ("auto", "packed", "vllm", "server")


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
    patience: float = 300.0
    devices: tuple[str, ...] = ()
    tensor_parallel: int = 1
    language: str = "zh"
    layout: str = "prefill"
    orderings: int = 1
    metrics: tuple[str, ...] = ALL_METRICS
    sources: tuple[str, ...] = ()
    characters: tuple[str, ...] = ()
    limit: int | None = None
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
        if self.engine not in ENGINES:
            raise InputError(f"--engine {self.engine}: unknown engine; choose one of {', '.join(ENGINES)}")
        if self.engine == "server" and not self.url:
            raise InputError("--engine server needs --url, the server's address; `make serve` starts one")
        if self.url and self.engine not in ("auto", "server"):
            raise InputError(f"--engine {self.engine} takes no --url; leave one of them out")
        if self.url and (self.devices or self.tensor_parallel != 1):
            raise InputError("--devices and --tensor-parallel are the server's own choice; leave them out with --url")
        if self.tensor_parallel < 1 or (self.tensor_parallel > 1 and (self.devices or self.engine == "packed")):
            raise InputError("--tensor-parallel must be at least 1, and needs --engine vllm without --devices")
