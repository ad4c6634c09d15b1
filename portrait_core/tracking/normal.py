"""Normal equations of one frame's fit.

Unknowns in this order: rotation vector (3), crop centre (2), log side (1), expression (E), then, if the shape
is fitted too, shape (S). Residuals are pixels over the outer-eye distance, so weights fit any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.expression_names import is_direction
from portrait_core.face_model.head_points import HeadPoints, ShapedPoints
from portrait_core.face_model.topology import N_MESH
from portrait_core.settings import TrackingSettings
from portrait_core.tracking.projection import Pose
from portrait_core.tracking.terms import EYES, MOUTH_PAIRS, FrameTargets

Array = NDArray[np.float64]

_LID_WEIGHT = 20.0
_MOUTH_WEIGHT = 10.0
_GAZE_WEIGHT = 100.0
_DEFAULT_PRIOR = 0.03
_PRIORS = {
    "eyeBlink": 0.004,
    "jawOpen": 0.004,
    # enough to keep an eye from looking in and out at once
    "eyeLookIn": 0.004,
    "eyeLookOut": 0.004,
    "eyeLook": 0.001,
    "brow": 0.008,
    "mouthSmile": 0.015,
    "mouthPucker": 0.015,
    "mouthFunnel": 0.015,
    "mouthStretch": 0.03,
    "eyeWide": 0.02,
    "eyeSquint": 0.08,
    "mouthRoll": 0.08,
    "jawForward": 0.1,
    "noseSneer": 0.1,
    "cheekSquint": 0.1,
    # seen from the front these move no landmark, or undo another unit
    "cheekPuff": 1.0,
    "mouthClose": 1.0,
    "tongueOut": 1.0,
}
"""Inverse variance of expression units by the beginning of their names, in residual units."""


_DIRECTION_PRIORS = {"LipCorner": 0.0005, "Lip": 0.001, "Brow": 0.001, "": 0.005}
"""The same of the directions beyond the units, by a part of their names."""
_TOGETHER_UP = 0.5
_NOT_TO_EACH_OTHER = 0.05
"""Pulls of both eyes' heights together, and of the angle between their directions across toward 0. That one
is light, since eyes that look at something near turn to each other."""
_MIN_WEIGHT = 1e-4
_EXPRESSION_NOISE = 0.06
_POSE_NOISE = 0.02  # radians, outer-eye distances, log size
_TOGETHER = (
    ("eyeLookUpLeft", "eyeLookUpRight"),
    ("eyeLookDownLeft", "eyeLookDownRight"),
)


def expression_prior(names: Sequence[str]) -> Array:
    """Return the inverse prior covariance of the expression ``[E,E]``: near 0, eyes looking about one way."""

    def of(name: str) -> float:
        if is_direction(name):
            return next(value for part, value in _DIRECTION_PRIORS.items() if part in name)
        return next((value for start, value in _PRIORS.items() if name.startswith(start)), _DEFAULT_PRIOR)

    prior = np.diag([of(name) for name in names])
    for pair in _TOGETHER:
        if all(name in names for name in pair):
            index = [names.index(name) for name in pair]
            prior[np.ix_(index, index)] += _TOGETHER_UP * np.array([[1.0, -1.0], [-1.0, 1.0]])
    inward = np.array([float(name.startswith("eyeLookIn")) - name.startswith("eyeLookOut") for name in names])
    return np.asarray(prior + _NOT_TO_EACH_OTHER * np.outer(inward, inward))


@dataclass(frozen=True)
class NormalEquations:
    """A step x minimises ``x^T matrix x / 2 + gradient^T x``."""

    matrix: Array
    gradient: Array

    def with_prior(self, prior: Array, offset: Array) -> NormalEquations:
        """Add the prior ``[E,E]`` of the expression, which is ``offset [E]`` from its mean.

        A small number on the diagonal keeps the system definite.
        """
        matrix, gradient = self.matrix.copy(), self.gradient.copy()
        own = slice(6, 6 + len(prior))
        matrix[own, own] += prior
        gradient[own] += prior @ offset
        matrix[np.diag_indices(len(matrix))] += 1e-9
        return NormalEquations(matrix, gradient)

    def coupled(
        self, pose_step: Array, expression_step: Array, pose: float, expression: Array, scale: float
    ) -> NormalEquations:
        """Add the pull of weight ``pose`` and ``expression [E]`` toward the given steps.

        The pull fades where a step is larger than noise: a blink or a glance is not smoothed away.
        """
        step = np.concatenate([pose_step, expression_step])
        unit = np.ones(len(step))
        unit[3:5] = scale
        noise = np.full(len(step), _EXPRESSION_NOISE)
        noise[:6] = _POSE_NOISE
        weight = np.concatenate([np.full(6, pose), expression])
        weight /= unit**2 * (1.0 + (step / unit / noise) ** 2) ** 2
        return NormalEquations(self.matrix + np.diag(weight), self.gradient - weight * step)

    def given_shape_step(self, step: Array, n_units: int) -> NormalEquations:
        """Return the equations of pose and expression after the shape has taken ``step [S]``."""
        own = 6 + n_units
        gradient = self.gradient[:own] + self.matrix[:own, own:] @ step
        return NormalEquations(self.matrix[:own, :own], gradient)


def frame_equations(
    shaped: ShapedPoints,
    pose: Pose,
    expression: Array,
    targets: FrameTargets,
    weight: Array,
    settings: TrackingSettings,
    shape_of: HeadPoints | None = None,
) -> NormalEquations:
    """Linearise one frame's residuals at ``pose`` and ``expression [E]``.

    ``shape_of``, the head that ``shaped`` comes from, adds the shape to the unknowns.
    """
    points = shaped.points(expression)
    by_point = pose.pixel_derivative(points)
    pixels = pose.project(points)
    # scaled by their weights from the start: scaling the whole Jacobian costs as much as building it
    root = np.sqrt(np.maximum(weight, _MIN_WEIGHT)) / targets.scale
    columns = [root[:, None, None] * pose.pose_derivative(points, by_point)]
    by_point = root[:, None, None] * by_point
    columns.append(shaped.by_expression(by_point, expression))
    if shape_of is not None:
        columns.append(shape_of.by_shape(by_point, float(expression[shaped.jaw_index])))
    scaled = np.concatenate(columns, axis=2)  # k 2 n
    rows = [scaled[:N_MESH]]
    residuals = [((pixels[:N_MESH] - targets.points) * root[:N_MESH, None]).ravel()]
    more_rows, more_residuals = _feature_rows(scaled, root * targets.scale, pixels, targets, settings)
    stacked = np.concatenate([row.reshape(-1, scaled.shape[2]) for row in rows + more_rows])
    residual = np.concatenate(residuals + more_residuals)
    return NormalEquations(stacked.T @ stacked, stacked.T @ residual)


def _feature_rows(
    scaled: Array, root: Array, pixels: Array, targets: FrameTargets, settings: TrackingSettings
) -> tuple[list[Array], list[Array]]:
    """Return rows and residuals of mouth, lids, gaze; ``scaled [478,2,n]``: Jacobian times ``root``."""
    rows, residuals = [], []

    def jacobian(index: NDArray[np.intp] | int) -> Array:
        return np.asarray(scaled[index] / np.asarray(root[index])[..., None, None])

    first, second = MOUTH_PAIRS.T
    mouth = np.sqrt(_MOUTH_WEIGHT)
    rows.append(mouth * (jacobian(first) - jacobian(second)))
    residuals.append(mouth * (pixels[first] - pixels[second] - targets.mouth).ravel() / targets.scale)

    lid = np.sqrt(_LID_WEIGHT * settings.eye_closure_weight)
    for i, eye in enumerate(EYES):
        down = targets.lid_down[i]
        rows.append(lid * down @ (jacobian(eye.lower) - jacobian(eye.upper))[None])
        gap = (pixels[eye.lower] - pixels[eye.upper]) @ down
        residuals.append(lid * np.atleast_1d(gap - targets.lid_gap[i]) / targets.scale)
        # where the lids cover the iris its points are guesses
        gaze = np.sqrt(_GAZE_WEIGHT * settings.gaze_weight) * min(targets.openness[i], 1.0)
        middle = (jacobian(eye.outer) + jacobian(eye.inner)) / 2
        rows.append(gaze * (jacobian(eye.iris) - middle))
        seen = pixels[eye.iris] - (pixels[eye.outer] + pixels[eye.inner]) / 2
        residuals.append(gaze * (seen - targets.gaze[i]) / targets.scale)
    return rows, residuals
