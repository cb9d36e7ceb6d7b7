"""What to score and how, as the user says it; and what ``auto`` and no data at all stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from judge.checkpoint import pick
from judge.dialogues import example_files
from judge.errors import InputError
from judge.fetch import chatanime_folder, is_complete
from judge.hardware import Hardware
from judge.types import METRICS, RESPONSE_DIVERSITY

ALL_METRICS = (*METRICS, RESPONSE_DIVERSITY)
ENGINES = ("auto", "packed")


@dataclass(frozen=True, slots=True)
class Options:
    """How to score; each field is the command's option of the same name.

    Raises:
        InputError: an unknown metric or engine. (Language, layout, orderings and judge are checked where used.)
    """

    run: Path | None = None
    judge: str = "auto"
    engine: str = "auto"
    language: str = "zh"
    layout: str = "prefill"
    orderings: int = 1
    metrics: tuple[str, ...] = ALL_METRICS
    sources: tuple[str, ...] = ()
    characters: tuple[str, ...] = ()
    limit: int | None = None
    prompts: Path | None = None

    def __post_init__(self) -> None:
        if not self.metrics:
            raise InputError(f"--metrics names none; choose from {', '.join(ALL_METRICS)}")
        for metric in self.metrics:
            if metric not in ALL_METRICS:
                raise InputError(f"--metrics {metric}: unknown metric; choose from {', '.join(ALL_METRICS)}")
        if self.engine not in ENGINES:
            raise InputError(f"--engine {self.engine}: unknown engine; choose one of {', '.join(ENGINES)}")


def choose_judge(data: Sequence[Path], judge: str, hardware: Hardware) -> tuple[str, str]:
    """The judge to take, and why; ``auto`` never takes the stand-in for a user's own data."""
    if judge != "auto":
        return judge, "as asked for"
    if data and not hardware.gpus:
        raise InputError(
            "no GPU here, so no judge is chosen for your data; name one: --judge qwen3-0.6b (JUDGE=qwen3-0.6b) is a "
            "small real judge, --judge stand-in (JUDGE=stand-in) gives scores that mean nothing"
        )
    return pick(hardware)


def default_data(judge: str) -> list[Path]:
    """What is scored where no data is named: ChatAnime for a real judge, if fetched; otherwise the example."""
    if judge != "stand-in" and is_complete(chatanime_folder()):
        return [chatanime_folder()]
    return example_files()
