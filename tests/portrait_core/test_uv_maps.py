"""Texture maps, DECA's camera and its picture, on meshes of a few triangles."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait_core.face_model import orthographic, sh_rendering, uv_maps

SQUARE = uv_maps.UvLayout(
    uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
    uv_faces=np.array([[0, 1, 2], [0, 2, 3]]),
    faces=np.array([[0, 1, 2], [0, 2, 3]]),
)
CORNERS = torch.tensor([[[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]])


def ramp(size: int) -> torch.Tensor:
    """An image ``[1,2,size,size]`` of its own continuous pixel coordinates."""
    line = torch.arange(size) + 0.5
    return torch.stack(torch.meshgrid(line, line, indexing="xy"))[None]


def random_transforms(batch: int) -> torch.Tensor:
    rng = np.random.default_rng(batch)
    scale, angle = rng.uniform(0.7, 1.3, batch), rng.uniform(-0.2, 0.2, batch)
    tform = np.tile(np.eye(3), (batch, 1, 1))
    tform[:, 0, 0] = tform[:, 1, 1] = scale * np.cos(angle)
    tform[:, 1, 0] = scale * np.sin(angle)
    tform[:, 0, 1] = -tform[:, 1, 0]
    tform[:, :2, 2] = rng.uniform(-9, 9, (batch, 2))
    return torch.from_numpy(tform)


def test_a_map_holds_the_surface_row_zero_on_top() -> None:
    mapper = uv_maps.UvMapper(SQUARE, 8)
    assert mapper.cover.all()
    got = mapper.to_uv(torch.cat([CORNERS, CORNERS * 2]))
    line = (torch.arange(8) + 0.5) / 4 - 1
    assert torch.allclose(got[0, 0], line.expand(8, 8), atol=1e-6)
    assert torch.allclose(got[0, 1], -line[:, None].expand(8, 8), atol=1e-6)
    assert torch.allclose(got[1], 2 * got[0])  # each row its own attributes


def test_where_charts_overlap_the_later_face_has_the_texel() -> None:
    layout = uv_maps.UvLayout(SQUARE.uv, SQUARE.uv_faces[[0, 1, 0, 1]], np.arange(12).reshape(4, 3))
    values = torch.tensor([1.0, 1.0, 2.0, 2.0]).repeat_interleave(3)[None, :, None]
    assert (uv_maps.UvMapper(layout, 5).to_uv(values) == 2).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_projection_and_back_through_the_crop(batch: int) -> None:
    points = torch.randn(batch, 7, 3)
    cam = torch.cat([torch.full((batch, 1), 5.0), torch.randn(batch, 2) * 0.1], 1)
    ndc = orthographic.to_ndc(points, cam)
    assert torch.allclose(ndc[..., 0], 5 * (points[..., 0] + cam[:, 1:2]))
    tform = random_transforms(batch)
    source = orthographic.ndc_to_source(ndc, tform, 64)
    index = torch.cat([source[..., :2].double() - 0.5, torch.ones(batch, 7, 1)], -1)
    crop = (index @ tform.transpose(1, 2))[..., :2] + 0.5
    assert torch.allclose(crop.float(), orthographic.ndc_to_pixels(ndc, 64, 64)[..., :2], atol=1e-3)
    # without a transform, DECA's own arithmetic differs by its half pixel of either grid: not at all
    same = torch.eye(3, dtype=torch.double).expand(batch, 3, 3)
    plain = orthographic.transform_points(ndc, same, 64)
    assert torch.allclose(plain, orthographic.ndc_to_source(ndc, same, 64), atol=1e-4)


def test_the_source_is_sampled_where_the_crop_was() -> None:
    """A texture from the whole image shows each point's own place in it, at any texture size."""
    tform, inside = random_transforms(2), CORNERS.expand(2, -1, -1) * 0.5
    images = ramp(200).expand(2, -1, -1, -1)
    for size in (16, 50):
        mapper = uv_maps.UvMapper(SQUARE, size)
        texture = mapper.sample_source(images, inside, tform, 64)
        places = orthographic.ndc_to_source(mapper.to_uv(inside).flatten(2).transpose(1, 2), tform, 64)
        wanted = places[..., :2].transpose(1, 2).reshape(2, 2, size, size)
        seen = (wanted > 1).all(1) & (wanted < 199).all(1)
        assert seen.float().mean() > 0.5
        assert ((texture - wanted).abs() * seen[:, None]).max() < 1e-3


def test_drawing_shows_the_texture_and_differentiates_in_it() -> None:
    mapper = uv_maps.UvMapper(SQUARE, 4)
    albedo = torch.rand(2, 3, 24, 24, requires_grad=True)
    ndc = CORNERS.expand(2, -1, -1) * torch.tensor([1.0, -1.0, -1.0])
    surface = sh_rendering.see(mapper, CORNERS.expand(2, -1, -1), ndc, 24, 24)
    drawn = sh_rendering.render(mapper, surface, albedo)
    assert torch.allclose(drawn.image, albedo, atol=1e-4)
    assert drawn.alpha.all()
    assert drawn.facing.all()  # the square looks at the viewer
    assert drawn.shading is None
    drawn.image.sum().backward()
    assert albedo.grad is not None
    assert torch.allclose(albedo.grad, torch.ones_like(albedo), atol=1e-3)
    light = torch.zeros(2, 9, 3)
    light[:, 0] = 1 / sh_rendering.sh_constants()[0]
    lit = sh_rendering.render(mapper, surface, albedo, light)
    assert torch.allclose(lit.image, albedo, atol=1e-4)
    away = sh_rendering.see(mapper, CORNERS, CORNERS * torch.tensor([-1.0, -1.0, 1.0]), 9, 9)
    assert not sh_rendering.render_overlay(mapper, away)[1].any()


def test_masked_and_dense_maps() -> None:
    texture, mask = torch.rand(2, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    assert (uv_maps.masked_texture(texture, mask) == uv_maps.UNKNOWN_ALBEDO).all()
    assert torch.equal(uv_maps.masked_texture(texture, mask + 1), texture)
    triangles = uv_maps.grid_triangles(12, 20, 1, 2)
    assert len(triangles) == 2 * (20 - 3) * (12 - 5)
    assert triangles.max() < 12 * 20
    with pytest.raises(ValueError, match="larger"):
        uv_maps.grid_triangles(8, 8)


def test_obj_layout_and_what_is_wrong_with_one(tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt .5 .5\nf 1/1/9 2/2/9 3/4/9\n")
    got = uv_maps.read_obj_layout(path)
    assert got.faces.tolist() == [[0, 1, 2]]
    assert got.uv_faces.tolist() == [[0, 1, 3]]
    for text, said in {
        "v 0 0 0\nf 1 2 3\n": "without texture",
        "vt 0 0\nf 1/1 2/2 3/3 4/4\n": "no mesh of triangles",
        "vt 0 0\nf 1/1 1/1 1/7\n": "does not list",
        f"vt 0 0\nf {10**20}/1 2/1 3/1\n": "does not list",
        "": "no mesh of triangles",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            uv_maps.read_obj_layout(path)
    with pytest.raises(ValueError, match="head_template"):
        uv_maps.read_obj_layout(tmp_path / "nowhere.obj")
    os.truncate(path, 20 << 30)
    with pytest.raises(ValueError, match="a head's mesh at most 16,777,216"):
        uv_maps.read_obj_layout(path)
    with pytest.raises(ValueError, match="at least 1"):
        uv_maps.UvMapper(SQUARE, 0)
