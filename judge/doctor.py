"""What a person needs to know when something does not work: the machine, versions, engines, caches, mirrors."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from judge.cache import cache_folder
from judge.checkpoint import pick
from judge.choosing import engine_name
from judge.errors import JudgeError, discreet
from judge.fetch import chatanime_folder, is_complete
from judge.hardware import detect

PACKAGES = ("esrp-judge", "torch", "transformers", "tokenizers", "vllm", "pandas", "pyarrow", "scikit-learn")
VARIABLES = (
    "ESRP_CACHE", "HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "VLLM_USE_MODELSCOPE", "PIP_INDEX_URL",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


def examine() -> dict[str, Any]:
    """All of it as plain values; ``problem`` is set where a GPU is there and cannot be used, or no judge fits."""
    from huggingface_hub import constants

    from judge.engines.standin import stand_in_folder

    hardware = detect()
    judge, why, problem = None, None, hardware.problem
    if not problem:
        try:
            judge, why = pick(hardware)
        except JudgeError as error:
            problem = str(error)
    return {
        "machine": {"python": platform.python_version(), "system": platform.platform(), **asdict(hardware)},
        "versions": {name: _version(name) for name in PACKAGES},
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


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
