"""Stages: each is declared once, beside the function that does it.

Order, dependents, keys, finished and missing work, verification, retention, estimates and the titles of
progress bars are derived from the declaration. Apart from the pipelines that list them, nothing else in the
program knows the stages by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from portrait_core.settings import Section, Settings, key_settings
from portrait_core.store import Declared, Kind

Policy = Literal["pictures", "clip"]
"""Data of a finished clip that is dropped. ``pictures``: templates and rendered frames, most of the bytes;
latents and tuned generator stay, so that a clip with other settings of the output takes minutes. ``clip``:
everything except the clip itself and its measurements."""

When = Callable[[Settings], bool]
"""Condition on the settings."""
Weights = Callable[[Mapping[str, str]], dict[str, str]]
"""Function from the digests of all weights of a job, by name, to those that a stage uses."""


def always(settings: Settings) -> bool:
    """Return True for every setting."""
    return True


def never(settings: Settings) -> bool:
    """Return False for every setting."""
    return False


@dataclass(frozen=True)
class Array:
    """An array that a stage writes."""

    name: str
    """Name of the array in the stage's folder."""
    per: Literal["frame", "clip"] = "frame"
    """``frame``: one object per frame while the clip is at work. ``clip``: one object."""
    when: When = always
    """Condition under which the stage writes it."""


@dataclass(frozen=True)
class File:
    """A file that a stage writes."""

    name: str
    """Name of the file in the stage's folder."""
    when: When = always
    """Condition under which the stage writes it."""


@dataclass(frozen=True)
class Note:
    """A JSON document that a stage writes."""

    name: str
    """Name of the document in the stage's folder."""


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline."""

    name: str
    """Name in settings, keys, stores and on the command line."""
    title: str
    """Title on progress bars."""
    version: int
    """Version of the stage's computation. Raise it when its results change: all earlier results are then
    stale."""
    unit: Kind
    """Kind of the unit that holds the stage's output."""
    reads: tuple[str, ...] = ()
    """Stages whose output it reads. Those that a pipeline does not have are left out there."""
    inputs: tuple[str, ...] = ()
    """Inputs of the job that it reads: ``portrait``, ``video``, ``labels``, ``driver_face``,
    ``portrait_face``."""
    settings: tuple[str, ...] = ()
    """Settings that it reads: sections, or single fields as ``section.field``."""
    weights: tuple[Weights, ...] = ()
    """Functions that select the weights that it uses."""
    writes: tuple[Array | File | Note, ...] = ()
    """Everything that has to exist when it is done."""
    per_frame: bool = False
    """True if each frame has a marker of its own; otherwise the stage has one part."""
    parallel_over_frames: bool = False
    """True if its tasks take ranges of frames, which run at the same time."""
    chained: When = never
    """Condition under which a range begins only when the range before it has ended."""
    counts_frames: bool = False
    """True if the number of frames changes the result."""
    needs_frame_of: str | None = None
    """Stage that has to finish a frame before this one can start it."""
    fill_from_neighbour: bool = False
    """True if a frame that cannot be made shows its neighbour, so that some of the frames suffice."""
    shows_gaps_of: str | None = None
    """Stage some of whose frames may be missing in this stage's result: the key names them, so that the
    result is made again when one of them exists."""
    drop_with: Policy | None = None
    """Policy that drops its output once the job is finished; None keeps the output."""
    variant: str = ""
    """Name that tells the stage from another of its name, which other functions do in another pipeline."""
    steps: Callable[[Settings, int], int] | None = None
    """Function from settings and number of frames to the steps of its optimisation; None where it has
    none."""
    work: Callable[[Settings, int, int], float] | None = None
    """Function from settings, number of parts and number of all frames to the amount of work, for estimates;
    None counts frames."""

    @property
    def done_by(self) -> str:
        """Name under which the functions that do it are known."""
        return f"{self.name} {self.variant}" if self.variant else self.name

    def in_unit(self, unit: Kind) -> Stage:
        """Return the same stage with its output in a unit of another kind."""
        return replace(self, unit=unit)

    def declared(self, settings: Settings) -> Declared:
        """Return what it writes under some settings."""
        arrays = [item for item in self.writes if isinstance(item, Array) and item.when(settings)]
        return Declared(
            per_frame=tuple(item.name for item in arrays if item.per == "frame"),
            whole=tuple(item.name for item in arrays if item.per == "clip"),
            files=tuple(i.name for i in self.writes if isinstance(i, File) and i.when(settings)),
            notes=tuple(item.name for item in self.writes if isinstance(item, Note)),
        )

    def setting_values(self, settings: Settings) -> dict[str, Any]:
        """Return the settings that decide its result, as plain values by name."""
        return {name: _value(settings, name) for name in self.settings}


def _value(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return key_settings(value) if isinstance(value, Section) else value
