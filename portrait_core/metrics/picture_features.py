"""One vector per picture, from a network that pools its last map: what distances of distributions compare."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

BATCH = 16


class PooledNetwork(Protocol):
    """A frozen network in evaluation mode.

    Attributes:
        variant: name of the Fréchet distance of its features, to stand beside every such number.
        feature_size: number of features of a picture, D.
    """

    variant: str
    feature_size: int

    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return features of pictures in 0..1; the network resizes them as it wants them."""
        ...


@torch.no_grad()
def picture_features(
    pictures: NDArray[np.uint8],
    network: PooledNetwork,
    batch: int = BATCH,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Return the pooled features of pictures.

    Args:
        pictures: ``[N,H,W,3]`` uint8 RGB.
        network: such as :class:`~portrait_core.metrics.inception.Inception` or
            :class:`~portrait_core.metrics.embedded_features.EmbeddedFeatures`, on ``device``.
        batch: number of pictures that are computed together.
        device: the network's device.

    Returns:
        ``[N,D]``, one row per picture in their order.

    Raises:
        ValueError: for pictures of another shape or type.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"pictures are {pictures.dtype} {list(pictures.shape)}, expected uint8 [N,H,W,3]")
    found = np.zeros((len(pictures), network.feature_size), np.float32)
    for first in range(0, len(pictures), batch):
        part = torch.from_numpy(np.ascontiguousarray(pictures[first : first + batch])).to(device)
        found[first : first + batch] = network(part.permute(0, 3, 1, 2).float() / 255).cpu().numpy()
    return found
