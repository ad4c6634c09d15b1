"""Train the StyleFlow of the embedded 2D generator, which turns the baseline's heads (paper section 4.2).

    uv run python -m portrait_core.training.train_2d_flow --out data/models

The samples are people and cameras drawn as the 2D generator's training pictures are, with their exact labels:
the attributes of the scene, yaw and pitch. No picture is rendered. They are not truncated, so that the flow
learns poses as large as it is later asked for; people who are drawn nearer to the average lie among them.
The options of flow and training are the defaults of the settings section ``flow``. It takes minutes on one
core; the same command makes the same file on the same type of processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch

from portrait_core.attribute_editing.latent_edits import StyleFlowModel
from portrait_core.attribute_editing.latent_reader import LatentReader
from portrait_core.attribute_editing.scene_attributes import (
    posed_scene_conditions,
    posed_scene_labels,
    sample_poses,
    sample_scenes,
)
from portrait_core.attribute_editing.styleflow_files import save_styleflow
from portrait_core.attribute_editing.styleflow_training import LabelledLatents
from portrait_core.attribute_editing.trainer_from_settings import make_trainer
from portrait_core.generators import StyleGAN2Generator, load_generator
from portrait_core.generators.scene_latents_2d import latents_2d
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import Settings
from portrait_core.weights.locate import digest

WEIGHTS = "embedded_2d_flow.safetensors"
GENERATOR = "models/embedded_2d.safetensors"
SAMPLES, SEED = 10_000, 0


@torch.no_grad()
def draw_posed_samples(generator: StyleGAN2Generator, count: int, seed: int) -> LabelledLatents:
    """Draw people seen from random sides, with w ``[N,1,D]`` and labels of ``posed_scene_conditions``."""
    scenes, poses = sample_scenes(count, 0, seed, 1.0), sample_poses(count, 0, seed)
    z = torch.from_numpy(latents_2d(scenes.numpy(), poses[:, 0], poses[:, 1]))
    return LabelledLatents(generator.mapping(z)[:, :1].contiguous(), posed_scene_labels(scenes, poses))


def train_posed_flow(
    generator: StyleGAN2Generator, samples: int, settings: Settings
) -> tuple[StyleFlowModel, list[tuple[int, float, float | None]]]:
    """Train a flow with ``settings.flow`` on samples drawn with ``settings.seed``.

    Returns:
        The flow with its reader, and pass, loss and held-out log-density in nats of every pass.
    """
    every = draw_posed_samples(generator, samples, settings.seed)
    learnt, held_out = every.split(settings.flow.held_out, settings.seed)
    conditions = posed_scene_conditions().standardised(learnt.labels)
    trainer = make_trainer(settings, conditions, learnt, held_out, "cpu")
    curve: list[tuple[int, float, float | None]] = []
    trainer.run(on_pass=lambda epoch, loss, density: curve.append((epoch, loss, density)))
    return StyleFlowModel(trainer.flow, conditions, LatentReader.fit(learnt, held_out)), curve


def main() -> None:
    """Train, and write the weights with the JSON file that says where they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"default {SAMPLES}")
    parser.add_argument("--seed", type=int, default=SEED, help=f"default {SEED}")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    path, begin = data_file(GENERATOR), time.process_time()
    settings = Settings(seed=chosen.seed)
    generator = load_generator(path, kind="stylegan2")
    model, curve = train_posed_flow(generator, chosen.samples, settings)
    for epoch, loss, density in curve:
        print(f"pass {epoch}: loss {loss:.1f}, held-out log-density {density:.1f}")
    assert model.reader is not None
    for name, score in zip(model.conditions.names, model.reader.r2, strict=True):
        print(f"read from w: {name} with R2 {score:.3f}")
    print(f"{time.process_time() - begin:.0f} CPU-seconds")
    about = {
        "licence": "Apache-2.0",
        "generator_sha256": digest(path)[0],
        "samples": str(chosen.samples),
        "curve": json.dumps([list(row) for row in curve]),
    }
    target: Path = chosen.out / WEIGHTS
    target.parent.mkdir(parents=True, exist_ok=True)
    save_styleflow(model, target, about)
    provenance = {
        "file": WEIGHTS,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "source": f"trained by this project on {chosen.samples:,} latents of the embedded 2D generator; no "
        "photograph was used",
        "made_by": f"portrait_core/training/train_2d_flow.py, seed {chosen.seed}; see data/README.md",
    }
    target.with_suffix(".json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
