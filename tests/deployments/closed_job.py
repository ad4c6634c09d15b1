"""What a command in a Slurm job sees of its Dask cluster: ``closed_job.py FILE ... runner.address=X``."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
from distributed import Client
from distributed.security import Security

PAGES = ("/info/main/workers.html", "/json/counts.json", "/metrics")
"""Some of the pages that Dask's HTTP servers have by default."""


def _listening() -> Iterator[tuple[str, int]]:
    """Where the processes of the job listen."""
    job = psutil.Process().parent()
    assert job is not None
    for process in job.children(recursive=True):
        for one in process.net_connections("tcp"):
            if one.status == "LISTEN":
                yield one.laddr


def _status(url: str) -> int | None:
    """What an HTTP server answers; None where there is no HTTP."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def _without_certificate(host: str, port: int) -> str:
    """What a client without a certificate is told."""
    place = f"[{host}]" if ":" in host else host
    try:
        with Client(f"tcp://{place}:{port}", timeout=2, security=Security(require_encryption=False)):
            return "welcome"
    except OSError as error:
        return type(error).__name__


def main(file: str, *said: str) -> None:
    """Write what is found into ``file``."""
    found: dict[str, Any] = {"said": said, "others": [], "pages": []}
    with Client(said[-1].partition("=")[2], timeout=60) as client:
        client.wait_for_workers(1, timeout=60)
        found["folder"] = client.run(lambda dask_worker: dask_worker.local_directory).popitem()[1]
        for host, port in _listening():
            if _status(f"http://{host}:{port}/health") == 200:
                found["pages"] += [[host, _status(f"http://{host}:{port}{page}")] for page in PAGES]
            else:
                found["others"].append(_without_certificate(host, port))
    with open(file, "w") as stream:
        json.dump(found, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
