"""What to collect and how, as the user says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from judge.collection.scenarios import Scene
from judge.engines import PATIENCE_S
from judge.errors import InputError
from judge.remote import address_of

FOLLOW_UPS = ("simulated", "recorded")
"""Where the user's later questions are from."""


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """What to collect and how; each field is the command's option of the same name.

    ``model`` is a server's name for it where there is a ``url``, otherwise as for a judge. ``user_model`` is on
    ``user_url`` or, without it, where the model is; without both the model speaks for the simulated user too.
    ``out`` is made of the model's name and all that a reply depends on, where it is not given.

    Raises:
        InputError: a value that cannot be.
    """

    model: str = "auto"
    url: str | None = None
    user_model: str | None = None
    user_url: str | None = None
    out: Path | None = None
    source: str | None = None
    prompts: Path | None = None
    language: str | None = None
    rounds: int = 2
    follow_up: str = "simulated"
    characters: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    limit: int | None = None
    mapping: str = ""
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    engine: str = "auto"
    concurrency: int | None = None
    patience: float = PATIENCE_S

    def __post_init__(self) -> None:
        if self.follow_up not in FOLLOW_UPS:
            raise InputError(f"--follow-up {self.follow_up}: choose one of {', '.join(FOLLOW_UPS)}")
        if self.out and (there := address_of(self.out)):
            raise InputError(
                f"--out {there}: a collection is kept on this machine; name a folder here and copy it there"
            )
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds}: must be at least 1")
        if not 0 <= self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise InputError("--temperature must be from 0 to 2, and --top-p above 0 and at most 1")
        if self.max_tokens < 1 or self.patience < 0:
            raise InputError("--max-tokens must be at least 1, and --patience not negative")
        if self.concurrency is not None and (self.concurrency < 1 or not self.url):
            raise InputError("--concurrency says how many dialogues a server is asked about: at least 1, with --url")
        if self.engine not in ("auto", "packed", "vllm") or (self.url and self.engine != "auto"):
            raise InputError(f"--engine {self.engine}: auto, packed or vllm, and only without --url")
        if self.model == "auto" and not self.url:
            raise InputError(
                "no model is named; give --url, the address of its server, or --model, a folder, a Hub id, a preset, a "
                ".gguf file or stand-in"
            )
        if (self.user_url or self.user_model) and self.follow_up == "recorded":
            raise InputError("--follow-up recorded takes no simulated user; leave --user-url and --user-model out")

    def rounds_of(self, scene: Scene) -> int:
        """How many rounds a scenario has: as many as are asked for, or as are recorded."""
        return min(self.rounds, 1 + len(scene.follow_ups)) if self.follow_up == "recorded" else self.rounds
