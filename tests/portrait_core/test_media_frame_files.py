"""Frames written as PNG files: to the bit, in order, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from portrait_core.errors import InputError
from portrait_core.media import FrameWriter, frame_png

RNG = np.random.default_rng(3)


def _noise(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8)


def _write(path: Path, frames: np.ndarray) -> Path:
    with FrameWriter(path) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.mark.parametrize("shape", [(48, 64, 3), (31, 33, 3), (31, 33, 4), (1, 1, 4)])
def test_frames_come_back_to_the_bit_in_the_order_of_their_names(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    frames = _noise(12, shape)
    frames[..., 3:] = frames[..., 3:] // 128 * 255  # colours of transparent pixels are kept too
    files = sorted(_write(tmp_path / "frames", frames).iterdir())
    assert [path.name for path in files] == [f"{i:06d}.png" for i in range(12)]
    for path, frame in zip(files, frames, strict=True):
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), frame)
            assert picture.info["srgb"] == 0  # tagged as sRGB


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames = _noise(2, (20, 30, 4))
    first, second = (_write(tmp_path / name, frames) for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    # A slice that does not lie in one piece is the same frame.
    assert frame_png(np.asfortranarray(frames[0])) == frame_png(frames[0])
    with Image.open(io.BytesIO(frame_png(frames[0][:, ::2]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), frames[0][:, ::2])


def test_an_older_folder_of_frames_is_replaced_whole(tmp_path: Path) -> None:
    _write(tmp_path / "frames", _noise(5, (8, 8, 3)))
    _write(tmp_path / "frames", _noise(2, (8, 8, 4)))
    assert len(list((tmp_path / "frames").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def _fail(path: Path) -> None:
    with FrameWriter(path) as writer:
        writer.write(_noise(1, (8, 8, 3))[0])
        raise RuntimeError("stopped")


def test_failure_in_the_block_leaves_the_older_folder_alone(tmp_path: Path) -> None:
    _write(tmp_path / "frames", _noise(5, (8, 8, 3)))
    with pytest.raises(RuntimeError, match="stopped"):
        _fail(tmp_path / "frames")
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    assert len(list((tmp_path / "frames").iterdir())) == 5


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"letter\.txt"):
        FrameWriter(other)
    writer = FrameWriter(tmp_path / "late")
    writer.write(_noise(1, (8, 8, 3))[0])
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"letter\.txt"):
        writer.close()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="not a folder of frames"):
        FrameWriter(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["letter.txt", "letter.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "late", "other"]


def test_frames_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(InputError, match="expected a frame"):
            frame_png(wrong)  # type: ignore[arg-type]  # what it must refuse
    writer = FrameWriter(tmp_path / "a")
    writer.write(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="as those before it"), writer:
        writer.write(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(InputError, match="no frame"), FrameWriter(tmp_path / "b"):
        pass
    with pytest.raises(InputError, match="does not exist"):
        FrameWriter(tmp_path / "no" / "frames")
    assert list(tmp_path.iterdir()) == []
