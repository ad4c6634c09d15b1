"""Names of arrays that a single tracker keeps; light, so that the declarations of stages can read them."""

from __future__ import annotations

DECA_CODE = ("deca_code", "deca_tform", "deca_placement")
"""Arrays that DECA's tracker keeps of a portrait beside its track: DECA's code, the transform to DECA's crop,
and the place of the generator's crop."""
