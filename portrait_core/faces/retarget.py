"""From a driver's expressions to a portrait's: which part of a coefficient is the person, which the moment.

Pure numpy. Coefficients are the head's named units, 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Transfer = Literal["absolute", "relative"]
_OPENING_UNITS = ("jaw", "mouth", "tongue")


@dataclass(frozen=True)
class RetargetGains:
    """Strength of each region; 1 copies the driver."""

    mouth: float = 1.0
    """Jaw, lips and tongue."""
    eyes: float = 1.0
    """Lids: blink, squint, wide."""
    brows: float = 1.0
    """Brows, cheeks and nose."""
    gaze: float = 1.0
    """Direction of the eyes."""


def region_of(name: str) -> str:
    """``mouth``, ``eyes``, ``brows`` or ``gaze``: the region of a unit such as ``"eyeBlinkLeft"``."""
    if name.startswith("eyeLook"):
        return "gaze"
    if name.startswith(_OPENING_UNITS):
        return "mouth"
    return "eyes" if name.startswith("eye") else "brows"


def retarget(
    driver: NDArray[np.floating],
    portrait: NDArray[np.floating],
    names: Sequence[str],
    transfer: Transfer = "relative",
    gains: RetargetGains | None = None,
    neutral: NDArray[np.floating] | None = None,
    ok: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Expressions for the portrait that follow the driver's.

    ``absolute`` is the paper's: the driver's coefficients as they are. ``relative`` keeps the portrait's own
    rest in brows, cheeks and gaze and adds the driver's departure from the driver's rest; jaw and lips stay
    absolute, so that a closed mouth closes; lids follow the driver between the driver's open eye and shut,
    starting from the portrait's own openness.

    Args:
        driver: ``[T,E]``, 0..1.
        portrait: ``[E]``, the portrait's own fit.
        names: the ``E`` unit names.
        transfer: see above.
        gains: strength by region.
        neutral: ``[E]``, the driver's rest; by default the median over frames.
        ok: ``[T]``, frames that count for the median.

    Returns:
        ``[T,E]`` in 0..1.

    Raises:
        ValueError: on sizes that do not match, an unknown transfer, or a negative gain.
    """
    driver = np.asarray(driver, np.float64)
    portrait = np.asarray(portrait, np.float64)
    if driver.ndim != 2 or driver.shape[1] != len(names) or portrait.shape != (len(names),):
        raise ValueError(
            f"driver must be [T,{len(names)}] and portrait [{len(names)}], got {driver.shape} and "
            f"{portrait.shape}; use the fits of one head"
        )
    if transfer not in ("absolute", "relative"):
        raise ValueError(f"transfer is {transfer!r}; set template.transfer to 'absolute' or 'relative'")
    gains = gains or RetargetGains()
    gain = np.array([getattr(gains, region_of(name)) for name in names])
    if (gain < 0).any():
        raise ValueError(f"gains must not be negative, got {gains}; set template.*_gain")
    if transfer == "absolute":
        return np.clip(driver * gain, 0.0, 1.0).astype(np.float32)
    rest = np.asarray(neutral, float) if neutral is not None else driver_rest(driver, names, ok)
    moved = portrait + gain * (driver - rest)
    out = np.where([region_of(name) == "mouth" for name in names], gain * driver, moved)
    for side in ("Left", "Right"):
        if f"eyeBlink{side}" in names:
            blink = list(names).index(f"eyeBlink{side}")
            # from the driver's open eye to shut becomes from the portrait's open eye to shut
            share = np.clip((driver[:, blink] - rest[blink]) / max(1.0 - rest[blink], 0.1), 0.0, 1.0)
            share = np.clip(gains.eyes * share, 0.0, 1.0)
            out[:, blink] = portrait[blink] + share * (1.0 - portrait[blink])
    return np.clip(out, 0.0, 1.0).astype(np.float32)


def driver_rest(
    driver: NDArray[np.floating], names: Sequence[str], ok: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """The driver's rest ``[E]``: the median over good frames; of blinks the lower quarter, since a driver
    may keep the eyes shut for long."""
    used = np.asarray(driver, np.float64)
    if ok is not None and np.any(ok):
        used = used[np.asarray(ok, bool)]
    rest = np.median(used, axis=0)
    for index, name in enumerate(names):
        if name.startswith("eyeBlink"):
            rest[index] = np.percentile(used[:, index], 25)
    return np.asarray(rest)
