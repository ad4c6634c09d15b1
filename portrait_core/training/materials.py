"""Albedo, occlusion and gloss of a synthetic head's vertices, before light and painted detail."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.easing import smoothstep
from portrait_core.generators.scene_latents import Scene
from portrait_core.training.appearance import hair_colour, hair_style, lip_colour, skin_colour
from portrait_core.training.hair import CENTRE_M, TILT_RAD, HairSheet
from portrait_core.training.surfaces import Array

MOUTH_COLOURS = {3: (0.93, 0.90, 0.83), 4: (0.90, 0.87, 0.80), 5: (0.68, 0.32, 0.31)}
"""Colours of upper teeth, lower teeth and tongue, by face group."""
LID_BLENDSHAPES = {1: "eyeBlinkLeft", 2: "eyeBlinkRight"}
"""Blendshape that closes each eyeball's lids, by face group."""


class Materials(NamedTuple):
    """Albedo ``[N,3]``, ambient occlusion ``[N]`` and strength of the highlight ``[N]``, per vertex."""

    albedo: Array
    occlusion: Array
    gloss: Array


class HeadMaterials:
    """Holds the fixed masks of the head.

    ``masks`` and ``sky`` (how much soft light from above reaches each vertex) are per vertex, as are
    ``group`` (face group) and ``template`` (the average head, metres).
    """

    def __init__(
        self, masks: dict[str, Array], sky: Array, group: NDArray[np.int64], template: Array
    ) -> None:
        self._masks, self._sky, self._group = masks, sky, group
        self._skin = group == 0
        self.mouth_interior = (group > 2) | (masks["inside_mouth"] > 0.6)
        self._crown_polar, self._crown_azimuth = crown_angles(template)

    def __call__(self, scene: Scene, posed_m: Array, hair: HairSheet) -> Materials:
        """Return the materials of the posed head ``[V,3]`` (metres)."""
        scalp = self._scalp(scene, hair)
        gloss = np.where(self._skin, 0.10 + 0.10 * self._masks["lips"], 0.12) * (1 - scalp)
        return Materials(
            albedo=self._albedo(scene, scalp),
            occlusion=self._occlusion(posed_m),
            gloss=np.where(self.mouth_interior, 0.05, gloss),
        )

    def _albedo(self, scene: Scene, scalp: Array) -> Array:
        skin, hair, mask = skin_colour(scene), hair_colour(scene), self._masks
        colour = np.repeat(skin[None], len(scalp), 0)

        def blend(weight: Array, other: Array | tuple[float, float, float]) -> None:
            nonlocal colour
            colour = colour * (1 - weight[:, None]) + weight[:, None] * np.asarray(other)

        blend(0.75 * scalp * float(smoothstep(0.02, 0.16, scene.share("hair_length"))), hair * 0.9)
        blend(0.5 * mask["ears"] * (1 - scalp), skin * (1.02, 0.88, 0.86))
        blend(np.clip(mask["lips"] * 1.15, 0, 1), lip_colour(scene, skin))
        blend(0.22 * mask["eyelids"], skin * (0.85, 0.74, 0.74))
        lash = (0.55 + 0.4 * scene.share("lash")) * np.maximum(mask["lashes_2"], 0.45 * mask["lashes_1"])
        blend(np.clip(lash, 0, 0.95), np.full(3, 0.03))
        blend(np.clip((mask["inside_mouth"] - 0.35) / 0.3, 0, 1), (0.45, 0.15, 0.14))
        for group, tone in MOUTH_COLOURS.items():
            colour[self._group == group] = tone
        for group, blendshape in LID_BLENDSHAPES.items():
            # a slit between closed lids is dark instead of the white of the eye
            shut = smoothstep(0.78, 1.0, scene.expression[scene.expression_names.index(blendshape)])
            colour[self._group == group] = 1 - 0.85 * float(shut)
        return colour

    def _occlusion(self, posed_m: Array) -> Array:
        """Return ambient occlusion ``[V]``, darker in cavities and with the depth behind the lips."""
        mask = self._masks
        open_skin = 0.25 + 0.75 * np.clip(self._sky * 1.45, 0, 1)
        eyes = 0.45 + 0.55 * np.clip(self._sky * 1.6, 0, 1)
        lips_z = np.percentile(posed_m[(mask["lips"] > 0.5) & self._skin, 2], 85)
        falloff = np.exp(-np.clip(lips_z - posed_m[:, 2] - 0.007, 0, None) / 0.020)
        mouth = (self._group > 2) | (mask["inside_mouth"] > 0.4)
        return np.where(np.isin(self._group, (1, 2)), eyes, np.where(mouth, falloff, open_skin))

    def _scalp(self, scene: Scene, hair: HairSheet) -> Array:
        """Return how far each head vertex lies under hair ``[V]`` in 0..1."""
        reach, _ = hair.reach(hair_style(scene))
        end = np.interp(self._crown_azimuth, hair.azimuth, reach, period=2 * np.pi)
        under = smoothstep(0.03, -0.10, self._crown_polar - end) * self._skin
        return under * (1 - np.clip(2 * self._masks["ears"], 0, 1))


def crown_angles(points: Array) -> tuple[Array, Array]:
    """Return polar angle from the crown and azimuth (0 = front) of points on the average head."""
    direction = points - CENTRE_M
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    c, s = np.cos(TILT_RAD), np.sin(TILT_RAD)
    up = direction[:, 1] * c - direction[:, 2] * s
    forward = direction[:, 1] * s + direction[:, 2] * c
    return np.arccos(np.clip(up, -1, 1)), np.arctan2(direction[:, 0], forward)
