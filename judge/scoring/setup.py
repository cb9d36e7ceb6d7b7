"""What a person needs to know when something does not work: the machine, versions, engines, caches, mirrors."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from judge.data.chatanime import chatanime_folder, is_complete
from judge.data.dataset import Corpus
from judge.data.dialogues import example_files
from judge.engines import Engine
from judge.engines.in_process import engine_loader, engine_name
from judge.engines.served_model import connect
from judge.errors import InputError, JudgeError, discreet
from judge.files import cache_folder
from judge.models.checkpoint import Checkpoint, resolve, stand_in
from judge.models.hardware import Hardware, detect, require_usable
from judge.models.presets import PRESETS, pick
from judge.progress import SILENT, Progress
from judge.prompting.rubric import load_rubric
from judge.scoring.answer_form import find_answer_form
from judge.scoring.judge import AnswerForm, Judge, JudgeModel
from judge.types import AS_ASKED, STAND_IN, Options


def open_model(options: Options, hardware: Hardware, progress: Progress = SILENT) -> JudgeModel:
    """The model that was asked for, with what runs it; ``options.judge`` is a name. It is not loaded yet.

    Raises:
        InputError: judge, server, rubric or an option cannot be used.
        EngineError: the model cannot be fetched, or the server not be reached.
    """
    if options.url:
        from judge.engines.server import ServerEngine

        served = connect(options.url, options.judge, options.protocol, options.patience)
        return JudgeModel(served, hardware, lambda: ServerEngine(served, options.patience, options.concurrency))
    is_file = options.judge.lower().endswith(".gguf")
    with progress.busy(f"converting {options.judge}, once") if is_file else nullcontext():
        if options.judge == "stand-in":  # it is built for the levels of the rubric
            checkpoint = stand_in(load_rubric(options.language, options.rubric).scheme.all_levels)
        else:
            checkpoint = resolve(options.judge)
    return JudgeModel(checkpoint, hardware, _engine(options, hardware, checkpoint))


def open_corpus(paths: Sequence[Path], options: Options, rated: Collection[str] | None = None) -> Corpus:
    """The dialogues that the options choose, with chat logs read as the rubric says who is judged.

    ``rated`` as for ``Corpus``. InputError where the rubric, the data or an option is wrong.
    """
    outline = load_rubric(options.language, options.rubric).outline
    return Corpus(
        paths,
        options.sources,
        options.characters,
        options.limit,
        rated,
        mapping=options.mapping,
        judged_role=outline.judged_role,
        default_character=outline.character,
    )


def open_judge(
    options: Options,
    model: JudgeModel,
    ascending: bool = True,
    progress: Progress = SILENT,
    form: AnswerForm | None = None,
) -> Judge:
    """The judge that asks a model as the options say; ``form`` is that of its answers, where it was found elsewhere.

    The model is loaded only to find the form of its answers, where that is asked for and not remembered.

    Raises:
        InputError: rubric or an option cannot be used.
        UnfitJudge: the model does not answer with a level in any form.
    """
    rubric = load_rubric(options.language, options.rubric)
    with progress.busy(f"opening {model.name}"):
        _ = model.tokenizer  # the libraries that read it take their time to be imported

    def judge_with(form: AnswerForm) -> Judge:
        return Judge(model, rubric, options.layout, options.orderings, ascending, form)

    if form:
        judge = judge_with(form)
    elif options.answer_form != "auto":
        judge = judge_with(AnswerForm(options.answer_form))
    elif isinstance(model.origin, Checkpoint) and (trained := model.origin.training):
        judge = judge_with(
            AnswerForm(trained["judge"]["answer_form"])
        )  # another may have label mass too, and was not learned
    elif model.name == STAND_IN or not model.takes_ids:
        judge = judge_with(AnswerForm())  # of random weights, or where the server begins the answer itself
    else:
        judge = find_answer_form(model, judge_with, options.min_mass, progress)
    if options.url:
        _ = judge.engine  # costs nothing, and says at once where the context is too short
    return judge


def _engine(options: Options, hardware: Hardware, checkpoint: Checkpoint) -> Callable[[], Engine]:
    """What loads the model in this process."""
    return engine_loader(options.engine, hardware, checkpoint, options.tensor_parallel, options.patience)


def choose_judge(data: Sequence[Path], options: Options, hardware: Hardware) -> tuple[str, str]:
    """The judge to take, and why; for a user's own data ``auto`` takes a preset or none."""
    if options.judge != "auto":
        return options.judge, AS_ASKED
    if options.url:
        return options.judge, "as the server has it"
    name, reason = pick(hardware)
    if data and name not in PRESETS:
        raise InputError(
            f"no judge is chosen for your data ({reason}); name one: --judge qwen3-0.6b (JUDGE=qwen3-0.6b) is a "
            "small real judge, --judge stand-in (JUDGE=stand-in) gives scores that mean nothing"
        )
    return name, reason


def settle(
    data: Sequence[Path], options: Options, progress: Progress = SILENT, hardware: Hardware | None = None
) -> tuple[list[Path], Options, str, Hardware]:
    """The data that are meant, the options with the judge that is meant, why it is that judge, and what there is.

    ``hardware`` is what the judge will run on, where that is not this machine.

    Where no data are named they are ChatAnime, if fetched and if the judge is real and was named or has a GPU;
    otherwise the packaged example.

    Raises:
        InputError: no judge is chosen for these data.
        EngineError: the machine has a GPU that cannot be used.
    """
    if hardware is None:
        with progress.busy("looking at this machine"):
            hardware = detect()
    if not options.url:
        require_usable(hardware)
    with progress.busy("choosing a judge"):
        name, reason = choose_judge(data, options, hardware)
    is_up_to_it = name != "stand-in" and (options.judge != "auto" or options.url or hardware.gpus)
    default = [chatanime_folder()] if is_up_to_it and is_complete(chatanime_folder()) else example_files()
    return list(data) or default, replace(options, judge=name), reason, hardware


PACKAGES = (
    "esrp-judge", "torch", "transformers", "tokenizers", "vllm", "flash-linear-attention", "pandas", "pyarrow",
    "scikit-learn",
)  # fmt: skip


VARIABLES = (
    "ESRP_CACHE", "HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "VLLM_USE_MODELSCOPE", "PIP_INDEX_URL",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


def examine() -> dict[str, Any]:
    """All of it as plain values; ``problem`` is set where a GPU is there and cannot be used, or no judge fits."""
    from huggingface_hub import constants

    from judge.models.stand_in import stand_in_folder

    hardware = detect()
    judge, why, problem = None, None, hardware.problem
    if not problem:
        try:
            judge, why = pick(hardware)
        except JudgeError as error:
            problem = str(error)
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "machine": {"python": platform.python_version(), "system": platform.platform(), **asdict(hardware)},
        "versions": versions,
        "engines": {"packed": True, "vllm (installed)": find_spec("vllm") is not None},
        "engine": engine_name("auto", hardware),
        "judge": judge,
        "judge_why": why,
        "problem": problem,
        "stand_in_path": str(stand_in_folder()),
        "cache": str(cache_folder()),
        "hub_cache": str(Path(constants.HF_HUB_CACHE)),
        "chatanime": str(chatanime_folder()) if is_complete(chatanime_folder()) else None,
        "environment": {name: discreet(os.environ[name]) if name in os.environ else None for name in VARIABLES},
    }
