"""Layout of the output: the page, the face crop in it, and the squares that are drawn.

All places are pixels of the page: the whole photograph at the output's scale, or a piece of it around the
face crop. Squares that are drawn have whole corners and sides, so that what is laid back is laid pixel on
pixel. Pure arithmetic, and the photograph's resampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from portrait_core.settings import Settings
from portrait_core.tracking.surroundings import distance_outside, mirrored, softened, surrounded

if TYPE_CHECKING:
    from torch import Tensor

Frame = Literal["photograph", "crop"]

ROOM = 1.6
"""Side of the square that is drawn anew over that of the face crop: a head that turns by 40 degrees on its
neck stays inside."""
CROP_ROOM = 1.25
"""The same where the output is the face crop: what comes in from beside it."""
MAX_FACE_PX = 1024
"""Side of the largest face crop in the output, in pixels."""


def transfers_detail(settings: Settings) -> bool:
    """Tell whether the clip shows the photograph's own pixels."""
    return settings.render.detail == "transfer"


@dataclass(frozen=True)
class Square:
    """A square of whole pixels.

    Attributes:
        x, y: its corner.
        side: its side.
    """

    x: int
    y: int
    side: int

    def cut(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the square of an image ``[H,W,...]``.

        Where it reaches beyond, the image is mirrored, and pictures ``[H,W,3]`` are blurred too
        (:mod:`portrait_core.tracking.surroundings`).
        """
        height, width = image.shape[:2]
        rows, columns = (np.arange(start, start + self.side) for start in (self.y, self.x))
        part = image[mirrored(rows, height, self.side)[:, None], mirrored(columns, width, self.side)[None]]
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            return part
        outside = distance_outside(columns + 0.5, rows + 0.5, (width, height))
        return softened(np.asarray(part, np.uint8), outside)

    def within(self, outer: Square) -> Square:
        """Return the same square, counted from the corner of ``outer``."""
        return Square(self.x - outer.x, self.y - outer.y, self.side)


@dataclass(frozen=True)
class Page:
    """The output's layout.

    Attributes:
        width, height: of the page, pixels.
        scale: pixels of the page per pixel of the photograph.
        origin: the page's corner in the photograph ``(x, y)``, in its pixels.
        center: of the face crop ``(x, y)``.
        side: of the face crop; not whole where the page has the photograph's own pixels.
        window: the square of whole pixels around the face crop, where templates are drawn.
        canvas: the square that is drawn anew in every frame.
        delivered: the square of the page that is the output; None for all of it.
    """

    width: int
    height: int
    scale: float
    origin: tuple[float, float]
    center: tuple[float, float]
    side: float
    window: Square
    canvas: Square
    delivered: Square | None

    @classmethod
    def of(
        cls,
        photograph: tuple[int, int],
        center: tuple[float, float],
        side: float,
        frame: Frame,
        largest: int,
        smallest: int,
    ) -> Page:
        """Lay out the output.

        Args:
            photograph: its width and height.
            center: x and y of the face crop's centre, in the photograph's pixels.
            side: side of the face crop, in the photograph's pixels.
            frame: ``photograph``: all of it; ``crop``: the face crop alone.
            largest: side of the largest face crop in the output; a photograph with a smaller one keeps it.
            smallest: side of the smallest face crop that is an output by itself: the generator's picture.
        """
        if frame == "crop":
            size = 2 * round(min(largest, max(side, smallest)) / 2)
            edge = math.ceil((CROP_ROOM - 1) / 2 * size)
            whole, scale = size + 2 * edge, size / side
            origin = (center[0] - whole / 2 / scale, center[1] - whole / 2 / scale)
            window, canvas = Square(edge, edge, size), Square(0, 0, whole)
            return cls(
                whole, whole, scale, origin, (whole / 2, whole / 2), float(size), window, canvas, window
            )
        scale = min(1.0, largest / side)
        width, height = (max(1, math.floor(length * scale + 1e-6)) for length in photograph)
        x, y, own = center[0] * scale, center[1] * scale, side * scale
        window, canvas = _around(x, y, own), _around(x, y, ROOM * own)
        return cls(width, height, scale, (0.0, 0.0), (x, y), own, window, canvas, None)

    def sheet(self, picture: NDArray[np.generic]) -> NDArray[np.generic]:
        """Resample a picture of the photograph's size ``[H,W]`` or ``[H,W,C]`` to the page.

        The photograph's own pixels are kept where the page has them; beyond its border it is mirrored, and
        pictures ``[H,W,3]`` are blurred too.
        """
        if self.scale == 1.0 and self.origin == (0.0, 0.0):
            return picture
        source = np.ascontiguousarray(picture)
        if self.scale < 1:  # warping alone would skip pixels
            sigma = 0.5 * math.sqrt(max(0.0, 1 / self.scale**2 - 1))
            source = cv2.GaussianBlur(source, (0, 0), sigma) if sigma > 0.2 else source
        step = 1 / self.scale
        extent = np.array([self.width, self.height]) * step
        low, high = np.floor(np.array(self.origin) - 3), np.ceil(np.array(self.origin) + extent + 3)
        source, begun = surrounded(source, low, high, float(extent.max()))
        offset = [
            place + start + 0.5 * step - 0.5 for place, start in zip(self.origin, begun.tolist(), strict=True)
        ]
        matrix = np.array([[step, 0, offset[0]], [0, step, offset[1]]])
        page = cv2.warpAffine(
            source,
            matrix,
            (self.width, self.height),
            flags=cv2.WARP_INVERSE_MAP | cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            return page
        x, y = (
            start + (np.arange(length) + 0.5) * step
            for start, length in zip(self.origin, (self.width, self.height), strict=True)
        )
        outside = distance_outside(x, y, (picture.shape[1], picture.shape[0]))
        return softened(np.asarray(page, np.uint8), outside / step)

    def camera(self, crop: Float[Tensor, "b 25"], square: Square) -> Float[Tensor, "b 25"]:
        """Return labels of cameras that see a square of the page, from those of the face crop."""
        share = self.side / square.side
        wide = crop.clone()
        wide[:, 16:22] *= share
        for place, middle, corner in ((18, self.center[0], square.x), (21, self.center[1], square.y)):
            wide[:, place] += (middle - self.side / 2 - corner) / square.side
        return wide

    def points(self, pixels: NDArray[np.floating], square: Square) -> NDArray[np.float32]:
        """Bring points of the photograph ``[n,2]`` to pixels of a square."""
        corner = np.array([square.x, square.y])
        return np.asarray((pixels - np.array(self.origin)) * self.scale - corner, np.float32)

    @property
    def crop(self) -> tuple[tuple[float, float], float]:
        """Centre and side of the face crop in pixels of :attr:`window`."""
        return (self.center[0] - self.window.x, self.center[1] - self.window.y), self.side

    def finished(self, sheet: NDArray[np.uint8], canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Lay a drawn canvas on the page's sheet ``[H,W,C]`` and give what is delivered of it."""
        whole, square = sheet.copy(), self.canvas
        x0, y0 = max(0, square.x), max(0, square.y)
        x1, y1 = min(self.width, square.x + square.side), min(self.height, square.y + square.side)
        whole[y0:y1, x0:x1] = canvas[y0 - square.y : y1 - square.y, x0 - square.x : x1 - square.x]
        return whole if self.delivered is None else self.delivered.cut(whole)  # type: ignore[return-value]


def _around(x: float, y: float, side: float) -> Square:
    """Return the smallest square of whole, even side and whole corner around a square."""
    left, top = math.floor(x - side / 2 + 1e-6), math.floor(y - side / 2 + 1e-6)
    reach = max(x + side / 2 - left, y + side / 2 - top)
    return Square(left, top, 2 * math.ceil(reach / 2 - 1e-6))
