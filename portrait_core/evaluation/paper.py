"""The numbers that the paper prints, to stand beside one's own."""

from __future__ import annotations

from collections.abc import Mapping

TABLE_1: Mapping[str, tuple[float | None, float | None, float, float]] = {
    "PIRenderer (w/o eyes, w/o pose)": (53.916, None, 0.250, 0.437),
    "PIRenderer (w/o pose)": (53.959, None, 0.247, 0.386),
    "PIRenderer (w/o eyes)": (63.844, 0.694, 0.039, 0.424),
    "PIRenderer": (64.379, 0.700, 0.040, 0.373),
    "2D GAN (w/o pose)": (17.812, None, 0.246, 0.434),
    "3D GAN (w/o pose)": (16.504, None, 0.246, 0.433),
    "3D GAN": (31.176, 0.733, 0.030, 0.433),
}
"""FID, ID, APD and AED by method (table 1)."""
TABLE_2: Mapping[str, float] = {
    "PIRenderer (w/o eyes, w/o pose)": 0.652,
    "PIRenderer (w/o pose)": 0.622,
    "PIRenderer (w/o eyes)": 0.476,
    "PIRenderer": 0.451,
    "2D GAN (w/o pose)": 0.891,
    "3D GAN (w/o pose)": 0.896,
    "3D GAN": 0.590,
}
"""Identity preserved, by method (table 2)."""
SUPPLEMENT_1: Mapping[str, tuple[float, float, float, float]] = {
    "PIRenderer (w/o eyes, w/o pose)": (0.183, 0.250, 0.361, 0.437),
    "PIRenderer (w/o pose)": (0.179, 0.247, 0.299, 0.386),
    "PIRenderer (w/o eyes)": (0.043, 0.039, 0.354, 0.424),
    "PIRenderer": (0.040, 0.040, 0.282, 0.373),
    "2D GAN (w/o pose)": (0.179, 0.246, 0.369, 0.434),
    "3D GAN (w/o pose)": (0.180, 0.246, 0.369, 0.433),
    "3D GAN": (0.039, 0.030, 0.362, 0.433),
}
"""APD by DECA and by Deep3DFaceRecon, then AED by both, by method (supplement, table 1)."""
