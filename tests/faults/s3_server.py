"""An S3-speaking server that is sometimes too busy: ``python -m tests.faults.s3_server PORT CONTROL LOG``.

CONTROL holds the share of requests that are answered with 503 SlowDown, as S3 does under load; each of them
leaves a line in LOG.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


def sometimes_busy(inner: Application, control: Path, log: Path, seed: int = 0) -> Application:
    """Answer a share of the requests with 503."""
    chance, lock = random.Random(seed), threading.Lock()

    def answer(request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with lock:
            fails = chance.random() < float(json.loads(control.read_text()))
            if fails:
                with log.open("a") as file:
                    file.write(json.dumps([request["REQUEST_METHOD"], request["PATH_INFO"]]) + "\n")
        if not fails:
            return inner(request, start_response)
        request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(_SLOW_DOWN)))]
        start_response("503 Slow Down", headers)
        return [_SLOW_DOWN] if request["REQUEST_METHOD"] != "HEAD" else []

    return answer


def main() -> None:
    """Serve until killed."""
    port, control, log = sys.argv[1:]
    inner = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", int(port), sometimes_busy(inner, Path(control), Path(log)), threaded=True)


if __name__ == "__main__":
    main()
