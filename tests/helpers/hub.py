"""A small Hub on this machine, from which one model can be fetched."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40


@contextmanager
def hub_of(repository: str, folder: Path) -> Iterator[str]:
    """The address of a Hub that has the files of ``folder`` under the id ``repository``, for ``HF_ENDPOINT``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, repository=repository, folder=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for: one repository."""

    def __init__(self, *arguments: object, repository: str, folder: Path) -> None:
        self.repository = repository
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == f"/api/models/{self.repository}/revision/main":
            self.answer(json.dumps({"id": self.repository, "sha": COMMIT, "siblings": []}).encode())
        elif path == f"/api/models/{self.repository}/tree/{COMMIT}":
            tree = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in self.files.items()]
            self.answer(json.dumps(tree).encode())
        elif path.startswith(f"/{self.repository}/resolve/{COMMIT}/"):
            self.answer(self.files[path.rsplit("/", 1)[1]])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
        for name, value in (headers | {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""
