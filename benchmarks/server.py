"""A vLLM server of our own for the peers, on this machine's loopback address and a free port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.machine import session_processes

TRIES, PAUSE_S = 600, 0.5
"""How often it is asked whether it is ready, and how long is waited in between."""
MODEL_NAME = "tiny"
COUNTERS = {
    "prompt_tokens": "vllm:prompt_tokens_total",
    "cached_tokens": "vllm:prefix_cache_hits_total",
    "generated_tokens": "vllm:generation_tokens_total",
    "running": "vllm:num_requests_running",
}


class Served:
    """What a contestant needs of the server besides asking it: a cold cache, and the tokens counted since.

    Args:
        url: where OpenAI's interface begins.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._before = dict.fromkeys(COUNTERS, 0)

    def forget(self) -> None:
        """Wait until no request runs, empty the prefix cache and the record of requests, and count from here."""
        while (counters := self._counters())["running"]:
            time.sleep(0.2)
        ask(self._url, "/reset_prefix_cache", b"")
        self._before = counters

    def facts(self) -> dict[str, int]:
        """Tokens of the prompts, those of them not taken from the cache, and those written."""
        now = self._counters()
        prompts, cached, generated, _ = (now[name] - self._before[name] for name in COUNTERS)
        return {"prompt_tokens": prompts, "computed_tokens": prompts - cached, "generated_tokens": generated}

    def _counters(self) -> dict[str, int]:
        lines = ask(self._url, "/metrics").splitlines()
        values = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {
            key: int(sum(float(value) for label, _, value in values if label.partition("{")[0] == name))
            for key, name in COUNTERS.items()
        }


def ask(url: str, path: str, body: bytes | None = None) -> str:
    """What the server of ``url`` answers at a path beside OpenAI's interface; a body is posted."""
    request = urllib.request.Request(url.removesuffix("/v1") + path, data=body)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


class Server:
    """Runs from ``with`` to the end of its block.

    Args:
        python: the interpreter of the environment that has vLLM.
        model: a model folder.
        folder: where its log and the record of requests go.
        settings: ``dtype``, ``block_size`` and the environment, as for vLLM in process.
    """

    def __init__(self, python: Path, model: Path, folder: Path, settings: dict[str, Any]) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))  # the system chooses a free port
            self._port = int(found.getsockname()[1])
        self.record = folder / "requests.jsonl"
        self._log = folder / "server.log"
        options = _options(model, self._port, settings)
        self._command = [str(python), "-m", "vllm.entrypoints.openai.api_server", *options]
        self._environment = {
            **os.environ,
            **settings["environment"],
            "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
            "ESRP_BENCH_RECORD": str(self.record),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }

    def __enter__(self) -> Server:
        begun = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                start_new_session=True,
            )
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        self.load_seconds = time.perf_counter() - begun
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where OpenAI's interface begins."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def session(self) -> int:
        """The session that its processes belong to."""
        return self._process.pid

    def stop(self) -> None:
        """End it and every process that it started."""
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for pid in session_processes(self.session):
            os.kill(pid, signal.SIGKILL)

    def _await_ready(self) -> None:
        """Wait until the server answers; RuntimeError with the last line of its log where it ends or takes too long."""
        for _ in range(TRIES):
            if self._process.poll() is not None:
                break
            try:
                ask(self.url, "/health")
                return
            except OSError:  # nobody listens yet
                time.sleep(PAUSE_S)
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise RuntimeError(f"the vLLM server did not start: {(lines or ['no output'])[-1]}")


def _options(model: Path, port: int, settings: dict[str, Any]) -> list[str]:
    """The command-line options of vLLM's server that suit every peer."""
    options = {
        "--model": str(model),
        "--served-model-name": MODEL_NAME,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": settings["dtype"],
        "--max-model-len": str(settings["max_model_len"]),
        "--max-logprobs": "20",
        "--logprobs-mode": "processed_logprobs",
        "--structured-outputs-config": json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
        "--tool-call-parser": "hermes",
        "--middleware": "benchmarks.recorder.Recorder",
        **({"--block-size": str(settings["block_size"])} if settings["block_size"] else {}),
    }
    flags = ["--enforce-eager", "--enable-prefix-caching", "--enable-auto-tool-choice"]
    return [*(part for option in options.items() for part in option), *flags]
