"""Eyes that FLAME cannot move: painted on the portrait, carried on the mesh, measured by the detector."""

import numpy as np
import pytest
import torch

from portrait_core.cameras import project_to_crop
from portrait_core.errors import InputError
from portrait_core.settings import TemplateSettings, TrackingSettings
from portrait_core.template.driven_eyes import (
    EyePicture,
    camera_in_crop,
    eye_units,
    eyes_of_driver,
    with_eyes_of,
)
from portrait_core.tracking.measure import measure
from tests.portrait_core import stand_in


@pytest.fixture(scope="module")
def picture() -> EyePicture:
    source = stand_in.source()
    points = stand_in.tracked()[1]
    return EyePicture.build(
        stand_in.whole_head(), source.portrait, source.placement, points, TrackingSettings()
    )


def moved(**units: float) -> np.ndarray:
    """The portrait's own expression ``[1,E]`` but for some units."""
    own = stand_in.tracked()[2].expression[:1].copy()
    for name, value in units.items():
        own[:, stand_in.whole_head().index(name)] = value
    return own


BLINK = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}


def opening(image: np.ndarray) -> float:
    """Lid gap over eye width, as the detector reads it."""
    return float(measure(stand_in.landmarker().detect(image[None]).points)["eye_opening"][0])


def test_the_camera_of_another_crop_sees_the_same(picture: EyePicture) -> None:
    source, (_, _, track) = stand_in.source(), stand_in.tracked()
    head, size = stand_in.whole_head(), len(source.portrait)
    codes = (torch.from_numpy(np.atleast_2d(x)) for x in (track.shape, track.expression, track.jaw))
    mesh = head.to_box(head.landmarks(head.decode(*codes)))
    own = project_to_crop(torch.from_numpy(track.cameras), mesh, 1)[..., :2].numpy()
    photo = track.crop_center_px + (own[0] - 0.5) * track.crop_side_px
    label = torch.from_numpy(camera_in_crop(track, source.placement, size))[None]
    there = project_to_crop(label, mesh, size)[..., :2].numpy()
    assert there[0] == pytest.approx(source.placement.to_crop(photo[None])[0], abs=0.05)


def test_driven_eyes_close_and_the_papers_do_not(picture: EyePicture) -> None:
    renderer, source = stand_in.renderer(), stand_in.source()
    expression, jaw = source.code.exp.numpy(), source.code.pose[:, 3:].numpy()
    still = renderer.render(expression, jaw)
    driven = renderer.render(expression, jaw, picture.paint(moved(**BLINK)))
    open_gap = opening(source.portrait)
    assert opening(still.image[0]) == pytest.approx(open_gap, rel=0.1)
    assert opening(driven.image[0]) < 0.5 * open_gap
    # FLAME itself is where it was: masks are the same, and nothing moved below the eyes
    assert np.array_equal(still.face_mask, driven.face_mask)
    lower = slice(300, None)
    assert np.array_equal(still.image[0, lower], driven.image[0, lower])


def test_eyes_close_on_a_face_that_moves(picture: EyePicture) -> None:
    """The painted lids go with the mesh: with another expression and jaw the eye is shut all the same."""
    renderer = stand_in.renderer()
    expression = moved(browInnerUp=1.0, browOuterUpLeft=1.0, browOuterUpRight=1.0)
    jaw = np.array([[0.3, 0, 0]], np.float32)
    still = renderer.render(expression, jaw)
    driven = renderer.render(expression, jaw, picture.paint(moved(**BLINK)))
    assert opening(driven.image[0]) < 0.5 * opening(still.image[0])


def test_the_portraits_own_eyes_change_nothing_much(picture: EyePicture) -> None:
    source = stand_in.source()
    same = picture.paint(moved())[0].astype(int)
    away = picture.around[..., 0] == 0
    assert np.array_equal(same[away], source.portrait[away])
    assert np.abs(same - source.portrait).mean() < 0.5
    assert 0.005 < (picture.around > 0.5).mean() < 0.1


def test_gaze_moves_the_irises(picture: EyePicture) -> None:
    left = {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}
    right = {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0}
    images = np.concatenate([picture.paint(moved(**way)) for way in (left, right)])
    points = stand_in.landmarker().detect(images).points
    width = np.linalg.norm(points[0, 33] - points[0, 133])
    # the subject's left is the image's right
    assert (points[0, [468, 473], 0] - points[1, [468, 473], 0] > 0.08 * width).all()


def test_only_lids_and_gaze_are_taken() -> None:
    names = ["jawOpen", "eyeBlinkLeft", "eyeLookUpLeft", "browInnerUp"]
    assert eye_units(names).tolist() == [1, 2]
    own, driven = np.array([0.1, 0.2, 0.3, 0.4]), np.array([[0.5, 0.6, 0.7, 0.8], [1, 1, 1, 1]])
    got = with_eyes_of(own, driven, names)
    assert got == pytest.approx(np.array([[0.1, 0.6, 0.7, 0.4], [0.1, 1, 1, 0.4]]))


def test_the_named_frame_is_the_rest_of_the_eyes() -> None:
    head, (_, points, _) = stand_in.whole_head(), stand_in.tracked()
    clip = np.repeat(points, 4, axis=0)
    clip[1:, [*range(468, 478)]] += [6.0, 0.0]  # the driver looks aside but for the first frame
    gaze = [
        eyes_of_driver(head, clip, points, TemplateSettings(neutral_frame=frame), TrackingSettings())
        for frame in (0, 3)
    ]
    aside = head.index("eyeLookOutLeft")
    assert gaze[0][3, aside] > gaze[1][3, aside] + 0.1
    with pytest.raises(InputError, match="--neutral-frame 4 "):
        eyes_of_driver(head, clip, points, TemplateSettings(neutral_frame=4), TrackingSettings())
