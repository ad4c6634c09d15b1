"""The tri-plane generator: EG3D (Chan et al. 2022) and the embedded model, one class."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators.interface import VolumeGenerator
from portrait_core.generators.layers import NoiseMode
from portrait_core.generators.patches import CameraRays, Patch, VolumePatch
from portrait_core.generators.precision import memory_format
from portrait_core.generators.rays import Rays, RaySampler
from portrait_core.generators.rendering import Decoder, Field, RayOutput, Renderer
from portrait_core.generators.settings import GeneratorSettings, RaySampling
from portrait_core.generators.superresolution import Superresolution
from portrait_core.generators.triplane import Backbone, Planes


class TriPlaneGenerator(VolumeGenerator):
    """Latent to tri-planes to rays to image. State-dict names are the published ones.

    Nothing here changes by being called: resolutions, samplings and noise are arguments of each call.
    """

    settings: GeneratorSettings

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings)
        self.decoder = Decoder(settings)
        self.superresolution = Superresolution(settings) if settings.superresolution else None
        self.renderer = Renderer(settings)
        # as for a CPU, where it is made; at_precision lays it out for the device where it runs
        self.to(memory_format=memory_format("cpu", "fp32"))  # type: ignore[call-overload]

    @property
    def has_scene_latents(self) -> bool:
        """True where z holds the parameters of a scene (:mod:`portrait_core.generators.scene_latents`)."""
        return self.settings.mapping_kind == "scene"

    @property
    def has_superresolution(self) -> bool:
        """True where rendered features are up-sampled; False where their first three are the image."""
        return self.superresolution is not None

    @property
    def ray_chunk(self) -> int | None:
        """Number of rays rendered at a time; None: all (without gradient: as many as memory is meant for)."""
        return self.renderer.ray_chunk

    @ray_chunk.setter
    def ray_chunk(self, rays: int | None) -> None:
        self.renderer.ray_chunk = rays

    def mapping(
        self,
        z: Float[Tensor, "b z"],
        c: Float[Tensor, "b 25"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Float[Tensor, "b num_ws w"]:
        """Map latents (and camera labels) to ws.

        The first ``truncation_cutoff`` rows (all, if None) are pulled toward the mean latent: ``w_avg +
        truncation_psi * (w - w_avg)``.

        Raises:
            ValueError: if z has other dimensions, c is missing where needed, or there is no mean latent.
        """
        if z.ndim != 2 or z.shape[1] != self.settings.z_dim:
            raise ValueError(f"z must be [B,{self.settings.z_dim}], got {list(z.shape)}")
        return self.backbone.mapping(z, c, truncation_psi, truncation_cutoff)

    def mapping_label(self, camera: Float[Tensor, "b 25"]) -> Float[Tensor, "b 25"] | None:
        """Return ``camera`` where :meth:`mapping` takes a label; None where it takes none."""
        return camera if self.settings.c_dim else None

    def mapping_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the mapping network."""
        return self.backbone.mapping.parameters()

    def planes(
        self,
        ws: Float[Tensor, "b rows w"],
        noise_mode: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> Planes:
        """Synthesise the feature planes of ``ws``, whose rows are one for all layers or one each."""
        return self.backbone.synthesis(ws, noise_mode, rng)

    def sample_points(
        self, planes: Planes, points: Float[Tensor, "b n 3"]
    ) -> tuple[Float[Tensor, "b n f"], Float[Tensor, "b n 1"]]:
        """Return features (activated, RGB first, in [-1,1]) and raw density at box-frame points."""
        return self.renderer.sample_points(Field(planes, self.decoder), points)

    def render_rays(self, planes: Planes, rays: Rays, sampler: RaySampler | None = None) -> RayOutput:
        """Volume-render rays; ``sampler=None`` takes the fixed samples of training.

        Raises:
            ValueError: if the sampler's random state belongs to another device than the rays.
        """
        sampler = sampler or RaySampler(self.settings.sampling)
        return self.renderer.render_rays(Field(planes, self.decoder), rays, sampler)

    @torch.no_grad()
    def shift_density_(self, shift: float) -> None:
        """Change the decoder in place so that every raw density is larger by ``shift``."""
        self.decoder.last.bias[0] += shift

    def background_depth(self, rays: Rays) -> Float[Tensor, "b n"] | None:
        """Return the distance along rays to the background plane in box units; None where there is none.

        Rays that run along the plane or away from it have a very large distance.
        """
        return self.renderer.background_depth(rays)

    def background_features(self, planes: Planes, xy: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n f"]:
        """Return features (activated, RGB first, in [-1,1]) of the background plane.

        ``xy`` are box-frame x and y over ``settings.background.wall_half_extent``.

        Raises:
            ValueError: if the generator has no background plane.
        """
        return self.renderer.background_features(Field(planes, self.decoder), xy)

    def background_along(self, planes: Planes, rays: Rays) -> Float[Tensor, "b n f"] | None:
        """Return features of the background plane where rays meet it; None where there is no plane."""
        features, _ = self.renderer.background(Field(planes, self.decoder), rays)
        return features

    def superresolve(
        self,
        features: Float[Tensor, "b f h w"],
        ws: Float[Tensor, "b rows w"],
        resolution: int | None = None,
    ) -> Float[Tensor, "b 3 h2 w2"]:
        """Up-sample rendered features to the image, by the last row of ``ws``.

        For a patch, ``resolution`` is the side of the whole rendering that it was cut from.

        Raises:
            ValueError: if the generator has no super-resolution, or the patch no whole size there.
        """
        if self.superresolution is None:
            raise ValueError("this generator has no super-resolution; set superresolution in its settings")
        return self.superresolution(features, ws[:, -1], resolution)

    def synthesis(
        self,
        ws: Float[Tensor, "b rows w"],
        cameras: Float[Tensor, "b 25"],
        neural_resolution: int | None = None,
        *,
        sampling: RaySampling | None = None,
        planes: Planes | None = None,
        noise_mode: NoiseMode = "const",
        jitter: bool = False,
        rng: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Render images of ``ws`` from camera labels.

        ``planes`` may be given where they are known. Returns ``image [B,3,S,S]`` and ``image_raw
        [B,3,R,R]`` in [-1,1] (not clipped), ``image_depth`` and ``image_weight [B,1,R,R]`` (see
        :class:`RayOutput`), with R the neural resolution.
        """
        size = neural_resolution or self.settings.neural_resolution
        if planes is None:
            planes = self.planes(ws, noise_mode, rng)
        # rounding of rays is the largest error of a float32 rendering, and double precision is cheap here
        precise = torch.float64 if cameras.device.type != "mps" else cameras.dtype
        rays = Rays.of_cameras(cameras.to(precise), size).to(cameras.dtype)
        rendered = self.render_rays(planes, rays, RaySampler(sampling or self.settings.sampling, jitter, rng))
        # [b,h*w,f] seen as [b,f,h,w] is already in channels-last order
        features = rendered.features.unflatten(1, (size, size)).permute(0, 3, 1, 2)
        raw = features[:, :3]
        image = raw if self.superresolution is None else self.superresolve(features, ws)
        return {
            "image": image,
            "image_raw": raw,
            "image_depth": rendered.depth.unflatten(1, (size, size))[:, None],
            "image_weight": rendered.accumulation.unflatten(1, (size, size))[:, None],
        }

    def render_image(
        self,
        ws: Float[Tensor, "b rows w"],
        camera: Float[Tensor, "b 25"],
        resolution: int | None = None,
        sampling: RaySampling | None = None,
    ) -> Float[Tensor, "b 3 s s"]:
        """Render whole images in [-1,1] (not clipped) with fixed samples; see :meth:`synthesis`."""
        return self.synthesis(ws, camera, resolution, sampling=sampling)["image"]

    def render_patch(
        self,
        ws: Float[Tensor, "b rows w"],
        rays: CameraRays,
        patch: Patch,
        sampling: RaySampling | None = None,
        rng: torch.Generator | None = None,
    ) -> VolumePatch:
        """Render one patch of every latent; see :meth:`.ImageGenerator.render_patch`."""
        batch, size = len(ws), patch.size
        planes = self.planes(ws)
        sampler = RaySampler(sampling or self.settings.sampling, rng is not None, rng)
        rendered = self.render_rays(planes, rays.through(patch).expand(batch), sampler)
        features = rendered.features.transpose(1, 2).reshape(batch, -1, size, size)
        up = self.has_superresolution
        return VolumePatch(
            image=self.superresolve(features, ws, patch.resolution) if up else features[:, :3],
            raw=features[:, :3],
            depth=rendered.depth.reshape(batch, 1, size, size),
            accumulation=rendered.accumulation.reshape(batch, 1, size, size),
            planes=planes,
        )

    def forward(
        self,
        z: Float[Tensor, "b z"],
        c: Float[Tensor, "b 25"],
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        neural_resolution: int | None = None,
    ) -> dict[str, Tensor]:
        """Map and render with the same camera labels; see :meth:`synthesis`."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        return self.synthesis(ws, c, neural_resolution)
