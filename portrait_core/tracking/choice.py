"""Which tracker the settings choose, and the arrays that only one of them keeps. Imports no PyTorch: the
declarations of stages read it.
"""

from __future__ import annotations

from portrait_core.settings import Settings

DECA_CODE = ("deca_code", "deca_tform", "deca_placement")
"""Arrays that ``tracking.tracker=deca`` keeps of a portrait further: its code, its crop's transform, and
where the generator's crop lies."""
EYES = "eyes"
"""Array of moves for eyes that FLAME cannot move: coefficients of the embedded head."""


def by_deca(settings: Settings) -> bool:
    """Tell whether DECA tracks."""
    return settings.tracking.tracker == "deca"


def driven_eyes(settings: Settings) -> bool:
    """Tell whether FLAME's portrait takes the driver's eyes."""
    return by_deca(settings) and settings.template.eyes == "driven"
