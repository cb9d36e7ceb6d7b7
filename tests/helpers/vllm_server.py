"""A real vLLM server on this machine's loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server of the model in a folder, once it answers."""
    command = ["vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", "tiny", "--port", port]
    flags = ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--block-size", "32"]
    server = subprocess.Popen(
        [sys.executable, "-m", *map(str, command + flags)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 300
    while time.monotonic() < end and server.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).raise_for_status()
            return server
        except httpx.HTTPError:
            time.sleep(1)
    kill(server)
    raise AssertionError(f"the server did not start ({server.poll()})")


def kill(server: subprocess.Popen[bytes]) -> None:
    """End a server and what it started."""
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
