r"""Teach a trained generator one more parameter of the scene, and leave alone what it draws without it.

    uv run python -m portrait_core.training.scenes --out build/glasses --shards 300:322 --views 2 --glasses
    uv run python -m portrait_core.training.grow --shards build/glasses --start EARLIER.safetensors \
        --out build/grown --steps 5000

The generator is grown by dimensions of z and w, by units of the mapping and by basis maps. Old outputs do not
read new inputs, new maps are mixed by new dimensions of w alone, and only what is new is trained: where these
dimensions are zero, the planes are those of the earlier generator. A loss keeps them small for people without
glasses, and at the end the mapping is fitted once more so that they are very nearly zero there
(:meth:`GrowingTrainer.settle`). So figures that were measured on such people stay true. The first new
dimension of w mixes nothing: it is the new parameter itself, so that w tells it of everybody, as a StyleFlow
needs.

Give the same command again to continue after a stop, as for :mod:`portrait_core.training.train`.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from portrait_core.face_model.easing import smoothstep
from portrait_core.generators import TriPlaneGenerator, load_generator, save_generator
from portrait_core.generators.scene_latents import APPEARANCE, N_EXPRESSION, N_SHAPE
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.training.architecture import embedded_settings, transplant
from portrait_core.training.glasses import WORN_FROM
from portrait_core.training.scenes import BARE, WORN
from portrait_core.training.shards import ShardSet, ViewBatch
from portrait_core.training.train import LAYOUT, Schedule, Trainer, train

GLASSES = N_SHAPE + N_EXPRESSION + APPEARANCE.index("glasses")
ABSENT_WEIGHT = 1.0
"""Weight of the squared new dimensions of w of people without glasses."""
SETTLED = (0.3, 0.6)
"""Values of ``glasses`` up to which the settled dimensions are zero, and from which they are as trained."""
SETTLED_WEIGHT = 20.0
"""Weight of the error of people without glasses, those with them having 1."""
WEIGHTS = "grown_generator.safetensors"


def grow(old: TriPlaneGenerator, new: TriPlaneGenerator) -> dict[str, Tensor]:
    """Give ``new`` the function of ``old``, and new maps that new dimensions of w alone mix in.

    Returns:
        What is to be trained: masks of parameters, 1 where an entry is new and free. All others are old, or
        have to stay zero for old outputs to be as they were.

    Raises:
        ValueError: ``new`` is less wide than ``old`` somewhere.
    """
    transplant(old, new)
    w_dim, width = old.settings.w_dim, len(old.get_parameter("backbone.mapping.hidden.0.bias"))
    free: dict[str, Tensor] = {}

    def free_rows(name: str, first: int) -> Tensor:
        """Mark the rows from ``first`` on as new, and return the parameter."""
        parameter = new.get_parameter(f"backbone.mapping.{name}")
        mask = free[f"backbone.mapping.{name}"] = torch.zeros_like(parameter)
        mask[first:] = 1
        return parameter

    with torch.no_grad():
        for part in ("weight", "bias"):
            for i in range(old.settings.mapping_layers):
                free_rows(f"hidden.{i}.{part}", width)
            # the first new dimension of w is the parameter itself, the others start from the hidden layers
            free_rows(f"out.{part}", w_dim + 1)[w_dim] = 0
            free_rows(f"linear.{part}", w_dim + 1)[w_dim:] = 0
        new.get_parameter("backbone.mapping.linear.weight")[w_dim, GLASSES] = 1
        for resolution, maps in old.settings.basis_planes.items():
            free |= _free_maps(new, f"backbone.synthesis.basis.{resolution}", maps, w_dim + 1)
    return free


def _free_maps(new: TriPlaneGenerator, name: str, maps: int, first: int) -> dict[str, Tensor]:
    """Let a basis' maps from ``maps`` on be mixed by the dimensions of w from ``first`` on, and mark both."""
    parts = {part: new.get_parameter(f"{name}.{part}") for part in ("maps", "mixing", "style.weight")}
    free = {part: torch.zeros_like(parameter) for part, parameter in parts.items()}
    free["maps"][:, maps:] = 1
    free["mixing"][:, :, maps:] = 1
    free["style.weight"].unflatten(0, (3, -1))[:, maps:, first:] = 1
    parts["style.weight"].unflatten(0, (3, -1))[:, maps:, :first] = 0
    return {f"{name}.{part}": mask for part, mask in free.items()}


class GrowingTrainer(Trainer):
    """Trains what is new in a grown generator, on pairs of pictures without and with glasses."""

    def __init__(self, shards: ShardSet, schedule: Schedule, seed: int, old: TriPlaneGenerator) -> None:
        settings = embedded_settings(shards.latent_size)
        super().__init__(shards, schedule, seed, settings)
        self.free = grow(old, self.generator)
        self.average.load_state_dict(self.generator.state_dict())
        self._mixing_from = old.settings.w_dim + 1
        for name, parameter in self.generator.named_parameters():
            parameter.requires_grad_(name in self.free)
            if name in self.free:
                parameter.register_hook(self.free[name].mul)

    def settle(self, steps: int = 4000, batch: int = 512, rate: float = 2e-3) -> float:
        """Bring the average's new dimensions of w to zero for people without glasses; no picture is needed.

        The new entries of the mapping are fitted to what they are, times a ramp over :data:`SETTLED`, on
        people of the shards, nearer to the average and further from it, with any value of ``glasses``.

        Args:
            steps: steps of Adam, whose rate follows a cosine to 1 %.
            batch: people per step.
            rate: highest rate.

        Returns:
            The root mean square of these dimensions for people without glasses, after the last step.
        """
        mapping, people, first = self.average.backbone.mapping, self.shards.latents(), self._mixing_from
        trained = copy.deepcopy(mapping)
        for name, parameter in mapping.named_parameters():
            parameter.requires_grad_(True).register_hook(self.free[f"backbone.mapping.{name}"].mul)
        optimiser = torch.optim.Adam(mapping.parameters(), lr=rate, betas=(0.9, 0.99))
        schedule = Schedule(steps=steps, learning_rate=rate, warmup=1)
        bare_error = torch.zeros(())
        for step in range(steps):
            z = people[torch.randint(len(people), (batch,), generator=self.rng)]
            z = z * (0.5 + 0.6 * torch.rand(batch, 1, generator=self.rng))
            z[:, GLASSES] = BARE[0] + (WORN[1] - BARE[0]) * torch.rand(batch, generator=self.rng)
            ramp = torch.from_numpy(smoothstep(*SETTLED, z[:, GLASSES].numpy())).float()
            error = mapping(z)[:, 0, first:] - ramp[:, None] * trained(z)[:, 0, first:]
            bare = ramp < 0.1
            weight = torch.where(bare, SETTLED_WEIGHT, 1.0)
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step)
            optimiser.zero_grad(set_to_none=True)
            (weight[:, None] * error.square()).mean().backward()
            optimiser.step()
            bare_error = error.detach()[bare].square().mean().sqrt()
        self.average.requires_grad_(False)
        return float(bare_error)

    def _regularised(self, loss: Tensor, view: ViewBatch, ws: Tensor) -> Tensor:
        """Add the loss that keeps the new dimensions of w at zero for people without glasses."""
        bare = (view.z[:, GLASSES] <= WORN_FROM).float()
        return loss + ABSENT_WEIGHT * (ws[:, 0, self._mixing_from :].square().mean(1) * bare).mean()


def main() -> None:
    """Grow as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="folder of shards made with --glasses")
    parser.add_argument("--start", type=Path, required=True, help="weights of the earlier generator")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, weights and sheets")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=Schedule.learning_rate, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=500, help="steps between two checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    schedule = Schedule(
        steps=args.steps, learning_rate=args.rate, mapping_factor=0.3, paired=1.0, perceptual_from=0.6,
        ray_shares=(0.2, 0.3, 0.0), patch_shares=(0.0, 0.85),
    )  # fmt: skip
    print(json.dumps(asdict(schedule)))
    trainer = GrowingTrainer(ShardSet(args.shards), schedule, args.seed, load_generator(args.start))
    train(trainer, args.out, args.every)
    print(f"w of people without glasses: {trainer.settle():.4f} (root mean square of what draws them)")
    about = {"licence": "Apache-2.0", "steps": str(trainer.step)}
    save_generator(trainer.average, args.out / WEIGHTS, latent_layout=LAYOUT, metadata=about)


if __name__ == "__main__":
    main()
