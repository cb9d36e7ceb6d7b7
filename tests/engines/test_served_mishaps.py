"""What goes wrong with served judges, by the command as a user types it: right, or a line that says what to do."""

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import numpy as np
import pytest

import judge.engines.patient_client as client_module
from judge import load_judgments
from tests.helpers.commands import Result, typed
from tests.helpers.other_servers import LlamaCppModel, OldModel, SglangModel
from tests.helpers.serving import HALF, Fault, Model, is_longer, manifest, serving

Command = Callable[..., Result]


def dialogues(path: Path, answers: list[str]) -> Path:
    """A dialogue for each answer."""
    rows = [
        {"source": "s", "character": "c", "scenario": f"{i:02}", "question_r1": "问", "answer_r1": answer}
        for i, answer in enumerate(answers)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def scored(short_rubric: Path, tmp_path: Path) -> Command:
    """``score`` of answers on two metrics into ``tmp_path/run``: ``scored(url, answers, *more, **environment)``."""
    how = ["--rubric", short_rubric, "--metrics", "fluency,coherency", "--run", tmp_path / "run", "--patience", 5]

    def command(url: str, answers: list[str], *more: object, **environment: str) -> Result:
        data = dialogues(tmp_path / "data.jsonl", answers)
        return typed("score", data, "--url", url, *how, *more, cwd=tmp_path, **environment)

    return command


MANY = [f"第{i}个回答" for i in range(40)]


class Seen(Model):
    """A server that counts what it is asked for more than the first time, and takes ``pause`` seconds for an answer."""

    pause = 0.0

    def __init__(self, folder: Path, **served: Any) -> None:
        super().__init__(folder, **served)
        self.asked: Counter[bytes] = Counter()

    def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
        self.asked[text] += path == "/v1/completions"
        time.sleep(self.pause)
        return super().respond(path, text)


def test_a_slow_server_of_one_slot_is_asked_everything_once(
    stand_in: Path, scored: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same as 12 seconds an answer and 300 for the longest: of eight at once the last waits longer than that.
    monkeypatch.setattr(client_module, "TIMEOUT", httpx.Timeout(3.0))
    server = Seen(stand_in)
    server.pause = 0.4
    with serving(server) as url:
        assert scored(url, MANY[:20]).returncode == 0
    assert max(server.asked.values()) == 1 and manifest(tmp_path / "run")["engines"][0]["retries"] == 0


def test_a_gateway_that_gives_up_on_what_waits_is_asked_less_at_once(
    stand_in: Path, scored: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LONGEST_PAUSE_S", 0.2)
    at_work = threading.Semaphore(2)

    with behind(Model(stand_in), at_work) as url:
        assert scored(url, MANY[:20]).returncode == 0
    assert manifest(tmp_path / "run")["engines"][0]["dialogues_at_once"] <= 4
    assert load_judgments(tmp_path / "run")["score"].notna().all()


@contextmanager
def behind(model: Model, places: threading.Semaphore) -> Iterator[str]:
    """The address of a gateway before a server, which answers 504 where there is no place among those at work."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if places.acquire(blocking=False):
                time.sleep(0.05)
                with lock:
                    status, content = model.respond(self.path, text)
                places.release()
            else:
                status, content = 504, b"upstream timed out"
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Filtered(Seen):
    """A server whose filter refuses some texts in ``words``."""

    words, cured = "", False

    def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
        body = json.loads(text or "{}")
        texts = [self.tokenizer.trusted.decode(ids) for ids in body.get("prompt", []) if isinstance(ids, list)]
        if not self.cured and any("毒药" in one for one in texts):
            return 400, json.dumps({"error": {"message": self.words}}).encode()
        return super().respond(path, text)


WORDS = {"engine_failed": "bad request", "content_filter": "The response was filtered: content management policy"}


@pytest.mark.parametrize("reason", WORDS)
@pytest.mark.parametrize("answers", [["毒药"], ["毒药", "好"], ["毒药", "毒药2", "好", "好的"]])
def test_a_dialogue_that_a_filter_refuses_is_missing_also_where_it_comes_first_and_only_it_is_asked_again(
    stand_in: Path, scored: Command, tmp_path: Path, reason: str, answers: list[str]
) -> None:
    server, refused = Filtered(stand_in), sum("毒药" in answer for answer in answers)
    server.words = WORDS[reason]
    with serving(server) as url:
        first = scored(url, answers, "--concurrency", 1)
        assert first.returncode == 1 and f"missing: {2 * refused} judgments, {reason}" in first.stdout, first.stderr
        server.cured = True
        assert scored(url, answers, "--concurrency", 1).returncode == 0
    assert load_judgments(tmp_path / "run")["score"].notna().all()
    of_dialogues = Counter({text: count for text, count in server.asked.items() if len(text) > 1000})
    assert len(of_dialogues) == len(answers) and set(of_dialogues.values()) == {1}


def test_an_answer_that_a_filter_withheld_is_missing_and_not_asked_for_again_and_again(
    stand_in: Path, scored: Command
) -> None:
    withheld = {"choices": [{"index": 0, "finish_reason": "content_filter", "message": {"content": ""}}]}
    asked = []

    class Withholding(Model):
        def answer(self, path: str, body: Any) -> Any:
            if "毒药" in json.dumps(body, ensure_ascii=False):
                asked.append(path)
                return withheld
            return super().answer(path, body)

    with serving(Withholding(stand_in, owned_by="somebody")) as url:
        ended = scored(url, ["毒药", "好"], "--min-mass", 0)
    assert ended.returncode == 1 and "missing: 2 judgments, content_filter" in ended.stdout and len(asked) == 1


class Counting(Model):
    """A server that says how many tokens a prompt has, of which it reads ``reads`` at most."""

    reads = 10**9

    def answer(self, path: str, body: Any) -> Any:
        answer = super().answer(path, body)
        if "completions" in path:
            if "messages" in body or isinstance(body["prompt"], str):
                texts = [m["content"] for m in body.get("messages", [{"content": body.get("prompt")}])]
                read = min(self.reads, len(self.tokenizer.encode("\n".join(texts))))
            else:
                read = sum(min(self.reads, len(prompt)) for prompt in body["prompt"])
            answer["usage"] = {"prompt_tokens": read}
        return answer


class CountingOld(OldModel):
    """The same of the older completions."""

    reads = 10**9

    def answer(self, path: str, body: Any) -> Any:
        answer = super().answer(path, body)
        if "completions" in path:
            answer["usage"] = {"prompt_tokens": min(self.reads, len(self.tokenizer.encode(body["prompt"])))}
        return answer


class CountingLlamaCpp(LlamaCppModel):
    """The same of llama.cpp."""

    reads = 10**9

    def answer(self, path: str, body: Any) -> Any:
        answer = super().answer(path, body)
        if path == "/completion":
            answer["tokens_evaluated"] = min(self.reads, len(body["prompt"]))
        return answer


class CountingSglang(SglangModel):
    """The same of SGLang."""

    reads = 10**9

    def generated(self, ids: list[int], body: Any) -> Any:
        answer = super().generated(ids, body)
        answer["meta_info"]["prompt_tokens"] = min(self.reads, len(ids))
        return answer


CUTTING: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "vllm": (Counting, {}),
    "sglang": (CountingSglang, {}),
    "llama.cpp": (CountingLlamaCpp, {}),
    "chat": (Counting, {"owned_by": "somebody"}),
    "completions": (CountingOld, {}),
}


@pytest.mark.parametrize("name", CUTTING)
def test_a_server_that_cuts_prompts_is_refused_and_one_that_reads_all_of_them_is_not(
    stand_in: Path, scored: Command, tmp_path: Path, name: str
) -> None:
    kind, served = CUTTING[name]
    server = kind(stand_in, **served)
    server.reads = 300
    with serving(server) as url:
        cut = scored(url, MANY[:3], "--min-mass", 0)
        assert cut.returncode == 3 and f"{url} cuts prompts: it read" in cut.stderr.splitlines()[-1], cut.stderr
        assert not list((tmp_path / "run").glob("judgments/*"))
        server.reads = 10**9  # it was given a longer context, as the message says
        assert scored(url, MANY[:3], "--min-mass", 0).returncode == 0


def test_a_server_that_counts_badly_or_refuses_what_is_too_long_cuts_nothing(stand_in: Path, scored: Command) -> None:
    class Odd(Counting):
        def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
            status, content = super().respond(path, text)
            read = json.loads(content).get("usage", {}).get("prompt_tokens", 0)
            return (400, b'{"error": "maximum context length is 2500"}') if read > 2500 else (status, content)

    with serving(Odd(stand_in, owned_by="somebody")) as url:
        assert scored(url, MANY[:3], "--min-mass", 0).returncode == 0

    class One(Counting):
        reads = 1

    with serving(One(stand_in, owned_by="somebody")) as url:
        assert scored(url, MANY[:4], "--min-mass", 0).returncode == 0


@pytest.mark.parametrize("status", [HALF, 500, 429])
def test_a_server_that_fails_on_the_longer_prompt_of_the_check_loses_no_answer_and_is_asked_it_a_few_times(
    stand_in: Path, scored: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.01)
    asked, longer = Counter[bytes](), []

    class Failing(Counting):
        def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
            if len(text) > 800:  # not what is asked on connecting
                content = json.loads(text)["messages"][-1]["content"]
                if is_longer(content, contents):
                    longer.append(content)
                    return status, b"{}"
                contents.add(content)
                asked[text] += 1
            return super().respond(path, text)

    contents = set[str]()
    with serving(Failing(stand_in, owned_by="somebody")) as url:
        ended = scored(url, MANY[:20], "--min-mass", 0)
    assert ended.returncode == 0, ended.stderr
    assert len(asked) == 40 and max(asked.values()) == 1 and 5 <= len(longer) <= 25
    assert load_judgments(tmp_path / "run")["score"].notna().all()


def test_levels_that_a_server_does_not_list_are_said_on_the_screen_and_in_the_report(
    stand_in: Path, scored: Command, tmp_path: Path
) -> None:
    listed = [{"token": " 4", "logprob": float(np.log(0.6))}, {"token": "３", "logprob": float(np.log(0.3))}]
    content = {"choices": [{"index": 0, "logprobs": {"content": [{"top_logprobs": listed}]}}]}
    fault: Fault = lambda path, number: (200, json.dumps(content).encode()) if "chat" in path else None  # noqa: E731
    with serving(Model(stand_in, owned_by="somebody"), fault) as url:
        ended = scored(url, MANY[:2])
    assert "unlisted: 4 judgments have levels that the server does not list" in ended.stdout
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "4 of 4 judgments have levels that the server does not list" in page
    with serving(Model(stand_in)) as url:
        assert "unlisted" not in scored(url, MANY[:2], "--run", tmp_path / "exact").stdout


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
@pytest.mark.parametrize("served", [{}, {"owned_by": "somebody"}])
def test_numbers_that_are_none_are_missing_judgments_and_no_warning_of_a_library(
    stand_in: Path, scored: Command, served: dict[str, str], number: str
) -> None:
    class Broken(Model):
        def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
            status, content = super().respond(path, text)
            if len(text) > 800:  # not what is asked on connecting
                content = re.sub(rb'("(?:logprob|token_id:\d+)": )-?[\d.e-]+', rb"\g<1>" + number.encode(), content)
            return status, content

    with serving(Broken(stand_in, **served)) as url:
        ended = scored(url, MANY[:2], "--min-mass", 0)
    assert ended.returncode == 1 and "missing: 4 judgments, not_finite" in ended.stdout
    assert "Warning" not in ended.stderr


PROXIES = ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"]


@pytest.mark.parametrize("variable", PROXIES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_never_asked_through_a_proxy(
    stand_in: Path, scored: Command, variable: str, host: str
) -> None:
    for kind in (Model, LlamaCppModel):
        with serving(kind(stand_in)) as url:
            nowhere = {variable: "socks5://127.0.0.1:9" if variable == "ALL_PROXY" else "http://127.0.0.1:9"}
            ended = scored(url.replace("127.0.0.1", host), MANY[:1], "--run", kind.__name__, **nowhere)
            assert ended.returncode == 0, ended.stderr


@contextmanager
def far_away() -> Iterator[None]:
    """The name ``judge.example`` leads to this machine, as that of a server elsewhere would lead to it."""
    real = socket.getaddrinfo

    def found(host: Any, *more: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host in ("judge.example", b"judge.example") else host, *more, **options)

    with mock.patch.object(socket, "getaddrinfo", found):
        yield


@pytest.mark.parametrize("status", [0, 403, 407, 502, 503])
def test_a_proxy_in_the_way_of_a_server_is_named_and_going_without_it_works(
    stand_in: Path, scored: Command, status: int
) -> None:
    fault: Fault = lambda path, number: (status, b"<html>squid</html>")  # noqa: E731
    with far_away(), serving(Model(stand_in)) as url, serving(Model(stand_in), fault) as proxy:
        place = url.replace("127.0.0.1", "judge.example")
        environment = {"http_proxy": "http://127.0.0.1:9" if status == 0 else proxy}
        refused = scored(place, MANY[:1], **environment).stderr.splitlines()[-1]
        assert f"through {environment['http_proxy']}, the proxy" in refused and "start one" not in refused
        (without,) = re.findall(r"NO_PROXY=(\S+) goes without it", refused)
        assert scored(place, MANY[:1], **environment, no_proxy=without).returncode == 0


REFUSALS: dict[str, tuple[int, bytes, int, str]] = {
    "no such path": (404, b"{}", 2, "answers HTTP 404 ({}); check --url and --judge"),
    "a wrong request": (
        400,
        b'{"error": {"message": "no logprobs"}}',
        2,
        "finds fault with what it is asked (HTTP 400",
    ),
    "a fault of its own": (500, b"out of memory", 3, "fails (HTTP 500: out of memory); see its log for why"),
    "no key": (401, b"{}", 2, "refuses the key (HTTP 401: {}); set ESRP_API_KEY to the server's key"),
    "no access": (
        403,
        b"not in your country",
        2,
        "refuses access (HTTP 403: not in your country); if it is for the key",
    ),
    "no money": (402, b"{}", 2, "wants to be paid (HTTP 402: {}); see to the account there"),
    "no quota": (429, b"{}", 3, "takes no more requests (HTTP 429: {}); run the same command again"),
    "an error in good order": (200, b'{"error": {"message": "no balance"}}', 3, "reports an error (no balance)"),
    "no list": (200, b"[]", 2, "does not answer as an OpenAI-compatible server does"),
    "no model": (200, b'{"data": []}', 2, "serves no model; have it load one"),
    "half an answer": (0, b"", 3, "breaks off its answers"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_a_server_says_at_first_is_said_with_what_helps(stand_in: Path, scored: Command, case: str) -> None:
    status, content, code, said = REFUSALS[case]
    with serving(Model(stand_in), lambda path, number: (status, content)) as url:
        ended = scored(url, MANY[:1])
    assert ended.returncode == code and said in ended.stderr.splitlines()[-1], ended.stderr
    assert ("--judge" in ended.stderr.splitlines()[-1].partition("; ")[2]) is (case == "no such path")


def test_an_address_as_it_is_read_from_a_file_is_taken_and_one_with_a_sign_in_it_is_not(
    stand_in: Path, scored: Command
) -> None:
    with serving(Model(stand_in)) as url:
        for number, read in enumerate((f"{url}\r", f" {url}\n")):
            assert scored(read, MANY[:1], "--run", f"run-{number}").returncode == 0
        for wrong in (url.replace("127", "1\r27"), f"{url}/a b", f"\ufeff{url}"):
            ended = scored(wrong, MANY[:1])
            assert ended.returncode == 2 and "holds blanks or signs that no address has" in ended.stderr


def test_a_key_with_the_end_of_its_line_is_named_and_no_proxy(stand_in: Path, scored: Command) -> None:
    with serving(Model(stand_in)) as url:
        ended = scored(url, MANY[:1], ESRP_API_KEY="abc\n")
        assert ended.returncode == 2 and "proxy" not in ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("esrp-judge: ESRP_API_KEY holds blanks or characters")
        assert scored(url, MANY[:1], ESRP_API_KEY="abc").returncode == 0


def test_a_server_that_has_moved_is_found_by_what_the_message_says(stand_in: Path, scored: Command) -> None:
    class Moved(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(308)
            self.send_header("Location", f"{there}{self.path}?session=1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    with serving(Model(stand_in)) as there, ThreadingHTTPServer(("127.0.0.1", 0), Moved) as old:
        threading.Thread(target=old.serve_forever, daemon=True).start()
        ended = scored(f"http://127.0.0.1:{old.server_port}", MANY[:1])
        old.shutdown()
        (place,) = re.findall(r"has moved to (\S+) \(HTTP 308\); give that by --url", ended.stderr)
        assert place == there and scored(place, MANY[:1]).returncode == 0


def test_a_server_that_is_not_there_is_not_to_be_started_here_where_it_is_elsewhere(scored: Command) -> None:
    with far_away():
        elsewhere, here = (scored(f"http://{host}:9", MANY[:1]).stderr for host in ("judge.example", "127.0.0.1"))
    assert "no server at http://judge.example:9" in elsewhere and "make serve" not in elsewhere
    assert "start one with `make serve`, or check --url" in here


def test_a_server_without_certificates_is_known_by_its_answer(stand_in: Path, scored: Command) -> None:
    with serving(Model(stand_in)) as url:
        said = scored(url.replace("http:", "https:"), MANY[:1]).stderr
        assert "gives no secure connection" in said and "write http://" in said and "start one" not in said
        assert scored(url, MANY[:1]).returncode == 0


def test_a_short_context_is_lengthened_by_the_option_of_its_own_server(stand_in: Path, scored: Command) -> None:
    class Short(LlamaCppModel):
        context = 200

        def answer(self, path: str, body: Any) -> Any:
            answer = super().answer(path, body)
            return answer | {"default_generation_settings": {"n_ctx": self.context}} if path == "/props" else answer

    server = Short(stand_in)
    with serving(server) as url:
        said = scored(url, MANY[:1]).stderr.splitlines()[-1]
        assert "the context of tiny.gguf holds 199 tokens" in said and "give it more (-c of the server)" in said
        server.context = 4096
        assert scored(url, MANY[:1]).returncode == 0


def test_a_server_that_lists_few_levels_is_told_from_one_whose_judge_does_not_answer(
    stand_in: Path, scored: Command
) -> None:
    content = {
        "choices": [{"index": 0, "logprobs": {"content": [{"top_logprobs": [{"token": "嗯", "logprob": 0.0}]}]}}]
    }
    fault: Fault = lambda path, number: (200, json.dumps(content).encode()) if "chat" in path else None  # noqa: E731
    with serving(Model(stand_in, owned_by="somebody"), fault) as url:
        said = scored(url, MANY[:1]).stderr
        assert "serve it by vLLM or llama.cpp, which tell every level" in said and "--answer-form" not in said
    with serving(Model(stand_in)) as url:
        assert scored(url, MANY[:1], "--run", "exact").returncode == 0


def test_a_proxy_that_cannot_be_used_is_gone_without(stand_in: Path, scored: Command) -> None:
    with far_away(), serving(Model(stand_in)) as url:
        place, socks = url.replace("127.0.0.1", "judge.example"), {"ALL_PROXY": "socks5://127.0.0.1:9"}
        said = scored(place, MANY[:1], **socks).stderr.splitlines()[-1]
        assert "through socks5://127.0.0.1:9, the proxy of the environment's ALL_PROXY" in said
        assert scored(place, MANY[:1], **socks, no_proxy="judge.example").returncode == 0


def test_a_key_that_is_refused_on_the_way_is_said_with_its_variable(stand_in: Path, scored: Command) -> None:
    with serving(Model(stand_in), lambda path, number: (401, b"{}") if number > 6 else None) as url:
        ended = scored(url, MANY)
    assert (
        ended.returncode == 3
        and "refuses the key (HTTP 401: {}); set ESRP_API_KEY to the server's key; " in ended.stderr
    )
