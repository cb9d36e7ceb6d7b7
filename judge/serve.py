"""Serves a judge by vLLM on this machine, with the flags that suit scoring."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from judge.checkpoint import pick, resolve
from judge.errors import EngineError
from judge.hardware import Hardware, detect, require_usable
from judge.served import API_KEY

HOST = "127.0.0.1"


def serve(judge: str, port: int, flags: Sequence[str] = ()) -> NoReturn:
    """Become the server of a judge; the line that scores by it is printed first.

    A key in ``ESRP_API_KEY`` is then asked of its users too. ``flags`` are further ones of ``vllm serve``.

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
    command = _command(str(checkpoint.folder), name, checkpoint.dtype(hardware), port, hardware)
    if API_KEY in os.environ:
        os.environ["VLLM_API_KEY"] = os.environ[API_KEY]
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    print(f"serving {checkpoint.name}; once it has started, score by it in another terminal:")
    print(f"  esrp-judge score DATA… --url http://{HOST}:{port}", flush=True)
    os.execv(sys.executable, [*command, *flags])


def _command(folder: str, name: str, dtype: str, port: int, hardware: Hardware) -> list[str]:
    flags = {"--model": folder, "--served-model-name": name, "--host": HOST, "--port": str(port), "--dtype": dtype}
    words = [word for flag in flags.items() for word in flag]
    on_cpu = [] if hardware.gpus else ["--enforce-eager", "--block-size", "32"]
    return [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, "--enable-prefix-caching",
        "--max-logprobs", "20", "--generation-config", "vllm", "--load-format", "safetensors", *on_cpu,
    ]  # fmt: skip
