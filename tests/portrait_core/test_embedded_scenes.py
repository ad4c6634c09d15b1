"""Synthetic people: labels that agree with the pictures, and latents that describe them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from portrait_core.cameras import crop_rays, orbit_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators.scene_latents import APPEARANCE, N_EXPRESSION, N_LATENT, N_SHAPE
from portrait_core.runtime.package_files import data_folder
from portrait_core.training.scenes import (
    Scene,
    SceneRenderer,
    View,
    fitted_names,
    latent_from_scene,
    main,
    make_shard,
    sample_scene,
    scene_from_latent,
    shard_range,
    write_shard,
    z_from_fit,
)


@pytest.fixture(scope="module")
def renderer() -> SceneRenderer:
    return SceneRenderer(MorphableHead.load(data_folder() / "models" / "embedded_head.safetensors"))


def _scene(renderer: SceneRenderer, units: dict[str, float] | None = None, **look: float) -> Scene:
    names = renderer.head.expression_names
    expression, appearance = np.zeros(52, np.float32), np.zeros(len(APPEARANCE), np.float32)
    for name, value in (units or {}).items():
        expression[names.index(name)] = value
    for name, value in look.items():
        appearance[APPEARANCE.index(name)] = value
    return Scene(np.zeros(N_SHAPE, np.float32), expression, appearance, tuple(names))


def _view(
    renderer: SceneRenderer, scene: Scene, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0
) -> View:
    return renderer.view(renderer.person(scene), orbit_labels(yaw, pitch, roll)[0])


def _patch(view: View, point: int, half: int = 6) -> np.ndarray:
    x, y = (view.key_points[point] * 256).astype(int)
    return view.image[y - half : y + half, x - half : x + half].astype(float)


def test_expressions_of_a_person_share_person_and_camera(renderer: SceneRenderer) -> None:
    shard = make_shard(renderer, 13, people=1, views=1, expressions=2, spread=0.4)
    first, second = shard["z"]
    expression = slice(N_SHAPE, N_SHAPE + N_EXPRESSION)
    np.testing.assert_array_equal(np.delete(first, expression), np.delete(second, expression))
    assert np.abs(first[expression] - second[expression]).max() > 0.1
    np.testing.assert_array_equal(shard["camera"][0], shard["camera"][1])
    assert shard["expressions"] == 2
    # 40 values of standard deviation 0.4
    assert np.abs(first[N_SHAPE + N_EXPRESSION :]).max() <= 1.0


def test_same_seed_same_pictures_and_other_seed_others(renderer: SceneRenderer) -> None:
    first, again = (make_shard(renderer, 11, 1, 2) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert np.abs(first["image"].astype(int) - make_shard(renderer, 12, 1, 2)["image"]).mean() > 5


def test_shard_layout(renderer: SceneRenderer, tmp_path: Path) -> None:
    write_shard(tmp_path / "shard_0000.npz", make_shard(renderer, 3, 2, 2))
    with np.load(tmp_path / "shard_0000.npz") as shard:
        layout = {name: (shard[name].shape, shard[name].dtype.name) for name in shard.files}
    assert layout == {
        "z": ((2, N_LATENT), "float32"),
        "image": ((2, 2, 256, 256, 3), "uint8"),
        "alpha": ((2, 2, 256, 256), "uint8"),
        "depth": ((2, 2, 128, 128), "float16"),
        "camera": ((2, 2, 25), "float32"),
        "key_points": ((2, 2, 3, 2), "float32"),
        "wall": ((2, 64, 64, 3), "uint8"),
        "expressions": ((), "int64"),
    }
    assert [p.name for p in tmp_path.iterdir()] == ["shard_0000.npz"]


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.6, 0.2, 0.3), (-0.5, -0.3, -0.2)])
def test_depth_puts_points_on_the_head_and_inside_the_box(
    renderer: SceneRenderer, angles: tuple[float, float, float]
) -> None:
    person = renderer.person(_scene(renderer, hair_length=-2.4))
    label = orbit_labels(*angles)
    view = renderer.view(person, label[0])
    origin, direction = crop_rays(torch.from_numpy(label), 128)
    depth = torch.from_numpy(view.depth.astype(np.float32)).reshape(1, -1, 1)
    points = (origin + depth * direction)[0][depth[0, :, 0] > 0].numpy()
    assert np.abs(points).max() < 0.365
    nearest = torch.cdist(torch.from_numpy(points[::7]), torch.from_numpy(person.points)).amin(1).numpy()
    assert np.median(nearest) < 0.012  # vertices are up to a centimetre apart
    assert np.percentile(nearest, 97) < 0.06


def test_depth_and_alpha_agree(renderer: SceneRenderer) -> None:
    view = _view(renderer, _scene(renderer, hair_length=1.0), yaw=0.4)
    covered = view.alpha.reshape(128, 2, 128, 2).mean((1, 3)) / 255
    assert (view.depth[covered > 0.95] > 0).all()
    assert (view.depth[covered < 0.05] == 0).all()
    soft = (view.alpha > 10) & (view.alpha < 245)
    assert 300 < soft.sum() < 6000


def test_background_is_the_wall_in_perspective(renderer: SceneRenderer) -> None:
    """What is seen beside the head is exactly the wall's picture, sampled as the docstring says."""
    scene = _scene(renderer, wall_gradient=1.5, wall_blobs=2.0, wall_stripes=1.5, hair_length=-1.0)
    label = orbit_labels(0.5, -0.2, 0.25)
    person = renderer.person(scene)
    view = renderer.view(person, label[0])
    origin, direction = crop_rays(torch.from_numpy(label), 256)
    hit = origin + direction * ((-0.4 - origin[..., 2:]) / direction[..., 2:])
    grid = torch.stack([hit[..., 0] / 0.8, -hit[..., 1] / 0.8], -1).reshape(1, 256, 256, 2)
    wall = torch.from_numpy(person.wall).permute(2, 0, 1)[None].float()
    expected = (
        F.grid_sample(wall, grid, align_corners=False, padding_mode="border")[0].permute(1, 2, 0).numpy()
    )
    empty = view.alpha == 0
    assert empty.sum() > 5000
    assert np.ptp(expected[empty], axis=0).min() > 20
    assert np.abs(view.image[empty] - expected[empty]).max() < 3.0


def test_key_points_are_on_the_mouth_and_the_eyes(renderer: SceneRenderer) -> None:
    view = _view(renderer, _scene(renderer))
    mouth, right_eye, left_eye = view.key_points
    assert right_eye[0] < 0.5 < left_eye[0]  # the subject's right eye is at the image's left
    assert mouth[1] > right_eye[1] + 0.1
    lips, cheek = _patch(view, 0, 3).mean((0, 1)), view.image[150, 100].astype(float)
    assert lips[0] / lips[1] > 1.15 * cheek[0] / cheek[1]
    assert _patch(view, 1).min() < 60  # pupil
    assert _patch(view, 1).max() > 120  # the white of the eye


def test_expressions_show(renderer: SceneRenderer) -> None:
    calm = _view(renderer, _scene(renderer))
    shut = _view(renderer, _scene(renderer, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}))
    white = [_patch(view, 1, 4).min(-1).max() for view in (calm, shut)]
    assert white[0] > 125
    assert white[1] < 110
    smile = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "jawOpen": 0.3}
    teeth = _patch(_view(renderer, _scene(renderer, smile)), 0, 10)
    bright = (teeth.min(-1) > 110).sum()
    assert bright > (_patch(calm, 0, 10).min(-1) > 110).sum() + 15
    cavity = _patch(_view(renderer, _scene(renderer, {"jawOpen": 1.0})), 0, 8)
    assert cavity.min() < 45


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hair_length", 2.0),
        ("skin_tone", 2.0),
        ("cloth_light", 2.0),
        ("beard", 2.0),
        ("light_side", 1.5),
        ("wall_light", -1.5),
    ],
)
def test_appearance_values_change_the_picture(renderer: SceneRenderer, name: str, value: float) -> None:
    calm, changed = (
        _view(renderer, _scene(renderer)),
        _view(renderer, _scene(renderer, None, **{name: value})),
    )
    assert np.abs(calm.image.astype(int) - changed.image).mean() > 0.5


@pytest.mark.slow
def test_every_latent_is_visible_somewhere(renderer: SceneRenderer) -> None:
    """A latent that no picture shows could not be recovered from one."""
    # with these, the colour of the beard, the cut and the collar all matter
    look = {"beard": 1.2, "hair_length": 0.2, "hair_fringe": 1.0, "collar": 0.8}
    calm = _view(renderer, _scene(renderer, None, **look), pitch=0.2).image.astype(int)
    for name in APPEARANCE:
        changed = _view(renderer, _scene(renderer, None, **(look | {name: 2.0})), pitch=0.2).image
        assert np.abs(calm - changed).sum() > 500, name


def test_latent_round_trip(renderer: SceneRenderer) -> None:
    names = renderer.head.expression_names
    scene = sample_scene(np.random.default_rng(4), names)
    z = latent_from_scene(scene)
    assert z.shape == (N_LATENT,) == (120,)
    back = scene_from_latent(z, names)
    np.testing.assert_allclose(back.shape, scene.shape, atol=1e-6)
    np.testing.assert_allclose(back.expression, scene.expression, atol=1e-6)
    np.testing.assert_allclose(back.appearance, scene.appearance, atol=1e-6)


def test_a_fit_fills_the_first_two_blocks(renderer: SceneRenderer) -> None:
    names = renderer.head.expression_names
    scene = sample_scene(np.random.default_rng(5), names)
    z = z_from_fit(scene.full_shape()[0], scene.expression, names)
    np.testing.assert_array_equal(
        z[: N_SHAPE + N_EXPRESSION], latent_from_scene(scene)[: N_SHAPE + N_EXPRESSION]
    )
    assert not z[N_SHAPE + N_EXPRESSION :].any()
    batch = z_from_fit(np.zeros(50), np.zeros((7, 52)), names)
    assert batch.shape == (7, N_LATENT)
    with pytest.raises(ValueError, match="at least 30"):
        z_from_fit(np.zeros(20), np.zeros(52), names)


def test_latents_have_about_unit_variance(renderer: SceneRenderer) -> None:
    rng = np.random.default_rng(0)
    names = renderer.head.expression_names
    z = np.stack([latent_from_scene(sample_scene(rng, names, glasses=True)) for _ in range(1500)])
    assert np.abs(z.mean(0)).max() < 0.5
    assert z.std(0).min() > 0.3
    assert z.std(0).max() < 1.3


def test_sampled_expressions_follow_the_plan(renderer: SceneRenderer) -> None:
    rng = np.random.default_rng(0)
    names = renderer.head.expression_names
    e = np.stack([sample_scene(rng, names).expression for _ in range(2000)])
    left, right, jaw = (e[:, names.index(n)] for n in ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen"))
    assert 0.30 < ((left > 0) & (right > 0)).mean() < 0.40
    assert 0.04 < ((left > 0) != (right > 0)).mean() < 0.11
    assert 0.4 < (jaw > 0.2).mean() < 0.55
    assert e.min() >= 0
    assert e.max() <= 1
    unused = [names.index(n) for n in set(names) - set(fitted_names(names))]
    assert len(unused) == 3
    assert not e[:, unused].any()


def test_shard_range_rejects_nonsense() -> None:
    assert list(shard_range("2:4")) == [2, 3]
    with pytest.raises(Exception, match="A:B"):
        shard_range("4:2")


def test_command_line_writes_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "shard_0000.npz").write_bytes(b"kept")
    main(["--out", str(tmp_path), "--shards", "0:2", "--people", "1", "--views", "1"])
    assert (tmp_path / "shard_0000.npz").read_bytes() == b"kept"
    with np.load(tmp_path / "shard_0001.npz") as shard:
        assert shard["image"].shape == (1, 1, 256, 256, 3)
