"""The interface of methods that animate a portrait frame by frame, without optimisation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Camera = NDArray[np.floating]
"""Camera label ``[25]`` (:mod:`portrait_core.cameras.labels`)."""


class Animator(ABC):
    """A portrait and the clip that drives it, ready to be drawn.

    It is built of both by its own module; frames of the driver can then be drawn in any order and grouping,
    with equal results.
    """

    @property
    @abstractmethod
    def source(self) -> NDArray[np.uint8]:
        """The portrait in the method's own crop ``[S,S,3]`` uint8 RGB."""

    @abstractmethod
    def animate(self, frames: Sequence[int], cameras: Sequence[Camera] | None = None) -> NDArray[np.uint8]:
        """Draw the portrait with the driver's expressions and head poses.

        Args:
            frames: numbers of the driver's frames.
            cameras: cameras from which the head is seen instead of in the driver's pose, one per frame; None
                keeps the driver's poses.

        Returns:
            ``[n,S,S,3]`` uint8 RGB, in the crop of :attr:`source`.

        Raises:
            ValueError: cameras are given to a method that cannot turn the head.
        """
