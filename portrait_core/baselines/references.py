"""The two references that cost nothing: the still photograph, and the expression template pasted on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from portrait_core.baselines.interface import Animator, Camera

Picture = NDArray[np.uint8]


class ReadFrames(Animator):
    """Pictures that exist already, one per frame of the driver.

    Args:
        source: the portrait ``[S,S,3]``.
        read: returns the picture ``[S,S,3]`` of a frame.
        name: name of the method, for messages.
    """

    def __init__(self, source: Picture, read: Callable[[int], Picture], name: str) -> None:
        self._source, self._read, self._name = source, read, name

    @classmethod
    def still(cls, source: Picture) -> ReadFrames:
        """Return the portrait that never moves."""
        return cls(source, lambda frame: source, "the still photograph")

    @property
    def source(self) -> Picture:
        """The portrait ``[S,S,3]``."""
        return self._source

    def animate(self, frames: Sequence[int], cameras: Sequence[Camera] | None = None) -> Picture:
        """Return the frames' pictures ``[n,S,S,3]``; see :meth:`.Animator.animate`.

        Raises:
            ValueError: cameras are given.
        """
        if cameras is not None:
            raise ValueError(f"{self._name} cannot be seen from another side; leave cameras out")
        return np.stack([self._read(frame) for frame in frames])
