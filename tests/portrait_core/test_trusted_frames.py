"""Which frames of a face are believed; scenes; quarter turns."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.trust import (
    THUMBNAIL,
    face_is_cut,
    jumps,
    outside_picture,
    scene_cuts,
    squeezed,
    untrusted,
)
from portrait_core.tracking.turns import clip_turn, is_upright, turn_points, turned_size
from tests.portrait_core import stand_in

SIZE = (480, 480)


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return stand_in.landmarker()


@pytest.fixture(scope="module")
def points(landmarker: FaceLandmarker) -> NDArray[np.float32]:
    """A face of about 170 pixels in the middle of a picture of 480."""
    found: NDArray[np.float32] = landmarker.detect(skimage.data.astronaut()[None]).points[0]
    return found - found.mean(axis=0) + 240


def moving(points: NDArray[np.float32], *steps: tuple[float, float]) -> NDArray[np.float32]:
    return np.stack([points + np.array(step, np.float32) for step in steps])


def test_a_face_that_leaves_the_picture_is_believed_until_a_part_of_it_is_lost(
    points: NDArray[np.float32],
) -> None:
    clip = moving(points, *[(-20.0 * i, 0.0) for i in range(14)])
    lost = outside_picture(clip, SIZE)
    first = int(lost.argmax())
    assert not lost[:6].any()
    assert lost[first:].all()
    share = ((clip[first, :468] < 0).any(axis=-1)).mean()
    assert 0.05 < share < 0.3
    assert not outside_picture(np.full((1, 478, 2), np.nan), SIZE)[0]


@pytest.mark.parametrize("step", [(0.0, 300.0), (300.0, 0.0), (0.0, -300.0)])
def test_every_edge_counts(points: NDArray[np.float32], step: tuple[float, float]) -> None:
    assert outside_picture(moving(points, step), SIZE)[0]


def test_a_face_that_is_squeezed_at_the_edge_is_not_believed(points: NDArray[np.float32]) -> None:
    clip = moving(points, *[(0.0, 30.0 - 24.0 * i) for i in range(14)])
    at_edge = clip[:, :468, 1].min(axis=1) < 0
    assert not squeezed(clip, SIZE).any()
    clip[-2:, :, 1] = (clip[-2:, :, 1] - clip[-2:, 152:153, 1]) * 0.7 + clip[-2:, 152:153, 1]
    assert np.flatnonzero(squeezed(clip, SIZE)).tolist() == [12, 13]
    assert at_edge[12:].all()
    # a frame between such ones that is read a little better, and still at the edge
    seems_well = clip.copy()
    seems_well[12] = clip[int(at_edge.argmax())]
    assert not squeezed(seems_well, SIZE)[12]
    seems_well[11] = clip[13]
    found = untrusted(seems_well, np.ones(14, bool), np.zeros(14, bool), SIZE)
    assert found["outside_picture"][11:].all()
    inside = moving(points, *[(0.0, 0.0)] * 14)
    inside[5, :, 1] *= 0.7
    assert not squeezed(inside, SIZE).any(), "a head that nods inside the picture"
    assert untrusted(clip, np.ones(14, bool), np.zeros(14, bool), SIZE)["outside_picture"][12:].all()


@pytest.mark.parametrize(("part", "cut"), [(152, -3.0), (152, 12.0), (105, -3.0), (105, 12.0), (334, 12.0)])
def test_a_portrait_shows_its_face_from_the_brows_to_the_chin(
    points: NDArray[np.float32], part: int, cut: float
) -> None:
    below = part == 152
    move = SIZE[1] - points[part, 1] + cut if below else -points[part, 1] - cut
    assert face_is_cut(points + np.array([0.0, move], np.float32), SIZE) == (cut > 0)


def test_a_face_that_jumps_away_and_back_is_not_believed(points: NDArray[np.float32]) -> None:
    steps = [(2.0 * i, 0.0) for i in range(12)]
    steps[5] = (120.0, 20.0)
    none = np.zeros(12, bool)
    assert np.flatnonzero(jumps(moving(points, *steps), none)).tolist() == [5]
    steps[0] = (90.0, 0.0)
    assert np.flatnonzero(jumps(moving(points, *steps), none)).tolist() == [0, 5]


def test_a_fast_head_and_a_cut_are_no_jumps(points: NDArray[np.float32]) -> None:
    fast = moving(points, *[(25.0 * (-1) ** i, 0.0) for i in range(8)])
    assert not jumps(fast, np.zeros(8, bool)).any()
    there = moving(points, *[(0.0, 0.0)] * 3, *[(150.0, 0.0)] * 9)
    assert not jumps(there, np.arange(12) == 3).any()
    assert np.flatnonzero(jumps(there, np.zeros(12, bool))).tolist() == [0, 1, 2]


def test_the_first_reason_that_applies_is_named(points: NDArray[np.float32]) -> None:
    clip = moving(points, *[(0.0, 0.0)] * 6)
    clip[1] = clip[2] = np.nan
    clip[4] += 400
    found = untrusted(clip, np.arange(6) != 1, np.zeros(6, bool), SIZE)
    named = {name: np.flatnonzero(frames).tolist() for name, frames in found.items()}
    assert named == {"no_face": [1], "another_person": [2], "outside_picture": [4], "jumps": []}


def scene(seed: int, frames: int) -> NDArray[np.float64]:
    """Frames of one scene with a little motion and noise."""
    random = np.random.default_rng(seed)
    picture = random.uniform(0, 255, (4, 4, 3)).repeat(4, 0).repeat(4, 1)
    return np.stack([np.roll(picture, i % 3, 1) * 0.1 + picture * 0.9 for i in range(frames)])


def test_scenes_are_told_apart_and_motion_is_no_cut() -> None:
    film = np.concatenate([scene(1, 20), scene(2, 7), scene(3, 15)])
    assert film.shape[1:] == (THUMBNAIL, THUMBNAIL, 3)
    assert np.flatnonzero(scene_cuts(film.astype(np.uint8))).tolist() == [20, 27]
    shaking = np.stack([np.roll(scene(1, 1)[0], i % 4, 0) for i in range(30)])
    assert not scene_cuts(shaking.astype(np.uint8)).any()
    fading = np.stack([scene(1, 1)[0] * (1 - i / 20) for i in range(20)])
    assert not scene_cuts(fading.astype(np.uint8)).any()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_clip_is_recognised_and_its_points_are_turned_upright(
    landmarker: FaceLandmarker, quarters: int
) -> None:
    upright = np.ascontiguousarray(skimage.data.astronaut()[:480])
    size = (upright.shape[1], upright.shape[0])
    lying = np.ascontiguousarray(np.rot90(upright, quarters))
    found = landmarker.detect_all(lying[None], 2, turned=True)
    turn = clip_turn(found.points[:, 0])
    assert (turn + quarters) % 4 == 0
    points = turn_points(found.points[0, 0], turn, turned_size(size, quarters))
    true = landmarker.detect(upright[None]).points[0]
    assert is_upright(points[None])[0]
    assert np.abs(points - true).max() < 3.0
