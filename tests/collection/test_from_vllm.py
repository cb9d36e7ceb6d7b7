"""Collecting from a real vLLM server on this machine; `make test-vllm` makes an environment that has it."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` makes an environment that has it")

from judge import CollectOptions, collect, read_dialogues, score
from judge.data.dialogues import Record
from tests.helpers.paths import EXAMPLE
from tests.helpers.rubric import ByStandIn
from tests.helpers.vllm_server import free_port, kill, start_server

pytestmark = pytest.mark.vllm

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")

DIALOGUES, AT_ONCE = 12, 2
REPLIES = 3 * DIALOGUES
"""Two of the model's and one of the simulated user's in each."""


@pytest.fixture(scope="module")
def url(stand_in: Path) -> Iterator[str]:
    port = free_port()
    server = start_server(stand_in, port)
    yield f"http://127.0.0.1:{port}"
    kill(server)


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two characters in six scenarios."""
    questions = [f"  - {{id: {number}, question: 第{number}件事，我该怎么办？}}" for number in range(1, 7)]
    path = tmp_path_factory.mktemp("scenarios") / "scenarios.yaml"
    lines = ["characters:", "  - {name: 守灯人, profile: 话少。}", "  - {name: 炼金师}", "scenarios:", *questions]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def finished(url: str) -> int:
    """How many requests the server has answered to their end."""
    text = httpx.get(f"{url}/metrics").text
    found = re.findall(r'^vllm:request_success_total\{.*finished_reason="(?:stop|length)".*\} ([\d.e+]+)$', text, re.M)
    return int(sum(map(float, found)))


def rows(folder: Path) -> dict[tuple[object, ...], tuple[object, ...]]:
    """What is kept, by character, scenario, round and speaker."""
    table = sqlite3.connect(folder / "replies.sqlite")
    found = {row[:4]: row[4:] for row in table.execute("SELECT * FROM reply")}
    table.close()
    return found


def test_a_collection_that_is_killed_twice_ends_with_every_dialogue_once(
    url: str, scenarios: Path, by_stand_in: ByStandIn, tmp_path: Path
) -> None:
    out, before = tmp_path / "out", finished(url)
    options = ("--url", url, "--from", scenarios, "--out", out, "--concurrency", AT_ONCE, "--max-tokens", 300)
    command = [sys.executable, "-m", "judge", "collect", *map(str, options)]
    there: dict[tuple[object, ...], tuple[object, ...]] = {}
    for _ in range(2):
        wanted = finished(url) + 1 + 3 + AT_ONCE  # the trial, some that are kept, and some that may not be
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 200
        while finished(url) < wanted and time.monotonic() < end and run.poll() is None:
            time.sleep(0.02)
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        kept = rows(out)
        assert len(there) < len(kept) < REPLIES and there.items() <= kept.items()
        there = kept
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert there.items() <= rows(out).items() and len(rows(out)) == REPLIES
    # Beside the replies: a trial at each of three starts, and what was finished but not kept when it was killed.
    assert REPLIES + 3 <= finished(url) - before <= REPLIES + 3 + 2 * AT_ONCE
    found = [one.dialogue for one in read_dialogues([out / "dialogues.json"]) if isinstance(one, Record)]
    assert len({one.id for one in found}) == len(found) == DIALOGUES
    assert all(len(one.replies) == 2 and one.is_answered for one in found)
    result = score([out / "dialogues.json"], by_stand_in(tmp_path / "run"))
    assert result.missing == {} and set(result.leaderboard["source"]) == {"tiny"}


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_equal_seeds_get_equal_replies(url: str, scenarios: Path, tmp_path: Path, temperature: float) -> None:
    def replies(name: str, at_once: int, seed: int) -> dict[tuple[object, ...], tuple[object, ...]]:
        folder = tmp_path / name
        collect(
            [scenarios],
            CollectOptions(
                url=url, out=folder, concurrency=at_once, seed=seed, temperature=temperature, max_tokens=24, limit=4
            ),
        )
        return rows(folder)

    one, same, other = replies("a", 1, 0), replies("b", 1, 0), replies("c", 1, 1)
    assert one == same and len(one) == 12
    assert all(one[key][-1] != other[key][-1] for key in one)  # the seeds
    # At other batches the last bits of a probability differ, and a token that is as likely as another may change.
    together = replies("d", 4, 0)
    assert {key: row[-1] for key, row in together.items()}.items() >= {
        key: row[-1] for key, row in one.items() if row[-2] == 1
    }.items()


def test_a_model_in_vllm_in_this_process_writes_many_dialogues_together(stand_in: Path, tmp_path: Path) -> None:
    options = CollectOptions(
        model=str(stand_in), engine="vllm", out=tmp_path / "out", limit=6, max_tokens=24, source="s"
    )
    result = collect(EXAMPLE, options)
    assert (result.dialogues, result.replies, result.missing) == (6, 12, {})
    assert collect(EXAMPLE, options) == result
