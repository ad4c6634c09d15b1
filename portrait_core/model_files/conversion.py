"""Conversion of a generator's published network file, once per machine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from portrait_core.runtime.caches import cache_folder
from portrait_core.weights.locate import digest

CONVERSION = 2
"""Version of a conversion's output; conversions of other versions are made again. 2: with ``conv_clamp``."""


@lru_cache(maxsize=8)
def convert_once(path: Path) -> Path:
    """Return a generator's file that loads quickly: the file itself, or a network file's conversion.

    The conversion of a network file (``.pkl``) is kept on this machine.

    Raises:
        ValueError: the file is not such a network, or the conversion cannot be written.
    """
    if path.suffix != ".pkl":
        return path
    from portrait_core.generators.published import convert_published  # here: it imports PyTorch

    sha256 = digest(path)[0]
    folder = cache_folder("models") / "converted" / f"{sha256[:16]}-{CONVERSION}"
    target = folder / f"{path.stem}.safetensors"
    if target.is_file():
        return target
    conversion = convert_published(path, folder)
    if conversion.about["source_sha256"] != sha256:  # another file's conversion must not stay under this name
        conversion.weights.unlink()
        raise ValueError(f"{path} was changed while it was converted; start again")
    return conversion.weights
