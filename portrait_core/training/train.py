r"""Train the embedded generator on synthetic heads.

    uv run python -m portrait_core.training.scenes --out build/shards --shards 0:64 --views 2
    uv run python -m portrait_core.training.scenes --out build/shards --shards 100:116 --views 1 \
        --people 50 --expressions 2
    uv run python -m portrait_core.training.scenes --out build/shards --shards 200:221 --views 1 \
        --people 25 --expressions 4 --spread 0.4
    uv run python -m portrait_core.training.train --shards build/shards --out build/generator --steps 30000

The second and third command add people with several expressions each, whose differences have a loss of
their own, and people nearer to the average, like a portrait before its appearance is known.

Give the same command again to continue after a stop: the newest checkpoint in ``--out`` holds parameters, the
running average, optimiser and random states. ``--out`` also gets a sheet (held-out heads above the
generator's pictures of their latents) and the log, every ``--every`` steps. ``--start FILE`` begins from the
weights of an earlier generator, which may be narrower.
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
from torch import Tensor, nn

from portrait_core.generators import GeneratorSettings, TriPlaneGenerator, load_generator, save_generator
from portrait_core.generators.scene_latents import APPEARANCE, N_EXPRESSION, N_SHAPE
from portrait_core.inversion.features import FeatureExtractor, build_features
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.training import losses
from portrait_core.training.architecture import embedded_settings, transplant
from portrait_core.training.evaluate import comparison_sheet, evaluate
from portrait_core.training.shards import ShardSet, ViewBatch

CHECKPOINT = "checkpoint.pt"
LAYOUT = {"shape": N_SHAPE, "expression": N_EXPRESSION, "appearance": list(APPEARANCE)}
"""Blocks of z; stored with the weights."""
WATCHED = 32
"""Number of held-out people that are evaluated during training."""


@dataclass(frozen=True)
class Schedule:
    """Schedule of the training; fractions are of ``steps``."""

    steps: int = 30_000
    learning_rate: float = 3e-3
    fast_factor: float = 0.8
    """Learning-rate factor of learned constants, basis maps and base planes."""
    mapping_factor: float = 0.06
    """Learning-rate factor of the layers from z to w and from w to the basis' mixture, whose weights are
    stored at their effective scale, unlike the others."""
    flow_factor: float = 0.2
    """Learning-rate factor of the layers from w to the plane displacement's mixture, which starts at zero."""
    warmup: int = 200
    average: float = 0.998
    """Decay of the running average of the weights that is saved."""
    heads: int = 4
    """Number of people per step, one view each: the effect of z shows only across people."""
    paired: float = 0.6
    """Fraction of the steps that compare two expressions of a person, where shards have such."""
    patch: int = 32
    """Side of the patches that are super-resolved, in pixels of the neural resolution."""
    surface_rays: int = 768
    """Number of further rays per view in a step that supervises the surface."""
    rendered_patch: int = 24
    rendered_rays: int = 192
    """Number of further rays per view in a step that renders."""
    ray_shares: tuple[float, float, float] = losses.RAY_SHARES
    patch_shares: tuple[float, float] = losses.PATCH_SHARES
    rendering_from: float = 0.0
    perceptual_from: float = 0.3

    def rate(self, step: int) -> float:
        """Return the learning rate: a cosine from ``learning_rate`` to 1 % of it, after a linear warm-up."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * min(1.0, step / self.warmup + 0.02) * (0.99 * cosine + 0.01)

    def renders(self, step: int) -> bool:
        """Tell whether a step renders volumes: every other step; the rest supervises the surface."""
        return step >= self.rendering_from * self.steps and step % 2 == 1


@dataclass(frozen=True)
class Step:
    """Loss and cost of one step."""

    kind: str
    loss: float
    cpu_s: float


def parameter_groups(generator: TriPlaneGenerator, schedule: Schedule) -> list[dict[str, Any]]:
    """Return the generator's parameters by learning rate; ``factor`` multiplies the schedule's."""
    fast = generator.fast_parameters()
    flow = [p for name, p in generator.named_parameters() if ".flow." in name and ".style." in name]
    inner = [p for m in generator.backbone.modules() if isinstance(m, nn.Linear) for p in m.parameters()]
    linear = [p for p in inner if id(p) not in {id(q) for q in flow}]
    apart = {id(p) for p in (*fast, *linear, *flow)}
    rest = [p for p in generator.parameters() if id(p) not in apart]
    return [
        {"params": fast, "factor": schedule.fast_factor},
        {"params": linear, "factor": schedule.mapping_factor},
        {"params": flow, "factor": schedule.flow_factor},
        {"params": rest, "factor": 1.0},
    ]


class Trainer:
    """Generator, running average, optimiser and random states: everything that a checkpoint holds."""

    def __init__(
        self, shards: ShardSet, schedule: Schedule, seed: int, settings: GeneratorSettings | None = None
    ) -> None:
        torch.manual_seed(seed)
        self.shards, self.schedule = shards, schedule
        self.generator = TriPlaneGenerator(settings or embedded_settings(shards.latent_size))
        self.average = TriPlaneGenerator(self.generator.settings).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        groups = parameter_groups(self.generator, schedule)
        self.optimiser = torch.optim.Adam(groups, lr=schedule.learning_rate, betas=(0.9, 0.99), fused=True)
        self.rng = torch.Generator().manual_seed(seed)
        self.pick = np.random.default_rng(seed)
        self.step = 0
        self._features: FeatureExtractor | None = None

    def start_from(self, path: Path) -> None:
        """Take over the weights of an earlier generator."""
        transplant(load_generator(path), self.generator)
        self.average.load_state_dict(self.generator.state_dict())

    def state(self) -> dict[str, Any]:
        """Return tensors, numbers and strings only, readable with ``weights_only=True``."""
        return {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.get_state(),
            "pick": json.dumps(self.pick.bit_generator.state),
            "step": self.step,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state`."""
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.set_state(state["rng"])
        self.pick.bit_generator.state = json.loads(state["pick"])
        self.step = state["step"]

    def train_step(self) -> Step:
        """Take one optimisation step."""
        start = time.process_time()
        renders = self.schedule.renders(self.step)
        loss = self._loss(renders)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.step) * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self._update_average()
        self.step += 1
        kind = "render" if renders else "surface"
        return Step(kind, float(loss.detach()), time.process_time() - start)

    def _loss(self, renders: bool) -> Tensor:
        """Return the loss of a batch of patches, mostly on mouths and eyes, and of further rays."""
        schedule = self.schedule
        view, paired = self._sample()
        ws = self.generator.mapping(view.z, None)
        planes = self.generator.planes(ws)
        side = schedule.rendered_patch if renders else schedule.patch
        count = schedule.rendered_rays if renders else schedule.surface_rays
        corners = losses.pick_corners(view, side, self.rng, schedule.patch_shares)
        further = losses.pick_rays(view, count, self.rng, schedule.ray_shares)
        if paired:  # two expressions are compared pixel by pixel
            corners, further = (x[::2].repeat_interleave(2, dim=0) for x in (corners, further))
        index = torch.cat([losses.patch_rays(view.depth.shape[-1], corners, side), further], dim=1)
        ray_loss = losses.rendering_loss if renders else losses.surface_loss
        loss, features = ray_loss(self.generator, planes, view, index, self.rng, paired)
        loss = loss + losses.BACKGROUND_WEIGHT * losses.background_loss(
            self.generator, planes, view, self.rng
        )
        patches = features[:, : side * side]
        loss = loss + losses.superresolution_loss(
            self.generator, ws, patches, view, corners, side, self._extractor(), paired
        )
        return self._regularised(loss, view, ws)

    def _regularised(self, loss: Tensor, view: ViewBatch, ws: Tensor) -> Tensor:
        """Add losses of the latents ``[I,rows,w]`` themselves; there are none here."""
        return loss

    def _sample(self) -> tuple[ViewBatch, bool]:
        """Draw a batch, and tell whether it consists of pairs of expressions."""
        heads = self.schedule.heads
        if self.shards.has_pairs and self.pick.random() < self.schedule.paired:
            return self.shards.sample_pairs(heads // 2, 1, self.pick), True
        return self.shards.sample(heads, 1, self.pick), False

    def _extractor(self) -> FeatureExtractor | None:
        if self.step < self.schedule.perceptual_from * self.schedule.steps:
            return None
        if self._features is None:
            self._features = build_features("efficientnet")
        return self._features

    @torch.no_grad()
    def _update_average(self) -> None:
        weight = 1 - min(self.schedule.average, 1 - 1 / (self.step + 1))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), weight)


def _save(trainer: Trainer, out: Path) -> None:
    temporary = out / (CHECKPOINT + ".partial")
    torch.save(trainer.state(), temporary)
    os.replace(temporary, out / CHECKPOINT)
    save_generator(
        trainer.average,
        out / "embedded_generator.safetensors",
        latent_layout=LAYOUT,
        metadata={"licence": "Apache-2.0", "steps": str(trainer.step)},
    )


def train(trainer: Trainer, out: Path, every: int, start: Path | None = None) -> None:
    """Train to the schedule's end: from the checkpoint in ``out`` if there is one, else from ``start``."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).exists():
        trainer.load(torch.load(out / CHECKPOINT, weights_only=True))
    elif start is not None:
        trainer.start_from(start)
    steps, shards = trainer.schedule.steps, trainer.shards
    view = shards.held_out_views(WATCHED)
    recent: list[Step] = []
    begun = time.monotonic()
    while trainer.step < steps:
        recent.append(trainer.train_step())
        if trainer.step % 50 == 0:
            shards.refresh()
        if trainer.step % 200 == 0:
            print(_log_line(trainer, recent, time.monotonic() - begun), flush=True)
            recent = []
        if trainer.step % every == 0 or trainer.step == steps:
            _save(trainer, out)
            report, images = evaluate(trainer.average, view)
            comparison_sheet(view.image, images).save(out / f"sheet_{trainer.step:06d}.png")
            numbers = {name: round(value, 4) for name, value in report.items()}
            print(json.dumps({"step": trainer.step, **numbers}), flush=True)


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
    """Train as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, weights and sheets")
    parser.add_argument("--start", type=Path, help="weights of an earlier generator to begin from")
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--rate", type=float, default=Schedule.learning_rate, help="learning rate")
    parser.add_argument("--rendering-from", type=float, default=Schedule.rendering_from)
    parser.add_argument("--perceptual-from", type=float, default=Schedule.perceptual_from)
    parser.add_argument("--paired", type=float, default=Schedule.paired)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; see the README on threading")
    parser.add_argument("--every", type=int, default=1000, help="steps between two checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    schedule = Schedule(
        steps=args.steps,
        learning_rate=args.rate,
        paired=args.paired,
        rendering_from=args.rendering_from,
        perceptual_from=args.perceptual_from,
    )
    print(json.dumps(asdict(schedule)))
    train(Trainer(ShardSet(args.shards), schedule, args.seed), args.out, args.every, args.start)


if __name__ == "__main__":
    main()
