"""A textured mesh drawn as DECA draws it: orthographic, nine spherical harmonics of light, no clamping.

Lighting by second-order spherical harmonics: Ramamoorthi and Hanrahan 2001.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from portrait_core.face_model.orthographic import ndc_to_pixels
from portrait_core.face_model.raster import Fragments, interpolate, vertex_normals
from portrait_core.face_model.uv_maps import UvMapper, rasterize_later_first, uv_to_ndc

_FACING, _OVERLAY_FACING = -0.05, 0.15
"""Surfaces whose normal's z (away from the viewer) is below this are drawn."""
_OVERLAY_LIGHTS = ((-1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (-1.0, -1.0, 1.0), (1.0, -1.0, 1.0), (0.0, 0.0, 1.0))
_OVERLAY_GAIN = 0.24
"""Reflected share of each of the overlay's lights."""


def sh_constants() -> tuple[float, ...]:
    """Return nine factors: a spherical harmonic's normalisation times the attenuation of its band."""
    band0 = 1 / math.sqrt(4 * math.pi)  # its attenuation, pi, is part of the light
    band1 = (2 * math.pi / 3) * math.sqrt(3 / (4 * math.pi))
    band2 = (math.pi / 4) * 3 * math.sqrt(5 / (12 * math.pi))
    last = (math.pi / 4) * 0.5 * math.sqrt(5 / (4 * math.pi))
    return (band0, band1, band1, band1, band2, band2, band2, band2 / 2, last)


def sh_shading(normals: Float[Tensor, "b 3 h w"], light: Float[Tensor, "b 9 3"]) -> Float[Tensor, "b 3 h w"]:
    """Return the light on surfaces with the given world normals (x right, y up, z toward the viewer).

    ``light`` is a DECA code's: coefficient first, colour last.
    """
    x, y, z = normals.unbind(1)
    one = torch.ones_like(x)
    basis = torch.stack([one, x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], 1)
    weight = light * light.new_tensor(sh_constants())[:, None]
    return torch.einsum("bkhw,bkc->bchw", basis, weight)


class Surface(NamedTuple):
    """Visible surfaces of a batch of meshes, before texture and light."""

    fragments: Fragments
    normals: Float[Tensor, "b v 3"]
    """World normals of the vertices: x right, y up, z toward the viewer."""
    ndc_normals: Float[Tensor, "b v 3"]
    """Normals in NDC axes: negative z faces the viewer."""


class Render(NamedTuple):
    """A mesh drawn; 0 where there is none, except in ``shading``."""

    image: Float[Tensor, "b c h w"]
    """Albedo times shading, or albedo alone."""
    albedo: Float[Tensor, "b c h w"]
    alpha: Float[Tensor, "b 1 h w"]
    """1 where the mesh is, 0 elsewhere."""
    facing: Float[Tensor, "b 1 h w"]
    """1 where the surface faces the viewer."""
    grid: Float[Tensor, "b h w 2"]
    """Place of each pixel in the texture, in the NDC of the map."""
    normals: Float[Tensor, "b 3 h w"]
    """World normals, interpolated, not renormalised."""
    shading: Float[Tensor, "b 3 h w"] | None
    """None without light."""


def see(
    mapper: UvMapper, vertices: Float[Tensor, "b v 3"], ndc: Float[Tensor, "b v 3"], height: int, width: int
) -> Surface:
    """Find the surface that each pixel of a picture shows.

    Args:
        mapper: has the mesh's triangles.
        vertices: world positions, for the normals that light falls on.
        ndc: the same vertices in the picture's NDC, z away from the viewer.
        height: the picture's, in pixels.
        width: the picture's, in pixels.
    """
    fragments = rasterize_later_first(ndc_to_pixels(ndc, width, height), mapper.faces, height, width)
    return Surface(fragments, vertex_normals(vertices, mapper.faces), vertex_normals(ndc, mapper.faces))


def render(
    mapper: UvMapper,
    surface: Surface,
    albedo: Float[Tensor, "b c s s"],
    light: Float[Tensor, "b 9 3"] | None = None,
) -> Render:
    """Draw a textured mesh.

    Args:
        mapper: the mesh's texture coordinates; its map size need not be the texture's.
        surface: from :func:`see`.
        albedo: texture, any range; differentiable in it.
        light: spherical harmonics; without them the albedo is drawn as it is.
    """
    fragments = surface.fragments
    normals = interpolate(surface.normals, mapper.faces, fragments).permute(0, 3, 1, 2)
    # a seam's vertices have several texture coordinates: interpolated over triangles of their own
    grid = interpolate(uv_to_ndc(mapper.uv)[None], mapper.uv_faces, fragments)
    alpha = (fragments.face_id >= 0)[:, None].to(albedo)
    colour = F.grid_sample(albedo, grid.to(albedo), align_corners=False) * alpha
    shading = None if light is None else sh_shading(normals, light)
    return Render(
        image=colour if shading is None else colour * shading,
        albedo=colour,
        alpha=alpha,
        facing=_facing(mapper, surface, _FACING)[:, None].to(albedo),
        grid=grid,
        normals=normals,
        shading=shading,
    )


def render_overlay(
    mapper: UvMapper, surface: Surface
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 1 h w"]]:
    """Draw the mesh in grey under five directional lights, and where it faces the viewer."""
    normals = interpolate(surface.normals, mapper.faces, surface.fragments)
    lights = F.normalize(normals.new_tensor(_OVERLAY_LIGHTS), dim=-1)
    grey = _OVERLAY_GAIN * (normals @ lights.T).clamp(0, 1).sum(-1)
    alpha = ((surface.fragments.face_id >= 0) & _facing(mapper, surface, _OVERLAY_FACING)).to(grey)
    return (grey * alpha)[:, None].expand(-1, 3, -1, -1), alpha[:, None]


def _facing(mapper: UvMapper, surface: Surface, level: float) -> Bool[Tensor, "b h w"]:
    inward = interpolate(surface.ndc_normals[..., 2:], mapper.faces, surface.fragments)[..., 0]
    return inward < level
