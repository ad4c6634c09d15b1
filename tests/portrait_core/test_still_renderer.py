"""Frames of a 2D generator: the face of each on the first one's picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.inversion.targets import image_array
from portrait_core.rendering.still_renderer import StillRenderer
from portrait_core.settings import CompositeSettings
from tests.portrait_core import tiny


def pictures(**chosen: object) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """A rendered frame, its latent's whole picture, and the first one's."""
    generator = tiny.flat()
    ws = generator.mapping(torch.randn(2, 16, generator=torch.Generator().manual_seed(3)))[:, :1]
    settings = CompositeSettings.model_validate({"feather_px": 2.0, "dilate_px": 0.0} | chosen)
    first_face, face = tiny.disc(0.1, (0.3, 0.3))[None], tiny.disc(0.2, (0.65, 0.65))[None]
    made = StillRenderer(generator, ws[:1], first_face, tiny.CAMERA, settings).render(ws[1:], face)
    first, own = (image_array(generator.render_image(one, tiny.CAMERA)[0]) for one in ws.split(1))
    return made, own, first


def test_the_face_is_the_frames_and_the_rest_the_first_frames() -> None:
    made, own, first = pictures(union_first=False)
    np.testing.assert_array_equal(made[40:44, 40:44], own[40:44, 40:44])
    np.testing.assert_array_equal(made[:24], first[:24])
    assert not np.array_equal(own[:24], first[:24])


def test_where_the_first_frame_had_its_face_the_frame_shows_its_own_too() -> None:
    made, own, first = pictures(union_first=True)
    np.testing.assert_array_equal(made[18:21, 18:21], own[18:21, 18:21])
    np.testing.assert_array_equal(made[:8], first[:8])


def test_a_whole_picture_is_the_frames_where_the_settings_say_so() -> None:
    made, own, _ = pictures(mode="whole")
    np.testing.assert_array_equal(made, own)
