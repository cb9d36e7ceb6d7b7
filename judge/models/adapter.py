"""Adapters as judges: what LoRA learned is merged into its base, once, into a model folder in the cache.

So that every engine takes it for an ordinary model, and its weights tell it from its base.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from judge.errors import EngineError, InputError, one_line
from judge.files import cache_folder, made_folder, remembered_sha256
from judge.types import digest

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter, as peft names them."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """What an adapter says its base is: a Hub id, or a path, also one that is seen from the adapter's folder.

    InputError where it says none, or where its base, which may be an adapter too, leads back to itself.
    """
    seen: list[Path] = []
    at = folder
    while at.is_dir() and is_adapter(at):
        if at.resolve() in seen:
            raise InputError(f"{at / CONFIG}: its base leads back to itself; name the model it was trained on")
        seen.append(at.resolve())
        at = Path(_named_base(at))
    return _named_base(folder)


def _named_base(folder: Path) -> str:
    try:
        named = str(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG}: names no base; it is damaged, or no adapter of peft's") from error
    beside = folder / named
    return str(beside) if beside.exists() else named


def merged(folder: Path, base: Path, identity: str, dtype: str, beside: Mapping[str, Path]) -> Path:
    """The model folder of an adapter: its base with it merged, in the cache under the hashes of both.

    Args:
        folder: the adapter's.
        base: its base's, a model folder.
        identity: hash of the base's weights and configuration.
        dtype: the precision in which they are merged, or ``auto`` for that of the base.
        beside: files to copy, by name.

    Raises:
        InputError: the adapter has no safetensors, or the extra ``train`` is not installed.
        EngineError: the cache cannot be written, the adapter is damaged, or they do not fit together.
    """
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: no {WEIGHTS} in it; save the adapter as safetensors")
    own = {name: folder / name for name in (CONFIG, WEIGHTS)}
    hashes = {name: remembered_sha256(file) for name, file in {**beside, **own}.items()}
    out = cache_folder() / "adapters" / digest([identity, hashes, dtype])

    def make(new: Path) -> None:
        _merge(folder, base, dtype, new)
        for name, file in beside.items():
            shutil.copyfile(file, new / name)

    try:
        return made_folder(out, make)
    except OSError as error:
        raise EngineError(
            f"{folder}: cannot be merged into {out} ({one_line(error)}); set ESRP_CACHE to a folder with room"
        ) from error


def _merge(folder: Path, base: Path, dtype: str, out: Path) -> None:
    if missing := [name for name in ("peft", "accelerate") if find_spec(name) is None]:
        raise InputError(f"{folder}: an adapter needs {' and '.join(missing)}; pip install 'esrp-judge[train]'")
    from peft import PeftModel, get_peft_model_state_dict

    from judge.models.weights import load_model

    try:
        network: Any = load_model(base, dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")
            network = PeftModel.from_pretrained(network, str(folder))
        # peft warns of what it misses, says nothing of what it has no place for, and goes on.
        with safe_open(folder / WEIGHTS, "pt") as file:
            learned = set(file.keys())
        read = set(get_peft_model_state_dict(network, save_embedding_layers=False))
        if other := sorted(name for name in learned ^ read if network.base_model.prefix in name):
            raise ValueError(f"{len(other)} of its weights have no place there or are missing, {other[0]} for one")
        network.merge_and_unload().save_pretrained(out)
    except (ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise EngineError(
            f"{folder}: damaged, or does not fit its base {base} ({one_line(error)}); save the adapter again"
        ) from error
