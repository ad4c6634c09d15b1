"""A web server of this machine for tests: files with the headers of a test's choice, and what was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from portrait_core.runtime.addresses import use_private_hosts


@dataclass
class Website:
    """What it serves and what it heard.

    Attributes:
        address: ``127.0.0.1:PORT``.
        files: content by path (``/a.png``).
        headers: given with every file.
        status: of every answer for a file that is there.
        asked: method and path, with the query, of every request.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    asked: list[str] = field(default_factory=list)

    def count(self, method: str) -> int:
        """Requests by a method."""
        return sum(line.startswith(f"{method} ") for line in self.asked)


@contextmanager
def website(allowed: bool = True) -> Iterator[Website]:
    """Serve until the block ends; ``allowed`` says whether URLs may lead to it, as it is of this machine."""
    site = Website()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(f"{self.command} {self.path}")
            data = site.files.get(self.path.partition("?")[0])
            self.send_response(404 if data is None else site.status)
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data or b"")

        do_HEAD = do_GET  # noqa: N815 - the name that the standard library looks for

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        if allowed:
            use_private_hosts([site.address])
        yield site
    finally:
        use_private_hosts([])
        server.shutdown()
        server.server_close()
        thread.join()
