"""The paper's own expression template (section 3.2).

It is FLAME with the portrait's identity and head pose, another expression and jaw, textured with the
portrait's pixels and laid over the portrait.

FLAME has no teeth, tongue or lids that close: the mouth interior is left to the generator, and eyes stay as
they are in the photograph, unless a picture of the portrait with other eyes is given (``driven_eyes``), whose
difference is then carried on the mesh like any other of the portrait's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from portrait_core.face_model import flame
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.orthographic import ndc_to_source, to_ndc
from portrait_core.face_model.raster import vertex_normals
from portrait_core.face_model.sh_rendering import Render, Surface, render
from portrait_core.face_model.uv_maps import UvMapper, rasterize_later_first
from portrait_core.template.template import Template
from portrait_core.tracking.deca import DecaCode
from portrait_core.tracking.wild_crop import CropPlacement

_OUTER_LIPS = slice(48, 60)
"""The outer lips among the 68 landmarks."""


@dataclass(frozen=True)
class FlameSource:
    """A portrait that DECA tracked."""

    image: NDArray[np.uint8]
    """The whole photograph ``[H,W,3]`` uint8, which the texture is sampled from."""
    portrait: NDArray[np.uint8]
    """The generator's crop ``[S,S,3]`` uint8 that the template is laid over."""
    placement: CropPlacement
    """Place of that crop in the photograph (one row)."""
    code: DecaCode
    """DECA's code, one row."""
    tform: Float[Tensor, "1 3 3"]
    """Transform of the photograph's pixels to those of DECA's crop."""


class FlameTemplateRenderer:
    """Renders one portrait on FLAME's mesh with other expressions."""

    def __init__(
        self,
        head: MorphableHead,
        mapper: UvMapper,
        source: FlameSource,
        region: Float[Tensor, "r r"] | None = None,
        feather_px: float = 4.0,
    ):
        """Sample the portrait's texture.

        Args:
            head: from ``flame_head`` with landmarks, on the CPU as everything here, since OpenCV finishes the
                pictures.
            mapper: FLAME's texture coordinates; its size is the texture's (1024 or more for a 512-pixel
                crop, whose face is then not blurred).
            source: the portrait.
            region: mask of the texture's face, 0..1 (DECA's ``uv_face_eye_mask.png``, red channel); without
                it the whole mesh is drawn, scalp and neck too.
            feather_px: width of the masks' soft edge, in pixels of the crop.

        Raises:
            ValueError: if the crop is not square uint8 or the source is more than one portrait.
        """
        shape = source.portrait.shape
        if len(shape) != 3 or shape[0] != shape[1] or source.portrait.dtype != np.uint8:
            raise ValueError(f"portrait must be [S,S,3] uint8, got {shape}; crop it with generator_crops")
        if len(source.tform) != 1 or len(source.code.shape) != 1:
            raise ValueError(f"expected one portrait, got {len(source.tform)}; pass one row of each")
        self.head, self.mapper, self.source, self.feather_px = head, mapper, source, feather_px
        size = mapper.size
        ones = torch.ones(1, 1, size, size)
        self._region = ones if region is None else F.interpolate(region[None, None].float(), (size, size))
        code = source.code
        posed = flame.decode(head, code.shape, code.exp, code.pose)
        place = self._to_crop(posed.vertices)[..., :2] / shape[0] * 2 - 1
        self._in_crop = mapper.to_uv(place).permute(0, 2, 3, 1)
        photo = torch.from_numpy(np.array(source.image)).permute(2, 0, 1)[None].float() / 255
        ndc = to_ndc(posed.vertices, code.cam)
        self._texture = torch.cat([mapper.sample_source(photo, ndc, source.tform), self._region], 1)
        self._source_face = self._face(self._draw(posed.vertices, self._texture))[0]

    @torch.no_grad()
    def render(
        self,
        expression: NDArray[np.floating],
        jaw: NDArray[np.floating],
        portraits: NDArray[np.uint8] | None = None,
    ) -> Template:
        """Render the template of B frames.

        Args:
            expression: of every frame ``[B,E]``.
            jaw: of every frame ``[B,3]``, axis-angle in radians.
            portraits: the portrait's crop with every frame's eyes ``[B,S,S,3]``; None means its own.

        Raises:
            ValueError: if the numbers of expressions, jaws and portraits differ or are 0.
        """
        if len(expression) != len(jaw) or not len(jaw):
            raise ValueError(f"got {len(expression)} expressions and {len(jaw)} jaws; pass one jaw per frame")
        if portraits is None:
            portraits = np.broadcast_to(self.source.portrait, (len(jaw), *self.source.portrait.shape))
        frames = [self._frame(*frame) for frame in zip(expression, jaw, portraits, strict=True)]
        image, face, mouth, gone = (np.stack(part) for part in zip(*frames, strict=True))
        return Template(image, face, mouth, gone)

    @torch.no_grad()
    def landmarks(self, expression: NDArray[np.floating], jaw: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the 68 landmarks ``[68,2]`` of one expression ``[E]`` and jaw ``[3]``, in crop pixels."""
        marks = self.head.landmarks(self._vertices(expression, jaw))
        return np.asarray(self._to_crop(marks)[0, :, :2].numpy())

    @torch.no_grad()
    def silhouette(self, expression: NDArray[np.floating], jaw: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Find the pixels of the crop ``[S,S]`` that the whole head covers, scalp and neck included."""
        pixels, size = self._to_crop(self._vertices(expression, jaw)), len(self.source.portrait)
        return np.asarray(
            (rasterize_later_first(pixels, self.mapper.faces, size, size).face_id[0] >= 0).numpy()
        )

    def _vertices(
        self, expression: NDArray[np.floating], jaw: NDArray[np.floating]
    ) -> Float[Tensor, "1 v 3"]:
        """Return the portrait's head with another expression and jaw, in metres."""
        code = self.source.code
        exp, turn = (torch.as_tensor(np.asarray(x), dtype=torch.float32)[None] for x in (expression, jaw))
        pose = flame.transfer_pose(code.pose, torch.cat([torch.zeros(1, 3), turn], 1))
        return flame.decode(self.head, code.shape, exp, pose).vertices

    def _frame(
        self, expression: NDArray[Any], jaw: NDArray[Any], portrait: NDArray[np.uint8]
    ) -> tuple[NDArray[Any], ...]:
        vertices = self._vertices(expression, jaw)
        drawn = self._draw(vertices, self._repainted(portrait))
        skin = self._face(drawn)[0]
        mouth = self._mouth(skin, vertices)
        soft = self._feathered(skin)[..., None]
        colour = drawn.image[0, :3].permute(1, 2, 0).numpy() * 255
        image = np.rint(portrait * (1 - soft) + colour * soft)
        face = skin | mouth
        gone = self._source_face & ~face
        masks = (self._feathered(face), mouth.astype(np.float32), gone.astype(np.float32))
        return (np.clip(image, 0, 255).astype(np.uint8), *masks)

    def _repainted(self, portrait: NDArray[np.uint8]) -> Float[Tensor, "1 4 r r"]:
        """Return the texture changed by another picture of the portrait ``[S,S,3]``.

        The photograph's texture is finer than the crop's, so only the difference of the pictures is added.
        """
        change = portrait.astype(np.float32) - self.source.portrait
        if not change.any():
            return self._texture
        picture = torch.from_numpy(change).permute(2, 0, 1)[None] / 255
        moved = F.grid_sample(picture, self._in_crop, padding_mode="zeros", align_corners=False)
        texture = self._texture.clone()
        texture[:, :3] = (texture[:, :3] + moved * self.mapper.cover).clamp(0, 1)
        return texture

    def _to_crop(self, points: Float[Tensor, "1 n 3"]) -> Float[Tensor, "1 n 3"]:
        """Map head points to continuous pixels of the generator's crop, z away from the viewer."""
        ndc = to_ndc(points, self.source.code.cam)
        pixels = ndc_to_source(ndc, self.source.tform)
        crop = self.source.placement.to_crop(pixels[..., :2].double().numpy())
        return torch.cat([torch.from_numpy(crop).float(), ndc[..., 2:]], -1)

    def _draw(self, vertices: Float[Tensor, "1 v 3"], texture: Float[Tensor, "1 4 r r"]) -> Render:
        size, faces = len(self.source.portrait), self.mapper.faces
        fragments = rasterize_later_first(self._to_crop(vertices), faces, size, size)
        ndc = to_ndc(vertices, self.source.code.cam)
        surface = Surface(fragments, vertex_normals(vertices, faces), vertex_normals(ndc, faces))
        return render(self.mapper, surface, texture)

    @staticmethod
    def _face(drawn: Render) -> NDArray[np.bool_]:
        """Find the pixels ``[1,S,S]`` that show the outside of the region."""
        return ((drawn.image[:, 3] > 0.5) & (drawn.facing[:, 0] > 0.5)).numpy()

    def _mouth(self, skin: NDArray[np.bool_], vertices: Tensor) -> NDArray[np.bool_]:
        """Find the opening between the lips ``[S,S]``: pixels inside their outline that show no skin."""
        lips = self._to_crop(self.head.landmarks(vertices))[0, _OUTER_LIPS, :2].numpy()
        outline = np.zeros(skin.shape, np.uint8)
        cv2.fillPoly(outline, [np.rint((lips - 0.5) * 256).astype(np.int32)], 1, shift=8)
        return np.asarray(binary_fill_holes(skin) & ~skin & outline.astype(bool))

    def _feathered(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Soften the edge of a mask, inside of it: ``[S,S]``, 0..1."""
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(0.5 * self.feather_px, 1e-3))
        return np.clip(2 * soft - 1, 0, 1)
