"""Where a training stands, on disk: written whole beside the model folder to come, and read again after a kill.

``FOLDER.partial/`` holds ``plan.json``, which says what is trained on what and how, and a folder for the last step that
was kept. A checkpoint appears by one rename. Nothing in a step is random, so weights, the optimizer's state and the
number of the step are all that is needed to go on to the same weights.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from judge.errors import EngineError, InputError, one_line
from judge.files import made_folder, replacing, sync
from judge.scoring.parts import telling

PLAN, STATE, TENSORS = "plan.json", "state.json", "tensors.safetensors"


STEP = re.compile(r"step-\d{8}")
"""The name of a whole checkpoint."""


@dataclass(slots=True)
class State:
    """How far a training is, without its tensors."""

    step: int = 0
    """Steps that were taken."""
    losses: list[float] = field(default_factory=list)
    """The training loss of each."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """Of each epoch that ended: step, training loss, validation loss, mean Spearman on the validation dialogues."""
    best: int | None = None
    """The epoch with the lowest validation loss, counted from 0."""

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return 0 if self.best is None else len(self.epochs) - 1 - self.best


def partial_folder(out: Path) -> Path:
    """Where the checkpoints of a training into ``out`` are."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Makes a folder, gives it and keeps other trainings out of it for as long as this lasts; a kill ends it too.

    Raises:
        InputError: another process trains in it.
        EngineError: it cannot be made.
    """
    with telling("written", folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{folder}: another process trains in it; wait for it, or give another --out") from error
    try:
        yield folder
    finally:
        lock.release()


def begin(folder: Path, plan: Mapping[str, Any]) -> None:
    """Begin a training in a folder, or make sure that the one that is there is the same.

    Raises:
        InputError: the folder holds another training.
        EngineError: it cannot be written.
    """
    path = folder / PLAN
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: damaged ({one_line(error)}); remove {folder} to begin anew") from error
        own = json.loads(json.dumps(plan))
        if other := sorted(name for name in {*own, *there} if own.get(name) != there.get(name)):
            raise InputError(
                f"{folder}: was begun with other {', '.join(other)}; repeat those, or remove the folder to begin anew"
            )
        for rest in folder.glob(".step-*"):  # of a checkpoint that was being written when the process ended
            shutil.rmtree(rest, ignore_errors=True)
        return
    with telling("written", path), replacing(path) as file:
        file.write(json.dumps(plan, ensure_ascii=False, indent=2).encode())


def save(
    folder: Path,
    state: State,
    weights: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint, and then remove the one before; EngineError where it cannot be written.

    Args:
        folder: as for ``begin``.
        state: where the training stands.
        weights: those that change, by name.
        best: the same after the best epoch; empty before the first.
        optimizer: of these weights.
    """
    moments = {
        f"optimizer.{number}.{name}": value
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    named = {f"weights.{name}": value for name, value in weights.items()}
    tensors = {**named, **{f"best.{name}": value for name, value in best.items()}, **moments}

    def write(beside: Path) -> None:
        with as_os_error():
            save_file({name: value.detach().contiguous() for name, value in tensors.items()}, beside / TENSORS)
        (beside / STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")

    path = folder / f"step-{state.step:08}"
    with telling("written", path):
        made_folder(path, write)
        sync(folder)  # the new name must be on the disk before the old checkpoint goes
    for old in _checkpoints(folder):
        if old != path:
            shutil.rmtree(old, ignore_errors=True)


def load(
    folder: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[State, dict[str, Tensor]]:
    """Where the last checkpoint left off: its state and best weights; ``weights`` and the optimizer are set to it.

    A new state and no weights where there is no checkpoint. EngineError where it is damaged.
    """
    there = _checkpoints(folder)
    if not there:
        return State(), {}
    try:
        tensors = load_file(there[-1] / TENSORS)
        state = State(**json.loads((there[-1] / STATE).read_text(encoding="utf-8")))
        best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(tensors[f"weights.{name}"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise EngineError(f"{there[-1]}: damaged ({one_line(error)}); remove {folder} to begin anew") from error
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, of = name.split(".")
            moments.setdefault(int(number), {})[of] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return state, best


@contextmanager
def as_os_error() -> Iterator[None]:
    """Turns what safetensors says of a disk into the OSError that it was."""
    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise OSError(errno.EIO, one_line(error)) from error


def _checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints, the last one last."""
    return sorted(path for path in folder.glob("step-*") if STEP.fullmatch(path.name))
