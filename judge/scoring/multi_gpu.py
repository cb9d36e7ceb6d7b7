"""One process per device, all on one run folder: each judges its share of the batches, the parent reports progress.

The processes write parts; only the parent writes the manifest. What they have to say comes to it through one queue.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from judge.errors import EngineError, InputError, Interrupted, JudgeError
from judge.models.hardware import Hardware, narrow_to, usable_cpus
from judge.progress import Progress, Silent
from judge.types import Options

CPU = "cpu"
"""The device of a process that uses no GPU, on a machine that has none."""


POLL_S = 0.5
"""Seconds after which the parent looks whether a process died or the user wants to stop, if nobody says anything."""


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Share:
    """Every ``count``-th batch, from ``index`` on."""

    index: int
    count: int

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items that belong to this share."""
        return list(items[self.index :: self.count])

    def split(self, index: int, count: int) -> Share:
        """One of ``count`` shares into which this one is cut."""
        return Share(self.index + index * self.count, self.count * count)

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


WHOLE = Share(0, 1)


def share_of(shard: str) -> Share:
    """The share that ``--shard I/N`` names, I from 1 to N; InputError where it names none."""
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise InputError(f"--shard {shard}: give which of how many, such as 1/4")
    return Share(int(index) - 1, int(count))


Work = Callable[[Sequence[Path], Options, Share, Progress], dict[str, Any] | None]
"""Judges a share of some data; returns what its engine reports, None where it needed no engine."""


def check(devices: Sequence[str], hardware: Hardware) -> None:
    """Raises InputError where a device is not there or is named twice."""
    known = [str(gpu.index) for gpu in hardware.gpus] or [CPU]
    for device in devices:
        if device not in known:
            raise InputError(f"--devices {device}: no such device; there is {', '.join(known)}")
    if hardware.gpus and len(set(devices)) < len(devices):
        raise InputError(f"--devices {','.join(devices)}: a device stands twice")


def complete(
    work: Work, data: Sequence[Path], options: Options, share: Share, progress: Progress, stop: threading.Event
) -> list[dict[str, Any]]:
    """Have one process per device do its part of a ``share`` of a run's ``work``; returns what their engines report.

    Raises:
        Interrupted: ``stop`` was set.
        JudgeError: a process failed; the others were stopped after the batch in work.
    """
    context = multiprocessing.get_context("spawn")  # this process has looked at the GPUs, and a fork could not use them
    messages: Any = context.Queue()
    count = len(options.devices)
    workers = [
        context.Process(
            target=_process,
            args=(work, device, list(data), replace(options, devices=()), (index, count), share, os.getpid(), messages),
        )
        for index, device in enumerate(options.devices)
    ]
    for worker in workers:
        worker.start()
    try:
        return _follow(workers, messages, options.devices, progress, stop)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _follow(
    workers: Sequence[BaseProcess], messages: Any, devices: Sequence[str], progress: Progress, stop: threading.Event
) -> list[dict[str, Any]]:
    """Pass on the processes' progress until all have ended; returns their engines' reports, or raises the error of one.

    A process that failed has the others stopped, by the same signal by which the user stops a run.
    """
    ended: dict[int, tuple[str, Any]] = {}
    asked = False
    while len(ended) < len(workers):
        # Asked before the queue is read: what a process said before it died is then in the queue, and counts first.
        dead = [i for i, worker in enumerate(workers) if not worker.is_alive()]
        failed = [what for kind, what in ended.values() if kind == "failed"]
        if (stop.is_set() or failed) and not asked:
            asked = True
            for worker in workers:
                worker.terminate()
        try:
            index, kind, what = messages.get(timeout=POLL_S)
            while True:  # until the queue is empty
                if kind == "advance":
                    progress.advance(*what)
                else:
                    ended[index] = (kind, what)
                index, kind, what = messages.get_nowait()
        except queue.Empty:
            pass
        for i in dead:
            error = EngineError(f"the process of device {devices[i]} died ({workers[i].exitcode})")
            ended.setdefault(i, ("failed", error))
    errors = [what for kind, what in (ended[i] for i in range(len(workers))) if kind == "failed"]
    if errors:  # the failure itself, rather than the interruptions of others that it caused
        raise next((error for error in errors if not isinstance(error, Interrupted)), errors[0])
    return [ended[i][1] for i in range(len(workers)) if ended[i][1] is not None]


class _Relay(Silent):
    """Passes this process's progress on to the parent."""

    def __init__(self, index: int, messages: Any) -> None:
        self._index, self._messages = index, messages

    def advance(self, judgments: int, tokens: int) -> None:
        self._messages.put((self._index, "advance", (judgments, tokens)))


def _process(
    work: Work,
    device: str,
    data: list[Path],
    options: Options,
    place: tuple[int, int],
    share: Share,
    parent: int,
    messages: Any,
) -> None:
    """The whole life of a device's process: see only that device, do its part of the share, send a report or the error.

    ``place`` says which of how many processes it is.
    """
    index, count = place
    os.setsid()  # Ctrl-C in the terminal then reaches the parent alone, which has each process finish its batch

    def follow_parent() -> None:
        """End this process, after the batch in work, once its parent is gone: a killed parent cannot say so."""
        while os.getppid() == parent:
            time.sleep(2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow_parent, daemon=True).start()
    if device == CPU:  # several processes share the cores
        os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cpus() // count))
    else:
        narrow_to([int(device)])
    try:
        report = work(data, options, share.split(index, count), _Relay(index, messages))
        messages.put((index, "done", None if report is None else {"device": device, **report}))
    except JudgeError as error:
        messages.put((index, "failed", error))
    except Exception as error:
        messages.put((index, "failed", EngineError(f"device {device}: {type(error).__name__}: {error}")))
