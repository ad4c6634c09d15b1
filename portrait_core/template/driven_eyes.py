"""Eyes for a template whose head has neither blinks nor gaze: the embedded head's, painted on the portrait.

DECA reads no lids and FLAME has none that close (the paper names it as a limit of its method, section 3.2).
The embedded head is fitted to the same portrait, its lids and irises move, and the change around the eyes is
laid over the portrait's picture; ``FlameTemplateRenderer`` carries it on FLAME's mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.expression_names import region_of
from portrait_core.face_model.head import MorphableHead
from portrait_core.settings import TemplateSettings, TrackingSettings
from portrait_core.template.rest import told_rest
from portrait_core.template.retarget import Driver, Strengths, retarget
from portrait_core.template.skin import PortraitFit
from portrait_core.template.template import TemplateRenderer
from portrait_core.tracking.fit import FaceTrack, fit_clip
from portrait_core.tracking.measure import seen
from portrait_core.tracking.wild_crop import CropPlacement

_EDGE = 0.15
"""Width of the soft edge of the painted part, over the height of an eye's window."""


def eye_units(names: Sequence[str]) -> NDArray[np.intp]:
    """Return the places of the blendshapes that move lids and gaze."""
    return np.flatnonzero([region_of(name) in ("eyes", "gaze") for name in names])


def with_eyes_of(
    own: NDArray[np.floating], driven: NDArray[np.floating], names: Sequence[str]
) -> NDArray[np.float32]:
    """Return expressions ``[T,E]`` with lids and gaze of ``driven`` and the rest of ``own``.

    Args:
        own: ``[E]`` or ``[T,E]``.
        driven: ``[T,E]``.
        names: of the E expressions.
    """
    out = np.array(np.broadcast_to(own, driven.shape), dtype=np.float32)
    out[:, eye_units(names)] = driven[:, eye_units(names)]
    return out


def fit_portrait(
    head: MorphableHead, landmarks: NDArray[np.floating], settings: TrackingSettings
) -> FaceTrack:
    """Fit the embedded head to the landmarks of a portrait ``[1,478,2]``."""
    return fit_clip(head, landmarks, np.ones(1, bool), settings)


def eyes_of_driver(
    head: MorphableHead,
    driver_landmarks: NDArray[np.float32],
    portrait_landmarks: NDArray[np.float32],
    template: TemplateSettings,
    tracking: TrackingSettings,
) -> NDArray[np.float32]:
    """Return the portrait's own expression of the embedded head ``[T,E]``, with the driver's lids and gaze.

    Args:
        head: the embedded head.
        driver_landmarks: of every frame ``[T,478,2]``, NaN where there is no face.
        portrait_landmarks: ``[1,478,2]``, in pixels of the photograph.
        template: strengths, and the frame in which the driver's face is at rest.
        tracking: of the fits.

    Raises:
        InputError: if ``template.neutral_frame`` is not a frame of the driver with a face.
    """
    ok = seen(driver_landmarks)
    driver = fit_clip(head, driver_landmarks, ok, tracking)
    own = fit_portrait(head, portrait_landmarks, tracking)
    # relative: the embedded head's lids are measured against the driver's own rest
    rest = told_rest(driver.expression, ok, template.neutral_frame)
    clip = Driver(driver.shape, driver.expression, ok, rest)
    driven, _ = retarget(head, clip, own.shape, own.expression[0], "relative", Strengths.of(template))
    return with_eyes_of(own.expression[0], driven, head.expression_names)


def camera_in_crop(track: FaceTrack, placement: CropPlacement, size: int) -> NDArray[np.float32]:
    """Return the label ``[25]`` of a fitted portrait's camera for another crop of the photograph.

    The camera is the same; the intrinsics are others.

    Args:
        track: the portrait's; its ``cameras`` belong to its square in the photograph.
        placement: place of the other crop (one row).
        size: side of the other crop in pixels.
    """
    label = np.array(track.cameras[0], dtype=np.float64)
    k = label[16:].reshape(3, 3)
    corner = track.crop_center_px[0] - track.crop_side_px[0] / 2
    shrink = track.crop_side_px[0] * placement.factor[0] / size
    k[:2] *= shrink[:, None]
    k[:2, 2] += (corner * placement.factor[0] + placement.shift[0]) / size
    return label.astype(np.float32)


@dataclass(frozen=True)
class EyePicture:
    """A portrait, ready to be given other eyes."""

    portrait: NDArray[np.uint8]
    """The crop ``[S,S,3]``."""
    renderer: TemplateRenderer
    jaw: NDArray[np.floating]
    """The portrait's own ``[3]``."""
    around: NDArray[np.float32]
    """The part of the crop that may change, 0..1 ``[S,S,1]``."""

    @classmethod
    def build(
        cls,
        head: MorphableHead,
        portrait: NDArray[np.uint8],
        placement: CropPlacement,
        landmarks: NDArray[np.floating],
        settings: TrackingSettings,
        supersample: int = 2,
    ) -> EyePicture:
        """Fit the embedded head to a portrait.

        Args:
            head: the embedded head.
            portrait: the generator's crop ``[S,S,3]`` uint8.
            placement: its place in the photograph (one row).
            landmarks: of the photograph ``[1,478,2]``, in its pixels.
            settings: of the fit.
            supersample: side of the work image over the crop's.
        """
        track, size = fit_portrait(head, landmarks, settings), len(portrait)
        camera = camera_in_crop(track, placement, size)
        fit = PortraitFit(track.shape, track.expression[0], track.jaw[0], camera)
        marks = placement.to_crop(landmarks)[0].astype(np.float32)
        renderer = TemplateRenderer(head, portrait, fit, marks, supersample)
        around = np.zeros((size, size), np.float32)
        for eye in renderer.texture.eyes:
            x0, y0, x1, y1 = (round(edge / supersample) for edge in eye.window)
            inner, edge = np.zeros_like(around), _EDGE * (y1 - y0)
            inset = round(edge)
            inner[y0 + inset : y1 - inset, x0 + inset : x1 - inset] = 1
            around = np.maximum(around, cv2.GaussianBlur(inner, (0, 0), max(edge / 2, 0.5)))
        return cls(portrait, renderer, track.jaw[0], around[..., None])

    def paint(self, expression: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Paint the eyes of expressions ``[B,E]`` of the embedded head on the portrait: ``[B,S,S,3]``."""
        jaw = np.repeat(self.jaw[None], len(expression), axis=0)
        rendered = self.renderer.render(expression, jaw).image
        mixed = self.portrait + self.around * (rendered.astype(np.float32) - self.portrait)
        return np.rint(mixed).clip(0, 255).astype(np.uint8)
