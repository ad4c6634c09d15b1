"""The store on a real S3-speaking server, in a process of its own."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from portrait_core.errors import MissingChunk
from portrait_core.store import Failure, Store

pytest.importorskip("moto", reason="needs the development dependencies (moto)")
boto3 = pytest.importorskip("boto3", reason="needs the development dependencies (boto3)")
KEY = "00aa"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def client(endpoint: str) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="bucket")
    return client


def test_everything_works_on_s3(endpoint: str, client: Any) -> None:
    store = Store("s3://bucket/run", {"key": "test", "secret": "test", "endpoint_url": endpoint})
    unit = store.unit("video", "a")
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    frames[1] = 0
    unit.ensure_array("frames", (8, 32, 32, 3), "uint8", KEY)
    assert not unit.done("track", KEY, 8).any()
    with unit.overwriting("track", range(6), KEY):
        unit.write("frames", 0, frames)
    again = pickle.loads(pickle.dumps(store)).unit("video", "a")
    np.testing.assert_array_equal(again.read("frames", 0, 6), frames)
    assert again.done("track", KEY, 8).tolist() == [True] * 6 + [False] * 2
    assert again.done("track", KEY, 8, arrays=["frames"]).sum() == 6

    with pytest.raises(MissingChunk) as caught:
        again.read("frames", 4, 8)
    assert caught.value.frames == (6, 7)
    name = "run/video/a/frames/c.3.0.0.0"
    sound = client.get_object(Bucket="bucket", Key=name)["Body"].read()
    client.put_object(Bucket="bucket", Key=name, Body=sound[:50] + bytes([sound[50] ^ 4]) + sound[51:])
    with pytest.raises(MissingChunk) as caught:
        again.read("frames", 0, 6)
    assert caught.value.frames == (3,)

    unit.uncommit("track", [3, 7])
    assert again.done("track", KEY, 8).tolist() == [True] * 3 + [False] + [True] * 2 + [False] * 2
    unit.put_bytes("clip.mp4", b"x" * 100_000)
    unit.put_bytes("clip.mp4", b"y" * 100_000)
    assert again.get_bytes("clip.mp4") == b"y" * 100_000
    assert again.get_bytes("none.mp4") is None
    unit.write_meta("info", {"count": 8})
    assert again.read_meta("info") == {"count": 8}
    unit.record_failures([Failure("track", 6, "input", "no face")])
    again.record_failures([Failure("track", 7, "transient", "connection lost")])
    assert sorted(store.failures("video")["frame"]) == [6, 7]
    assert store.units("video") == ["a"]
    assert unit.file_url("clip.mp4") == "s3://bucket/run/video/a/files/clip.mp4"


def test_a_bucket_that_does_not_exist_is_an_error_not_an_empty_store(endpoint: str) -> None:
    store = Store("s3://nowhere/run", {"key": "test", "secret": "test", "endpoint_url": endpoint})
    with pytest.raises(OSError, match="bucket does not exist"):
        store.unit("video", "a").write_meta("info", 1)
