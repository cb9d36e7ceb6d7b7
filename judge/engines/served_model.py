"""Which model a server serves, and starting such a server.

``connect`` asks a server what it serves and sends one prompt, so that a wrong address, key or model shows before any
dialogue is judged. ``serve`` turns this process into a vLLM server with the flags that suit scoring. How a model is
asked is in ``judge.engines.server_protocols``, scoring by it in ``judge.engines.server``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from judge.engines.server_protocols import THOUGHTS, UNREADABLE, Completions, Manner, MissingTokens, first_token
from judge.errors import EngineError, InputError, discreet, flat, one_line, plain
from judge.models.checkpoint import TOKENIZER_FILES, Checkpoint, resolve
from judge.models.hardware import Hardware, detect, require_usable
from judge.models.presets import PRESETS, pick
from judge.prompting.chat_tokenizer import Tokenizer
from judge.prompting.message_tokenizer import TextTokenizer

API_KEY = "ESRP_API_KEY"
"""The environment variable with the server's key, which is never written anywhere."""


TIMEOUT = httpx.Timeout(300.0, connect=10.0)
"""The most seconds for an answer, and for a connection."""


LONGEST_NAME = 150
"""The most characters of a model's name, which is in every row and in the name of the run's folder."""


UNVERIFIED = "unverified:"
"""The beginning of a judge id that rests on what a server says, as its weights cannot be hashed."""


PROBE = "评分：3，因为她说“没关系”。 Score: 4 <|im_end|>"
"""A text that two different tokenizers hardly cut alike: two scripts, full-width punctuation, a control token."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model on a server; it has the attributes that ``Judge`` takes from a ``Checkpoint``.

    ``checkpoint`` has the tokenizer on this machine, for a server that takes token ids and answers with the
    log-probability of any token (vLLM). It is None for a server that takes messages. ``max_tokens`` is the length of
    the longest prompt. ``manner`` is how a server of messages lets itself be asked.
    """

    url: str
    model: str
    max_tokens: int
    checkpoint: Checkpoint | None
    manner: Manner = field(default_factory=Manner)

    @property
    def takes_ids(self) -> bool:
        """Whether prompts are token ids; otherwise messages."""
        return self.checkpoint is not None

    @property
    def completions(self) -> Completions:
        """The requests that its model can be sent."""
        return Completions(self.model, self.takes_ids, self.manner)

    @property
    def name(self) -> str:
        """The name that its judgments carry."""
        return self.checkpoint.name if self.checkpoint else self.model

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into the ids of its prompts."""
        return self.checkpoint.tokenizer if self.checkpoint else TextTokenizer()

    @property
    def weights_digest(self) -> str:
        """The model's name as the server gives it, which is all that is known of the weights."""
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
        _ = parts.port  # read for its error: a port that is no number is found only now
    except ValueError as error:
        raise InputError(f"--url {shown}: no address ({error}); give one such as http://127.0.0.1:8000") from error
    if parts.username or parts.password or parts.query:
        raise InputError(f"--url: must hold no name, key or query, since it is written down; put the key in {API_KEY}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--url {shown}: no address of a server; give one such as http://127.0.0.1:8000")
    url = url.rstrip("/").removesuffix("/v1").rstrip("/")
    with _asking(url) as client:
        found = _chosen(client, url, judge)
        if not _is_vllm(found):
            served = Served(url, found["id"], 2**31, None)
        else:
            # One token less than vLLM's limit, which counts the answer too.
            served = Served(url, found["id"], int(found["max_model_len"]) - 1, _checkpoint(found, judge))
            body = {"model": served.model, "prompt": PROBE, "add_special_tokens": False}
            # Ids of another tokenizer would be read as other words, and nothing would fail: so the two are compared.
            theirs = client.post(f"{url}/tokenize", json=body).raise_for_status().json()["tokens"]
            if tuple(theirs) != served.tokenizer.encode(PROBE):
                raise InputError(f"{url} serves another model than {served.name}: its tokens differ; check --judge")
        return _tried(client, served)


def headers() -> dict[str, str]:
    """The header with the key, where there is one; InputError where it cannot be sent, which does not show it."""
    key = os.environ.get(API_KEY)
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise InputError(f"{API_KEY} holds blanks or characters that no key has; set it to the server's key alone")
    return {"Authorization": f"Bearer {key}"} if key else {}


def same_model(answer: Any, served: Served) -> bool:
    """Whether a server's list of models still has the one that is scored with."""
    return any(isinstance(model, dict) and model.get("id") == served.model for model in _listed(answer))


@contextmanager
def _asking(url: str) -> Iterator[httpx.Client]:
    """A client for a server; it obeys the environment's proxies.

    What goes wrong with the client or in the block becomes an InputError or EngineError of one line.
    """
    try:
        client = httpx.Client(headers=headers(), timeout=TIMEOUT)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        reason = one_line(error)
        raise InputError(f"a proxy of the environment cannot be used ({reason}); correct or unset it") from error
    try:
        with client:
            yield client
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise InputError(f"{url} refuses the key (HTTP {code}); set {API_KEY} to the server's key") from error
        raise InputError(f"{url} answers HTTP {code} ({said(error.response)}); check --url and --judge") from error
    except httpx.HTTPError as error:
        reason = one_line(error) or type(error).__name__
        raise EngineError(f"no server at {url} ({reason}); start one with `make serve`, or check --url") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{url} does not answer as an OpenAI-compatible server does; check --url") from error


def said(response: httpx.Response) -> str:
    """The message of a server's error, on one line, without secrets."""
    try:
        content = response.json()
        error = content.get("error", content)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return discreet(flat(str(text)))[:160]


def _listed(answer: Any) -> list[Any]:
    """The models in an answer of ``/v1/models``; none where it has another shape."""
    return list(answer["data"]) if isinstance(answer, dict) and isinstance(answer.get("data"), list) else []


def _chosen(client: httpx.Client, url: str, judge: str) -> dict[str, Any]:
    """The entry in the server's list of the model that is to be the judge; InputError where it is not clear which."""
    answer = client.get(f"{url}/v1/models").raise_for_status().json()
    models = [{**model, "id": str(model["id"])} for model in _listed(answer)]
    names = [model["id"] for model in models]
    if any(name != plain(name) or not 0 < len(name) <= LONGEST_NAME for name in names):
        raise InputError(f"{url} serves a model with no name that can be written down; serve it under another")
    by_name = [model for model in models if judge in (model["id"], model.get("root"))]
    if by_name:
        return by_name[0]
    # The only model of a vLLM server may be the judge under another name; comparing tokens shows whether it is.
    if len(models) == 1 and (judge == "auto" or _is_vllm(models[0])):
        return models[0]
    raise InputError(f"--judge {judge}: {url} serves {', '.join(names) or 'no model'}; name one of them")


def _is_vllm(model: dict[str, Any]) -> bool:
    """Whether an entry of a server's list of models is one of vLLM's."""
    return model.get("owned_by") == "vllm"


def _checkpoint(found: dict[str, Any], judge: str) -> Checkpoint:
    """The checkpoint with the tokenizer of a vLLM server's model: the one the user names, or else the server."""
    root = str(found.get("root") or found["id"])
    wanted = root if judge in ("auto", found["id"]) else judge
    # Two names are no contradiction where one is a folder: it may hold what the other names.
    hub_ids = {PRESETS[name].repository if name in PRESETS else name for name in (wanted, root)}
    if len(hub_ids) == 2 and all("/" in name and not Path(name).exists() for name in hub_ids):
        raise InputError(f"--judge {judge}: the server has {root}, another model; start it with the judge you want")
    try:
        here = resolve(wanted, TOKENIZER_FILES)
        name = Path(found["id"]).name if Path(found["id"]).is_absolute() else found["id"]
        return here if wanted == judge else replace(here, asked=name)
    except InputError as error:
        raise InputError(f"the server's model is {root}, unknown here; name it by --judge ({error})") from error


REFUSED = (400, 404, 422)
"""HTTP status codes with which servers refuse what they do not know in a request."""


def _tried(client: httpx.Client, served: Served) -> Served:
    """The server asked as it lets itself be asked; InputError where it gives no log-probabilities of a first token."""
    tokenizer = served.tokenizer
    head, tail = tokenizer.chat("1–5？")
    levels = tokenizer.level_ids(tail)
    (request,) = served.completions.levels([tokenizer.encode(head + "？" + tail)], levels)
    response = client.post(f"{served.url}{request.path}", json=request.body)
    if response.status_code in REFUSED and not served.takes_ids and (manner := served.manner.after(said(response))):
        return _tried(client, replace(served, manner=manner))
    answer = response.raise_for_status().json()
    try:
        request.read(answer)
        first = "" if served.takes_ids else first_token(answer)
    except MissingTokens as error:
        message = f"{served.url} gives no log-probabilities of chosen tokens; serve the model by vLLM 0.32"
        raise InputError(message) from error
    except UNREADABLE as error:
        reason = f" ({said(response)})" if isinstance(answer, dict) and "error" in answer else ""
        raise InputError(
            f"{served.url} gives no log-probabilities{reason}, so it cannot be a judge; turn them on, or use another"
        ) from error
    if first.startswith(THOUGHTS):
        raise InputError(
            f"{served.url} begins its answers with a thought ({plain(first)!r}), so no level can be read; switch "
            "thinking off there (llama.cpp: --reasoning-budget 0), or serve a model that does not think"
        )
    return served


HOST = "127.0.0.1"
"""The address on which ``serve`` listens: it is reached from this machine only."""


def serve(judge: str, port: int, flags: Sequence[str] = ()) -> NoReturn:
    """Turn this process into the server of a judge; the command that scores by it is printed first.

    Clients need the key in ``ESRP_API_KEY``, where it is set.

    Args:
        judge: a preset, a model's name or a folder; ``auto`` for the largest preset that fits.
        port: the port to listen on.
        flags: further flags of ``vllm serve``.

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
    dtype = checkpoint.dtype(hardware)
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint.folder),
        "--served-model-name", name, "--host", HOST, "--port", str(port), "--dtype", dtype, "--enable-prefix-caching",
        "--max-logprobs", "20", "--generation-config", "vllm", "--load-format", "safetensors",
    ]  # fmt: skip
    # As ``judge.engines.vllm`` does on a CPU: no compilation, and small blocks of the cache.
    command += [] if hardware.gpus else ["--enforce-eager", "--block-size", "32"]
    if API_KEY in os.environ:
        os.environ["VLLM_API_KEY"] = os.environ[API_KEY]
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    print(f"serving {checkpoint.name}; once it has started, score by it in another terminal:")
    print(f"  esrp-judge score DATA… --url http://{HOST}:{port}", flush=True)
    os.execv(sys.executable, [*command, *flags])
