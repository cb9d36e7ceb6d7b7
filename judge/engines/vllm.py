"""Scoring by vLLM in this process: one request per leaf; vLLM's prefix cache does what the packed engine's tree does.

The leaves of a dialogue are asked next to each other, and dialogues in the order of the tree. So what they share is
still in the cache when the next one needs it. Only the log-probabilities of the levels' tokens come back.

vLLM's engine is a process of its own, which may die or hang. It is then killed and started anew, and asked once more.
Where this process itself is killed, ``judge.engines.vllm_guardian`` ends what it leaves.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from judge.engines import GREEDY, PATIENCE_S, Array, Sampling, by_level, silent
from judge.engines.vllm_guardian import stand_guard
from judge.errors import EngineError, one_line
from judge.models.hardware import narrow_to
from judge.prompting.prompt_tree import Ids, PromptTree

POLL_S = 0.5
"""Seconds between two checks of the watchdog."""


@contextmanager
def watchdog(
    processes: Sequence[BaseProcess], patience: float, tell: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Watch processes during the block; yields a function to be called at every sign of life.

    Args:
        processes: the processes. The first that died ends the watch.
        patience: seconds without a sign of life after which all are killed.
        tell: called at most once, from another thread, with what happened (``died``, ``finished nothing for …``).
    """
    sign, over = threading.Event(), threading.Event()

    def watch() -> None:
        heard = time.monotonic()
        while processes and not over.wait(POLL_S):
            if sign.is_set():
                sign.clear()
                heard = time.monotonic()
            # A process that hangs is killed here, so that the caller finds it dead in either case.
            if not all(process.is_alive() for process in processes):
                return tell("died")
            if time.monotonic() - heard > patience:
                for process in processes:
                    process.kill()
                return tell(f"finished nothing for {patience:.0f} s")
        return None

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield sign.set
    finally:
        over.set()
        thread.join()


WINDOW = 256
"""Dialogues submitted together: enough to keep a GPU busy, few enough to keep memory flat."""


MEMORY_SHARE = 0.9
"""The share of the GPU's free memory that vLLM may take."""


ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has looked at the GPUs, and a fork could not use them
}
"""Environment variables of vLLM, set where the user has not set them."""


class VllmEngine:
    """Scores prompt trees with a model in vLLM.

    vLLM starts a process of its own: a Python script that uses this must be guarded by
    ``if __name__ == "__main__":``.

    Args:
        folder: a model folder.
        dtype: ``bfloat16`` or ``float32``.
        tensor_parallel: over how many GPUs the model is split.
        patience: seconds after which an engine that finished no prompt is taken to hang.

    Raises:
        EngineError: vLLM is not installed, or cannot load the model.
    """

    name = "vllm"
    window = WINDOW

    def __init__(
        self, folder: Path, dtype: str, tensor_parallel: int = 1, patience: float = PATIENCE_S, **settings: Any
    ) -> None:
        self._guardian = stand_guard()
        self._load = partial(_load, folder, dtype, tensor_parallel, settings)
        self._start()
        self.patience = patience
        self.max_tokens = int(self._llm.model_config.max_model_len) - 1
        self.on_progress: Callable[[int], None] = silent
        self._tokens = self._cached = self._restarts = 0

    def _start(self) -> None:
        """Load the model, and note the processes that vLLM starts for it."""
        # vLLM does not name them; they are the children that were not there before.
        before = multiprocessing.active_children()
        self._llm, self._params = self._load()
        self._processes = [process for process in multiprocessing.active_children() if process not in before]

    @property
    def report(self) -> dict[str, Any]:
        """See ``Engine.report``: also the tokens of all prompts, how many of them the cache held, and restarts."""
        tokens = {"prompt_tokens": self._tokens, "cached_tokens": self._cached}
        return {"name": self.name, **tokens, "restarts": self._restarts}

    def verify(self, tree: PromptTree) -> None:
        """Nothing to check: prompts are whole, and vLLM caches only what it can for the model."""

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        """See ``Engine.level_logprobs``."""
        prompts = _prompts(trees)
        tokens = [token for ids in level_ids for token in ids]
        params = self._params(max_tokens=1, temperature=0.0, logprob_token_ids=tokens, allowed_token_ids=tokens)
        outputs = self._outputs(prompts, params)
        self._tokens += sum(len(prompt["prompt_token_ids"]) for prompt in prompts)
        self._cached += sum(output.num_cached_tokens or 0 for output in outputs)
        logprobs = ({token: one.logprob for token, one in o.outputs[0].logprobs[0].items()} for o in outputs)
        rows = (by_level(found, level_ids) for found in logprobs)
        return [np.stack(list(islice(rows, len(tree.leaves)))) for tree in trees]

    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> list[list[Ids]]:
        """See ``Engine.generate``."""
        prompts = [prompt for tree in trees for prompt in tree.prompts]
        written = iter(self.write(prompts, [GREEDY] * len(prompts), max_tokens))
        return [list(islice(written, len(tree.leaves))) for tree in trees]

    def write(self, prompts: Sequence[Ids], samplings: Sequence[Sampling], max_tokens: int) -> list[Ids]:
        """See ``Writer.write``."""
        params = [self._params(max_tokens=max_tokens, **asdict(sampling)) for sampling in samplings]
        outputs = self._outputs([{"prompt_token_ids": list(prompt)} for prompt in prompts], params)
        return [tuple(output.outputs[0].token_ids) for output in outputs]

    def _outputs(self, prompts: list[dict[str, Any]], params: Any) -> list[Any]:
        """What vLLM answers; an engine that died on the way is started anew, once."""
        try:
            return self._generate(prompts, params)
        except _Died:
            self._restarts += 1
            self._start()
        try:
            return self._generate(prompts, params)
        except _Died as error:
            raise EngineError(f"vLLM {error}, also when started anew; choose --engine packed") from error

    def _generate(self, prompts: list[dict[str, Any]], params: Any) -> list[Any]:
        """What vLLM answers; ``_Died`` where its process died or hung."""
        deaths: list[str] = []

        def end_waiting(what: str) -> None:
            # vLLM 0.32 itself waits for ever for the answer of a process that was killed. An error in the queue that it
            # waits on ends that.
            deaths.append(what)
            self._llm.llm_engine.engine_core.outputs_queue.put(RuntimeError(what))

        with watchdog(self._processes, self.patience, end_waiting) as beat:
            try:
                outputs: list[Any] = self._llm.generate(
                    prompts, params, use_tqdm=partial(_Listener, beat, self.on_progress)
                )
            except Exception as error:  # vLLM's own errors, and any of the libraries below it
                if deaths or not all(process.is_alive() for process in self._processes):
                    raise _Died(*deaths or ("died",)) from error
                raise EngineError(f"vLLM failed: {type(error).__name__}: {one_line(error)}") from error
        return outputs


class _Died(Exception):
    """The engine's process is gone; the message says what it did."""


class _Listener:
    """Takes the place of vLLM's progress bar, which is called for every prompt taken in or finished: a sign of life.

    The attributes are those that vLLM reads of a bar.
    """

    n = 0
    format_dict: ClassVar = {"elapsed": 1.0}
    postfix = ""

    def __init__(
        self, beat: Callable[[], None], done: Callable[[int], None], items: Iterable[Any] = (), **settings: Any
    ) -> None:
        self._beat, self._done, self._items = beat, done, items

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._beat()
            yield item

    def update(self, count: int) -> None:
        self._beat()
        self._done(count)

    def close(self) -> None:
        pass


def _prompts(trees: Sequence[PromptTree]) -> list[dict[str, Any]]:
    """The prompts of all leaves, one after another, as vLLM takes them."""
    return [{"prompt_token_ids": list(prompt)} for tree in trees for prompt in tree.prompts]


def _load(folder: Path, dtype: str, tensor_parallel: int, settings: dict[str, Any]) -> tuple[Any, Any]:
    """vLLM with the model, and its class of sampling parameters."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM, SamplingParams
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported ({one_line(error)}); `pip install 'esrp-judge[vllm]'`, or choose --engine packed"
        ) from error
    try:
        llm = LLM(
            str(folder),
            dtype=dtype,
            tensor_parallel_size=tensor_parallel,
            enable_prefix_caching=True,
            disable_log_stats=True,
            **{"load_format": "safetensors", **_place(tensor_parallel), **settings},  # no pickles are ever read
        )
    except Exception as error:
        raise EngineError(f"{folder}: vLLM cannot load it: {one_line(error)}; choose --engine packed") from error
    return llm, SamplingParams


def _place(count: int) -> dict[str, Any]:
    """Settings for this machine: the GPUs with most free memory and a share of it; on a CPU, small cache blocks.

    Args:
        count: how many GPUs.
    """
    import torch

    if not torch.cuda.is_available():
        return {"block_size": 32, "enforce_eager": True}
    memory = {index: torch.cuda.mem_get_info(index) for index in range(torch.cuda.device_count())}
    chosen = sorted(memory, key=lambda index: -memory[index][0])[:count]
    narrow_to(chosen)  # vLLM takes the first GPUs that its processes see
    # vLLM takes one share of the whole memory of every GPU: the one with the smallest free share decides.
    return {"gpu_memory_utilization": round(MEMORY_SHARE * min(memory[i][0] / memory[i][1] for i in chosen), 3)}
