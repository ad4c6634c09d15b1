"""Clips tracked by the paper's networks, and what a track says of its fit."""

import numpy as np
import pytest
import torch

from portrait_core.cameras import rotations_from_labels
from portrait_core.face_model.flame import FlameLandmarks
from portrait_core.tracking.deca import DecaEncoder
from portrait_core.tracking.deep3d import Deep3DCoefficients, Deep3DEncoder
from portrait_core.tracking.paper_tracker import (
    LandmarkError,
    PaperFrames,
    PaperTracker,
    face_track,
    track_clip,
)
from portrait_core.tracking.wild_crop import WildCrops
from portrait_core.weights.readers.flame_files import LandmarkEmbedding
from tests.portrait_core import stand_in

OK = np.array([False, True, True, False, True])


class NoError(LandmarkError):
    """For codes of networks that know no faces."""

    def __init__(self) -> None: ...

    def of(self, found: object, landmarks: np.ndarray) -> np.ndarray:
        return np.zeros(len(landmarks), np.float32)


@pytest.fixture(scope="module")
def tracker() -> PaperTracker:
    torch.manual_seed(0)
    return PaperTracker(DecaEncoder().eval(), Deep3DEncoder().eval(), batch=2)


@pytest.fixture(scope="module")
def clip() -> tuple[list[np.ndarray], np.ndarray]:
    """Five frames of the portrait, moved and darkened, and their landmarks; two show no face."""
    image, points, _ = stand_in.tracked()
    frames = [np.roll(image, 3 * i, axis=1) // np.uint8(1 + i % 2) for i in range(len(OK))]
    marks = np.concatenate([points + np.array([3 * i, 0]) for i in range(len(OK))])
    marks[~OK] = np.nan
    return frames, marks


def test_a_clip_is_tracked_frame_by_frame(
    tracker: PaperTracker, clip: tuple[list[np.ndarray], np.ndarray]
) -> None:
    frames, marks = clip
    track = track_clip(tracker, NoError(), iter(frames), marks, OK)
    assert (track.shape.shape, track.expression.shape, track.jaw.shape) == ((100,), (5, 50), (5, 3))
    assert track.ok.tolist() == OK.tolist()
    assert np.isnan(track.fit_error[~OK]).all()
    for name in ("expression", "jaw", "cameras", "crop_center_px"):
        rows = getattr(track, name)
        assert np.array_equal(rows[0], rows[1]), name  # the first good frame stands in for those before it
        assert np.array_equal(rows[3], rows[2]), name
        assert not np.array_equal(rows[4], rows[2]), name
    alone = tracker.track([frames[4]], marks[4:5])
    assert alone.code.exp[0].numpy() == pytest.approx(track.expression[4], abs=1e-5)
    assert alone.wild.cameras[0] == pytest.approx(track.cameras[4], abs=1e-5)
    assert track.rotation == pytest.approx(rotations_from_labels(track.cameras), abs=1e-6)
    with pytest.raises(ValueError, match="none of 5 frames has a face"):
        track_clip(tracker, NoError(), iter(frames), marks, np.zeros(5, bool))


def test_the_crop_is_where_the_generator_has_it(
    tracker: PaperTracker, clip: tuple[list[np.ndarray], np.ndarray]
) -> None:
    frames, marks = clip
    for size in (128, 0):  # made, or only placed
        found = tracker.track([frames[1]], marks[1:2], size)
        assert found.wild.images.shape == (1, size, size, 3)
        track, place = face_track(found, np.zeros(1, np.float32)), found.wild.placement
        corner = (track.crop_center_px - track.crop_side_px[:, None] / 2)[:, None]
        assert place.to_crop(corner) == pytest.approx(np.zeros((1, 1, 2)), abs=(size or 512) / 100)
        assert 120 < track.crop_side_px[0] < 200


def test_the_fit_error_is_small_for_a_code_that_fits() -> None:
    """The embedded tracker's fit stands in for DECA's: its points lie on the face."""
    source, points = stand_in.source(), stand_in.tracked()[1]
    faces, bary = (stand_in.arrays()[name].numpy() for name in ("lmk_faces_idx", "lmk_bary_coords"))
    contour_faces, contour_bary = (np.repeat(part[None, :17], 79, axis=0) for part in (faces, bary))
    embedding = LandmarkEmbedding(faces[17:], bary[17:], contour_faces, contour_bary, faces, bary)
    error = LandmarkError(stand_in.head(), FlameLandmarks(embedding, stand_in.head().faces))
    nothing = Deep3DCoefficients(*(torch.zeros(1, 1) for _ in range(6)))
    wild = WildCrops(
        np.zeros((1, 0, 0, 3), np.uint8), np.zeros((1, 25), np.float32), nothing, source.placement
    )
    found = PaperFrames(source.code, source.tform, wild)
    assert error.of(found, points)[0] < 0.1
    eyes = np.linalg.norm(points[0, 33] - points[0, 263])
    moved = error.of(found, points + np.array([eyes, 0]))[0]
    assert moved == pytest.approx(1.0, abs=0.1)
