"""The summary of a run: what was asked, what came out, how long it took, what failed."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from portrait_core.runtime.whole_files import write_whole
from portrait_core.text.redaction import redact_values

REPORTED_PACKAGES = (
    "portrait-reenactment",
    "torch",
    "numpy",
    "onnxruntime",
    "zarr",
    "prefect",
    "dask",
    "pydantic",
)


class StageSummary(BaseModel):
    """One stage of one run."""

    stage: str
    seconds: float
    """Wall seconds in this run; 0 when everything was done before."""
    seconds_all_runs: float
    """Wall seconds over all runs that worked on this result."""
    cpu_seconds: float
    """Processor seconds in this run, of the processes that ran its tasks (not of ffmpeg)."""
    frames_done: int
    """Frames (or parts) computed in this run."""
    frames_total: int


class Summary(BaseModel):
    """Everything a run reports, as ``summary.json`` holds it: URLs in it are without their secrets."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    portrait: str
    video: str
    store: str
    reenactment: str
    """Name of the unit in the store."""
    profile: str
    frames: int
    frame_rate: str
    has_audio: bool
    video_facts: dict[str, Any] = {}
    """Of the whole driving video: ``rate`` (frames per second at which it is presented), ``first_frame``
    (with which the clip begins), ``is_vfr`` (its own rate varies), ``repeated`` (frames that show the picture
    before them), ``dropped`` (pictures that no frame shows), ``rotation_deg`` (as its file asks)."""
    sound: str = ""
    """Codec of the driver's sound, and whether it was copied, or cut and encoded anew; ``none`` without
    sound; empty for a clip that was made before this was noted."""
    files: dict[str, str]
    """Files written to the output folder, by what they are."""
    stages: list[StageSummary]
    seconds: float
    """Wall seconds of this run, start of the flow to the last file."""
    peak_memory_bytes: int
    """Largest resident memory of a process that took part."""
    stored_bytes: int
    """Bytes of the reenactment in the store, less what was dropped; portrait and video are apart."""
    losses: dict[str, Any]
    """Per-frame losses of the inversion, and the losses over the steps of the tuning."""
    person_found: bool | None = None
    """False where no network saw the person in the photograph, whose outline is then guessed from the fitted
    head; null where it is not asked for (``render.detail=off``)."""
    people: dict[str, Any] = {}
    """``driver``: number of persons in the driving video, which of them drives, the frames that show several,
    and the degrees by which the video was turned; ``portrait``: number of faces in the photograph, which one
    is animated, and the part of the photograph that is shown."""
    motion: dict[str, Any]
    """Re-measured on the result by the tracker, against the driver.

    ``pose_transfer`` is what the clip took from the driver: ``absolute`` head poses, or ``relative`` ones,
    which start from the portrait's own; head poses are compared with what was asked for.
    ``frame_of_portrait`` is the driver's frame that shows the portrait's own face in its own pose, from
    which the clip's poses and expressions then count, or null. ``result`` and
    ``still_portrait`` hold lips, lids, head pose and background of the result, and of the portrait that does
    nothing. ``follow`` holds by stage (``fit``: the head fitted to the driver;
    ``retargeted``: the portrait's head; ``template``, ``result``: read from the pictures) and by region that
    moves in the driver: ``moves`` (the driver's standard deviation), ``correlation``, ``slope`` (1: all of
    the driver's change arrives), ``error`` (mean absolute difference of the departures from the mean), and,
    where it is known what the landmark networks report of a known change, that part as ``reader_slope`` and
    the slope over it as ``corrected_slope`` (else null): what arrives lies between ``slope`` and that;
    their noise as ``reader_noise``, and the correlation with which a result that follows exactly would be
    read as ``highest_correlation`` (1 where no noise is known).
    ``follow_plain_reader`` holds the same of the ``result`` where both it and the driver are read by the face
    mesh without its second look at lips and eyes, as a cross-check, in at most 120 frames. ``lips_closed``
    counts the frames in which the driver's lips are closed (``driver_frames``), by colour and landmarks, and
    those of them in which the result's are, by colour (``result_frames``). ``regions`` holds the curves of
    ``driver`` and ``result`` by region, a value per frame (null where no face is seen). Regions and their
    units are those of :func:`portrait_core.metrics.follow.measure_regions` and, where there is a picture, of
    :func:`portrait_core.metrics.lip_colors.measure_lips`. Slopes and correlations of gaze leave out the
    frames in which an eye is shut. At most 120 templates are read, evenly spread over the clip."""
    held_frames: dict[str, list[int]]
    """Frames that show a neighbour, by reason: one of :data:`portrait_core.tracking.trust.UNTRUSTED` about
    the driver, or ``not_rendered``."""
    failures: list[dict[str, Any]]
    versions: dict[str, str]
    device: str
    keys: dict[str, str]
    settings: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _hide_secrets(cls, values: Any) -> Any:
        return redact_values(values)

    def write(self, path: str | Path) -> None:
        """Write JSON, atomically."""
        write_whole(path, (json.dumps(self.model_dump(mode="json"), indent=2) + "\n").encode())


def package_versions(names: Iterable[str] = REPORTED_PACKAGES) -> dict[str, str]:
    """Return the versions of Python, the platform and the packages that decide results.

    Packages that are missing are left out.
    """
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
