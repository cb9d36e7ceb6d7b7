"""Runs on a server that are killed, stopped or refused: whatever was answered is saved, and is not asked for again."""

import json
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judge import load_judgments
from judge.errors import EngineError
from judge.scoring.answer_log import AnswerLog
from tests.helpers.commands import esrp_judge, typed
from tests.helpers.serving import HANG, Model, is_longer, serving

SAVED_S = 5.0
"""The age in seconds from which an answer has to survive anything."""


class Slow(Model):
    """A server that takes ``pause`` seconds for an answer, and notes what it was asked for and when it answered."""

    pause = 0.0

    def __init__(self, folder: Path, **served: object) -> None:
        super().__init__(folder, **served)
        self.answered: list[tuple[float, bytes]] = []
        self.refusing_after: int | None = None

    def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
        if path != "/v1/completions" or b"logprob_token_ids" not in text or text.count(b",") < 100:
            return super().respond(path, text)  # of connecting
        if self.refusing_after is not None and len(self.answered) >= self.refusing_after:
            return 401, b'{"error": {"message": "key revoked"}}'
        time.sleep(self.pause)
        answer = super().respond(path, text)
        self.answered.append((time.monotonic(), text))
        return answer


def dialogues(path: Path, count: int) -> Path:
    """So many short dialogues."""
    rows = [
        {"source": "s", "character": "c", "scenario": str(i), "question_r1": "问", "answer_r1": f"第{i}个回答"}
        for i in range(count)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def command(short_rubric: Path, tmp_path: Path) -> list[object]:
    """``score`` of 40 dialogues into ``tmp_path/run``, without the server's address."""
    data = dialogues(tmp_path / "data.jsonl", 40)
    metrics = ["--metrics", "fluency,coherency"]
    return ["score", data, "--rubric", short_rubric, *metrics, "--run", tmp_path / "run", "--no-report"]


@contextmanager
def running(arguments: list[object], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command at work in a process of its own."""
    line = [sys.executable, "-m", "judge", *map(str, arguments)]
    process = subprocess.Popen(line, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_answers(server: Slow, count: int, process: subprocess.Popen[str]) -> None:
    while len(server.answered) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def asked_twice(server: Slow) -> list[bytes]:
    """What was answered and asked for again."""
    asked = Counter(text for _, text in server.answered)
    return [text for text in asked if asked[text] > 1]


def lost(server: Slow, began: float, killed: float, age: float) -> set[bytes]:
    """What a session that was killed was answered so many seconds before, and a later one asked for again."""
    answered = {text for moment, text in server.answered if began < moment < killed - age}
    return answered & {text for moment, text in server.answered if moment > killed}


def test_a_key_that_is_revoked_loses_no_answer_and_the_message_says_how_many_are_saved(
    stand_in: Path, command: list[object], tmp_path: Path
) -> None:
    server = Slow(stand_in)
    server.refusing_after = 30
    with serving(server) as url:
        revoked = typed(*command, "--url", url, cwd=tmp_path)
        assert revoked.returncode == 3 and "60 of 80 judgments are saved" in revoked.stderr, revoked.stderr[-900:]
        server.refusing_after = None
        assert typed(*command, "--url", url, cwd=tmp_path).returncode == 0
    assert len(server.answered) == 40 and asked_twice(server) == []
    assert load_judgments(tmp_path / "run")["score"].notna().all()
    assert not (tmp_path / "run" / "answers").exists()


def test_what_was_answered_before_does_not_make_a_server_seem_fast(
    stand_in: Path, command: list[object], tmp_path: Path
) -> None:
    server = Slow(stand_in)
    server.refusing_after = 34
    with serving(server) as url:
        assert typed(*command, "--url", url, cwd=tmp_path).returncode == 3
        server.refusing_after = None
        assert typed(*command, "--url", url, cwd=tmp_path).returncode == 0
    (engine,) = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["engines"]
    assert engine["dialogues_at_once"] == 8  # of six dialogues nothing more is found


@pytest.mark.parametrize("end", ["patience", "terminated", "stopped at once"])
def test_however_a_run_ends_its_answers_are_counted_as_saved_or_asked_for_no_more(
    stand_in: Path, command: list[object], tmp_path: Path, end: str
) -> None:
    server, failing = Slow(stand_in), threading.Event()
    server.pause = 0.1
    fault = lambda path, number: (503, b"{}") if failing.is_set() else None  # noqa: E731
    how = [*command, "--patience", 2, "--orderings", 2, "--concurrency", 2]
    with serving(server, fault) as url:
        with running([*how, "--url", url], tmp_path) as process:
            wait_for_answers(server, 50, process)  # 40 in one order of the levels, 10 in the other
            if end == "patience":
                failing.set()
            if end == "stopped at once":
                server.pause = 5.0  # so that what is in flight does not end before the second signal comes
                time.sleep(1)
            for _ in range({"patience": 0, "terminated": 1, "stopped at once": 2}[end]):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
            _, said = process.communicate(timeout=60)
        assert process.returncode == (3 if end == "patience" else 130)
        if end == "patience":
            (saved,) = re.findall(r"(\d+) of 80 judgments are saved", said)
            assert int(saved) == len(server.answered)  # two judgments in one of two orders each
        failing.clear()
        server.pause = 0.0
        answered = len(server.answered)
        assert typed(*how, "--url", url, cwd=tmp_path).returncode == 0
    assert answered >= 50 and len(asked_twice(server)) <= 2 * (end == "stopped at once")
    assert load_judgments(tmp_path / "run")["score"].notna().all()


def test_a_line_of_a_log_that_is_not_as_it_was_written_is_asked_again(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, "judgments", "0" * 16)
    rows = {key: [[-0.25, -np.inf], [float(number), -1.5]] for number, key in enumerate("abc")}
    for key, found in rows.items():
        log.add(key, found)
    assert {key: AnswerLog(tmp_path, "judgments", "0" * 16).get(key) for key in rows} == rows
    first, second, third = filter(None, log.path.read_bytes().splitlines())
    log.path.write_bytes(first + b"\n" + second.replace(b"1.0", b"2.0") + b"\n" + third[:-3])
    spoilt = AnswerLog(tmp_path, "judgments", "0" * 16)
    assert [spoilt.get(key) for key in "abc"] == [rows["a"], None, None] and spoilt.rows == 2
    spoilt.add("c", rows["c"], 2000)  # after half a line
    assert AnswerLog(tmp_path, "judgments", "0" * 16).read("c") == 2000 and spoilt.read("a") is None
    spoilt.take_back(2001)
    assert AnswerLog(tmp_path, "judgments", "0" * 16).get("c") == rows["c"]
    spoilt.remove()
    assert not (tmp_path / "answers").exists()


def wait_until_idle() -> None:
    """Wait while the server still answers a session that was killed before."""
    while any("process_request_thread" in thread.name for thread in threading.enumerate()):
        time.sleep(0.1)


def killed_once(server: Slow, command: list[object], cwd: Path, after: int, delay: float) -> tuple[float, float]:
    """Kill a session of a run some time after so many answers; the moments at which it began and was killed."""
    wait_until_idle()
    began = time.monotonic()
    with running(command, cwd) as process:
        wait_for_answers(server, len(server.answered) + after, process)
        time.sleep(delay)
        process.kill()
        moment = time.monotonic()
        process.wait()
        return began, moment


def test_a_run_that_is_killed_has_saved_what_was_answered_a_moment_before(
    stand_in: Path, command: list[object], tmp_path: Path
) -> None:
    server = Slow(stand_in)
    server.pause = 0.1
    with serving(server) as url:
        began, killed = killed_once(server, [*command, "--url", url], tmp_path, after=5, delay=1.0)
        assert 5 <= len(server.answered) < 40 and not list((tmp_path / "run").glob("judgments/*.parquet"))
        server.pause = 0.0
        assert esrp_judge(*command, "--url", url, cwd=tmp_path).returncode == 0
    assert lost(server, began, killed, age=0.5) == set()
    assert load_judgments(tmp_path / "run")["score"].notna().all()


def test_a_log_of_a_batch_whose_texts_were_edited_goes_when_the_run_ends(
    stand_in: Path, command: list[object], tmp_path: Path
) -> None:
    server = Slow(stand_in)
    server.refusing_after = 5
    with serving(server) as url:
        assert typed(*command, "--url", url, cwd=tmp_path).returncode == 3
        assert len(list((tmp_path / "run" / "answers").iterdir())) == 1
        data = tmp_path / "data.jsonl"
        data.write_text(data.read_text(encoding="utf-8").replace(json.dumps("第7个回答"), '"又"'), encoding="utf-8")
        server.refusing_after = None
        assert typed(*command, "--url", url, cwd=tmp_path).returncode == 0
    assert not (tmp_path / "run" / "answers").exists()


def test_an_answer_for_which_the_disk_has_room_for_a_part_only_is_an_error_and_glues_nothing(tmp_path: Path) -> None:
    log, rows = AnswerLog(tmp_path, "judgments", "0" * 16), [[-0.25, -1.5]]
    log.add("a", rows)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(EngineError, match="cannot be written"):
            log.add("b", rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert log.get("b") is None
    log.add("c", rows)
    again = AnswerLog(tmp_path, "judgments", "0" * 16)
    assert [again.get(key) for key in "abc"] == [rows, None, rows]


class Chat(Slow):
    """Chat completions that count the tokens of a prompt; ``reads`` at most. Longer prompts hang while it ``hangs``."""

    reads, hangs = 10**9, True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, owned_by="somebody")
        self.contents: set[str] = set()
        self.longer = 0

    def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
        if len(text) < 800:  # of connecting
            return Model.respond(self, path, text)
        content = json.loads(text)["messages"][-1]["content"]
        if is_longer(content, self.contents):
            self.longer += 1
            return (HANG, b"") if self.hangs else Model.respond(self, path, text)
        self.contents.add(content)
        time.sleep(self.pause)
        answer = Model.respond(self, path, text)
        self.answered.append((time.monotonic(), text))
        return answer

    def answer(self, path: str, body: Any) -> Any:
        answer = super().answer(path, body)
        if "messages" in body:
            read = len(self.tokenizer.encode("\n".join(message["content"] for message in body["messages"])))
            answer["usage"] = {"prompt_tokens": min(read, self.reads)}
        return answer


def test_a_kill_loses_no_answer_while_a_chat_server_is_slow_on_the_longer_prompt_of_the_check(
    stand_in: Path, command: list[object], tmp_path: Path
) -> None:
    server = Chat(stand_in)
    server.pause = 0.1
    how = [*command, "--min-mass", 0]
    with serving(server) as url:
        began, killed = killed_once(server, [*how, "--url", url], tmp_path, after=10, delay=2.5)
        assert server.longer == 1 and 10 <= len(server.answered) < 80
        server.pause, server.hangs = 0.0, False
        assert typed(*how, "--url", url, cwd=tmp_path).returncode == 0
    assert lost(server, began, killed, age=0.5) == set()
    assert load_judgments(tmp_path / "run")["score"].notna().all()


def test_answers_of_which_a_kill_left_unknown_whether_they_are_to_cut_prompts_are_not_relied_on(
    stand_in: Path, command: list[object], tmp_path: Path
) -> None:
    server = Chat(stand_in)
    server.reads = 300
    how = [*command, "--min-mass", 0, "--limit", 6]
    with serving(server) as url:
        killed_once(server, [*how, "--url", url], tmp_path, after=12, delay=1.0)
        assert len(server.answered) == 12 and not list((tmp_path / "run").glob("judgments/*"))
        server.hangs = False
        cut = typed(*how, "--url", url, cwd=tmp_path)
        assert cut.returncode == 3 and f"{url} cuts prompts: it read 300 tokens" in cut.stderr, cut.stderr
        assert len(server.answered) == 12 and "0 of 12 judgments are saved" in cut.stderr
        server.reads = 10**9
        assert typed(*how, "--url", url, cwd=tmp_path).returncode == 0
    assert len(server.answered) == 24


@pytest.mark.long
def test_twenty_kills_at_any_moment_lose_no_answer_that_was_older_than_five_seconds(
    stand_in: Path, short_rubric: Path, tmp_path: Path
) -> None:
    draw, server = random.Random(21), Slow(stand_in)
    server.pause = 0.4
    data = dialogues(tmp_path / "data.jsonl", 500)
    metrics = ["--metrics", "fluency,coherency"]
    how = ["--run", tmp_path / "run", "--no-report", "--concurrency", 8]
    command = ["score", data, "--rubric", short_rubric, *metrics, *how]
    with serving(server) as url:
        moments = [killed_once(server, [*command, "--url", url], tmp_path, 1, draw.uniform(0, 8)) for _ in range(20)]
        server.pause = 0.0
        assert esrp_judge(*command, "--url", url, cwd=tmp_path).returncode == 0
    for began, killed in moments:
        assert lost(server, began, killed, SAVED_S) == set()
    assert sum(began < moment < killed - SAVED_S for began, killed in moments for moment, _ in server.answered) > 20
    assert load_judgments(tmp_path / "run")["score"].notna().all()


def test_ctrl_c_ends_after_the_requests_in_flight_and_saves_their_answers(
    stand_in: Path, command: list[object], tmp_path: Path
) -> None:
    server = Slow(stand_in)
    server.pause = 0.2
    with serving(server) as url:
        with running([*command, "--url", url, "--concurrency", 4], tmp_path) as process:
            wait_for_answers(server, 10, process)
            there = len(server.answered)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130 and "all judged so far is in" in said
        assert len(server.answered) - there <= 4 + 1  # what was in flight, and what came before the signal did
        server.pause = 0.0
        assert typed(*command, "--url", url, cwd=tmp_path).returncode == 0
    assert len(server.answered) == 40 and asked_twice(server) == []


def test_ctrl_c_is_heard_at_once_while_a_server_fails(stand_in: Path, command: list[object], tmp_path: Path) -> None:
    server, failing = Slow(stand_in), threading.Event()
    fault = lambda path, number: (503, b"{}") if failing.is_set() else None  # noqa: E731
    server.pause = 0.1
    with serving(server, fault) as url, running([*command, "--url", url], tmp_path) as process:
        wait_for_answers(server, 5, process)
        failing.set()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)  # and not the 300 s of its patience
    assert process.returncode == 130 and "all judged so far is in" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_among_its_rationales_keeps_those_that_were_written_and_asks_for_no_more(
    stand_in: Path, command: list[object], tmp_path: Path, number: signal.Signals
) -> None:
    asked = []

    class Writing(Model):
        pause = 0.5

        def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
            if "chat" in path and b"logprobs" not in text:
                asked.append(text)
                time.sleep(self.pause)
            return super().respond(path, text)

    server = Writing(stand_in, owned_by="somebody")
    with serving(server) as url:
        how = [*command, "--url", url, "--rationales", 20, "--limit", 20, "--concurrency", 2, "--min-mass", 0]
        with running(how, tmp_path) as process:
            while len(asked) < 5:
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else -number) and len(asked) <= 5 + 2
        assert number == signal.SIGKILL or "all written so far is in" in said
        assert not (tmp_path / "run" / "rationales.jsonl").exists()  # it has eight dialogues at a time
        wait_until_idle()
        before, server.pause, asked = set(asked[:3]), 0.0, []
        ended = typed(*how, "--url", url, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
    rationales = [json.loads(line) for line in (tmp_path / "run" / "rationales.jsonl").read_text().splitlines()]
    assert (
        not before & set(asked) and len(asked) == len(set(asked)) and len({one["scenario"] for one in rationales}) == 20
    )
    assert not (tmp_path / "run" / "answers").exists()
