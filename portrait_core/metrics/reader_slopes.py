"""Slopes of this project's readers on pictures whose truth is known, as measured; 1 reports all of a change.

Each is the slope of the reading on the truth within a person and size, over all people of the table
(:func:`portrait_core.training.reader_calibration.slope_of`). Printed again, with each slope's spread over
people, its correlation and noise, and the same for held-out people, by::

    uv run python -m tests.benchmarks.readers --person FILE ... --held-out FILE ...

Landmarks are read as the tracker reads them, by the attention mesh; ``--plain`` prints those of the plain
face mesh, which loses half to three quarters of the same changes. The people of the table: scikit-image's
astronaut, frame 0 and frame 12 of two driver clips, a photograph with a moustache and two paintings; held
out: frame 12 of two other clips and three other paintings. The rendered people are 12 synthetic ones in 8
expressions each (seed 0; held out, seed 1: within .1 of these but for single brows and corners).

The slopes are those of one look (``tracking.looks``). With four, slopes on 6 rendered people in 14
expressions change by .03 at most, but for corners' difference (.66 to .75), outer brows (.76 to .72) and gaze
up (.31 to .36).

Neither is the slope of a real face. On warped photographs one part moves alone, which a landmark network does
not quite believe (mouth width .69 there, .99 on rendered people, whose whole faces move). Of real smiles and
open mouths the reader loses next to nothing; of gaze it loses a third, of a look up two thirds, of brows
between a third and three quarters, on every kind of picture.
"""

from __future__ import annotations

from types import MappingProxyType

from portrait_core.metrics.follow import Reader

WARPED = MappingProxyType(
    {
        "lip gap": 1.12,
        "mouth width": 0.69,
        "corners' lift": 0.88,
        "corners' difference": 0.74,
        "inner brows": 0.69,
        "outer brows": 0.25,
        "brows' difference": 0.60,
        "lid right": 0.58,
        "lid left": 0.57,
        "gaze across": 0.65,
        "gaze up": 0.33,
        "mouth open": 1.03,
        "teeth shown": 0.87,
    }
)
"""By region, on photographs: landmarks, and the last two by :mod:`portrait_core.metrics.lip_colors` on
coloured ones (without colours 1.01 and 0.72)."""

HELD_OUT = MappingProxyType(
    {
        "lip gap": 1.07,
        "mouth width": 0.72,
        "corners' lift": 0.90,
        "corners' difference": 0.80,
        "inner brows": 0.63,
        "outer brows": 0.26,
        "brows' difference": 0.58,
        "lid right": 0.47,
        "lid left": 0.50,
        "gaze across": 0.52,
        "gaze up": 0.24,
        "mouth open": 1.03,
        "teeth shown": 0.89,
    }
)
"""The same of the held-out people."""

RENDERED = MappingProxyType(
    {
        "lip gap": 0.99,
        "mouth width": 0.99,
        "corners' lift": 0.93,
        "corners' difference": 0.79,
        "inner brows": 0.38,
        "outer brows": 0.64,
        "brows' difference": 0.78,
        "lid right": 0.85,
        "lid left": 0.93,
        "gaze across": 0.70,
        "gaze up": 0.29,
    }
)
"""By region, on rendered people; gaze where both eyes are open."""

NOISE = MappingProxyType(
    {
        "lip gap": 0.0214,
        "mouth width": 0.0236,
        "corners' lift": 0.0116,
        "corners' difference": 0.0057,
        "inner brows": 0.0076,
        "outer brows": 0.0062,
        "brows' difference": 0.0062,
        "lid right": 0.0326,
        "lid left": 0.0273,
        "gaze across": 0.0084,
        "gaze up": 0.0066,
    }
)
"""Root mean square distance of four looks' mean from the line through the truth, on rendered people (6 in 14
expressions, seed 7). It grows with what the rest of the face does, which on these is much: the same people's
lips part by .13 and their mouths widen by .06 (standard deviations)."""

READER = Reader(WARPED, NOISE)
"""The landmark networks and the colours between the lips, on pictures that the program painted."""
