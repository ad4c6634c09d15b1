"""Stage ``portrait``: the face of the portrait, and the crop that everything is made in."""

from __future__ import annotations

from portrait_core.errors import InputError
from portrait_core.pipeline import Array, Job, Stage
from portrait_core.pipeline.ledger import unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import landmark_weights, tracking_weights
from portrait_core.template.registry import FACE_MODELS
from tasks.context import TRACK, landmarker, read_portrait, track_arrays, use_threads
from tasks.running import does
from tasks.trackers import tracker

PORTRAIT = Stage(
    name="portrait",
    title="track portrait",
    version=5,
    unit="portrait",
    inputs=("portrait",),
    settings=("media.portrait_max_side", "tracking", "template.size"),
    weights=(landmark_weights, tracking_weights),
    writes=(
        *(Array(name, per="clip") for name in (*TRACK, "landmarks", "crop", "photograph")),
        *(
            Array(name, per="clip", when=row.is_chosen)
            for row in FACE_MODELS.values()
            for name in row.kept_arrays
        ),
    ),
)


@does(PORTRAIT, precision="fp32")
def portrait(job: Job) -> StageResult:
    """Track the portrait: one face, its shape, expression, pose, and the crop that everything is made in.

    Raises:
        InputError: when there is no face in it, or more than one.
    """
    watch = Stopwatch("portrait", 0, 1)
    if not unfinished_runs(job, "portrait", 0, 1):
        return watch.result(0)
    threads = use_threads(job, alone=False)
    image = read_portrait(job)
    found = landmarker(job, threads).detect(image[None])
    if not found.ok[0] and job.edited is not None:
        raise InputError(
            f"no human face was found in the portrait {job.portrait} after its edit "
            f"({', '.join(job.settings.edit.attributes)}): look at it with `portrait edit`, and ask for less "
            "(edit.strength)"
        )
    if not found.ok[0]:
        raise InputError(
            f"no human face was found in the portrait {job.portrait}; give a photograph in which one "
            "face looks toward the camera and is at least 60 pixels wide"
        )
    if found.faces[0] > 1:
        raise InputError(
            f"{found.faces[0]} faces were found in the portrait {job.portrait}; crop it so that only "
            "the person to animate is left"
        )
    tracked = tracker(job).portrait(image, found.points, job.settings.template.size)
    output = job.output("portrait")
    output.write_whole(track_arrays(tracked.track))
    pictures = {"photograph": image[None], "crop": tracked.crop[None]}
    output.write_whole({"landmarks": found.points, **pictures, **tracked.more})
    output.commit()
    return watch.result(1)
