"""The portrait's head with a clip's expressions, as fitting the generator needs it."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.cameras import project_to_crop
from portrait_core.errors import InputError
from portrait_core.face_model.expression_names import is_direction
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.head_points import HeadPoints
from portrait_core.face_model.reproject import HeadSurface
from portrait_core.template.detail_mask import DETAIL_REGIONS_68, detail_mask
from portrait_core.template.flame_template import FlameTemplateRenderer
from portrait_core.template.landmark_solver import UnitTeller

_MAX_COEFFICIENT = 1.2
"""Largest coefficient that a generator takes; it has seen none above 1."""


class ClipHead(Protocol):
    """The portrait's head in every frame of a clip, as fitting the generator needs it."""

    unit_names: list[str]
    """Blendshapes of the head, which a generator that knows them takes as the expression."""

    def in_units(self, frame: int) -> NDArray[np.float32]:
        """Return a frame's expression in those blendshapes alone ``[1,U]``, as nearly as possible."""

    @property
    def surface(self) -> HeadSurface | None:
        """Surface that rasterises ``vertices``; None where the head has no place in the generator's space."""

    def vertices(self, frame: int) -> Tensor:
        """Return the box-frame mesh of a frame ``[V,3]``."""

    def silhouette(self) -> NDArray[np.bool_]:
        """Find the pixels of the crop that the hairless head of the first frame covers ``[S,S]``."""

    def detail(self, frame: int) -> NDArray[np.uint8]:
        """Draw mouth, eyes and brows of a frame as a soft mask ``[S,S]`` uint8."""


class EmbeddedClipHead:
    """The embedded head, which has a place in the generator's space.

    Args:
        head: the embedded head, on the device of its meshes.
        shape: the portrait's coefficients ``[S]``.
        expression, jaw: of every frame, retargeted ``[T,E]`` and ``[T,3]``.
        camera: the portrait's label ``[1,25]``.
        size: side of the crop in pixels.
    """

    def __init__(
        self,
        head: MorphableHead,
        shape: NDArray[np.floating],
        expression: NDArray[np.floating],
        jaw: NDArray[np.floating],
        camera: NDArray[np.floating],
        size: int,
    ) -> None:
        self._head, self._codes, self._size = head, (shape, expression, jaw), size
        self._camera = torch.from_numpy(np.asarray(camera, np.float32)).to(head.faces.device)
        self.surface = HeadSurface(head)
        self.unit_names = [name for name in head.expression_names if not is_direction(name)]

    @cached_property
    def _teller(self) -> UnitTeller:
        return UnitTeller(HeadPoints.from_head(self._head), self._codes[0])

    def in_units(self, frame: int) -> NDArray[np.float32]:
        """Return a frame's expression in blendshapes alone ``[1,U]``, as nearly as possible."""
        told = self._teller.tell(self._codes[1][frame])
        return np.clip(told, 0.0, _MAX_COEFFICIENT)[None].astype(np.float32)

    def _metres(self, frame: int) -> Tensor:
        """Return the head-frame mesh of a frame ``[1,V,3]``, in metres."""
        shape, expression, jaw = self._codes
        coefficients = (shape, expression[frame], jaw[frame])
        codes = (torch.from_numpy(np.asarray(c, np.float32))[None] for c in coefficients)
        return self._head.decode(*(code.to(self._camera) for code in codes))

    def vertices(self, frame: int) -> Tensor:
        """Return the box-frame mesh of a frame ``[V,3]``."""
        return self._head.to_box(self._metres(frame))[0]

    def silhouette(self) -> NDArray[np.bool_]:
        """Find the pixels of the crop that the hairless head of the first frame covers ``[S,S]``."""
        fragments, _, _ = self.surface.see(self.vertices(0)[None], self._camera, self._size)
        return np.asarray((fragments.face_id[0] >= 0).cpu().numpy())

    def detail(self, frame: int) -> NDArray[np.uint8]:
        """Draw mouth, eyes and brows of a frame as a soft mask ``[S,S]`` uint8."""
        marks = self._head.to_box(self._head.landmarks(self._metres(frame)))
        pixels = project_to_crop(self._camera, marks, self._size)[0, :, :2].cpu().numpy()
        return detail_mask(pixels, self._size)


class FlameClipHead:
    """FLAME in DECA's camera: it lies over the crop, and has no place in the generator's space.

    Args:
        renderer: of the portrait.
        expression, jaw: of every frame ``[T,E]`` and ``[T,3]``.
    """

    surface: HeadSurface | None = None

    def __init__(
        self, renderer: FlameTemplateRenderer, expression: NDArray[np.floating], jaw: NDArray[np.floating]
    ) -> None:
        self._renderer, self._codes = renderer, (expression, jaw)
        self.unit_names = renderer.head.expression_names

    def in_units(self, frame: int) -> NDArray[np.float32]:
        """Return a frame's expression ``[1,E]``: FLAME has blendshapes alone."""
        return np.asarray(self._codes[0][frame][None], np.float32)

    def vertices(self, frame: int) -> Tensor:
        """Refuse: the head has no place in the generator's space.

        Raises:
            InputError: always.
        """
        raise InputError(
            "DECA's camera gives no head in the generator's space; set tuning.depth_anchor=0 and "
            "tuning.novel_view=0, or tracking.tracker=embedded"
        )

    def silhouette(self) -> NDArray[np.bool_]:
        """Find the pixels of the crop that the hairless head of the first frame covers ``[S,S]``."""
        expression, jaw = self._codes
        return self._renderer.silhouette(expression[0], jaw[0])

    def detail(self, frame: int) -> NDArray[np.uint8]:
        """Draw mouth, eyes and brows of a frame as a soft mask ``[S,S]`` uint8."""
        expression, jaw = self._codes
        marks = self._renderer.landmarks(expression[frame], jaw[frame])
        return detail_mask(marks, len(self._renderer.source.portrait), DETAIL_REGIONS_68)
