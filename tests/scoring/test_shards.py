"""Shares of one run (``--shard``): the tables of one process, whoever begins, dies or comes back."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from judge import InputError, Options, load_judgments, score_shard
from judge.scoring.multi_gpu import Share, share_of
from tests.helpers.paths import EXAMPLE, ROOT


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Dialogues of six batches: 20 scenarios for each of 8 systems and 2 characters."""
    rows = [
        {"source": f"s{s}", "character": c, "scenario": str(k), "question_r1": f"{k}?", "answer_r1": f"{s} {k} {c}。"}
        for s in range(8)
        for c in ("甲", "乙")
        for k in range(20)
    ]
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "judge", *map(str, words)]


def told(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, check=False)


def tables(run: Path) -> list[str]:
    return [(run / name).read_text(encoding="utf-8") for name in ("scores.csv", "leaderboard.csv", "diversity.csv")]


def parts(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.glob("*/part-*.parquet")}


def test_three_shards_of_which_one_is_killed_make_the_tables_of_one_process(
    many: Path, short_rubric: Path, tmp_path: Path
) -> None:
    options = (many, "--judge", "stand-in", "--prompts", short_rubric, "--no-report", "--run")
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert told("score", *options, whole).returncode == 0
    at_once = [
        subprocess.Popen(command("score", *options, run, "--shard", f"{i}/3"), stderr=subprocess.PIPE, text=True)
        for i in (1, 2, 3)
    ]
    while not parts(run):
        time.sleep(0.05)
    at_once[2].send_signal(signal.SIGKILL)
    said = [process.communicate(timeout=300)[1] for process in at_once]
    assert [process.returncode for process in at_once[:2]] == [0, 0], said
    early = told("tables", run)
    if parts(run) != parts(whole):  # the third had not come to its end
        assert early.returncode == 3
        assert "parts are not there; score what is missing first" in early.stderr
        assert not (run / "leaderboard.csv").exists()
    again = told("score", *options, run, "--shard", "3/3")
    assert again.returncode == 0, again.stderr
    assert f"once all shards have ended: esrp-judge tables {run}" in again.stdout
    ended = told("tables", run)
    assert ended.returncode == 0, ended.stderr
    assert tables(run) == tables(whole)
    assert parts(run) == parts(whole)
    assert not load_judgments(run).duplicated(["source", "character", "scenario", "metric"]).any()
    assert (run / "report.html").is_file()
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["judgments"] == json.loads((whole / "manifest.json").read_text(encoding="utf-8"))["judgments"]
    assert manifest["finished"] and {one["shard"] for one in manifest["shards"]} <= {"1/3", "2/3", "3/3"}
    # The run is whole, so the same command without a shard has nothing to do and needs no engine.
    alone = told("score", *options, run)
    assert alone.returncode == 0 and tables(run) == tables(whole)


def test_the_shards_of_a_run_may_be_cut_in_another_way_when_they_come_back(
    many: Path, short_rubric: Path, tmp_path: Path
) -> None:
    def options(shard: str) -> Options:
        return Options(run=tmp_path / "run", judge="stand-in", rubric=short_rubric, shard=shard)

    first = score_shard([many], options("1/2"))
    there = parts(tmp_path / "run")
    rest = [score_shard([many], options(f"{i}/3")) for i in (1, 2, 3)]
    assert there < parts(tmp_path / "run")
    assert first.shard == "1/2" and 0 < first.judgments < sum(one.judgments for one in rest)
    assert sum(one.judgments for one in rest) == len(load_judgments(tmp_path / "run")) + 16  # roles, of diversity
    assert all(not one.missing for one in rest)


def test_each_device_of_a_shard_does_its_own_part_of_it(many: Path, short_rubric: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = (many, "--judge", "stand-in", "--prompts", short_rubric, "--run", run, "--devices", "cpu,cpu", "--shard")
    halves = [told("score", *options, shard) for shard in ("1/2", "2/2")]
    assert [half.returncode for half in halves] == [0, 0], halves
    ended = told("tables", run, "--json")
    assert ended.returncode == 0 and json.loads(ended.stdout)["missing"] == {}
    engines = [one["engines"] for one in json.loads((run / "manifest.json").read_text(encoding="utf-8"))["shards"]]
    assert [[engine["device"] for engine in own] for own in engines] == [["cpu", "cpu"]] * 2


def test_tables_come_back_where_data_and_rubric_are_gone(many: Path, short_rubric: Path, tmp_path: Path) -> None:
    rubric, run = tmp_path / "rubric", tmp_path / "run"
    shutil.copytree(short_rubric, rubric)
    assert told("score", many, "--judge", "stand-in", "--prompts", rubric, "--run", run).returncode == 0
    before = tables(run)
    for name in ("scores.csv", "leaderboard.csv", "diversity.csv", "report.html"):
        (run / name).unlink()
    many.unlink()
    shutil.rmtree(rubric)
    again = told("tables", run)
    assert again.returncode == 0, again.stderr
    assert tables(run) == before
    assert "judge means by STAND-IN" in again.stdout and "report: " in again.stdout


def test_the_note_of_a_shard_that_is_rubbish_does_not_matter(many: Path, short_rubric: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for shard in ("1/2", "2/2"):
        score_shard([many], Options(run=run, judge="stand-in", rubric=short_rubric, shard=shard))
    (run / "shards" / "9-of-9.json").write_text("{", encoding="utf-8")
    assert told("tables", run, "--no-report").returncode == 0
    assert [one["shard"] for one in json.loads((run / "manifest.json").read_text())["shards"]] == ["1/2", "2/2"]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", "1/2/3", "/", "1.5/3"])
def test_what_is_no_shard_is_refused_in_one_line(shard: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^--shard {shard}: give which of how many, such as 1/4$"):
        score_shard([], Options(run=tmp_path / "run", judge="stand-in", shard=shard))
    assert not (tmp_path / "run").exists()


def test_a_shard_needs_the_folder_of_the_run_and_takes_nothing_that_needs_all_of_it(tmp_path: Path) -> None:
    for more in ({}, {"run": tmp_path / "run", "rationales": 2}):
        with pytest.raises(InputError, match="--shard needs --run"):
            Options(shard="1/2", **more)
    refused = told("score", "--shard", "1/2", "--run", tmp_path / "run", "--calibration", tmp_path / "c.json")
    assert (refused.returncode, "--shard takes no --calibration" in refused.stderr) == (2, True)


def test_a_dry_run_of_a_shard_is_about_its_share(many: Path, short_rubric: Path, tmp_path: Path) -> None:
    def judgments(*more: str) -> int:
        options = ("--judge", "stand-in", "--prompts", short_rubric, "--run", tmp_path / "run", "--dry-run", "--json")
        found = told("score", many, *options, *more)
        assert found.returncode == 0, found.stderr
        return int(json.loads(found.stdout)["judgments"])

    assert judgments("--shard", "1/2") + judgments("--shard", "2/2") == judgments()
    assert told("score", many, "--shard", "9/4", "--dry-run", "--run", tmp_path / "run").returncode == 2


def test_shards_of_other_data_are_noticed(many: Path, short_rubric: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other.jsonl"
    other.write_text(many.read_text(encoding="utf-8").replace("。", "！", 1), encoding="utf-8")
    options = ("--judge", "stand-in", "--prompts", short_rubric, "--run", run)
    assert told("score", many, *options, "--shard", "1/2").returncode == 0
    second = told("score", other, *options, "--shard", "2/2")
    assert f"until now {run} was a run of other data; all shards must be given the same" in second.stderr
    ended = told("tables", run)
    assert ended.returncode == 3 and "score what is missing first (every shard," in ended.stderr


def test_tables_of_no_run_are_refused(tmp_path: Path) -> None:
    assert (told("tables", tmp_path).returncode, told("tables", tmp_path / "no").returncode) == (2, 2)


def test_shares_of_shares_are_every_batch_once() -> None:
    batches = list(range(23))
    found = [one for i in range(3) for j in range(2) for one in Share(i, 3).split(j, 2).of(batches)]
    assert sorted(found) == batches
    assert (str(share_of("2/3")), share_of("2/3").of(batches)[:2]) == ("2/3", [1, 4])


@pytest.mark.long
def test_the_job_script_of_the_docs_runs_as_a_shell_loop(tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8"), re.DOTALL)
    script, loop = blocks
    assert "#SBATCH --array=1-3" in script
    (tmp_path / "shard.sh").write_text(script, encoding="utf-8")
    own = {"DATA": str(EXAMPLE[0]), "JUDGE": "stand-in", "RUN": str(tmp_path / "a run")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", loop],
        check=False,
        cwd=tmp_path,
        env={**os.environ, **own, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(f"shard {i}/3: " in done.stdout for i in (1, 2, 3))
    judgments = load_judgments(tmp_path / "a run")
    assert len(judgments) == 36 * 9 and judgments["error"].isna().all()
    assert (tmp_path / "a run" / "report.html").is_file()
