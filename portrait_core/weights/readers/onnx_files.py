"""Networks in insightface's packs: ONNX files in a folder, or in the published zip archive.

An ONNX file is data for its runtime, which refuses operations that it does not know. What else it might ask
for is looked at first, in :mod:`portrait_core.weights.readers.onnx_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from portrait_core.weights.file_checks import checking, open_weights
from portrait_core.weights.readers.archives import Archive
from portrait_core.weights.readers.brief import listed
from portrait_core.weights.readers.onnx_checks import check_onnx
from portrait_core.weights.registry import MODELS

_LARGEST = 2**30
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxNetwork:
    """A network for the ONNX runtime."""

    data: bytes
    """Bytes of the ONNX file."""
    inputs: Mapping[str, Shape]
    """Shapes of inputs by name; None: any size."""
    outputs: Mapping[str, Shape]
    """Shapes of outputs by name; None: any size."""


def read_arcface(path: str | Path) -> OnnxNetwork:
    """Read ``w600k_r50.onnx``: ``[N,3,112,112]`` to ``[N,512]``.

    Args:
        path: the file, a folder with it, or the archive ``buffalo_l.zip``.

    Raises:
        ModelFileError: the file is missing, damaged or another network.
    """
    return _read(path, "arcface", (3, 112, 112), 1, 512)


def read_face_detector(path: str | Path) -> OnnxNetwork:
    """Read ``det_10g.onnx``: ``[1,3,H,W]`` to nine arrays, scores, boxes and five points at three scales.

    Args:
        path: the file, a folder with it, or the archive ``buffalo_l.zip``.

    Raises:
        ModelFileError: the file is missing, damaged or another network.
    """
    return _read(path, "arcface_detector", (3, None, None), 9, None)


def read_onnx(path: str | Path) -> OnnxNetwork:
    """Read any ONNX file.

    Raises:
        ValueError: the file is missing, damaged, or asks for weights in other files.
    """
    try:
        with open_weights(path) as file:
            return _network(file.read())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


def _read(path: str | Path, name: str, image: Shape, outputs: int, width: int | None) -> OnnxNetwork:
    with checking(path, name):
        network = _network(read_member(Path(path), MODELS[name].file))
        shapes = list(network.inputs.values())
        if len(shapes) != 1 or not _takes(shapes[0], image):
            raise ValueError(f"it takes {shapes}, expected one image {list(image)}")
        if len(network.outputs) != outputs:
            raise ValueError(f"it gives {len(network.outputs)} arrays, expected {outputs}")
        if width is not None and not all(shape[-1:] == (width,) for shape in network.outputs.values()):
            raise ValueError(f"it gives {list(network.outputs.values())}, expected rows of {width}")
        return network


def _takes(shape: Shape, image: Shape) -> bool:
    pairs = zip(shape[1:], image, strict=False)
    return len(shape) == 1 + len(image) and all(size in (None, expected) for size, expected in pairs)


def read_member(path: Path, file: str) -> bytes:
    """Read the bytes of ``file``, inside the folder or zip archive ``path`` or ``path`` itself, in memory.

    Raises:
        OSError: the file does not exist.
        ValueError: the archive is damaged or lacks it.
    """
    if path.is_dir():
        path = path / file
    with open_weights(path) as opened:
        if path.suffix != ".zip":
            return opened.read()
        archive = Archive(opened, compressed=True)
        members = [name for name in archive.members if name.split("/")[-1] == file]
        if len(members) != 1:
            raise ValueError(f"the archive holds {listed(archive.members)}, expected one {file} in it")
        return archive.read(members[0])


def _network(data: bytes) -> OnnxNetwork:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    if len(data) > _LARGEST:
        raise ValueError(f"it has {len(data):,} bytes, more than the {_LARGEST:,} of any network here")
    check_onnx(data)
    try:
        # without its fallback, which prints what the file holds
        session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:  # the runtime's errors share no class but this one
        raise ValueError(f"it is no ONNX network that can be read ({error!s:.200})") from error
    return OnnxNetwork(data, _shapes(session.get_inputs()), _shapes(session.get_outputs()))


def _shapes(values: list[Any]) -> dict[str, Shape]:
    return {v.name: tuple(n if isinstance(n, int) else None for n in v.shape) for v in values}
