"""Parity with DECA's camera, texture and crop conventions (numbers in the reference folder's
``deca_decode``)."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from portrait_core.face_model import orthographic, sh_rendering, uv_maps
from portrait_core.face_model.raster import interpolate, vertex_normals
from portrait_core.tracking import deca_crop
from tests.reference.published import ROOT, arrays, error, named, needs, tensors

FOLDER = ROOT / "deca_decode"
PROJECTED, RASTERED = 1e-5, 1e-4
pytestmark = needs("deca_decode/cases.npz")


@pytest.fixture(scope="module")
def cases() -> dict[str, Tensor]:
    return tensors(FOLDER / "cases.npz")


@pytest.fixture(scope="module")
def layout() -> uv_maps.UvLayout:
    return uv_maps.read_obj_layout(FOLDER / "mesh.obj")


@pytest.fixture(scope="module")
def mapper(layout: uv_maps.UvLayout, cases: dict[str, Tensor]) -> uv_maps.UvMapper:
    return uv_maps.UvMapper(layout, len(cases["uv_cover"]))


@pytest.fixture(scope="module")
def images(cases: dict[str, Tensor]) -> Tensor:
    return cases["images_uint8"].permute(0, 3, 1, 2) / 255.0


def at(mask: Tensor, got: Tensor, wanted: Tensor) -> float:
    """Largest error at the pixels ``mask`` ``[h,w]`` or ``[b,h,w]`` of ``[b,c,h,w]``."""
    assert got.shape == wanted.shape
    return float(((got.double() - wanted.double()) * mask.expand_as(got[:, 0])[:, None]).abs().max())


def test_projection(cases: dict[str, Tensor]) -> None:
    cam = cases["cam"]
    assert error(orthographic.project(cases["vertices"], cam), cases["batch_orth_proj"]) < PROJECTED
    assert error(orthographic.to_ndc(cases["vertices"], cam), cases["trans_verts"]) < PROJECTED
    marks = orthographic.to_ndc(cases["landmarks"], cam)
    assert error(marks, cases["landmarks3d"]) < PROJECTED
    assert error(marks[..., :2], cases["landmarks2d"]) < PROJECTED
    name, (size,) = named(cases, r"landmarks2d_pixels_(\d+)")
    # pixels are size / 2 times NDC, and so is the rounding of float32
    assert error(orthographic.ndc_to_pixels(marks[..., :2], size, size), cases[name]) < size / 2 * PROJECTED


def test_points_in_the_source_image(cases: dict[str, Tensor]) -> None:
    size = cases["images_uint8"].shape[1]
    height, width = cases["transform_points_hw"].tolist()
    points, tform = cases["trans_verts"], cases["tform"]
    got = orthographic.transform_points(points, tform, size, (width, height))
    assert error(got, cases["transform_points"]) < PROJECTED
    pixels = orthographic.transform_points(points, tform, size)
    assert error(pixels, cases["transform_points_pixels"]) < size / 2 * PROJECTED


def test_normals(cases: dict[str, Tensor], mapper: uv_maps.UvMapper) -> None:
    assert error(vertex_normals(cases["vertices"], mapper.faces), cases["vertex_normals"]) < PROJECTED


def attributes(cases: dict[str, Tensor], values: Tensor) -> Tensor:
    """What the published rasteriser interpolated: it gives every row of a batch the attributes of the first
    row (the maps of meshes that differ are equal). Ours gives each row its own."""
    maps, meshes = cases["world2uv_trans_verts"], cases["trans_verts"]
    shared = bool((maps == maps[:1]).all()) and not bool((meshes == meshes[:1]).all())
    return values[:1].expand_as(values) if shared else values


def test_maps(cases: dict[str, Tensor], mapper: uv_maps.UvMapper, images: Tensor) -> None:
    stable = cases["uv_stable"]
    assert torch.equal(mapper.cover[stable], cases["uv_cover"][stable].bool())
    ndc, normals = (attributes(cases, cases[name]) for name in ("trans_verts", "vertex_normals"))
    assert at(stable, mapper.to_uv(ndc), cases["world2uv_trans_verts"]) < RASTERED
    assert at(stable, mapper.to_uv(normals), cases["world2uv_normals"]) < RASTERED
    texture = mapper.sample_crop(images, ndc)
    assert at(stable, texture, cases["uv_texture"]) < RASTERED
    masked = uv_maps.masked_texture(texture, cases["uv_mask"])
    assert at(stable, masked, cases["uv_texture_gt_no_tex_model"]) < RASTERED


def surface_of(cases: dict[str, Tensor], mapper: uv_maps.UvMapper, name: str) -> sh_rendering.Surface:
    height, width = cases[name].shape[2:]
    seen = sh_rendering.see(mapper, cases["vertices"], cases["trans_verts"], height, width)
    assert error(seen.normals, cases["vertex_normals"]) < PROJECTED
    assert error(seen.ndc_normals, cases["render_transformed_normals"]) < PROJECTED
    return seen._replace(
        normals=attributes(cases, seen.normals), ndc_normals=attributes(cases, seen.ndc_normals)
    )


def test_picture(cases: dict[str, Tensor], mapper: uv_maps.UvMapper) -> None:
    stable, surface = cases["render_stable"], surface_of(cases, mapper, "render_images")
    lit = sh_rendering.render(mapper, surface, cases["uv_texture"], cases["light"])
    for name, got in {
        "render_images": lit.image,
        "render_albedo": lit.albedo,
        "render_alpha": lit.alpha,
        "render_pos_mask": lit.facing,
        "render_shading": lit.shading,
        "render_normal_images": lit.normals,
    }.items():
        assert got is not None
        assert at(stable, got, cases[name]) < RASTERED, name
    grid = cases["render_grid"].permute(0, 3, 1, 2)
    assert at(stable, lit.grid.permute(0, 3, 1, 2), grid) < RASTERED
    unlit = sh_rendering.render(mapper, surface, cases["uv_texture"])
    assert at(stable, unlit.image, cases["render_images_unlit"]) < RASTERED
    assert error(torch.tensor(sh_rendering.sh_constants()), cases["constant_factor"]) < 1e-6


def test_overlay(cases: dict[str, Tensor], mapper: uv_maps.UvMapper) -> None:
    stable, surface = cases["render_stable"], surface_of(cases, mapper, "shape_images")
    grey, alpha = sh_rendering.render_overlay(mapper, surface)
    assert at(stable, grey, cases["shape_images"]) < RASTERED
    assert at(stable, alpha, cases["shape_alpha"]) < RASTERED


def stable_pixels(ndc: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """Pixels ``[b,h,w]`` that keep their triangle when the mesh moves by 2e-4: no mask of those comes with
    this picture, as masks come with the others."""
    stable = torch.ones(len(ndc), height, width, dtype=torch.bool)
    still = orthographic.ndc_to_pixels(ndc, width, height)
    wanted = uv_maps.rasterize_later_first(still, faces, height, width).face_id
    for shift in ((2e-4, 0, 0), (-2e-4, 0, 0), (0, 2e-4, 0), (0, -2e-4, 0)):
        moved = orthographic.ndc_to_pixels(ndc + ndc.new_tensor(shift), width, height)
        stable &= uv_maps.rasterize_later_first(moved, faces, height, width).face_id == wanted
    assert float(stable.float().mean()) > 0.9
    return stable


def test_another_picture_size(cases: dict[str, Tensor], mapper: uv_maps.UvMapper) -> None:
    name, (height, width) = named(cases, r"raster_h(\d+)_w(\d+)")
    pixels = orthographic.ndc_to_pixels(cases["trans_verts"], width, height)
    fragments = uv_maps.rasterize_later_first(pixels, mapper.faces, height, width)
    shown = attributes(cases, cases["vertices"])
    got = interpolate(shown, mapper.faces, fragments).permute(0, 3, 1, 2)
    hit = (fragments.face_id >= 0)[:, None].to(got)
    stable = stable_pixels(cases["trans_verts"], mapper.faces, height, width)
    assert at(stable, torch.cat([got, hit], 1), cases[name]) < RASTERED


def test_dense_triangles(cases: dict[str, Tensor]) -> None:
    head, count = cases["dense_triangles_head"], int(cases["dense_triangles_shape"][0])
    width = int(head[0, 1] - head[0, 0])
    height = count // 2 // (width - 5) + 11  # margins of 2 and 5 texels on either side
    got = uv_maps.grid_triangles(height, width)
    assert list(got.shape) == cases["dense_triangles_shape"].tolist()
    assert torch.equal(got[: len(head)], head)


@pytest.fixture(scope="module")
def crops() -> dict[str, np.ndarray]:
    return arrays(FOLDER / "crop.npz")


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    return np.asarray(Image.open(FOLDER / "crop_source.png").convert("RGB"))


def test_crop_boxes(crops: dict[str, np.ndarray]) -> None:
    boxes = deca_crop.point_boxes(crops["landmarks68"])
    rows = [boxes]
    for rule in ("kpt68", "bbox"):
        squares = deca_crop.face_squares(boxes, rule)
        rows += [squares.face_size[:, None], squares.center, squares.size[:, None].astype(float)]
    assert np.abs(np.concatenate(rows, 1) - crops["box_table"]).max() < PROJECTED


def test_crops(crops: dict[str, np.ndarray], source: np.ndarray) -> None:
    size = crops["crop_0"].shape[1]
    frames = [source] * len(crops["tform"])
    got = deca_crop.crop_faces(frames, crops["landmarks68"], size)
    wanted = torch.from_numpy(crops["tform"]).double()
    assert error(got.tform, wanted) / float(wanted.abs().max()) < 1e-6  # stored as float32
    assert error(got.images[0], torch.from_numpy(crops["crop_0"])) < RASTERED
    name, (step,) = named(crops, r"crops_every(\d+)")
    assert error(got.images[:, :, ::step, ::step], torch.from_numpy(crops[name])) < RASTERED


def test_whole_image(crops: dict[str, np.ndarray], source: np.ndarray) -> None:
    size = crops["crop_0"].shape[1]
    tform = deca_crop.whole_image_transform(source.shape[1], source.shape[0], size)
    assert np.abs(tform[0] - crops["tform_iscrop_false"]).max() < PROJECTED
    name, (step,) = named(crops, r"crop_iscrop_false_every(\d+)")
    got = deca_crop.warp([source], tform, size)[0, :, ::step, ::step]
    assert error(got, torch.from_numpy(crops[name])) < RASTERED
