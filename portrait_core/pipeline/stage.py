"""What a stage is: declared once, beside the function that does it.

Order, dependents, keys, what is done and what is missing, verification, retention, estimates and the titles
of progress bars are derived from the declaration. Nothing else in the program knows the stages by name but
the pipelines that list them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from portrait_core.settings import Section, Settings, key_settings
from portrait_core.store import Declared, Kind

Policy = Literal["pictures", "clip"]
"""What of a finished clip may go. ``pictures``: templates and rendered frames, most of the bytes; latents and
tuned generator stay, so that a clip with other settings of the output takes minutes. ``clip``: everything but
the clip itself and what was measured on it."""

When = Callable[[Settings], bool]
Weights = Callable[[Mapping[str, str]], dict[str, str]]
"""Takes the digests of all weights of a job, by name, and gives those that a stage uses."""


def always(settings: Settings) -> bool:
    """Hold for every setting."""
    return True


def never(settings: Settings) -> bool:
    """Hold for no setting."""
    return False


@dataclass(frozen=True)
class Array:
    """An array that a stage writes."""

    name: str
    per: Literal["frame", "clip"] = "frame"
    """``frame``: an object per frame of the clip, while it is at work. ``clip``: one object."""
    when: When = always
    """Settings under which the stage writes it."""


@dataclass(frozen=True)
class File:
    """A file that a stage writes."""

    name: str
    when: When = always
    """Settings under which the stage writes it."""


@dataclass(frozen=True)
class Note:
    """A JSON document that a stage writes."""

    name: str


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline."""

    name: str
    """Its name in settings, keys, stores and on the command line."""
    title: str
    """What a progress bar says."""
    version: int
    """Raise it when the stage's code changes what it computes: all its earlier results are then stale."""
    unit: Kind
    """Kind of the unit that holds its output."""
    reads: tuple[str, ...] = ()
    """Stages whose output it reads. Those that a pipeline does not have are left out there."""
    inputs: tuple[str, ...] = ()
    """Inputs of the job that it reads: ``portrait``, ``video``, ``labels``."""
    settings: tuple[str, ...] = ()
    """Settings that it reads: sections, or single fields as ``section.field``."""
    weights: tuple[Weights, ...] = ()
    """Weights that it uses."""
    writes: tuple[Array | File | Note, ...] = ()
    """Everything that has to be there when it is done."""
    per_frame: bool = False
    """Whether each frame is marked as done by itself; else the stage is of one part."""
    parallel_over_frames: bool = False
    """Whether its tasks take ranges of frames, which run at the same time."""
    chained: When = never
    """Settings under which a range begins only when the one before it has ended."""
    counts_frames: bool = False
    """Whether the number of frames changes what it computes."""
    needs_frame_of: str | None = None
    """Stage that has to have done a frame before this one can."""
    fill_from_neighbour: bool = False
    """Whether a frame that cannot be made shows its neighbour, so that some of the frames are enough."""
    shows_gaps_of: str | None = None
    """Stage some of whose frames may be missing in what this one makes: its key names them, so that it is
    made again when one of them is there."""
    drop_with: Policy | None = None
    """The policy under which its output may go once the job is finished; None keeps it."""
    steps: Callable[[Settings, int], int] | None = None
    """Steps of its optimisation by settings and number of frames; None where it has none."""
    work: Callable[[Settings, int, int], float] | None = None
    """Amount of work of so many parts, of so many in all, for estimates; None: frames."""

    def into(self, unit: Kind) -> Stage:
        """Give the same stage, whose output lies in a unit of another kind."""
        return replace(self, unit=unit)

    def declared(self, settings: Settings) -> Declared:
        """List what it writes under some settings."""
        arrays = [item for item in self.writes if isinstance(item, Array) and item.when(settings)]
        return Declared(
            per_frame=tuple(item.name for item in arrays if item.per == "frame"),
            whole=tuple(item.name for item in arrays if item.per == "clip"),
            files=tuple(i.name for i in self.writes if isinstance(i, File) and i.when(settings)),
            notes=tuple(item.name for item in self.writes if isinstance(item, Note)),
        )

    def values(self, settings: Settings) -> dict[str, Any]:
        """Read the settings that decide what it computes, as plain values by name."""
        return {name: _value(settings, name) for name in self.settings}


def _value(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return key_settings(value) if isinstance(value, Section) else value
