"""The store on an S3-speaking server that refuses a share of the requests, or stops for a while."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from portrait_core.errors import MissingChunk
from portrait_core.store import Declared, Failure, Store, Unit, retries
from portrait_core.store.retries import Retrier, is_transient

pytest.importorskip("moto", reason="needs the development dependencies (moto)")
KEY = "00aa"
SERVER = """
import random, sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

moto, draw, refused = DomainDispatcherApplication(create_backend_app), random.Random(0), float(sys.argv[2])

def application(environ, start_response):
    if draw.random() < refused:
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return [b""]
    return moto(environ, start_response)

run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True)
"""
Server = tuple[subprocess.Popen[bytes], str]


@pytest.fixture
def serve() -> Iterator[Callable[[float], Server]]:
    """``serve(share)`` starts a server that refuses a share of the requests; gives it and its address."""
    started: list[subprocess.Popen[bytes]] = []

    def run(refused: float) -> Server:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-c", SERVER, str(port), str(refused)]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        return started[-1], f"http://127.0.0.1:{port}"

    yield run
    for server in started:
        server.kill()
        server.wait()


def _unit(endpoint: str, **config: Any) -> Unit:
    boto3 = pytest.importorskip("boto3", reason="needs the development dependencies (boto3)")
    secrets = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **secrets).create_bucket(Bucket="bucket")
    options = {"key": "test", "secret": "test", "endpoint_url": endpoint, "config_kwargs": config}
    return Store("s3://bucket/run", options).unit("video", "a")


def _work(unit: Unit) -> None:
    """Everything a stage does, with checks."""
    output, declared = unit.output("invert", KEY), Declared(("latents",))
    values = np.arange(30, dtype=np.float32).reshape(6, 5)
    output.ensure_array("latents", (8, 5), "float32")
    output.write("latents", 0, values)
    output.commit(range(6))
    np.testing.assert_array_equal(output.read("latents", 0, 6), values)
    with pytest.raises(MissingChunk) as caught:
        output.read("latents", 4, 8)
    assert caught.value.frames == (6, 7)
    output.uncommit(range(3))
    assert output.done(6, declared).tolist() == [False] * 3 + [True] * 3
    output.pack(declared)
    assert output.contents().packed == {"latents"}
    np.testing.assert_array_equal(unit.output("invert", KEY).read("latents", 0, 6), values)
    output.put_bytes("clip.mp4", b"x" * 1000)
    assert output.get_bytes("clip.mp4") == b"x" * 1000
    unit.record_failures([Failure("invert", 7, "transient", "connection lost")])
    assert unit.failures()["frame"].tolist() == [7]
    output.drop_array("latents")
    contents = output.contents()
    assert (set(contents.files), set(contents.described), set(contents.done)) == (
        {"clip.mp4"},
        set(),
        {3, 4, 5},
    )
    output.drop()
    assert unit.outputs() == []


@pytest.mark.slow
@pytest.mark.each_change
def test_a_server_that_refuses_a_share_of_the_requests(serve: Callable[[float], Server]) -> None:
    _, endpoint = serve(0.2)
    _work(_unit(endpoint))


@pytest.mark.slow
def test_a_server_that_stops_for_a_while(
    serve: Callable[[float], Server], caplog: pytest.LogCaptureFixture
) -> None:
    server, endpoint = serve(0.0)
    unit = _unit(endpoint, read_timeout=1)  # so that the attempts made meanwhile fail
    unit.write_label("clip")
    server.send_signal(signal.SIGSTOP)
    resume = threading.Timer(4.0, server.send_signal, [signal.SIGCONT])
    resume.start()
    with caplog.at_level(logging.WARNING, logger=retries.__name__):
        _work(unit)
    resume.join()
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "does not answer" in line and "trying again" in line]) == 1


def _response(status: int) -> Any:
    return {"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}


PASSING = [
    TimeoutError(),
    ConnectionResetError(),
    OSError(errno.EBUSY, "SlowDown"),
    OSError(errno.EIO, "unknown"),
    ClientError(_response(503), "PutObject"),
    EndpointConnectionError(endpoint_url="http://localhost"),
    ReadTimeoutError(endpoint_url="http://localhost"),
    aiohttp.ServerDisconnectedError(),
]
LASTING = [
    FileNotFoundError("The specified bucket does not exist"),
    PermissionError(),
    OSError(errno.EINVAL, "InvalidBucketName"),
    NotImplementedError(),
    ValueError(),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_MAX_WAIT_S", 0.01)
    outcomes: list[Exception | None] = [error, error, None]

    def operation() -> str:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return "done"

    assert Retrier("s3://bucket").call(operation) == "done"
    assert outcomes == []


@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
def test_what_will_not_pass_is_raised_at_once(error: BaseException) -> None:
    assert not is_transient(error)
    calls = []

    def operation(item: int) -> None:
        calls.append(item)
        raise error

    with pytest.raises(type(error)):
        Retrier("s3://bucket").call_each(operation, [1])
    assert calls == [1]


def test_the_operations_own_error_comes_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.2)
    monkeypatch.setattr(retries, "_MAX_WAIT_S", 0.01)

    def operation(item: int) -> None:
        if item == 3:
            raise OSError(errno.EBUSY, "SlowDown")

    with pytest.raises(OSError, match="SlowDown"):
        Retrier("s3://bucket").call_each(operation, range(5))
