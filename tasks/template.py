"""Stages ``retarget`` and ``template``: the driver's expressions on the portrait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.models.cache import cached
from tasks.context import batches, head, read_track, todo, unit_of, use_threads
from tasks.job import Job
from tasks.policy import StageResult, Stopwatch, stage_task

if TYPE_CHECKING:
    from portrait_core.faces.template import TemplateRenderer
    from portrait_core.store import Unit

TEMPLATE_BATCH = 8
"""Frames rendered, written and committed together."""
MASKS = ("face_mask", "mouth_mask", "uncovered")


@stage_task
def retarget(job: Job) -> StageResult:
    """Turn the driver's expressions into the portrait's, for the whole clip: ``expression`` and ``jaw``."""
    watch = Stopwatch("retarget", 0, job.frames)
    if not todo(job, "retarget", 0, job.frames):
        return watch.result(0)
    from portrait_core.faces.retarget import RetargetGains, retarget_clip

    use_threads(job, alone=True)
    settings = job.settings.template
    source = read_track(unit_of(job, "portrait"), 1)
    driver = read_track(unit_of(job, "fit"), job.frames)
    gains = RetargetGains(
        mouth=settings.mouth_gain,
        eyes=settings.eyes_gain,
        brows=settings.brows_gain,
        gaze=settings.gaze_gain,
        jaw=settings.jaw_gain,
    )
    expression, jaw = retarget_clip(
        head(job),
        driver.shape,
        driver.expression,
        source.shape,
        source.expression[0],
        settings.transfer,
        gains,
        driver.ok,
    )
    unit, key = unit_of(job, "retarget"), job.stage_keys["retarget"]
    with unit.overwriting("retarget", range(job.frames), key):
        for name, values in {"expression": expression, "jaw": jaw}.items():
            unit.ensure_array(name, values.shape, np.float32, key)
            unit.write(name, 0, np.asarray(values, np.float32))
    return watch.result(job.frames)


@stage_task
def template(job: Job, start: int, stop: int) -> StageResult:
    """Render the expression template and its masks for frames ``[start, stop)``."""
    watch = Stopwatch("template", start, stop)
    runs = todo(job, "template", start, stop)
    if not runs:
        return watch.result(0)
    use_threads(job, alone=False)
    renderer = _renderer(job)
    unit, key = unit_of(job, "template"), job.stage_keys["template"]
    _ensure_arrays(job, unit, key)
    for batch in batches(runs, TEMPLATE_BATCH):
        drawn = renderer.render(unit.read("expression", *batch), unit.read("jaw", *batch))
        with unit.overwriting("template", range(*batch), key):
            unit.write("template", batch.start, drawn.image)
            for name in MASKS:
                unit.write(name, batch.start, _as_bytes(getattr(drawn, name)))
    return watch.result(sum(map(len, runs)))


def _ensure_arrays(job: Job, unit: Unit, key: str) -> None:
    size = job.settings.template.size
    unit.ensure_array("template", (job.frames, size, size, 3), np.uint8, key)
    for name in MASKS:
        unit.ensure_array(name, (job.frames, size, size), np.uint8, key)


def _as_bytes(mask: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(np.clip(mask, 0, 1) * 255).astype(np.uint8)


def _renderer(job: Job) -> TemplateRenderer:
    """The process's renderer of this portrait: it takes a second to make."""
    from portrait_core.faces.template import PortraitFit, TemplateRenderer

    settings = job.settings.template

    def build() -> TemplateRenderer:
        unit = unit_of(job, "portrait")
        track = read_track(unit, 1)
        fit = PortraitFit(track.shape, track.expression[0], track.jaw[0], track.cameras[0])
        return TemplateRenderer(
            head(job),
            unit.read("crop", 0, 1)[0],
            fit,
            portrait_landmarks(job),
            settings.supersample,
            settings.feather_px,
        )

    return cached("template", job.stage_keys["template"], build)


def portrait_landmarks(job: Job) -> NDArray[np.float32]:
    """The portrait's landmarks in pixels of its crop ``[478,2]``."""
    unit, size = unit_of(job, "portrait"), job.settings.template.size
    points = unit.read("landmarks", 0, 1)[0]
    side = unit.read("crop_side_px", 0, 1)[0]
    corner = unit.read("crop_center_px", 0, 1)[0] - side / 2
    return np.asarray((points - corner) * (size / side), np.float32)
