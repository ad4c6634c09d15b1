"""Regions among the 478 face-mesh landmarks (468 of the face, then 5 of each iris).

``right`` and ``left`` are the subject's; curves run from the image's left to its right on an upright face.
"""

from __future__ import annotations

from typing import NamedTuple

N_LANDMARKS = 478


class Curves(NamedTuple):
    """The edges of an opening (eye or mouth): both curves start and end in the same two corners."""

    upper: tuple[int, ...]
    lower: tuple[int, ...]


RIGHT_EYE = Curves((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133))
LEFT_EYE = Curves(
    (362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)
)
INNER_LIPS = Curves(
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308), (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
)
OUTER_LIPS = Curves(
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291), (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
)
BELOW_LIPS = (18, 83, 313, 182, 406, 200, 201, 421, 194, 418, 199, 208, 428)
"""Between lower lip and chin."""
RIGHT_IRIS = (468, 469, 470, 471, 472)
"""Centre, then four points of the rim."""
LEFT_IRIS = (473, 474, 475, 476, 477)
RIGHT_BROW_LOWER = (46, 53, 52, 65, 55)
LEFT_BROW_LOWER = (276, 283, 282, 295, 285)
_OVAL_LEFT = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
_OVAL_RIGHT = (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
FACE_OVAL = _OVAL_LEFT + _OVAL_RIGHT
JAW_LINE = (288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58)
"""The lower part of the oval: on the jaw's silhouette, unlike its top, which lies under the hair."""
