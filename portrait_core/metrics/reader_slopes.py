"""Slopes of this project's readers on pictures whose truth is known, as measured; 1 reports all of a change.

Each is the slope of the reading on the truth within a person and size, over all people of the table
(:func:`portrait_core.metrics.reader_calibration.slope_of`). Printed again, with each slope's spread over
people, its correlation and noise, and the same for held-out people, by::

    uv run python -m tests.benchmarks.readers --person FILE ... --held-out FILE ...

The people of the table: scikit-image's astronaut, frame 0 and frame 12 of two driver clips, a photograph with
a moustache and two paintings; held out: frame 12 of two other clips and three other paintings. The rendered
people are 12 synthetic ones in 8 expressions each (seed 0; held out: seed 1).

They are no factor to divide a result by. On warped photographs one part moves alone, which the landmark
network does not believe; the two tables disagree by up to a factor of three (mouth width), and where ``r`` is
low (brows' difference, corners' difference) or the people differ by as much as the slope (brows), a single
face's slope is not known. What they say is which regions the network damps: a result's slope off a painted
face is worth a judgement beside the slope that the same reader has on the driver's own film.
"""

from __future__ import annotations

from types import MappingProxyType

WARPED = MappingProxyType(
    {
        "lip gap": 0.55,
        "mouth width": 0.24,
        "corners' lift": 0.22,
        "corners' difference": 0.05,
        "inner brows": 0.40,
        "outer brows": 0.22,
        "brows' difference": 0.19,
        "lid right": 0.58,
        "lid left": 0.43,
        "gaze across": 0.61,
        "gaze up": 0.37,
        "mouth open": 1.06,
        "teeth shown": 0.82,
    }
)
"""By region, on photographs: landmarks, and the last two by :mod:`portrait_core.metrics.lip_colors` on
coloured ones (without colours 1.03 and 0.68)."""

HELD_OUT = MappingProxyType(
    {
        "lip gap": 0.41,
        "mouth width": 0.23,
        "corners' lift": 0.29,
        "corners' difference": 0.10,
        "inner brows": 0.45,
        "outer brows": 0.21,
        "brows' difference": 0.30,
        "lid right": 0.49,
        "lid left": 0.48,
        "gaze across": 0.58,
        "gaze up": 0.29,
        "mouth open": 1.06,
        "teeth shown": 0.86,
    }
)
"""The same of the held-out people."""

RENDERED = MappingProxyType(
    {
        "lip gap": 0.65,
        "mouth width": 0.74,
        "corners' lift": 0.55,
        "corners' difference": 0.28,
        "inner brows": 0.41,
        "outer brows": 0.28,
        "brows' difference": 0.11,
        "lid right": 0.86,
        "lid left": 0.84,
        "gaze across": 0.63,
        "gaze up": 0.22,
    }
)
"""By region, on rendered people; gaze where both eyes are open."""
