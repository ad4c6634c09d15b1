"""Stage ``encode``: the clip with the driving audio, the side-by-side clip, the contact sheet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from portrait_core.media import VideoWriter
from portrait_core.pipeline import File, Job, Stage
from portrait_core.pipeline.ledger import Ledger
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.rendering.page import Page
from portrait_core.report import frame_sheet, png_bytes, side_by_side, telling_frames
from tasks.context import driving_frames, read_track, use_threads, video_file
from tasks.pages import alone, face_of, finished, for_generator, page_of
from tasks.running import does
from tasks.stages.measure import shown_frames

Picture = NDArray[np.uint8]


CLIP, SIDE_BY_SIDE, SHEET = "reenactment.mp4", "side_by_side.mp4", "contact_sheet.png"
CUTOUT = "reenactment.mov"
SOUND = "sound"
"""Note of what became of the driver's sound in the clip."""

ENCODE = Stage(
    name="encode",
    title="encode clip",
    version=4,
    unit="reenactment",
    reads=("portrait", "person", "fit", "retarget", "template", "inversion", "tuning", "render"),
    inputs=("video", "first_frame", "rate"),
    settings=("output",),
    writes=(
        File(CLIP),
        File(CUTOUT, when=lambda settings: settings.output.alpha),
        File(SIDE_BY_SIDE, when=lambda settings: settings.output.side_by_side),
        File(SHEET, when=lambda settings: bool(settings.output.contact_sheet_frames)),
    ),
    counts_frames=True,
    shows_gaps_of="render",
)


@does(ENCODE, precision="job")
def encode(job: Job) -> StageResult:
    """Encode the clip, exactly as many frames as the driver has, at its exact rate and with its audio."""
    watch = Stopwatch("encode", 0, 1)
    ledger = Ledger(job)
    if ledger.done_frames("encode").all():
        return watch.result(0)
    use_threads(job, alone=True)
    output = ledger.output("encode")
    with TemporaryDirectory() as name:
        folder = Path(name)
        sound = _write_clips(job, folder)
        if job.settings.output.contact_sheet_frames:
            (folder / SHEET).write_bytes(png_bytes(_sheet(job)))
        for path in sorted(folder.iterdir()):
            output.put_bytes(path.name, path.read_bytes())
    output.write_note(SOUND, sound)
    output.commit()
    return watch.result(1)


def _write_clips(job: Job, folder: Path) -> str:
    """Write the clips, and return what became of the driver's sound in the first."""
    output, page, sound = job.settings.output, page_of(job), "none"
    with ExitStack() as stack:
        drivers = driving_crops(job) if output.side_by_side else None
        clip = beside = None
        for shown, drawn in shown_frames(job):
            result = finished(job, page, drawn)
            clip = clip or stack.enter_context(_writer(job, folder / CLIP, result))
            clip.write(result)
            sound = clip.sound
            if drivers is None:
                continue
            columns = _columns(job, page, shown, next(drivers)) | {"result": face_of(page, drawn)}
            row = side_by_side(columns, job.settings.template.size)
            beside = beside or stack.enter_context(_writer(job, folder / SIDE_BY_SIDE, row))
            beside.write(row)
    if output.alpha:
        _write_cutouts(job, page, folder / CUTOUT)
    return sound


def _write_cutouts(job: Job, page: Page | None, path: Path) -> None:
    with ExitStack() as stack:
        clip = None
        for _, drawn in shown_frames(job, "cutout"):
            result = alone(page, drawn)
            clip = clip or stack.enter_context(_writer(job, path, result))
            clip.write(result)


def _writer(job: Job, path: Path, like: Picture) -> VideoWriter:
    about = {"comment": "Synthetic media: a portrait animated by portrait-reenactment"}
    audio = video_file(job) if job.has_audio else None
    size = like.shape[1], like.shape[0]
    crf = job.settings.output.crf
    return VideoWriter(path, size, job.rate, audio, crf, about, job.start_s, job.frames)


def _columns(job: Job, page: Page | None, frame: int, driver: Picture) -> dict[str, Picture]:
    """Return the pictures that led to the result of ``frame``, with the driver of the frame that shows it."""
    template = job.output("template").read("template", frame, frame + 1)[0]
    return {
        "driving": driver,
        "template": for_generator(page, job.settings.template.size, template),
        "inversion": job.output("inversion").read("inversion", frame, frame + 1)[0],
    }


def driving_crops(job: Job) -> Iterator[Picture]:
    """Return the driver's face crops ``[S,S,3]``, every frame of the clip."""
    from portrait_core.tracking.crop import crop_image

    track, size = read_track(job.output("fit")), job.settings.template.size
    frames = driving_frames(job)
    for center, side in zip(track.crop_center_px, track.crop_side_px, strict=True):
        yield crop_image(next(frames), center, float(side), size)


def _sheet(job: Job) -> Picture:
    """Draw telling frames: what drove, what was fitted, what came out."""
    import torch

    from portrait_core.inversion.pictures import picture_of
    from portrait_core.inversion.targets import image_array
    from tasks.fitting import clip_data, resolution, sampling
    from tasks.stages.measure import driver_motion
    from tasks.stages.render import tuned_generator

    motion, count = driver_motion(job), job.settings.output.contact_sheet_frames
    frames = telling_frames(motion.lip_gap, motion.eye_opening, motion.angles_deg, count)
    clip, model, latent = clip_data(job), tuned_generator(job), job.output("inversion")
    wanted = set(frames)
    drivers = {i: image for i, image in enumerate(driving_crops(job)) if i in wanted}
    page = page_of(job)
    results = {i: pair for i, pair in enumerate(shown_frames(job)) if i in wanted}

    def columns(i: int) -> dict[str, Picture]:
        shown, result = results[i]
        found = _columns(job, page, shown, drivers[i])
        inversion_render = found["inversion"] if job.settings.inversion.mouth == "render" else None
        ws = torch.from_numpy(latent.read("latents", shown, shown + 1)).to(clip.device)
        tuned = picture_of(model, ws, clip.camera, resolution(job, model), sampling(job, model))
        target = image_array(clip.target(shown, inversion_render, tuning=True).image)
        return found | {"tuning target": target, "tuned": tuned, "result": face_of(page, result)}

    return frame_sheet(frames, columns)
