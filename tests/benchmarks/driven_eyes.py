"""The paper's template with the portrait's own eyes, and with driven ones:
``uv run python -m tests.benchmarks.driven_eyes --help``.

Writes a picture: the driver at rest, half way and at the deepest blink, and the sample portrait's template
for each, both ways; prints the lid opening that the detector reads off each. FLAME's files are not needed:
the embedded head stands in for FLAME (``tests/portrait_core/stand_in.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from portrait_core.media import read_frames
from portrait_core.runtime.package_files import sample_video
from portrait_core.settings import TrackingSettings
from portrait_core.template.driven_eyes import EyePicture, with_eyes_of
from portrait_core.template.retarget import Driver, retarget
from portrait_core.tracking.crop import crop_image
from portrait_core.tracking.fit import fit_clip
from portrait_core.tracking.measure import measure, seen
from tests.portrait_core import stand_in


def chosen(opening: NDArray[np.floating]) -> list[int]:
    """Frames at rest, half way to the deepest blink, and at it."""
    deepest = int(np.nanargmin(opening))
    rest = float(np.nanmedian(opening))
    half = int(np.nanargmin(np.abs(opening - (rest + opening[deepest]) / 2)))
    return [int(np.nanargmin(np.abs(opening - rest))), half, deepest]


def read_opening(image: NDArray[np.uint8]) -> float:
    """Lid opening over eye width that the detector reads off a picture."""
    return float(measure(stand_in.landmarker().detect(image[None]).points)["eye_opening"][0])


def main(
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("driven_eyes.png"),
    video: Annotated[Path | None, typer.Option(help="Driving video; default: the sample.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of it to look at.")] = 120,
) -> None:
    """Compare both settings of template.eyes on a blink of a driving video."""
    shots = list(read_frames(str(video or sample_video()), 0, frames))
    points = np.concatenate([stand_in.landmarker().detect(shot[None]).points for shot in shots])
    ok = seen(points)
    driver = fit_clip(stand_in.whole_head(), points, ok, TrackingSettings())
    opening = np.where(ok, measure(points)["eye_opening"], np.nan)
    picked, (_, marks, own) = chosen(opening), stand_in.tracked()
    head, source = stand_in.whole_head(), stand_in.source()
    clip = Driver(driver.shape, driver.expression, ok)
    driven, jaw = retarget(head, clip, own.shape, own.expression[0])
    eyes = with_eyes_of(own.expression[0], driven, head.expression_names)[picked]
    picture = EyePicture.build(head, source.portrait, source.placement, marks, TrackingSettings())
    # as FLAME would have it: everything of the driver but lids and gaze
    face = with_eyes_of(driven, np.repeat(own.expression[:1], len(driven), 0), head.expression_names)
    codes = face[picked], jaw[picked]
    made = {
        "paper": stand_in.renderer().render(*codes).image,
        "driven": stand_in.renderer().render(*codes, picture.paint(eyes)).image,
    }
    table = Table("frame", "driver", *made, title="lid opening over eye width")
    for i, frame in enumerate(picked):
        table.add_row(
            str(frame),
            f"{opening[frame]:.3f}",
            *(f"{read_opening(images[i]):.3f}" for images in made.values()),
        )
    Console(highlight=False).print(table)
    size = len(source.portrait)
    faces = [
        crop_image(shots[i], driver.crop_center_px[i], float(driver.crop_side_px[i]), size) for i in picked
    ]
    columns = [np.concatenate(faces), *(np.concatenate(list(images)) for images in made.values())]
    sheet = np.concatenate(columns, axis=1)
    Image.fromarray(cv2.resize(sheet, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)).save(out)


if __name__ == "__main__":
    typer.run(main)
