"""The face model of the embedded head: fitted to landmarks, retargeted by them, drawn with eyes and mouth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.settings import TemplateSettings
from portrait_core.template.clip_heads import EmbeddedClipHead
from portrait_core.template.face_models import ModelSource, PortraitRecord, TrackedFaces
from portrait_core.template.moves import Moves, embedded_moves, mouth_moves, mouth_of
from portrait_core.template.template import PortraitFit, Template, TemplateRenderer
from portrait_core.tracking.embedded_tracker import EmbeddedTracker
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.same_face import frame_of_portrait


@dataclass(frozen=True)
class EmbeddedFace:
    """The embedded head's :class:`~portrait_core.template.face_models.FaceModel`."""

    models: ModelSource

    def tracker(self) -> EmbeddedTracker:
        """Return the tracker that fits the head to landmarks."""
        return EmbeddedTracker(self.models.embedded_head(), self.models.settings.tracking)

    def retargeter(self) -> EmbeddedRetargeter:
        """Return the retargeter that makes the portrait's landmarks move as the driver's do."""
        return EmbeddedRetargeter(self.models.embedded_head(), self.models.settings.template)

    def moving_portrait(self, portrait: PortraitRecord) -> EmbeddedPortrait:
        """Return a portrait on the embedded head."""
        return EmbeddedPortrait(self.models, portrait)


@dataclass(frozen=True)
class EmbeddedRetargeter:
    """Retargets between two fits of the embedded head.

    Attributes:
        head: on the CPU.
        settings: kind and strengths of the transfer.
    """

    head: MorphableHead
    settings: TemplateSettings

    def moves(self, portrait: TrackedFaces, driver: TrackedFaces) -> Moves:
        """Find what the portrait does: ``expression [T,E]``, ``jaw [T,3]`` and what its mouth shows."""
        match = frame_of_portrait(portrait.landmarks_px[0], driver.landmarks_px, driver.track.ok)
        own_frame = None if match is None else match.frame
        moves = embedded_moves(self.head, portrait.track, driver.track, self.settings, own_frame)
        return moves | mouth_moves(driver.mouth, self.settings)


@dataclass(frozen=True)
class EmbeddedPortrait:
    """Draws a portrait on the embedded head, eyes included."""

    models: ModelSource
    portrait: PortraitRecord

    def render(self, moves: Moves) -> Template:
        """Draw the templates of n frames of moves."""
        return self._renderer.render(moves["expression"], moves["jaw"], mouth_of(moves))

    def clip_head(self, moves: Moves, device: torch.device | str) -> EmbeddedClipHead:
        """Return the portrait's head in every frame of the moves; its meshes are on ``device``."""
        track, size = self.portrait.track, self.models.settings.template.size
        codes = moves["expression"], moves["jaw"]
        return EmbeddedClipHead(self.models.embedded_head(device), track.shape, *codes, track.cameras, size)

    @cached_property
    def _renderer(self) -> TemplateRenderer:
        return self.portrait.own("template", self._build_renderer)

    def _build_renderer(self) -> TemplateRenderer:
        track, square = self.portrait.track, self.portrait.drawn_square()
        return embedded_renderer(self.models.embedded_head(), track, *square, self.models.settings.template)


def embedded_renderer(
    head: MorphableHead,
    track: FaceTrack,
    crop: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    camera: NDArray[np.floating],
    settings: TemplateSettings,
) -> TemplateRenderer:
    """Build the renderer of a portrait on the embedded head.

    Args:
        head: the embedded head, on the CPU.
        track: the portrait's, of one frame.
        crop: ``[S,S,3]`` uint8.
        landmarks: in pixels of the crop ``[478,2]``.
        camera: label of the camera that sees the crop ``[25]``.
        settings: resolution and soft edges, for a crop of ``settings.size`` pixels; a larger crop is drawn
            with the same soft edges, and as finely.
    """
    fit = PortraitFit(track.shape, track.expression[0], track.jaw[0], camera)
    larger = len(crop) / settings.size
    times = max(1, round(settings.supersample / larger))
    return TemplateRenderer(head, crop, fit, landmarks, times, settings.feather_px * larger)
