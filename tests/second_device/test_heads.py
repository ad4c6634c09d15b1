"""Heads, their rasterisation and re-projection on the second device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from portrait_core.cameras import orbit_labels
from portrait_core.face_model.flame import FlameLandmarks, decode, flame_head
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.raster import interpolate, rasterize, vertex_normals
from portrait_core.face_model.raster_static import FRAGMENTS_PER_PIXEL
from portrait_core.face_model.reproject import HeadSurface, SourceFrame, head_depth
from portrait_core.face_model.sh_rendering import render, render_overlay, see
from portrait_core.runtime.package_files import data_file
from tests.portrait_core import flame_like, stand_in
from tests.second_device import counted

SIZE = 48


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return MorphableHead.load(data_file("models/embedded_head.safetensors"))


@pytest.fixture(scope="module")
def moved(head: MorphableHead, second: torch.device) -> MorphableHead:
    return copy.deepcopy(head).to(second)


def _equal(one: object, other: object) -> bool:
    """Whether tensors, or tuples of them, hold the same numbers on whatever device."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, tuple | list):
        return isinstance(other, tuple | list) and len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _codes(head: MorphableHead, device: torch.device | str) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    shape = torch.randn(2, head.n_shape, generator=rng)
    expression = torch.rand(2, head.n_expression, generator=rng)
    turns = [0.2 * torch.randn(2, n, generator=rng) for n in (6, 3, 3)]
    return tuple(
        code.to(device) for code in (shape, expression, head.jaw_from_expression(expression), *turns)
    )


def _box(head: MorphableHead) -> Tensor:
    return head.to_box(head.decode(*_codes(head, head.faces.device)[:4]))


def test_a_head_is_loaded_to_and_decodes_on_its_device(head: MorphableHead, second: torch.device) -> None:
    there = MorphableHead.load(data_file("models/embedded_head.safetensors"), second)
    codes = _codes(head, "cpu")
    with counted() as waits:
        made = there.pose(*(code.to(second) for code in codes))
    assert len(waits.copies) == len(codes), str(waits)
    assert waits.reads == []
    assert made.vertices.device == second
    assert _equal(made, head.pose(*codes))
    assert _equal(there.landmarks(made.vertices), head.landmarks(made.vertices.cpu()))
    for name in there.masks:
        assert _equal(there.mask(name), head.mask(name))
    assert _equal(there.group_vertices(there.group_names[-1]), head.group_vertices(head.group_names[-1]))
    assert all(map(lambda a, b: (a == b).all(), there.landmark_basis([1, 5]), head.landmark_basis([1, 5])))


@pytest.mark.parametrize("perspective", [True, False])
def test_rasterising_equals_the_cpus(
    head: MorphableHead, moved: MorphableHead, second: torch.device, perspective: bool
) -> None:
    pixels = head.decode(*_codes(head, "cpu")[:4]) * torch.tensor([150.0, -150.0, -1.0]) + torch.tensor(
        [SIZE / 2, SIZE / 2, 3.0]
    )
    here = rasterize(pixels, head.faces, SIZE, SIZE, perspective=perspective)
    there = rasterize(pixels.to(second), moved.faces, SIZE, SIZE, perspective=perspective)
    assert _equal(there, here)
    normals = vertex_normals(pixels.to(second), moved.faces)
    assert _equal(normals, vertex_normals(pixels, head.faces))
    assert _equal(interpolate(normals, moved.faces, there), interpolate(normals.cpu(), head.faces, here))


def test_a_moved_head_is_seen_and_re_projected(
    head: MorphableHead, moved: MorphableHead, second: torch.device
) -> None:
    rng = torch.Generator().manual_seed(1)
    image, matte = torch.rand(3, SIZE, SIZE, generator=rng), torch.rand(1, SIZE, SIZE, generator=rng)
    cameras = torch.cat([torch.from_numpy(orbit_labels(yaw, 0.1)) for yaw in (-0.3, 0.4)])
    seen = []
    for one, device in ((head, "cpu"), (moved, second)):
        vertices, surface = _box(one), HeadSurface(one)
        assert surface.faces.device == torch.device(device)
        camera = cameras.to(device)
        source = SourceFrame(surface, image.to(device), vertices[0], camera[0], matte.to(device))
        seen.append((head_depth(one, vertices, camera, SIZE), source.seen, source.at(camera[1:], SIZE)))
    assert _equal(seen[1], seen[0])
    assert seen[1][2].valid.any()


def test_re_projection_copies_and_reads_nothing(moved: MorphableHead, second: torch.device) -> None:
    vertices, surface = _box(moved), HeadSurface(moved)
    cameras = torch.cat([torch.from_numpy(orbit_labels(yaw, 0.1)) for yaw in (-0.3, 0.4)]).to(second)
    image, matte = torch.ones(3, SIZE, SIZE, device=second), torch.ones(1, SIZE, SIZE, device=second)
    rest = torch.zeros(1, 3, device=second)
    with counted() as waits:
        moved.to_box(moved.decode(*_still(moved), rest))
        source = SourceFrame(surface, image, vertices[0], cameras[0], matte)
        source.at(cameras, SIZE)
    assert str(waits) == "no copies and no reads"


def test_more_layers_than_there_is_room_for_are_no_depth(second: torch.device) -> None:
    one = torch.tensor([[-9.0, -9.0, 1.0], [30.0, -9.0, 1.0], [-9.0, 30.0, 1.0]])
    layers = FRAGMENTS_PER_PIXEL + 1
    faces = torch.arange(3)[None].expand(layers, -1)
    assert rasterize(one[None], faces, 8, 8).depth.eq(1).all()
    seen = rasterize(one[None].to(second), faces.to(second), 8, 8)
    assert seen.depth.cpu().isnan().all()
    fewer = rasterize(one[None].to(second), faces[1:].to(second), 8, 8)
    assert fewer.depth.cpu().eq(1).all()


def _still(head: MorphableHead) -> tuple[Tensor, Tensor]:
    like = head.mask("face")
    return like.new_zeros(1, head.n_shape), like.new_zeros(1, head.n_expression)


def test_a_surface_made_before_its_head_moves_goes_with_it(head: MorphableHead, second: torch.device) -> None:
    moving = copy.deepcopy(head)
    surface = HeadSurface(moving)
    moving.to(second)
    camera = torch.from_numpy(orbit_labels(0.2, 0.1))
    there = surface.see(_box(moving), camera.to(second), SIZE)
    assert _equal(there, HeadSurface(head).see(_box(head), camera, SIZE))


def test_flame_decodes_with_its_landmarks_on_the_device(second: torch.device) -> None:
    rng, embedding = torch.Generator().manual_seed(2), flame_like.embedding()
    codes = [torch.randn(2, n, generator=rng) for n in (10, 5, 6)]
    made = []
    for device in ("cpu", second):
        flame = flame_head(flame_like.arrays(), 10, 5, embedding).to(device)
        there = [code.to(device) for code in codes]
        posed = decode(flame, *there)
        marks = FlameLandmarks(embedding, flame.faces)
        made.append((posed, flame.landmarks(posed.vertices), marks(posed.vertices, there[2][:, :3])))
    assert _equal(made[1], made[0])


def test_a_textured_mesh_is_drawn_on_the_device(second: torch.device) -> None:
    mapper, source, flame = stand_in.mapper(), stand_in.source(), stand_in.head()
    vertices = decode(flame, source.code.shape, source.code.exp, source.code.pose).vertices
    rng = torch.Generator().manual_seed(3)
    albedo, light = torch.rand(1, 3, 32, 32, generator=rng), torch.rand(1, 9, 3, generator=rng)
    ndc = vertices / vertices.abs().max() * 0.9
    image, tform = torch.rand(1, 3, 40, 40, generator=rng), torch.eye(3)[None]
    drawn = []
    for device in ("cpu", second):
        on = copy.deepcopy(mapper).to(device)
        surface = see(on, vertices.to(device), ndc.to(device), SIZE, SIZE)
        textures = (
            on.sample_crop(image.to(device), ndc.to(device)),
            on.sample_source(image.to(device), ndc.to(device), tform.to(device)),
        )
        drawn.append(
            (render(on, surface, albedo.to(device), light.to(device)), render_overlay(on, surface), textures)
        )
    assert _equal(drawn[1], drawn[0])
