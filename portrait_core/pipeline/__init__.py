"""Stages, pipelines, jobs and the ledger: everything about the work except its computation.

The package imports neither Prefect, Dask nor PyTorch, so that commands that only read a store answer at once
and a worker's task does not pay for them.
"""

from portrait_core.pipeline.job import Job
from portrait_core.pipeline.pipelines import Pipeline, all_pipelines, find_pipeline, register
from portrait_core.pipeline.ranges import FrameRange
from portrait_core.pipeline.stage import Array, File, Note, Policy, Stage

__all__ = [
    "Array",
    "File",
    "FrameRange",
    "Job",
    "Note",
    "Pipeline",
    "Policy",
    "Stage",
    "all_pipelines",
    "find_pipeline",
    "register",
]
