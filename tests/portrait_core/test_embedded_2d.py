"""The 2D generator that ships: its file, its pictures, its pose, and a step of its training."""

from functools import cache

import numpy as np
import pytest
import torch

from portrait_core.attribute_editing.scene_attributes import sample_scenes
from portrait_core.generators import StyleGAN2Generator, load_generator
from portrait_core.generators.io import load_latent_layout
from portrait_core.generators.scene_latents import N_LATENT
from portrait_core.generators.scene_latents_2d import LAYOUT_2D, N_LATENT_2D, latents_2d
from portrait_core.runtime.package_files import data_file
from portrait_core.training.evaluate import to_pictures
from portrait_core.training.train import Schedule
from portrait_core.training.train_2d import SIZE, Pictures, Trainer2d
from tests.portrait_core import stand_in

FILE = "models/embedded_2d.safetensors"


@cache
def generator() -> StyleGAN2Generator:
    """The one that ships."""
    return load_generator(data_file(FILE), kind="stylegan2")


@cache
def made(yaw_rad: float, pitch_rad: float = 0.0) -> np.ndarray:
    """A person from a side, ``[128,128,3]``."""
    z = torch.from_numpy(latents_2d(sample_scenes(1, 0, 0, 1.0).numpy(), yaw_rad, pitch_rad))
    with torch.no_grad():
        return to_pictures(generator()(z).clamp(-1, 1))[0]


def test_the_file_says_what_it_holds() -> None:
    assert load_latent_layout(data_file(FILE)) == LAYOUT_2D
    assert generator().settings.z_dim == N_LATENT_2D
    assert generator().mapping.w_avg.abs().sum() > 0
    assert made(0.0).shape == (128, 128, 3)
    assert data_file(FILE).stat().st_size < 6e6


def test_latents_hold_yaw_and_pitch_last() -> None:
    z = latents_2d(np.ones((2, N_LATENT)), np.array([0.4, -0.2]), 0.11)
    assert z.dtype == np.float32
    assert z[:, -2:].tolist() == [[1.0, 0.5], [-0.5, 0.5]]
    assert (z[:, :-2] == 1).all()
    with pytest.raises(ValueError, match=r"expected .*120"):
        latents_2d(np.ones((2, 5)), 0.0, 0.0)


def test_heads_turn_as_the_camera_does() -> None:
    """By the landmarks alone: a camera at the image's right sees the nose at the left of the cheeks' middle,
    one from above sees it low between brow and chin."""
    sides = [(0.4, 0.0), (-0.4, 0.0), (0.0, 0.3), (0.0, -0.3)]
    points = stand_in.landmarker().detect(np.stack([made(*side) for side in sides])).points
    assert np.isfinite(points).all()
    nose, left, right, brow, chin = (points[:, i] for i in (1, 234, 454, 10, 152))
    across = (nose[:, 0] - left[:, 0]) / (right[:, 0] - left[:, 0])
    down = (nose[:, 1] - brow[:, 1]) / (chin[:, 1] - brow[:, 1])
    assert across[0] < 0.4 < 0.6 < across[1]
    assert down[2] > down[3] + 0.03


def test_training_goes_on_from_a_checkpoint() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (20, 1, 1, 3), dtype=np.uint8).repeat(SIZE, 1).repeat(SIZE, 2)
    z = rng.normal(size=(20, N_LATENT_2D)).astype(np.float32)
    pictures = Pictures(z, colours, np.full((20, SIZE, SIZE), 255, np.uint8))

    def trainer() -> Trainer2d:
        return Trainer2d(pictures, Schedule(steps=100, warmup=1), seed=0)

    straight, first, second = trainer(), trainer(), trainer()
    losses = [straight.train_step() for _ in range(3)]
    assert [first.train_step(), first.train_step()] == losses[:2]
    second.load(first.state())
    assert second.train_step() == losses[2]
    assert second.step == 3
    maps = dict(straight.average.named_buffers())
    assert torch.equal(
        maps["synthesis.b8.conv0.noise_const"], second.average.get_buffer("synthesis.b8.conv0.noise_const")
    )
    assert maps["synthesis.b8.conv0.noise_const"].abs().sum() > 0  # the stored noise learns
