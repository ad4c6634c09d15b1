"""A head that turns on its neck: what is the head's turns rigidly, what is the body's stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from portrait_core.face_model.head import MorphableHead
from portrait_core.model_files.needs import weight_file
from portrait_core.rendering.neck import Neck
from portrait_core.settings import load_settings

TURNS = ([0, 30, 0], [20, 0, 0], [0, 0, 25], [-15, 20, 10])
"""Degrees about x, y and z."""


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return MorphableHead.load(weight_file(load_settings(), "head"))


@pytest.fixture(scope="module")
def vertices(head: MorphableHead) -> Tensor:
    return head.to_box(head.template[None])[0]


@pytest.fixture(scope="module")
def neck(head: MorphableHead, vertices: Tensor) -> Neck:
    return Neck(head, vertices)


def _turn(degrees: list[int]) -> np.ndarray:
    return np.asarray(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix())


@pytest.mark.parametrize("degrees", TURNS)
def test_the_head_turns_rigidly_about_the_neck(neck: Neck, vertices: Tensor, degrees: list[int]) -> None:
    face = vertices[vertices[:, 1] > -0.05][None]
    turn = torch.from_numpy(_turn(degrees)).float()
    wanted = (face - neck.pivot) @ turn.T + neck.pivot
    assert (neck.bend(_turn(degrees)).seen_at(face) - wanted).norm(dim=-1).max() < 5e-4


@pytest.mark.parametrize("degrees", TURNS)
def test_the_body_and_all_below_it_stays(neck: Neck, degrees: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 500, 3, generator=generator) * torch.tensor([1.2, 0.2, 0.8])
    points = points - torch.tensor([0.6, 0.65, 0.4])
    bend = neck.bend(_turn(degrees))
    assert (bend.seen_at(points) - points).abs().max() < 1e-6
    assert (bend(points) - points).abs().max() < 1e-5


@pytest.mark.parametrize("degrees", TURNS)
def test_what_is_seen_is_looked_up_where_it_lies(neck: Neck, vertices: Tensor, degrees: list[int]) -> None:
    bend = neck.bend(_turn(degrees))
    there = bend(bend.seen_at(vertices[None]))
    away, ray = (there - vertices).norm(dim=-1), 0.633 / 128
    assert away.quantile(0.99) < 0.5 * ray
    assert away.max() < 2 * ray


def test_no_turn_bends_nothing(neck: Neck, vertices: Tensor) -> None:
    bend = neck.bend(np.eye(3))
    assert (bend(vertices[None]) - vertices).abs().max() < 1e-6


def test_shares_fall_from_the_head_to_the_body_along_the_neck(neck: Neck) -> None:
    from portrait_core.rendering.neck import _read

    heights = torch.linspace(0.2, -0.5, 40)
    line = torch.stack([torch.zeros(40), heights, torch.full((40,), 0.05)], dim=-1)[None]
    shares = _read(neck.shares, line)[0, :, 0]
    assert shares[0] == 1
    assert shares[-1] == 0
    assert (shares.diff() < 1e-6).all()
    assert (shares.diff() > -0.25).all(), "a neck that bends, not one that breaks"
