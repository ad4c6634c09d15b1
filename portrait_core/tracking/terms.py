"""Targets that a frame's landmarks set the fit: points, lid gaps, lip gaps, gaze.

The landmark model reads a closed eye as a gap of about a tenth of the eye's width, and each person's open eye
as another gap. So small gaps are not taken as they are: near closure the mesh's target is less than what was
measured, down to a full blink where the model reads a closed eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.head_points import HeadPoints, ShapedPoints, outer_eye_distance
from portrait_core.face_model.topology import N_MESH
from portrait_core.tracking.projection import Pose

Array = NDArray[np.float64]

CLOSED_EYE = 0.08
"""Lid gap over eye width that the landmark model reads on closed eyes."""
CLOSED_LIPS = 0.002
"""Lip gap over outer-eye distance that it reads on closed mouths."""
MOUTH_PAIRS = np.array([(13, 14), (82, 87), (312, 317), (61, 291)])
"""Points whose differences are fitted: three lip gaps (upper, lower) and the mouth's corners."""
_LIP_GAPS = 3
_NEARLY_CLOSED_EYE = 0.16
"""Lid gap over eye width from which on gaps are taken as measured; below it they shrink, to those of a full
blink at :data:`CLOSED_EYE`."""
_LOWEST_OPEN_EYE = 0.20
_LOWEST_OPEN_EYE_OF_FEW = 0.28
_OPEN_QUANTILE = 0.7


@dataclass(frozen=True)
class Eye:
    """Indices of one eye: corners, middle of the lids, lids from outer to inner corner, iris centre."""

    outer: int
    inner: int
    upper: int
    lower: int
    upper_lid: tuple[int, ...]
    lower_lid: tuple[int, ...]
    iris: int
    side: str


EYES = (
    Eye(
        *(33, 133, 159, 145),
        upper_lid=(246, 161, 160, 159, 158, 157, 173),
        lower_lid=(7, 163, 144, 145, 153, 154, 155),
        iris=468,
        side="Right",
    ),
    Eye(
        *(263, 362, 386, 374),
        upper_lid=(466, 388, 387, 386, 385, 384, 398),
        lower_lid=(249, 390, 373, 374, 380, 381, 382),
        iris=473,
        side="Left",
    ),
)


@dataclass(frozen=True)
class LidReference:
    """The lids of one head."""

    open_points: Array
    """Landmarks with open eyes ``[478,3]``, in box units."""
    closed_points: Array
    """Landmarks with closed eyes ``[478,3]``, in box units."""
    open_ratio: Array
    """Open gap over the eye's width from the front ``[2]`` (right eye, left eye)."""
    profile: Array
    """Gap along the lids over the gap at their middle ``[2,7]``."""

    @classmethod
    def of(cls, points: HeadPoints, shaped: ShapedPoints) -> LidReference:
        """Measure the lids of a person's head."""
        rest = np.zeros(shaped.expressions.shape[-1])
        blink = rest.copy()
        for eye in EYES:
            blink[points.names.index("eyeBlink" + eye.side)] = 1.0
        opened, closed = shaped.points(rest), shaped.points(blink)
        front = Pose(np.eye(3), np.zeros(2), 1.0)
        ratio = np.array([signed_gap(front.project(opened), eye) for eye in EYES])
        gap = np.array([(opened[list(eye.upper_lid)] - opened[list(eye.lower_lid)])[:, 1] for eye in EYES])
        return cls(opened, closed, ratio, (gap / gap[:, 3:4]).clip(0.0, 1.2))


def signed_gap(pixels: Array, eye: Eye) -> float:
    """Return the lid gap across the eye over its width; negative where the upper lid is below the lower."""
    across = pixels[eye.inner] - pixels[eye.outer]
    width = float(np.linalg.norm(across))
    return float((pixels[eye.lower] - pixels[eye.upper]) @ _down(across)) / width


def _down(across: Array) -> Array:
    """Return the unit vector from the upper to the lower lid, for the one from outer to inner corner."""
    normal = np.array([-across[1], across[0]]) / np.linalg.norm(across)
    return normal if normal[1] > 0 or abs(normal[1]) < 1e-9 else -normal


def pose_factors(reference: LidReference, pose: Pose) -> tuple[Array, Array]:
    """Return the factors of the open lid gaps by a pose ``[2]``, and the closed ratios under it ``[2]``."""
    opened, closed = pose.project(reference.open_points), pose.project(reference.closed_points)
    seen = np.array([signed_gap(opened, eye) for eye in EYES])
    factor = (seen / reference.open_ratio).clip(0.5, 1.8)
    return factor, np.array([signed_gap(closed, eye) for eye in EYES])


def open_eyes(ratios: Array, few: int) -> Array:
    """Find this person's open eyes ``[2]`` in pose-corrected lid gaps ``ratios [T,2]`` over the eyes' widths.

    Fewer than ``few`` frames may all be squinting, so the answer stays above what most people's eyes are.
    """
    lowest = _LOWEST_OPEN_EYE if len(ratios) >= few else _LOWEST_OPEN_EYE_OF_FEW
    return np.asarray(np.quantile(ratios, _OPEN_QUANTILE, axis=0).clip(lowest, 0.55))


def lid_ratios(landmarks: Array) -> Array:
    """Measure the lid gaps over the eyes' widths ``[2]`` of one frame's landmarks ``[478,2]``.

    They are negative where the lids have passed each other.
    """
    gaps = [landmarks[eye.upper] - landmarks[eye.lower] for eye in EYES]
    widths = [landmarks[eye.outer] - landmarks[eye.inner] for eye in EYES]
    signs = np.sign([signed_gap(landmarks, eye) for eye in EYES])
    return np.asarray(signs * np.linalg.norm(gaps, axis=1) / np.linalg.norm(widths, axis=1))


def _target_ratios(measured: Array, factor: Array, closed: Array) -> Array:
    """Return the gaps that the mesh's lids shall have over the eyes' widths ``[2]``.

    They are the measured ones ``[2]`` of open eyes, and those of a full blink, ``closed [2]``, where the
    landmark model reads closed ones. ``factor [2]`` is the pose's.
    """
    nearly = factor * _NEARLY_CLOSED_EYE
    share = ((measured / factor - CLOSED_EYE) / (_NEARLY_CLOSED_EYE - CLOSED_EYE)).clip(0.0, 1.0)
    return np.asarray(np.where(share < 1.0, closed + share * (nearly - closed), measured))


@dataclass(frozen=True)
class FrameTargets:
    """Targets of one frame, in pixels."""

    points: Array
    """Landmarks ``[468,2]`` with the upper lids moved to the target gap."""
    lid_gap: Array
    """Target gap of the lids ``[2]``."""
    lid_down: Array
    """Directions of the gaps ``[2,2]``."""
    mouth: Array
    """Differences of :data:`MOUTH_PAIRS` ``[4,2]``."""
    gaze: Array
    """Iris less the middle of the eye's corners ``[2,2]``, in an eye as wide as the head's."""
    openness: Array
    """Openings of the eyes, 0..1 of the person's own ``[2]``."""
    scale: float
    """Distance of the outer eye corners."""


def frame_targets(landmarks: Array, pose: Pose, reference: LidReference, opened: Array) -> FrameTargets:
    """Return the targets of one frame.

    Args:
        landmarks: ``[478,2]`` pixels.
        pose: the head's approximate pose.
        reference: lid gaps of the person's head.
        opened: ``[2]`` this person's open eyes, from :func:`open_eyes`.
    """
    points = landmarks.copy()
    factor, closed = pose_factors(reference, pose)
    openness = (lid_ratios(landmarks) / factor - CLOSED_EYE) / (opened - CLOSED_EYE)
    openness = openness.clip(0.0, 1.8)
    ratio = _target_ratios(lid_ratios(landmarks), factor, closed)
    neutral = pose.project(reference.open_points)
    down, gap, gaze = [], [], []
    for i, eye in enumerate(EYES):
        across = landmarks[eye.inner] - landmarks[eye.outer]
        down.append(_down(across))
        gap.append(ratio[i] * np.linalg.norm(across))
        change = gap[i] - (landmarks[eye.lower] - landmarks[eye.upper]) @ down[i]
        points[list(eye.upper_lid)] -= change * reference.profile[i][:, None] * down[i]
        # in units of the eye, whose width the head may not quite reach
        narrower = np.linalg.norm(neutral[eye.inner] - neutral[eye.outer]) / np.linalg.norm(across)
        gaze.append(narrower * (landmarks[eye.iris] - (landmarks[eye.outer] + landmarks[eye.inner]) / 2))
    scale = pose.scale_px(outer_eye_distance(reference.open_points))
    first, second = MOUTH_PAIRS.T
    mouth = landmarks[first] - landmarks[second]
    # the mesh's lip points do not quite meet when its mouth is shut, nor do the landmark model's
    slack = neutral[first] - neutral[second] + CLOSED_LIPS * scale * np.mean(down, axis=0)
    mouth[:_LIP_GAPS] += slack[:_LIP_GAPS]
    return FrameTargets(
        points[:N_MESH], np.array(gap), np.array(down), mouth, np.array(gaze), openness, scale
    )
