"""Face-vid2vid as a baseline: a portrait that takes over a driver's keypoints.

Wang, Mallya, Liu 2021, "One-Shot Free-View Neural Talking-Head Synthesis for Video Conferencing", with the
networks of the usual unofficial implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.baselines.facevid2vid_checkpoint import FaceVid2VidNetworks
from portrait_core.baselines.facevid2vid_keypoints import HeadState
from portrait_core.baselines.facevid2vid_pose import (
    degrees_from_labels,
    pose_keypoints,
    relative_keypoints,
    relative_scale,
)
from portrait_core.baselines.interface import Animator, Camera
from portrait_core.tracking.encoders import as_input

SIZE = 256
"""Side in pixels of the pictures that the published networks were trained on."""

Driver = Callable[[int], NDArray[np.uint8]]
"""Gives a driver's picture ``[S,S,3]`` uint8 RGB, cut to the face, of a frame's number."""


class FaceVid2VidAnimator(Animator):
    """A portrait with the poses and expressions of a driver.

    In relative mode, the portrait's keypoints move as the driver's move from its initial frame, at which the
    driver should look and be posed as the portrait is. In absolute mode the driver's pose, translation and
    expression are taken as they are.

    Args:
        networks: the networks, on the device that computes.
        source: the portrait ``[S,S,3]`` uint8 RGB, cut to the face; S is 256 for the published networks.
        driver: gives the driver's pictures, of the same size.
        relative: True for relative mode.
        initial: number of the driver's initial frame, for relative mode.
        batch: frames that are drawn at a time. With 1, a frame is the same in every grouping to the last bit;
            with more, a few numbers may differ by 1 of 255, since convolutions of a batch round otherwise.

    Raises:
        ValueError: if pictures are not square uint8 RGB of one size, or keypoints span no volume.
    """

    def __init__(
        self,
        networks: FaceVid2VidNetworks,
        source: NDArray[np.uint8],
        driver: Driver,
        *,
        relative: bool = True,
        initial: int = 0,
        batch: int = 1,
    ) -> None:
        if source.ndim != 3 or source.shape != (len(source), len(source), 3) or source.dtype != np.uint8:
            raise ValueError(
                f"the portrait is [S,S,3] uint8, got {source.shape} {source.dtype}; cut a square of the face"
            )
        if batch < 1:
            raise ValueError(f"a batch has at least 1 frame, got {batch}")
        self._networks, self._driver, self._batch = networks, driver, batch
        self._picture = source
        self._device = next(networks.generator.parameters()).device
        with torch.no_grad():
            image = as_input(self._upload([source]))
            self._canonical = networks.detector(image)
            self._state = networks.estimator(image)
            self._keypoints = self._posed(self._state)
            self._volume = networks.generator.encode(image)
            self._initial: HeadState | None = None
            self._scale = 1.0
            if relative:
                self._initial = self._read([initial])
                self._scale = relative_scale(self._keypoints, self._posed(self._initial))

    @property
    def source(self) -> NDArray[np.uint8]:
        """The portrait as it was given ``[S,S,3]`` uint8 RGB."""
        return self._picture

    @torch.no_grad()
    def animate(self, frames: Sequence[int], cameras: Sequence[Camera] | None = None) -> NDArray[np.uint8]:
        """Draw the portrait with the driver's expressions and head poses.

        Args:
            frames: numbers of the driver's frames.
            cameras: camera labels ``[25]``, one per frame. The head is seen as from them, whatever pose
                portrait and driver have; translation and expression are the driver's as without cameras. None
                keeps the driver's poses.

        Returns:
            ``[n,S,S,3]`` uint8 RGB, in the crop of :attr:`source`.

        Raises:
            ValueError: if there is not one camera per frame, or a picture of the driver has another size.
        """
        if cameras is not None and len(cameras) != len(frames):
            raise ValueError(f"there are {len(cameras)} cameras for {len(frames)} frames; give one per frame")
        if not len(frames):
            return np.empty((0, *self._picture.shape), dtype=np.uint8)
        asked = None
        if cameras is not None:
            asked = torch.from_numpy(degrees_from_labels(cameras)).float().to(self._device)
        drawn = []
        for first in range(0, len(frames), self._batch):
            span = slice(first, first + self._batch)
            state = self._read(frames[span])
            keypoints = self._driven(state) if asked is None else self._turned(state, asked[span])
            picture = self._networks.generator.draw(self._volume, self._keypoints, keypoints).picture
            drawn.append((picture * 255).round().to(torch.uint8).permute(0, 2, 3, 1))
        return torch.cat(drawn).contiguous().cpu().numpy()

    def _driven(self, state: HeadState) -> Float[Tensor, "b k 3"]:
        """Return the keypoints of the driver's own poses."""
        keypoints = self._posed(state)
        if self._initial is None:
            return keypoints
        return relative_keypoints(self._keypoints, keypoints, self._posed(self._initial), self._scale)

    def _turned(self, state: HeadState, degrees: Float[Tensor, "b 3"]) -> Float[Tensor, "b k 3"]:
        """Return the keypoints of asked poses, with the driver's translation and expression.

        Relative mode scales and adds only these two: the pose is asked for, not a change of pose.
        """
        t, exp = state.t, state.exp
        if self._initial is not None:
            t = self._state.t + (t - self._initial.t) * self._scale
            exp = self._state.exp + (exp - self._initial.exp) * self._scale
        return pose_keypoints(self._canonical, degrees, t, exp)

    def _posed(self, state: HeadState) -> Float[Tensor, "b k 3"]:
        return pose_keypoints(self._canonical, state.degrees(), state.t, state.exp)

    def _read(self, frames: Sequence[int]) -> HeadState:
        """Return the head states of frames of the driver."""
        pictures = []
        for frame in frames:
            picture = self._driver(frame)
            if picture.shape != self._picture.shape or picture.dtype != np.uint8:
                raise ValueError(
                    f"frame {frame} of the driver is {picture.shape} {picture.dtype}, expected "
                    f"{self._picture.shape} uint8; cut it as the portrait is cut"
                )
            pictures.append(picture)
        return self._networks.estimator(as_input(self._upload(pictures)))

    def _upload(self, pictures: Sequence[NDArray[np.uint8]]) -> UInt8[Tensor, "b s s 3"]:
        return torch.from_numpy(np.stack(pictures)).to(self._device)
