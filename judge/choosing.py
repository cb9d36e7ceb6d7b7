"""Which data, judge and engine are meant by what the user said, and by what was left to us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from judge.checkpoint import Checkpoint, pick, resolve
from judge.dialogues import example_files
from judge.engines import Engine
from judge.errors import EngineError, InputError
from judge.fetch import chatanime_folder, is_complete
from judge.hardware import Hardware
from judge.judging import Judge
from judge.options import Options
from judge.rubric import load_rubric
from judge.served import connect


def open_judge(options: Options, hardware: Hardware, ascending: bool = True) -> Judge:
    """The judge and engine that were asked for; ``options.judge`` is a name, and its model is not loaded yet.

    Raises:
        InputError: judge, rubric, server or an option cannot be used.
        EngineError: the model cannot be fetched, or the server not be reached.
    """
    rubric = load_rubric(options.language, options.prompts)
    asked = options.layout, options.orderings, ascending
    if options.url:
        from judge.engines.server import ServerEngine

        served = connect(options.url, options.judge)
        judge = Judge(served, rubric, hardware, lambda: ServerEngine(served, options.patience), *asked)
        _ = judge.engine  # costs nothing, and says at once where the context is too short
        return judge
    checkpoint = resolve(options.judge)
    return Judge(checkpoint, rubric, hardware, _engine(options, hardware, checkpoint), *asked)


def _engine(options: Options, hardware: Hardware, checkpoint: Checkpoint) -> Callable[[], Engine]:
    """What loads the model, and first the libraries that run it: a finished run needs neither."""
    name = engine_name(options.engine, hardware)
    if name == "vllm" and find_spec("vllm") is None:
        raise EngineError("vLLM is not installed here; `pip install 'esrp-judge[vllm]'`, or choose --engine packed")

    def load() -> Engine:
        if name == "vllm":
            from judge.engines.vllm import VllmEngine

            return VllmEngine(checkpoint.folder, checkpoint.dtype(hardware), options.tensor_parallel, options.patience)
        from judge.engines.packed import PackedEngine

        return PackedEngine.load(checkpoint.folder)

    return load


def engine_name(asked: str, hardware: Hardware) -> str:
    """The engine that ``auto`` stands for: vLLM on a GPU where it is installed, packed otherwise."""
    if asked != "auto":
        return asked
    return "vllm" if hardware.gpus and find_spec("vllm") is not None else "packed"


def choose_judge(data: Sequence[Path], options: Options, hardware: Hardware) -> tuple[str, str]:
    """The judge to take, and why; ``auto`` never takes the stand-in for a user's own data."""
    if options.judge != "auto":
        return options.judge, "as asked for"
    if options.url:
        return options.judge, "as the server has it"
    if data and not hardware.gpus:
        raise InputError(
            "no GPU here, so no judge is chosen for your data; name one: --judge qwen3-0.6b (JUDGE=qwen3-0.6b) is a "
            "small real judge, --judge stand-in (JUDGE=stand-in) gives scores that mean nothing"
        )
    return pick(hardware)


def default_data(judge: str) -> list[Path]:
    """What is scored where no data is named: ChatAnime for a real judge, if fetched; otherwise the example."""
    if judge != "stand-in" and is_complete(chatanime_folder()):
        return [chatanime_folder()]
    return example_files()
