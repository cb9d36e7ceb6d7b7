"""Which model a server serves, and how it lets itself be asked for levels.

``find`` asks a server what it is, takes the protocol that tells most (``PROTOCOLS``) and asks for one level by it, so
that a wrong address, key or model shows before any dialogue is judged; ``connect`` adds the tokenizer. How a model is
asked is in ``judge.engines.server_protocols``, scoring by it in ``judge.engines.server``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from judge.engines import PATIENCE_S
from judge.engines.connections import API_KEY, connecting, is_here, through
from judge.engines.decision_protocols import OpenAIDecisions, SystemOne
from judge.engines.llama_cpp import SAMPLE, LlamaCpp, LlamaCppTokenizer
from judge.engines.message_protocols import Chat, Completions
from judge.engines.server_protocols import (
    ABSENT,
    REFUSED,
    Ask,
    ByIds,
    HiddenError,
    PromptCut,
    Protocol,
    Request,
    Sglang,
    Vllm,
    answer_of,
    answered,
    said,
)
from judge.errors import EngineError, InputError, JudgeError, discreet, one_line, plain
from judge.models.checkpoint import TOKENIZER_FILES, Checkpoint, resolve
from judge.models.hardware import Hardware
from judge.models.presets import PRESETS
from judge.prompting.chat_tokenizer import Tokenizer
from judge.prompting.message_tokenizer import TextTokenizer

TIMEOUT = httpx.Timeout(300.0, connect=10.0)
"""The most seconds for an answer, and for a connection."""


LONGEST_NAME = 150
"""The most characters of a model's name, which is in every row and in the name of the run's folder."""


NOT_READY = (502, 503, 504)
"""HTTP status codes of a server that loads its model, or of a proxy before one that is away."""


SERVER_FAULT = 500
"""From here on, HTTP status codes are of a server that failed and not of a wrong request."""


UNBOUNDED = 2**31
"""The tokens of the longest prompt, where a server does not say: it refuses what is too long."""


UNVERIFIED = "unverified:"
"""The beginning of a judge id that rests on what a server says, as its weights cannot be hashed."""


PROTOCOLS: dict[str, type[Protocol]] = {
    kind.name: kind for kind in (Vllm, LlamaCpp, Sglang, Chat, Completions, SystemOne, OpenAIDecisions)
}
"""How servers are asked, by the names of ``--protocol``."""


@dataclass(frozen=True)
class Served:
    """A model on a server; it has the attributes that ``Judge`` takes from a ``Checkpoint``.

    ``root`` is where the server says that the model is from. ``probe`` is a request of ours that it has answered.
    ``max_tokens`` is the length of the longest prompt, and ``slots`` the requests that the server works on at once,
    where it says so. ``checkpoint`` has the tokenizer on this machine, for a server that takes token ids and not text
    of which it makes them.
    """

    url: str
    model: str
    root: str
    protocol: Protocol
    probe: Request[Any] = field(compare=False)
    max_tokens: int
    slots: int | None
    checkpoint: Checkpoint | None = None
    patience: float = PATIENCE_S

    @property
    def name(self) -> str:
        """The name that its judgments carry."""
        if self.checkpoint:
            return self.checkpoint.name
        return short_name(self.model)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into the ids of its prompts."""
        if self.checkpoint:
            return self.checkpoint.tokenizer
        if isinstance(self.protocol, LlamaCpp):
            return LlamaCppTokenizer(self.protocol, self.url, self.patience)
        return TextTokenizer()

    @property
    def weights_digest(self) -> str:
        """The model's name as the server gives it, which is all that is known of the weights."""
        return f"{UNVERIFIED}{self.model}"

    config_digest = "unverified"
    quantisation = vocabulary = None

    def dtype(self, hardware: Hardware) -> str:
        """Not known of a server."""
        return "unverified"


def connect(url: str, judge: str = "auto", protocol: str = "auto", patience: float = PATIENCE_S) -> Served:
    """Find the model of a server, with the tokenizer of its prompts.

    Args:
        url, judge, protocol: as for ``find``; ``judge`` may also name the files of the server's model here.
        patience: seconds during which a server that is away is asked again, once it has answered.

    Raises:
        InputError, EngineError: as ``find``; or the tokenizer of its model is not to be had here, or is another.
    """
    served = replace(find(url, judge, protocol), patience=patience)
    asked = served.protocol
    if not isinstance(asked, ByIds) or isinstance(asked, LlamaCpp):
        return served
    served = replace(served, checkpoint=_checkpoint(served, judge))
    with asking(served.url) as client:
        # Ids of another tokenizer would be read as other words, and nothing would fail: so the two are compared.
        theirs = tuple(answered(_asker(client, served.url), asked.tokens_of(SAMPLE)))
    if theirs != served.tokenizer.encode(SAMPLE):
        raise InputError(f"{served.url} serves another model than {served.name}: its tokens differ; check --judge")
    return served


def find(url: str, judge: str = "auto", protocol: str = "auto") -> Served:
    """Ask a server what it serves, and for one level.

    Args:
        url: the server's address, with or without ``/v1``.
        judge: the model wanted, by the server's name for it or as for ``resolve``; ``auto`` for the only one.
        protocol: a name of ``PROTOCOLS``; ``auto`` for the one that tells most of those that the server knows.

    Raises:
        InputError: the address, the key, the model or the protocol is wrong, or the server gives no probabilities.
        EngineError: there is no server.
    """
    if protocol not in ("auto", *PROTOCOLS):
        known = ", ".join(("auto", *PROTOCOLS))
        raise InputError(f"--protocol {protocol}: unknown protocol; choose one of {known}")
    url = address(url)
    with asking(url) as client:
        found = _chosen(client, url, judge)
        names = _candidates(client, url, found) if protocol == "auto" else [protocol]
        for name in names[:-1]:
            try:
                return _tried(client, url, found, PROTOCOLS[name])
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in ABSENT:
                    raise
        return _tried(client, url, found, PROTOCOLS[names[-1]])


def about(url: str, judge: str = "auto", protocol: str = "auto") -> dict[str, Any]:
    """What a server is and what it tells, in words; arguments and errors as those of ``find``."""
    served = find(url, judge, protocol)
    asked = served.protocol
    mass = "" if asked.knows_mass else "how much probability is on no level; "
    return {
        "url": served.url,
        "protocol": asked.name,
        "model": served.name,
        "exact": asked.exact,
        "not known": mass + asked.inexact,
        "longest prompt": f"{served.max_tokens:,} tokens" if served.max_tokens < UNBOUNDED else None,
        "requests at once": served.slots,
        **asked.report,
    }


def address(url: str, option: str = "--url", key: str = API_KEY) -> str:
    """An address without what our paths begin with; InputError where it is none or holds a secret.

    ``option`` is what gave it, and ``key`` the environment variable for the server's key, for messages.
    """
    url = url.strip()  # as it is read from a file, with the end of its line
    shown = url.rpartition("@")[2]
    if not url.isprintable() or " " in url:  # what takes an address apart would drop some of them in silence
        raise InputError(f"{option} {plain(shown)}: holds blanks or signs that no address has; write it anew")
    try:
        parts = urlsplit(url)
        _ = parts.port  # read for its error: a port that is no number is found only now
    except ValueError as error:
        raise InputError(f"{option} {shown}: no address ({error}); give one such as http://127.0.0.1:8000") from error
    if parts.username or parts.password or parts.query:
        raise InputError(f"{option}: must hold no name, key or query, since it is written down; put the key in {key}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{option} {shown}: no address of a server; give one such as http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _candidates(client: httpx.Client, url: str, found: dict[str, Any]) -> list[str]:
    """The protocols that a server may know, the one that tells most first."""
    owner, outputs = found.get("owned_by"), (found.get("architecture") or {}).get("output_modalities") or []
    if "decisions" in outputs:  # of a model that answers nothing else (llama.cpp)
        return [SystemOne.name]
    if owner == "vllm":
        return [Vllm.name, SystemOne.name]
    if owner == "llamacpp" or "total_slots" in facts(client, f"{url}/props"):
        return [LlamaCpp.name, Chat.name]
    if owner == "sglang" or "tokenizer_path" in facts(client, f"{url}/model_info"):
        return [Sglang.name, SystemOne.name]
    return [Chat.name, Completions.name, SystemOne.name, OpenAIDecisions.name]


def _tried(client: httpx.Client, url: str, found: dict[str, Any], kind: type[Protocol]) -> Served:
    """The model asked by a protocol; InputError where the server does not give probabilities by it."""
    try:
        protocol, probe = kind(found["id"]).tried(_asker(client, url))
    except InputError as error:
        remedy = f"; {_remedy(client, url)}" if issubclass(kind, Chat) else ""
        raise InputError(f"{url} {error}{remedy}") from error
    props = facts(client, f"{url}/props?model={found['id']}") if kind is LlamaCpp else {}
    longest = found.get("max_model_len") or (props.get("default_generation_settings") or {}).get("n_ctx")
    # One token less than the limit, which counts the answer too.
    limit = int(longest) - 1 if longest and protocol.takes_ids else UNBOUNDED
    root, slots = str(found.get("root") or found["id"]), props.get("total_slots")
    return Served(url, found["id"], root, protocol, probe, limit, slots)


def _asker(client: httpx.Client, url: str) -> Ask:
    """What sends a server a request."""
    return lambda request: client.post(f"{url}{request.path}", json=request.body)


def _remedy(client: httpx.Client, url: str) -> str:
    """What the people of a server that gives no log-probabilities can do, by what kind of server it is."""
    if version := facts(client, f"{url}/api/version").get("version"):
        return f"Ollama gives log-probabilities since 0.12.11, and this is {plain(str(version))}: update it"
    if "data" in facts(client, f"{url}/api/v0/models"):
        return "LM Studio's chat completions give none; serve the model's file by llama.cpp's server"
    return "turn log-probabilities on there, or serve the model by vLLM, SGLang or llama.cpp"


def facts(client: httpx.Client, address: str) -> dict[str, Any]:
    """The JSON object at an address; empty where there is none."""
    response = client.get(address)
    try:
        content = response.json() if response.is_success else {}
    except ValueError:
        content = {}
    return content if isinstance(content, dict) else {}


def same_model(answer: Any, name: str) -> bool:
    """Whether a server's list of models still has the one that is asked."""
    return any(isinstance(model, dict) and model.get("id") == name for model in listed_models(answer))


@contextmanager
def asking(
    url: str, key: str = API_KEY, remedy: str = "check --url and --judge", option: str = "--url"
) -> Iterator[httpx.Client]:
    """A client for a server; it obeys the environment's proxies, unless the server is on this machine.

    What goes wrong with the client or in the block becomes an InputError or EngineError of one line.

    Args:
        url: the server's address.
        key: the environment variable with its key.
        remedy: what to do where there is no such path, or no such model.
        option: what gave the address.
    """
    try:
        client = httpx.Client(**connecting(url, key), timeout=TIMEOUT)
    except InputError:  # of the key
        raise
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        reason = one_line(error)
        raise InputError(f"{url} cannot be asked ({reason}){through(url)}; correct or unset the proxy") from error
    try:
        with client:
            yield client
    except httpx.HTTPStatusError as error:
        raise _refusal(error.response, url, key, remedy, option) from error
    except httpx.HTTPError as error:
        raise EngineError(_unreachable(error, url, option)) from error
    except PromptCut as error:
        raise InputError(f"{url} {error}") from error
    except HiddenError as error:
        way = through(url)
        raise EngineError(f"{url} reports an error ({error}){way}; see to it there, then run it again") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{url} does not answer as an OpenAI-compatible server does{through(url)}; check {option}"
        ) from error


def _refusal(response: httpx.Response, url: str, key: str, remedy: str, option: str) -> JudgeError:
    """What is said where a server, or a proxy before it, answers by a status that is no answer."""
    code = response.status_code
    told = f"(HTTP {code}: {said(response)}){through(url)}"
    kind: type[JudgeError] = InputError
    if response.has_redirect_location:
        asked = response.request.url.path
        place = discreet(str(response.url.join(response.headers["location"])).partition("?")[0].removesuffix(asked))
        words = f"has moved to {place} (HTTP {code}){through(url)}; give that by {option}"
    elif code == 401:
        words = f"refuses the key {told}; set {key} to the server's key"
    elif code == 402:
        words = f"wants to be paid {told}; see to the account there, then run the same command again"
    elif code == 403:
        words = f"refuses access {told}; if it is for the key, set {key} to one that may ask the model"
    elif code == 429:
        kind, words = EngineError, f"takes no more requests {told}; run the same command again when it does"
    elif code in NOT_READY:
        kind, words = EngineError, f"is not ready {told}; run the same command again when it is"
    elif code >= SERVER_FAULT and code not in ABSENT:
        kind, words = EngineError, f"fails {told}; see its log for why, then run the same command again"
    elif code in REFUSED:
        words = f"finds fault with what it is asked {told}; see its log for more, or update it"
    else:
        words = f"answers HTTP {code} ({said(response)}){through(url)}; {remedy}"
    return kind(f"{url} {words}")


def _unreachable(error: httpx.HTTPError, url: str, option: str) -> str:
    """What is said where no answer came: what is in the way, and what to do about it."""
    reason, way = one_line(error) or type(error).__name__, through(url)
    is_unconnected = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    if isinstance(error, httpx.ProxyError) or (way and is_unconnected):
        return f"{url} cannot be reached ({reason}){way}; correct the proxy or {option}"
    if is_unconnected and ("SSL" in reason or "certificate" in reason.lower()):
        return (
            f"{url} gives no secure connection ({reason}); write http:// where it has none, or name the file of its "
            "certificate's authority by SSL_CERT_FILE"
        )
    if is_unconnected:
        start = "start one with `make serve`, or " if is_here(url) and option == "--url" else ""
        return f"no server at {url} ({reason}); {start}check {option}"
    if isinstance(error, httpx.TimeoutException):
        return f"{url} takes requests and does not answer ({reason}){way}; run the same command again when it does"
    return f"{url} breaks off its answers ({reason}){way}; check that {option} is the address of a server of models"


def listed_models(answer: Any) -> list[Any]:
    """The models in an answer of ``/v1/models``; none where it has another shape."""
    return list(answer["data"]) if isinstance(answer, dict) and isinstance(answer.get("data"), list) else []


def short_name(name: str) -> str:
    """A model's name without the folder, where a server calls it by its file."""
    return Path(name).name if Path(name).is_absolute() else name


def _chosen(client: httpx.Client, url: str, judge: str) -> dict[str, Any]:
    """The entry in the server's list of the model that is to be the judge; InputError where it is not clear which."""
    answer = answer_of(client.get(f"{url}/v1/models").raise_for_status())
    if not isinstance(answer, dict) or "data" not in answer:
        raise ValueError("no list of models")
    models = [{**model, "id": str(model["id"])} for model in listed_models(answer)]
    names = [short_name(model["id"]) for model in models]
    if any(name != plain(name) or not 0 < len(name) <= LONGEST_NAME for name in names):
        raise InputError(f"{url} serves a model with no name that can be written down; serve it under another")
    by_name = [model for model in models if judge in (model["id"], short_name(model["id"]), model.get("root"))]
    if by_name:
        return by_name[0]
    # The only model of such a server may be the judge under another name; comparing tokens shows whether it is.
    if len(models) == 1 and (judge == "auto" or models[0].get("owned_by") in (Vllm.name, Sglang.name)):
        return models[0]
    if not names:
        raise InputError(f"{url} serves no model; have it load one")
    raise InputError(f"--judge {judge}: {url} serves {', '.join(names)}; name one of them")


def _checkpoint(served: Served, judge: str) -> Checkpoint:
    """The checkpoint with the tokenizer of a server's model: the one the user names, or else the server."""
    wanted = served.root if judge in ("auto", served.model) else judge
    # Two names are no contradiction where one is a folder: it may hold what the other names.
    hub_ids = {PRESETS[name].repository if name in PRESETS else name for name in (wanted, served.root)}
    if len(hub_ids) == 2 and all("/" in name and not Path(name).exists() for name in hub_ids):
        raise InputError(
            f"--judge {judge}: the server has {served.root}, another model; start it with the judge you want"
        )
    try:
        here = resolve(wanted, TOKENIZER_FILES)
        return here if wanted == judge else replace(here, asked=served.name)
    except InputError as error:
        if wanted == judge:
            raise
        raise InputError(
            f"the tokenizer of the server's {served.root} is not here ({error}); name its folder or Hub id by --judge"
        ) from error
