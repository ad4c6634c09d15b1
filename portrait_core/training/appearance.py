"""Conversion of appearance values to colours, hair cut, clothing, light and background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.easing import smoothstep
from portrait_core.generators.scene_latents import Scene
from portrait_core.training.albedo import Paint
from portrait_core.training.hair import HairStyle
from portrait_core.training.surfaces import Array
from portrait_core.training.torso import Clothing

SKIN_TONES = np.array(
    [[0.91, 0.75, 0.68], [0.88, 0.68, 0.56], [0.80, 0.57, 0.43], [0.58, 0.37, 0.26], [0.36, 0.215, 0.15],
     [0.20, 0.12, 0.088]]
)  # fmt: skip
HAIR_TONES = np.array(
    [[0.035, 0.03, 0.03], [0.10, 0.065, 0.045], [0.24, 0.15, 0.09], [0.44, 0.30, 0.17], [0.74, 0.58, 0.36]]
)
WALL_SIZE = 64
WALL_Z = -0.4
"""Depth of the background plane in box units."""
WALL_HALF = 0.8
"""Half of the background plane's width in box units."""


@dataclass(frozen=True)
class Light:
    """Lighting of a scene.

    ``toward [3]`` is the unit vector to the key light; ``key``, ``ambient``, ``fill`` are colours ``[3]``.
    """

    toward: Array
    key: Array
    ambient: Array
    fill: Array


def ramp(table: Array, t: float) -> Array:
    """Interpolate the colour at ``t`` in 0..1 along a table of colours ``[n,3]``."""
    at = np.linspace(0, 1, len(table))
    return np.stack([np.interp(t, at, table[:, c]) for c in range(3)])


def skin_colour(scene: Scene) -> Array:
    """Return the skin albedo ``[3]``, from very pale to very dark."""
    skin = ramp(SKIN_TONES, scene.share("skin_tone"))
    warm = np.array([0.02, 0.0, -0.03]) * scene.value("skin_warmth") + 1.0
    return skin * warm * (1 + np.array([0.02, -0.025, -0.02]) * scene.value("skin_red"))


def lip_colour(scene: Scene, skin: Array) -> Array:
    """Return the lip albedo ``[3]``: redder than the skin, sometimes painted."""
    red = skin * np.array([0.90, 0.62, 0.62]) * (1 + np.array([0.03, -0.06, -0.05]) * scene.value("lip_red"))
    paint = smoothstep(0.8, 2.0, scene.value("lip_dark"))
    lip = red * (1 - 0.07 * np.clip(scene.value("lip_dark"), -1.5, 1.5))
    return lip + 0.75 * paint * (np.array([0.55, 0.10, 0.14]) - lip)


def hair_colour(scene: Scene) -> Array:
    """Return the hair albedo ``[3]``: black to blond, some red, some grey."""
    hair = ramp(HAIR_TONES, scene.share("hair_tone"))
    red = smoothstep(0.6, 2.0, scene.value("hair_red"))
    hair = hair * (1 + red * np.array([0.55, -0.12, -0.45]))
    grey = smoothstep(0.7, 2.0, scene.value("hair_grey"))
    return np.clip(hair + grey * (np.array([0.66, 0.65, 0.64]) - hair), 0.02, 0.9)


def hair_style(scene: Scene) -> HairStyle:
    """Return the hair style: bald below a length of 0.1, short up to 0.5, then to the collar and beyond."""
    length = scene.share("hair_length")
    return HairStyle(
        cover=float(smoothstep(0.03, 0.13, length)),
        length_m=float(np.clip((length - 0.5) / 0.5, 0, 1) * 0.20),
        volume_m=float(0.003 + 0.026 * scene.share("hair_volume") * smoothstep(0.05, 0.4, length)),
        fringe_rad=float(np.radians(28.0) * smoothstep(0.35, 1.8, scene.value("hair_fringe"))),
        recede_rad=float(np.radians(14.0) * smoothstep(-0.2, 2.3, scene.value("hair_line"))),
        wave=scene.share("hair_wave"),
        sweep=float(np.clip(scene.value("hair_sweep") / 2, -1, 1)),
    )


def paint_of(scene: Scene) -> Paint:
    """Return the strengths of brows, beard and other painted detail, and the colours they need."""
    brown, light = np.array([0.17, 0.095, 0.05]), np.array([0.30, 0.41, 0.48])
    iris = brown + smoothstep(0.3, 1.2, scene.value("iris_light")) * (light - brown)
    iris = iris * (1 + 0.18 * scene.value("iris_green") * np.array([-0.3, 0.6, -0.4]))
    return Paint(
        skin=skin_colour(scene),
        hair=hair_colour(scene),
        iris=np.clip(iris, 0.03, 0.8),
        brow=0.5 + 0.5 * scene.share("brow_dark"),
        brow_width=scene.share("brow_width"),
        beard=0.92 * float(smoothstep(0.5, 0.95, scene.share("beard"))),
        moustache=0.92 * float(smoothstep(0.55, 0.95, max(scene.share("moustache"), scene.share("beard")))),
        blush=float(smoothstep(-0.5, 2.0, scene.value("blush"))),
        freckles=float(smoothstep(0.5, 2.0, scene.value("freckles"))),
        eye_shade=scene.share("eye_shade"),
        strands=scene.share("hair_wave"),
        pattern=float(smoothstep(0.4, 1.4, -scene.value("collar_open"))),
        cloth_ratio=np.clip(1 + 0.5 * np.sign(0.45 - scene.share("cloth_light")) * np.ones(3), 0.4, 1.6),
    )


def clothing_of(scene: Scene) -> Clothing:
    """Return the clothing, with collars from none to a turtleneck."""
    collar = scene.share("collar")
    return Clothing(
        collar_m=float(0.004 + 0.042 * smoothstep(0.25, 1.0, collar)),
        flare=float(0.2 + 0.8 * smoothstep(-0.5, 1.0, scene.value("collar_open"))),
        open_front=float(smoothstep(-0.2, 1.2, scene.value("collar_open"))),
        slope=float(np.clip(scene.value("collar_open") / 3, -1, 1)),
    )


def cloth_colour(scene: Scene) -> Array:
    """Return the cloth albedo ``[3]``."""
    base = 0.03 + 0.80 * scene.share("cloth_light") ** 1.3
    tint = np.array([0.22 * scene.value("cloth_red"), 0.0, 0.22 * scene.value("cloth_blue")])
    return np.clip(base * np.exp(tint - tint.mean()), 0.02, 0.92)


def light_of(scene: Scene) -> Light:
    """Return a key light from the front half, an ambient light and a weak fill from the other side."""
    side, height = 0.65 * scene.value("light_side"), 0.45 + 0.28 * scene.value("light_height")
    toward = np.array([np.sin(side) * np.cos(height), np.sin(height), np.cos(side) * np.cos(height)])
    share = scene.share("light_key")
    warm = 1 + 0.035 * scene.value("light_warmth") * np.array([1.0, 0.1, -1.1])
    return Light(
        toward=toward,
        key=(0.25 + 0.75 * share) * warm,
        ambient=(0.72 - 0.42 * share) * (2 - warm),
        fill=np.full(3, 0.16),
    )


def wall_picture(scene: Scene) -> NDArray[np.uint8]:
    """Draw the background plane ``[64,64,3]`` uint8: two-colour gradient, soft blobs, vertical stripes."""
    centre = (np.arange(WALL_SIZE) + 0.5) / WALL_SIZE * 2 - 1
    v, u = np.meshgrid(centre, centre, indexing="ij")
    base = 0.06 + 0.88 * scene.share("wall_light")
    tint = np.array([0.16 * scene.value("wall_red"), 0.0, 0.16 * scene.value("wall_blue")])
    colour = base * np.exp(tint - tint.mean())
    turn = scene.value("wall_turn")
    slant = np.clip((u * np.sin(turn) - v * np.cos(turn)) / 0.7, -1, 1)
    strength = 0.22 * scene.value("wall_gradient") * slant
    blobs = np.zeros_like(u)
    for x, y, width, sign in (
        (-0.45, -0.2, 0.22, 1),
        (0.5, -0.4, 0.3, -1),
        (0.35, 0.35, 0.2, 1),
        (-0.3, 0.5, 0.25, -1),
    ):
        blobs += sign * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * width**2))
    strength = (
        strength
        + 0.20 * np.sign(scene.value("wall_blobs")) * max(abs(scene.value("wall_blobs")) - 0.4, 0) * blobs
    )
    strength = strength + 0.22 * max(scene.value("wall_stripes") - 0.5, 0) * np.tanh(3 * np.sin(u * 9.0))
    shifted = (
        colour
        * np.exp(strength)[..., None]
        * (1 + 0.10 * slant[..., None] * np.array([1.0, 0.0, -1.0]) * np.tanh(turn))
    )
    return (np.clip(shifted, 0, 1) * 255 + 0.5).astype(np.uint8)
