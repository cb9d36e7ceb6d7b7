"""Which model a judge is: picked by free memory, fetched from a mirror, known by its content."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from judge.errors import EngineError, InputError
from judge.models.checkpoint import PRESETS, Checkpoint, pick, resolve
from judge.models.hardware import Gpu, Hardware

COMMIT = "a" * 40


def machine(*free_gib: float) -> Hardware:
    gpus = tuple(Gpu(i, "H200", 141.0, free, (9, 0)) for i, free in enumerate(free_gib))
    return Hardware(16, 128.0, gpus, "580.65.06", "13.0", None)


@pytest.mark.parametrize(
    ("free", "judge"),
    [([5], "qwen3-0.6b"), ([8], "qwen3-1.7b"), ([12], "qwen3-4b"), ([23.9], "qwen3-4b"), ([24], "qwen3-8b"),
     ([40], "qwen3-14b"), ([140], "qwen3-32b"), ([5, 24], "qwen3-8b")],
)  # fmt: skip
def test_auto_is_the_largest_preset_for_the_free_memory_of_a_device(free: list[float], judge: str) -> None:
    assert pick(machine(*free))[0] == judge


def test_a_full_gpu_is_an_error_and_not_a_lesser_judge() -> None:
    with pytest.raises(EngineError, match=r"2\.5 GiB free, too little"):
        pick(machine(2.5))


def test_without_a_gpu_auto_is_the_stand_in() -> None:
    assert pick(machine())[0] == "stand-in"


@pytest.mark.parametrize("judge", ["gpt-4", "no/such/folder", "../up", "qwen3-9b"])
def test_what_is_no_judge_is_refused_with_those_there_are(judge: str) -> None:
    with pytest.raises(InputError, match="neither a preset") as error:
        resolve(judge)
    assert all(preset in str(error.value) for preset in PRESETS)


def test_weights_are_known_by_content_and_not_by_name_or_place(stand_in: Path, tmp_path: Path) -> None:
    here, there = Checkpoint("a", stand_in), Checkpoint("b", Path(shutil.copytree(stand_in, tmp_path / "there")))
    assert here.weights_digest == there.weights_digest
    (there.folder / "model.safetensors").rename(there.folder / "other.safetensors")
    assert here.weights_digest == there.weights_digest
    content = (there.folder / "other.safetensors").read_bytes()
    (there.folder / "other.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert here.weights_digest != there.weights_digest


def test_what_can_change_a_score_changes_the_configurations_digest(stand_in: Path, tmp_path: Path) -> None:
    copy = Checkpoint("b", Path(shutil.copytree(stand_in, tmp_path / "copy")))
    before = copy.config_digest
    config = copy.config
    (copy.folder / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}), encoding="utf-8")
    assert copy.config_digest == before
    (copy.folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}), encoding="utf-8")
    assert copy.config_digest != before


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for: one repository, ``org/model``."""

    def __init__(self, *arguments: object, folder: Path) -> None:
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/api/models/org/model/revision/main":
            self.answer(json.dumps({"id": "org/model", "sha": COMMIT, "siblings": []}).encode())
        elif path == f"/api/models/org/model/tree/{COMMIT}":
            tree = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in self.files.items()]
            self.answer(json.dumps(tree).encode())
        elif path.startswith(f"/org/model/resolve/{COMMIT}/"):
            self.answer(self.files[path.rsplit("/", 1)[1]])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
        for name, value in (headers | {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def hub(stand_in: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder=stand_in)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def resolved(code: str, hub: str, home: Path, offline: bool = False) -> str:
    """What a process of its own prints, whose Hub is ``hub``: its address is read once, on import."""
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    program = f"import shutil\nfrom judge.models.checkpoint import resolve\nfrom judge.errors import JudgeError\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


FETCH = "c = resolve('org/model'); print(c.asked, c.weights_digest)"
REFUSED = "try: resolve('{}')\nexcept JudgeError as error: print(error.exit_code, error)"


def test_a_model_is_fetched_from_a_mirror_and_is_the_same_judge(hub: str, stand_in: Path, tmp_path: Path) -> None:
    expected = f"org/model {Checkpoint('', stand_in).weights_digest}"
    assert resolved(FETCH, hub, tmp_path) == expected
    assert resolved(FETCH, "http://127.0.0.1:9", tmp_path, offline=True) == expected  # from the cache


def test_a_model_that_the_hub_has_not_is_the_users_error(hub: str, tmp_path: Path) -> None:
    assert resolved(REFUSED.format("org/none"), hub, tmp_path).startswith(
        "2 --judge org/none: the Hub has no such model"
    )


def test_a_hub_out_of_reach_is_the_machines_error(tmp_path: Path) -> None:
    printed = resolved(REFUSED.format("org/model"), "http://127.0.0.1:9", tmp_path)
    assert printed.startswith("3 org/model cannot be fetched") and "HF_ENDPOINT" in printed
    assert "\n" not in printed


def test_a_disk_without_room_is_told_before_anything_is_fetched(hub: str, tmp_path: Path) -> None:
    small = "shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10, 10, 1000)\n"
    printed = resolved(small + REFUSED.format("org/model"), hub, tmp_path / "hub")
    assert printed.startswith("3 org/model needs 0.0 GiB") and "HF_HOME" in printed
    assert not list(tmp_path.rglob("*.safetensors"))
