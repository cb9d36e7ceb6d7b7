"""Serves a judge by vLLM on this machine, with the flags that suit scoring."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from judge.engines.server_protocols import UNREADABLE, Completions, MissingTokens
from judge.errors import EngineError, InputError, discreet, flat, one_line, plain
from judge.models.checkpoint import PRESETS, TOKENIZER_FILES, Checkpoint, pick, resolve
from judge.models.hardware import Hardware, detect, require_usable
from judge.prompting.safe_tokenizer import JudgeTokenizer, TextTokenizer

API_KEY = "ESRP_API_KEY"
"""The environment variable with the server's key, which is never written anywhere."""


TIMEOUT = httpx.Timeout(300.0, connect=10.0)
"""Seconds for an answer, and for a connection."""


LONGEST_NAME = 150
"""Characters of a model's name, which is in every row and in the name of the run's folder."""


UNVERIFIED = "unverified:"
"""Begins what rests on a server's word."""


PROBE = "评分：3，因为她说“没关系”。 Score: 4 <|im_end|>"
"""A text that two tokenizers hardly cut alike by chance."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model on a server, which stands where a ``Checkpoint`` stands.

    ``takes_ids`` says whether it takes token ids and answers with any token's log-probability; ``checkpoint`` is
    where its tokenizer is, if it does.
    """

    url: str
    model: str
    max_tokens: int
    checkpoint: Checkpoint | None

    @property
    def takes_ids(self) -> bool:
        """Whether prompts are token ids; otherwise messages."""
        return self.checkpoint is not None

    @property
    def completions(self) -> Completions:
        """What its model can be asked."""
        return Completions(self.model, self.takes_ids)

    @property
    def name(self) -> str:
        """The name that its judgments carry."""
        return self.checkpoint.name if self.checkpoint else self.model

    @property
    def tokenizer(self) -> JudgeTokenizer | TextTokenizer:
        """What turns texts into the ids of its prompts."""
        return self.checkpoint.tokenizer if self.checkpoint else TextTokenizer()

    @property
    def weights_digest(self) -> str:
        """What is known of the weights: the server's word."""
        return f"{UNVERIFIED}{self.model}"

    config_digest = "unverified"
    quantisation = None

    def dtype(self, hardware: Hardware) -> str:
        """Not known of a server."""
        return "unverified"


def connect(url: str, judge: str = "auto") -> Served:
    """Ask a server what it serves, and try it.

    Args:
        url: the server's address, with or without ``/v1``.
        judge: the model wanted, by the server's name for it or as for ``resolve``; ``auto`` for the only one.

    Raises:
        InputError: the address, the key or the model is wrong, or the server gives no log-probabilities.
        EngineError: there is no server.
    """
    shown = url.rpartition("@")[2]
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"--url {shown}: no address ({error}); give one such as http://127.0.0.1:8000") from error
    if parts.username or parts.password or parts.query:
        raise InputError(f"--url: must hold no name, key or query, since it is written down; put the key in {API_KEY}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--url {shown}: no address of a server; give one such as http://127.0.0.1:8000")
    url = url.rstrip("/").removesuffix("/v1").rstrip("/")
    with _told(url), _client() as client:
        found = _chosen(_models(client, url), url, judge)
        if not _is_vllm(found):
            served = Served(url, found["id"], 2**31, None)
        else:
            served = Served(url, found["id"], int(found["max_model_len"]) - 1, _checkpoint(found, judge))
            # InputError where the server cuts a text into other tokens than the tokenizer here.
            body = {"model": served.model, "prompt": PROBE, "add_special_tokens": False}
            theirs = client.post(f"{served.url}/tokenize", json=body).raise_for_status().json()["tokens"]
            if tuple(theirs) != served.tokenizer.encode(PROBE):
                raise InputError(
                    f"{served.url} serves another model than {served.name}: its tokens differ; check --judge"
                )
        _try(client, served)
    return served


def headers() -> dict[str, str]:
    """The key, where there is one; InputError, which does not tell it, where it cannot be sent."""
    key = os.environ.get(API_KEY)
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise InputError(f"{API_KEY} holds blanks or characters that no key has; set it to the server's key alone")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _client() -> httpx.Client:
    """A client that obeys the environment's proxies; InputError where one of them cannot be used."""
    try:
        return httpx.Client(headers=headers(), timeout=TIMEOUT)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise InputError(
            f"a proxy of the environment cannot be used ({one_line(error)}); correct or unset it"
        ) from error


def same_model(answer: Any, served: Served) -> bool:
    """Whether a server's list of models still has the one that is scored with."""
    return any(isinstance(model, dict) and model.get("id") == served.model for model in _listed(answer))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way to a server into one line."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise InputError(f"{url} refuses the key (HTTP {code}); set {API_KEY} to the server's key") from error
        raise InputError(f"{url} answers HTTP {code} ({said(error.response)}); check --url and --judge") from error
    except httpx.HTTPError as error:
        reason = one_line(error) or type(error).__name__
        raise EngineError(f"no server at {url} ({reason}); start one with `make serve`, or check --url") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{url} does not answer as an OpenAI-compatible server does; check --url") from error


def said(response: httpx.Response) -> str:
    """What a server says of an error, on one line."""
    try:
        content = response.json()
        error = content.get("error", content)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return discreet(flat(str(text)))[:160]


def _models(client: httpx.Client, url: str) -> list[dict[str, Any]]:
    response = client.get(f"{url}/v1/models").raise_for_status()
    models = [{**model, "id": str(model["id"])} for model in _listed(response.json())]
    for name in (model["id"] for model in models):
        if name != plain(name) or not 0 < len(name) <= LONGEST_NAME:
            raise InputError(f"{url} serves a model with no name that can be written down; serve it under another")
    return models


def _listed(answer: Any) -> list[Any]:
    return list(answer["data"]) if isinstance(answer, dict) and isinstance(answer.get("data"), list) else []


def _chosen(models: list[dict[str, Any]], url: str, judge: str) -> dict[str, Any]:
    names = [model["id"] for model in models]
    by_name = [model for model in models if judge in (model["id"], model.get("root"))]
    if by_name:
        return by_name[0]
    if len(models) == 1 and (judge == "auto" or _is_vllm(models[0])):
        return models[0]  # that it is the judge asked for is told by its tokens
    raise InputError(f"--judge {judge}: {url} serves {', '.join(names) or 'no model'}; name one of them")


def _is_vllm(model: dict[str, Any]) -> bool:
    return model.get("owned_by") == "vllm"


def _checkpoint(found: dict[str, Any], judge: str) -> Checkpoint:
    """Where the tokenizer of a vLLM server's model is: as the user says, or else as the server does."""
    root = str(found.get("root") or found["id"])
    wanted = root if judge in ("auto", found["id"]) else judge
    hub_ids = {PRESETS.get(name, (name,))[0] for name in (wanted, root)}
    if len(hub_ids) == 2 and all("/" in name and not Path(name).exists() for name in hub_ids):
        raise InputError(f"--judge {judge}: the server has {root}, another model; start it with the judge you want")
    try:
        here = resolve(wanted, TOKENIZER_FILES)
        name = Path(found["id"]).name if Path(found["id"]).is_absolute() else found["id"]
        return here if wanted == judge else replace(here, asked=name)
    except InputError as error:
        raise InputError(f"the server's model is {root}, unknown here; name it by --judge ({error})") from error


def _try(client: httpx.Client, served: Served) -> None:
    """InputError where the server does not give the log-probabilities that scoring needs."""
    tokenizer = served.tokenizer
    head, tail = tokenizer.chat("1–5？")
    levels = tokenizer.level_ids(tail)
    (request,) = served.completions.levels([tokenizer.encode(head + "？" + tail)], levels)
    answer = client.post(f"{served.url}{request.path}", json=request.body).raise_for_status().json()
    try:
        request.read(answer)
    except MissingTokens as error:
        raise InputError(
            f"{served.url} gives no log-probabilities of chosen tokens; serve the model by vLLM 0.32"
        ) from error
    except UNREADABLE as error:
        raise InputError(f"{served.url} gives no log-probabilities, so it cannot be a judge; use another") from error


HOST = "127.0.0.1"


def serve(judge: str, port: int, flags: Sequence[str] = ()) -> NoReturn:
    """Become the server of a judge; the line that scores by it is printed first.

    A key in ``ESRP_API_KEY`` is then asked of its users too. ``flags`` are further ones of ``vllm serve``.

    Raises:
        InputError: there is no such judge.
        EngineError: vLLM is not installed, or a GPU cannot be used.
    """
    hardware = detect()
    require_usable(hardware)
    if find_spec("vllm") is None:
        raise EngineError("vLLM is not installed here; run `make serve`, or `pip install 'esrp-judge[vllm]'`")
    name = pick(hardware)[0] if judge == "auto" else judge
    checkpoint = resolve(name)
    command = _command(str(checkpoint.folder), name, checkpoint.dtype(hardware), port, hardware)
    if API_KEY in os.environ:
        os.environ["VLLM_API_KEY"] = os.environ[API_KEY]
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    print(f"serving {checkpoint.name}; once it has started, score by it in another terminal:")
    print(f"  esrp-judge score DATA… --url http://{HOST}:{port}", flush=True)
    os.execv(sys.executable, [*command, *flags])


def _command(folder: str, name: str, dtype: str, port: int, hardware: Hardware) -> list[str]:
    flags = {"--model": folder, "--served-model-name": name, "--host": HOST, "--port": str(port), "--dtype": dtype}
    words = [word for flag in flags.items() for word in flag]
    on_cpu = [] if hardware.gpus else ["--enforce-eager", "--block-size", "32"]
    return [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, "--enable-prefix-caching",
        "--max-logprobs", "20", "--generation-config", "vllm", "--load-format", "safetensors", *on_cpu,
    ]  # fmt: skip
