"""Stages, pipelines, jobs and the ledger of what is done: everything about the work but the work itself.

Free of Prefect, Dask and PyTorch: a command that only looks answers at once, and a worker's task pays for
none of them.
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
