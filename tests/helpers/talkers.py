"""A scripted server of chat completions: it answers at once, keeps what it was asked, and fails as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from judge.types import digest

Script = Callable[[Any], tuple[int, Any] | str | None]
"""From a request's body to status and JSON of the answer, or the text of a reply; None for an ordinary reply."""


def choice(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """An answer of chat completions."""
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    said = {"role": "assistant", "content": text, **message}
    return {"choices": [{"index": 0, "message": said, "finish_reason": finish}], "usage": usage}


class Talker:
    """What ``tests.helpers.serving.serving`` serves; ``asked`` are the bodies of all requests but the trial's.

    ``prefix`` is what its paths begin with, ``models`` what it lists (None: it has no list).
    """

    content_type = "application/json"

    def __init__(
        self, script: Script = lambda body: None, prefix: str = "/v1", models: tuple[str, ...] | None = ("talker",)
    ) -> None:
        self.script, self.prefix, self.models = script, prefix, models
        self.asked: list[Any] = []
        self.lock = threading.Lock()

    def respond(self, path: str, text: bytes) -> tuple[int, bytes]:
        """Status and body."""
        if path == f"{self.prefix}/models" and self.models is not None:
            return 200, json.dumps({"data": [{"id": name} for name in self.models]}).encode()
        if path != f"{self.prefix}/chat/completions":
            return 404, b"{}"
        body = json.loads(text)
        if (body.get("max_tokens") or body.get("max_completion_tokens")) != 16:  # the trial's
            with self.lock:
                self.asked.append(body)
        found = self.script(body)
        if isinstance(found, tuple):
            return found[0], json.dumps(found[1]).encode()
        # A reply depends on all that is asked, so that equal replies show equal requests.
        return 200, json.dumps(choice(f"答{digest(body, 8)}" if found is None else found)).encode()
