"""A small server that speaks as vLLM's does, with the stand-in's real model behind it; made to fail on purpose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch

from judge import Options, load_judgments
from judge.engines.packed.engine import PackedEngine
from judge.prompting.safe_tokenizer import JudgeTokenizer

Fault = Callable[[str, int], tuple[int, bytes] | None]
"""From a request's path and number to the answer that takes the place of the right one; None for the right one.

Of an answer with the status ``HALF`` only half comes; one with the status ``DRIP`` comes byte by byte, without end;
one with the status ``HANG`` does not come at all.
"""
HALF, DRIP, HANG = 0, 1, 2


Asked = Callable[..., Options]
"""Options of a run on a server: ``asked(url, run, **more)``."""


def scores(run: Path) -> np.ndarray:
    """The scores of a run."""
    return load_judgments(run)["score"].to_numpy()


def manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run."""
    return dict(json.loads((run / "manifest.json").read_text(encoding="utf-8")))


class Model:
    """What the server serves: the stand-in, as ``served`` says it is."""

    def __init__(self, folder: Path, **served: Any) -> None:
        self.model, self.tokenizer = PackedEngine.load(folder).model, JudgeTokenizer(folder)
        self.served = {"id": "tiny", "owned_by": "vllm", "root": str(folder), "max_model_len": 32768} | served

    status = 500
    """The answer to what it refuses."""

    content_type = "application/json"

    def refuses(self, body: Any) -> bool:
        """Whether something in a request makes the server fail."""
        return False

    def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
        """Status and body."""
        body = json.loads(text or "{}")
        if self.refuses(body):
            return self.status, b"{}"
        try:
            return 200, json.dumps(self.answer(path.partition("?")[0], body)).encode()
        except NotImplementedError:
            return 404, b'{"detail": "Not Found"}'

    def answer(self, path: str, body: Any) -> Any:
        if path == "/v1/models":
            return {"data": [self.served]}
        if path == "/tokenize":
            return {"tokens": list(self.tokenizer.encode(body["prompt"]))}
        if path == "/v1/completions":
            if body.get("return_token_ids"):
                return {"choices": [{"index": 0, "token_ids": self.write(body["prompt"][0], body["max_tokens"])}]}
            tokens = body["logprob_token_ids"]
            return {"choices": [self._choice(i, ids, tokens) for i, ids in enumerate(body["prompt"])][::-1]}
        if not path.startswith("/v1/chat"):
            raise NotImplementedError(path)
        ids = self.tokenizer.encode("\n\n".join([*(message["content"] for message in body["messages"]), ""]))
        if body.get("logprobs"):
            return {"choices": [self._listed(ids, body["top_logprobs"])]}
        text = self.tokenizer.text(self.write(ids, body.get("max_tokens") or body["max_completion_tokens"]))
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}

    @torch.inference_mode()
    def write(self, prompt: Any, max_tokens: int) -> list[int]:
        """The likeliest tokens after a prompt."""
        ids = torch.tensor([list(prompt)])
        return self.model.generate(ids, max_new_tokens=max_tokens, do_sample=False)[0, ids.shape[1] :].tolist()

    @torch.inference_mode()
    def _logprobs(self, ids: Any) -> torch.Tensor:
        return self.model(torch.tensor([list(ids)]), logits_to_keep=1).logits[0, -1].log_softmax(-1)

    def _choice(self, index: int, ids: Any, tokens: list[int]) -> Any:
        logprobs = self._logprobs(ids)
        top = {f"token_id:{token}": logprobs[token].item() for token in tokens}
        return {"index": index, "logprobs": {"top_logprobs": [top]}}

    def _listed(self, ids: Any, count: int) -> Any:
        found = self._logprobs(ids).topk(count)
        texts = [self.tokenizer.trusted.decode([token]) for token in found.indices.tolist()]
        listed = [self.spelt(t) | {"logprob": p} for t, p in zip(texts, found.values.tolist(), strict=True)]
        return {"index": 0, "logprobs": {"content": [{**listed[0], "top_logprobs": listed}]}}

    def spelt(self, text: str) -> dict[str, Any]:
        """How a token is written in an answer."""
        return {"token": text}


def is_longer(content: str, asked: Collection[str]) -> bool:
    """Whether a message is one that was asked before with more text, by which it is seen whether prompts are cut."""
    return any(content.startswith(f"{one}\n") for one in asked)


@contextmanager
def serving(model: Model, fault: Fault = lambda path, number: None, port: int = 0) -> Iterator[str]:
    """The address of a server while this lasts."""
    count = {"requests": 0}
    lock, gone = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else head and body of an answer come 40 ms apart

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if gone.is_set():  # a connection outlives the server that took it
                self.close_connection = True
                return
            with lock:
                count["requests"] += 1
                status, content = fault(self.path, count["requests"]) or model.respond(self.path, text)
            if status == HANG:
                gone.wait(20)
                self.close_connection = True
                return
            if status in (HALF, DRIP):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices')
                self.close_connection = True
                for _ in range(100 if status == DRIP else 0):
                    self.wfile.write(b" ")
                    time.sleep(0.1)
                return
            self.send_response(status)
            self.send_header("Content-Type", model.content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        gone.set()
        server.shutdown()
        server.server_close()
        thread.join()
