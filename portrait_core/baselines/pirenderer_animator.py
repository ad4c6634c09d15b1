"""PIRenderer behind the interface of baselines: a portrait, a driver, and the paper's variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.baselines.interface import Animator, Camera
from portrait_core.baselines.pirenderer import PIRenderer
from portrait_core.baselines.pirenderer_eyes import without_eyes
from portrait_core.baselines.pirenderer_windows import (
    WINDOW_ANGLES,
    checked_rows,
    fitted_to,
    windows,
    without_pose,
)
from portrait_core.cameras.eg3d import deep3d_angles_from_labels
from portrait_core.inversion.targets import image_tensor


@dataclass(frozen=True)
class PIRendererOptions:
    """Choices of how a portrait is driven."""

    cross_identity: bool = True
    """True if portrait and driver are different people: the driver's crop scales are then brought to the
    portrait's, as published."""
    without_eyes: bool = False
    """True for the paper's variant "w/o eyes"."""
    without_pose: bool = False
    """True for the paper's variant "w/o pose"."""
    batch: int = 4
    """Frames per batch of the network."""


class PIRendererAnimator(Animator):
    """A portrait that PIRenderer moves by a driver's coefficients.

    Computations follow on the network's device. The network always gets whole batches, the last one filled up
    with its last frame: so a frame does not depend on those it is drawn with.

    Args:
        network: the generator in evaluation mode.
        source: the portrait ``[256,256,3]`` uint8 RGB (:mod:`portrait_core.baselines.crops`).
        source_row: its coefficient row ``[260]`` or ``[1,260]``.
        driver_rows: the driver's ``[T,260]`` (``pirenderer_windows.rows_from_pictures``).
        options: how it is driven.
        eyes: ``pirenderer_eyes.eye_part`` of the Basel face; the variant without eyes needs it.

    Raises:
        ValueError: if shapes are others, numbers are not finite, the batch is less than 1, or ``eyes`` is
            needed and absent.
    """

    def __init__(
        self,
        network: PIRenderer,
        source: NDArray[np.uint8],
        source_row: NDArray[np.floating],
        driver_rows: NDArray[np.floating],
        options: PIRendererOptions | None = None,
        eyes: NDArray[np.floating] | None = None,
    ):
        self._options = options or PIRendererOptions()
        source, step = np.asarray(source), network.sizes.step
        sides = source.shape[:2]
        square = source.ndim == 3 and source.shape[2] == 3 and sides[0] == sides[1] and not sides[0] % step
        if source.dtype != np.uint8 or not square or not source.size:
            raise ValueError(
                f"the portrait must be [S,S,3] uint8 with S a multiple of {step}, got {source.shape} "
                f"{source.dtype}; cut it with portrait_core.baselines.crops"
            )
        if self._options.batch < 1:
            raise ValueError(f"a batch has at least 1 frame, got {self._options.batch}")
        own, rows = checked_rows(np.atleast_2d(source_row)), checked_rows(driver_rows)
        if self._options.cross_identity:
            rows = fitted_to(rows, own)
        if self._options.without_eyes:
            rows = without_eyes(rows, eyes)
        self._standing = without_pose(rows, own)
        self._rows = self._standing if self._options.without_pose else rows
        self._network, self._source = network, source
        self._device = next(network.parameters()).device
        self._image = image_tensor(source).to(self._device)

    @property
    def source(self) -> NDArray[np.uint8]:
        """The portrait ``[256,256,3]`` uint8 RGB."""
        return self._source

    def windows(self, frames: Sequence[int], cameras: Sequence[Camera] | None = None) -> NDArray[np.float32]:
        """Return the coefficients ``[n,73,27]`` that the network gets for frames.

        A camera replaces the angles of all 27 frames of its window; translation and crop are then the
        portrait's own, so that the head stands where the portrait shows it. Arguments and errors are those of
        :meth:`animate`.
        """
        if cameras is None:
            return windows(self._rows, frames)
        labels = np.asarray(cameras, np.float64)
        if labels.shape != (len(frames), 25):
            raise ValueError(f"expected one camera label [25] per frame, got {labels.shape}")
        out = windows(self._standing, frames)
        out[:, WINDOW_ANGLES] = deep3d_angles_from_labels(labels)[:, :, None]
        return out

    @torch.no_grad()
    def animate(self, frames: Sequence[int], cameras: Sequence[Camera] | None = None) -> NDArray[np.uint8]:
        """Draw the portrait with the driver's expressions and head poses.

        Args:
            frames: numbers of the driver's frames.
            cameras: EG3D camera labels ``[25]``, one per frame, whose rotation the head gets instead of the
                driver's; their places and intrinsics have no counterpart here.

        Returns:
            ``[n,256,256,3]`` uint8 RGB.

        Raises:
            ValueError: if a frame is not in the driver's clip, or cameras are not one label per frame.
        """
        made = torch.from_numpy(self.windows(frames, cameras)).to(self._device)
        if not len(made):
            return np.zeros((0, *self._source.shape), np.uint8)
        drawn = [self._draw(part) for part in made.split(self._options.batch)]
        return np.asarray(torch.cat(drawn).cpu().numpy())

    def _draw(self, part: Float[Tensor, "b c w"]) -> Tensor:
        """Draw one batch, filled up to its whole size: ``[b,S,S,3]`` uint8 on the device."""
        count, batch = len(part), self._options.batch
        full = torch.cat([part, part[-1:].expand(batch - count, -1, -1)])
        drawn = self._network(self._image.expand(batch, -1, -1, -1), full).image[:count]
        return ((drawn.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
