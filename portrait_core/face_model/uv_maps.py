"""Surfaces as maps over texture coordinates: surface points of texels, and their colours in a picture.

A map's row 0 is v = 1; texel ``i`` of an axis of size S has its centre at ``(i + 0.5) / S``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.errors import clipped
from portrait_core.face_model.orthographic import ndc_to_pixels, ndc_to_source
from portrait_core.face_model.raster import Fragments, interpolate, rasterize
from portrait_core.media import read_image
from portrait_core.runtime.regular_files import read_regular

_MOST_BYTES = 1 << 24
"""Bytes of a mesh's file; one of 10,000 points has a tenth of them."""
UNKNOWN_ALBEDO = 0.7
"""The grey that DECA puts where a texture is masked, when there is no albedo model."""


@dataclass(frozen=True)
class UvLayout:
    """Texture coordinates of a mesh, whose seams may have several at one vertex.

    ``uv [U,2]`` in 0..1, v up; ``uv_faces [F,3]`` their triangles; ``faces [F,3]`` the same triangles'
    vertices. Indices from 0.
    """

    uv: NDArray[np.float32]
    uv_faces: NDArray[np.int64]
    faces: NDArray[np.int64]


def read_obj_layout(path: str | Path) -> UvLayout:
    """Read the texture coordinates of a triangle mesh in OBJ (``head_template.obj``).

    Raises:
        OSError: if it cannot be read, or is no regular file.
        ValueError: if the file is missing, is larger than a head's mesh, has no texture coordinates, or a
            face is no triangle ``v/vt``.
    """
    if not Path(path).exists():
        raise ValueError(f"no mesh at {path}; DECA's data folder has head_template.obj")
    data, size = read_regular(path, _MOST_BYTES)
    if size > _MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, a head's mesh at most {_MOST_BYTES:,}; export it again")
    uv: list[list[float]] = []
    corners: list[list[list[int]]] = []
    for line in data.decode().splitlines():
        words = line.split()
        if words[:1] == ["vt"]:
            uv.append([float(word) for word in words[1:3]])
        elif words[:1] == ["f"]:
            corners.append([_corner(word, line) for word in words[1:]])
    if not uv or not corners or any(len(face) != 3 for face in corners):
        raise ValueError(
            f"{path} is no mesh of triangles with texture coordinates; expected lines 'f v/vt ...'"
        )
    try:
        index = np.array(corners, dtype=np.int64) - 1  # f 3 (v, vt)
    except OverflowError as error:
        raise ValueError(
            f"{path} has faces that name points that it does not list; export it again"
        ) from error
    if index.min() < 0 or index[..., 1].max() >= len(uv):
        raise ValueError(f"{path} has faces that name points that it does not list; export it again")
    return UvLayout(np.array(uv, dtype=np.float32), index[..., 1].copy(), index[..., 0].copy())


def _corner(word: str, line: str) -> list[int]:
    parts = word.split("/")
    if len(parts) < 2 or not parts[1]:
        raise ValueError(f"face without texture coordinates: {clipped(line)!r}; export the mesh with them")
    return [int(parts[0]), int(parts[1])]


def read_uv_mask(path: str | Path) -> Float[Tensor, "r r"]:
    """Read a mask of texels (``uv_face_eye_mask.png``): its red channel, 0..1.

    Raises:
        ValueError: if it is no square picture.
    """
    red = read_image(path)[..., 0]
    if red.shape[0] != red.shape[1]:
        raise ValueError(
            f"{path} has {red.shape[1]}x{red.shape[0]} texels, expected a square; download it again"
        )
    return torch.from_numpy(red.copy()).float() / 255


class UvMapper(nn.Module):
    """Carries vertex attributes to the texels of one size; the layout is rasterised once."""

    def __init__(self, layout: UvLayout, size: int):
        """Rasterise the layout into ``size`` x ``size`` texels (DECA: 256).

        Raises:
            ValueError: if the size is not positive.
        """
        super().__init__()
        if size < 1:
            raise ValueError(f"texture size must be at least 1, got {size}; DECA's is 256")
        self.size = size
        uv = torch.from_numpy(layout.uv)
        ndc = uv_to_ndc(uv)[None]
        flat = torch.cat([ndc_to_pixels(ndc, size, size), torch.ones_like(ndc[..., :1])], -1)
        # charts may overlap: then the later face has the texel
        fragments = rasterize_later_first(flat, torch.from_numpy(layout.uv_faces), size, size)
        self.register_buffer("faces", torch.from_numpy(layout.faces), persistent=False)
        self.register_buffer("uv", uv, persistent=False)
        self.register_buffer("uv_faces", torch.from_numpy(layout.uv_faces), persistent=False)
        self.register_buffer("_face_id", fragments.face_id, persistent=False)
        self.register_buffer("_bary", fragments.bary, persistent=False)
        self.faces: Tensor
        self.uv: Tensor
        self.uv_faces: Tensor
        self._face_id: Tensor
        self._bary: Tensor

    @property
    def cover(self) -> Bool[Tensor, "s s"]:
        """The texels that belong to the surface."""
        return self._face_id[0] >= 0

    def to_uv(self, attributes: Float[Tensor, "b v c"]) -> Float[Tensor, "b c s s"]:
        """Interpolate vertex attributes at every texel, 0 where there is no surface."""
        batch = len(attributes)
        fragments = Fragments(
            self._face_id.expand(batch, -1, -1), self._bary.expand(batch, -1, -1, -1), self._bary[..., 0]
        )
        return interpolate(attributes, self.faces, fragments).permute(0, 3, 1, 2)

    def sample_crop(
        self, images: Float[Tensor, "b c h w"], ndc: Float[Tensor, "b v 3"]
    ) -> Float[Tensor, "b c s s"]:
        """Sample DECA's texture: the crop's colours at each texel of a mesh given in its NDC.

        Bilinear, 0 outside. Texels without surface show the crop's centre: mask them with ``cover``.
        """
        grid = self.to_uv(ndc[..., :2]).permute(0, 2, 3, 1)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    def sample_source(
        self,
        images: Float[Tensor, "b c h w"],
        ndc: Float[Tensor, "b v 3"],
        tform: Float[Tensor, "b 3 3"],
        crop_size: int = 224,
    ) -> Float[Tensor, "b c s s"]:
        """Sample the paper's texture (section 4, implementation details) from the source image.

        Every texel takes the source image's own pixels, through the crop's transform, rather than those of
        DECA's 224-pixel crop.

        Args:
            images: the whole source images, of any size.
            ndc: mesh in the crop's NDC.
            tform: source to crop pixels.
            crop_size: side of that crop in pixels.

        Returns:
            Colours in the range of ``images``, bilinear; 0 outside the image and where there is no surface.
        """
        size = images.new_tensor([images.shape[3], images.shape[2]])
        place = ndc_to_source(ndc, tform, crop_size)[..., :2] / size * 2 - 1
        grid = self.to_uv(place).permute(0, 2, 3, 1)
        texture = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
        return texture * self.cover.to(texture)


def uv_to_ndc(uv: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
    """Map texture coordinates (0..1, v up) to the NDC of the map (-1..1, y down)."""
    return (uv * 2 - 1) * uv.new_tensor([1.0, -1.0])


def rasterize_later_first(
    vertices_px: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], height: int, width: int
) -> Fragments:
    """Rasterise without perspective; of faces at equal depth, the later one is visible, as in DECA."""
    fragments = rasterize(vertices_px, faces.flip(0), height, width, perspective=False)
    hit = fragments.face_id >= 0
    return fragments._replace(face_id=torch.where(hit, len(faces) - 1 - fragments.face_id, fragments.face_id))


def masked_texture(
    texture: Float[Tensor, "b c s s"], mask: Float[Tensor, "*b 1 s s"]
) -> Float[Tensor, "b c s s"]:
    """Return the texture where ``mask`` (0..1) is 1, DECA's grey where it is 0."""
    return texture * mask + UNKNOWN_ALBEDO * (1 - mask)


def grid_triangles(height: int, width: int, margin_x: int = 2, margin_y: int = 5) -> Int[Tensor, "f 3"]:
    """Return two triangles per texel of a dense map, its margins left out; vertex ``y * width + x``.

    Columns outermost, as DECA numbers them.

    Raises:
        ValueError: if the margins leave nothing.
    """
    if width < 2 * margin_x + 2 or height < 2 * margin_y + 2:
        raise ValueError(f"a {width}x{height} map has nothing inside its margins; take a larger one")
    x = torch.arange(margin_x, width - 1 - margin_x)
    y = torch.arange(margin_y, height - 1 - margin_y)
    corner = (y[None, :] * width + x[:, None]).reshape(-1, 1)
    pair = torch.tensor([[0, width, 1], [1, width, width + 1]])
    return (corner[:, None] + pair).reshape(-1, 3)
