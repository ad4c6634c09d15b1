"""Rendering a square patch of the image: the unit of work of inversion and tuning.

A patch of rays is volume-rendered and super-resolved on its own; the super-resolution is convolutional, so
away from the patch's border the pixels are those of the whole image, at a fraction of the time and memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from portrait_core.cameras import crop_rays
from portrait_core.config import GeneratorChoice
from portrait_core.generators import Planes, RaySampling, TriPlaneGenerator


def fitting_samples(generator: TriPlaneGenerator, choice: GeneratorChoice) -> RaySampling:
    """Samples a ray while fitting; near and far as the generator was trained."""
    own = generator.settings.sampling
    return RaySampling(
        near=own.near,
        far=own.far,
        n_coarse=choice.samples,
        n_fine=choice.importance_samples,
        coarse_grad=choice.coarse_gradient,
    )


@dataclass(frozen=True)
class Patch:
    """A square of ``size`` x ``size`` rays from ``row`` and ``column`` of a ``resolution`` square grid."""

    row: int
    column: int
    size: int
    resolution: int

    @classmethod
    def whole(cls, resolution: int) -> Patch:
        """All rays."""
        return cls(0, 0, resolution, resolution)

    @classmethod
    def central(cls, size: int, resolution: int) -> Patch:
        """The middle of the crop, a little low: where the fitted face is."""
        size = min(size, resolution)
        rest = resolution - size
        return cls(round(0.55 * rest), rest // 2, size, resolution)

    @classmethod
    def random(cls, size: int, resolution: int, rng: torch.Generator) -> Patch:
        """Anywhere in the image."""
        size = min(size, resolution)
        row, column = torch.randint(0, resolution - size + 1, (2,), generator=rng).tolist()
        return cls(row, column, size, resolution)

    @classmethod
    def near_centre(cls, size: int, resolution: int, rng: torch.Generator) -> Patch:
        """The central patch, moved at random by up to an eighth of the free space each way."""
        middle = cls.central(size, resolution)
        reach = max(1, (resolution - middle.size) // 4)
        move = torch.randint(-reach, reach + 1, (2,), generator=rng).tolist()
        limit = resolution - middle.size
        row, column = (
            min(max(a + d, 0), limit) for a, d in zip((middle.row, middle.column), move, strict=True)
        )
        return cls(row, column, middle.size, resolution)

    def rays(self) -> Tensor:
        """Indices ``[size*size]`` of the patch's rays in the whole grid."""
        rows = torch.arange(self.row, self.row + self.size)[:, None] * self.resolution
        return (rows + torch.arange(self.column, self.column + self.size)[None]).reshape(-1)

    def cut(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c p p"]:
        """The patch of an image whose side is a multiple of the resolution.

        Raises:
            ValueError: if it is not.
        """
        scale, rest = divmod(image.shape[-1], self.resolution)
        if rest:
            raise ValueError(
                f"image side {image.shape[-1]} is not a multiple of the neural resolution {self.resolution}; "
                "set generator.neural_resolution to a divisor of template.size"
            )
        top, left, side = self.row * scale, self.column * scale, self.size * scale
        return image[..., top : top + side, left : left + side]


@dataclass(frozen=True)
class PatchRender:
    """A rendered patch.

    Attributes:
        image: super-resolved ``[B,3,k*size,k*size]``, about [-1,1].
        raw: volume-rendered ``[B,3,size,size]``.
        depth: distance along the ray ``[B,1,size,size]``, box units.
        weight: coverage by the foreground ``[B,1,size,size]`` in 0..1.
    """

    image: Tensor
    raw: Tensor
    depth: Tensor
    weight: Tensor


def render_patch(
    generator: TriPlaneGenerator,
    planes: Planes,
    ws: Float[Tensor, "b layers w"],
    camera: Float[Tensor, "b 25"],
    patch: Patch,
    sampling: RaySampling,
    rng: torch.Generator | None = None,
) -> PatchRender:
    """Render one patch of every latent; ``rng`` jitters the samples, without it they are fixed."""
    batch, size = len(ws), patch.size
    origins, directions = crop_rays(camera.expand(batch, -1), patch.resolution)
    index = patch.rays().to(camera.device)
    rays = generator.render_rays(
        planes,
        origins[:, index],
        directions[:, index],
        sampling,
        jitter=rng is not None,
        generator=rng,
    )
    features = rays.features.transpose(1, 2).reshape(batch, -1, size, size)
    return PatchRender(
        image=generator.superresolve(features, ws, patch.resolution),
        raw=features[:, :3],
        depth=rays.depth.reshape(batch, 1, size, size),
        weight=rays.weight.reshape(batch, 1, size, size),
    )
