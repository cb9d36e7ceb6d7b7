"""A run by workers on a Ray cluster: the scores of one machine, whoever is lost on the way; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from judge import InputError, Options, load_judgments
from judge.scoring import ray_cluster
from judge.scoring.ray_worker import Chunk, Ledger
from tests.helpers.commands import esrp_judge, refused, without_waits
from tests.helpers.paths import SHARED_DATA

DIALOGUES = 2000
KEY = ["source", "character", "scenario", "metric"]


class Nodes:
    """A cluster of two nodes of one CPU each, of a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def obey(self, word: str) -> str:
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._answer()


@contextmanager
def nodes(**environment: str) -> Iterator[Nodes]:
    own = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "tests.helpers.ray_nodes"]
    with subprocess.Popen(
        command, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Nodes(process)
        finally:
            assert process.stdin
            process.stdin.close()  # it ends by itself, and takes its nodes with it
            process.wait(timeout=60)


@contextmanager
def poisoned(way: str) -> Iterator[Nodes]:
    poison = Path(__file__).parents[1] / "helpers" / "poison"
    with nodes(POISON=way, PYTHONPATH=os.pathsep.join([str(poison), os.environ.get("PYTHONPATH", "")])) as there:
        yield there


def made(path: Path, systems: int, scenarios: int, poison: bool = False) -> Path:
    """Dialogues of two characters in a file."""
    rows = [
        {
            "source": f"s{s}",
            "character": character,
            "scenario": "poison" if poison and (s, character, k) == (1, "乙", 3) else str(k),
            **{f"question_r{r}": f"第{k}件事，第{r}问？" for r in (1, 2)},
            **{f"answer_r{r}": f"{character}说：{'嗯' * (s + k % 7)}，{s * k}。" for r in (1, 2)},
        }
        for s in range(systems)
        for character in ("甲", "乙")
        for k in range(scenarios)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def parts(run: Path) -> int:
    return len(list(run.glob("judgments/part-*.parquet")))


def until_there_are(count: int, run: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while parts(run) < count and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    assert parts(run) >= count and process.poll() is None, "it was over before it could be disturbed"


def begun(*words: object, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "judge", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)


def same_judgments(one: Path, other: Path) -> None:
    first, second = (load_judgments(run).sort_values(KEY).reset_index(drop=True) for run in (one, other))
    assert not second.duplicated(KEY).any()
    numbers = ["p1", "p2", "p3", "p4", "p5", "mass", "score"]
    pd.testing.assert_frame_equal(first.drop(columns=numbers), second.drop(columns=numbers))
    np.testing.assert_allclose(first[numbers], second[numbers], rtol=0, atol=1e-6)
    assert first["error"].isna().all()


@pytest.mark.long
def test_2000_dialogues_have_the_scores_of_one_machine_though_driver_worker_and_node_are_lost_in_mid_run(
    short_rubric: Path, tmp_path: Path
) -> None:
    there = SHARED_DATA / "chatanime"
    data = there if there.is_dir() else made(tmp_path / "made.jsonl", 20, 50)
    options = ["score", data, "--judge", "stand-in", "--prompts", short_rubric, "--limit", DIALOGUES, "--no-report"]
    alone = esrp_judge(*options, "--run", tmp_path / "alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    run = tmp_path / "run"
    with nodes() as there:
        command = [*options, "--run", run, "--ray", there.address]
        first = begun(*command, cwd=tmp_path)
        until_there_are(3, run, first)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        left = parts(run)
        second = begun(*command, cwd=tmp_path)
        until_there_are(left + 4, run, second)
        assert there.obey("kill") == "kill"
        until_there_are(left + 8, run, second)
        assert there.obey("remove") == "remove"
        out, said = second.communicate(timeout=500)
    assert second.returncode == 0, said
    same_judgments(tmp_path / "alone", run)
    for name in ("scores.csv", "leaderboard.csv"):
        ours, theirs = (pd.read_csv(folder / name) for folder in (run, tmp_path / "alone"))
        pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1.01e-4)  # four decimals are written
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["judgments"] == json.loads((tmp_path / "alone/manifest.json").read_text())["judgments"]
    assert manifest["missing"] == {} and manifest["finished"]
    assert {engine["name"] for engine in manifest["engines"]} == {"packed"}
    assert "Traceback" not in said and "raylet" not in said
    assert f"judgments in {run}" in out


@pytest.mark.long
@pytest.mark.parametrize("way", ["kill", "fail"])
def test_a_batch_that_is_the_end_of_two_workers_is_missing_and_all_others_are_there(
    way: str, short_rubric: Path, tmp_path: Path
) -> None:
    made(tmp_path / "made.jsonl", 4, 40, poison=True)
    run = tmp_path / "run"
    shutil.copytree(short_rubric, tmp_path / "own-rubric")
    # Places of this machine's: workers are in another folder.
    options = ["score", "made.jsonl", "--judge", "stand-in", "--prompts", "own-rubric", "--run", "run", "--no-report"]
    with poisoned(way) as there:
        ended = esrp_judge(*options, "--ray", there.address, cwd=tmp_path)
    assert ended.returncode == 1, ended.stderr
    judgments = load_judgments(run)
    assert len(judgments) == 4 * 2 * 40 * judgments["metric"].nunique()
    lost = judgments[judgments["error"].notna()]
    assert set(lost["error"]) == {"engine_failed"} and "poison" in set(lost["scenario"])
    assert len(lost) <= 64 * judgments["metric"].nunique() and lost["score"].isna().all()
    assert f"missing: {len(lost):,} judgments, engine_failed" in ended.stdout
    why = {"kill": "the workers were lost", "fail": "the device is lost"}[way]
    assert f"a batch was given up after 2 workers ({why})" in ended.stderr
    # Elsewhere it is judged: the same command without the poison finds only that batch missing.
    again = esrp_judge(*options, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert load_judgments(run)["error"].isna().all()


@pytest.mark.long
@pytest.mark.parametrize(
    ("way", "words"),
    [("always", "the device is lost"), ("load", "workers are lost while they load the judge")],
)
def test_an_engine_that_fails_on_everything_ends_the_run_in_one_line(
    way: str, words: str, short_rubric: Path, tmp_path: Path
) -> None:
    data, run = made(tmp_path / "made.jsonl", 2, 10), tmp_path / "run"
    options = ["score", data, "--judge", "stand-in", "--prompts", short_rubric, "--run", run]
    with poisoned(way) as there:
        ended = esrp_judge(*options, "--ray", there.address, cwd=tmp_path)
    assert ended.returncode == 3, ended.stderr
    *_, last = without_waits(ended.stderr)
    assert words in last and "run the same command again to go on" in last
    assert not (run / "leaderboard.csv").exists()


@pytest.mark.long
def test_what_the_cluster_has_not_and_a_folder_that_not_all_nodes_see_are_refused_before_anything_is_written(
    short_rubric: Path, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    options = ["score", "--judge", "stand-in", "--prompts", short_rubric, "--run", tmp_path / "shared" / "run", "--ray"]
    with nodes() as there:
        refused(
            esrp_judge(*options, there.address, "--workers", 3, cwd=tmp_path), "3 × 1 CPU do not fit on it", "2 CPUs"
        )
        gpus = esrp_judge(*options, there.address, "--workers", 2, "--gpus-per-worker", 2, cwd=tmp_path)
        refused(gpus, "2 × 2 GPU do not fit on it", "0 GPUs", "fewer --workers or --gpus-per-worker")
        if (answer := there.obey(f"hide {tmp_path / 'shared'}")) != "hide":
            pytest.skip(f"a node that does not see a folder: {answer}")
        hidden = esrp_judge(*options, there.address, cwd=tmp_path)
    assert hidden.returncode == 2
    assert "does not see this folder; put the run on a file system that all nodes share" in hidden.stderr
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "nowhere.invalid:6379", "nonsense", "ray://127.0.0.1:1", "::", "a:b"]
)
def test_an_address_where_no_cluster_is_is_refused_in_one_line(address: str, tmp_path: Path) -> None:
    ended = esrp_judge("score", "--judge", "stand-in", "--run", tmp_path / "run", "--ray", address, cwd=tmp_path)
    refused(ended, f"--ray {address}: no Ray cluster can be reached there", "HOST:PORT or auto")
    assert not (tmp_path / "run").exists()


def test_without_ray_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with (
        pytest.raises(InputError, match=r"Ray is not installed here; `pip install 'esrp-judge\[ray\]'`"),
        ray_cluster.connected(Options(ray="auto")),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "are of a Ray cluster; give its address by --ray"),
        ({"gpus_per_worker": 0}, "are of a Ray cluster; give its address by --ray"),
        ({"ray": "auto", "workers": 0}, "--workers 0: must be at least 1"),
        ({"ray": "auto", "gpus_per_worker": -1}, "--gpus-per-worker -1: must be at least 0"),
        ({"ray": "auto", "devices": ("0",)}, "--ray takes no"),
        ({"ray": "auto", "url": "http://127.0.0.1:1"}, "--ray takes no"),
        ({"ray": "auto", "shard": "1/2", "run": Path("run")}, "--ray takes no"),
        ({"ray": "auto", "rationales": 3}, "--ray takes no"),
        ({"ray": "auto", "engine": "packed", "gpus_per_worker": 2}, "which --engine packed cannot"),
    ],
)
def test_options_that_do_not_go_with_a_cluster_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**options)


def test_the_ledger_counts_what_was_begun_and_not_ended() -> None:
    ledger = Ledger()
    ledger.begin(["a", "b"])
    ledger.begin(["a"])
    ledger.end(["b"])
    assert ledger.tries(["a", "b", "c"]) == [2, None, 0]
    for _ in range(3):  # a judge that is loaded, lost and loaded again is no judge that cannot be loaded
        ledger.begin(["b"])
        assert ledger.tries(["b"]) == [1]
        ledger.end(["b"])
    ledger.fail(["a"], "no memory")
    assert (ledger.why("a"), ledger.why("c")) == ("no memory", "the workers were lost")


def test_a_chunk_has_a_judgment_per_dialogue_and_metric_or_per_role() -> None:
    assert Chunk("judgments", ("x", "y"), places=((3, 10), (10, 12))).judgments(9) == 81
    assert Chunk("diversity", ("z",), samples=([[], [], []],)).judgments(9) == 3
