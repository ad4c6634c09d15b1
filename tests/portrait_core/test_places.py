"""Which places are read, and what of a URL is shown."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from portrait_core.dataset.manifest import check_manifest
from portrait_core.errors import InputError
from portrait_core.inputs.sources import inspect_file, inspect_files, local_copy, read_bytes
from portrait_core.inputs.table import ManifestError, Problem
from portrait_core.store import retries
from portrait_core.store.places import checked_place, local_path, redact_message, redact_place, resolve_place
from tests.portrait_core.website import Website, website

REFUSED = r"give a path, or one of file://, s3://|chains URLs|holds braces|holds control"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Website]:
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with website() as served:
        yield served


@pytest.mark.parametrize(
    "place",
    [
        "a.png", "/data/a{1}.png", "~/a b.png", "file:///data/a.png", "s3://bucket/a b#c.png", "s3a://bucket/a",
        "gs://bucket/a", "gcs://bucket/a", "az://box/a", "abfs://box/a", "abfss://box@account/a",
        "http://host/a?x=1", "https://user:word@host/a", "memory://a",
    ],
)  # fmt: skip
def test_these_places_are_read(place: str) -> None:
    assert checked_place(place) == place


@pytest.mark.parametrize("place", ["~\0/a.png", "/data/a\0.png", "~user\0", "https://host/a\0"])
def test_a_zero_character_is_refused_and_can_be_named(place: str) -> None:
    with pytest.raises(InputError, match="holds a zero character"):
        checked_place(place)
    assert resolve_place("/data", place)
    assert redact_place(place)


@pytest.mark.parametrize(
    "place",
    [
        "reference://a::http://host/refs.json", "zip://a.png::http://host/a.zip", "ftp://host/a",
        "simplecache::https://host/a", "filecache::s3://bucket/a", "github://owner:repo@main/a", "tar://a",
        "webhdfs://host/a", "sftp://host/a", "smb://host/a", "local:///etc/passwd", "data:text/plain,a",
        "dask://a", "jupyter://host/a", "S3://bucket/a", "http://host/{{env}}/a", "s3://bucket/{a}",
        "https://host/a\n", "/data/a::b.png", "nosuch://a", "c://a",
    ],
)  # fmt: skip
def test_other_places_are_refused_by_everything_that_reads(place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=REFUSED):
        checked_place(place)
    for read in (lambda: read_bytes(place, "manifest"), lambda: local_copy(place, tmp_path)):
        with pytest.raises(InputError, match=REFUSED):
            read()
    with pytest.raises(InputError, match=REFUSED):
        inspect_file(place)
    assert inspect_files([place])[place].problem


def test_a_file_here_whose_name_is_a_chain_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "a::b.png").write_bytes(b"x")
    place = str(tmp_path / "a::b.png")
    assert "under another name" in inspect_files([place])[place].problem
    with pytest.raises(InputError, match="under another name"):
        local_copy(place)


def test_a_chained_url_in_a_manifest_is_a_problem_of_its_row_and_asks_nobody(
    site: Website, tmp_path: Path
) -> None:
    site.files["/refs.json"] = json.dumps({"version": 1, "templates": {"u": "x"}, "refs": {}}).encode()
    cells = ["reference://face.png::http://{}/refs.json", "zip://face.png::http://{}/refs.json"]
    rows = [f"{cell.format(site.address)},ftp://{site.address}/v.mp4,x,y" for cell in cells]
    (tmp_path / "m.csv").write_text("\n".join(["portrait,video,licence,consent", *rows]))
    for deep in (False, True):
        found, problems = check_manifest(str(tmp_path / "m.csv"), deep=deep)
        assert found.rows == ()
        assert sorted({problem.row for problem in problems}) == [2, 3]
    assert site.asked == []


@pytest.mark.parametrize(
    ("place", "means"),
    [
        ("/data/a?b@c.png", "/data/a?b@c.png"),
        ("file:///data/a?b.png", "file:///data/a?b.png"),
        ("s3://bucket/a@b.png", "s3://bucket/a@b.png"),
        ("https://host/a.png", "https://host/a.png"),
        ("https://me:pass@word@host:80/a.png", "https://***@host:80/a.png"),
        ("https://host/a.png?sig=a/b@c&x=2?3", "https://host/a.png?***"),
        ("https://token@host?key", "https://***@host?***"),
        ("cache::https://me:word@host/a?k=v", "cache::https://***@host/a?***"),
    ],
)
def test_secrets_of_urls_are_not_shown(place: str, means: str) -> None:
    assert redact_place(place) == means
    assert redact_place(means) == means
    assert (
        redact_message(f"cannot read '{place}', url={place}", place) == f"cannot read '{means}', url={means}"
    )


def test_messages_of_libraries_are_shown_without_secrets() -> None:
    said = "403, message='Forbidden', url='https://host/a%20b.png?sig=word'"
    assert "word" not in redact_message(said, "https://host/a b.png?sig=word")
    assert redact_message(said).startswith("403, message='Forbidden', url='https://host/a%20b.png?***'")


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_no_message_holds_a_password_or_a_signature(site: Website, tmp_path: Path, status: int) -> None:
    site.status = status
    if status != 404:
        site.files = {"/a.png": b"no picture", "/v.mp4": b"no video", "/m.csv": b"no table"}
    portrait, video, table = (
        f"http://me:word1@{site.address}/{name}?X-Amz-Signature=word2" for name in ("a.png", "v.mp4", "m.csv")
    )
    said = []
    for read in (
        lambda: (local_copy(portrait), Path("none.png").read_bytes()),
        lambda: inspect_file(f"{portrait}{{"),
        lambda: (read_bytes(portrait, "manifest"), Path("none.png").read_bytes()),
        lambda: check_manifest(table),
    ):
        try:
            read()
        except (ValueError, OSError):
            said.append(traceback.format_exc())
    assert len(said) == 4
    (tmp_path / "m.csv").write_text(f"portrait,video,licence,consent\n{portrait},{video},x,y\n")
    problems = check_manifest(str(tmp_path / "m.csv"), deep=True)[1]
    assert len(problems) == 2
    assert all("/a.png?***" in problem.text or "/v.mp4?***" in problem.text for problem in problems)
    said += [str(problem) for problem in problems]
    assert not [text for text in said if "word1" in text or "word2" in text]
    assert site.asked, "the site was asked, with the signature"
    assert any("X-Amz-Signature=word2" in line for line in site.asked)


def test_the_manifest_s_own_url_is_shown_without_secrets() -> None:
    error = ManifestError("https://me:word@host/m.csv?sig=word", [Problem(2, "a"), Problem(3, "b")])
    assert str(error).startswith("https://***@host/m.csv?***: 2 problems")
    assert "word" not in str(ManifestError("https://me:word@host/m.csv?sig=word", [Problem(2, "a")]))


def test_a_home_folder_is_a_local_path() -> None:
    assert local_path("~/a.png") == Path(os.path.expanduser("~/a.png"))
