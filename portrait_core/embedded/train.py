"""Train the embedded generator on synthetic heads.

    uv run python -m portrait_core.embedded.scenes --out build/shards --shards 0:38 --views 2
    uv run python -m portrait_core.embedded.train --shards build/shards --out build/generator --steps 17000

Give the same command again to go on after a stop: the newest checkpoint in ``--out`` holds parameters, the
running average, optimiser and random states. ``--out`` also gets a contact sheet (held-out heads above what
the generator makes of their latents) and the log, every ``--every`` steps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from portrait_core.embedded import losses
from portrait_core.embedded.latents import APPEARANCE, N_EXPRESSION, N_SHAPE
from portrait_core.embedded.shards import ShardSet, ViewBatch
from portrait_core.generators import (
    BackgroundSettings,
    GeneratorSettings,
    RaySampling,
    SuperresolutionSettings,
    TriPlaneGenerator,
    save_generator,
)

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Schedule:
    """How training goes, as fractions of ``steps``."""

    steps: int = 17_000
    learning_rate: float = 3e-3
    fast_multiplier: float = 5.0
    """Learning-rate factor of learned constants, basis maps and base planes."""
    warmup: int = 100
    average: float = 0.998
    """Decay of the running average of the weights that is saved."""
    rendering_from: float = 0.2
    superresolution_from: float = 0.4
    half_rendering_from: float = 0.75

    def rate(self, step: int) -> float:
        """Cosine from ``learning_rate`` to 3 % of it, after a linear warm-up."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * min(1.0, step / self.warmup + 0.02) * (0.97 * cosine + 0.03)

    def kind(self, step: int) -> str:
        """``surface``, ``surface+sr``, ``render`` or ``render+sr``: most steps supervise the surface, and
        rendering takes a growing share of an eight-step cycle."""
        done, slot = step / self.steps, step % 8
        if done > self.half_rendering_from and slot in (1, 5):
            return "render+sr" if slot == 5 else "render"
        if done > self.superresolution_from and slot == 3:
            return "render+sr"
        if done > self.rendering_from and slot == 7:
            return "render"
        return "surface+sr" if slot in (2, 6) else "surface"


@dataclass(frozen=True)
class Step:
    """One step's loss and cost."""

    kind: str
    loss: float
    cpu_s: float


def embedded_settings(latent_size: int) -> GeneratorSettings:
    """Settings of the shipped generator; see :class:`GeneratorSettings` for what each does."""
    return GeneratorSettings(
        z_dim=latent_size,
        w_dim=128,
        c_dim=0,
        mapping_kind="scene",
        mapping_layers=3,
        mapping_width=192,
        ws_per_layer=False,
        channels={4: 128, 8: 128, 16: 128, 32: 80, 64: 40, 128: 16},
        plane_channels=16,
        use_noise=False,
        learned_constants=True,
        basis_planes={32: 32, 64: 40, 128: 32},
        base_plane=True,
        background=BackgroundSettings(resolution=64),
        plane_axes="orthogonal",
        plane_padding="border",
        open_top=True,
        box_warp=0.72,
        feature_channels=16,
        feature_activation="linear",
        density_gain=10.0,
        sampling=RaySampling(near=losses.NEAR, far=losses.FAR, n_coarse=24, n_fine=16),
        neural_resolution=128,
        superresolution=SuperresolutionSettings(
            input_resolution=128, channels=(32, 24), upsample=(False, True), resize_input=False
        ),
    )


class Trainer:
    """Generator, running average, optimiser and random states: all that a checkpoint holds."""

    def __init__(self, shards: ShardSet, schedule: Schedule, seed: int) -> None:
        torch.manual_seed(seed)
        self.shards, self.schedule = shards, schedule
        self.generator = TriPlaneGenerator(embedded_settings(shards.latent_size))
        self.average = TriPlaneGenerator(self.generator.settings).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        groups = [
            {"params": list(self.generator.fast_parameters()), "factor": schedule.fast_multiplier},
            {"params": list(self.generator.slow_parameters()), "factor": 1.0},
        ]
        self.optimiser = torch.optim.Adam(groups, lr=schedule.learning_rate, betas=(0.9, 0.99), fused=True)
        self.rng = torch.Generator().manual_seed(seed)
        self.pick = np.random.default_rng(seed)
        self.step = 0

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and strings only: readable with ``weights_only=True``."""
        return {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.get_state(),
            "pick": json.dumps(self.pick.bit_generator.state),
            "step": self.step,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take a :meth:`state`."""
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.set_state(state["rng"])
        self.pick.bit_generator.state = json.loads(state["pick"])
        self.step = state["step"]

    def train_step(self) -> Step:
        """Take one optimisation step."""
        start = time.process_time()
        kind = self.schedule.kind(self.step)
        loss = self._loss(kind)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.step) * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self._update_average()
        self.step += 1
        return Step(kind, float(loss.detach()), time.process_time() - start)

    def _loss(self, kind: str) -> Tensor:
        heads, views = {"surface": (2, 2), "surface+sr": (1, 2), "render": (1, 2), "render+sr": (1, 1)}[kind]
        view = self.shards.sample(heads, views, self.pick)
        ws = self.generator.mapping(view.z, None)
        planes = self.generator.planes(ws)
        corner, patch = (0, 0), 0
        if kind.endswith("+sr"):
            corner, patch = self._patch(view.depth.shape[-1], 64 if kind == "render+sr" else 72)
            index = losses.patch_rays(view.depth.shape[-1], corner, patch, heads * views)
        else:
            index = losses.pick_rays(view, 1280 if kind == "surface" else 640, self.rng)
        if kind.startswith("surface"):
            loss, features = losses.surface_loss(self.generator, planes, view, index, self.rng)
        else:
            loss, features = losses.rendering_loss(self.generator, planes, view, index, self.rng)
        loss = loss + losses.WALL_WEIGHT * losses.wall_loss(self.generator, planes, view, self.rng)
        if patch:
            loss = loss + losses.superresolution_loss(self.generator, ws, features, view, corner, patch)
        return loss

    def _patch(self, size: int, side: int) -> tuple[tuple[int, int], int]:
        """A random patch, two times of three over the face rather than anywhere."""
        low, high = (0, size - side) if self.pick.random() < 1 / 3 else (size // 8, size - side - size // 16)
        return (int(self.pick.integers(low, high + 1)), int(self.pick.integers(low, high + 1))), side

    @torch.no_grad()
    def _update_average(self) -> None:
        weight = 1 - min(self.schedule.average, 1 - 1 / (self.step + 1))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), weight)


@torch.no_grad()
def evaluate(generator: TriPlaneGenerator, view: ViewBatch) -> tuple[dict[str, float], Tensor]:
    """PSNR of whole picture, mouth and eyes, and mean depth error inside the head, on held-out heads; and the
    pictures ``[B,3,H,W]``."""
    made, errors = [], []
    for i in range(len(view.z)):
        out = generator.synthesis(generator.mapping(view.z[i : i + 1], None), view.camera[i : i + 1])
        made.append(out["image"].clamp(-1, 1))
        inside = (view.depth[i] > 0) & (view.alpha_half[i, 0] > losses.SOLID)
        errors.append(float((out["image_depth"][0, 0] - view.depth[i]).abs()[inside].mean()))
    images = torch.cat(made)
    squared = ((images - view.image) / 2).square().mean(1)
    names = {"mouth": (0, 0.075, 0.09), "eyes": (1, 0.045, 0.06)}
    report = {"psnr": float(-10 * squared.mean((1, 2)).log10().mean()), "depth_mae": float(np.mean(errors))}
    for name, (point, half_height, half_width) in names.items():
        report[f"psnr_{name}"] = _region_psnr(squared, view.key_points[:, point], half_height, half_width)
    return report, images


def _region_psnr(squared: Tensor, centre: Tensor, half_height: float, half_width: float) -> float:
    size, values = squared.shape[-1], []
    for error, (x, y) in zip(squared, (centre * squared.shape[-1]).tolist(), strict=True):
        top, left = max(0, int(y - half_height * size)), max(0, int(x - half_width * size))
        region = error[top : int(y + half_height * size), left : int(x + half_width * size)]
        if region.numel():
            values.append(float(-10 * region.mean().log10()))
    return float(np.mean(values))


def contact_sheet(view: ViewBatch, images: Tensor, columns: int = 8) -> Image.Image:
    """Held-out pictures above the generator's, row by row."""
    rows = []
    for start in range(0, len(images), columns):
        for pictures in (view.image, images):
            row = torch.cat(list(pictures[start : start + columns]), dim=2)
            rows.append(((row.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy())
    return Image.fromarray(np.concatenate(rows))


def _save(trainer: Trainer, out: Path) -> None:
    temporary = out / (CHECKPOINT + ".partial")
    torch.save(trainer.state(), temporary)
    os.replace(temporary, out / CHECKPOINT)
    layout = {"shape": N_SHAPE, "expression": N_EXPRESSION, "appearance": list(APPEARANCE)}
    save_generator(
        trainer.average,
        out / "embedded_generator.safetensors",
        latent_layout=layout,
        metadata={"licence": "Apache-2.0", "steps": str(trainer.step)},
    )


def train(shards: ShardSet, out: Path, schedule: Schedule, seed: int, every: int) -> None:
    """Train to ``schedule.steps``, resuming from ``out`` if there is a checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(shards, schedule, seed)
    if (out / CHECKPOINT).exists():
        trainer.load(torch.load(out / CHECKPOINT, weights_only=True))
    view = shards.held_out_views(16)
    recent: list[Step] = []
    start = time.monotonic()
    while trainer.step < schedule.steps:
        recent.append(trainer.train_step())
        if trainer.step % 50 == 0:
            shards.refresh()
        if trainer.step % 200 == 0:
            print(_log_line(trainer, recent, time.monotonic() - start), flush=True)
            recent = []
        if trainer.step % every == 0 or trainer.step == schedule.steps:
            _save(trainer, out)
            report, images = evaluate(trainer.average, view)
            contact_sheet(view, images).save(out / f"sheet_{trainer.step:06d}.png")
            print(
                json.dumps({"step": trainer.step, **{k: round(v, 4) for k, v in report.items()}}), flush=True
            )


def _log_line(trainer: Trainer, recent: list[Step], seconds: float) -> str:
    parts = [
        f"step {trainer.step}/{trainer.schedule.steps}",
        f"{seconds:.0f} s",
        f"{len(trainer.shards)} shards",
    ]
    for kind in sorted({step.kind for step in recent}):
        own = [step for step in recent if step.kind == kind]
        loss, cpu = np.mean([s.loss for s in own]), np.mean([s.cpu_s for s in own])
        parts.append(f"{kind} {loss:.4f} ({cpu:.3f} cpu-s)")
    return "  ".join(parts)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, weights, contact sheets")
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; see the README on threading")
    parser.add_argument("--every", type=int, default=1000, help="steps between two checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    schedule = Schedule(steps=args.steps)
    print(json.dumps(asdict(schedule)))
    train(ShardSet(args.shards), args.out, schedule, args.seed, args.every)


if __name__ == "__main__":
    main()
