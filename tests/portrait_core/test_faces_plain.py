"""Our heads, encoders and cameras against the plain implementations, one face at a time.

Random arrays from seeds, so nothing is needed but the checkout. In double precision where ours can run in
it, so only formulas can differ. ``tests/reference/test_plain_faces.py`` holds the plain ones to the published
numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.cameras import eg3d as eg3d_cameras
from portrait_core.face_model import flame as our_flame
from portrait_core.face_model import orthographic, sh_rendering, uv_maps
from portrait_core.face_model.raster import vertex_normals
from portrait_core.tracking import deca as our_deca
from portrait_core.tracking import deca_crop, deep3d, five_points, wild_crop
from portrait_core.tracking.bfm import BfmModel
from portrait_core.tracking.checkpoints import deca_encoder_shapes, deep3d_shapes
from portrait_core.weights.readers.flame_files import read_flame, read_landmark_embedding
from portrait_core.weights.readers.mat_files import read_bfm
from portrait_core.weights.readers.torch_files import network_shapes
from tests import official_files
from tests.plain import deca, deep3dface, encoders, flame, stylegan2

RNG_SEED = 20


def off(got: Any, wanted: NDArray[Any]) -> float:
    """The largest difference."""
    got = np.asarray(got)
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(RNG_SEED)


def test_flame(tmp_path: Path, rng: np.random.Generator) -> None:
    """Vertices, joints and both kinds of landmarks, through the files' own layouts."""
    model = official_files.write_flame(tmp_path / "head.pkl")
    embedding = official_files.write_landmark_embedding(tmp_path / "landmarks.npy")
    places = read_landmark_embedding(tmp_path / "landmarks.npy")
    head = our_flame.flame_head(read_flame(tmp_path / "head.pkl"), 7, 5, places)
    slide = our_flame.FlameLandmarks(places, head.faces)
    codes = [rng.normal(size=(6, n)) * scale for n, scale in ((7, 2), (5, 2), (6, 0.4), (6, 0.3))]
    codes[2][:, 1] = [0, 0.3, -0.3, 0.6, -1.2, 1.2]  # yaws inside the contour's table and beyond it
    shape, expression, pose, eyes = (torch.from_numpy(code).float() for code in codes)
    posed = our_flame.decode(head, shape, expression, pose, eyes)
    contour, fixed = slide(posed.vertices, pose[:, :3]), head.landmarks(posed.vertices)
    for i in range(len(shape)):
        wanted = flame.decode(model, *(code[i] for code in codes))
        assert off(posed.vertices[i], wanted.vertices) < 1e-6  # of 0.1 m, in single precision
        assert off(posed.joints[i], wanted.joints) < 1e-6
        marks = flame.landmarks2d(wanted.vertices, model["f"], embedding, codes[2][i, :3])
        assert off(contour[i], marks) < 1e-6
        assert off(fixed[i], flame.landmarks3d(wanted.vertices, model["f"], embedding)) < 1e-6


def drawn(shapes: Mapping[str, Sequence[int]], generator: torch.Generator) -> dict[str, Tensor]:
    """Weights at no special value, under which signals neither die nor explode."""
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        noise = torch.randn(tuple(shape), generator=generator).double()
        if noise.ndim > 1:
            noise = noise / noise[0].numel() ** 0.5
        elif noise.ndim == 1:
            noise = (0.1 * noise).abs() + 1 if name.endswith(("weight", "running_var")) else 0.1 * noise
        state[name] = noise
    return state


@torch.no_grad()
def test_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every coefficient in double precision, of crops of 64 pixels, which cost a twelfth of the published."""
    for module in (our_deca, deep3d):
        monkeypatch.setattr(module, "check_crops", lambda _: None)
    generator = torch.Generator().manual_seed(RNG_SEED)
    images = torch.rand(2, 3, 64, 64, generator=generator, dtype=torch.float64)
    state = drawn(deca_encoder_shapes(), generator)
    got = our_deca.DecaEncoder.from_state(state)(images)
    assert off(got, encoders.deca(state, images).numpy()) < 1e-10
    heads = {name: shape for name, shape in deep3d_shapes().items() if name.startswith("final_layers")}
    backbone = {f"backbone.{name}": value for name, value in stylegan2.scope(state, "encoder").items()}
    state = backbone | drawn(heads, generator)
    got = deep3d.Deep3DEncoder.from_state(state)(images)
    assert off(got, encoders.deep3d(state, images).numpy()) < 1e-10
    state = drawn(network_shapes(our_deca.DetailDecoder), generator)
    inputs = [torch.randn(1, n, generator=generator, dtype=torch.float64) for n in (3, 50, 128)]
    got = our_deca.DetailDecoder.from_state(state)(*inputs)
    assert off(got, encoders.deca_detail(state, *inputs).numpy()) < 1e-12


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> tuple[uv_maps.UvLayout, NDArray[np.float64]]:
    """A head with a seam: its layout and three shapes of it, in metres."""
    path = tmp_path_factory.mktemp("mesh") / "head_template.obj"
    official_files.write_head_template(path)
    lines = [line.split() for line in path.read_text().splitlines()]
    points = np.array([[float(word) for word in line[1:]] for line in lines if line[0] == "v"])
    bumps = np.random.default_rng(RNG_SEED).normal(size=(3, *points.shape)) * 0.002
    return uv_maps.read_obj_layout(path), points + bumps


CAMS = np.array([[7.4, 0.004, 0.014], [8.3, -0.012, -0.006], [6.0, 0.1, 0.02]])


def test_projection_and_normals(
    mesh: tuple[uv_maps.UvLayout, NDArray[np.float64]], rng: np.random.Generator
) -> None:
    layout, points = mesh
    vertices, cams = torch.from_numpy(points), torch.from_numpy(CAMS)
    tform = np.tile(np.eye(3), (3, 1, 1)) + rng.normal(size=(3, 3, 3)) * [[[0.1], [0.1], [0]]]
    ndc = orthographic.to_ndc(vertices, cams)
    moved = orthographic.transform_points(ndc, torch.from_numpy(tform), 160, (300, 200))
    normals = vertex_normals(vertices, torch.from_numpy(layout.faces))
    for i in range(len(points)):
        wanted = deca.to_ndc(points[i], CAMS[i])
        assert off(ndc[i], wanted) < 1e-12
        assert off(moved[i], deca.transform_points(wanted, tform[i], 160, (200, 300))) < 1e-12
        assert off(normals[i], deca.vertex_normals(points[i], layout.faces)) < 1e-9


def test_texture_maps_and_pictures(
    mesh: tuple[uv_maps.UvLayout, NDArray[np.float64]], rng: np.random.Generator
) -> None:
    """At every pixel whose triangle does not hang on rounding."""
    layout, points = mesh
    faces, size, height, width = layout.faces, 40, 44, 52
    mapper = uv_maps.UvMapper(layout, size)
    vertices, cams = torch.from_numpy(points).float(), torch.from_numpy(CAMS).float()
    ndc = orthographic.to_ndc(vertices, cams)
    images = torch.from_numpy(rng.random((3, 3, 60, 60))).float()
    light = torch.from_numpy(rng.normal(size=(3, 9, 3)) + 1).float()
    texture = mapper.sample_crop(images, ndc)
    surface = sh_rendering.see(mapper, vertices, ndc, height, width)
    lit = sh_rendering.render(mapper, surface, texture, light)
    grey, facing = sh_rendering.render_overlay(mapper, surface)
    places = deca.uv_ndc(layout.uv.astype(float))
    flat = deca.rasterize(places, layout.uv_faces, size, size)
    flat_steady = deca.steady(places, layout.uv_faces, size, size)
    assert flat_steady.mean() > 0.9
    assert np.array_equal((flat.face >= 0)[flat_steady], mapper.cover.numpy()[flat_steady])
    for i in range(len(points)):
        place = deca.to_ndc(points[i], CAMS[i])
        grid = flat.interpolate(place, faces)[..., :2]
        colours = deca.sample(images[i].double().numpy(), grid)
        assert off(texture[i].numpy()[:, flat_steady], colours[:, flat_steady]) < 1e-4
        seen = deca.rasterize(place, faces, height, width)
        steady = deca.steady(place, faces, height, width)
        assert steady.mean() > 0.8
        normals = seen.interpolate(deca.vertex_normals(points[i], faces), faces)
        inward = seen.interpolate(deca.vertex_normals(place, faces), faces)[..., 2]
        looked = seen.interpolate(places, layout.uv_faces)[..., :2]
        albedo = np.moveaxis(deca.sample(texture[i].double().numpy(), looked), 0, -1)
        albedo = albedo * (seen.face >= 0)[..., None]
        wanted = albedo * deca.shade(normals, light[i].double().numpy())
        assert off(np.moveaxis(lit.image[i].numpy(), 0, -1)[steady], wanted[steady]) < 1e-4
        assert np.array_equal(lit.facing[i, 0].numpy()[steady] > 0, (inward < -0.05)[steady])
        shown = (seen.face >= 0) & (inward < 0.15)
        assert np.array_equal(facing[i, 0].numpy()[steady] > 0, shown[steady])
        assert off(grey[i, 0].numpy()[steady], (deca.overlay(normals) * shown)[steady]) < 1e-4


@pytest.mark.parametrize("rule", ["kpt68", "bbox"])
def test_squares_of_face_boxes(rule: deca_crop.Rule, rng: np.random.Generator) -> None:
    boxes = np.cumsum(rng.uniform(20, 300, (9, 4)), axis=1)[:, [0, 2, 1, 3]]
    found = deca_crop.face_squares(boxes, rule)
    transforms = deca_crop.square_transforms(found, 160)
    for i, box in enumerate(boxes):
        wanted = deca.square(box, rule)
        assert off(found.center[i], wanted.center) < 1e-9
        assert (found.face_size[i], found.size[i]) == pytest.approx((wanted.face_size, wanted.size))
        assert off(transforms[i], wanted.transform(160)) < 1e-9


def test_similarities(rng: np.random.Generator) -> None:
    source, target = rng.normal(size=(2, 5, 4, 2)) * 50
    got = deca_crop.similarity(source, target)
    for i in range(len(source)):
        assert off(got[i], deca.similarity(source[i], target[i])) < 1e-9


def test_basel_face(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = official_files.write_bfm(tmp_path / "bfm.mat")
    codes = rng.normal(size=(3, 257)) * np.repeat([1.0, 1, 1, 0.4, 0.3, 0.3], [80, 64, 80, 3, 27, 3])
    model = BfmModel(read_bfm(tmp_path / "bfm.mat")).double()
    got = model(deep3d.split_coefficients(torch.from_numpy(codes)))
    for i, code in enumerate(codes):
        for name, wanted in deep3dface.face(arrays, code)._asdict().items():
            scale = max(1.0, float(np.abs(wanted).max()))
            assert off(getattr(got, name)[i], wanted) < 1e-5 * scale, name


def five(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Detections of ``count`` faces ``[n,5,2]`` and their images' sizes ``[n,2]``."""
    size = rng.integers(180, 700, (count, 2))
    face = five_points.STANDARD_FACE[:, :2] * [1, -1] * rng.uniform(30, 120, (count, 1, 1))
    middle = size[:, None] * rng.uniform(0.3, 0.7, (count, 1, 2))
    return face + middle + rng.normal(size=(count, 5, 2)) * 3, size


def test_alignment_and_crops(rng: np.random.Generator) -> None:
    points, size = five(rng, 9)
    for target, rescale in ((224, 102.0), (1024, 300.0)):
        got = five_points.align(points, size, target, rescale)
        for i in range(len(points)):
            wanted = deep3dface.align(points[i], size[i], five_points.STANDARD_FACE, target, rescale)
            assert off(got.translation[i], wanted.translation) < 1e-8
            assert got.scale[i] == pytest.approx(wanted.scale)
            assert tuple(got.resized_wh[i]) == wanted.resized
            assert tuple(got.corner[i]) == wanted.corner
            assert off(got.points(points)[i], wanted.points) < 1e-6
    image = rng.integers(0, 256, (size[0, 1], size[0, 0], 3), dtype=np.uint8)
    aligned = deep3dface.align(points[0], size[0], five_points.STANDARD_FACE, 1024, 300)
    crops, _ = wild_crop.generator_crops([image], points[:1], size=100)
    assert np.array_equal(crops[0], deep3dface.generator_crop(image, aligned, 100))


@pytest.mark.parametrize("mode", ["orig", "cor", "simplify"])
def test_camera_labels(mode: eg3d_cameras.CenterMode, rng: np.random.Generator) -> None:
    angle, trans = rng.normal(size=(8, 3)) * 0.4, rng.normal(size=(8, 3))
    got = eg3d_cameras.labels_from_deep3d(angle, trans, mode)
    mirrored = eg3d_cameras.mirror_labels(got)
    for i in range(len(angle)):
        wanted = deep3dface.label(angle[i], trans[i], mode)
        assert off(got[i], wanted) < 1e-9
        assert off(mirrored[i], deep3dface.mirrored(wanted)) < 1e-9


def test_look_at_cameras(rng: np.random.Generator) -> None:
    h, v = rng.uniform(0.5, 2.6, (2, 8))
    pivot = rng.normal(size=3) * 0.2
    horizontal, vertical, target = (torch.from_numpy(x) for x in (h, v, pivot))
    got = eg3d_cameras.orbit_poses(horizontal, vertical, target, 2.5)
    for i in range(len(h)):
        assert off(got[i], deep3dface.orbit(h[i], v[i], pivot, 2.5)) < 1e-9
