"""Training a judge: read what was rated, hold some out, take steps that a kill does not undo, write a model folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from calibration.errors import naming
from calibration.pairing import in_one_spelling
from judge.engines.packed.engine import PackedEngine
from judge.errors import EngineError, InputError, one_line
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
    measure,
)
from judge.training.model_folder import licence_of, refuse_what_is_there, write_model
from judge.training.options import TrainOptions
from judge.training.split import Split, split
from judge.training.steps import Lessons, Training
from judge.training.tables import tables_of
from judge.training.targets import RatedDialogue, data_digest, rated_dialogues, severities, without_severity
from judge.types import Options, Scheme


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
    with closing(open_corpus(paths, options, set(ratings["item_id"]))) as corpus, naming("--annotations"):
        notes += corpus.notes
        dialogues = list(corpus)
        names = pd.DataFrame({"item_id": [one.id for one in dialogues], "source": [one.source for one in dialogues]})
        ratings, said = in_one_spelling(ratings, names)
        notes += said
    rated = rated_dialogues(dialogues, ratings, scheme, notes)
    with _telling_of_memory():
        judge = open_judge(options, open_model(options, hardware, progress), progress=progress)
        base, engine = _trainable(judge, how)
        lessons = _lessons(_that_fit(rated, judge, engine.max_tokens, notes), ratings, scheme, how, notes)
        notes += _not_held_out(lessons.split)
        with checkpoints.held(partial_folder(out)) as folder:
            refuse_what_is_there(out)  # another training may have ended meanwhile
            checkpoints.begin(folder, _plan(judge, lessons, how))
            learned = _learn(judge, engine, lessons, how, folder, notes, progress)
            record = _record(judge, base, lessons, how, learned, notes)
            with progress.busy(f"writing {out}"):
                weights = _as_adapter(learned, base, options.judge, folder) if how.adapter else learned.merge()
                write_model(out, weights, base, record, tables_of(learned.figures, lessons.split.left_out_system))
                shutil.rmtree(folder, ignore_errors=True)
    return Trained(out, judge.name, learned.losses, learned.figures, record)


@dataclass(frozen=True, slots=True)
class Learned:
    """A model after its training, and what it reaches."""

    adapted: Any
    """The model of transformers or, with adapters in it, of peft."""
    state: State
    refused: str
    """Why trees were not packed; "" where they were."""
    losses: dict[str, float]
    figures: tuple[Figure, ...]

    def merge(self) -> Any:
        """The model with what adapters learned in its own weights; they are gone then."""
        merge = getattr(self.adapted, "merge_and_unload", None)
        return merge() if merge else self.adapted


def _learn(
    judge: Judge,
    engine: PackedEngine,
    lessons: Lessons,
    how: TrainOptions,
    folder: Path,
    notes: list[str],
    progress: Progress,
) -> Learned:
    """Measure the judge, train it, measure it again and compare; says and adds to ``notes`` what should be known."""
    parts, ratings = lessons.split, lessons.ratings
    with progress.busy(f"measuring {judge.name} on the rated dialogues"):
        before, known = (
            measure(judge, "base", some, ratings, how.mass_weight) for some in (parts.held_out, lessons.known)
        )
    adapted = _adapted(engine.model, how)
    training = Training(judge, engine, lessons, how, folder, progress)
    if training.trainer.refused:
        notes.append(f"Each leaf is computed by itself, which is slower: {training.trainer.refused}.")
    for note in notes:
        progress.note(note)
    with stoppable() as stop:
        state = training.run(stop)
    engine.forget()
    with progress.busy("measuring the trained judge on the held-out dialogues"):
        after, watched = (
            measure(judge, "trained", some, ratings, how.mass_weight) for some in (parts.held_out, parts.validation)
        )
    with progress.busy("comparing both with people"):
        figures = _figures(before, known, after, watched, parts, how.seed, notes)
    constant = constant_loss(parts.training, parts.held_out)
    losses = {"base": before.loss, "trained": after.loss, "constant": constant}
    return Learned(adapted, state, training.trainer.refused, losses, figures)


def _of_learned_metrics(parts: Split, notes: list[str]) -> Split:
    """The same without ratings on metrics that nothing is learned of; InputError where none are left."""
    learned = {metric for one in parts.training for metric in one.targets}
    lost: set[str] = set()

    def some(rated: Sequence[RatedDialogue]) -> tuple[RatedDialogue, ...]:
        lost.update(metric for one in rated for metric in one.targets if metric not in learned)
        kept = [
            replace(one, targets={name: of for name, of in one.targets.items() if name in learned}) for one in rated
        ]
        return tuple(one for one in kept if one.targets)

    found = replace(parts, validation=some(parts.validation), held_out=some(parts.held_out))
    if lost:
        notes.append(f"Left out, as no dialogue that is learned from is rated on it: {', '.join(sorted(lost))}.")
    if not found.validation or not found.held_out:
        raise InputError(
            "--annotations: nothing that is held out is rated on a metric that is learned; give another --seed"
        )
    return found


def _lessons(
    rated: Sequence[RatedDialogue], ratings: pd.DataFrame, scheme: Scheme, how: TrainOptions, notes: list[str]
) -> Lessons:
    """The rated dialogues in their parts, with targets as they are to be learned."""
    parts = _of_learned_metrics(split(rated, how.held_out, how.seed, how.left_out_system), notes)
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
    refuse_what_is_there(out)
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


def _as_adapter(learned: Learned, base: Checkpoint, asked: str, folder: Path) -> Path:
    """A folder with the adapter, which names its base: by its Hub id, or by its path on this machine."""
    named = asked
    if os.path.exists(asked):
        named = os.path.abspath(asked)
    elif base.asked in PRESETS:
        named = PRESETS[base.asked].repository
    learned.adapted.peft_config["default"].base_model_name_or_path = named
    out = folder / "adapter"
    shutil.rmtree(out, ignore_errors=True)
    with telling("written", out), checkpoints.as_os_error():
        learned.adapted.save_pretrained(out, save_embedding_layers=False)  # which otherwise asks the Hub for the base
    return out


def _plan(judge: Judge, lessons: Lessons, how: TrainOptions) -> dict[str, Any]:
    """What tells this training from others."""
    own = judge.identity
    named = {name: getattr(own, name) for name in ("rubric", "language", "layout", "answer_form", "dtype")}
    return {"data": lessons.digest, "judge": own.weights, **named, **how.that_matter}


def _record(
    judge: Judge, base: Checkpoint, lessons: Lessons, how: TrainOptions, learned: Learned, notes: Sequence[str]
) -> dict[str, Any]:
    """What ``training.json`` says."""
    own, state = judge.identity, learned.state
    return {
        "base": {"name": judge.name, "judge_id": own.judge_id, "weights": own.weights, "licence": licence_of(base)},
        "judge": {
            "rubric": judge.scheme.rubric,
            "rubric_digest": own.rubric,
            "language": own.language,
            "layout": own.layout,
            "answer_form": own.answer_form,
            "dtype": str(judge.engine.model.dtype).removeprefix("torch."),  # type: ignore[attr-defined]
        },
        "data_digest": lessons.digest,
        "split": lessons.split.facts,
        "severities": lessons.severities,
        "options": how.that_matter,
        "gradients": f"plain ({learned.refused})" if learned.refused else "packed",
        "steps": state.step,
        "losses": state.losses,
        "epochs": state.epochs,
        "best_epoch": None if state.best is None else state.best + 1,
        "held_out_losses": learned.losses,
        "figures": [asdict(figure) for figure in learned.figures],
        "notes": list(notes),
    }


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
