"""A portrait's wide-open mouth closes: skin below the lips is looked up below the lips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from portrait_core.cameras import orbit_labels
from portrait_core.face_model.directions import with_directions
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators.scene_latents import sample_scene
from portrait_core.runtime.package_files import data_folder
from portrait_core.settings import TemplateSettings, TrackingSettings
from portrait_core.template.embedded_face import embedded_renderer
from portrait_core.tracking.crop import points_in_crop
from portrait_core.tracking.embedded_tracker import EmbeddedTracker
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.training.render import SceneRenderer

MODELS = data_folder() / "models"
LOWER_LIP, BELOW_LIP, CHIN_MIDDLE, CHIN = 17, 18, 200, 152


@pytest.mark.parametrize("seed", [3, 8])
def test_a_wide_open_mouth_closes_without_a_fold(seed: int) -> None:
    plain = MorphableHead.load(MODELS / "embedded_head.safetensors")
    head, size = with_directions(plain), 256
    picture = _open_mouthed(plain, seed)
    found = FaceLandmarker.from_models(MODELS).detect(picture[None])
    tracked = EmbeddedTracker(head, TrackingSettings()).portrait(picture, found.points, size)
    track = tracked.track
    crop = track.crop_center_px[0], float(track.crop_side_px[0])
    marks = points_in_crop(found.points[0], *crop, size)
    renderer = embedded_renderer(head, track, tracked.crop, marks, track.cameras[0], TemplateSettings())
    skin = renderer.skin
    closed = skin.decode(np.zeros((1, head.n_expression), np.float32), np.zeros((1, 3), np.float32))
    wide_open, shut = skin.source_landmarks[:, 1], skin.landmarks(skin.moved(closed)[0])[:, 1]
    for upper, lower in ((LOWER_LIP, BELOW_LIP), (LOWER_LIP, CHIN_MIDDLE), (CHIN_MIDDLE, CHIN)):
        share = (wide_open[lower] - wide_open[upper]) / (shut[lower] - shut[upper])
        assert share > 0.1, f"skin between {upper} and {lower} is folded"


def _open_mouthed(head: MorphableHead, seed: int) -> np.ndarray:
    """Draw a synthetic person from the front whose jaw is open."""
    scene = sample_scene(np.random.default_rng(seed), head.expression_names, spread=0.7)
    expression = np.zeros(len(head.expression_names), np.float32)
    expression[head.index("jawOpen")] = 1.0
    renderer = SceneRenderer(head)
    person = renderer.person(replace(scene, expression=expression))
    return renderer.view(person, orbit_labels(0.0, 0.0)[0]).image
