"""Turns this process into a vLLM server with the flags that suit scoring."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from judge.engines.connections import API_KEY
from judge.errors import EngineError
from judge.models.checkpoint import resolve
from judge.models.hardware import detect, require_usable
from judge.models.presets import pick

HOST = "127.0.0.1"
"""The address on which ``serve`` listens: it is reached from this machine only."""


def serve(judge: str, port: int, flags: Sequence[str] = ()) -> NoReturn:
    """Turn this process into the server of a judge; the command that scores by it is printed first.

    Clients need the key in ``ESRP_API_KEY``, where it is set.

    Args:
        judge: a preset, a model's name or a folder; ``auto`` for the largest preset that fits.
        port: the port to listen on.
        flags: further flags of ``vllm serve``.

    Raises:
        InputError: there is no such judge.
        EngineError: vLLM is not installed, or a GPU cannot be used.
    """
    hardware = detect()
    require_usable(hardware)
    if find_spec("vllm") is None:
        raise EngineError("vLLM is not installed here; run `make serve`, or `pip install 'esrp-judge[vllm]'`")
    name = pick(hardware)[0] if judge == "auto" else judge
    checkpoint = resolve(name)
    dtype = checkpoint.dtype(hardware)
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint.folder),
        "--served-model-name", name, "--host", HOST, "--port", str(port), "--dtype", dtype, "--enable-prefix-caching",
        "--max-logprobs", "40", "--generation-config", "vllm", "--load-format", "safetensors",
    ]  # fmt: skip
    # As ``judge.engines.vllm`` does on a CPU: no compilation, and small blocks of the cache.
    command += [] if hardware.gpus else ["--enforce-eager", "--block-size", "32"]
    if API_KEY in os.environ:
        os.environ["VLLM_API_KEY"] = os.environ[API_KEY]
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    print(f"serving {checkpoint.name}; once it has started, score by it in another terminal:")
    print(f"  esrp-judge score DATA… --url http://{HOST}:{port}", flush=True)
    os.execv(sys.executable, [*command, *flags])
