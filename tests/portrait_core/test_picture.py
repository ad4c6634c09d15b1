"""Frames drawn with the photograph's own pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from portrait_core.cameras import labels_from_rotations, orbit_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.inversion.targets import image_tensor
from portrait_core.model_files.needs import weight_file
from portrait_core.rendering.believed import Believed
from portrait_core.rendering.detail import Lookup, matched
from portrait_core.rendering.motion import CameraMotion, HeadMotion
from portrait_core.rendering.neck import Neck
from portrait_core.rendering.page import Page
from portrait_core.rendering.part import Part
from portrait_core.rendering.picture import Canvas, FrameInputs, PictureRenderer
from portrait_core.rendering.surfaces import Surface, View, continued
from portrait_core.settings import load_settings
from tests.portrait_core import tiny

SIDE, OWN = 48, torch.from_numpy(orbit_labels(0.1, 0.05))


def small_page() -> Page:
    return Page.of((100, 90), (52.5, 40.25), 47.5, "photograph", 1024, 32)


def _layers(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A photograph of noise, and layers that have little to do with it."""
    draw = np.random.default_rng(seed)
    photograph, front, back = (draw.integers(0, 256, (90, 100, 3), np.uint8) for _ in range(3))
    y, x = np.mgrid[:90, :100]
    coverage = np.clip(2 - np.hypot(x - 52, y - 45) / 15, 0, 1).astype(np.float32)
    return photograph, coverage, front, back


def picture_renderer(
    motion: str, page: Page, grey: bool = False, device: torch.device | str = "cpu"
) -> tuple[PictureRenderer, np.ndarray]:
    parts: tuple[np.ndarray, ...] = _layers()
    if grey:
        parts = tuple(x if x.ndim == 2 else np.repeat(x[..., :1], 3, axis=2) for x in parts)
    photograph, front, back = (np.asarray(page.canvas.cut(parts[i]), np.uint8) for i in (0, 2, 3))
    coverage = np.asarray(page.canvas.cut(parts[1]), np.float32)
    canvas = Canvas(photograph, coverage, front, back, page.window.within(page.canvas))
    model, settings = (
        tiny.generator(),
        load_settings("embedded", ["render.samples=6", "render.importance_samples=4"]),
    )
    head = MorphableHead.load(weight_file(settings, "head"))
    vertices = head.to_box(head.template[None])[0]
    moves: HeadMotion | CameraMotion = CameraMotion(page, device)
    if motion == "head":
        moves = HeadMotion(Neck(head, vertices, device), OWN.to(device), page)
    first = model.mapping(
        torch.randn(1, model.settings.z_dim, generator=torch.Generator().manual_seed(3)), None
    )
    face = torch.zeros(1, 1, page.window.side, page.window.side)
    face[..., 14:30, 16:32] = 1.0
    camera = page.camera(OWN, page.canvas)
    first, face, camera, vertices = (x.to(device) for x in (first, face, camera, vertices))
    known = (model.to(device), first, face, camera, canvas, vertices, moves)
    return PictureRenderer(*known, settings.render, settings.composite), parts[0]


def picture_inputs(renderer: PictureRenderer, page: Page, photograph: np.ndarray) -> FrameInputs:
    template = image_tensor(np.asarray(page.window.cut(photograph)))[None].to(renderer.first)
    side = page.window.side
    face = renderer.first_face[..., :side, :side] * 0
    face[..., 14:30, 16:32] = 1.0
    return FrameInputs(renderer.first, template, face, torch.zeros_like(face))


def _base(renderer: PictureRenderer, view: View) -> Surface:
    """The first frame's surface at a view that is bent."""
    assert view.bend is not None
    return renderer._base(view, renderer._stays(view.bend))


@pytest.mark.parametrize("motion", ["head", "camera"])
def test_at_its_own_pose_and_expression_the_photograph_comes_out_to_the_bit(motion: str) -> None:
    page = small_page()
    renderer, photograph = picture_renderer(motion, page)
    drawn = renderer.render(picture_inputs(renderer, page, photograph), OWN)
    found = page.finished(photograph, drawn.image)
    outside = page.finished(np.zeros((90, 100, 1), np.uint8), drawn.mask[..., None])[..., 0] == 0
    np.testing.assert_array_equal(found[outside], photograph[outside])
    # inside the face it is the template, here the photograph's too, up to layers that do not add up to it
    assert drawn.mask.max() == 255


def test_a_head_that_turns_leaves_the_body_its_pixels_to_the_bit() -> None:
    page = small_page()
    renderer, photograph = picture_renderer("head", page)
    drawn = renderer.render(
        picture_inputs(renderer, page, photograph), torch.from_numpy(orbit_labels(-0.4, 0.2))
    )
    changed = (page.finished(photograph, drawn.image) != photograph).any(-1)
    assert changed.mean() > 0.1, "a head has turned"
    low = page.canvas.y + int(0.95 * page.canvas.side)
    assert not changed[min(low, 89) :].any()


def test_what_turns_is_looked_up_where_the_head_took_it() -> None:
    """Of a head that rolls by 20 degrees pixels lie elsewhere in the photograph, those of the body where they
    are."""
    page = small_page()
    renderer, _ = picture_renderer("head", page)
    turn = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    flip = labels_from_rotations(np.eye(3)[None])
    assert flip.shape == (1, 25)
    own = renderer.motion._own  # type: ignore[attr-defined]  # of HeadMotion
    view = renderer.motion.view(torch.from_numpy(labels_from_rotations((own @ turn)[None])), renderer.rays)
    look = renderer.source.lookup(_base(renderer, view))
    head = look.move[..., renderer.rays // 4, renderer.rays // 2]
    assert head.norm() > 0.05
    still = look.move[..., -1, renderer.rays // 2]
    assert still.norm() < 1e-4


def test_known_depths_stay_and_others_lie_between_them() -> None:
    values = torch.rand(1, 1, 19, 19, generator=torch.Generator().manual_seed(0))
    known = torch.zeros_like(values)
    known[..., 3:12, 5:14] = 1.0
    found = continued(values, known)
    inside = known > 0
    assert torch.equal(found[inside], values[inside])
    assert found.min() >= values[inside].min() - 1e-6
    assert found.max() <= values[inside].max() + 1e-6


def test_without_any_known_depth_nothing_is_infinite() -> None:
    assert torch.isfinite(continued(torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))).all()


def test_nothing_of_a_head_stays_where_it_was_when_it_turned_away() -> None:
    page = small_page()
    renderer, _ = picture_renderer("head", page)
    bend = renderer.motion.view(torch.from_numpy(orbit_labels(-0.4, 0.2)), renderer.rays).bend
    assert bend is not None
    points = renderer.surface.points.reshape(1, -1, 3)
    moved = (bend.seen_at(points) - points).norm(dim=-1).reshape(renderer.surface.accumulation.shape) > 0.01
    assert (renderer.surface.accumulation[moved] > 0.5).any(), "there was a head"
    stays = renderer._stays(bend)
    assert not stays[moved].any()
    assert stays[(bend.seen_at(points) - points).norm(dim=-1).reshape(stays.shape) < 1e-6].all()
    # the background around a head that has gone shows the plate, not what the layers missed there
    look = Lookup(torch.zeros(1, 2, *stays.shape[-2:]), torch.ones(stays.shape))
    part = Part.of(None, renderer.rays, page.canvas.side, points.device)
    drawn = renderer._still(part, look, stays)
    gone = F.interpolate(moved.float(), drawn.shape[-2:], mode="nearest") > 0
    assert (drawn[F.max_pool2d(1 - gone.float(), 5, 1, 2) == 0] == 0).all()


@pytest.fixture
def believed() -> tuple[Believed, torch.Tensor]:
    """A ball of radius 0.15 before a camera 2.7 away, seen as a disc of 0.2, and the camera's place."""
    camera = torch.from_numpy(labels_from_rotations(np.eye(3)[None]))
    eye = camera[0, 3:12:4]
    rays, flat = 32, torch.full((1, 1, 32, 32), float(eye.norm()) - 0.15)
    nothing = torch.zeros(1, 3, rays, rays)
    surface = Surface(nothing, flat, torch.ones_like(flat), torch.zeros(1, rays, rays, 3))
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, 64),) * 2, indexing="ij")
    coverage = (x.square() + y.square() < 0.5**2).float()[None, None]
    ball = torch.nn.functional.normalize(
        torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    return Believed(surface, camera, coverage, 1.0, 0.15 * ball, 1.0), eye / eye.norm()


def test_what_lies_outside_the_outline_or_far_behind_the_head_is_not_believed(
    believed: tuple[Believed, torch.Tensor],
) -> None:
    within, toward = believed
    across = torch.linalg.cross(toward, torch.tensor([0.0, 1.0, 0.0]))
    asked = {
        "front": 0.15 * toward,
        "back": -0.2 * toward,
        "far behind": -0.4 * toward,
        "beside": 0.35 * across,
    }
    found = dict(zip(asked, (within(torch.stack(list(asked.values()))[None])[0] > 0.5).tolist(), strict=True))
    assert found == {"front": True, "back": True, "far behind": False, "beside": False}


def test_planes_are_empty_where_they_are_not_believed() -> None:
    model = tiny.generator()
    planes = model.planes(model.mapping(torch.zeros(1, model.settings.z_dim), None))
    points = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        _, everywhere = model.sample_points(planes, points)
        _, half = model.sample_points(planes.bent(None, lambda at: (at[..., 0] > 0).float()), points)
    kept = points[..., 0] > 0
    assert torch.equal(half[kept], everywhere[kept])
    assert (half[~kept] < -10).all()


def test_a_thin_outline_apart_from_the_person_is_forgotten_and_hair_beside_it_kept() -> None:
    renderer, _ = picture_renderer("head", small_page())
    rays = renderer.rays
    y, x = torch.meshgrid(*(torch.arange(rays),) * 2, indexing="ij")
    away = ((x - rays / 2).square() + (y - rays / 2).square()).sqrt()
    head, ring = away < rays / 6, (away - rays / 2.5).abs() < 0.6
    hair = (away < rays / 6 + 2) & ((x + y) % 3 == 0)
    renderer.cover = (head | ring | hair).float().roll((2, 2), (0, 1))[None, None]  # all has moved by 2 rays
    look = Lookup(torch.full((1, 2, rays, rays), 2.0 / rays), torch.ones(1, 1, rays, rays))
    base = replace(renderer.surface, accumulation=torch.zeros_like(renderer.surface.accumulation))
    seen = renderer._without_strays(look, base).seen[0, 0]
    assert (seen[ring] < 0.5).all()
    assert (seen[head | hair] > 0.9).all()


def test_what_was_not_seen_is_painted_in_the_colours_around_it() -> None:
    found, painted = torch.full((1, 3, 60, 80), 0.4), torch.full((1, 3, 60, 80), -0.1)
    painted[..., 20:40, 30:50] += 0.1  # what the generator knows
    painted[..., 28:32, 38:42] = 1.0  # what it does not
    seen = torch.ones(1, 1, 60, 80)
    seen[..., 20:40, 30:50] = 0
    made = matched(painted, found, seen)
    np.testing.assert_allclose(made[..., 22:26, 32:36], 0.5, atol=0.02)
    np.testing.assert_allclose(made[..., 29:31, 39:41], 0.6, atol=0.02)
    np.testing.assert_allclose(made[..., 5, 5], 0.4, atol=0.02)
    assert torch.equal(matched(painted, found, torch.zeros_like(seen)), painted), "nothing to match"


def test_far_from_all_that_was_seen_each_channel_keeps_its_own_colour() -> None:
    colours = torch.tensor([0.5, -0.4, 0.1]).reshape(1, 3, 1, 1).expand(1, 3, 64, 64)
    seen = torch.zeros(1, 1, 64, 64)
    seen[..., :20, :20] = 1
    made = matched(torch.zeros(1, 3, 64, 64), colours, seen)
    torch.testing.assert_close(made, colours.contiguous(), atol=1e-4, rtol=0)


def test_of_a_grey_photograph_nothing_is_painted_in_colour() -> None:
    page = small_page()
    renderer, photograph = picture_renderer("head", page, grey=True)
    inputs = picture_inputs(renderer, page, photograph)
    drawn = renderer.render(inputs, torch.from_numpy(orbit_labels(-0.5, 0.2)))
    assert np.ptp(drawn.image.astype(int), axis=2).max() <= 1
    coloured, photograph = picture_renderer("head", page)
    drawn = coloured.render(
        picture_inputs(coloured, page, photograph), torch.from_numpy(orbit_labels(-0.5, 0.2))
    )
    assert np.ptp(drawn.image.astype(int), axis=2).max() > 30
