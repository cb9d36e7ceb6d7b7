"""One run by workers on a Ray cluster; queues, places and the replacing of lost workers are Ray's.

The driver is this process. It reads the data, cuts them into batches and writes manifest, dialogues and tables, as on
one machine. Ray Data hands chunks of batches to workers (``judge.scoring.ray_worker``), each of which holds an engine
of its own. A worker reads the dialogues of a chunk from the run's folder and writes their parts there, so that hardly
any text goes through Ray.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from judge.errors import EngineError, InputError, Interrupted, JudgeError, one_line
from judge.models.hardware import Hardware, detect
from judge.prompting.rubric import packaged
from judge.remote import home_of, is_there, put, refresh, remove, shown
from judge.scoring.judge import AnswerForm
from judge.scoring.parts import DIVERSITY, JUDGMENTS
from judge.scoring.ray_worker import Chunk, Done, Ledger, Worker
from judge.scoring.setup import open_judge, open_model
from judge.scoring.worker import Work, sample
from judge.types import Options

CHUNK_DIALOGUES = 256
"""Dialogues that a worker is given at a time at most: what the faster engines take together."""


CHUNKS_PER_WORKER = 4
"""Chunks that there are for each worker at least, where there are so many batches: all then end at about one time."""


QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment variables by which Ray tells nobody and prints little; a user's own values stay."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The workers that are wanted of the cluster that this process is connected to, and what one of them runs on."""

    workers: int
    cpus: int
    gpus: int
    hardware: Hardware
    nodes: tuple[str, ...]
    """The ids of the nodes that may hold a worker."""

    def answer_form(self, options: Options) -> AnswerForm:
        """The form of the judge's answers, found by a worker: this machine need not be able to run the judge.

        Raises what ``open_judge`` raises.
        """
        if options.answer_form != "auto" or options.judge == "stand-in":
            return AnswerForm("none" if options.answer_form == "auto" else options.answer_form)
        form: AnswerForm = self.once(_find_answer_form, _for_workers(options, self.gpus))
        return form

    def check_folder(self, folder: Path) -> None:
        """InputError where some node that may hold a worker has another version, or does not see the run's folder."""
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        token = folder / f".seen-{uuid4().hex}"
        place = f"{home_of(folder) or folder.resolve()}/{token.name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
            put(folder, token)
            seen = [(node, self.once(_sees, place, node=node)) for node in self.nodes]
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --run") from error
        finally:
            if home_of(folder):
                remove(place)
            token.unlink(missing_ok=True)
            for path in made:  # as if nothing had been here
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
        for node, (installed, sees) in seen:
            if installed != version("esrp-judge"):
                raise InputError(
                    f"the node {node[:8]} has esrp-judge {installed} and not {version('esrp-judge')}; install it there"
                )
            if not sees:
                raise InputError(
                    f"{shown(folder)}: the node {node[:8]} does not see this folder; put the run on a file system that "
                    "all nodes share, or into a store (--run)"
                )

    def once(self, what: Callable[..., Any], *words: Any, node: str | None = None) -> Any:
        """What a function returns on a worker's place, or on a node, in a process of its own."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(node, soft=False) if node else "DEFAULT"
        gpus = 0 if node else self.gpus
        task = ray.remote(num_cpus=0, num_gpus=gpus, max_calls=1, max_retries=0, scheduling_strategy=where)(what)
        with _telling():
            return ray.get(task.remote(*words))


@contextmanager
def connected(options: Options) -> Iterator[Cluster]:
    """A connection to the cluster at ``options.ray``.

    Raises:
        InputError: Ray is not installed here, no cluster is there, or it has not what was asked for.
    """
    if find_spec("ray") is None:
        raise InputError("--ray: Ray is not installed here; `pip install 'esrp-judge[ray]'`")
    # Its own words are for those who write programs on it. What a user has to know comes through ``_telling``.
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    try:
        if options.ray != "auto":
            place = urlsplit(f"//{options.ray}")
            # Ray itself tries for two minutes.
            socket.create_connection((place.hostname or "", place.port or 0), timeout=10).close()
        with _no_stderr():
            ray.init(options.ray, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--ray {options.ray}: no Ray cluster can be reached there ({one_line(error)}); start one by "
            "`ray start --head`, or check the address, which is HOST:PORT or auto"
        ) from error
    try:
        yield _cluster(options)
    finally:
        ray.shutdown()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Keeps off the screen what Ray's part in C++ says of its settings while it starts."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _cluster(options: Options) -> Cluster:
    """What is wanted of the cluster; InputError where it has less."""
    import ray

    nobody = Hardware(0, 0.0, (), None, None, None)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    gpus_there = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in nodes}
    cpus_there = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = 1 if any(gpus_there.values()) else 0
    have = gpus_there if gpus else cpus_there
    places = {node: count // (gpus or 1) for node, count in have.items() if count >= (gpus or 1)}
    workers = options.workers or (sum(places.values()) if gpus else len(places))
    if not places or workers > sum(places.values()):
        wanted = f"{workers or 1} × {gpus} GPU" if gpus else f"{workers or 1} × 1 CPU"
        there = f"{sum(gpus_there.values())} GPUs and {sum(cpus_there.values())} CPUs (nodes: {len(nodes)})"
        raise InputError(
            f"--ray {options.ray}: {wanted} do not fit on it, which has {there}; give fewer --workers or "
            "--gpus-per-worker"
        )
    # A worker without a GPU takes the CPUs of a node, where there are enough nodes.
    cpus = 1 if gpus or workers > len(places) else min(cpus_there[node] for node in places)
    found = Cluster(workers, cpus, gpus, nobody, tuple(places))
    return replace(found, hardware=found.once(detect))


def _for_workers(options: Options, gpus: int) -> Options:
    """The options as a worker takes them, who is in another folder, and of whom each has so many GPUs."""
    rubric = options.rubric if options.rubric in packaged() else Path(options.rubric).resolve()
    judge = str(Path(options.judge).resolve()) if Path(options.judge).exists() else options.judge
    own = replace(options, ray="", workers=None, gpus_per_worker=None, run=None, rubric=rubric, judge=judge)
    return replace(own, tensor_parallel=max(1, gpus))


def _find_answer_form(options: Options) -> AnswerForm:
    """The form of the answers of the judge that the options name."""
    return open_judge(options, open_model(options, detect())).answer_form


def _sees(file: str) -> tuple[str, bool]:
    """Which version is installed here, and whether a file is seen."""
    return version("esrp-judge"), is_there(file)


@contextmanager
def _telling() -> Iterator[None]:
    """Turns what Ray raises into an error of ours: of a task of ours, or of the cluster."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, JudgeError):
            raise cause from error
        if isinstance(cause, ImportError):
            raise InputError(f"a node of the cluster lacks what is installed here ({one_line(cause)})") from error
        raise EngineError(f"a worker failed: {type(cause).__name__}: {one_line(cause)}") from error
    except ray.exceptions.RayError as error:
        raise EngineError(f"the Ray cluster failed: {one_line(error)}") from error


def complete(work: Work, options: Options, cluster: Cluster, stop: threading.Event) -> list[dict[str, Any]]:
    """Have the cluster's workers judge what is missing of a run; returns what their engines report.

    Raises:
        Interrupted: ``stop`` was set.
        JudgeError: the run cannot go on; what was judged is kept.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = replace(_for_workers(options, cluster.gpus), answer_form=work.judge.answer_form.name)
    run = home_of(work.store.folder) or str(work.store.folder.resolve())
    chunks = list(_chunks(work, cluster.workers))
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # Lost with its node it is made anew, and counts from the beginning.
    ledger = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Ledger).remote()
    rows = (
        ray.data.from_items([{"chunk": pickle.dumps(chunk)} for chunk in chunks], override_num_blocks=len(chunks))
        .map_batches(
            Worker,
            batch_size=1,
            compute=ActorPoolStrategy(size=min(cluster.workers, len(chunks))),
            fn_constructor_args=(options, run, work.judge.name, work.judge.identity.judge_id, work.metrics, ledger),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
        )
        .iter_batches(batch_size=1, prefetch_batches=0)
    )
    checks = {kind: work.mass_check(kind) for kind in (JUDGMENTS, DIVERSITY)}
    engines: dict[str, dict[str, Any]] = {}
    work.progress.begin("judgments", *work.counts())
    try:
        with _telling():
            for row in rows:
                done: Done = pickle.loads(row["done"][0])
                if done.failed:
                    raise done.failed
                for note in done.notes:
                    work.progress.note(note)
                engines[done.worker] = done.engine or {}
                checks[done.kind].see(done.masses)
                work.progress.advance(done.judgments, done.tokens)
                if stop.is_set():
                    raise Interrupted(f"stopped; all judged so far is in {work.store};", can_go_on=True)
    finally:
        if home_of(work.store.folder):  # what the workers put into the store
            refresh(work.store.folder)
    for check in checks.values():
        check.conclude()
    return [{"worker": number, **engine} for number, engine in enumerate(engines.values(), start=1)]


def _chunks(work: Work, workers: int) -> Iterator[Chunk]:
    """What is missing, cut into chunks; dialogues of a character stay together, as batches are sorted by it."""
    ends = list(accumulate(work.sizes.values()))
    places = {
        name: (end - size, end)
        for (name, size), end in zip(work.sizes.items(), ends, strict=True)
        if name not in work.done
    }
    most = max(1, CHUNK_DIALOGUES // max(work.sizes.values(), default=1))
    at_once = min(most, max(1, len(places) // (CHUNKS_PER_WORKER * workers)))
    names = list(places)
    for start in range(0, len(names), at_once):
        own = tuple(names[start : start + at_once])
        yield Chunk(JUDGMENTS, own, places=tuple(places[name] for name in own))
    for name, roles in work.role_batches:
        if name not in work.done:
            yield Chunk(DIVERSITY, (name,), samples=([sample(work.corpus, role) for role in roles],))
