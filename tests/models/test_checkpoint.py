"""Which model a judge is: fetched from a mirror, known by its content."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from judge.errors import InputError
from judge.models.checkpoint import Checkpoint, resolve
from judge.models.presets import PRESETS
from tests.helpers.hub import hub_of


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


@pytest.fixture(scope="module")
def hub(stand_in: Path) -> Iterator[str]:
    with hub_of("org/model", stand_in) as address:
        yield address


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
