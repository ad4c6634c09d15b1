"""Fits the morphable head to landmarks: head pose, crop and expression per frame; one shape per clip.

Regularised Gauss-Newton with analytic derivatives and bounds (``expression_names.expression_limits``). Shape
and units are fitted first; directions beyond the units take what these leave over. The rigid unknowns are the
head's rotation and the crop (centre, side); with the camera's fixed radius and focal length they are the
camera label, so projecting the head with the label into the crop is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from portrait_core.cameras import labels_from_rotations
from portrait_core.errors import InputError
from portrait_core.face_model.directions import handle_points
from portrait_core.face_model.expression_names import expression_limits, is_direction, region_of
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.head_points import HeadPoints, ShapedPoints, outer_eye_distance
from portrait_core.face_model.topology import LIPS, N_MESH, N_POINTS
from portrait_core.settings import TrackingSettings
from portrait_core.tracking.normal import NormalEquations, expression_prior, frame_equations
from portrait_core.tracking.projection import Pose, mean_pose, pose_from_points
from portrait_core.tracking.quadratic import solve_bounded
from portrait_core.tracking.terms import (
    EYES,
    FrameTargets,
    LidReference,
    frame_targets,
    lid_ratios,
    open_eyes,
    pose_factors,
)

Array = NDArray[np.float64]

_BASELINE_FRAMES = 12
"""A clip of fewer frames is taken at its word about how far its eyes are open."""
_SHAPE_ITERATIONS = 8
_SMOOTHING_ITERATIONS = 3
_SHAPE_PRIOR = 0.003
_SIZE_PRIOR = 1000.0
_BROW_PRIOR = 0.3
_DIRECTION_PRIOR = 1.0
"""Pull of the directions toward 0 while shape and units are fitted, which come first."""
_SETTLED_PRIOR = 0.1
"""Pull of lips' and brows' units toward what they were without directions, which take what is left over."""
_SETTLED_HANDLES = 4.0
"""Factor of the weight of handles' landmarks while directions are fitted: the skin between handles does not
follow a thin plate exactly, and would hold them back by a tenth of the way."""
_WIDE_OPENNESS = 0.36
"""Opening that eyeWide at 1 adds to the eyes of the head at rest."""
_POSE_COUPLING = 200.0
_EXPRESSION_COUPLING = 0.2
_DIRECTION_COUPLING = 16.0
"""Directions follow single landmarks, whose noise is theirs."""
_EYE_CORNER_COUPLING = 10.0
"""Smoothed more than this, eyes' corners would leave the irises, which are read between them, to tremble."""
_OFFSET_PRIOR = 1.0
_CONVERGED = 3e-3


@dataclass(frozen=True)
class FaceTrack:
    """The fit of T frames with one face.

    ``shape [S]`` sigmas; ``expression [T,E]`` coefficients of the head's expressions, in its order (the
    embedded head's within ``expression_names.expression_limits``); ``jaw [T,3]`` axis-angle in radians;
    ``rotation [T,3,3]`` head axes to viewer axes; ``crop_center_px [T,2]`` and ``crop_side_px [T]`` the crop
    in the frame; ``cameras [T,25]`` labels; ``fit_error [T]`` mean landmark distance over the outer-eye
    distance; ``ok [T]``. All float32 but ``ok``. A frame that is not ok repeats its nearest neighbour that
    is (the earlier one of two), with a NaN error.
    """

    shape: NDArray[np.float32]
    expression: NDArray[np.float32]
    jaw: NDArray[np.float32]
    rotation: NDArray[np.float32]
    crop_center_px: NDArray[np.float32]
    crop_side_px: NDArray[np.float32]
    cameras: NDArray[np.float32]
    fit_error: NDArray[np.float32]
    ok: NDArray[np.bool_]


def with_rows_of(track: FaceTrack, rows: NDArray[np.intp], ok: NDArray[np.bool_]) -> FaceTrack:
    """Give the track of T frames that take the values of ``rows [T]``, and are ``ok [T]``."""
    taken = {f.name: getattr(track, f.name) for f in fields(track) if f.name not in ("shape", "ok")}
    return replace(track, **{name: values[rows] for name, values in taken.items()}, ok=ok)


@dataclass
class _State:
    """The changing part of one frame's fit."""

    pose: Pose
    expression: Array


def fit_clip(
    head: MorphableHead,
    landmarks: NDArray[np.floating],
    ok: NDArray[np.bool_],
    settings: TrackingSettings | None = None,
    shape: NDArray[np.floating] | None = None,
    cuts: NDArray[np.bool_] | None = None,
) -> FaceTrack:
    """Fit a clip, or with T = 1 a portrait.

    Args:
        head: a head with the 478 landmarks (the embedded one).
        landmarks: ``[T,478,2]`` pixels, from :class:`FaceLandmarker`; rows that are not ok are ignored.
        ok: ``[T]`` whether a face was found.
        settings: weights and iterations.
        shape: ``[S]`` a known shape to hold; else it is fitted to frames spread over the clip.
        cuts: ``[T]`` whether a new scene begins with the frame: frames of two scenes do not pull at each
            other. None is one scene.

    Raises:
        InputError: if no frame is ok.
        ValueError: if the arrays' shapes do not fit together or the head has no face-mesh landmarks.
    """
    settings = settings or TrackingSettings()
    pixels = _checked(landmarks, ok)
    points = HeadPoints.from_head(head)
    frames = np.flatnonzero(ok)
    scenes = np.zeros(len(frames), int) if cuts is None else np.cumsum(cuts, dtype=int)[frames]
    solver = _ClipFit(points, settings, pixels[frames], scenes)
    fitted = solver.fit_shape() if shape is None else _checked_shape(shape, points.shapes.shape[-1])
    solver.fit_frames(fitted)
    return _track(solver, fitted, frames, np.asarray(ok, dtype=bool), head)


class _ClipFit:
    """Fits the frames that have a face: ``pixels [n,478,2]``, and ``scenes [n]``, numbers of their scenes."""

    def __init__(
        self, points: HeadPoints, settings: TrackingSettings, pixels: Array, scenes: NDArray[np.integer]
    ) -> None:
        self.points = points
        self.settings = settings
        self.pixels = pixels
        self.scenes = scenes
        self.prior = expression_prior(points.names) * max(settings.expression_weight, 1e-3)
        brows = np.array([name.startswith("brow") for name in points.names])
        self.brow_prior = _BROW_PRIOR * np.diag(brows.astype(np.float64))
        self.units = np.array([not is_direction(name) for name in points.names])
        self.direction_prior = _DIRECTION_PRIOR * np.diag((~self.units).astype(np.float64))
        self.coupling = np.where(self.units, _EXPRESSION_COUPLING, _DIRECTION_COUPLING)
        self.coupling[["EyeCorner" in name for name in points.names]] = _EYE_CORNER_COUPLING
        self.settled_prior = self.prior + _SETTLED_PRIOR * np.diag(
            [float(not is_direction(n) and region_of(n) in ("mouth", "brows")) for n in points.names]
        )
        self.settled_weight = points.weight.copy()
        self.settled_weight[handle_points()] *= _SETTLED_HANDLES
        self.settled: list[Array] | None = None
        self.lowest, self.highest = expression_limits(points.names)
        units = len(points.names)
        mean = points.with_shape(np.zeros(points.shapes.shape[-1]))
        self.states = [_State(self._rigid(mean, frame), np.zeros(units)) for frame in pixels]
        self.shaped = mean
        self.targets: list[FrameTargets] = []
        self.few = len(pixels) < _BASELINE_FRAMES
        self.offsets = np.zeros((N_POINTS, 3))

    def _rigid(self, mean: ShapedPoints, pixels: Array) -> Pose:
        """Find a first pose from the points that expression moves little."""
        weight = self.points.weight[:N_MESH].copy()
        weight[LIPS] = 0.0
        return pose_from_points(mean.rest[:N_MESH], pixels[:N_MESH], weight)

    def fit_shape(self) -> Array:
        """Fit one shape to frames spread over the clip, with their poses and expressions: ``[S]``."""
        count = min(self.settings.shape_frames, len(self.pixels))
        chosen = np.unique(np.linspace(0, len(self.pixels) - 1, count).round().astype(int))
        shape = np.zeros(self.points.shapes.shape[-1])
        # one image does not tell a large head far away from a small one nearby: hold the size
        size = self.points.size_gradient()
        prior = _SHAPE_PRIOR * max(self.settings.shape_weight, 1e-3) * np.eye(len(shape))
        prior = (prior + _SIZE_PRIOR * np.outer(size, size)) * len(chosen)
        for _ in range(_SHAPE_ITERATIONS):
            self._aim(shape, chosen)
            equations = [self._shape_equations(int(i)) for i in chosen]
            step = self._shape_step(equations, chosen, shape, prior)
            shape = shape + step
            for i, part in zip(chosen, equations, strict=True):
                self._advance(int(i), part.given_shape_step(step, len(self.prior)))
            if np.abs(step).max() < 0.03:
                break
        return shape

    def _shape_step(
        self, equations: list[NormalEquations], chosen: NDArray[np.integer], shape: Array, prior: Array
    ) -> Array:
        """Solve for the shape's Gauss-Newton step with the frames' own unknowns eliminated (Schur)."""
        own = 6 + len(self.prior)
        matrix, gradient = prior, prior @ shape
        for i, part in zip(chosen, equations, strict=True):
            slope, expression = part.gradient[6:own], self.states[i].expression
            held = (expression <= self.lowest) & (slope > 0) | (expression >= self.highest) & (slope < 0)
            free = np.concatenate([np.arange(6), 6 + np.flatnonzero(~held)])
            factor = cho_factor(part.matrix[np.ix_(free, free)])
            cross = part.matrix[free, own:]
            matrix = matrix + part.matrix[own:, own:] - cross.T @ cho_solve(factor, cross)
            gradient = gradient + part.gradient[own:] - cross.T @ cho_solve(factor, part.gradient[free])
        return np.asarray(-np.linalg.solve(matrix, gradient))

    def fit_frames(self, shape: Array) -> None:
        """Fit pose and expression of every frame, then once more with the pull of the scene's neighbours."""
        everything = np.arange(len(self.pixels))
        self._aim(shape, everything)
        if self.few:
            self.prior = self.prior + self.brow_prior
        else:
            self._place_brows()
            self._aim(shape, everything)
        self._converge()
        self._aim(shape, everything)
        if self.direction_prior.any():
            self.settled = [np.where(self.units, state.expression, 0.0) for state in self.states]
            self._converge()
        before = [_State(state.pose, state.expression) for state in self.states]
        inner = self.scenes[2:] == self.scenes[:-2]
        for i in everything[1:-1][inner]:
            around = before[i - 1], before[i + 1]
            for _ in range(_SMOOTHING_ITERATIONS):
                if self._advance(int(i), self._coupled(int(i), around)) < _CONVERGED:
                    break

    def _converge(self) -> None:
        """Step every frame's pose and expression until they stand still."""
        for i in range(len(self.pixels)):
            for _ in range(self.settings.iterations):
                if self._advance(i, self._equations(i)) < _CONVERGED:
                    break

    def _place_brows(self) -> None:
        """Make this person's mean brows the head's brows at rest: low brows look like lowered ones.

        They move across and up. Their depth is the head's: in a clip it would follow from how brows shift as
        the head nods, which people raise their brows with.
        """
        sums, wanted = np.zeros((N_POINTS, 2, 2)), np.zeros((N_POINTS, 2))
        sums += _OFFSET_PRIOR * np.eye(2)
        chosen = np.linspace(0, len(self.pixels) - 1, _BASELINE_FRAMES * 2).round().astype(int)
        for i in np.unique(chosen):
            state = self.states[i]
            points = self.shaped.points(state.expression)
            by_point = state.pose.pixel_derivative(points)[..., :2] / self.targets[i].scale
            apart = (self.pixels[i] - state.pose.project(points)) / self.targets[i].scale
            sums += by_point.transpose(0, 2, 1) @ by_point
            wanted += np.einsum("kic,ki->kc", by_point, apart)
        brows = self.points.brow_points()
        self.offsets[brows, :2] = np.linalg.solve(sums[brows], wanted[brows][..., None])[..., 0]

    def _aim(self, shape: Array, frames: NDArray[np.integer]) -> None:
        """Set the shape and, from the present poses, the targets of ``frames``."""
        self.shaped = self.points.with_shape(shape, self.offsets)
        reference = LidReference.of(self.points, self.shaped)
        ratios = [
            lid_ratios(self.pixels[i]) / pose_factors(reference, self.states[i].pose)[0] for i in frames
        ]
        opened = open_eyes(np.array(ratios), few=_BASELINE_FRAMES)
        aimed = {
            int(i): frame_targets(self.pixels[i], self.states[i].pose, reference, opened) for i in frames
        }
        self.targets = [aimed.get(i) or aimed[int(frames[0])] for i in range(len(self.pixels))]

    def _equations(self, i: int) -> NormalEquations:
        state, settles = self.states[i], self.settled is not None
        weight = self.settled_weight if settles else self.points.weight
        equations = frame_equations(
            self.shaped, state.pose, state.expression, self.targets[i], weight, self.settings
        )
        if self.settled is None:
            return equations.with_prior(self.prior + self.direction_prior, state.expression)
        return equations.with_prior(self.settled_prior, state.expression - self.settled[i])

    def _shape_equations(self, i: int) -> NormalEquations:
        """Return a frame's equations with the shape among the unknowns.

        The blinks and wide eyes that the lids' opening tells are held, so that the rest of the eyes' look
        goes to the shape.
        """
        state, targets = self.states[i], self.targets[i]
        weight = self.points.weight
        equations = frame_equations(
            self.shaped, state.pose, state.expression, targets, weight, self.settings, self.points
        )
        prior, mean = self.prior + self.brow_prior + self.direction_prior, np.zeros(len(self.prior))
        for eye, openness in zip(EYES, targets.openness, strict=True):
            for name, value in (("eyeBlink", 1.0 - openness), ("eyeWide", (openness - 1.0) / _WIDE_OPENNESS)):
                unit = self.points.names.index(name + eye.side)
                prior[unit, unit], mean[unit] = 1.0, np.clip(value, 0.0, 1.0)
        return equations.with_prior(prior, state.expression - mean)

    def _coupled(self, i: int, around: tuple[_State, _State]) -> NormalEquations:
        state = self.states[i]
        wanted = mean_pose([neighbour.pose for neighbour in around])
        expression = (around[0].expression + around[1].expression) / 2
        return self._equations(i).coupled(
            state.pose.towards(wanted),
            expression - state.expression,
            _POSE_COUPLING * self.settings.smooth_pose,
            self.coupling * self.settings.smooth_expression,
            self.targets[i].scale,
        )

    def _advance(self, i: int, equations: NormalEquations) -> float:
        """Take one bounded Gauss-Newton step; returns its size."""
        state = self.states[i]
        lower = np.concatenate([np.full(6, -np.inf), self.lowest - state.expression])
        upper = np.concatenate([np.full(6, np.inf), self.highest - state.expression])
        step = solve_bounded(equations.matrix, equations.gradient, lower, upper)
        state.pose = state.pose.moved(step[:6])
        state.expression = (state.expression + step[6:]).clip(self.lowest, self.highest)
        scale = self.targets[i].scale
        return float(max(np.abs(step[:3]).max(), np.abs(step[3:5]).max() / scale, np.abs(step[5:]).max()))


def _track(
    solver: _ClipFit, shape: Array, frames: NDArray[np.intp], ok: NDArray[np.bool_], head: MorphableHead
) -> FaceTrack:
    """Assemble the result, with frames that are not ok held from their nearest neighbour."""
    nearest = np.abs(np.arange(len(ok))[:, None] - frames[None]).argmin(axis=1)
    states = [solver.states[i] for i in nearest]
    expression = np.stack([state.expression for state in states])
    rotation = np.stack([state.pose.rotation for state in states])
    errors = np.array(
        [_error(solver.shaped, s, p) for s, p in zip(solver.states, solver.pixels, strict=True)]
    )
    jaw = np.zeros((len(ok), 3))
    jaw[:, 0] = head.jaw_open_angle_rad * expression[:, head.index("jawOpen")]
    return FaceTrack(
        shape=shape.astype(np.float32),
        expression=expression.astype(np.float32),
        jaw=jaw.astype(np.float32),
        rotation=rotation.astype(np.float32),
        crop_center_px=np.stack([state.pose.center for state in states]).astype(np.float32),
        crop_side_px=np.array([state.pose.side for state in states], dtype=np.float32),
        cameras=labels_from_rotations(rotation),
        fit_error=np.where(ok, errors[nearest], np.nan).astype(np.float32),
        ok=ok,
    )


def _error(shaped: ShapedPoints, state: _State, pixels: Array) -> float:
    points = shaped.points(state.expression)
    outer = state.pose.scale_px(outer_eye_distance(points))
    distance = np.linalg.norm(state.pose.project(points)[:N_MESH] - pixels[:N_MESH], axis=1)
    return float(distance.mean() / outer)


def _checked(landmarks: NDArray[np.floating], ok: NDArray[np.bool_]) -> Array:
    if landmarks.ndim != 3 or landmarks.shape[1:] != (N_POINTS, 2) or len(ok) != len(landmarks):
        raise ValueError(
            f"expected landmarks [T,478,2] and ok [T], got {landmarks.shape} and {np.shape(ok)}; pass what "
            "FaceLandmarker.detect returns"
        )
    if not np.any(ok):
        raise InputError(f"no face was found in any of {len(ok)} frames; there is nothing to fit")
    pixels = np.asarray(landmarks, dtype=np.float64)
    if not np.isfinite(pixels[np.asarray(ok, dtype=bool)]).all():
        raise ValueError("landmarks of frames marked ok are not finite; mark those frames as not ok")
    return pixels


def _checked_shape(shape: NDArray[np.floating], n_shape: int) -> Array:
    if np.shape(shape) != (n_shape,):
        raise ValueError(
            f"expected shape [{n_shape}], got {np.shape(shape)}; pass FaceTrack.shape of this head"
        )
    return np.asarray(shape, dtype=np.float64)
