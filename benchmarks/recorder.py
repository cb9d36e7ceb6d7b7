"""Keeps what was asked of the server, so that a peer's prompts can be counted as they are.

Middleware of the vLLM server: appends the body of each completion request, a line of JSON each, to the file named by
``ESRP_BENCH_RECORD``, and empties it when the prefix cache is emptied. Costs some microseconds a request.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


class Recorder:
    """ASGI middleware."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._file = open(os.environ["ESRP_BENCH_RECORD"], "ab", buffering=0)  # noqa: SIM115

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        """Pass everything on, and note what completion requests say."""
        path = scope.get("path", "")
        if path == "/reset_prefix_cache":
            self._file.truncate(0)
        if not path.endswith("/completions"):
            await self._app(scope, receive, send)
            return
        body = bytearray()

        async def noting() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            if message["type"] == "http.request" and not message.get("more_body"):
                self._file.write(bytes(body).replace(b"\n", b" ") + b"\n")
            return message

        await self._app(scope, noting, send)
