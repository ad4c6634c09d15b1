"""Views of target head poses: the head turns before a still camera, or the camera turns."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from portrait_core.cameras import offsets_from_labels, rotations_from_labels
from portrait_core.rendering.neck import Neck
from portrait_core.rendering.page import Page
from portrait_core.rendering.surfaces import View
from portrait_core.rendering.travel import head_shifts


class Motion(Protocol):
    """Makes views of wanted head poses."""

    def view(self, camera: Float[Tensor, "1 25"], rays: int) -> View:
        """Return the view of the canvas in which the head has the pose of ``camera``.

        ``camera`` is a camera of the face crop, on the CPU, that sees a head which does not turn.
        """


class HeadMotion:
    """The head turns on its neck; the camera is the portrait's throughout.

    Args:
        neck: of the portrait.
        portrait: its camera, of the face crop ``[1,25]``.
        page: the output's layout.
    """

    def __init__(self, neck: Neck, portrait: Float[Tensor, "1 25"], page: Page) -> None:
        self._neck = neck
        label = portrait.cpu().numpy()
        self._own, self._offset = rotations_from_labels(label)[0], offsets_from_labels(label)
        self._camera = page.camera(portrait, page.canvas)

    def view(self, camera: Float[Tensor, "1 25"], rays: int) -> View:
        """Bend space by the turn between the portrait's pose and the target pose.

        Space is also shifted by as much as the target camera looks further past the head than the portrait's.
        """
        label = camera.numpy()
        turn = self._own.T @ rotations_from_labels(label)[0]
        shift = head_shifts(offsets_from_labels(label) - self._offset) @ self._own
        return View.of(self._camera, rays, self._neck.bend(turn, shift[0]))


class CameraMotion:
    """The camera turns about the head, as in the paper.

    Args:
        page: the output's layout.
        device: where rays are made.
    """

    def __init__(self, page: Page, device: torch.device | str = "cpu") -> None:
        self._page, self._device = page, device

    def view(self, camera: Float[Tensor, "1 25"], rays: int) -> View:
        """See the canvas from the wanted camera."""
        return View.of(self._page.camera(camera, self._page.canvas).to(self._device), rays)
