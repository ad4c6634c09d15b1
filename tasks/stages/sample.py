"""Stage ``sample``: pictures of a generator with their attributes."""

from __future__ import annotations

from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import fitting_weights, labelling_weights
from tasks.context import FrameArrays, use_threads
from tasks.frames import Save, process_frames
from tasks.running import does

SAMPLE = Stage(
    name="sample",
    title="draw and label",
    version=4,
    unit="flow",
    settings=("generator", "sample", "seed"),
    weights=(fitting_weights, labelling_weights),
    writes=(Array("latents"), Array("labels"), Array("pictures")),
    per_frame=True,
    parallel_over_frames=True,
    counts_frames=True,
)


@does(SAMPLE, precision="job")
def sample(job: Job, start: int, stop: int) -> StageResult:
    """Draw samples ``[start, stop)`` of the generator, render each frontally, and label it."""
    watch = Stopwatch("sample", start, stop)
    runs = unfinished_runs(job, "sample", start, stop)
    if not runs:
        return watch.result(0)
    from portrait_core.attribute_editing.training_samples import draw_samples, sample_labels
    from portrait_core.generators.prepared import volume_of
    from tasks.attributes import frontal, labeller
    from tasks.fitting import generator

    use_threads(job, alone=False)
    model, arrays, settings = volume_of(generator(job)), FrameArrays(job, "sample"), job.settings
    looking = None if settings.sample.labels == "scene" else labeller(job)

    def work(batch: FrameRange) -> Save:
        z, ws = draw_samples(model, range(*batch), settings.seed, settings.sample.truncation)
        pictures = frontal(job, model, ws)
        rows = {
            "latents": ws[:, :1].cpu().numpy(),
            "pictures": pictures,
            "labels": sample_labels(z, pictures, looking),
        }
        return arrays.defer_write(batch.start, rows)

    return watch.result(process_frames(job, "sample", runs, work, settings.sample.batch))
