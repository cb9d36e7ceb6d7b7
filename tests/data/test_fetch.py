"""The data set arrives whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import importlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from judge.data.chatanime import FILES, chatanime_folder, check, fetch, is_complete
from judge.errors import EngineError, InputError
from judge.files import cache_folder

module = importlib.import_module("judge.data.chatanime")  # even should the package itself have a function of that name

CONTENTS = {"a.json": b"first file " * 20_000, "b.json": b"second"}
LONG = len(CONTENTS["a.json"])


@dataclass
class Server:
    """A web server on this machine: what it holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    breaks_after: list[int] = field(default_factory=list)  # for each of the first answers, bytes before it breaks off
    answers: list[int] = field(default_factory=list)  # for each of the first answers, a status sent instead
    resumes: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    base: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server(dict(CONTENTS))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    state.base = f"http://127.0.0.1:{httpd.server_port}/data"
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def handler(state: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            state.asked.append((self.path, asked))
            status = state.answers.pop(0) if state.answers else 200
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.resumes else 0
            body = state.files[self.path.removeprefix("/data/")][start:] if status == 200 else b""
            self.send_response(206 if start else status)
            if status == 302:
                self.send_header("Location", f"{state.base}/elsewhere/{self.path}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.breaks_after.pop(0)] if state.breaks_after else body)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture(autouse=True)
def small_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small files instead of the real ones, no waiting between tries, and no proxy between here and here."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    if "shared_data" in request.fixturenames:
        return
    table = {name: (len(text), hashlib.sha256(text).hexdigest()) for name, text in CONTENTS.items()}
    monkeypatch.setattr(module, "FILES", table)
    monkeypatch.setattr(module, "BACKOFF_S", (0.0, 0.0))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_file_is_fetched_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert not is_complete(folder)
    fetch(folder, base=server.base)
    assert contents(folder) == CONTENTS
    assert check(folder) == []
    assert is_complete(folder)
    assert server.asked == [("/data/a.json", None), ("/data/b.json", None)]


def test_a_file_that_is_there_and_right_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(CONTENTS["a.json"])
    (tmp_path / "b.json").write_bytes(b"sEcond")
    fetch(tmp_path, base=server.base + "/")
    assert server.asked == [("/data/b.json", None)]
    assert contents(tmp_path) == CONTENTS


def test_a_broken_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [LONG // 2]
    progress: list[tuple[str, int, int]] = []
    fetch(tmp_path, base=server.base, on_progress=lambda *step: progress.append(step))
    assert contents(tmp_path) == CONTENTS
    assert server.asked[:2] == [("/data/a.json", None), ("/data/a.json", f"bytes={LONG // 2}-")]
    assert ("a.json", LONG // 2, LONG) in progress
    assert progress[-2:] == [("a.json", LONG, LONG), ("b.json", 6, 6)]
    assert progress == sorted(progress)


def test_a_later_run_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [100, 100, 100]
    with pytest.raises(EngineError, match=r"a\.json: cannot be fetched"):
        fetch(tmp_path, base=server.base)
    assert contents(tmp_path) == {".a.json.part": CONTENTS["a.json"][:300]}
    fetch(tmp_path, base=server.base)
    assert contents(tmp_path) == CONTENTS
    assert server.asked[3] == ("/data/a.json", "bytes=300-")


def test_a_server_that_cannot_resume_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.resumes, server.breaks_after = False, [LONG // 2]
    fetch(tmp_path, base=server.base)
    assert server.asked[1] == ("/data/a.json", f"bytes={LONG // 2}-")
    assert contents(tmp_path) == CONTENTS


@pytest.mark.parametrize(("part", "ranges"), [(b"other", ["bytes=5-", None]), (b"x" * LONG, [None])])
def test_a_part_of_another_file_is_thrown_away(
    part: bytes, ranges: list[str | None], server: Server, tmp_path: Path
) -> None:
    (tmp_path / ".a.json.part").write_bytes(part)
    fetch(tmp_path, base=server.base)
    assert contents(tmp_path) == CONTENTS
    assert [asked for path, asked in server.asked if path == "/data/a.json"] == ranges


@pytest.mark.parametrize("status", [503, 429])
def test_a_server_in_trouble_is_asked_again(status: int, server: Server, tmp_path: Path) -> None:
    server.answers = [status, status]
    fetch(tmp_path, base=server.base)
    assert contents(tmp_path) == CONTENTS
    assert len(server.asked) == 4


@pytest.mark.parametrize("status", [404, 302])
def test_a_server_that_refuses_is_not_asked_again(status: int, server: Server, tmp_path: Path) -> None:
    server.answers = [status]
    with pytest.raises(EngineError, match=f"the server answered {status}"):
        fetch(tmp_path, base=server.base)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("sent", "found"),
    [(b"sEcond", hashlib.sha256(b"sEcond").hexdigest()), (b"secon", "5 bytes"), (b"seconds", "7 bytes")],
)
def test_a_file_that_arrives_wrong_is_refused_and_removed(
    sent: bytes, found: str, server: Server, tmp_path: Path
) -> None:
    server.files["b.json"] = sent
    with pytest.raises(InputError) as caught:
        fetch(tmp_path, base=server.base)
    message = str(caught.value)
    expected = hashlib.sha256(b"second").hexdigest() if len(sent) == 6 else "6 expected"
    assert message.startswith(str(tmp_path / "b.json"))
    assert found in message
    assert expected in message
    assert "\n" not in message
    assert contents(tmp_path) == {"a.json": CONTENTS["a.json"]}


def test_no_network_is_one_line_that_names_the_other_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(EngineError) as caught:
        fetch(tmp_path, base=f"http://localhost:{port}/")
    message = str(caught.value)
    assert message.startswith(f"http://localhost:{port}/a.json: cannot be fetched (")
    assert "refused" in message
    assert f"put the files of {module.PAGE} in a folder DIR and run `esrp-judge data fetch --from DIR`" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "base",
    [
        "http://example.org/data/",
        "http://127.0.0.1@example.org/",
        "http://localhost.example.org/",
        "ftp://127.0.0.1/",
        "https:///data",
        "data",
        "http://[::bad/",
    ],
)
def test_only_https_is_trusted_beyond_this_machine(base: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with pytest.raises(InputError, match="https://"):
        fetch(folder, base=base)
    assert not folder.exists()


def test_a_proxy_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:1")
    with pytest.raises(EngineError, match=r"proxy named by the environment cannot be used \(.*nonsense"):
        fetch(tmp_path)


def test_files_are_copied_from_a_folder_without_the_network(tmp_path: Path) -> None:
    origin, folder = tmp_path / "origin", tmp_path / "folder"
    origin.mkdir()
    for name, text in CONTENTS.items():
        (origin / name).write_bytes(text)
    progress: list[tuple[str, int, int]] = []
    fetch(folder, origin, base="https://unreachable.invalid/", on_progress=lambda *step: progress.append(step))
    assert contents(folder) == CONTENTS
    assert progress == [("a.json", LONG, LONG), ("b.json", 6, 6)]


def test_all_that_a_folder_lacks_is_told_before_anything_is_copied(tmp_path: Path) -> None:
    origin, folder = tmp_path / "origin", tmp_path / "folder"
    origin.mkdir()
    (origin / "b.json").write_bytes(b"sEcond")
    with pytest.raises(InputError) as caught:
        fetch(folder, origin)
    first, missing, wrong = str(caught.value).splitlines()
    assert first == "2 problems:"
    assert missing.strip().startswith(f"{origin / 'a.json'}: missing; ")
    assert wrong.strip().startswith(f"{origin / 'b.json'}: sha256 ")
    assert contents(folder) == {}


def test_what_the_folder_has_the_other_need_not(tmp_path: Path) -> None:
    origin, folder = tmp_path / "origin", tmp_path / "folder"
    origin.mkdir()
    folder.mkdir()
    (origin / "b.json").write_bytes(CONTENTS["b.json"])
    (folder / "a.json").write_bytes(CONTENTS["a.json"])
    fetch(folder, origin)
    assert contents(folder) == CONTENTS


def test_check_tells_missing_size_and_checksum(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"sec")
    missing, size = check(tmp_path)
    assert missing == f"{tmp_path / 'a.json'}: missing; the right file is at {module.PAGE}"
    assert f"{tmp_path / 'b.json'}: 3 bytes found, 6 expected" in size
    (tmp_path / "a.json").write_bytes(CONTENTS["a.json"])
    assert not is_complete(tmp_path)
    (tmp_path / "b.json").write_bytes(b"sEcond")
    assert is_complete(tmp_path), "sizes are all that is looked at"
    assert [hashlib.sha256(b"sEcond").hexdigest() in line for line in check(tmp_path)] == [True]


def test_a_folder_that_cannot_be_made_is_the_users_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file.*: (Not a directory|File exists); ESRP_CACHE=DIR"):
        fetch(tmp_path / "file" / "folder")


def test_the_real_data_set_passes_and_is_copied(shared_data: Path, tmp_path: Path) -> None:
    origin = shared_data / "chatanime"
    assert check(origin) == []
    fetch(tmp_path, origin)
    assert is_complete(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert len(FILES) == 11


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESRP_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert chatanime_folder() == tmp_path / "own" / "chatanime"
    monkeypatch.setenv("ESRP_CACHE", "")
    assert cache_folder() == tmp_path / "xdg" / "esrp-judge"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "esrp-judge"
    monkeypatch.setenv("ESRP_CACHE", "~/here")
    assert cache_folder() == tmp_path / "home" / "here"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESRP_CACHE", "near")
    assert cache_folder() == tmp_path / "near"


def test_a_user_without_a_home_is_told_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESRP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(InputError, match="set ESRP_CACHE"):
        cache_folder()


def test_nobody_is_followed_elsewhere(server: Server, tmp_path: Path) -> None:
    server.answers = [302]
    with pytest.raises(EngineError, match="the server answered 302"):
        fetch(tmp_path, base=server.base)
    assert [path for path, _ in server.asked] == ["/data/a.json"]
