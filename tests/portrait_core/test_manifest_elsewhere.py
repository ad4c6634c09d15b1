"""Manifests and inputs that lie elsewhere: in memory, and on a real S3-speaking server."""
# ruff: noqa: F811 - pytest's fixtures are arguments of their own names

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from portrait_core.dataset.manifest import read_manifest
from portrait_core.inputs import copies
from portrait_core.inputs.sources import delete_unused_copies, local_copy
from portrait_core.inputs.table import write_table
from tests.portrait_core.test_manifest import HEADER, clips, folder, problems, told  # noqa: F401
from tests.portrait_core.test_store_s3 import endpoint  # noqa: F401

boto3 = pytest.importorskip("boto3", reason="needs the development dependencies (boto3)")


@pytest.fixture
def memory(folder: Path) -> Iterator[fsspec.AbstractFileSystem]:
    """The folder in memory, at ``memory://set``."""
    files = fsspec.filesystem("memory")
    files.put(f"{folder}/*.png", "/set/faces/")
    files.put(f"{folder}/*.mp4", "/set/")
    yield files
    files.rm("/set", recursive=True)


@pytest.mark.parametrize("room", [10**9, 0])
def test_a_manifest_and_its_inputs_may_be_elsewhere(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory.pipe_file("/set/m.csv", f"{HEADER}\nfaces/a.png,v.mp4,x,y\nfaces/b.png,w.mp4,x,y\n".encode())
    found = read_manifest("memory://set/m.csv", deep=True, cache_bytes=room)
    assert [row.portrait for row in found.rows] == ["memory://set/faces/a.png", "memory://set/faces/b.png"]
    assert found.frames == 14
    kept = list((tmp_path / "cache").rglob("*.png"))
    assert len(kept) == (2 if room else 0), "what does not fit on this disk is fetched, opened and deleted"


def test_bad_rows_elsewhere_are_told(memory: fsspec.AbstractFileSystem) -> None:
    rows = [f"faces/{name}.png,memory://set/{name}.mp4,x,y" for name in ("a", "text", "none")]
    memory.pipe_file("/set/m.csv", "\n".join([HEADER, *rows, "faces,nosuch://v.mp4,x,y"]).encode())
    memory.mv("/set/v.mp4", "/set/a.mp4")
    found = problems("memory://set/m.csv", deep=True)
    assert [row for row, _ in found] == [3, 3, 4, 4, 5, 5]
    assert found[0][1].startswith("the portrait memory://set/faces/text.png is not a readable image")
    assert found[3] == (4, "the video memory://set/none.mp4 does not exist; check the path")
    assert found[4][1] == "the portrait memory://set/faces is a folder; give the path of one file"
    assert "is no URL" in found[5][1]


def test_on_s3(endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"), ("XDG_CACHE_HOME", str(folder / "cache")),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="data")
    for name in ("a.png", "b.png", "small.png", "v.mp4"):
        client.put_object(Bucket="data", Key=f"set/{name}", Body=(folder / name).read_bytes())
    rows = [{"portrait": f"{p}.png", "video": "v.mp4", "licence": "x", "consent": "y"} for p in "ab"]
    write_table("s3://data/set/m.parquet", rows)
    found = read_manifest("s3://data/set/m.parquet", deep=True)
    assert (found.rows[1].portrait, found.frames) == ("s3://data/set/b.png", 10)
    url = found.rows[0].portrait
    first = local_copy(url)
    with monkeypatch.context() as patched:
        patched.setattr(copies, "_download", None)
        assert local_copy(url) == first, "nothing is fetched again"
    client.put_object(Bucket="data", Key="set/a.png", Body=(folder / "b.png").read_bytes()[::-1])
    assert local_copy(url).read_bytes() != first.read_bytes()
    write_table("s3://data/set/bad.csv", [*rows, {**rows[0], "portrait": "none.png"}])
    told("s3://data/set/bad.csv", 4, "s3://data/set/none.png does not exist")
    told("s3://nowhere/m.csv", 0, "does not exist")
    assert delete_unused_copies(0, folder / "cache" / "portrait-reenactment" / "inputs", spare_s=0) > 0
