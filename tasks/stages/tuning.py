"""Stage ``tuning``: one generator for the whole clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import File, Job, Stage
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import fitting_weights, matte_weights
from tasks.context import segmenter, use_threads
from tasks.running import does

TUNED, STEPS = "tuned_generator.safetensors", "steps"
"""File of the generator, and note of the loss by step."""

TUNING = Stage(
    name="tuning",
    title="tune generator",
    version=7,
    unit="reenactment",
    reads=("portrait", "retarget", "template", "inversion"),
    settings=("generator", "inversion", "tuning", "seed"),
    weights=(fitting_weights, matte_weights),
    writes=(File(TUNED),),
    drop_with="clip",
    steps=lambda settings, frames: settings.tuning.steps,
    work=lambda settings, parts, frames: max(1, settings.tuning.steps) * parts,
)


@does(TUNING, precision="job")
def tune(job: Job) -> StageResult:
    """Fine-tune the generator on all frames that were inverted, with the latents held.

    Keeps checkpoints; resumes from them.
    """
    watch = Stopwatch("tuning", 0, 1)
    if done_frames(job, "tuning").all():
        return watch.result(0)
    from portrait_core.generators.prepared import generator_bytes
    from portrait_core.inversion.tuning import Tuner
    from portrait_core.inversion.tuning_clip import tuning_clip
    from tasks.fitting import (
        StoredCheckpoint,
        clip_data,
        features,
        fresh_generator,
        resolution,
        sampling,
        step_reporter,
    )
    from tasks.stages.render import drop_tuned

    threads = use_threads(job, alone=True)
    output, latent, settings = job.output("tuning"), job.output("inversion"), job.settings
    data = clip_data(job)
    good = [int(i) for i in np.flatnonzero(done_frames(job, "inversion"))]

    def inversion_render(frame: int) -> NDArray[np.uint8] | None:
        if settings.inversion.mouth != "render":
            return None
        picture: NDArray[np.uint8] = latent.read("inversion", frame, frame + 1)[0]
        return picture

    latents = np.concatenate([latent.read("latents", i, i + 1) for i in good])
    clip = tuning_clip(
        data, good, latents, inversion_render, settings.tuning, lambda: segmenter(job, threads)
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
