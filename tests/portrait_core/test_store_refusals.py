"""Stores that refuse, are missing or do not answer: a failure of a kind of its own, and no empty store."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from portrait_core.errors import StoreError
from portrait_core.pipeline.classification import classify, is_worth_retrying
from portrait_core.store import Store, retries
from portrait_core.store.files import Files

pytest.importorskip("moto", reason="needs the development dependencies (moto)")
SECRETS = {"key": "test", "secret": "test"}
DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message></Error>"
)


class Bouncer:
    """A server that speaks S3 and says 403 to some methods of HTTP."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.refused: set[str] = set()

    def __call__(self, request: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if request["REQUEST_METHOD"] not in self.refused:
            return self._inner(request, start_response)
        request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))]
        start_response("403 Forbidden", headers)
        return [b"" if request["REQUEST_METHOD"] == "HEAD" else DENIED]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Bouncer, str]]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    bouncer = Bouncer(DomainDispatcherApplication(create_backend_app))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, bouncer, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield bouncer, f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def bouncer(served: tuple[Bouncer, str]) -> Iterator[Bouncer]:
    served[0].refused.clear()
    yield served[0]
    served[0].refused.clear()


@pytest.fixture
def bucket(served: tuple[Bouncer, str], bouncer: Bouncer) -> Files:
    """A folder of a bucket that exists, with one object."""
    boto3 = pytest.importorskip("boto3", reason="needs the development dependencies (boto3)")
    secrets = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=served[1], **secrets).create_bucket(Bucket="bucket")
    files = Files("s3://bucket/run", {**SECRETS, "endpoint_url": served[1]})
    files.put({"video/a/one": b"1"})
    return files


OPERATIONS: dict[str, Callable[[Files], object]] = {
    "put": lambda files: files.put({"video/a/one": b"2"}),
    "put many": lambda files: files.put({"video/a/one": b"2", "video/a/two": b"2"}),
    "get": lambda files: files.get_one("video/a/one"),
    "get many": lambda files: files.get(["video/a/one", "video/a/two"]),
    "list": lambda files: files.list("video"),
    "list root": lambda files: files.list(""),
    "sizes": lambda files: files.sizes("video"),
    "delete": lambda files: files.delete(["video/a/one"]),
    "delete folder": lambda files: files.delete_folder("video/a"),
}


def _failure(files: Files, operation: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        OPERATIONS[operation](files)
    assert classify(caught.value) == "store"
    assert not is_worth_retrying(caught.value)
    return caught.value


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_bucket_that_does_not_exist_is_no_empty_store(
    served: tuple[Bouncer, str], bouncer: Bouncer, operation: str
) -> None:
    error = _failure(Files("s3://nosuch/run", {**SECRETS, "endpoint_url": served[1]}), operation)
    assert "the store s3://nosuch/run: its bucket does not exist" in str(error)
    assert "check the bucket's name, or make it" in str(error)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_store_that_refuses_says_so(bouncer: Bouncer, bucket: Files, operation: str) -> None:
    bouncer.refused = {"GET", "PUT", "DELETE", "HEAD", "POST"}
    error = _failure(bucket, operation)
    assert "the store s3://bucket/run: it refuses access (" in str(error)
    assert error.errno == errno.EACCES


def test_what_is_absent_in_a_bucket_is_no_failure(bucket: Files) -> None:
    assert bucket.get(["video/a/none", "video/a/one"]) == {"video/a/one": b"1"}
    assert bucket.list("nothing/here") == []
    assert bucket.sizes("nothing/here") == {}
    bucket.delete(["video/a/none"])
    bucket.delete_folder("nothing/here")


def test_reading_goes_on_where_only_writing_is_refused(bouncer: Bouncer, bucket: Files) -> None:
    bouncer.refused = {"PUT"}
    assert bucket.get_one("video/a/one") == b"1"
    _failure(bucket, "put")


def test_status_of_a_bucket_that_does_not_exist(
    served: tuple[Bouncer, str], bouncer: Bouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    for name, value in (
        ("AWS_ENDPOINT_URL", served[1]),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # connections that were made without this server's address
    try:
        ended = CliRunner().invoke(app, ["status", "s3://nosuch/run"])
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
    said = " ".join(ended.output.split())
    assert ended.exit_code == 1, said
    assert "its bucket does not exist" in said
    assert "holds no reenactment" not in said


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.3)
    monkeypatch.setattr(retries, "_MAX_WAIT_S", 0.05)
    monkeypatch.setattr(retries, "UPLOAD_S", 0.2)
    monkeypatch.setattr(retries, "_NOTEWORTHY_S", 0.0)
    monkeypatch.setattr(retries, "_warned_at", {})


@pytest.mark.parametrize("operation", ["put", "get", "list"])
def test_a_store_that_does_not_answer_is_given_up(silent: str, little_patience: None, operation: str) -> None:
    config = {"read_timeout": 0.1, "connect_timeout": 0.1, "retries": {"total_max_attempts": 1}}
    files = Files("s3://bucket/run", {**SECRETS, "endpoint_url": silent, "config_kwargs": config})
    error = _failure(files, operation)
    assert "did not do what was asked within" in str(error)
    assert "check the network, the endpoint and the server" in str(error)


def test_one_warning_per_store_and_process(
    little_patience: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every unit that is opened makes its own ``Patience``."""

    def failing() -> None:
        raise TimeoutError("late")

    with caplog.at_level(logging.WARNING, logger=retries.__name__):
        for place in ("one", "one", "one", "two", "two"):
            with pytest.raises(TimeoutError):
                retries.Retrier(f"s3://key:hidden@{place}/run").call(failing)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split()[2] for line in said] == ["s3://***@one/run", "s3://***@two/run"]
    assert "hidden" not in str(said)


# Disks


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_root_below_a_file_is_no_empty_store(tmp_path: Path, operation: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    error = _failure(Files(tmp_path / "file" / "store"), operation)
    assert f"the store {tmp_path}/file/store: a file, a folder or a broken link is in the way" in str(error)
    assert error.errno == errno.ENOTDIR


@pytest.mark.parametrize("operation", ["put", "get", "list"])
@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_a_root_that_is_no_folder_is_no_empty_store(tmp_path: Path, operation: str, kind: str) -> None:
    place = tmp_path / "store"
    if kind == "file":
        place.write_bytes(b"x")
    else:
        place.symlink_to(tmp_path / "unmounted")
    assert "is in the way" in str(_failure(Files(place), operation))


@pytest.mark.parametrize("operation", ["put", "get", "list"])
def test_a_store_that_is_not_there_yet_is_empty(tmp_path: Path, operation: str) -> None:
    assert not OPERATIONS[operation](Files(tmp_path / "not" / "yet"))


class FailingDisk:
    """A function of ``os`` that fails for paths of a store, so many times."""

    def __init__(self, real: Callable[..., Any], number: int, times: int) -> None:
        self._real, self._number, self.left = real, number, times

    def __call__(self, path: Any, *more: Any, **named: Any) -> Any:
        if "/store/" in str(path) and self.left > 0:
            self.left -= 1
            raise OSError(self._number, os.strerror(self._number), str(path))
        return self._real(path, *more, **named)


WAYS = {"put": "replace", "get": "open", "list": "listdir"}


@pytest.mark.parametrize("operation", WAYS)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EROFS])
def test_a_disk_that_fails_is_the_stores_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_patience: None, operation: str, number: int
) -> None:
    files = Files(tmp_path / "store")
    files.put({"video/a/one": b"1"})
    monkeypatch.setattr(os, WAYS[operation], FailingDisk(getattr(os, WAYS[operation]), number, 10**6))
    error = _failure(files, operation)
    assert error.errno == number
    assert os.strerror(number) in str(error)


@pytest.mark.parametrize("operation", WAYS)
def test_a_stale_handle_that_passes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(retries, "_MAX_WAIT_S", 0.01)
    files = Files(tmp_path / "store")
    files.put({"video/a/one": b"1"})
    failing = FailingDisk(getattr(os, WAYS[operation]), errno.ESTALE, 2)
    monkeypatch.setattr(os, WAYS[operation], failing)
    OPERATIONS[operation](files)
    assert failing.left == 0


def test_a_full_disk_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path / "store")
    monkeypatch.setattr(os, "replace", FailingDisk(os.replace, errno.ENOSPC, 1))
    with pytest.raises(OSError, match="No space left") as caught:
        files.put({"video/a/one": b"1"})
    assert not isinstance(caught.value, StoreError)
    assert classify(caught.value) == "resource"
    assert list((tmp_path / "store").rglob("*.partial")) == []


def test_an_error_of_the_program_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Files("memory://store").put({"video/a/one": 3})  # type: ignore[dict-item]  # a wrong type on purpose


def test_failures_of_a_store_are_rows_that_retry_takes_up(tmp_path: Path) -> None:
    from flows.cli.store_commands import _classes
    from portrait_core.store import Failure

    unit = Store(tmp_path).unit("video", "a")
    unit.record_failures([Failure("track", None, "store", "it refuses access")])
    assert unit.failures()["cls"].tolist() == ["store"]
    assert "store" in _classes([])
    assert "input" not in _classes([])
