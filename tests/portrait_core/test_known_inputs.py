"""Inputs that are known are not read again; inputs that are others are found out before they are used."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from portrait_core.errors import InputError
from portrait_core.inputs import known as known_inputs
from portrait_core.inputs.known import InputFacts, gather_facts, verified_copy
from portrait_core.media import probe, read_image
from portrait_core.store import retries
from tests.portrait_core.website import Website, website

PAST = 1_600_000_000_123_456_789


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of files whose content is read, to hash it or to open it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.0)
    seen: list[str] = []
    for name in ("_read", "probe", "read_image"):
        whole = getattr(known_inputs, name)

        def noted(path: Path, whole: Any = whole) -> Any:
            seen.append(path.name)
            return whole(path)

        monkeypatch.setattr(known_inputs, name, noted)
    return seen


@pytest.fixture
def site() -> Iterator[Website]:
    with website() as served:
        yield served


@pytest.fixture
def face(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    Image.fromarray(np.full((70, 90, 3), 128, np.uint8)).save(path)
    os.utime(path, ns=(PAST, PAST))
    return path


def test_facts_tell_what_opening_tells(face: Path, counting_clip: Path) -> None:
    picture = gather_facts(str(face), "image")
    assert (picture.width, picture.height, picture.frame_count, picture.frame_rate) == (90, 70, 1, "")
    assert picture.sha256 == hashlib.sha256(face.read_bytes()).hexdigest()
    clip, info = gather_facts(str(counting_clip), "video"), probe(counting_clip)
    assert clip.sha256 == hashlib.sha256(counting_clip.read_bytes()).hexdigest()
    assert (clip.width, clip.height, clip.frame_count) == (info.width, info.height, info.frame_count)
    assert (clip.frame_rate, clip.has_audio) == ("30000/1001", True)
    for made in (picture, clip):
        assert InputFacts.model_validate(made.as_dict()) == made


def test_a_picture_that_lies_on_its_side_has_the_sides_that_are_shown(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (90, 70)).save(tmp_path / "turned.jpg", exif=tags)
    found = gather_facts(str(tmp_path / "turned.jpg"), "image")
    assert (found.width, found.height) == (70, 90)


def test_a_known_file_is_not_read_again(
    face: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = gather_facts(str(face), "image").as_dict()
    reads.clear()
    monkeypatch.chdir(face.parent)
    for place in (str(face), "face.png", f"file://{face}"):
        assert gather_facts(place, "image", known).as_dict() == known
    assert reads == []


def test_facts_that_no_file_within_the_limits_has_are_not_believed(counting_clip: Path, face: Path) -> None:
    clip, picture = gather_facts(str(counting_clip), "video"), gather_facts(str(face), "image")
    for found, said in (
        (clip, {"frame_count": 10**11}), (clip, {"width": 10**5, "height": 10**5}),
        (picture, {"width": 10**5, "height": 10**5}),
    ):  # fmt: skip
        place = str(face if found is picture else counting_clip)
        assert gather_facts(place, found.kind, found.as_dict() | said) == found


def test_a_file_that_changed_is_read_again(face: Path, reads: list[str]) -> None:
    known = gather_facts(str(face), "image")
    face.write_bytes(face.read_bytes()[:-1] + b"x")  # the same size
    os.utime(face, ns=(PAST + 1, PAST + 1))
    again = gather_facts(str(face), "image", known.as_dict())
    assert again.size == known.size
    assert again.sha256 != known.sha256
    os.utime(face, ns=(PAST, PAST))
    os.link(face, face.with_name("second"))
    other = face.with_name("other")
    other.write_bytes(b"y" * face.stat().st_size)
    os.utime(other, ns=(PAST, PAST))
    os.replace(other, face)  # size and time as they were
    with pytest.raises(InputError, match="not a readable image"):
        gather_facts(str(face), "image", known.as_dict())


def test_a_file_that_was_written_just_now_is_not_believed(face: Path) -> None:
    os.utime(face)
    assert gather_facts(str(face), "image").version == ""
    os.utime(face, ns=(PAST, PAST))
    assert gather_facts(str(face), "image").version


def test_facts_of_another_kind_or_place_are_not_believed(
    face: Path, reads: list[str], tmp_path: Path
) -> None:
    known = gather_facts(str(face), "image").as_dict()
    os.link(face, tmp_path / "again.png")  # the same size, time and inode
    reads.clear()
    assert gather_facts(str(tmp_path / "again.png"), "image", known).url.endswith("again.png")
    assert reads
    assert gather_facts(str(face), "video", known).kind == "video"


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "x"}, {"sha256": None}, {"width": 0}, {"width": "90"}, {"size": -1}, {"layout": 1},
        {"frame_rate": "1/0"}, {"frame_rate": "25"}, {"more": 1}, {"version": ""}, {"version": ["x"]},
        {"kind": "video"}, {"url_sha256": "0" * 64}, {"frame_count": 0}, {7: 7},
    ],
)  # fmt: skip
def test_garbage_counts_as_nothing(face: Path, reads: list[str], change: dict[Any, Any]) -> None:
    known = gather_facts(str(face), "image").as_dict()
    reads.clear()
    assert gather_facts(str(face), "image", known | change).as_dict() == known
    assert reads


@pytest.mark.parametrize("known", [None, {}, [], "x", 5, {"kind": {"kind": {}}}])
def test_garbage_of_any_type_counts_as_nothing(face: Path, reads: list[str], known: Any) -> None:
    assert gather_facts(str(face), "image", known).width == 90
    assert reads


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_a_known_url_costs_one_look(site: Website, face: Path, reads: list[str], header: str) -> None:
    site.files["/face.png"] = face.read_bytes()
    site.headers = {header: '"one"'}
    url = f"http://me:word1@{site.address}/face.png?sig=word2"
    known = gather_facts(url, "image").as_dict()
    assert site.count("GET") == 1
    assert known["version"] == '"one"'
    assert "word" not in str(known), "what is kept shows no secrets"
    site.asked.clear()
    reads.clear()
    assert gather_facts(url, "image", known).as_dict() == known
    assert (site.asked, reads) == (["HEAD /face.png?sig=word2"], [])
    site.headers = {header: '"two"'}
    assert gather_facts(url, "image", known).version == '"two"'
    assert site.count("GET") == 1


def test_a_server_that_tells_no_version_is_never_believed(
    site: Website, face: Path, reads: list[str]
) -> None:
    site.files["/face.png"] = face.read_bytes()
    url = f"http://{site.address}/face.png"
    known = gather_facts(url, "image").as_dict()
    assert known["version"] == ""
    reads.clear()
    assert gather_facts(url, "image", known).as_dict() == known
    assert reads


def test_what_is_replaced_while_it_is_read_is_read_again(
    site: Website, face: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/face.png"], site.headers = face.read_bytes(), {"ETag": "one"}

    def replaced(path: Path) -> Any:
        site.headers = {"ETag": "two"}
        return read_image(path)

    monkeypatch.setattr(known_inputs, "read_image", replaced)
    assert gather_facts(f"http://{site.address}/face.png", "image").version == "two"


def test_what_cannot_be_used_is_named_by_its_url(site: Website, reads: list[str], tmp_path: Path) -> None:
    site.files["/face.png"] = b"no picture"
    with pytest.raises(InputError, match=rf"^http://{site.address}/face.png is not a readable image"):
        gather_facts(f"http://{site.address}/face.png", "image")
    with pytest.raises(InputError, match=r"none.png does not exist"):
        gather_facts(str(tmp_path / "none.png"), "image")


# Comparing before reading


def test_a_file_is_used_only_if_it_is_the_job_s(face: Path, reads: list[str]) -> None:
    digest = gather_facts(str(face), "image").sha256
    assert verified_copy(str(face), digest) == face
    secret = face.with_name("secret.png")
    secret.write_bytes(b"a file of the user's own, which a stranger's job names")
    own = hashlib.sha256(secret.read_bytes()).hexdigest()
    with pytest.raises(
        InputError, match=r"secret\.png is not the file that this job was made from"
    ) as caught:
        verified_copy(str(secret), digest)
    assert own not in str(caught.value), "the message may be kept in a stranger's store"
    assert "give the command again" in str(caught.value)
    with pytest.raises(InputError, match="does not exist"):
        verified_copy(str(face.with_name("none.png")), digest)


def test_a_process_hashes_a_file_once_while_it_stays(face: Path, reads: list[str]) -> None:
    digest = hashlib.sha256(face.read_bytes()).hexdigest()
    for _ in range(3):
        verified_copy(str(face), digest)
    assert reads == ["face.png"]
    face.write_bytes(b"x" * face.stat().st_size)
    os.utime(face, ns=(PAST + 1, PAST + 1))
    with pytest.raises(InputError, match="its content is another"):
        verified_copy(str(face), digest)
    assert len(reads) == 2


def test_a_file_that_changes_again_at_once_is_found_out(face: Path, reads: list[str]) -> None:
    digest = hashlib.sha256(face.read_bytes()).hexdigest()
    later = time.time_ns() + 10**12
    os.utime(face, ns=(later, later))
    assert verified_copy(str(face), digest) == face
    face.write_bytes(b"x" * face.stat().st_size)
    os.utime(face, ns=(later, later))  # as one step of the clock later
    with pytest.raises(InputError, match="its content is another"):
        verified_copy(str(face), digest)


def test_a_url_whose_content_changed_is_found_out(site: Website, face: Path, reads: list[str]) -> None:
    site.files["/face.png"], site.headers = face.read_bytes(), {"ETag": "one"}
    url = f"http://{site.address}/face.png?sig=word"
    digest = gather_facts(url, "image").sha256
    assert verified_copy(url, digest).read_bytes() == face.read_bytes()
    site.files["/face.png"], site.headers = b"another", {"ETag": "two"}
    with pytest.raises(InputError, match=r"face\.png\?\*\*\* is not the file"):
        verified_copy(url, digest)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (str(tmp_path / "pipe"), "/dev/zero", str(tmp_path)):
        with pytest.raises(InputError):
            verified_copy(place, "0" * 64)
        with pytest.raises(InputError):
            gather_facts(place, "video")
