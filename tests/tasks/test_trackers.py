"""What trackers make of a driver's motion, without a store."""

from __future__ import annotations

import numpy as np
import pytest

from portrait_core.config import load_settings
from portrait_core.faces.driven_eyes import eye_units
from portrait_core.pipeline import Job
from portrait_core.tracking.fit import FaceTrack
from tasks.context import head
from tasks.deca_tracker import DecaTracker
from tasks.trackers import EmbeddedTracker, tracker


def job(profile: str, *overrides: str) -> Job:
    names = ("head", "deca", "flame", "flame_landmarks", "head_template", "uv_face_eye_mask", "deep3d")
    weights = dict.fromkeys((*names, "deep3d_landmarks"), "trackers-test")
    return Job.model_construct(settings=load_settings(profile, overrides), weights=weights)


def track(shape: int, expression: np.ndarray) -> FaceTrack:
    frames = len(expression)
    return FaceTrack(
        shape=np.zeros(shape, np.float32),
        expression=expression.astype(np.float32),
        jaw=np.full((frames, 3), 0.1, np.float32),
        rotation=np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)),
        crop_center_px=np.zeros((frames, 2), np.float32),
        crop_side_px=np.ones(frames, np.float32),
        cameras=np.zeros((frames, 25), np.float32),
        fit_error=np.zeros(frames, np.float32),
        ok=np.ones(frames, bool),
    )


def test_the_settings_choose_the_tracker() -> None:
    assert isinstance(tracker(job("embedded")), EmbeddedTracker)
    assert isinstance(tracker(job("paper")), DecaTracker)


@pytest.mark.parametrize("transfer", ["relative", "absolute"])
def test_eyes_of_the_embedded_head_stay_or_follow(transfer: str) -> None:
    rng = np.random.default_rng(0)
    model = head(job("embedded"))
    own, driver = track(model.n_shape, rng.uniform(0, 0.3, (1, 52))), rng.uniform(0, 0.4, (20, 52))
    driver[10, [model.index("eyeBlinkLeft"), model.index("eyeBlinkRight")]] = 1.0
    moves = {
        eyes: EmbeddedTracker(job("embedded", f"template.eyes={eyes}", f"template.transfer={transfer}"))
        .retarget(own, track(model.n_shape, driver))["expression"]
        for eyes in ("paper", "driven")
    }  # fmt: skip
    units = eye_units(model.expression_names)
    assert np.array_equal(moves["paper"][:, units], np.repeat(own.expression[:, units], 20, axis=0))
    assert moves["driven"][10, model.index("eyeBlinkLeft")] > 0.8
    others = np.delete(np.arange(52), units)
    assert np.array_equal(moves["paper"][:, others], moves["driven"][:, others])


def test_the_papers_transfer_needs_no_other_head() -> None:
    rng = np.random.default_rng(0)
    own, driver = track(100, rng.normal(size=(1, 50))), track(100, rng.normal(size=(4, 50)))
    made = DecaTracker(job("paper")).retarget(own, driver)
    assert made.keys() == {"expression", "jaw"}
    assert np.array_equal(made["expression"], driver.expression)
    assert np.array_equal(made["jaw"], driver.jaw)
