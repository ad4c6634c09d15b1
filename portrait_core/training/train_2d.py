"""Train the embedded 2D generator, the paper's baseline without a camera (section 4.2, table 3).

    uv run python -m portrait_core.training.train_2d --shards build/shards --out build/generator_2d

A StyleGAN2 of the published architecture whose z is a scene's latent vector and the camera's yaw and pitch
(:func:`portrait_core.generators.scene_latents_2d.latents_2d`), trained on the pictures of both: no
discriminator, so that the meaning of every number of z is known. The shards are those of
:mod:`portrait_core.training.scenes`; their roll is taken out of the pictures.

Give the same command again to continue after a stop; ``--out`` gets a checkpoint, the weights, the log and
a sheet of held-out people, every ``--every`` steps.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from portrait_core.cameras import angles_from_labels
from portrait_core.generators import StyleGAN2Generator, StyleGAN2Settings, save_generator
from portrait_core.generators.scene_latents_2d import LAYOUT_2D, N_LATENT_2D, latents_2d
from portrait_core.inversion.features import FeatureExtractor, build_features, feature_distance
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.tracking.generator_crop import EMBEDDED_FACE, EMBEDDED_SHARE
from portrait_core.training import losses
from portrait_core.training.evaluate import comparison_sheet
from portrait_core.training.train import Schedule

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "embedded_2d.safetensors"
SIZE = 128
CROP, FACE = EMBEDDED_SHARE, EMBEDDED_FACE
"""Side of the crop relative to a shard's picture, and the position of the middle of eyes and mouth in it.
Published 2D generators are trained on aligned faces too, so that they need not learn a turning head's
position."""
FACE_SPREAD = 0.2
"""Deviation of the weight around the face, relative to the picture's side."""
FACE_WEIGHT, HEAD_WEIGHT, BACKGROUND_WEIGHT = 1.5, 0.5, 0.2
"""Weights of a pixel's error: added at the face, added on head and clothes, everywhere."""
GROWTH = {16: (0.15, 16), 32: (0.35, 12), 64: (0.6, 6), SIZE: (1.0, 4)}
"""Fraction of the steps up to which a resolution is trained, and the pictures per step: the effect of z on
colours and layout is learned cheaply, and needs many pictures per step to be separated from the rest."""
FEATURE_WEIGHT, FEATURE_SIDE = 0.2, 80
"""Weight of the perceptual loss, and the side of its patch at the face, in pixels."""


def settings_2d() -> StyleGAN2Settings:
    """Return the settings of the shipped 2D generator."""
    return StyleGAN2Settings(
        z_dim=N_LATENT_2D,
        w_dim=192,
        mapping_layers=2,
        mapping_width=256,
        mapping_lr_multiplier=1.0,
        channels={4: 128, 8: 128, 16: 128, 32: 80, 64: 32, 128: 16},
    )


@dataclass(frozen=True)
class Pictures:
    """Aligned pictures without roll, in memory.

    Attributes:
        z: ``[N,122]``.
        image: ``[N,128,128,3]`` uint8.
        alpha: ``[N,128,128]`` uint8, coverage by the person.
    """

    z: NDArray[np.float32]
    image: NDArray[np.uint8]
    alpha: NDArray[np.uint8]

    @classmethod
    def read(cls, paths: list[Path]) -> Pictures:
        """Read all views of all people of some shards: 6.5 MB per 100 pictures.

        Raises:
            ValueError: there are no shards.
        """
        if not paths:
            raise ValueError("no shards to train on; write some with python -m portrait_core.training.scenes")
        parts = [_read(path) for path in paths]
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def batch(self, index: NDArray[np.integer]) -> tuple[Tensor, Tensor, Tensor]:
        """Return latents, pictures in [-1,1] ``[b,3,128,128]``, weights ``[b,1,128,128]``."""
        image = torch.from_numpy(self.image[index]).permute(0, 3, 1, 2).float() / 127.5 - 1
        steps = (torch.arange(SIZE) + 0.5) / SIZE
        x, y = (steps - FACE[0]) ** 2, (steps - FACE[1]) ** 2
        at_face = torch.exp(-(y[:, None] + x) / (2 * FACE_SPREAD**2))
        alpha = torch.from_numpy(self.alpha[index]).float() / 255
        weight = BACKGROUND_WEIGHT + HEAD_WEIGHT * alpha + FACE_WEIGHT * at_face
        return torch.from_numpy(self.z[index]), image, weight[:, None]


def _read(path: Path) -> tuple[NDArray[Any], ...]:
    with np.load(path, allow_pickle=False) as file:
        z, image, alpha, camera, points = (
            file[name] for name in ("z", "image", "alpha", "camera", "key_points")
        )
    views = image.shape[1]
    angles = angles_from_labels(camera.reshape(-1, 25)).astype(np.float32)
    pictures = np.concatenate([image, alpha[..., None]], -1).reshape(-1, *image.shape[2:4], 4)
    middle = points.reshape(-1, 3, 2).mean(1) * image.shape[2]
    aligned = [
        _aligned(picture, float(roll), at)
        for picture, roll, at in zip(pictures, angles[:, 2], middle, strict=True)
    ]
    latents = latents_2d(np.repeat(z, views, axis=0), angles[:, 0], angles[:, 1])
    return latents, np.stack(aligned)[..., :3], np.stack(aligned)[..., 3]


def _aligned(picture: NDArray[np.uint8], roll_rad: float, face_px: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Turn a picture against its roll, move the face to its place and crop."""
    double = 2 * SIZE
    scale = double / (CROP * len(picture))
    turn = cv2.getRotationMatrix2D((0.0, 0.0), float(np.degrees(roll_rad)), scale)
    # pixel centres lie at +0.5 in the shards and at whole numbers in the warp
    turn[:, 2] = np.array(FACE) * double - 0.5 - turn[:, :2] @ (face_px - 0.5)
    turned = cv2.warpAffine(picture, turn, (double, double), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(turned, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)


class Trainer2d:
    """Generator, running average, optimiser and random state: everything that a checkpoint holds."""

    def __init__(self, pictures: Pictures, schedule: Schedule, seed: int) -> None:
        torch.manual_seed(seed)
        self.pictures, self.schedule = pictures, schedule
        self.generator, self.average = (StyleGAN2Generator(settings_2d()) for _ in range(2))
        maps = _prepare(self.generator)
        self.average.load_state_dict(self.generator.state_dict())
        self.average.requires_grad_(False)
        groups = [
            {"params": list(self.generator.parameters()), "factor": 1.0},
            {"params": maps, "factor": schedule.fast_factor},
        ]
        self.optimiser = torch.optim.Adam(groups, lr=schedule.learning_rate, betas=(0.9, 0.99), fused=True)
        self.pick = np.random.default_rng(seed)
        self.step = 0
        self._features: FeatureExtractor | None = None

    def state(self) -> dict[str, Any]:
        """Return tensors, numbers and strings only, readable with ``weights_only=True``."""
        return {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "pick": json.dumps(self.pick.bit_generator.state),
            "step": self.step,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state`."""
        for name in ("generator", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.pick.bit_generator.state = json.loads(state["pick"])
        self.step = state["step"]

    def train_step(self) -> float:
        """Take one optimisation step, and return its loss."""
        share = self.step / self.schedule.steps
        size = next(size for size, (until, _) in GROWTH.items() if share < until)
        loss = self._loss(self.pick.integers(len(self.pictures.z), size=GROWTH[size][1]), size)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.step) * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        weight = max(
            1 - self.schedule.average, 10 / (self.step + 10)
        )  # the average discards the first weights quickly
        with torch.no_grad():
            for mean, value in zip(self._learned(self.average), self._learned(self.generator), strict=True):
                mean.lerp_(value, weight)
        self.step += 1
        return float(loss.detach())

    @staticmethod
    def _learned(generator: StyleGAN2Generator) -> list[Tensor]:
        return [*generator.parameters(), *_noise(generator)]

    def _loss(self, index: NDArray[np.integer], size: int) -> Tensor:
        z, image, weight = self.pictures.batch(index)
        for network in (self.generator, self.average):
            network.synthesis.resolutions = tuple(r for r in network.settings.resolutions if r <= size)
        drawn = self.generator.synthesis(self.generator.mapping(z)[:, :1])
        image, weight = (F.avg_pool2d(maps, SIZE // size) for maps in (image, weight))
        difference = weight * (drawn - image)
        loss = losses.colour_loss(difference) + losses.EDGE_WEIGHT * losses.edge_loss(difference)
        if size < SIZE:
            return loss
        if self._features is None:
            self._features = build_features("efficientnet")
        x, y = (int(place * SIZE - FEATURE_SIDE / 2 + self.pick.integers(-6, 7)) for place in FACE)
        patch = (..., slice(y, y + FEATURE_SIDE), slice(x, x + FEATURE_SIDE))
        with torch.no_grad():
            target = self._features(image[patch])
        return loss + FEATURE_WEIGHT * feature_distance(self._features(drawn[patch]), target)


def _prepare(generator: StyleGAN2Generator) -> list[Tensor]:
    """Start near a grey picture, with the stored noise as a learned map.

    That is the published architecture's one place at every resolution for what does not depend on w. It
    starts at zero, with strength 1.
    """
    maps = _noise(generator)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(1.0)
            elif name.endswith("torgb.weight"):
                parameter.mul_(0.1)
        for buffer in maps:
            buffer.zero_()
    return [buffer.requires_grad_(True) for buffer in maps]


def _noise(generator: StyleGAN2Generator) -> list[Tensor]:
    return [buffer for name, buffer in generator.named_buffers() if name.endswith("noise_const")]


@torch.no_grad()
def psnr_and_sheet(
    generator: StyleGAN2Generator, pictures: Pictures, count: int
) -> tuple[float, float, Image.Image]:
    """Return PSNR of whole pictures and of the face, on the first ``count`` pictures, and a sheet.

    The sheet has 24 of them above the generator's.
    """
    z, image, weight = pictures.batch(np.arange(count))
    latents = generator.mapping(z)[:, :1]
    pictures_made = torch.cat([generator.synthesis(ws).clamp(-1, 1) for ws in latents.split(16)])
    # before the end of training the pictures are smaller
    pictures_made = F.interpolate(pictures_made, SIZE, mode="bilinear")
    squared = ((pictures_made - image) / 2).square().mean(1, keepdim=True)
    face = (weight - weight.amin((2, 3), keepdim=True) > 1.2).float()
    at_face = (squared * face).sum((1, 2, 3)) / face.sum((1, 2, 3)).clamp(min=1)
    whole = float(-10 * squared.mean((1, 2, 3)).log10().mean())
    sheet = comparison_sheet(image[:24], pictures_made[:24])
    return whole, float(-10 * at_face.log10().mean()), sheet


def _save(trainer: Trainer2d, out: Path) -> None:
    temporary = out / (CHECKPOINT + ".partial")
    torch.save(trainer.state(), temporary)
    os.replace(temporary, out / CHECKPOINT)
    about = {"licence": "Apache-2.0", "steps": str(trainer.step)}
    save_generator(trainer.average, out / WEIGHTS, latent_layout=LAYOUT_2D, metadata=about)


@torch.no_grad()
def _set_mean_latent(trainer: Trainer2d) -> None:
    """Set the mean w to that of the pictures' people, for truncation."""
    z = torch.from_numpy(trainer.pictures.z)
    trainer.average.mapping.w_avg.copy_(trainer.average.mapping(z)[:, 0].mean(0))


def train(trainer: Trainer2d, held_out: Pictures, out: Path, every: int) -> None:
    """Train to the schedule's end, from the checkpoint in ``out`` if there is one."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).exists():
        trainer.load(torch.load(out / CHECKPOINT, weights_only=True))
    recent: list[float] = []
    begun = time.monotonic()
    while trainer.step < trainer.schedule.steps:
        recent.append(trainer.train_step())
        if trainer.step % 100 == 0:
            seconds = time.monotonic() - begun
            print(f"step {trainer.step}  {seconds:.0f} s  loss {np.mean(recent):.4f}", flush=True)
            recent = []
        if trainer.step % every == 0 or trainer.step == trainer.schedule.steps:
            _set_mean_latent(trainer)
            _save(trainer, out)
            whole, face, sheet = psnr_and_sheet(trainer.average, held_out, 100)
            sheet.save(out / f"sheet_{trainer.step:06d}.png")
            print(f"step {trainer.step}  held out: PSNR {whole:.2f} dB, face {face:.2f} dB", flush=True)


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, weights and sheets")
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=500, help="steps between two checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    schedule = Schedule(
        steps=args.steps,
        learning_rate=args.rate,
        fast_factor=1.0,
        average=0.995,
    )
    print(json.dumps(asdict(schedule)))
    paths = sorted(args.shards.glob("shard_*.npz"))
    trainer = Trainer2d(Pictures.read(paths[1:]), schedule, args.seed)
    train(trainer, Pictures.read(paths[:1]), args.out, args.every)


if __name__ == "__main__":
    main()
