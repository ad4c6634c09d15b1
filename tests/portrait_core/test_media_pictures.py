"""Videos that are pictures: folders, patterns of files, animated WebP, GIF and APNG."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from portrait_core.errors import DecodeError, InputError
from portrait_core.inputs.known import gather_facts, local_digest, verified_copy
from portrait_core.media import probe, read_frames
from portrait_core.media.pictures import FileSequence, find_pictures
from portrait_core.settings import limits
from tests.conftest import FfmpegRunner


def _picture(number: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    return Image.new("RGB", size, (number * 8,) * 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, ``f1.png`` to ``f12.png``: picture i is grey ``8 i``; and other files."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(1, 13):
        _picture(number).save(frames / f"f{number}.png")
    (frames / "._f3.png").write_bytes(b"of a Mac")
    (frames / ".DS_Store").write_bytes(b"too")
    (frames / "notes.txt").write_text("not a picture")
    return frames


def _numbers(place: Path, *part: int) -> list[int]:
    return [int(frame.mean() / 8) for frame in read_frames(place, *part)]


def test_a_folder_and_its_patterns_are_videos_in_the_order_of_their_numbers(folder: Path) -> None:
    for place in (folder, folder / "*.png", folder / "f%d.png", folder / "f*"):
        info = probe(place)
        assert (info.width, info.height, info.frame_count, info.frame_rate) == (48, 32, 12, Fraction(25))
        assert _numbers(place) == list(range(1, 13))
        assert _numbers(place, 8, 11) == [9, 10, 11]
    assert _numbers(folder / "f1?.png") == [10, 11, 12]
    assert _numbers(folder / "f%02d.png") == [10, 11, 12]


def test_other_files_are_left_out_and_counted(folder: Path) -> None:
    for place, others in ((folder, 3), (folder / "*", 3), (folder / "f*.png", 0)):
        found = find_pictures(place)
        assert isinstance(found, FileSequence)
        assert (len(found.files), found.left_out) == (12, others)
    (folder / "IMG_0042.HEIC").write_bytes(b"x")
    (folder / "take.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match=r"is a folder without pictures of one video \(it holds .*1 .mp4"):
        probe(folder)


def test_pictures_of_another_size_are_refused_by_their_name(folder: Path) -> None:
    _picture(5, (48, 30)).save(folder / "f5.png")
    with pytest.raises(InputError, match=r"f5\.png is 48x30 pixels and f1\.png is 48x32.*of one size"):
        probe(folder)


def test_a_damaged_picture_is_held_and_reported(folder: Path) -> None:
    content = (folder / "f7.png").read_bytes()
    (folder / "f7.png").write_bytes(content[: len(content) // 2])
    frames = read_frames(folder)
    seen = [int(next(frames).mean() / 8) for _ in range(12)]
    assert seen == [1, 2, 3, 4, 5, 6, 6, 8, 9, 10, 11, 12]
    with pytest.raises(DecodeError) as told:
        next(frames)
    assert told.value.frames == (6,)


def test_absent_numbers_are_counted(folder: Path) -> None:
    (folder / "f4.png").unlink()
    (folder / "f9.png").unlink()
    found = find_pictures(folder)
    assert isinstance(found, FileSequence)
    assert found.missing == 2
    assert _numbers(folder) == [1, 2, 3, 5, 6, 7, 8, 10, 11, 12]


def test_a_folder_without_pictures_and_a_pattern_of_no_file_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder without pictures of one video.*frames/%04d"):
        probe(tmp_path)
    with pytest.raises(InputError, match="names no file"):
        probe(tmp_path / "*.png")


def test_facts_and_digest_cover_names_and_contents(folder: Path) -> None:
    place = str(folder / "*.png")
    facts = gather_facts(place, "video")
    assert (facts.frame_count, facts.frame_rate, facts.sha256) == (12, "25", local_digest(Path(place)))
    assert verified_copy(place, facts.sha256) == Path(place)
    assert local_digest(folder) == facts.sha256
    (folder / "f3.png").rename(folder / "f13.png")
    renamed = gather_facts(place, "video", facts.as_dict())
    assert renamed.sha256 != facts.sha256
    with pytest.raises(InputError, match="its content is another"):
        verified_copy(place, facts.sha256)


def test_more_pictures_than_the_limit_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = limits.current_limits().model_copy(update={"video_frames": 10})
    monkeypatch.setattr(limits, "_current", few)
    with pytest.raises(InputError, match=r"limits\.video_frames"):
        probe(folder)


LENGTHS = [40, 40, 120, 40, 0, 40]
SHOWN = [1, 2, 3, 3, 3, 4, 5, 5, 6]


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_animations_are_shown_as_long_as_they_ask(tmp_path: Path, suffix: str) -> None:
    lengths = LENGTHS if suffix == "webp" else [length or 80 for length in LENGTHS]
    first, *others = [_picture(number) for number in range(1, 7)]
    path = tmp_path / f"moving.{suffix}"
    first.save(path, save_all=True, append_images=others, duration=lengths, loop=0, lossless=True)
    info = probe(path)
    assert (info.frame_rate, info.is_vfr, info.dropped) == (Fraction(25), True, 0)
    numbers = [round(float(frame.mean()) / 8) for frame in read_frames(path)]
    assert numbers[:6] == SHOWN[:6]
    assert abs(len(numbers) - 9) <= 1  # a hundred milliseconds are two frames and a half
    assert sorted(set(numbers)) == [1, 2, 3, 4, 5, 6]
    assert numbers[4:8] == [round(float(frame.mean()) / 8) for frame in read_frames(path, 4, 8)]


def test_a_transparent_animated_webp_stands_before_white(tmp_path: Path) -> None:
    clear = [Image.new("RGBA", (48, 32), (255, 0, 0, alpha)) for alpha in (0, 128)]
    path = tmp_path / "clear.webp"
    clear[0].save(path, save_all=True, append_images=clear[1:], duration=40, lossless=True)
    first, second = read_frames(path)
    assert first.min() == 255
    assert np.abs(second.reshape(-1, 3).mean(0) - [255, 127, 127]).max() < 2


def test_a_still_webp_is_one_frame(ffmpeg_to: FfmpegRunner, tmp_path: Path) -> None:
    _picture(3).save(tmp_path / "still.webp")
    assert probe(tmp_path / "still.webp").frame_count == 1
