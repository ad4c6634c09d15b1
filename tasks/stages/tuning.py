"""Stage ``tuning``: one generator for the whole clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from portrait_core.pipeline import File, Job, Stage
from portrait_core.pipeline.ledger import done
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import fitting_weights
from tasks.context import use_threads
from tasks.running import does

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.fitting import ClipData


TUNED, STEPS = "tuned_generator.safetensors", "steps"
"""File of the generator, and note of the loss by step."""

TUNING = Stage(
    name="tuning",
    title="tune generator",
    version=6,
    unit="reenactment",
    reads=("portrait", "retarget", "template", "inversion"),
    settings=("generator", "inversion", "tuning", "seed"),
    weights=(fitting_weights,),
    writes=(File(TUNED),),
    drop_with="clip",
    steps=lambda settings, frames: settings.tuning.steps,
    work=lambda settings, parts, frames: max(1, settings.tuning.steps) * parts,
)


@does(TUNING, precision="job")
def tune(job: Job) -> StageResult:
    """Fine-tune the generator on all frames that were inverted, with the latents held. Keeps checkpoints;
    resumes from them."""
    watch = Stopwatch("tuning", 0, 1)
    if done(job, "tuning").all():
        return watch.result(0)
    import torch

    from portrait_core.inversion.targets import FrameTarget
    from portrait_core.inversion.tuning import Clip, Tuner
    from tasks.fitting import (
        StoredCheckpoint,
        clip_data,
        features,
        fresh_generator,
        generator_bytes,
        resolution,
        sampling,
        step_reporter,
    )
    from tasks.stages.render import drop_tuned

    use_threads(job, alone=True)
    output, latent, settings = job.output("tuning"), job.output("inversion"), job.settings
    data = clip_data(job)
    detail = settings.tuning.detail_weight > 0
    good = [int(i) for i in np.flatnonzero(done(job, "inversion"))]

    def frame(place: int) -> FrameTarget:
        i = good[place]
        painted = latent.read("inversion", i, i + 1)[0] if settings.inversion.mouth == "render" else None
        return data.target(i, painted, tuning=True, detail=detail)

    latents = np.concatenate([latent.read("latents", i, i + 1) for i in good])
    clip = Clip(
        ws=torch.from_numpy(latents).to(data.device),
        camera=data.camera,
        frame=frame,
        vertices=lambda place: data.head.vertices(good[place]),
        **_matte(job, data),
    )
    drop_tuned()
    model = fresh_generator(job)
    seeded = settings.tuning.model_copy(update={"seed": settings.tuning.seed + settings.seed})
    phi = features(job, "lpips" if settings.tuning.perceptual == "lpips" else None)
    tuner = Tuner(
        model,
        phi,
        clip,
        data.head.surface,
        seeded,
        sampling(job, model),
        resolution(job, model),
        checkpoint_s=settings.runner.checkpoint_s,
        memory_mib=settings.runner.target_memory_mib,
        graphs=settings.runner.cuda_graphs,
    )
    checkpoint = StoredCheckpoint(output)
    losses = tuner.run(checkpoint, step_reporter(output, settings.tuning.steps))
    output.put_bytes(TUNED, generator_bytes(model))
    output.write_note(STEPS, {"loss": np.round(losses, 5).tolist()})
    output.commit()
    checkpoint.clear()
    return watch.result(1)


def _matte(job: Job, data: ClipData) -> dict[str, Tensor]:
    """Take the portrait apart, where a term of the loss reads it: ``matte`` and ``wall`` of a clip."""
    import torch

    from portrait_core.inversion.matte import portrait_matte
    from portrait_core.inversion.targets import image_tensor
    from portrait_core.inversion.tuning import needs_matte

    if not needs_matte(job.settings.tuning):
        return {}
    found = portrait_matte(data.crop, data.head.silhouette())
    return {
        "matte": torch.from_numpy(found.foreground)[None].to(data.device),
        "wall": image_tensor(found.wall).to(data.device),
    }
