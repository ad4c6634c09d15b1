"""The interface of generators: all that inversion, tuning and rendering use of them.

Every generator is an :class:`ImageGenerator`: it maps latents to ws, and renders ws as images or as patches
of images. A generator with a volume is a :class:`VolumeGenerator` too: it renders rays and has depth,
coverage and a background. Losses that compare depth or coverage apply to that kind only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol

from jaxtyping import Float
from torch import Generator, Tensor, nn

from portrait_core.generators.mapping import LatentSizes
from portrait_core.generators.patches import CameraRays, Patch, PatchRender, VolumePatch
from portrait_core.generators.rays import Rays, RaySampler
from portrait_core.generators.rendering import RayOutput
from portrait_core.generators.settings import BackgroundSettings, RaySampling
from portrait_core.generators.triplane import Planes

FAST_NAMES = ("learned_const", ".maps", "base_plane")
"""Parts of the names of parameters that are learned maps."""


class ImageGeneratorSettings(LatentSizes, Protocol):
    """The dimensions of a generator."""

    @property
    def image_resolution(self) -> int:
        """Side of the image in pixels."""

    @property
    def neural_resolution(self) -> int:
        """Side of the grid that patches are cut from, in rays; in pixels where there is no volume."""


class VolumeGeneratorSettings(ImageGeneratorSettings, Protocol):
    """The dimensions of a generator with a volume."""

    @property
    def sampling(self) -> RaySampling:
        """Samples along rays in training."""

    @property
    def box_warp(self) -> float:
        """Side of the cube that the volume fills, in box units."""

    @property
    def background(self) -> BackgroundSettings | None:
        """The background plane; None where what stands behind the head is a part of the volume."""

    def patch_step(self, resolution: int) -> int:
        """Return the number of rays of which every patch's side must be a multiple."""


class ImageGenerator(nn.Module, ABC):
    """A generator of images from latents, with or without a volume."""

    settings: ImageGeneratorSettings
    mapping: Callable[..., Tensor]
    """Function from z ``[B,z_dim]`` and, where ``settings.c_dim`` is not 0, labels ``[B,c_dim]`` to ws
    ``[B,num_ws,w_dim]``."""

    @property
    def has_scene_latents(self) -> bool:
        """True where z holds the parameters of a scene (:mod:`portrait_core.generators.scene_latents`)."""
        return False

    def pose_latents(self, camera: Float[Tensor, "b 25"]) -> Float[Tensor, "b p"]:
        """Return the end of z that holds a camera, after a scene's parameters.

        It is empty where z holds no camera: there the volume is rendered from it.
        """
        return camera[:, :0]

    @abstractmethod
    def mapping_label(self, camera: Float[Tensor, "b 25"]) -> Float[Tensor, "b c"] | None:
        """Return the label that :attr:`mapping` takes for a camera; None where it takes none."""

    @abstractmethod
    def mapping_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the mapping network."""

    @abstractmethod
    def render_image(
        self,
        ws: Float[Tensor, "b rows w"],
        camera: Float[Tensor, "b 25"],
        resolution: int | None = None,
        sampling: RaySampling | None = None,
    ) -> Float[Tensor, "b 3 s s"]:
        """Render whole images in [-1,1] (not clipped), without random numbers.

        Args:
            ws: latents; one row serves all layers.
            camera: camera labels; without effect where there is no volume.
            resolution: rays along a side; None: ``settings.neural_resolution``.
            sampling: samples per ray; None: those of training.
        """

    @abstractmethod
    def render_patch(
        self,
        ws: Float[Tensor, "b rows w"],
        rays: CameraRays,
        patch: Patch,
        sampling: RaySampling | None = None,
        rng: Generator | None = None,
    ) -> PatchRender:
        """Render one patch of the image of every latent.

        Args:
            ws: latents; one row serves all layers.
            rays: rays of one camera, or of one per latent; without effect where there is no volume.
            patch: the patch to render.
            sampling: samples per ray; None: those of training.
            rng: random state, on the latents' device, that jitters the samples; None: they are fixed.
        """

    def fast_parameters(self) -> list[nn.Parameter]:
        """Return learned maps (constants, basis maps, base planes).

        They bear a 4-5 times higher learning rate.
        """
        return list(self._parameters_by_speed(fast=True))

    def slow_parameters(self) -> list[nn.Parameter]:
        """Return every other parameter."""
        return list(self._parameters_by_speed(fast=False))

    def _parameters_by_speed(self, fast: bool) -> Iterator[nn.Parameter]:
        for name, parameter in self.named_parameters():
            if any(learned in name for learned in FAST_NAMES) == fast:
                yield parameter


class VolumeGenerator(ImageGenerator):
    """A generator whose latents become a volume, with a background plane behind it where it has one."""

    settings: VolumeGeneratorSettings
    ray_chunk: int | None
    """Number of rays rendered at a time; None: all (without gradient: as many as memory is meant for)."""

    @property
    @abstractmethod
    def has_superresolution(self) -> bool:
        """True where rendered features are up-sampled; False where their first three are the image."""

    @abstractmethod
    def render_patch(
        self,
        ws: Float[Tensor, "b rows w"],
        rays: CameraRays,
        patch: Patch,
        sampling: RaySampling | None = None,
        rng: Generator | None = None,
    ) -> VolumePatch:
        """Render one patch of every latent; see :meth:`.ImageGenerator.render_patch`."""

    @abstractmethod
    def planes(self, ws: Float[Tensor, "b rows w"]) -> Planes:
        """Synthesise the feature planes of ``ws``."""

    @abstractmethod
    def synthesis(
        self,
        ws: Float[Tensor, "b rows w"],
        cameras: Float[Tensor, "b 25"],
        neural_resolution: int | None = None,
        *,
        sampling: RaySampling | None = None,
        planes: Planes | None = None,
    ) -> dict[str, Tensor]:
        """Render whole images with their depth.

        Returns:
            ``image [B,3,S,S]`` and ``image_raw [B,3,R,R]`` in [-1,1] (not clipped), ``image_depth`` in box
            units and ``image_weight`` (coverage in 0..1) ``[B,1,R,R]``, R the neural resolution.
        """

    @abstractmethod
    def render_rays(self, planes: Planes, rays: Rays, sampler: RaySampler | None = None) -> RayOutput:
        """Render rays through the volume; ``sampler=None`` takes the fixed samples of training."""

    @abstractmethod
    def background_depth(self, rays: Rays) -> Float[Tensor, "b n"] | None:
        """Return the distance along rays to the background plane in box units; None where there is none."""

    @abstractmethod
    def background_features(self, planes: Planes, xy: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n f"]:
        """Return features of the background plane.

        ``xy`` are box-frame x and y over ``settings.background.wall_half_extent``.

        Raises:
            ValueError: if the generator has no background plane.
        """

    @abstractmethod
    def superresolve(
        self,
        features: Float[Tensor, "b f h w"],
        ws: Float[Tensor, "b rows w"],
        resolution: int | None = None,
    ) -> Float[Tensor, "b 3 h2 w2"]:
        """Up-sample rendered features to an image in [-1,1].

        For a patch, ``resolution`` is the side of the whole rendering from which it is cut.

        Raises:
            ValueError: if :attr:`has_superresolution` is False, or the patch has no whole size there.
        """
