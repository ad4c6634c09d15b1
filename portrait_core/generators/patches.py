"""Square patches of an image: the unit of work of inversion and tuning.

A patch of rays is volume-rendered and super-resolved on its own; the super-resolution is convolutional, so
away from the patch's border the pixels are those of the whole image, at a fraction of the time and memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from portrait_core.errors import InputError
from portrait_core.generators.rays import Rays
from portrait_core.generators.triplane import Planes


@dataclass(frozen=True)
class Patch:
    """A square of ``size`` x ``size`` rays from ``row`` and ``column`` of a ``resolution`` square grid.

    The place is known to the host, or lies in tensors on the device (``[]`` int64 each): a loop whose patches
    are drawn beforehand takes one operation after the other without the host's knowing where it is.
    """

    row: int | Tensor
    column: int | Tensor
    size: int
    resolution: int

    @classmethod
    def whole(cls, resolution: int) -> Patch:
        """Make the patch of all rays."""
        return cls(0, 0, resolution, resolution)

    @classmethod
    def central(cls, size: int, resolution: int) -> Patch:
        """Make the patch in the middle of the crop, a little low, where the fitted face is."""
        size = min(size, resolution)
        rest = resolution - size
        return cls(round(0.55 * rest), rest // 2, size, resolution)

    @classmethod
    def random(cls, size: int, resolution: int, rng: torch.Generator) -> Patch:
        """Draw a patch anywhere in the image; ``rng`` is on the host."""
        size = min(size, resolution)
        row, column = torch.randint(0, resolution - size + 1, (2,), generator=rng).tolist()
        return cls(row, column, size, resolution)

    @classmethod
    def near_centre(cls, size: int, resolution: int, rng: torch.Generator) -> Patch:
        """Draw the central patch, moved by up to an eighth of the free space each way."""
        middle = cls.central(size, resolution)
        reach = max(1, (resolution - middle.size) // 4)
        move = torch.randint(-reach, reach + 1, (2,), generator=rng).tolist()
        limit = resolution - middle.size
        row, column = (
            min(max(int(a) + d, 0), limit) for a, d in zip((middle.row, middle.column), move, strict=True)
        )
        return cls(row, column, middle.size, resolution)

    @property
    def is_whole(self) -> bool:
        """True for a patch that is the whole image."""
        return self.size == self.resolution

    def rays(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the indices ``[size*size]`` int64 of the patch's rays in the whole grid."""
        along = torch.arange(self.size, device=device)
        return ((along + self.row)[:, None] * self.resolution + (along + self.column)[None]).reshape(-1)

    def cut(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c p p"]:
        """Return the patch of an image whose side is a multiple of the resolution.

        It is a view of the image where the host knows the place, a copy otherwise.

        Raises:
            InputError: if it is no multiple.
        """
        if self.is_whole and image.shape[-1] % self.resolution == 0:
            return image
        scale, rest = divmod(image.shape[-1], self.resolution)
        if rest:
            raise InputError(
                f"image side {image.shape[-1]} is not a multiple of the neural resolution {self.resolution}; "
                "set generator.neural_resolution to a divisor of template.size"
            )
        side = self.size * scale
        if isinstance(self.row, Tensor):
            along = torch.arange(side, device=image.device)
            rows, columns = along + self.row * scale, along + self.column * scale
            return image.index_select(-2, rows).index_select(-1, columns)
        top, left = self.row * scale, int(self.column) * scale
        return image[..., top : top + side, left : left + side]


def corners(patches: Iterable[Patch], device: torch.device) -> Tensor:
    """Bring the places of patches, one per step, to the device ``[n,2]`` int64: row and column."""
    return torch.tensor([(patch.row, patch.column) for patch in patches], dtype=torch.int64).to(device)


@dataclass(frozen=True)
class CameraRays:
    """Rays of cameras through a square grid of pixels.

    Attributes:
        rays: ``resolution * resolution`` rays per camera, row by row.
        resolution: rays along a side.
    """

    rays: Rays
    resolution: int

    @classmethod
    def of(cls, camera: Float[Tensor, "b 25"], resolution: int) -> CameraRays:
        """Make the rays of camera labels."""
        return cls(Rays.of_cameras(camera, resolution), resolution)

    def through(self, patch: Patch) -> Rays:
        """Return the rays of a patch."""
        if patch.is_whole:
            return self.rays
        return self.rays.select(patch.rays(self.rays.origins.device))


@dataclass(frozen=True)
class PatchRender:
    """A rendered patch.

    Attributes:
        image: colours ``[B,3,k*size,k*size]``, about [-1,1]; k is the image's side over the grid's.
    """

    image: Tensor


@dataclass(frozen=True)
class VolumePatch(PatchRender):
    """A rendered patch of a volume. Losses of depth and coverage apply to no other.

    Attributes:
        raw: colours before they are up-sampled ``[B,3,size,size]``, about [-1,1].
        depth: expected distance along the ray ``[B,1,size,size]``, box units.
        accumulation: coverage by the volume ``[B,1,size,size]`` in 0..1.
        planes: feature planes of the latents.
    """

    raw: Tensor
    depth: Tensor
    accumulation: Tensor
    planes: Planes
