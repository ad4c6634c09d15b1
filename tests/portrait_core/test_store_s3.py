"""The store on a real S3-speaking server, in a process of its own."""

from __future__ import annotations

import hashlib
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zarr

from portrait_core.errors import MissingChunk
from portrait_core.store import Declared, Failure, Store

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


DECLARED = Declared(("frames",))


def test_everything_works_on_s3(endpoint: str, client: Any) -> None:
    store = Store("s3://bucket/run", {"key": "test", "secret": "test", "endpoint_url": endpoint})
    store.check_format(write=True)
    unit = store.unit("video", "a")
    output = unit.output("track", KEY)
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    frames[1] = 0
    output.ensure_array("frames", (8, 32, 32, 3), "uint8")
    assert not output.done(8).any()
    output.write("frames", 0, frames)
    output.commit(range(6))
    again = pickle.loads(pickle.dumps(store)).unit("video", "a").output("track", KEY)
    np.testing.assert_array_equal(again.read("frames", 0, 6), frames)
    assert again.done(8).tolist() == [True] * 6 + [False] * 2
    assert again.done(8, DECLARED).sum() == 6

    with pytest.raises(MissingChunk) as caught:
        again.read("frames", 4, 8)
    assert caught.value.frames == (6, 7)
    name = "run/video/a/track.00aa/frames/c.3.0.0.0"
    sound = client.get_object(Bucket="bucket", Key=name)["Body"].read()
    client.put_object(Bucket="bucket", Key=name, Body=sound[:50] + bytes([sound[50] ^ 4]) + sound[51:])
    with pytest.raises(MissingChunk) as caught:
        again.read("frames", 0, 6)
    assert caught.value.frames == (3,)

    output.uncommit([3, 7])
    assert again.done(8).tolist() == [True] * 3 + [False] + [True] * 2 + [False] * 2
    output.put_bytes("clip.mp4", b"x" * 100_000)
    output.put_bytes("clip.mp4", b"y" * 100_000)
    assert again.get_bytes("clip.mp4") == b"y" * 100_000
    assert again.get_bytes("none.mp4") is None
    output.write_note("info", {"count": 8})
    assert again.read_note("info") == {"count": 8}
    unit.record_failures([Failure("track", 6, "input", "no face")])
    unit.record_failures([Failure("track", 7, "transient", "connection lost")])
    assert sorted(store.failures("video")["frame"]) == [6, 7]
    assert store.units("video") == ["a"]
    assert [found.path for found in unit.outputs()] == [output.path]
    digest = hashlib.sha256(b"y" * 100_000).hexdigest()[:32]
    assert output.file_url("clip.mp4") == f"s3://bucket/run/video/a/track.00aa/files/clip.{digest}.mp4"
    for number in range(20):
        store.write_record("states", f"r{number}", number)
    assert store.read_records("states") == {f"r{number}": number for number in range(20)}


def test_packed_arrays_on_s3(endpoint: str, client: Any) -> None:
    """Read by range requests, one object and one marker, and by plain zarr."""
    options = {"key": "test", "secret": "test", "endpoint_url": endpoint}
    unit = Store("s3://bucket/packed", options).unit("video", "a")
    output = unit.output("track", KEY)
    frames = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    output.ensure_array("frames", frames.shape, "uint8")
    output.write("frames", 0, frames[:39])
    output.write_whole({"model": np.arange(10.0)})
    output.put_bytes("clip.mp4", b"x")
    output.describe({"steps": 1})
    output.commit(range(39))
    output.pack(DECLARED)
    digest = hashlib.sha256(b"x").hexdigest()[:32]
    listed = client.list_objects_v2(Bucket="bucket", Prefix="packed/")["Contents"]
    assert [entry["Key"].removeprefix("packed/video/a/track.00aa/") for entry in listed] == [
        "done/00000000-00000038",
        f"files/clip.{digest}.mp4",
        "frames/c/0/0/0/0",
        "frames/zarr.json",
        "model/c.0",
        "model/zarr.json",
        "zarr.json",
    ]
    for reader in (output, unit.output("track", KEY)):
        np.testing.assert_array_equal(reader.read("frames", 0, 39), frames[:39])
        np.testing.assert_array_equal(reader.read("frames", 30, 33), frames[30:33])
        with pytest.raises(MissingChunk) as caught:
            reader.read("frames", 38, 40)
        assert caught.value.frames == (39,)
    group = zarr.open_group("s3://bucket/packed/video/a/track.00aa", mode="r", storage_options=options)
    found = group["frames"]
    assert isinstance(found, zarr.Array)
    np.testing.assert_array_equal(found[30:40], [*frames[30:39], np.zeros_like(frames[0])])

    name = "packed/video/a/track.00aa/frames/c/0/0/0/0"
    sound = client.get_object(Bucket="bucket", Key=name)["Body"].read()
    client.put_object(Bucket="bucket", Key=name, Body=sound[:100_000])  # all after it is cut off
    with pytest.raises(MissingChunk) as caught:
        output.read("frames", 38, 39)
    assert caught.value.frames == (38,)
    client.put_object(Bucket="bucket", Key=name, Body=sound)
    output.write("frames", 39, frames[39:])
    output.commit([39])
    np.testing.assert_array_equal(unit.output("track", KEY).read("frames"), frames)
    assert output.contents().packed == set()


def test_a_bucket_that_does_not_exist_is_an_error_not_an_empty_store(endpoint: str) -> None:
    store = Store("s3://nowhere/run", {"key": "test", "secret": "test", "endpoint_url": endpoint})
    with pytest.raises(OSError, match="bucket does not exist"):
        store.unit("video", "a").write_label("clip")
