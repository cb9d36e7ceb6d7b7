"""Which engine runs a model in this process, and how it is loaded: a finished run needs no engine and loads none."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from judge.engines import PATIENCE_S
from judge.errors import EngineError
from judge.models.checkpoint import Checkpoint
from judge.models.hardware import Hardware

if TYPE_CHECKING:
    from judge.engines.packed.engine import PackedEngine
    from judge.engines.vllm import VllmEngine


def engine_name(asked: str, hardware: Hardware) -> str:
    """The engine that ``auto`` stands for: vLLM on a GPU where it is installed, packed otherwise."""
    if asked != "auto":
        return asked
    return "vllm" if hardware.gpus and find_spec("vllm") is not None else "packed"


def engine_loader(
    asked: str, hardware: Hardware, checkpoint: Checkpoint, tensor_parallel: int = 1, patience: float = PATIENCE_S
) -> Callable[[], PackedEngine | VllmEngine]:
    """What loads a model, and first the libraries that run it.

    Args:
        asked: ``auto``, ``packed`` or ``vllm``.
        hardware: what it runs on.
        checkpoint: its files.
        tensor_parallel: over how many GPUs vLLM splits it.
        patience: seconds after which a silent vLLM is taken to hang.

    Raises:
        EngineError: vLLM is asked for and not installed.
    """
    name = engine_name(asked, hardware)
    if name == "vllm" and find_spec("vllm") is None:
        raise EngineError("vLLM is not installed here; `pip install 'esrp-judge[vllm]'`, or choose --engine packed")

    def load() -> PackedEngine | VllmEngine:
        if name == "vllm":
            from judge.engines.vllm import VllmEngine

            return VllmEngine(checkpoint.folder, checkpoint.dtype(hardware), tensor_parallel, patience)
        from judge.engines.packed.engine import PackedEngine

        return PackedEngine.load(checkpoint.folder)

    return load
