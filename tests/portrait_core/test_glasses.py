"""Glasses of synthetic people, and a generator that learns them without forgetting anything else."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from portrait_core.cameras import orbit_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators import TriPlaneGenerator, load_generator
from portrait_core.generators.scene_latents import APPEARANCE, N_LATENT, latent_from_scene, sample_scene
from portrait_core.runtime.package_files import data_file
from portrait_core.training import glasses, grow
from portrait_core.training.scenes import Scene, SceneRenderer, make_shard, wearing, write_shard
from portrait_core.training.shards import ShardSet
from portrait_core.training.train import Schedule
from tests.portrait_core import tiny

PEOPLE = range(6)


@cache
def renderer() -> SceneRenderer:
    return SceneRenderer(MorphableHead.load(data_file("models/embedded_head.safetensors")))


def _person(seed: int, value: float = 0.0) -> Scene:
    scene = sample_scene(np.random.default_rng(seed), renderer().head.expression_names)
    return wearing(scene, value)


def test_a_quarter_of_people_wears_them_and_all_others_are_the_same_people() -> None:
    names = renderer().head.expression_names
    bare, dressed = (
        [sample_scene(np.random.default_rng(seed), names, glasses=worn) for seed in range(400)]
        for worn in (False, True)
    )
    assert not any(glasses.glasses_presence(scene) for scene in bare)
    worn = np.array([glasses.glasses_presence(scene) for scene in dressed])
    assert 0.15 < (worn > 0.5).mean() < 0.31
    for scene, other in zip(bare, dressed, strict=True):
        np.testing.assert_array_equal(scene.appearance[:-1], other.appearance[:-1])
        np.testing.assert_array_equal(scene.expression, other.expression)
    rng = np.random.default_rng(0)  # what is drawn after a person is the same too
    sample_scene(rng, names, glasses=True)
    again = np.random.default_rng(0)
    sample_scene(again, names)
    assert rng.random() == again.random()


@pytest.mark.parametrize("seed", PEOPLE)
def test_the_front_lies_before_the_skin_and_rests_near_it(seed: int) -> None:
    """Whatever the head: no rim cuts into brows, nose or cheeks, and the bridge is no hand away."""
    mesh, head = renderer().glasses, renderer().head
    moved = dict(head.named_buffers())["v_template"].numpy() + renderer()._identity @ _person(seed).shape
    points, normals = mesh.build(renderer()._identity @ _person(seed).shape)
    front = points[: 2 * (glasses.AROUND + 1) * glasses.SIDES]
    skin = moved[mesh._skin.index]
    skin = skin[skin[:, 2] > 0]
    distance, near = cKDTree(skin[:, :2]).query(front[:, :2])
    gap = front[:, 2] - skin[near, 2]
    assert gap[distance < 0.004].min() > 0
    assert gap[distance < 0.004].min() < 0.012
    eyes = [moved[eye].mean(0) for eye in mesh._eyes]
    for eye, lens in zip(sorted(eyes, key=lambda e: e[0]), np.split(front, 2), strict=True):
        assert (lens[:, :2].min(0) < eye[:2]).all()
        assert (eye[:2] < lens[:, :2].max(0)).all()
    assert np.isfinite(normals).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


def test_they_are_seen_around_the_eyes_and_nowhere_below_the_nose() -> None:
    label = orbit_labels(0.0, 0.0, 0.0)[0]
    bare, worn = (renderer().view(renderer().person(_person(3, value)), label) for value in (0.0, 1.5))
    changed = np.abs(bare.image.astype(int) - worn.image).max(-1) > 12
    mouth, right, left = (worn.key_points * 256).astype(int)
    assert changed[: mouth[1] - 12].sum() > 800
    assert not changed[mouth[1] - 4 :].any()
    for eye in (right, left):  # through the lens one sees the eye
        ball = (slice(eye[1] - 2, eye[1] + 3), slice(eye[0] - 2, eye[0] + 3))
        assert np.abs(bare.image[ball].astype(int) - worn.image[ball]).mean() < 40
    rims = worn.depth.astype(float) < bare.depth.astype(float) - 0.005
    assert rims.sum() > 60  # frames are nearer than the face; lenses keep the depth of what they cover
    assert rims.sum() < 0.5 * changed.reshape(128, 2, 128, 2).any((1, 3)).sum() + 200


def test_without_them_a_picture_does_not_depend_on_their_value() -> None:
    label = orbit_labels(0.3, 0.1, 0.0)[0]
    one, other = (renderer().view(renderer().person(_person(2, value)), label) for value in (-2.0, 0.4))
    np.testing.assert_array_equal(one.image, other.image)


def test_pairs_of_a_shard_differ_in_glasses_alone() -> None:
    shard = make_shard(renderer(), 5, people=2, views=1, glasses=True)
    assert shard["expressions"] == 2
    value, z = APPEARANCE.index("glasses") - len(APPEARANCE), shard["z"].astype(np.float32)
    bare, worn = z[0::2], z[1::2]
    np.testing.assert_array_equal(np.delete(bare, value, 1), np.delete(worn, value, 1))
    assert (bare[:, value] <= glasses.WORN_FROM).all()
    assert (worn[:, value] >= glasses.WORN_FROM).all()
    with pytest.raises(ValueError, match="not both"):
        make_shard(renderer(), 5, people=1, views=1, expressions=2, glasses=True)


def _narrower() -> TriPlaneGenerator:
    """An earlier generator, which knows one number less."""
    settings = tiny.generator().settings
    torch.manual_seed(1)
    return TriPlaneGenerator(settings.model_copy(update={"z_dim": N_LATENT - 1}))


def _grown(old: TriPlaneGenerator) -> tuple[TriPlaneGenerator, dict[str, torch.Tensor]]:
    settings = old.settings
    wider = {
        "z_dim": N_LATENT,
        "w_dim": settings.w_dim + 4,
        "mapping_width": (settings.mapping_width or settings.w_dim) + 4,
        "basis_planes": {size: maps + 3 for size, maps in settings.basis_planes.items()},
    }
    torch.manual_seed(2)
    new = TriPlaneGenerator(settings.model_copy(update=wider))
    return new, grow.grow(old, new)


def test_a_grown_generator_draws_what_it_drew_where_new_dimensions_are_zero() -> None:
    old = _narrower()
    new, free = _grown(old)
    assert free
    z = torch.randn(3, N_LATENT)
    with torch.no_grad():
        before, after = old.mapping(z[:, :-1]), new.mapping(z)
        torch.testing.assert_close(after[..., : before.shape[-1]], before)
        assert torch.equal(after[:, 0, before.shape[-1]], z[:, -1])  # w tells the parameter of everybody
        planes = new.planes(after).volume
        after[..., before.shape[-1] + 1 :] = 0
        torch.testing.assert_close(new.planes(after).volume, old.planes(before).volume, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(planes, old.planes(before).volume, atol=1e-6)


def test_training_moves_new_entries_alone(tmp_path: Path) -> None:
    for number in (0, 1):
        write_shard(tmp_path / f"shard_{number:04d}.npz", make_shard(renderer(), number, 2, 1, glasses=True))
    schedule = Schedule(
        steps=4, heads=2, patch=12, surface_rays=20, rendered_patch=12, rendered_rays=20, paired=1.0,
        perceptual_from=2.0, mapping_factor=1.0,
    )  # fmt: skip
    old = load_generator(data_file("models/embedded_generator.safetensors"))
    narrow = old.settings.model_copy(update={"z_dim": N_LATENT - 1, "w_dim": 256, "mapping_width": 384})
    torch.manual_seed(0)
    earlier = TriPlaneGenerator(narrow.model_copy(update={"basis_planes": {32: 128, 64: 192, 128: 96}}))
    trainer = grow.GrowingTrainer(ShardSet(tmp_path), schedule, 0, earlier)
    before = {name: p.detach().clone() for name, p in trainer.generator.named_parameters()}
    free = trainer.free
    for _ in range(2):
        trainer.train_step()
    moved = set()
    for name, parameter in trainer.generator.named_parameters():
        changed = parameter != before[name]
        if changed.any():
            moved.add(name)
            assert name in free
            assert not (changed & (free[name] == 0)).any(), name
    assert {"backbone.mapping.out.weight", "backbone.synthesis.basis.128.maps"} <= moved
    z = trainer.shards.latents()
    z[:, grow.GLASSES] = torch.linspace(-2, 0.2, len(z))
    first = trainer.average.mapping(z)[:, 0]
    left = trainer.settle(steps=60, batch=64)
    settled = trainer.average.mapping(z)[:, 0]
    assert torch.equal(first[:, :257], settled[:, :257])
    assert settled[:, 257:].square().mean().sqrt() < 0.5 * first[:, 257:].square().mean().sqrt()
    assert left < 0.5 * float(first[:, 257:].square().mean().sqrt())


def test_the_shipped_generator_puts_glasses_on_a_person_and_leaves_others_alone() -> None:
    model = load_generator(data_file("models/embedded_generator.safetensors"))
    label = torch.from_numpy(orbit_labels(0.0, 0.0, 0.0))
    pictures = []
    for value in (-1.5, 0.0, 1.5):
        z = torch.from_numpy(latent_from_scene(_person(3, value)))[None]
        with torch.no_grad():
            pictures.append(model(z, label)["image"][0])
    truth = renderer().view(renderer().person(_person(3, 1.5)), label[0].numpy())
    without, average, worn = pictures
    assert float((average - without).abs().max()) < 0.04
    target = torch.from_numpy(truth.image).permute(2, 0, 1) / 127.5 - 1
    x, y = (truth.key_points[1:].mean(0) * 256).astype(int)
    eyes = (..., slice(y - 24, y + 24), slice(x - 56, x + 56))
    off = [float((picture[eyes] - target[eyes]).abs().mean()) for picture in (without, worn)]
    assert off[1] < 0.7 * off[0]
