"""A server of S3's protocol on this machine (moto), and what a process needs in its environment to reach it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.helpers.vllm_server import free_port

BUCKET = "bucket"


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """A store with an empty bucket; the environment by which it is reached."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [os.environ["MOTO_SERVER"], "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    httpx.put(f"{address}/{BUCKET}").raise_for_status()
                    break
                except httpx.TransportError:
                    assert time.monotonic() < end and server.poll() is None, "the store does not start"
                    time.sleep(0.2)
            yield {
                "AWS_ENDPOINT_URL": address,
                "AWS_ACCESS_KEY_ID": "a-key",
                "AWS_SECRET_ACCESS_KEY": "a-secret",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            server.terminate()
