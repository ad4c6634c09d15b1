"""The parameters of a synthetic person and their latent vector.

``z`` = 30 shape components, 49 face units, 41 appearance values (:data:`APPEARANCE`), each of roughly unit
variance. A picture is a deterministic function of ``z`` and the camera, and a tracker's fit fills the first
two blocks (:func:`z_from_fit`); zeros in the third are an average person in an average light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from portrait_core.cameras import orbit_labels

Array = NDArray[np.floating[Any]]

N_SHAPE = 30
N_SHAPE_HEAD = 50
SHAPE_SCALE = 0.95
UNITS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""The embedded head's 52 face units, in its order, for code that has no head at hand."""
NOT_FITTED = ("tongueOut", "mouthClose", "cheekPuff")
N_EXPRESSION = 49
APPEARANCE = (
    "skin_tone", "skin_warmth", "skin_red", "lip_red", "lip_dark", "iris_light", "iris_green",
    "hair_tone", "hair_red", "hair_grey", "hair_length", "hair_volume", "hair_fringe", "hair_line",
    "hair_sweep", "hair_wave", "beard", "moustache", "brow_dark", "brow_width", "lash", "blush", "freckles",
    "eye_shade", "light_side", "light_height", "light_key", "light_warmth", "cloth_light", "cloth_red",
    "cloth_blue", "collar", "collar_open", "wall_light", "wall_red", "wall_blue", "wall_gradient",
    "wall_turn", "wall_blobs", "wall_stripes", "glasses",
)  # fmt: skip
"""Names of the appearance block, in order. Each is standard normal (clipped to 2.5)."""
N_LATENT = N_SHAPE + N_EXPRESSION + len(APPEARANCE)
EXPRESSION_MEAN, JAW_MEAN, EXPRESSION_GAIN = 0.12, 0.30, 3.0


@dataclass(frozen=True)
class Scene:
    """One synthetic person with one expression in one light.

    shape: ``[30]`` in standard deviations of the head's shape components; expression: ``[52]`` in 0..1 in
    the head's order; appearance: ``[41]`` standard normal values named by :data:`APPEARANCE`.
    """

    shape: Array
    expression: Array
    appearance: Array
    expression_names: tuple[str, ...]

    def value(self, name: str) -> float:
        """Return a raw appearance value, about -2.5..2.5."""
        return float(self.appearance[APPEARANCE.index(name)])

    def share(self, name: str) -> float:
        """Return an appearance value as its quantile, uniform in 0..1."""
        return float(ndtr(self.value(name)))

    def full_shape(self) -> Array:
        """Return the shape code ``[1,50]`` for the head."""
        return np.pad(self.shape, (0, N_SHAPE_HEAD - N_SHAPE))[None]


def fitted_names(expression_names: Sequence[str]) -> list[str]:
    """Return the 49 face units in the latent vector, in the head's order."""
    return [name for name in expression_names if name not in NOT_FITTED]


def _fitted_index(names: Sequence[str]) -> list[int]:
    index = [i for i, name in enumerate(names) if name not in NOT_FITTED]
    if len(index) != N_EXPRESSION:
        raise ValueError(
            f"expected {N_EXPRESSION} fitted units among the expression names, got {len(index)}; "
            "pass the embedded head's expression_names"
        )
    return index


def _unit_mean(names: Sequence[str]) -> Array:
    fitted = fitted_names(names)
    return np.array([JAW_MEAN if name == "jawOpen" else EXPRESSION_MEAN for name in fitted], dtype=np.float32)


def latent_from_scene(scene: Scene) -> Array:
    """Return the latent vector ``[120]`` float32 of a scene."""
    return z_from_fit(scene.full_shape()[0], scene.expression, scene.expression_names, scene.appearance)


def z_from_fit(
    shape: NDArray[np.floating],
    expression: NDArray[np.floating],
    expression_names: Sequence[str],
    appearance: NDArray[np.floating] | None = None,
) -> Array:
    """Return the latent vector of a tracker's fit.

    Args:
        shape: ``[..., S]`` in standard deviations, at least 30 components (only the first 30 are used).
        expression: ``[..., 52]`` in 0..1.
        expression_names: the head's names of the 52 units.
        appearance: ``[..., 41]`` or None for an average person.

    Returns:
        ``[..., 120]`` float32.
    """
    shape, expression = np.asarray(shape, np.float32), np.asarray(expression, np.float32)
    if shape.shape[-1] < N_SHAPE:
        raise ValueError(
            f"shape has {shape.shape[-1]} components, expected at least {N_SHAPE}; pad with zeros"
        )
    index = _fitted_index(expression_names)
    lead = np.broadcast_shapes(shape.shape[:-1], expression.shape[:-1])
    look = np.zeros(len(APPEARANCE), np.float32) if appearance is None else np.asarray(appearance, np.float32)
    units = (expression[..., index] - _unit_mean(expression_names)) * EXPRESSION_GAIN
    parts = [shape[..., :N_SHAPE], units, look]
    return np.concatenate([np.broadcast_to(p, (*lead, p.shape[-1])) for p in parts], -1).astype(np.float32)


def scene_from_latent(z: NDArray[np.floating], expression_names: Sequence[str]) -> Scene:
    """Return the scene that ``[120]`` values describe; the inverse of :func:`latent_from_scene`."""
    z = np.asarray(z, dtype=np.float32)
    if z.shape != (N_LATENT,):
        raise ValueError(f"latent has shape {z.shape}, expected ({N_LATENT},); pass one vector")
    expression = np.zeros(len(expression_names), dtype=np.float32)
    units = z[N_SHAPE : N_SHAPE + N_EXPRESSION] / EXPRESSION_GAIN + _unit_mean(expression_names)
    expression[_fitted_index(expression_names)] = units
    return Scene(z[:N_SHAPE], expression, z[N_SHAPE + N_EXPRESSION :], tuple(expression_names))


def sample_scene(
    rng: np.random.Generator, expression_names: Sequence[str], spread: float = 1.0, glasses: bool = False
) -> Scene:
    """Draw a person, an expression and a light.

    ``spread`` below 1 keeps people and lights nearer to the average (appearance by that factor, shape by half
    as much), expressions as strong as ever. Where ``glasses`` is true a quarter of the people wear some, else
    nobody does; they are drawn beside the stream of the rest, so a seed's people are the same with them.
    """
    shape = np.clip(rng.normal(size=N_SHAPE), -2.5, 2.5) * SHAPE_SCALE * (0.5 + 0.5 * spread)
    expression = sample_expression(rng, list(expression_names))
    appearance = np.append(rng.normal(size=len(APPEARANCE) - 1), 0.0)
    if glasses:
        appearance[APPEARANCE.index("glasses")] = rng.spawn(1)[0].normal()
    appearance = np.clip(appearance, -2.5, 2.5) * spread
    return Scene(shape.astype(np.float32), expression, appearance.astype(np.float32), tuple(expression_names))


def sample_expression(rng: np.random.Generator, names: list[str]) -> Array:
    """Draw face units ``[52]``: strong, mostly symmetric; often an open jaw, a blink, a smile, a gaze."""
    value = dict.fromkeys(names, 0.0)
    plain = [n for n in fitted_names(names) if not n.startswith(("eyeLook", "eyeBlink"))]
    for _ in range(rng.integers(0, 8)):
        value[plain[rng.integers(len(plain))]] = rng.beta(1.2, 1.6)
    for left in plain:
        right = left.replace("Left", "Right")
        tied = left.endswith("Left") and left not in ("jawLeft", "mouthLeft")
        if tied and rng.random() < 0.8:
            value[left] = value[right] = max(value[left], value[right])
    u = rng.random()
    value["jawOpen"] = rng.random() if u < 0.55 else 0.2 * rng.random() if u < 0.65 else 0.0
    u, closing = rng.random(), rng.random() ** 0.5
    side = "Left" if rng.random() < 0.5 else "Right"
    if u < 0.35:
        value["eyeBlinkLeft"] = value["eyeBlinkRight"] = closing
    elif u < 0.42:
        value[f"eyeBlink{side}"] = closing
    if rng.random() < 0.3:
        value["mouthSmileLeft"] = value["mouthSmileRight"] = rng.random()
    if rng.random() < 0.5:
        value.update(gaze_units(rng.uniform(-0.9, 0.9), rng.uniform(-0.8, 0.8)))
    return np.array([value[name] for name in names], dtype=np.float32)


def gaze_units(right: float, up: float) -> dict[str, float]:
    """Return the eyeLook coefficients of a gaze to the image's ``right`` and ``up``, -1..1 each."""
    return {
        "eyeLookOutLeft": max(right, 0.0), "eyeLookInRight": max(right, 0.0),
        "eyeLookInLeft": max(-right, 0.0), "eyeLookOutRight": max(-right, 0.0),
        "eyeLookUpLeft": max(up, 0.0), "eyeLookUpRight": max(up, 0.0),
        "eyeLookDownLeft": max(-up, 0.0), "eyeLookDownRight": max(-up, 0.0),
    }  # fmt: skip


def sample_camera(rng: np.random.Generator) -> Array:
    """Draw a camera label ``[25]``: half of them near the front, half anywhere in yaw ±45°, pitch ±25°."""
    if rng.random() < 0.5:
        yaw, pitch = np.clip(rng.normal(0, 0.33), -0.8, 0.8), np.clip(rng.normal(0, 0.18), -0.45, 0.45)
    else:
        yaw, pitch = rng.uniform(-0.8, 0.8), rng.uniform(-0.45, 0.45)
    roll = np.clip(rng.normal(0, 0.12), -0.4, 0.4)
    return orbit_labels(float(yaw), float(pitch), float(roll))[0]
