"""Adapters as judges: what LoRA learned is merged into its base, once, into a model folder in the cache.

So that every engine takes it for an ordinary model, and its weights tell it from its base.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from judge.errors import EngineError, InputError, one_line
from judge.files import cache_folder, made_folder, remembered_sha256
from judge.models.checkpoint import TOKENIZER_FILES, TRAINING, Checkpoint, resolve
from judge.types import digest

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter, as peft names them."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def merged(folder: Path) -> Path:
    """The model folder of an adapter: its base with it merged, under the hashes of both.

    Raises:
        InputError: the adapter is damaged or its base cannot be had or is another than it was trained on, or the extra
            ``train`` is not installed.
        EngineError: the cache cannot be written, or they do not fit together.
    """
    base = resolve(_base_of(folder), option=f"{folder}: its base")
    _refuse_another_base(folder, base)
    if base.quantisation:
        raise InputError(f"{folder}: its base is quantised ({base.quantisation}), which nothing can be merged into")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: no {WEIGHTS} in it; save the adapter as safetensors")
    both = digest(
        [base.weights_digest, base.config_digest, *(remembered_sha256(folder / n) for n in (CONFIG, WEIGHTS))]
    )
    out = cache_folder() / "adapters" / both
    try:
        return made_folder(out, lambda beside: _merge(folder, base, beside))
    except OSError as error:
        raise EngineError(
            f"{folder}: cannot be merged into {out} ({one_line(error)}); set ESRP_CACHE to a folder with room"
        ) from error


def _base_of(folder: Path) -> str:
    """What an adapter says its base is: a Hub id, or a path, also one that is seen from the adapter's folder."""
    try:
        named = str(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG}: names no base; it is damaged, or no adapter of peft's") from error
    beside = folder / named
    return str(beside) if beside.exists() else named


def _refuse_another_base(folder: Path, base: Checkpoint) -> None:
    """InputError where ``train`` noted the base's weights and these are others."""
    training = Checkpoint(folder.name, folder).training
    if training and training["base"]["weights"] != base.weights_digest:
        raise InputError(
            f"{folder}: {base.asked} has other weights than the base it was trained on; name that base in {CONFIG}"
        )


def _merge(folder: Path, base: Checkpoint, out: Path) -> None:
    if missing := [name for name in ("peft", "accelerate") if find_spec(name) is None]:
        raise InputError(f"{folder}: an adapter needs {' and '.join(missing)}; pip install 'esrp-judge[train]'")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    try:
        network: Any = AutoModelForCausalLM.from_pretrained(
            base.folder, dtype="auto", trust_remote_code=False, use_safetensors=True, local_files_only=True
        )
        network = PeftModel.from_pretrained(network, str(folder)).merge_and_unload()
        network.save_pretrained(out)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise EngineError(f"{folder}: does not fit its base {base.asked}: {one_line(error)}") from error
    for pattern in (*TOKENIZER_FILES, TRAINING):
        for file in (*base.folder.glob(pattern), *folder.glob(pattern)):
            if file.name not in {"config.json", "model.safetensors.index.json", CONFIG}:
                shutil.copyfile(file, out / file.name)
