"""Stage ``coefficients``: poses and expressions of the driver, by networks that users bring."""

from __future__ import annotations

import numpy as np

from portrait_core.pipeline import Array, Job, Stage
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.stage import When
from portrait_core.pipeline.weights import estimator_weights
from tasks.context import driving_frames, use_threads
from tasks.running import does

READERS = ("deep3d", "deca")
"""Estimators that are networks; the embedded one reads the stage ``fit``."""


def is_asked(estimator: str) -> When:
    """Return the condition that an estimator is asked for."""
    return lambda settings: estimator in settings.evaluation.estimators


COEFFICIENTS = Stage(
    name="coefficients",
    title="read coefficients",
    version=1,
    unit="video",
    reads=("landmarks",),
    inputs=("video",),
    settings=("evaluation.estimators",),
    weights=(estimator_weights,),
    writes=tuple(Array(name, per="clip", when=is_asked(name)) for name in READERS),
)


@does(COEFFICIENTS, precision="fp32")
def coefficients(job: Job) -> StageResult:
    """Read every frame of the driver with the networks that the settings name."""
    watch = Stopwatch("coefficients", 0, 1)
    if done_frames(job, "coefficients").all():
        return watch.result(0)
    from tasks.estimates import read_coefficients

    use_threads(job, alone=True)
    output, points = job.output("coefficients"), job.output("landmarks").read("landmarks")
    for name in READERS:
        if name in job.settings.evaluation.estimators:
            rows = read_coefficients(job, name, driving_frames(job), points)
            output.write_whole({name: np.asarray(rows)})
    output.commit()
    return watch.result(1)
