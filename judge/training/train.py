"""Training a judge: read what was rated, hold some out, take steps that a kill does not undo, write a model folder."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from judge.engines.packed.engine import PackedEngine, by_budget
from judge.errors import EngineError, InputError, Interrupted, one_line
from judge.human_ratings.agreement import metric_names, read_annotations
from judge.models.checkpoint import Checkpoint
from judge.models.presets import PRESETS
from judge.progress import SILENT, Progress, stoppable
from judge.prompting.rubric import load_rubric
from judge.scoring.judge import Judge
from judge.scoring.parts import telling
from judge.scoring.setup import open_corpus, open_judge, open_model, settle
from judge.training import checkpoints
from judge.training.checkpoints import State, partial_folder
from judge.training.figures import (
    SCENARIOS,
    SYSTEM,
    Figure,
    Measured,
    calibrated,
    constant_loss,
    figures_of,
    mean_spearman,
    measure,
)
from judge.training.loss import Example, Trainer
from judge.training.model_folder import licence_of, write_model
from judge.training.options import TrainOptions
from judge.training.split import Split, split
from judge.training.tables import tables_of
from judge.training.targets import RatedDialogue, data_digest, rated_dialogues, severities, without_severity
from judge.types import Options, Scheme

WARM_UP = 0.1
"""The share of steps over which the learning rate rises; after them it falls to 0."""


LARGEST_GRADIENT = 1.0
"""A longer gradient is shortened to this."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A judge that was trained."""

    folder: Path
    base: str
    """The base judge's name."""
    losses: dict[str, float]
    """On the held-out dialogues: of the base judge, of the trained one, and of always answering the mean target."""
    figures: tuple[Figure, ...]
    """What both reach, as they are and calibrated: on the system that was left out, then on the held-out scenarios."""
    record: dict[str, Any]
    """What ``training.json`` says."""


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


def train(
    data: Sequence[Path],
    annotations: Path,
    out: Path,
    options: Options | None = None,
    how: TrainOptions | None = None,
    progress: Progress = SILENT,
    *,
    columns: str | None = None,
    average_repeats: bool = False,
) -> Trained:
    """Train a judge on human ratings into a model folder; the same call goes on after a kill, to the same weights.

    Args:
        data: the dialogues, as for ``score``.
        annotations: human ratings of them.
        out: the model folder, which must not be there yet; checkpoints are in ``OUT.partial`` until it is.
        options: the base judge, the rubric and how it is asked, and which dialogues.
        how: how to train.
        progress: who is told how far it is.
        columns: which column of the ratings is what, as ``--map`` of ``agree`` has it.
        average_repeats: whether an annotator may have rated the same dialogue twice.

    Raises:
        InputError: data, ratings or options cannot be used, or ``out`` or its checkpoints are of something else.
        EngineError: the machine or the model failed, or a file cannot be written; the last checkpoint is kept.
        Interrupted: the user stopped it; what was done is kept.
    """
    options, how = options or Options(), how or TrainOptions()
    _refuse_untrainable(out, options, how)
    options = replace(options, engine="packed", min_mass=0.0)  # a judge that does not answer with a level may learn it
    scheme = load_rubric(options.language, options.rubric).scheme
    notes: list[str] = []
    with progress.busy("reading the ratings"):
        ratings = read_annotations(
            annotations,
            scheme.scales,
            average_repeats=average_repeats,
            columns=columns,
            metrics=metric_names(scheme.metrics, scheme, scheme.scales),
            notes=notes,
        )
    paths, options, _, hardware = settle(data, options, progress)
    with closing(open_corpus(paths, options, set(ratings["item_id"]))) as corpus:
        notes += corpus.notes
        rated = rated_dialogues(corpus, ratings, scheme, notes)
    with _telling_of_memory():
        judge = open_judge(options, open_model(options, hardware, progress), progress=progress)
        base, engine = _trainable(judge, how)
        rated = _that_fit(rated, judge, engine.max_tokens, notes)
        lessons = _lessons(rated, ratings, scheme, how)
        notes += _not_held_out(lessons.split)
        folder = partial_folder(out)
        checkpoints.begin(folder, _plan(judge, lessons, how))
        with progress.busy(f"measuring {judge.name} on the rated dialogues"):
            before, known = (
                measure(judge, "base", some, ratings, how.mass_weight)
                for some in (lessons.split.held_out, lessons.known)
            )
        adapted = _adapted(engine.model, how)
        training = Training(judge, engine, lessons, how, folder, progress)
        if training.trainer.refused:
            notes.append(f"Each leaf is computed by itself, which is slower: {training.trainer.refused}.")
        for note in notes:
            progress.note(note)
        with stoppable() as stop:
            state = training.run(stop)
        weights: Any = _saved_adapter(adapted, base, options.judge, folder) if how.adapter else None
        network = adapted.merge_and_unload() if how.method == "lora" else adapted
        engine.forget()
        with progress.busy("measuring the trained judge on the held-out dialogues"):
            after, watched = (
                measure(judge, "trained", some, ratings, how.mass_weight)
                for some in (lessons.split.held_out, lessons.split.validation)
            )
    with progress.busy("comparing both with people"):
        figures = _figures(before, known, after, watched, lessons.split, how.seed, notes)
    parts = lessons.split
    constant = constant_loss(parts.training, parts.held_out)
    losses = {"base": before.loss, "trained": after.loss, "constant": constant}
    record = _record(judge, base, lessons, how, state, losses, figures, notes, training.trainer.refused)
    with progress.busy(f"writing {out}"):
        write_model(out, weights or network, base, record, tables_of(figures, parts.left_out_system))
        shutil.rmtree(folder, ignore_errors=True)
    return Trained(out, judge.name, losses, figures, record)


def _lessons(rated: Sequence[RatedDialogue], ratings: pd.DataFrame, scheme: Scheme, how: TrainOptions) -> Lessons:
    """The rated dialogues in their parts, with targets as they are to be learned."""
    parts = split(rated, how.held_out, how.seed, how.left_out_system)
    found: dict[str, dict[str, float]] = {}
    if how.severity:
        known = {one.dialogue.id for one in (*parts.training, *parts.validation)}
        found = severities(ratings[ratings["item_id"].isin(known)])
        training, validation, held_out = (
            without_severity(some, ratings, found, scheme)
            for some in (parts.training, parts.validation, parts.held_out)
        )
        parts = replace(parts, training=training, validation=validation, held_out=held_out)
    return Lessons(ratings, data_digest(rated), parts, found)


def _not_held_out(parts: Split) -> list[str]:
    """What the figures are not about, a sentence each."""
    said = []
    if not parts.held_out_characters:
        said.append(
            "No character is held out, as there are too few: the figures are about the characters learned from."
        )
    if parts.left_out_system is None:
        said.append("No system is left out: the figures are about the systems that were learned from.")
    return said


def _figures(
    before: Measured, known: Measured, after: Measured, watched: Measured, parts: Split, seed: int, notes: list[str]
) -> tuple[Figure, ...]:
    """All judges on the system that was left out and on the held-out scenarios; the headline first.

    The base is calibrated on all that was not held out, the trained judge on the dialogues that said when to stop.
    """
    found = {
        "base": before.pairing,
        "calibrated base": calibrated(before, known.pairing, seed, notes),
        "trained": after.pairing,
        "calibrated trained": calibrated(after, watched.pairing, seed, notes),
    }
    judges = {name: pairing for name, pairing in found.items() if pairing is not None}
    of_system = [one.dialogue.id for one in parts.held_out if one.dialogue.source == parts.left_out_system]
    others = [one.dialogue.id for one in parts.held_out if one.dialogue.source != parts.left_out_system]
    about = ((SYSTEM, of_system), (SCENARIOS, others))
    return tuple(
        row for name, chosen in about if chosen for row in figures_of(judges, known.pairing, name, chosen, seed)
    )


def _refuse_untrainable(out: Path, options: Options, how: TrainOptions) -> None:
    """InputError where it can be said at once that this will not do."""
    if options.url:
        raise InputError("--url: a server's model cannot be trained; give --judge its folder")
    if out.exists() or out.is_symlink():
        raise InputError(f"--out {out}: is there already; remove it or name another folder")
    missing = [name for name in ("peft", "accelerate") if find_spec(name) is None]
    if how.method == "lora" and missing:
        raise InputError(
            f"--method lora needs {' and '.join(missing)}; pip install 'esrp-judge[train]', or choose --method full"
        )


def _trainable(judge: Judge, how: TrainOptions) -> tuple[Checkpoint, PackedEngine]:
    """The files of a judge and what runs it, loaded; InputError where its weights cannot be trained."""
    base = judge.model.origin
    assert isinstance(base, Checkpoint), "a server was refused before"
    if base.quantisation:
        raise InputError(
            f"--judge {judge.name}: its weights are quantised ({base.quantisation}) and cannot be trained; name the "
            "model before it was quantised"
        )
    engine = judge.engine
    assert isinstance(engine, PackedEngine), "the packed engine was asked for"
    if how.method == "full":
        engine.model.float()  # small steps would be lost in the rounding of bfloat16
        engine.forget()
    return base, engine


def _that_fit(rated: list[RatedDialogue], judge: Judge, most: int, notes: list[str]) -> list[RatedDialogue]:
    """The dialogues whose prompts the model's context holds; the others are counted."""
    writer = judge.writers[0]
    fitting = [one for one in rated if max(writer.dialogue(one.dialogue, one.targets).lengths) <= most]
    if lost := len(rated) - len(fitting):
        notes.append(f"Rated dialogues left out, as they are longer than the judge's context: {lost:,}.")
    return fitting


def _adapted(network: Any, how: TrainOptions) -> Any:
    """The model with adapters in it, where there are to be any; with a seed of their own for their first weights."""
    if how.method == "full":
        return network
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        # All linear layers but the last, which gives the logits: the projections of attention and MLP.
        return get_peft_model(network, LoraConfig(r=how.rank, lora_alpha=2 * how.rank, target_modules="all-linear"))


def _saved_adapter(adapted: Any, base: Checkpoint, asked: str, folder: Path) -> Path:
    """A folder with the adapter, which names its base: by its Hub id, or by its path on this machine."""
    named = asked
    if base.asked in PRESETS:
        named = PRESETS[base.asked].repository
    elif os.path.exists(asked):
        named = os.path.abspath(asked)
    adapted.peft_config["default"].base_model_name_or_path = named
    out = folder / "adapter"
    with telling("written", out):
        shutil.rmtree(out, ignore_errors=True)
        with checkpoints.as_os_error():
            adapted.save_pretrained(out)
    return out


def _plan(judge: Judge, lessons: Lessons, how: TrainOptions) -> dict[str, Any]:
    """What tells this training from others."""
    own = judge.identity
    named = {name: getattr(own, name) for name in ("rubric", "language", "layout", "answer_form", "dtype")}
    return {"data": lessons.digest, "judge": own.weights, **named, **how.that_matter}


def _record(
    judge: Judge,
    base: Checkpoint,
    lessons: Lessons,
    how: TrainOptions,
    state: State,
    losses: dict[str, float],
    figures: Sequence[Figure],
    notes: Sequence[str],
    refused: str,
) -> dict[str, Any]:
    """What ``training.json`` says."""
    own = judge.identity
    return {
        "base": {"name": judge.name, "judge_id": own.judge_id, "weights": own.weights, "licence": licence_of(base)},
        "judge": {
            "rubric": judge.scheme.rubric,
            "rubric_digest": own.rubric,
            "language": own.language,
            "layout": own.layout,
            "answer_form": own.answer_form,
        },
        "data_digest": lessons.digest,
        "split": lessons.split.facts,
        "severities": lessons.severities,
        "options": how.that_matter,
        "gradients": f"plain ({refused})" if refused else "packed",
        "steps": state.step,
        "losses": state.losses,
        "epochs": state.epochs,
        "best_epoch": None if state.best is None else state.best + 1,
        "held_out_losses": losses,
        "figures": [asdict(figure) for figure in figures],
        "notes": list(notes),
    }


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


@contextmanager
def _telling_of_memory() -> Iterator[None]:
    """Turns what a model's libraries raise into an EngineError that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
            lack = f"out of memory ({one_line(error)}); free some or choose a smaller judge, then"
            raise EngineError(lack, can_go_on=True) from error
        raise EngineError(f"the model failed in training: {one_line(error)}; choose another judge") from error
