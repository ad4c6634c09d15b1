"""Random people of both generators: drawn, edited, turned, and the StyleFlow of the 2D one that ships."""

from __future__ import annotations

import hashlib
import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS
from portrait_core.attribute_editing.consistency_edits import (
    COLUMN_ATTRIBUTES,
    TYPICAL,
    column_attribute,
    column_edit,
    column_target,
)
from portrait_core.attribute_editing.edit_series import latent_labels
from portrait_core.attribute_editing.latent_edits import AttributeEdit, StyleFlowModel
from portrait_core.attribute_editing.scene_attributes import posed_scene_conditions, sample_poses
from portrait_core.attribute_editing.styleflow_files import load_styleflow, styleflow_metadata
from portrait_core.attribute_editing.subjects import (
    Generator,
    Person,
    agreement_of,
    draw_person,
    edited_person,
    moved_camera,
    moved_latent,
    pictures_of,
    rows_to_edit,
    scaled_view,
)
from portrait_core.errors import InputError
from portrait_core.generators import StyleGAN2Generator, StyleGAN2Settings, load_generator
from portrait_core.model_files.check import check_model
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import Settings
from portrait_core.training.train_2d_flow import WEIGHTS, draw_posed_samples, train_posed_flow
from portrait_core.weights.registry import MODELS
from tests import official_flow
from tests.portrait_core import stand_in, tiny
from tests.portrait_core.test_embedded_2d import generator as generator_2d

FLOWS = {"2d": WEIGHTS, "3d": "embedded_flow.safetensors"}
SIDES = np.radians([[25.0, 5.0], [-25.0, 5.0]])


@cache
def flow(gan: str) -> StyleFlowModel:
    return load_styleflow(data_file(f"models/{FLOWS[gan]}"))


@cache
def generator(gan: str) -> Generator:
    return (
        generator_2d() if gan == "2d" else load_generator(data_file("models/embedded_generator.safetensors"))
    )


def _drawn(gan: str, number: int = 0, truncation: float = 0.7) -> Tensor:
    ws = draw_person(generator(gan), number, 0, truncation, posed=gan == "2d")
    return rows_to_edit(ws, flow(gan))


def test_the_shipped_flow_says_what_it_is() -> None:
    path = data_file(f"models/{WEIGHTS}")
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"]
    assert record["licence"] == styleflow_metadata(path)["licence"] == "Apache-2.0"
    report = check_model(path, MODELS["embedded_2d_flow"])
    assert report.digest == "digest as noted"
    assert "192 dimensions under 15 attributes" in report.content
    own = hashlib.sha256(data_file("models/embedded_2d.safetensors").read_bytes()).hexdigest()
    assert styleflow_metadata(path)["generator_sha256"] == own
    assert flow("2d").conditions.names == posed_scene_conditions().names
    reader = flow("2d").reader
    assert reader is not None
    assert min(reader.r2[-2:]) > 0.85  # yaw and pitch


@pytest.mark.parametrize("gan", FLOWS)
def test_people_depend_on_their_numbers_and_on_truncation(gan: str) -> None:
    one, again, other, mild = (_drawn(gan, *rest) for rest in ((3,), (3,), (4,), (3, 0.1)))
    assert one.shape == (1, 1, generator(gan).settings.w_dim)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    average = _drawn(gan, 3, 0.0)
    assert (mild - average).norm() < 0.5 * (one - average).norm()


@pytest.mark.parametrize("gan", FLOWS)
def test_an_edit_moves_what_the_flow_reads_back(gan: str) -> None:
    model, shares = flow(gan), {}
    for column in COLUMN_ATTRIBUTES:
        name = column_attribute(column, model.conditions)
        attribute = model.conditions.attributes[model.conditions.index(name)]
        for number in range(2):
            w = _drawn(gan, number)
            own = latent_labels(model, w)
            made = edited_person(model, w, own, column_edit(model, column, own, 0.5, 1))
            asked = column_target(own[name], attribute, 0.5) - own[name]
            shares[column, number] = (latent_labels(model, made.w)[name] - own[name]) / asked
    assert min(shares.values()) > {"2d": 0.5, "3d": 0.75}[gan], shares
    assert max(shares.values()) < 1.15, shares


def test_the_flow_turns_the_2d_generators_heads() -> None:
    model, w = flow("2d"), _drawn("2d")
    person = edited_person(model, w, latent_labels(model, w), None)
    assert torch.equal(person.w, w)
    views = np.stack(moved_latent(generator_2d(), model, person, SIDES))
    assert views.shape == (2, 128, 128, 3)
    points = stand_in.landmarker().detect(views).points
    across = (points[:, 1, 0] - points[:, 234, 0]) / (points[:, 454, 0] - points[:, 234, 0])
    assert across[0] < 0.4 < 0.6 < across[1]
    with pytest.raises(InputError, match="need attributes to be turned"):
        moved_latent(generator_2d(), model, Person(w), SIDES)


def test_a_moved_camera_shows_one_volume_from_its_sides() -> None:
    made = tiny.generator()
    person = Person(draw_person(made, 0, 0, 0.7)[:, :1])
    still = moved_camera(made, person, np.zeros((2, 2)), sampling=tiny.SAMPLING)
    one, again = pictures_of(still)
    assert np.array_equal(one, again)
    turned = moved_camera(made, person, SIDES, sampling=tiny.SAMPLING)
    left, right = pictures_of(turned)
    assert not np.array_equal(left, right)
    assert left.shape == (tiny.SIZE, tiny.SIZE, 3)
    assert agreement_of(*still)[0] < 1e-3 < agreement_of(*turned)[0]


def test_a_published_flow_keeps_every_row_of_a_2d_generator() -> None:
    torch.manual_seed(0)
    settings = StyleGAN2Settings(z_dim=6, w_dim=6, mapping_layers=1, channels={4: 4, 8: 4})
    made = StyleGAN2Generator(settings).eval().requires_grad_(False)
    model = StyleFlowModel(official_flow.tiny(context=17).float(), PUBLISHED_CONDITIONS)
    ws = draw_person(made, 0, 0, 0.7)
    assert rows_to_edit(ws, model).shape == ws.shape == (1, 4, 6)
    person = edited_person(model, ws, TYPICAL, column_edit(model, "glasses", TYPICAL, 0.5, 4))
    assert not torch.equal(person.w, ws)
    pictures = moved_latent(made, model, person, SIDES)  # beyond the sliders' 20 degrees
    assert [picture.shape for picture in pictures] == [(8, 8, 3), (8, 8, 3)]
    with pytest.raises(InputError, match="moves latents of 6 numbers and the generator's have 192"):
        rows_to_edit(draw_person(generator_2d(), 0, 0, 0.7), model)


def test_an_edit_of_an_unknown_attribute_is_refused() -> None:
    model, w = flow("2d"), _drawn("2d")
    with pytest.raises(InputError, match="no attribute 'hat'"):
        edited_person(model, w, latent_labels(model, w), AttributeEdit({"hat": 1.0}))


def test_views_are_scaled_with_and_without_detail() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert scaled_view(picture, 64) is picture
    assert scaled_view(picture, 32).shape == (32, 32, 3)
    coarse = scaled_view(picture, 64, 16)
    assert coarse.shape == picture.shape
    assert (
        np.abs(np.diff(coarse.astype(int), axis=0)).mean()
        < 30
        < np.abs(np.diff(picture.astype(int), axis=0)).mean()
    )
    assert np.array_equal(scaled_view(picture, 64, 100), picture)


def test_poses_are_drawn_by_number_within_their_limits() -> None:
    poses = sample_poses(200, 0, 3)
    assert np.array_equal(sample_poses(5, 7, 3), poses[7:12])
    assert (np.abs(poses) <= [0.8, 0.45]).all()
    assert poses.std(0) == pytest.approx([0.4, 0.22], rel=0.15)


def test_the_2d_flow_is_trained_the_same_way_twice() -> None:
    chosen = Settings().flow.model_copy(update={"held_out": 8, "batch": 8, "epochs": 1, "hidden": (8,)})
    settings = Settings(flow=chosen)
    (one, curve), (other, _) = (train_posed_flow(generator_2d(), 40, settings) for _ in range(2))
    assert [row[0] for row in curve] == [1]
    assert one.flow.state_dict().keys() == other.flow.state_dict().keys()
    assert all(
        torch.equal(value, other.flow.state_dict()[name]) for name, value in one.flow.state_dict().items()
    )
    samples = draw_posed_samples(generator_2d(), 4, 0)
    assert samples.w.shape == (4, 1, 192)
    assert samples.labels[:, -2:].numpy() == pytest.approx(np.degrees(sample_poses(4, 0, 0)), abs=1e-4)
