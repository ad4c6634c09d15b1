"""A tuned generator at the driver's poses: the first frame's latent everywhere, frame i's face on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from portrait_core.cameras import (
    angles_from_labels,
    labels_from_rotations,
    offsets_from_labels,
    orbit_rotation,
    rotations_from_labels,
    smooth_labels,
)
from portrait_core.generators import CameraRays, Patch, RaySampling, VolumeGenerator
from portrait_core.rendering.compositing import composite, points_from_depth, reproject_mask, soften
from portrait_core.settings import CompositeSettings, RenderSettings
from portrait_core.tracking.same_face import Match

PoseTransfer = Literal["relative", "absolute", "none"]
FRONTAL_DEG = 15.0
"""A portrait that is turned by more shows too little of its far side to be turned all the way to it."""
FACE_MARGIN = 0.08
"""The rendered face patch reaches so far beyond the first frame's face (share of the image): room for a jaw
that drops."""
MIN_MARGIN_RAYS = 6
"""At least so many rays: the super-resolution's pixels near a patch's border are not those of the whole."""


@dataclass(frozen=True)
class PosedFrame:
    """One output frame.

    Attributes:
        image: the composite ``[S,S,3]`` uint8.
        first: the first frame's latent at the same pose ``[S,S,3]`` uint8.
        mask: where ``image`` comes from frame i ``[S,S]`` uint8, 0..255.
        depth: of ``first``, distance along the ray ``[R,R]`` float16, box units.
    """

    image: NDArray[np.uint8]
    first: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float16]


def pose_transfer(portrait: NDArray[np.floating], settings: RenderSettings) -> PoseTransfer:
    """Choose which poses the output takes from the driver.

    They are those of the settings, or with ``auto`` relative ones where the portrait, seen by the camera
    ``portrait [1,25]``, is turned by more than :data:`FRONTAL_DEG`.
    """
    if settings.pose_transfer != "auto":
        return settings.pose_transfer
    yaw_rad, pitch_rad, _ = angles_from_labels(portrait)[0]
    turned = np.degrees(np.arccos(np.cos(yaw_rad) * np.cos(pitch_rad)))
    return "relative" if turned > FRONTAL_DEG else "absolute"


def target_cameras(
    driver: NDArray[np.floating],
    portrait: NDArray[np.floating],
    settings: RenderSettings,
    match: Match | None = None,
) -> NDArray[np.float32]:
    """Return the output's camera labels ``[T,25]``, from the driver's and the portrait's ``[1,25]``.

    The driver's poses are averaged over ``pose_window`` frames (paper section 3.3);
    ``pose_transfer=relative`` applies their change from the first frame to the portrait's own pose, and where
    a frame is known that shows the portrait itself (``match``), absolute and relative poses alike are their
    change from that frame. Yaw and pitch are held within the limits, and the turn from the portrait's own
    pose within ``max_turn_deg``. Cameras that look past the origin do so after it.
    ``pose_transfer=none`` is the portrait's own camera in every frame, and ``auto`` is what
    :func:`pose_transfer` says.
    """
    transfer = pose_transfer(portrait, settings)
    if transfer == "none":
        return np.repeat(np.asarray(portrait, np.float32), len(driver), axis=0)
    labels = smooth_labels(driver, settings.pose_window)
    if transfer == "relative" or match is not None:
        frame, roll_rad = match or (0, 0.0)
        rotations, own = rotations_from_labels(labels), rotations_from_labels(portrait)[0]
        rest = orbit_rotation(0.0, 0.0, roll_rad) @ own  # the portrait, as it lies in that frame
        offsets = offsets_from_labels(labels)
        offsets = offsets - offsets[frame] + offsets_from_labels(portrait)
        labels = labels_from_rotations(rotations @ rotations[frame].T @ rest, offsets)
    return held_cameras(labels, portrait, settings)


def held_cameras(
    cameras: NDArray[np.floating], portrait: NDArray[np.floating], settings: RenderSettings
) -> NDArray[np.float32]:
    """Hold cameras ``[T,25]`` within the limits of yaw and pitch.

    They also stay within ``max_turn_deg`` of the portrait's own ``[1,25]``.
    """
    limit = np.radians([settings.max_yaw_deg, settings.max_pitch_deg])
    angles = angles_from_labels(cameras)
    held = np.concatenate([np.clip(angles[:, :2], -limit, limit), angles[:, 2:]], axis=1)
    turned = np.stack([orbit_rotation(*a) for a in held])
    own = rotations_from_labels(portrait)[0]
    near = held_near(turned, own, np.radians(settings.max_turn_deg))
    return labels_from_rotations(near, offsets_from_labels(cameras))


def held_near(
    rotations: NDArray[np.floating], own: NDArray[np.floating], limit_rad: float
) -> NDArray[np.float64]:
    """Hold head rotations ``[T,3,3]`` within an angle of the portrait's own ``[3,3]``."""
    turns = Rotation.from_matrix(rotations @ own.T).as_rotvec()
    angles = np.linalg.norm(turns, axis=1, keepdims=True)
    shares = np.minimum(1.0, limit_rad / np.maximum(angles, 1e-9))
    near = Rotation.from_rotvec(turns * shares).as_matrix() @ own
    return np.asarray(np.where((shares < 1)[..., None], near, rotations))


def final_sampling(generator: VolumeGenerator, settings: RenderSettings) -> tuple[RaySampling, int]:
    """Return the samples per ray and the neural resolution of pictures that are kept."""
    default = generator.settings.sampling
    sampling = RaySampling(
        near=default.near, far=default.far, n_coarse=settings.samples, n_fine=settings.importance_samples
    )
    return sampling, settings.neural_resolution or generator.settings.neural_resolution


class PoseRenderer:
    """Renders and composites frames of one clip. Read-only: frames may be rendered in any order, anywhere.

    Args:
        generator: the tuned generator, in eval mode.
        first: the first frame's latent ``[1,rows,w]``.
        first_face: its face mask at the portrait's camera ``[1,1,S,S]`` in 0..1.
        camera: the portrait's camera ``[1,25]``.
    """

    def __init__(
        self,
        generator: VolumeGenerator,
        first: Float[Tensor, "1 rows w"],
        first_face: Float[Tensor, "1 1 s s"],
        camera: Float[Tensor, "1 25"],
        render: RenderSettings,
        compositing: CompositeSettings,
    ) -> None:
        self.generator, self.first, self.first_face, self.camera = generator, first, first_face, camera
        self.settings, self.compositing = render, compositing
        self.sampling, self.resolution = final_sampling(generator, render)
        with torch.no_grad():
            self.planes = generator.planes(first)
            source = self._whole(first, camera)
        self.source_depth = source["image_depth"]

    def _whole(self, ws: Tensor, camera: Tensor) -> dict[str, Tensor]:
        planes = self.planes if ws is self.first else self.generator.planes(ws)
        return self.generator.synthesis(ws, camera, self.resolution, sampling=self.sampling, planes=planes)

    @torch.no_grad()
    def render(
        self, ws: Float[Tensor, "1 rows w"], face: Float[Tensor, "1 1 s s"], camera: Float[Tensor, "1 25"]
    ) -> PosedFrame:
        """Render frame i at ``camera``, of any device.

        ``ws`` is its latent, and ``face`` its face mask at the portrait's camera.
        """
        camera = camera.to(self.first)
        base = self._whole(self.first, camera)
        first, depth = base["image"].clamp(-1, 1), base["image_depth"]
        if self.compositing.mode == "whole":
            own = self._whole(ws, camera)["image"].clamp(-1, 1)
            mask = torch.ones_like(own[:, :1])
            return _posed(own, first, mask, depth)
        points = points_from_depth(camera, depth)
        first_mask = reproject_mask(self.first_face, self.camera, self.source_depth, points)
        patch = self._face_patch(first_mask)
        own, mask = self._own_face(ws, face, camera, patch)
        if self.compositing.union_first:
            mask = mask.maximum(patch.cut(first_mask))
        mask = self._soft(mask, own.shape[-1])
        image = first.clone()
        patch.cut(image).copy_(composite(own, patch.cut(first), mask))
        full = torch.zeros_like(first[:, :1])
        patch.cut(full).copy_(mask)
        return _posed(image, first, full, depth)

    def _own_face(self, ws: Tensor, face: Tensor, camera: Tensor, patch: Patch) -> tuple[Tensor, Tensor]:
        """Return frame i's pixels and its face mask over the patch."""
        rays = CameraRays.of(camera, patch.resolution)
        render = self.generator.render_patch(ws, rays, patch, self.sampling)
        points = rays.through(patch).points(render.depth.flatten(1))
        points = points.reshape(1, patch.size, patch.size, 3)
        mask = reproject_mask(face, self.camera, self.source_depth, points)
        return render.image.clamp(-1, 1), mask

    def _face_patch(self, mask: Tensor) -> Patch:
        """Return the smallest square of rays around the mask and its margin."""
        resolution = self.resolution
        found = bounds(mask[0, 0] > 0.02)
        if found is None:
            return Patch.whole(resolution)
        margin = max(FACE_MARGIN * resolution, MIN_MARGIN_RAYS)
        low, high = found[0] - margin, found[1] + margin
        step = self.generator.settings.patch_step(resolution)
        size = min(resolution, math.ceil((int((high - low).max()) + 2) / step) * step)
        corner = ((low + high) / 2 - size / 2).round().clamp(0, resolution - size).int().tolist()
        return Patch(corner[0], corner[1], size, resolution)

    def _soft(self, mask: Tensor, size: int) -> Tensor:
        """Return the mask at image resolution, grown and feathered, and 0 at the patch's border."""
        settings = self.compositing
        large = F.interpolate(mask, (size, size), mode="bilinear", align_corners=False)
        soft = soften(large, settings.dilate_px, settings.feather_px)
        edge = torch.arange(size, device=mask.device)
        inside = (torch.minimum(edge, size - 1 - edge) / max(1.0, settings.feather_px)).clamp(max=1)
        return soft * inside[:, None] * inside[None]


def bounds(inside: Bool[Tensor, "r c"]) -> Int[Tensor, "2 2"] | None:
    """Find the first and last row and column of a mask, by one copy to the CPU.

    They are ``[[row, column], [row, column]]``; None where the mask is empty.
    """
    found = []
    for axis in (1, 0):
        some = inside.any(axis)
        place = torch.arange(len(some), device=inside.device)
        found += [torch.where(some, place, len(some)).amin(), torch.where(some, place, -1).amax()]
    first_row, last_row, first_column, last_column = torch.stack(found).cpu()
    if last_row < 0:
        return None
    return torch.stack([torch.stack([first_row, first_column]), torch.stack([last_row, last_column])])


def _posed(image: Tensor, first: Tensor, mask: Tensor, depth: Tensor) -> PosedFrame:
    def pixels(values: Tensor) -> NDArray[np.uint8]:
        array = ((values[0] + 1) * 127.5).round().byte().permute(1, 2, 0)
        return np.asarray(array.cpu().numpy())

    return PosedFrame(
        image=pixels(image),
        first=pixels(first),
        mask=np.asarray((mask[0, 0] * 255).round().byte().cpu().numpy()),
        depth=depth[0, 0].cpu().numpy().astype(np.float16),
    )
