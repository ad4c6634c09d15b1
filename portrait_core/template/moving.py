"""Drawing the expression template: a portrait that moves as it is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.uv_maps import UvMapper, read_obj_layout, read_uv_mask
from portrait_core.settings import TemplateSettings
from portrait_core.template.driven_eyes import EyePicture
from portrait_core.template.flame_template import FlameSource, FlameTemplateRenderer
from portrait_core.template.moves import Moves
from portrait_core.template.template import PortraitFit, Template, TemplateRenderer
from portrait_core.tracking.choice import EYES
from portrait_core.tracking.deca import split_code
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.wild_crop import CropPlacement

_LEAST_TEXTURE = 256
"""Smallest side of FLAME's texture in pixels."""


class MovingPortrait(Protocol):
    """A portrait that can be drawn with other expressions."""

    def render(self, moves: Moves) -> Template:
        """Draw the templates of n frames that move so."""


@dataclass(frozen=True)
class EmbeddedPortrait:
    """A portrait on the embedded head, eyes included."""

    renderer: TemplateRenderer

    def render(self, moves: Moves) -> Template:
        """Draw the templates of n frames that move so."""
        return self.renderer.render(moves["expression"], moves["jaw"])


@dataclass(frozen=True)
class FlamePortrait:
    """A portrait on FLAME's mesh: the paper's template. Where moves have ``eyes``, those are painted first.

    Attributes:
        renderer: of the portrait.
        eyes: paints other eyes on it; None where no moves have any.
    """

    renderer: FlameTemplateRenderer
    eyes: EyePicture | None = None

    def render(self, moves: Moves) -> Template:
        """Draw the templates of n frames that move so."""
        portraits = self.eyes.paint(moves[EYES]) if self.eyes is not None and EYES in moves else None
        return self.renderer.render(moves["expression"], moves["jaw"], portraits)


def embedded_renderer(
    head: MorphableHead,
    track: FaceTrack,
    crop: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    camera: NDArray[np.floating],
    settings: TemplateSettings,
) -> TemplateRenderer:
    """Make the renderer of a portrait on the embedded head.

    Args:
        head: the embedded head, on the CPU.
        track: the portrait's, of one frame.
        crop: ``[S,S,3]`` uint8.
        landmarks: in pixels of the crop ``[478,2]``.
        camera: label of the camera that sees the crop ``[25]``.
        settings: how finely it draws, for a crop of ``settings.size`` pixels; a larger one has the same soft
            edges, and is drawn as finely.
    """
    fit = PortraitFit(track.shape, track.expression[0], track.jaw[0], camera)
    larger = len(crop) / settings.size
    times = max(1, round(settings.supersample / larger))
    return TemplateRenderer(head, crop, fit, landmarks, times, settings.feather_px * larger)


def flame_source(
    image: NDArray[np.uint8],
    crop: NDArray[np.uint8],
    code: NDArray[np.float32],
    tform: NDArray[np.floating],
    placement: NDArray[np.float64],
) -> FlameSource:
    """Put together a portrait that DECA tracked.

    Args:
        image: the portrait ``[H,W,3]`` uint8.
        crop: the generator's crop of it ``[S,S,3]`` uint8.
        code, tform, placement: the arrays that the tracker kept (``DECA_CODE``), of one row each.
    """
    return FlameSource(
        image=image,
        portrait=crop,
        placement=CropPlacement(placement[:, :2], placement[:, 2:]),
        code=split_code(torch.from_numpy(code)),
        tform=torch.from_numpy(tform),
    )


def flame_renderer(
    head: MorphableHead, layout: Path, region: Path, source: FlameSource, settings: TemplateSettings
) -> FlameTemplateRenderer:
    """Make the renderer of a portrait on FLAME's mesh.

    Args:
        head: FLAME, on the CPU.
        layout: file of the texture's layout, DECA's ``head_template.obj``.
        region: file of the part of the texture that is face, DECA's ``uv_face_eye_mask.png``.
        source: the portrait.
        settings: how large and how soft it draws.
    """
    # a texture of twice the crop's side: the face fills half of either
    mapper = UvMapper(read_obj_layout(layout), max(2 * settings.size, _LEAST_TEXTURE))
    return FlameTemplateRenderer(head, mapper, source, read_uv_mask(region), settings.feather_px)
