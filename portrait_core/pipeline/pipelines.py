"""Pipelines: lists of stages in their order. :mod:`tasks.pipelines` lists the program's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from portrait_core.pipeline.stage import Stage


@dataclass(frozen=True)
class Pipeline:
    """The stages that make a product: a clip, an edited portrait, a StyleFlow network."""

    name: str
    """Name of the pipeline in jobs."""
    makes: str
    """User-facing name of the product, in one word."""
    stages: tuple[Stage, ...]
    """Stages in an order in which they can run: a stage comes after all that it reads."""
    ends: tuple[str, ...]
    """Names of the stages with which a job is finished."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        names = [stage.name for stage in self.stages]
        for stage in self.stages:
            late = [name for name in stage.reads if name in names and name not in seen]
            if late or stage.name in seen:
                raise ValueError(
                    f"pipeline {self.name}: {stage.name} must come once, and after {', '.join(late) or 'all'}"
                )
            seen.add(stage.name)
        if not set(self.ends) <= seen or not self.ends:
            raise ValueError(f"pipeline {self.name}: its ends {self.ends} must be stages of it")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(stage.name for stage in self.stages)

    def stage(self, name: str) -> Stage:
        """Find a stage by its name.

        Raises:
            ValueError: the pipeline has no stage of that name.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ValueError(f"there is no stage {name}; the stages are {', '.join(self.names)}")

    def reads(self, name: str) -> tuple[str, ...]:
        """List the stages of the pipeline whose output a stage reads."""
        return tuple(before for before in self.stage(name).reads if before in self.names)

    def readers(self, name: str) -> tuple[str, ...]:
        """List the stages that read a stage's output directly."""
        return tuple(later for later in self.names if name in self.reads(later))

    def dependents(self, name: str) -> list[str]:
        """List the stages that read a stage's output, directly or not, in their order."""
        after = {name}
        for later in self.names:
            if after & set(self.reads(later)):
                after.add(later)
        return [later for later in self.names if later in after - {name}]


_known: dict[str, Pipeline] = {}


def register(pipeline: Pipeline) -> Pipeline:
    """Register a pipeline by its name; a later one of the same name replaces it."""
    _known[pipeline.name] = pipeline
    return pipeline


def all_pipelines() -> Sequence[Pipeline]:
    """List the registered pipelines, in the order of registration."""
    return list(_known.values())


def find_pipeline(name: str) -> Pipeline:
    """Find a registered pipeline by its name.

    Raises:
        ValueError: no pipeline of that name was registered.
    """
    if name not in _known:
        raise ValueError(
            f"there is no pipeline {name!r}; registered are {', '.join(_known) or 'none'} (importing "
            "tasks.pipelines registers the program's own)"
        )
    return _known[name]
