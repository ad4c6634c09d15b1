"""The face model of the paper: DECA and Deep3DFaceRecon track, FLAME is drawn (paper section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.uv_maps import UvMapper, read_obj_layout, read_uv_mask
from portrait_core.settings import TemplateSettings
from portrait_core.template.clip_heads import FlameClipHead
from portrait_core.template.driven_eyes import EyePicture, eyes_of_driver
from portrait_core.template.face_models import ModelSource, PortraitRecord, TrackedFaces
from portrait_core.template.flame_template import FlameSource, FlameTemplateRenderer
from portrait_core.template.moves import Moves, flame_moves
from portrait_core.template.registry import EYES, FACE_MODELS, has_driven_eyes
from portrait_core.template.template import Template
from portrait_core.tracking.array_names import DECA_CODE
from portrait_core.tracking.deca import split_code
from portrait_core.tracking.deca_tracker import DecaTracker, MarkedFlame, load_networks
from portrait_core.tracking.paper_tracker import PaperTracker
from portrait_core.tracking.wild_crop import CropPlacement

_MIN_TEXTURE_PX = 256
"""Smallest side of FLAME's texture in pixels."""
_FILES = FACE_MODELS["deca"].files


@dataclass(frozen=True)
class DecaFace:
    """The paper's :class:`~portrait_core.template.face_models.FaceModel`."""

    models: ModelSource

    def tracker(self) -> DecaTracker:
        """Return the tracker that encodes every frame with both networks."""
        return DecaTracker(self._networks(), marked_flame(self.models).error())

    def retargeter(self) -> DecaRetargeter:
        """Return the retargeter of DECA's codes."""
        return DecaRetargeter(self.models)

    def moving_portrait(self, portrait: PortraitRecord) -> FlamePortrait:
        """Return a portrait on FLAME's mesh."""
        return FlamePortrait(self.models, portrait)

    def _networks(self) -> PaperTracker:
        models = self.models
        device, batch = models.device, models.settings.tracking.batch

        def load() -> PaperTracker:
            paths = {name: models.file(name) for name in ("deca", "deep3d")}
            standard = models.file("deep3d_landmarks")
            return load_networks(**paths, landmarks=standard, device=device, batch=batch)

        return models.shared("encoders", _FILES, load, device, batch)


def marked_flame(models: ModelSource) -> MarkedFlame:
    """Return the process's FLAME and the landmarks on it."""

    def load() -> MarkedFlame:
        return MarkedFlame.load(models.file("flame"), models.file("flame_landmarks"))

    return models.shared("flame", _FILES, load)


@dataclass(frozen=True)
class DecaRetargeter:
    """Carries DECA's codes over; driven eyes (``template.eyes``) follow by the embedded head."""

    models: ModelSource

    def moves(self, portrait: TrackedFaces, driver: TrackedFaces) -> Moves:
        """Find what the portrait does: ``expression [T,50]``, ``jaw [T,3]`` and driven ``eyes [T,F]``."""
        settings = self.models.settings
        moves = flame_moves(portrait.track, driver.track, settings.template)
        if has_driven_eyes(settings):
            landmarks = driver.landmarks_px, portrait.landmarks_px
            head = self.models.embedded_head()
            moves[EYES] = eyes_of_driver(head, *landmarks, settings.template, settings.tracking)
        return moves


@dataclass(frozen=True)
class FlamePortrait:
    """Draws a portrait on FLAME's mesh (the paper's template); driven eyes are painted on it first."""

    models: ModelSource
    portrait: PortraitRecord

    def render(self, moves: Moves) -> Template:
        """Draw the templates of n frames of moves."""
        portraits = None
        if has_driven_eyes(self.models.settings) and EYES in moves:
            portraits = self._eye_picture.paint(moves[EYES])
        return self._renderer.render(moves["expression"], moves["jaw"], portraits)

    def clip_head(self, moves: Moves, device: torch.device | str) -> FlameClipHead:
        """Return FLAME in every frame of the moves; it has no meshes in the generator's space."""
        return FlameClipHead(self._renderer, moves["expression"], moves["jaw"])

    @cached_property
    def _renderer(self) -> FlameTemplateRenderer:
        return self.portrait.own("template", self._build_renderer)

    @cached_property
    def _eye_picture(self) -> EyePicture:
        return self.portrait.own("eyes", self._build_eye_picture)

    def _build_renderer(self) -> FlameTemplateRenderer:
        models = self.models
        layout, region = (models.file(name) for name in ("head_template", "uv_face_eye_mask"))
        return flame_renderer(
            marked_flame(models).head, layout, region, self._source(), models.settings.template
        )

    def _build_eye_picture(self) -> EyePicture:
        source, settings = self._source(), self.models.settings
        placed = source.portrait, source.placement, self.portrait.landmarks_px()
        head, supersample = self.models.embedded_head(), settings.template.supersample
        return EyePicture.build(head, *placed, settings.tracking, supersample)

    def _source(self) -> FlameSource:
        codes = (self.portrait.kept(name) for name in DECA_CODE)
        return flame_source(self.portrait.photograph(), self.portrait.crop(), *codes)


def flame_source(
    image: NDArray[np.uint8],
    crop: NDArray[np.uint8],
    code: NDArray[np.generic],
    tform: NDArray[np.generic],
    placement: NDArray[np.generic],
) -> FlameSource:
    """Put together a portrait that DECA tracked.

    Args:
        image: the portrait ``[H,W,3]`` uint8.
        crop: the generator's crop of it ``[S,S,3]`` uint8.
        code: DECA's code ``[1,236]``.
        tform: transform of the photograph to DECA's crop ``[1,3,3]``.
        placement: factor and shift of the generator's crop ``[1,4]``.
    """
    return FlameSource(
        image=image,
        portrait=crop,
        placement=CropPlacement(np.asarray(placement[:, :2]), np.asarray(placement[:, 2:])),
        code=split_code(torch.from_numpy(code)),
        tform=torch.from_numpy(tform),
    )


def flame_renderer(
    head: MorphableHead, layout: Path, region: Path, source: FlameSource, settings: TemplateSettings
) -> FlameTemplateRenderer:
    """Build the renderer of a portrait on FLAME's mesh.

    Args:
        head: FLAME, on the CPU.
        layout: file of the texture's layout, DECA's ``head_template.obj``.
        region: file of the mask of the texture's face, DECA's ``uv_face_eye_mask.png``.
        source: the portrait.
        settings: size and soft edges.
    """
    # a texture of twice the crop's side: the face fills half of either
    mapper = UvMapper(read_obj_layout(layout), max(2 * settings.size, _MIN_TEXTURE_PX))
    return FlameTemplateRenderer(head, mapper, source, read_uv_mask(region), settings.feather_px)
