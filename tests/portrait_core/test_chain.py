"""How a clip's inversion goes on from frame to frame, and what its frames are fitted to."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from portrait_core.inversion.chain import Anchor, LatentChain
from portrait_core.inversion.clip_data import ClipData, Masks
from portrait_core.inversion.latent import FirstLatent
from portrait_core.tracking.fit import FaceTrack
from tests.portrait_core.tiny import CAMERA, SIZE

FIRST = 1
"""The frame from which inversion starts: frame 0 was set aside."""


def latent(value: float) -> torch.Tensor:
    return torch.full((1, 1, 4), value)


class Kept:
    """Latents in a store, by frame."""

    def __init__(self, *frames: int) -> None:
        self.frames, self.read = sorted(frames), Counter[int]()

    def newest(self, frame: int) -> int:
        return max((i for i in self.frames if i < frame), default=-1)

    def at(self, frame: int) -> torch.Tensor:
        self.read[frame] += 1
        return latent(frame)

    def chain(self, chained: bool = True, cut: int | None = None) -> LatentChain:
        first = Anchor(FIRST, FirstLatent(latent(100), np.zeros(0, np.float32), []))
        return LatentChain(first, chained, self.newest, self.at, np.arange(10) == cut)


def test_a_chain_starts_from_the_first_latent() -> None:
    chain = Kept().chain()
    for frame in (0, FIRST, 2):
        assert torch.equal(chain.before(frame), latent(100))


def test_a_chain_goes_on_from_the_frame_before_without_reading_it() -> None:
    kept = Kept(1, 2)
    chain = kept.chain()
    chain.advance(3, latent(3.5))
    assert torch.equal(chain.before(4), latent(3.5))
    assert not kept.read


def test_a_chain_does_not_cross_a_scene_cut() -> None:
    kept = Kept(1, 2)
    chain = kept.chain(cut=4)
    chain.advance(3, latent(3.5))
    assert torch.equal(chain.before(4), latent(100))
    chain.advance(4, latent(4.5))
    assert torch.equal(chain.before(5), latent(4.5))
    assert torch.equal(kept.chain(cut=4).before(5), latent(100))  # frame 4 failed in another process


def test_a_chain_passes_over_a_frame_that_failed() -> None:
    kept = Kept(1, 2)
    assert torch.equal(kept.chain().before(4), latent(2))  # frame 3 failed in another process
    chain = kept.chain()
    chain.advance(3, latent(3.5))  # not kept yet
    assert torch.equal(chain.before(5), latent(3.5))
    kept.frames.append(6)
    assert torch.equal(chain.before(8), latent(6))


def test_frames_that_follow_the_tracker_do_not_wait_for_each_other() -> None:
    chain = Kept(1, 2).chain(chained=False)
    chain.advance(2, latent(2))
    assert torch.equal(chain.before(3), latent(100))


def test_an_anchor_is_kept_as_bytes() -> None:
    first = Anchor(7, FirstLatent(torch.randn(1, 2, 4), np.arange(3, dtype=np.float32), [0.5]))
    again = Anchor.from_bytes(first.to_bytes(), "cpu")
    assert again.frame == 7
    assert torch.equal(again.latent.ws, first.latent.ws)
    assert np.array_equal(again.latent.appearance, first.latent.appearance)


class Head:
    """A head whose mouth and eyes are everywhere."""

    surface, unit_names = None, list[str]()

    def in_units(self, frame: int) -> NDArray[np.float32]:
        return np.zeros((1, 0), np.float32)

    def vertices(self, frame: int) -> torch.Tensor:
        return torch.zeros(1, 3)

    def silhouette(self) -> NDArray[np.bool_]:
        return np.ones((SIZE, SIZE), bool)

    def detail(self, frame: int) -> NDArray[np.uint8]:
        return np.full((SIZE, SIZE), 255, np.uint8)


@pytest.fixture
def read() -> list[int]:
    """Frames whose masks were read."""
    return []


@pytest.fixture
def clip(read: list[int]) -> ClipData:
    """A clip whose frame i shows a template of grey level i; its face is the left half, its mouth the upper
    left quarter."""
    face, mouth = np.zeros((2, SIZE, SIZE), np.uint8)
    face[:, : SIZE // 2] = 255
    mouth[: SIZE // 2, : SIZE // 2] = 255

    def masks(frame: int) -> Masks:
        read.append(frame)
        return np.full((SIZE, SIZE, 3), frame, np.uint8), face, mouth, np.zeros_like(face)

    still = np.zeros((1, 3), np.float32)
    track = FaceTrack(
        shape=np.zeros(2, np.float32),
        expression=still,
        jaw=still,
        rotation=np.eye(3, dtype=np.float32)[None],
        crop_center_px=still[:, :2],
        crop_side_px=still[:, 0],
        cameras=CAMERA.numpy(),
        fit_error=still[:, 0],
        ok=np.ones(1, bool),
    )
    crop = np.full((SIZE, SIZE, 3), 200, np.uint8)
    return ClipData(crop, track, Head(), masks, torch.device("cpu"))


def grey(image: torch.Tensor) -> dict[str, int]:
    """Grey levels of mouth, skin and the rest."""
    levels = ((image[0] + 1) * 127.5).round().int()
    return {"mouth": int(levels[0, 0]), "skin": int(levels[-1, 0]), "rest": int(levels[0, -1])}


def test_a_frame_is_fitted_to_its_template_and_tuned_to_the_portrait_around_it(clip: ClipData) -> None:
    assert grey(clip.target(5).image) == {"mouth": 5, "skin": 5, "rest": 5}
    inversion_render = np.full((SIZE, SIZE, 3), 90, np.uint8)
    assert grey(clip.target(5, inversion_render, tuning=True).image) == {"mouth": 90, "skin": 5, "rest": 200}
    assert grey(clip.target(5, tuning=True).image) == {"mouth": 5, "skin": 5, "rest": 200}


def test_a_frame_is_read_when_it_is_needed_and_once(clip: ClipData, read: list[int]) -> None:
    assert read == []
    assert clip.face(3).mean() == 0.5
    assert clip.target(3, detail=False).detail is None
    detail = clip.target(3).detail
    assert detail is not None
    assert float(detail.min()) == 1
    assert read == [3]
