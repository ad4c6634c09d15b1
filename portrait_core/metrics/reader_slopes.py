"""Slopes of this project's readers on pictures whose truth is known, as measured; 1 reports all of a change.

Each is the slope of the reading on the truth within a person and size, over all people of the table
(:func:`portrait_core.training.reader_calibration.slope_of`). Printed again, with each slope's spread over
people, its correlation and noise, and the same for held-out people, by::

    uv run python -m tests.benchmarks.readers --person FILE ... --held-out FILE ...

Landmarks are read as the tracker reads them: by the attention mesh, the mean of four looks at the face
(``tracking.looks``). ``--looks 1`` prints the slopes of one look, which are within .05 of these but for
inner brows of rendered people (.38), and ``--plain`` those of the plain face mesh, which loses half to three
quarters of the same changes. The people
of the table: scikit-image's astronaut, frame 0 of ``driver_expressions``, frame 12 of ``driver_brows``, the
photograph with a moustache, and two paintings (Mona Lisa, the seated lady); held out: frame 12 of
``driver_smile_gaze`` and ``driver_talking``, and three other paintings (the girl with a pearl earring, the
veil, the child). The rendered people are 12 synthetic ones in 8 expressions each (seed 0; held out, seed 1:
within .1 of these but for inner and outer brows, .11 and .12 lower).

Neither is the slope of a real face. On warped photographs one part moves alone, which a landmark network does
not quite believe (mouth width .70 there, .99 on rendered people, whose whole faces move). Of real smiles and
open mouths the reader loses next to nothing; of gaze it loses a tenth to a quarter, of a look up two fifths
and more, of brows between a quarter and three quarters. Drivers are read by the same networks, so that what
the reader loses of a driver is not in a result either, and no slope on the driver shows it. Looks are given
back what the network alone takes of them (``EYE_DRAG`` and ``UP_LOST`` of ``tracking.attention``), by the
people of the table.
"""

from __future__ import annotations

from types import MappingProxyType

from portrait_core.metrics.follow import Reader

WARPED = MappingProxyType(
    {
        "lip gap": 1.08,
        "mouth width": 0.70,
        "corners' lift": 0.86,
        "corners' difference": 0.71,
        "inner brows": 0.70,
        "outer brows": 0.26,
        "brows' difference": 0.58,
        "lid right": 0.59,
        "lid left": 0.59,
        "gaze across": 0.92,
        "gaze up": 0.59,
        "mouth open": 1.10,
        "teeth shown": 0.92,
    }
)
"""By region, on photographs: landmarks, and the last two by :mod:`portrait_core.metrics.lip_colors` on
coloured ones (without colours 1.15 and 0.73)."""

HELD_OUT = MappingProxyType(
    {
        "lip gap": 1.09,
        "mouth width": 0.74,
        "corners' lift": 0.93,
        "corners' difference": 0.81,
        "inner brows": 0.64,
        "outer brows": 0.25,
        "brows' difference": 0.60,
        "lid right": 0.44,
        "lid left": 0.50,
        "gaze across": 0.75,
        "gaze up": 0.43,
        "mouth open": 1.10,
        "teeth shown": 0.91,
    }
)
"""The same of the held-out people (without colours 1.11 and 0.82)."""

RENDERED = MappingProxyType(
    {
        "lip gap": 0.99,
        "mouth width": 0.99,
        "corners' lift": 0.90,
        "corners' difference": 0.77,
        "inner brows": 0.45,
        "outer brows": 0.67,
        "brows' difference": 0.75,
        "lid right": 0.88,
        "lid left": 0.95,
        "gaze across": 0.95,
        "gaze up": 0.49,
    }
)
"""By region, on rendered people; gaze where both eyes are open."""

NOISE = MappingProxyType(
    {
        "lip gap": 0.0204,
        "mouth width": 0.0189,
        "corners' lift": 0.0110,
        "corners' difference": 0.0060,
        "inner brows": 0.0075,
        "outer brows": 0.0057,
        "brows' difference": 0.0073,
        "lid right": 0.0299,
        "lid left": 0.0327,
        "gaze across": 0.0090,
        "gaze up": 0.0160,
    }
)
"""Root mean square distance of the readings from the line through the truth, on the same rendered people. It
grows with what the rest of the face does, which on these is much."""

READER = Reader(WARPED, NOISE)
"""The landmark networks and the colours between the lips, on pictures that the program painted."""

FLOW = MappingProxyType(
    {
        "mouth width": 0.98,
        "corners' difference": 0.97,
        "inner brows": 0.98,
        "outer brows": 0.97,
        "brows' difference": 1.00,
        "gaze across": 0.92,
        "gaze up": 0.60,
    }
)
"""By region, of optical flow (:mod:`portrait_core.metrics.picture_flow`) on the same photographs at 256
pixels, from the unchanged one, with correlations of 1.00 (gaze up .97); held out .96 to .99, but gaze across
.72 and up .61. On rendered people, the corners of the eyes held: brows and corners of the mouth .90 to 1.05,
gaze .75 across and .59 up. There the corners of wide mouths are often not seen: six pictures of ten are left.
"""

FLOW_NOISE = MappingProxyType(
    {
        "mouth width": 0.0063,
        "corners' difference": 0.0036,
        "inner brows": 0.0010,
        "outer brows": 0.0011,
        "brows' difference": 0.0010,
        "gaze across": 0.0118,
        "gaze up": 0.0120,
    }
)
"""The same as :data:`NOISE`, of optical flow on the same rendered people where it sees them."""

FLOW_READER = Reader(FLOW, FLOW_NOISE)
"""Optical flow between pictures that the program painted before a still camera."""
