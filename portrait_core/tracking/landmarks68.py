"""The 68-point scheme and five points from the embedded detector's face mesh.

So crops of DECA, Deep3DFaceRecon and EG3D need no landmark network of their own. The scheme (Sagonas et al.
2013): 0..16 jaw from the image's left ear to its right, 17..26 brows, 27..35 nose, 36..47 eyes, 48..59 outer
and 60..67 inner lips.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.topology import N_MESH
from portrait_core.tracking.five_points import five_of_68

_JAW = (127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356)
_BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
_NOSE = (168, 197, 5, 4, 98, 97, 2, 326, 327)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_OUTER_LIPS = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181)
_INNER_LIPS = (78, 82, 13, 312, 308, 317, 14, 87)

MESH_TO_68 = np.array(_JAW + _BROWS + _NOSE + _EYES + _OUTER_LIPS + _INNER_LIPS)
"""The mesh point at each of the 68 places, ``[68]``; left and right are mirror images of each other."""


def mesh_to_68(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 68 points ``[n,68,2]`` in pixels with centres at integers, as published crops take them.

    Args:
        landmarks: ``[n,468 or 478,2]`` continuous pixels (centres at +0.5), from ``FaceLandmarker``.

    Raises:
        ValueError: if they have another form.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1] < N_MESH or points.shape[2] < 2:
        raise ValueError(
            f"expected landmarks [n,468 or 478,2], got {points.shape}; run FaceLandmarker.detect"
        )
    return points[:, MESH_TO_68, :2] - 0.5


def five_points(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the five points ``[n,5,2]`` for EG3D's crops: eyes, nose, mouth's corners.

    Eyes are the means of their corners, as on the standard face, so that gaze moves nothing. Arguments and
    pixels are those of :func:`mesh_to_68`.
    """
    return five_of_68(mesh_to_68(landmarks))
