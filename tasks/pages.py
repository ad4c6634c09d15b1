"""The output's page of a job: its layout, its sheet, and the layers that frames are drawn with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import MissingChunk
from portrait_core.pipeline import Job
from portrait_core.rendering.page import MAX_FACE_PX, Page, transfers_detail
from portrait_core.runtime.model_cache import cached
from portrait_core.tracking.crop import Place, crop_image
from tasks.context import look_key, read_track

if TYPE_CHECKING:
    from portrait_core.rendering.picture import Canvas
    from portrait_core.tracking.fit import FaceTrack

Picture = NDArray[np.uint8]


def page_of(job: Job, track: FaceTrack | None = None) -> Page | None:
    """Lay out the output; return None where it is the generator's own picture.

    ``track``: the portrait's, where it has been read.
    """
    if not transfers_detail(job.settings):
        return None
    source = job.output("portrait")
    info = source.array_info("photograph")
    if info is None:
        raise MissingChunk(f"{source.path}/photograph", [0])
    track = track or read_track(source)
    output = job.settings.output
    largest = MAX_FACE_PX if output.size == "auto" else output.size
    x, y = (float(value) for value in track.crop_center_px[0])
    height, width = info.shape[1:3]
    side, least = float(track.crop_side_px[0]), job.settings.template.size
    return Page.of((width, height), (x, y), side, output.frame, largest, least)


def sheet(job: Job, page: Page) -> Picture:
    """Return the process's photograph on the page ``[H,W,3]``."""

    def build() -> Picture:
        return np.asarray(page.sheet(job.output("portrait").read("photograph")[0]), np.uint8)

    return cached("sheet", look_key(job), build, alone=True)


def canvas(job: Job, page: Page) -> Canvas:
    """Return the process's layers of the square that is drawn anew."""
    from portrait_core.rendering.picture import Canvas

    def build() -> Canvas:
        output = job.output("layers")
        coverage, front, back = (
            page.canvas.cut(page.sheet(output.read(name)[0])) for name in ("coverage", "foreground", "plate")
        )
        picture = page.canvas.cut(sheet(job, page))
        cover = (np.asarray(coverage) / 255).astype(np.float32)
        window = page.window.within(page.canvas)
        return Canvas(np.asarray(picture), cover, np.asarray(front), np.asarray(back), window)

    return cached("canvas", look_key(job), build, alone=True)


def for_generator(page: Page | None, size: int, picture: Picture) -> Picture:
    """Return what a template's picture ``[D,D,3]`` is to the generator: the face crop of ``size`` pixels."""
    if page is None:
        return picture
    (x, y), side = page.crop
    scale = len(picture) / page.window.side
    return crop_image(picture, (x * scale, y * scale), side * scale, size)


def place_of(page: Page | None, track: FaceTrack) -> Place:
    """Return the square of the photograph that templates cover."""
    if page is None:
        return face_place(track)
    corner = (page.window.x, page.window.y)
    x, y = (start + place / page.scale for start, place in zip(page.origin, corner, strict=True))
    return Place((x, y), page.window.side / page.scale)


def face_place(track: FaceTrack) -> Place:
    """Return the square of the photograph that is the portrait's face crop."""
    side = float(track.crop_side_px[0])
    x, y = (float(middle) - side / 2 for middle in track.crop_center_px[0])
    return Place((x, y), side)


def finished(job: Job, page: Page | None, frame: Picture) -> Picture:
    """Return what the clip shows: the page with a drawn frame ``[M,M,3]`` laid on it."""
    return frame if page is None else page.finished(sheet(job, page), frame)


def alone(page: Page | None, cutout: Picture) -> Picture:
    """Return a drawn person ``[M,M,4]`` on an empty page."""
    if page is None:
        return cutout
    return page.finished(np.zeros((page.height, page.width, 4), np.uint8), cutout)


def face_of(page: Page | None, frame: Picture) -> Picture:
    """Give the square around the face of a drawn frame ``[M,M,3]``, as large as the portrait's face crop."""
    if page is None:
        return frame
    return np.asarray(page.window.within(page.canvas).cut(frame), np.uint8)
