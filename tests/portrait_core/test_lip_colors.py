"""The colour reader sees closed lips, open ones and teeth, in colours and without."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.metrics.lip_colors import measure_lips
from portrait_core.tracking import mouth_picture
from portrait_core.training.reader_calibration import without_colours
from tests.portrait_core.made_mouth import EYES, LIPS, landmarks, made


def read(images: list[NDArray[np.uint8]], gaps: list[float]) -> dict[str, NDArray[np.float64]]:
    return measure_lips(lambda: images, np.stack([landmarks(gap) for gap in gaps]))


@pytest.mark.parametrize("grey", [False, True])
def test_open_lips_and_teeth_are_measured(grey: bool) -> None:
    images = [made(1.0), made(10.0), made(20.0), made(20.0, 0.5)]
    if grey:
        images = [without_colours(image) for image in images]
    found = read(images, [1.0, 10.0, 20.0, 20.0])
    arch = np.sqrt(1 - np.linspace(-26 / 69, 26 / 69, 50) ** 2).mean()
    # a filled shape covers half a pixel beyond its edge
    wanted = np.array([0.0, 11.0, 21.0, 21.0]) * arch / EYES
    np.testing.assert_allclose(found["mouth open"], wanted, atol=0.03)
    teeth = 0.5 * 20 * arch / EYES
    np.testing.assert_allclose(found["teeth shown"], [0, 0, 0, teeth], atol=0.2 * teeth)


def test_teeth_under_a_moustache_are_teeth() -> None:
    """Hair is as dark as the mouth, and no lip is seen above the teeth."""
    bare, hairy = (read([made(1.0), made(20.0, 0.5, hair=hair)], [1.0, 20.0]) for hair in (False, True))
    assert hairy["teeth shown"][1] == pytest.approx(bare["teeth shown"][1], abs=0.02)


def test_a_gap_of_the_landmarks_between_closed_lips_is_not_believed() -> None:
    found = read([made(1.0)], [6.0])
    assert found["mouth open"][0] == 0
    assert found["teeth shown"][0] == 0


def test_an_opening_that_the_landmarks_miss_is_seen() -> None:
    found = read([made(1.0), made(16.0)], [1.0, 8.0])
    assert found["mouth open"][1] == pytest.approx(16 / EYES, abs=0.03)


def test_a_tongue_of_the_lips_colour_is_no_closed_mouth() -> None:
    found = read([made(1.0), made(20.0, rest=LIPS)], [1.0, 20.0])
    assert found["mouth open"][0] == 0
    assert found["mouth open"][1] == pytest.approx(20 / EYES, abs=0.03)


@pytest.mark.parametrize("grey", [False, True])
def test_a_shining_lower_lip_is_not_a_tooth(grey: bool) -> None:
    image = made(1.0, shine=True)
    found = read([without_colours(image) if grey else image], [1.0])
    assert found["teeth shown"][0] == 0


def test_frames_without_a_face_give_nan() -> None:
    points = np.stack([landmarks(1.0), np.full((478, 2), np.nan, np.float32)])
    found = measure_lips(lambda: [made(1.0)] * 2, points)
    for values in found.values():
        assert np.isfinite(values[0])
        assert np.isnan(values[1])
    nothing = measure_lips(lambda: [made(1.0)], points[1:])
    assert np.isnan(nothing["mouth open"]).all()


def test_the_pictures_of_a_clip_are_not_kept() -> None:
    """Pictures of a long clip, and the mouths cut from them, do not fit in memory."""
    gaps = [1.0, 10.0, 20.0, 1.0, 6.0]
    alive: list[weakref.ref[NDArray[np.uint8]]] = []

    def frames() -> Iterator[NDArray[np.uint8]]:
        for gap in gaps:
            picture = made(gap)
            alive.append(weakref.ref(picture))
            yield picture
            del picture
            assert sum(one() is not None for one in alive) <= 2

    found = measure_lips(frames, np.stack([landmarks(gap) for gap in gaps]))
    whole = read([made(gap) for gap in gaps], gaps)
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values)


def test_some_frames_say_what_colour_the_lips_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouth_picture, "COLOURS_READ", 2)
    images = [made(1.0), np.zeros((256, 256, 3), np.uint8), made(20.0)]
    found = read(images, [1.0, 10.0, 20.0])
    alone = read([images[0], images[2]], [1.0, 20.0])
    np.testing.assert_array_equal(found["mouth open"][[0, 2]], alone["mouth open"])


def test_a_clip_of_another_length_than_its_landmarks_is_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        read([made(1.0)], [1.0, 1.0])
