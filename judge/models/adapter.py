"""Adapters as judges: what LoRA learned is merged into its base, once, into a model folder in the cache.

So that every engine takes it for an ordinary model, and its weights tell it from its base.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from judge.errors import EngineError, InputError, one_line
from judge.files import cache_folder, made_folder, remembered_sha256
from judge.models.checkpoint import TOKENIZER_FILES, TRAINING, Checkpoint, resolve
from judge.types import digest

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter, as peft names them."""


OF_WEIGHTS = {"config.json", "model.safetensors.index.json", CONFIG}
"""Files of either folder that are not the merged model's."""


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
    _refuse_a_circle(folder)
    base = resolve(_base_of(folder), option=f"{folder}: its base")
    training = Checkpoint(folder.name, folder).training
    if training and training["base"]["weights"] != base.weights_digest:
        raise InputError(
            f"{folder}: {base.asked} has other weights than the base it was trained on; name that base in {CONFIG}"
        )
    if base.quantisation:
        raise InputError(f"{folder}: its base is quantised ({base.quantisation}), which nothing can be merged into")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: no {WEIGHTS} in it; save the adapter as safetensors")
    # As it was trained: in a narrower precision the merged weights would be those of another judge.
    dtype = training["judge"]["dtype"] if training else "auto"
    copied = _copied(folder, base)
    hashes = {name: remembered_sha256(file) for name, file in {**copied, WEIGHTS: folder / WEIGHTS}.items()}
    both = [base.weights_digest, base.config_digest, remembered_sha256(folder / CONFIG), hashes, dtype]
    out = cache_folder() / "adapters" / digest(both)
    try:
        return made_folder(out, lambda beside: _merge(folder, base, dtype, copied, beside))
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


def _refuse_a_circle(folder: Path) -> None:
    """InputError where a base, which may be an adapter too, leads back to where it began."""
    seen: list[Path] = []
    at = folder
    while at.is_dir() and is_adapter(at):
        if at.resolve() in seen:
            raise InputError(f"{at / CONFIG}: its base leads back to itself; name the model it was trained on")
        seen.append(at.resolve())
        at = Path(_base_of(at))


def _copied(folder: Path, base: Checkpoint) -> dict[str, Path]:
    """Tokenizer and templates by name, the adapter's own before those of its base; what is noted of its training."""
    found = {
        file.name: file
        for place in (base.folder, folder)
        for pattern in TOKENIZER_FILES
        for file in sorted(place.glob(pattern))
        if file.name not in OF_WEIGHTS and (file.name != TRAINING or place == folder)
    }
    return dict(sorted(found.items()))


def _merge(folder: Path, base: Checkpoint, dtype: str, copied: dict[str, Path], out: Path) -> None:
    if missing := [name for name in ("peft", "accelerate") if find_spec(name) is None]:
        raise InputError(f"{folder}: an adapter needs {' and '.join(missing)}; pip install 'esrp-judge[train]'")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(
            base.folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, local_files_only=True
        )
        network = PeftModel.from_pretrained(network, str(folder)).merge_and_unload()
        network.save_pretrained(out)
    except (ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise EngineError(
            f"{folder}: damaged, or does not fit its base {base.asked} ({one_line(error)}); save the adapter again"
        ) from error
    for name, file in copied.items():
        shutil.copyfile(file, out / name)
