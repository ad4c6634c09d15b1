"""Names of arrays that belong to a single tracker; light, so that declarations of stages can read them."""

from __future__ import annotations

DECA_CODE = ("deca_code", "deca_tform", "deca_placement")
"""Arrays that DECA's tracker keeps of a portrait beside its track: DECA's code, the transform to DECA's crop,
and the place of the generator's crop."""

MOUTH = ("mouth_teeth", "mouth_light")
"""Arrays ``[T,3]`` and ``[T,9,12]`` of what shows between a driver's lips, which the embedded head's mouth is
painted by (:class:`~portrait_core.tracking.mouth_inside.MouthInside`)."""
