"""A clip at the portrait's camera, as inversion, tuning and rendering see it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.inversion.targets import FrameTarget, image_tensor, mask_tensor, tuning_image
from portrait_core.template.clip_heads import ClipHead
from portrait_core.tracking.fit import FaceTrack

Masks = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""A frame's template ``[S,S,3]``, and ``[S,S]`` in 0..255 each: face, mouth, uncovered."""

_KEPT_FRAMES = 256
"""Frames whose templates and masks stay in memory, 0.4 MB each at 256 pixels."""


class ClipData:
    """One clip, whose frames are read when they are needed.

    An edit's clip is one frame: the photograph itself, without a template (paper section 3.4: PTI of the
    image).

    Args:
        crop: the portrait ``[S,S,3]`` uint8.
        track: the portrait's, of one frame.
        head: the portrait's head with the clip's expressions.
        masks: reads a frame's template and masks; the newest stay in memory.
        device: where targets are made.
        cut: function that brings a mask of the tri-plane generator's crop ``[N,N]``, as ``head`` draws them,
            to ``crop``; None where that is the same one.

    Attributes:
        crop, head, device: as given.
        camera: the portrait's label ``[1,25]``.
        shape: its shape coefficients ``[S]``.
    """

    def __init__(
        self,
        crop: NDArray[np.uint8],
        track: FaceTrack,
        head: ClipHead,
        masks: Callable[[int], Masks],
        device: torch.device,
        cut: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
    ) -> None:
        self.crop, self.head, self.device = crop, head, device
        self.camera = torch.from_numpy(track.cameras).to(device)
        self.shape = track.shape
        self._cut = cut
        # not of a method: that would hold the clip, and its memory until the collector of cycles runs
        self._masks = lru_cache(maxsize=_KEPT_FRAMES)(masks)

    def face(self, frame: int) -> Tensor:
        """Return the whole face, mouth included ``[1,1,S,S]`` in 0..1."""
        return mask_tensor(self._masks(frame)[1])[None].to(self.device)

    def target(
        self,
        frame: int,
        inversion_render: NDArray[np.uint8] | None = None,
        tuning: bool = False,
        detail: bool = True,
    ) -> FrameTarget:
        """Return the target of a frame: its template, or with ``tuning`` the paper's ``I_GT``.

        Args:
            frame: number of the frame.
            inversion_render: picture ``[S,S,3]`` from which ``I_GT`` takes the mouth's interior; None takes
                the template's.
            tuning: True for the target of tuning, False for that of inversion.
            detail: True for a target with the mask of mouth and eyes.
        """
        template, face, mouth, uncovered = self._masks(frame)
        skin = np.minimum(face, 255 - mouth)
        image = tuning_image(template, skin, mouth, self.crop, inversion_render) if tuning else template
        masks = (face, mouth, self._detail(frame) if detail else None, uncovered)
        made = (None if mask is None else mask_tensor(mask).to(self.device) for mask in masks)
        return FrameTarget(image_tensor(image).to(self.device), *made)  # type: ignore[arg-type]

    def _detail(self, frame: int) -> NDArray[np.uint8]:
        """Draw the mask of mouth, eyes and brows of a frame ``[S,S]``."""
        drawn = self.head.detail(frame)
        return drawn if self._cut is None else self._cut(drawn)
