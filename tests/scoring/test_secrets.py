"""No key, token or password is written or printed, whatever fails."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from judge.engines.served_model import connect
from judge.errors import InputError, discreet, readable
from judge.scoring.run import score
from judge.types import Options
from tests.helpers.commands import Result, esrp_judge, typed
from tests.helpers.serving import Fault, Model, serving

Command = Callable[..., Result]
KEY, TOKEN, PASSWORD = "sk-planted-key-1", "hf_plantedtoken2", "planted-password3"
PLANTED = {
    "ESRP_API_KEY": KEY,
    "HF_TOKEN": TOKEN,
    "HF_ENDPOINT": f"http://me:{PASSWORD}@127.0.0.1:9",
    "PIP_INDEX_URL": f"https://me:{PASSWORD}@index.invalid/simple",
    "HTTPS_PROXY": f"http://me:{PASSWORD}@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}


def told(command: Command, folder: Path, *arguments: object, **more: str) -> str:
    """Everything that a command prints and writes into a folder, with secrets planted in the environment."""
    done = command(*arguments, cwd=folder, **PLANTED, **more)
    assert "internal error" not in done.stderr and "Traceback" not in done.stderr
    written = [path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()]
    return "\n".join([done.stdout, done.stderr, *written])


def assert_discreet(text: str) -> None:
    assert not [secret for secret in (KEY, TOKEN, PASSWORD) if secret in text]


@pytest.fixture(scope="module")
def model(stand_in: Path) -> Model:
    return Model(stand_in)


def test_a_run_on_a_server_writes_no_secret(model: Model, short_rubric: Path, tmp_path: Path) -> None:
    how = ("--limit", 1, "--metrics", "fluency", "--prompts", short_rubric)
    with serving(model) as url:
        text = told(typed, tmp_path, "score", "--url", url, "--run", "run", *how)
    assert '"command"' in text and (tmp_path / "run" / "manifest.json").is_file()
    assert_discreet(text)


def test_a_server_that_repeats_the_key_in_its_error_does_not_get_it_printed(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESRP_API_KEY", KEY)
    fault: Fault = lambda path, number: (400, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode())  # noqa: E731
    with serving(model, fault) as url, pytest.raises(InputError, match="bad key") as error:
        connect(url)
    assert_discreet(str(error.value))


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (typed, ["doctor"]),
        (typed, ["score", "--url", f"ftp://me:{PASSWORD}@127.0.0.1:9"]),
        (esrp_judge, ["score", "--judge", "org/model", "--limit", "1"]),  # what asks the Hub reads its settings once
    ],
    ids=["doctor", "scheme", "hub"],
)
def test_no_command_tells_a_secret(stand_in: Path, tmp_path: Path, command: Command, arguments: list[str]) -> None:
    text = told(command, tmp_path, *arguments, HF_HUB_OFFLINE="0")
    assert text.strip()
    assert_discreet(text)


@pytest.mark.parametrize("key", ["sk-planted\nkey", "sk-planted-密", " sk-planted", "sk\x00planted", "sk-planted\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_untold(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "ESRP_API_KEY": key})
    with pytest.raises(InputError, match="ESRP_API_KEY holds") as error:
        connect("http://127.0.0.1:9")
    assert "planted" not in str(error.value)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ALL_PROXY", f"gopher://me:{PASSWORD}@127.0.0.1:9")
    yield


def test_a_proxy_that_cannot_be_used_is_one_line_without_its_password(proxy: None) -> None:
    with pytest.raises(InputError, match="proxy") as error:
        connect("http://judge.invalid:9")
    assert_discreet(readable(str(error.value)))


@pytest.mark.parametrize("name", ["\x1b[2Jx", "", "a" * 500, "a\nb", "\u202ea"])
def test_a_server_gives_its_model_no_name_that_harms(model: Model, name: str) -> None:
    models = json.dumps({"data": [model.served | {"id": name}]}).encode()
    fault: Fault = lambda path, number: (200, models) if path == "/v1/models" else None  # noqa: E731
    with serving(model, fault) as url, pytest.raises(InputError, match="no name"):
        connect(url)


@pytest.mark.parametrize(
    "address", ["http://me:{}@127.0.0.1:9", "http://me:{}@127.0.0.1:port", "//me:{}@h", "me:{}@h:8000"]
)
def test_an_address_with_a_login_is_refused_untold(address: str) -> None:
    with pytest.raises(InputError, match="--url") as error:
        connect(address.format(PASSWORD))
    assert_discreet(readable(str(error.value)))


def test_a_login_is_left_out_of_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert discreet(f"see https://me:x@host/a and {TOKEN}.") == "see https://…@host/a and …."
    assert discreet("https://host/a@b") == "https://host/a@b"


@pytest.mark.parametrize("name", ["../../up", "/absolute", "..", "a/../../b", "Ａ", "con.", "模" * 60])
def test_a_run_lies_in_results_whatever_a_server_calls_its_model(
    model: Model, short_rubric: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    models = json.dumps({"data": [model.served | {"id": name}]}).encode()
    fault: Fault = lambda path, number: (200, models) if path == "/v1/models" else None  # noqa: E731
    with serving(model, fault) as url:
        result = score([], Options(url=url, metrics=("fluency",), limit=1, rubric=short_rubric))
    assert result.run.parent == Path("results") and (tmp_path / result.run / "manifest.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
