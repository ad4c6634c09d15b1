"""What a builder of images is sent: Docker Compose's own choice among the files, by ``.dockerignore``."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.deployments.files import compose_tool, run

COMPOSE = (
    "services:\n  it:\n    build: {{context: {context}, dockerfile: deployments/images/cpu.Dockerfile}}\n"
)


class _Daemon(BaseHTTPRequestHandler):
    """As much of a Docker daemon as it takes to be sent a build: it keeps that, and builds nothing."""

    protocol_version = "HTTP/1.1"
    contexts: list[bytes]

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Api-Version", "1.43")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_GET(self) -> None:
        self._answer(
            200, b"OK" if self.path.endswith("_ping") else b'{"ApiVersion": "1.43", "OSType": "linux"}'
        )

    def do_POST(self) -> None:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        self.contexts.append(b"".join(parts))
        self._answer(500, b'{"message": "no image is built here"}')

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _daemon() -> Iterator[tuple[str, list[bytes]]]:
    """Address of a daemon, and the contexts that it is sent."""
    contexts: list[bytes] = []
    handler = type("Daemon", (_Daemon,), {"contexts": contexts})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{server.server_port}", contexts
    finally:
        server.shutdown()
        server.server_close()


@cache
def sent(folder: Path) -> dict[str, bytes]:
    """Names and contents of the files that ``docker compose build`` sends of a checkout."""
    with tempfile.TemporaryDirectory() as home, _daemon() as (address, contexts):
        file = Path(home) / "compose.yaml"
        file.write_text(COMPOSE.format(context=folder))
        known = {"PATH": os.environ["PATH"], "HOME": home, "DOCKER_HOST": address, "DOCKER_BUILDKIT": "0"}
        done = run(compose_tool(), "--file", file, "build", "it", **known)
    assert len(contexts) == 1, done.stderr
    with tarfile.open(fileobj=io.BytesIO(contexts[0])) as archive:
        members = [(member.name, archive.extractfile(member)) for member in archive if member.isfile()]
        return {name: content.read() for name, content in members if content is not None}
