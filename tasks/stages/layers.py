"""Stage ``layers``: the photograph taken apart, into the person and what stands behind."""

from __future__ import annotations

import numpy as np

from portrait_core.pipeline import Array, Job, Note, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import head_weights, matte_weights
from portrait_core.rendering.page import transfers_detail
from tasks.context import head, read_track, segmenter, use_threads
from tasks.running import does

ARRAYS = ("coverage", "foreground", "plate")
"""Arrays, and the fields of the layers that they keep."""

PERSON = "person"
"""Note that says whether the network saw a person at the head."""

LAYERS = Stage(
    name="layers",
    title="part person and background",
    version=2,
    unit="portrait",
    reads=("portrait",),
    settings=("template.size", "render.detail"),
    weights=(head_weights, matte_weights),
    writes=(*(Array(name, per="clip", when=transfers_detail) for name in ARRAYS), Note(PERSON)),
)


@does(LAYERS)
def layers(job: Job) -> StageResult:
    """Part the photograph; nothing where the settings do without its pixels."""
    watch = Stopwatch("layers", 0, 1)
    if not unfinished_runs(job, "layers", 0, 1):
        return watch.result(0)
    output, said = job.output("layers"), dict[str, bool]()
    if transfers_detail(job.settings):
        from portrait_core.photograph.layers import separate
        from portrait_core.template.clip_heads import EmbeddedClipHead

        threads = use_threads(job, alone=False)
        track, size = read_track(job.output("portrait")), job.settings.template.size
        still = EmbeddedClipHead(head(job), track.shape, track.expression, track.jaw, track.cameras, size)
        center, side = track.crop_center_px[0], float(track.crop_side_px[0])
        picture = job.output("portrait").read("photograph")[0]
        found = separate(picture, center, side, still.silhouette(), segmenter(job, threads))
        coverage = np.round(found.coverage * 255).astype(np.uint8)
        kept = {"coverage": coverage, "foreground": found.foreground, "plate": found.plate}
        output.write_whole({name: kept[name][None] for name in ARRAYS})
        said = {"found": found.found}
    output.write_note(PERSON, said)
    output.commit()
    return watch.result(1)
