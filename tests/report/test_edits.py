"""What an edit did to the person, in pictures and in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS
from portrait_core.attribute_editing.edit_requests import parse_requests
from portrait_core.attribute_editing.edit_series import EditSeries
from portrait_core.attribute_editing.latent_edits import StyleFlowModel
from portrait_core.attribute_editing.scene_attributes import (
    SHOWN_ON_PHOTOGRAPHS,
    scene_conditions,
    shows_on_photographs,
)
from portrait_core.attribute_editing.settings import StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.face_model.head import MorphableHead
from portrait_core.media import read_image
from portrait_core.metrics.identity import ShippedRecogniser
from portrait_core.report.edits import edit_report, edit_strip, person_drift
from portrait_core.runtime.package_files import data_file, sample_portrait
from portrait_core.settings import load_settings
from portrait_core.tracking.embedded_tracker import EmbeddedTracker
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.people import SAME_PERSON

SIZE = 256


class Pixels(nn.Module):
    """Features that are the picture itself."""

    def forward(self, image: Tensor) -> list[Tensor]:
        return [image]


@pytest.fixture(scope="module")
def person() -> NDArray[np.uint8]:
    """The sample portrait's head and shoulders."""
    image = read_image(sample_portrait())[:440, :440]
    return np.asarray(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)


def series(pictures: Sequence[NDArray[np.uint8]]) -> EditSeries:
    latents = [torch.full((1, 1, 4), 1.0 + i) for i in range(len(pictures))]
    strengths = [i / (len(pictures) - 1) for i in range(len(pictures))]
    own = dict.fromkeys(PUBLISHED_CONDITIONS.names, 0.5)
    return EditSeries(parse_requests(["age=+20"]), own | {"age": 30.0}, strengths, latents, pictures)


def drift(made: EditSeries) -> dict[str, float | None]:
    settings = load_settings("embedded").tracking
    tracker = EmbeddedTracker(MorphableHead.load(data_file(settings.head)), settings)
    landmarker = FaceLandmarker.from_models(data_file(settings.models))
    return person_drift(
        made, landmarker, tracker, Pixels(), ShippedRecogniser.load(), torch.ones(1, 1, SIZE, SIZE)
    )


def test_a_person_who_stays_did_not_drift(person: NDArray[np.uint8]) -> None:
    found = drift(series([person, person]))
    assert found["latent"] == 1
    assert found["head_shape"] == found["perceptual"] == found["identity"] == 0


def test_a_wider_face_is_another_head(person: NDArray[np.uint8]) -> None:
    wide = cv2.resize(person, (round(1.15 * SIZE), SIZE))[:, round(0.075 * SIZE) :][:, :SIZE]
    found = drift(series([person, np.ascontiguousarray(wide)]))
    assert found["head_shape"] is not None
    assert found["head_shape"] > 0.1
    assert found["perceptual"] is not None
    assert found["perceptual"] > 0
    assert found["identity"] is not None
    assert 0 < found["identity"] < SAME_PERSON


def test_a_picture_without_a_face_has_no_head(person: NDArray[np.uint8]) -> None:
    found = drift(series([person, np.full_like(person, 90)]))
    assert found["head_shape"] is None
    assert found["identity"] is None
    assert found["perceptual"] is not None
    assert found["perceptual"] > 0


def test_a_report_of_a_flow_without_a_reader_says_what_was_asked(person: NDArray[np.uint8]) -> None:
    flow = StyleFlow(StyleFlowArchitecture(width=4, hidden=(4,), context=len(PUBLISHED_CONDITIONS)))
    model = StyleFlowModel(flow, PUBLISHED_CONDITIONS, None)
    found = edit_report(model, series([person, person]), {"latent": 0.123456, "head_shape": None})
    row = {"asked": "age=+20", "own": 30.0, "target": 50.0, "read_back": None, "weak": False, "shows": None}
    assert found["attributes"] == {"age": row}
    assert found["others_moved"] == {}
    assert found["drift"] == {"latent": 0.1235, "head_shape": None}


def test_a_strip_shows_every_strength(person: NDArray[np.uint8]) -> None:
    pictures = [np.full((32, 32, 3), level, np.uint8) for level in (40, 120, 200)]
    strip = edit_strip(series(pictures))
    assert [level for level in (40, 120, 200) if (strip == level).all(axis=2).mean() > 0.2] == [40, 120, 200]


def test_latents_before_and_after_are_kept(person: NDArray[np.uint8]) -> None:
    kept = series([person, person, person]).ends()
    assert kept.shape == (1, 2, 1, 4)
    assert (kept[0, 0] == 1).all()
    assert (kept[0, 1] == 3).all()


def test_an_edit_says_whether_it_shows_on_photographs() -> None:
    known = scene_conditions()
    assert shows_on_photographs("beard", known) is True
    assert shows_on_photographs("smile", known) is False
    assert shows_on_photographs("beard", PUBLISHED_CONDITIONS) is None
    assert set(SHOWN_ON_PHOTOGRAPHS) < set(known.names)
