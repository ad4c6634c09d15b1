"""The head poses asked for, and what the tracker reads off pictures of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import angles_from_labels, degrees, orbit_labels
from portrait_core.generators.scene_latents import scene_from_latent, z_from_fit
from portrait_core.rendering.pose_calibration import calibration_frames, corrected_cameras, pose_offset
from portrait_core.settings import Settings
from portrait_core.tracking.fit import fit_clip
from portrait_core.tracking.measure import seen
from tests.benchmarks.portraits.subjects import Subject
from tests.benchmarks.portraits.tools import Picture, Tools

Numbers = NDArray[np.float64]

_YAWS, _PITCHES, _CORNER = (-30, -25, -15, 0, 15, 25, 30), (-20, -10, 10, 20), (20, 15)
VIEWS = np.array(
    [(yaw, 0) for yaw in _YAWS]
    + [(0, pitch) for pitch in _PITCHES]
    + [(a * _CORNER[0], b * _CORNER[1]) for a in (-1, 1) for b in (-1, 1)]
)
"""Yaw and pitch in degrees ``[n,2]``; roll is 0. More than 12, so that the tracker takes them for a clip."""
N_YAWS = len(_YAWS)
FRONT = _YAWS.index(0)
_ALONG_YAW, _ALONG_PITCH = VIEWS[:, 1] == 0, VIEWS[:, 0] == 0
SIDES = {
    "yaw<0": _ALONG_YAW & (VIEWS[:, 0] < 0),
    "yaw>0": _ALONG_YAW & (VIEWS[:, 0] > 0),
    "pitch<0": _ALONG_PITCH & (VIEWS[:, 1] < 0),
    "pitch>0": _ALONG_PITCH & (VIEWS[:, 1] > 0),
    "corner": ~_ALONG_YAW & ~_ALONG_PITCH,
}
"""Which views lie on which side ``[n]``. At yaw < 0 the camera stands at the image's left of the face."""
_NEAR_DEG = 15
"""Views within so much of the front aim the rest: a clip's calibration frames lie near its middle pose."""


def titles() -> list[str]:
    """A short name of every view."""
    return [f"{yaw:+d} {pitch:+d}" if yaw and pitch else _axis(yaw, pitch) for yaw, pitch in VIEWS]


def _axis(yaw: int, pitch: int) -> str:
    return f"pitch {pitch:+d}" if pitch else f"yaw {yaw:+d}" if yaw else "front"


def labels() -> NDArray[np.float32]:
    """Camera labels of the views ``[n,25]``."""
    return np.concatenate([orbit_labels(yaw, pitch) for yaw, pitch in np.radians(VIEWS)])


def asked_deg() -> Numbers:
    """Yaw, pitch and roll of the views ``[n,3]``."""
    return np.pad(VIEWS.astype(np.float64), ((0, 0), (0, 1)))


def read_deg(points: Numbers, shape: NDArray[np.floating], tools: Tools, settings: Settings) -> Numbers:
    """Angles that the tracker reads off landmarks ``[n,478,2]``: ``[n,3]`` degrees, NaN without a face. The
    person's ``shape [S]`` is known, as it is of a result; the views are no neighbours in time."""
    found = seen(points)
    angles = np.full((len(points), 3), np.nan)
    if found.any():
        alone = settings.tracking.model_copy(update={"smooth_pose": 0.0, "smooth_expression": 0.0})
        track = fit_clip(tools.head, points, found, alone, shape=shape)
        angles[found] = degrees(angles_from_labels(track.cameras[found]))
    return angles


def find_points(pictures: list[Picture], tools: Tools) -> Numbers:
    """Landmarks ``[n,478,2]``, NaN without a face."""
    return np.asarray(tools.landmarker.detect(np.stack(pictures)).points, np.float64)


def aimed_labels(read: Numbers, settings: Settings) -> NDArray[np.float32]:
    """The labels, corrected by what was read off the nearly frontal views as the stage ``pose`` does it."""
    wanted, render = labels(), settings.render
    near = (np.abs(VIEWS).max(1) <= _NEAR_DEG) & np.isfinite(read).all(1)
    if not near.any() or not render.calibration_frames:
        return wanted
    frames = calibration_frames(wanted, render.calibration_frames, near)
    offset = pose_offset(angles_from_labels(wanted[frames]), np.radians(read[frames]))
    return corrected_cameras(wanted, offset, np.radians([render.max_yaw_deg, render.max_pitch_deg]))


def mesh_error_deg(subject: Subject, tools: Tools, settings: Settings) -> tuple[list[Picture], Numbers]:
    """Pictures of the fitted head as a mesh, of average looks, at the same poses, and the tracker's error
    there ``[n,3]``: its own, since the mesh is where it was told to be."""
    names = tools.head.expression_names
    scene = scene_from_latent(z_from_fit(subject.shape, subject.expression, names), names)
    person = tools.scenes.person(scene)
    pictures = [tools.scenes.view(person, label).image for label in labels()]
    points = find_points(pictures, tools)
    return pictures, read_deg(points, scene.full_shape()[0], tools, settings) - asked_deg()
