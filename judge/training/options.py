"""How to train, as the user says it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from judge.errors import InputError

METHODS = ("lora", "full")
"""Which weights change: low-rank adapters of all projections (Hu et al. 2021), merged at the end; or all of them."""


RATES = {"lora": 2e-4, "full": 2e-5}
"""The learning rate of each method, where none is given."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train; each field is the command's option of the same name.

    ``rate`` None is that of the method in ``RATES``; ``rank`` is of the adapters. A step is taken after dialogues of
    ``batch_tokens`` tokens, each token of a prompt tree counted once. ``mass_weight`` weighs the term that keeps the
    label mass; at 1 the loss is the cross-entropy over the whole vocabulary. ``severity`` takes each annotator's
    severity out of what is learned. ``held_out`` is the share of scenarios and of characters that are held out, and
    ``left_out_system`` the system, one that is drawn where None. Training stops after ``patience`` epochs without a
    better validation loss. A checkpoint is written every ``save_every`` steps. ``adapter`` leaves what lora learned
    beside the base instead of merging it.

    Raises:
        InputError: a value is outside its range.
    """

    method: str = "lora"
    epochs: int = 3
    rate: float | None = None
    rank: int = 16
    batch_tokens: int = 16384
    mass_weight: float = 1.0
    severity: bool = False
    held_out: float = 0.2
    left_out_system: str | None = None
    patience: int = 2
    save_every: int = 50
    adapter: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"--method {self.method}: unknown method; choose one of {', '.join(METHODS)}")
        for name in ("epochs", "rank", "batch_tokens", "patience", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.adapter and self.method != "lora":
            raise InputError(f"--adapter: --method {self.method} makes none; choose --method lora")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or more")
        if not 0 < self.held_out <= 0.5:
            raise InputError(f"--held-out {self.held_out}: give a share above 0 and up to 0.5")
        if not 0 <= self.mass_weight < float("inf"):
            raise InputError(f"--mass-weight {self.mass_weight}: give a number from 0 on")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise InputError(f"--rate {self.rate}: give a number above 0 and up to 1")

    @property
    def learning_rate(self) -> float:
        """The rate that is meant."""
        return RATES[self.method] if self.rate is None else self.rate

    @property
    def that_matter(self) -> dict[str, Any]:
        """What changes what is learned, by name: all but how often a checkpoint is written and what is written last."""
        others = {"save_every", "adapter"}
        return {name: value for name, value in asdict(self).items() if name not in others} | {
            "rate": self.learning_rate
        }
