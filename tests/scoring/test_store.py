"""Data and runs in an object store: the same tables as in a folder, whole objects only, and every trouble one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyarrow import fs

from judge import InputError, load_judgments, read_dialogues
from judge.data.dialogues import Record
from judge.errors import EngineError, plain
from judge.remote import address_of, fetched, put, refresh, shown, working_copy
from judge.scoring.answer_log import AnswerLog
from tests.helpers.commands import esrp_judge, refused
from tests.helpers.object_store import BUCKET
from tests.helpers.paths import EXAMPLE
from tests.scoring.test_ray import nodes, same_judgments

needs_store = pytest.mark.store


def names(folder: str) -> set[str]:
    system, bucket = fs.FileSystem.from_uri(f"s3://{BUCKET}")
    path = f"{bucket}/{folder}"
    found = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return {one.path.removeprefix(f"{path}/") for one in found if one.type == fs.FileType.File}


def upload(path: Path, place: str) -> None:
    system, bucket = fs.FileSystem.from_uri(f"s3://{BUCKET}")
    with system.open_output_stream(f"{bucket}/{place}") as out:
        out.write(path.read_bytes())


def scoring(short_rubric: Path, *more: object) -> list[object]:
    return ["score", *more, "--judge", "stand-in", "--prompts", short_rubric]


@needs_store
def test_data_and_run_in_a_store_make_the_tables_of_a_folder(
    store: None, example_run: Path, short_rubric: Path, tmp_path: Path
) -> None:
    for path in EXAMPLE:
        upload(path, f"logs/{path.name}")
    run = f"s3://{BUCKET}/runs/one"
    ended = esrp_judge(*scoring(short_rubric, f"s3://{BUCKET}/logs", "--run", run), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"judgments in {run}" in ended.stdout and f"report: {run}/report.html" in ended.stdout
    there = names("runs/one")
    assert {"manifest.json", "dialogues.parquet", "scores.csv", "leaderboard.csv", "report.html"} <= there
    assert not [name for name in there if name.rpartition("/")[2].startswith(".")]
    with working_copy(Path(run)) as copy:
        same_judgments(example_run, copy)
        for name in ("scores.csv", "leaderboard.csv", "diversity.csv"):
            assert (copy / name).read_text(encoding="utf-8") == (example_run / name).read_text(encoding="utf-8")
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["data"]["paths"] == [f"s3://{BUCKET}/logs"] and manifest["finished"]
    again = esrp_judge(*scoring(short_rubric, f"s3://{BUCKET}/logs", "--run", run), cwd=tmp_path)
    assert again.returncode == 0 and "STAND-IN" in again.stdout, again.stderr
    assert names("runs/one") == there


@needs_store
def test_a_run_into_a_store_that_is_killed_goes_on_from_the_parts_that_are_there(
    store: None, short_rubric: Path, tmp_path: Path
) -> None:
    run = f"s3://{BUCKET}/runs/killed"
    command = [sys.executable, "-m", "judge", *map(str, scoring(short_rubric, "--run", run, "--no-report"))]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    while not any(name.startswith("judgments/") for name in names("runs/killed")) and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    left = {name for name in names("runs/killed") if "/" in name}
    assert left and "manifest.json" in names("runs/killed")
    again = esrp_judge(*scoring(short_rubric, "--run", run, "--no-report"), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "were there already" in again.stderr
    assert left < names("runs/killed")


@needs_store
def test_shards_meet_in_a_store_and_tables_end_their_run(
    store: None, example_run: Path, short_rubric: Path, tmp_path: Path
) -> None:
    run = f"s3://{BUCKET}/runs/shards"
    for shard in ("2/2", "1/2"):
        ended = esrp_judge(*scoring(short_rubric, "--run", run, "--shard", shard), cwd=tmp_path)
        assert ended.returncode == 0 and f"esrp-judge tables {run}" in ended.stdout, ended.stderr
    assert "leaderboard.csv" not in names("runs/shards")
    ended = esrp_judge("tables", run, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    with working_copy(Path(run)) as copy:
        same_judgments(example_run, copy)
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    assert [one["shard"] for one in manifest["shards"]] == ["1/2", "2/2"]


@needs_store
def test_workers_on_ray_write_into_a_store(store: None, example_run: Path, short_rubric: Path, tmp_path: Path) -> None:
    run = f"s3://{BUCKET}/runs/ray"
    with nodes() as there:
        ended = esrp_judge(*scoring(short_rubric, "--run", run, "--ray", there.address), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    with working_copy(Path(run)) as copy:
        same_judgments(example_run, copy)
    assert {"leaderboard.csv", "report.html", "manifest.json"} <= names("runs/ray")
    assert not [name for name in names("runs/ray") if name.startswith(".")]


@needs_store
@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("days/*/*.json", ["days/1/plain.json", "days/2/plain.json"]),
        ("days/1/plai?.json", ["days/1/plain.json"]),
        ("days/[2-9]/[ps]*.json", ["days/2/plain.json"]),
        ("数据 a%20b/会 话.json", ["数据 a%20b/会 话.json"]),
        ("数据*/会*", ["数据 a%20b/会 话.json"]),
        ("days/1", ["days/1/plain.json"]),
    ],
)
def test_a_pattern_takes_what_fits_it_folder_by_folder_and_names_are_any_text(
    store: None, pattern: str, found: list[str]
) -> None:
    for place in ("days/1/plain.json", "days/2/plain.json", "days/2/more/plain.json", "数据 a%20b/会 话.json"):
        upload(EXAMPLE[0], place)
    with fetched([Path(f"s3://{BUCKET}/{pattern}")]) as copies:
        assert [plain(str(copy)) for copy in copies] == [f"s3://{BUCKET}/{place}" for place in found]
        assert all(copy.read_bytes() == EXAMPLE[0].read_bytes() for copy in copies)
    records = list(read_dialogues([Path(f"s3://{BUCKET}/{pattern}")])) if len(found) == 1 else []
    assert len(records) in (0, 36) and all(isinstance(record, Record) for record in records)


@needs_store
def test_messages_name_the_place_in_the_store_and_not_the_copy(store: None, short_rubric: Path, tmp_path: Path) -> None:
    run = f"s3://{BUCKET}/运行 一"
    (tmp_path / "bad.jsonl").write_text('{"source": "a"}\n', encoding="utf-8")
    upload(tmp_path / "bad.jsonl", "bad/bad.jsonl")
    bad = esrp_judge(*scoring(short_rubric, f"s3://{BUCKET}/bad/bad.jsonl", "--run", run), cwd=tmp_path)
    refused(bad, f"s3://{BUCKET}/bad/bad.jsonl")
    refused(esrp_judge("tables", run, cwd=tmp_path), f"{run}: no run there")
    done = esrp_judge(*scoring(short_rubric, EXAMPLE[0], "--run", run, "--no-report"), cwd=tmp_path)
    assert done.returncode == 0 and f"judgments in {run}" in done.stdout, done.stderr
    (part,) = [name for name in names("运行 一") if name.startswith("judgments/")]
    upload(tmp_path / "bad.jsonl", f"运行 一/{part}")
    refused(esrp_judge("tables", run, cwd=tmp_path), f"{run}/{part}: is damaged")
    assert "/tmp" not in bad.stderr + done.stderr + done.stdout


@needs_store
def test_a_termination_signal_leaves_no_copy_behind(store: None, short_rubric: Path, tmp_path: Path) -> None:
    own = tmp_path / "tmp"
    own.mkdir()
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom judge.remote import working_copy\n"
        f"with working_copy(Path('s3://{BUCKET}/ended')) as copy:\n"
        "    (copy / 'note.txt').write_text('kept', encoding='utf-8')\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "TMPDIR": str(own)})
    assert ended.returncode != 0
    assert names("ended") == {"note.txt"} and list(own.iterdir()) == []


@needs_store
def test_nothing_is_put_into_the_store_that_is_there_already(store: None) -> None:
    with working_copy(Path(f"s3://{BUCKET}/twice")) as copy:
        (copy / "a").write_text("1", encoding="utf-8")
    system, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}")
    before = system.get_file_info(f"{BUCKET}/twice/a").mtime_ns
    time.sleep(1.1)  # the store's times are whole seconds
    with working_copy(Path(f"s3://{BUCKET}/twice")) as copy:
        (copy / "b").write_text("2", encoding="utf-8")
        refresh(copy)  # which brings nothing, and takes b for no file of the store
        put(copy, copy / "a")
    assert system.get_file_info(f"{BUCKET}/twice/a").mtime_ns == before and names("twice") == {"a", "b"}


@needs_store
@pytest.mark.parametrize("place", ["none.jsonl", "nothing/*.jsonl"])
def test_what_is_not_in_the_store_is_refused_in_one_line(
    store: None, place: str, short_rubric: Path, tmp_path: Path
) -> None:
    address = f"s3://{BUCKET}/{place}"
    ended = esrp_judge(*scoring(short_rubric, address, "--run", tmp_path / "run"), cwd=tmp_path)
    refused(ended, f"{address}: no file is there; check the address")


@needs_store
def test_a_bucket_that_is_not_there_is_told_when_the_run_is_begun(
    store: None, short_rubric: Path, tmp_path: Path
) -> None:
    ended = esrp_judge(*scoring(short_rubric, "--run", "s3://no-bucket/run"), cwd=tmp_path)
    assert ended.returncode == 3
    assert "s3://no-bucket/run: cannot be written" in ended.stderr and "bucket" in ended.stderr


def test_a_store_that_cannot_be_reached_is_refused_in_one_line(short_rubric: Path, tmp_path: Path) -> None:
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    ended = esrp_judge(*scoring(short_rubric, "--run", "s3://b/run"), cwd=tmp_path, **nowhere)
    refused(ended, "s3://b/run: cannot be read", "check address and keys")


def test_other_commands_want_a_copy_of_a_run_in_a_store(tmp_path: Path) -> None:
    for words in (
        ["agree", "s3://b/run", "--annotations", EXAMPLE[0].with_name("ratings.csv")],
        ["report", "s3://b/run"],
    ):
        refused(esrp_judge(*words, cwd=tmp_path), "s3://b/run: is in a store; copy it here, and name the copy")
    with pytest.raises(InputError, match="is in a store"):
        load_judgments(Path("s3://b/run"))


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("s3://b/k.jsonl", "s3://b/k.jsonl"),
        (Path("s3://b/k.jsonl"), "s3://b/k.jsonl"),
        (Path("gs://b/a/b/"), "gs://b/a/b"),
        (Path("hdfs://host:8020/x@y"), "hdfs://host:8020/x@y"),
        (
            Path("abfs://container@account.dfs.core.windows.net/run"),
            "abfs://container@account.dfs.core.windows.net/run",
        ),
        ("S3://b/数 据?.jsonl", "s3://b/数 据?.jsonl"),
        (Path("/data/s3"), None),
        (Path("C:/data"), None),
        (Path("results/s3:x"), None),
    ],
)
def test_an_address_is_known_though_it_became_a_path(path: Path | str, address: str | None) -> None:
    assert address_of(path) == address


@pytest.mark.parametrize(
    "path",
    [
        "s3://key:secret@b/k",
        "s3://b/k?secret_key=secret",
        "abfs://a.blob/c/run?sv=1&sig=secret",
        "s3://b/r?region=secret",
    ],
)
def test_an_address_that_holds_a_key_is_refused_and_not_repeated(path: str) -> None:
    with pytest.raises(InputError, match="must hold no key") as error:
        address_of(Path(path))
    assert "secret" not in str(error.value)


def test_patterns_of_files_here_are_filled_in_and_one_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "c[1].json"):
        (tmp_path / name).write_bytes(EXAMPLE[0].read_bytes())
    with fetched([tmp_path / "?.json", tmp_path / "c[1].json"]) as found:
        assert [path.name for path in found] == ["a.json", "b.json", "c[1].json"]
    with pytest.raises(InputError, match="no file or folder fits this pattern"), fetched([tmp_path / "x*.json"]):
        pass


def test_a_folder_that_is_no_copy_is_worked_in_itself(tmp_path: Path) -> None:
    with working_copy(tmp_path / "run") as folder:
        assert folder == tmp_path / "run" and not folder.exists()
    assert shown(tmp_path) == str(tmp_path)
    put(tmp_path, tmp_path / "nothing")  # and nothing is put anywhere
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_put_into_a_store_ends_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    (tmp_path / ".home").write_text("s3://b/run", encoding="utf-8")
    (tmp_path / "x").write_text("1", encoding="utf-8")
    with pytest.raises(EngineError, match=r"^s3://b/run: cannot be written"):
        put(tmp_path, tmp_path / "x")


@needs_store
def test_answers_of_a_server_are_in_the_store_before_their_part_is_and_gone_after(store: None) -> None:
    with working_copy(Path(f"s3://{BUCKET}/runs/answers")) as copy:
        log = AnswerLog(copy, "judgments", "0" * 16)
        log.add("a", [[-1.0]])
        log.sync()
        assert "answers/judgments-0000000000000000.jsonl" in names("runs/answers")
        with working_copy(Path(f"s3://{BUCKET}/runs/answers")) as other:
            assert AnswerLog(other, "judgments", "0" * 16).get("a") == [[-1.0]]
        log.remove()
        assert not [name for name in names("runs/answers") if name.startswith("answers")]
