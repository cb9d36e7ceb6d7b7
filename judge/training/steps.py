"""The steps of one training: in an order that the seed alone decides, each kept, ended where they no longer help."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from judge.engines.packed.engine import PackedEngine, by_budget
from judge.errors import EngineError, Interrupted
from judge.progress import Progress
from judge.scoring.judge import Judge
from judge.training import checkpoints
from judge.training.checkpoints import State
from judge.training.figures import mean_spearman, measure
from judge.training.loss import Example, Trainer
from judge.training.options import TrainOptions
from judge.training.split import Split
from judge.training.targets import RatedDialogue

WARM_UP = 0.1
"""The share of steps over which the learning rate rises; after them it falls to 0."""


LARGEST_GRADIENT = 1.0
"""A longer gradient is shortened to this."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a judge is trained on."""

    ratings: pd.DataFrame
    digest: str
    """Hash of all that is learned from or measured on."""
    split: Split
    severities: dict[str, dict[str, float]]
    """What was taken out of the targets, by metric and annotator; empty where nothing was."""

    @property
    def known(self) -> tuple[RatedDialogue, ...]:
        """The dialogues that are not held out."""
        return self.split.training + self.split.validation


def rate_at(step: int, steps: int, highest: float) -> float:
    """The learning rate of a step, counted from 0: it rises to ``highest`` and then falls to 0, both linearly."""
    rising = max(1, math.ceil(WARM_UP * steps))
    return highest * min((step + 1) / rising, (steps - step) / max(1, steps - rising))


class Training:
    """The steps of one training.

    Args:
        judge: the judge, whose model is changed.
        engine: what runs it, with adapters in its model where there are to be any.
        lessons: what it is trained on.
        how: how.
        folder: where checkpoints are.
        progress: who is told how far it is.
    """

    def __init__(
        self, judge: Judge, engine: PackedEngine, lessons: Lessons, how: TrainOptions, folder: Path, progress: Progress
    ) -> None:
        self.judge, self.engine, self.lessons, self.how = judge, engine, lessons, how
        self.folder, self.progress = folder, progress
        self.examples = [Example.of(one, judge.writers[0]) for one in lessons.split.training]
        self.trainer = Trainer(engine, judge.level_ids, how.mass_weight)
        self.trainer.verify(self.examples[0])
        self.weights = self.trainer.parameters
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=how.learning_rate, weight_decay=0.0)
        tokens = [example.tokens for example in self.examples]
        # The order of an epoch depends on the seed and the epoch alone, so that a resumed training has the same steps.
        self.steps = [
            (epoch, places)
            for epoch in range(how.epochs)
            for places in by_budget(
                np.random.default_rng([how.seed, epoch]).permutation(len(tokens)).tolist(),
                lambda place: tokens[place],
                how.batch_tokens,
            )
        ]

    def run(self, stop: threading.Event) -> State:
        """Take all steps that are left, or as many as help; the weights are then those of the best epoch.

        Raises:
            EngineError: the loss is no number, or a checkpoint cannot be written or read.
            Interrupted: ``stop`` was set; a checkpoint was written.
        """
        state, best = checkpoints.load(self.folder, self.weights, self.optimizer)
        sizes = [len(places) for _, places in self.steps]
        self.progress.begin("training", sum(sizes), sum(sizes[: state.step]), "dialogues")
        while state.step < len(self.steps) and state.waited < self.how.patience:
            if stop.is_set():
                checkpoints.save(self.folder, state, self.weights, best, self.optimizer)
                raise Interrupted(f"stopped after step {state.step} of {len(self.steps)};", can_go_on=True)
            epoch, places = self.steps[state.step]
            state.losses.append(self._step(state.step, places))
            state.step += 1
            self.progress.advance(len(places), sum(self.examples[place].tokens for place in places))
            if is_last := state.step == len(self.steps) or self.steps[state.step][0] > epoch:
                self._end_epoch(state)
                if state.waited == 0:
                    best = {name: value.detach().clone() for name, value in self.weights.items()}
            if is_last or state.step % self.how.save_every == 0:
                checkpoints.save(self.folder, state, self.weights, best, self.optimizer)
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(best[name])
        return state

    def _step(self, number: int, places: Sequence[int]) -> float:
        """One step over some examples; returns their loss before it, the weighted mean over answer slots."""
        examples = [self.examples[place] for place in places]
        slots = sum(example.weight * len(example.targets) for example in examples)
        loss = self.trainer.add(examples, 1 / slots) / slots
        if not math.isfinite(loss):
            raise EngineError(f"the loss is no number at step {number + 1}; lower --rate, and remove {self.folder}")
        torch.nn.utils.clip_grad_norm_(self.weights.values(), LARGEST_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(number, len(self.steps), self.how.learning_rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _end_epoch(self, state: State) -> None:
        """Measure the judge on the validation dialogues, and say how it stands."""
        epoch = len(state.epochs)
        taken = [loss for (of, _), loss in zip(self.steps, state.losses, strict=False) if of == epoch]
        self.engine.forget()
        with self.progress.busy("measuring on the validation dialogues"):
            found = measure(
                self.judge, "trained", self.lessons.split.validation, self.lessons.ratings, self.how.mass_weight
            )
        loss, spearman = float(np.mean(taken)), mean_spearman(found.pairing)
        state.epochs.append(
            {"steps": state.step, "training_loss": loss, "validation_loss": found.loss, "spearman": spearman}
        )
        if state.best is None or found.loss < state.epochs[state.best]["validation_loss"]:
            state.best = epoch
        said = "undefined" if spearman is None else f"{spearman:.2f}"
        self.progress.note(
            f"epoch {epoch + 1} of {self.how.epochs}: training loss {loss:.3f}, validation loss {found.loss:.3f}, "
            f"Spearman on the validation dialogues {said} (mean over metrics)"
        )
