"""A head that goes where the driver's goes, as far as a neck allows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from portrait_core.cameras import (
    FOCAL,
    RADIUS,
    labels_from_rotations,
    offsets_from_labels,
    orbit_rotation,
    project_to_crop,
    rotations_from_labels,
)
from portrait_core.face_model.head import MorphableHead
from portrait_core.model_files.needs import weight_file
from portrait_core.rendering.motion import HeadMotion
from portrait_core.rendering.neck import Neck, neck_joint, resting
from portrait_core.rendering.page import Page
from portrait_core.rendering.travel import MAX_SHIFT, DriverHead, head_shifts, with_travel
from portrait_core.settings import RenderSettings, load_settings

OWN = labels_from_rotations(orbit_rotation(0.1, -0.05)[None])
NECK = np.array([0.0, -0.25, -0.1])
WHOLE = RenderSettings(pose_window=1)
WIDTH = RADIUS / FOCAL
"""Width of the face crop at the head, box units."""


def turns(*degrees: tuple[float, float]) -> np.ndarray:
    return labels_from_rotations(np.stack([orbit_rotation(*np.radians(one)) for one in degrees]))


def test_a_head_that_does_not_turn_goes_as_far_as_the_drivers() -> None:
    cameras = np.repeat(OWN, 3, axis=0)
    places = np.array([[100.0, 80.0], [104.0, 80.0], [100.0, 78.0]])
    driver = DriverHead(cameras, places, np.full(3, 200.0))
    moved = with_travel(cameras, driver, NECK, 0, WHOLE)
    shifts = head_shifts(offsets_from_labels(moved))
    np.testing.assert_allclose(shifts[0], 0, atol=1e-6)
    np.testing.assert_allclose(shifts[1], [0.02 * WIDTH, 0, 0], atol=5e-4)  # to the picture's right
    np.testing.assert_allclose(shifts[2], [0, 0.01 * WIDTH, 0], atol=5e-4)  # up
    np.testing.assert_allclose(rotations_from_labels(moved), rotations_from_labels(cameras), atol=1e-6)
    half = with_travel(cameras, driver, NECK, 0, RenderSettings(pose_window=1, travel=0.5))
    np.testing.assert_allclose(head_shifts(offsets_from_labels(half))[1], shifts[1] / 2, atol=5e-4)


def test_what_a_turn_explains_is_not_carried_over_twice() -> None:
    """A driver whose head turns about his neck as the output's will: nothing is left to shift."""
    cameras = turns((5.7, -2.9), (20, 0), (-15, 12))
    rotations, own = rotations_from_labels(cameras), rotations_from_labels(cameras[:1])[0]
    went = (own @ NECK - rotations @ NECK)[:, :2] / WIDTH * (1, -1)
    sides = np.full(3, 150.0)
    moved = with_travel(cameras, DriverHead(cameras, 90 + 150 * went, sides), NECK, 0, WHOLE)
    np.testing.assert_allclose(offsets_from_labels(moved), 0, atol=1e-5)
    # nor where the output's head is held back
    held = with_travel(cameras[[0, 0, 0]], DriverHead(cameras, 90 + 150 * went, sides), NECK, 0, WHOLE)
    np.testing.assert_allclose(offsets_from_labels(held), 0, atol=1e-5)
    still = with_travel(cameras, DriverHead(cameras, np.full((3, 2), 90.0), sides), NECK, 0, WHOLE)
    assert np.abs(offsets_from_labels(still)[1:]).max() > 0.02, "a head that stays in place while it turns"


def test_a_sudden_turn_about_the_neck_shifts_nothing_where_poses_are_averaged() -> None:
    cameras = turns((0, 0), (0, 0), (20, 0), (20, 0))
    rotations = rotations_from_labels(cameras)
    went = (rotations[0] @ NECK - rotations @ NECK)[:, :2] / WIDTH * (1, -1)
    driver = DriverHead(cameras, 90 + 150 * went, np.full(4, 150.0))
    moved = with_travel(cameras, driver, NECK, 0, RenderSettings(pose_window=2))
    assert np.abs(offsets_from_labels(moved)).max() < 2e-3


def test_a_driver_who_walks_does_not_tear_the_neck() -> None:
    cameras = np.repeat(OWN, 40, axis=0)
    places = np.stack([np.linspace(0, 4000, 40), np.full(40, 50.0)], axis=1)
    moved = with_travel(cameras, DriverHead(cameras, places, np.full(40, 100.0)), NECK, None, WHOLE)
    shifts = head_shifts(offsets_from_labels(moved))
    length = np.linalg.norm(shifts, axis=1)
    assert length.max() < MAX_SHIFT + 1e-6
    assert length[0] > 0.9 * MAX_SHIFT
    assert (np.diff(shifts[:, 0]) > -1e-6).all(), "and still goes the way he goes"
    np.testing.assert_allclose(shifts[[0, -1], 0].sum(), 0, atol=1e-4)  # about the middle of the clip


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return MorphableHead.load(weight_file(load_settings(), "head"))


def test_the_neck_bends_for_a_shift_and_the_body_stays(head: MorphableHead) -> None:
    vertices = resting(head, torch.zeros(head.n_shape))
    neck, shift = Neck(head, vertices), np.array([0.04, -0.03, 0.0])
    bend = neck.bend(np.eye(3), shift)
    face = vertices[vertices[:, 1] > -0.05][None]
    torch.testing.assert_close(bend.seen_at(face), face + torch.tensor(shift).float(), atol=5e-4, rtol=0)
    below = torch.tensor([[[0.1, -0.55, 0.0], [-0.3, -0.5, 0.1]]])
    torch.testing.assert_close(bend.seen_at(below), below)
    back = bend(bend.seen_at(vertices[None]))
    assert (back - vertices[None]).norm(dim=-1).quantile(0.99) < 3e-3


def test_a_label_and_the_head_that_moves_for_it_are_seen_alike(head: MorphableHead) -> None:
    """Where a camera of the face crop that looks past the head sees its nose, beside the turn about the neck,
    there the bent head shows it to the portrait's own camera."""
    vertices = resting(head, torch.zeros(head.n_shape))
    neck, own = Neck(head, vertices), torch.from_numpy(OWN)
    page = Page.of((400, 400), (200.0, 200.0), 200.0, "photograph", 1024, 32)
    shift = np.array([0.03, 0.02, 0.0])  # right and up for the viewer
    offsets = shift * (-1.0, 1.0, 1.0)
    label = labels_from_rotations(rotations_from_labels(OWN), offsets[None])
    view = HeadMotion(neck, own, page).view(torch.from_numpy(label), 64)
    assert view.bend is not None
    nose = vertices[vertices[:, 2].argmax()][None, None]
    bent = project_to_crop(own, view.bend.seen_at(nose), 100)
    looked = project_to_crop(torch.from_numpy(label), nose, 100)
    torch.testing.assert_close(bent[..., :2], looked[..., :2], atol=0.1, rtol=0)
    assert neck_joint(head, vertices).shape == (3,)
