"""Hostile files of weights, small all of them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch


def saved(content: Any, zipped: bool = True) -> bytes:
    """Return a checkpoint of ``torch.save``."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def deflated(data: bytes) -> bytes:
    """Return a zip archive with the same entries, compressed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), compresslevel=9)
    return target.getvalue()


def zip_of_zeros(name: str, size: int) -> bytes:
    """Return a zip archive of one entry of zeros."""
    target = io.BytesIO()
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        piece = bytes(1 << 24)
        for _ in range(size >> 24):
            file.write(piece)
    return target.getvalue()


def mat_of_zeros(name: str, rows: int, columns: int) -> bytes:
    """Return a compressed MATLAB 5 file with one array of zeros, as doubles."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    size = 8 * rows * columns
    head = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", rows, columns))
    head += element(1, name.encode()) + struct.pack("<II", 9, size)
    packer = zlib.compressobj(9)
    data = packer.compress(struct.pack("<II", 14, len(head) + size) + head)
    piece = bytes(1 << 24)
    left = size
    while left > 0:
        data += packer.compress(piece[:left] if left < len(piece) else piece)
        left -= len(piece)
    data += packer.flush()
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(data)) + data


def safetensors(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str], data: bytes = b""
) -> bytes:
    """Return a safetensors file by hand: types and shapes by name, one after the other."""
    sizes = {"F64": 8, "F32": 4, "F16": 2, "U8": 1, "I64": 8}
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, (kind, shape) in tensors.items():
        count = sizes[kind]
        for side in shape:
            count *= side
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def generator_announcing(path: Path, **changes: Any) -> Path:
    """Write a small generator whose metadata announces other settings."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from portrait_core.generators import save_generator
    from tests.portrait_core import tiny

    save_generator(tiny.generator(), path)
    with safe_open(str(path), "pt") as file:
        about = json.loads(file.metadata()["generator"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    settings = json.loads(about["settings"])
    settings.update(changes)
    about["settings"] = json.dumps(settings)
    save_file(tensors, path, metadata={"generator": json.dumps(about)})
    return path


def onnx_asking_for(location: str, place: str) -> bytes:
    """Return a network that asks for values in another file, in one of several places.

    Args:
        location: path of the other file.
        place: ``function``, ``sparse``, ``subgraph``, ``initializer`` or ``training``.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def outside(name: str = "w", dims: tuple[int, ...] = (4,)) -> Any:
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(4 * int(np.prod(dims))))):
            tensor.external_data.add(key=key, value=value)
        return tensor

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    if place == "function":
        body = [
            helper.make_node("Constant", [], ["c"], value=outside()),
            helper.make_node("Add", ["a", "c"], ["b"]),
        ]
        function = helper.make_function("local", "f", ["a"], ["b"], body, opsets[:1])
        graph = helper.make_graph([helper.make_node("f", ["x"], ["y"], domain="local")], "g", [x], [y])
        model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8)
        return bytes(model.SerializeToString())
    if place == "subgraph":
        inner = helper.make_graph(
            [helper.make_node("Constant", [], ["c"], value=outside()), helper.make_node("Add", ["x", "c"],
            ["z"])],
            "inner", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])],
        )  # fmt: skip
        yes = helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.array(True)))
        node = helper.make_node("If", ["t"], ["y"], then_branch=inner, else_branch=inner)
        graph = helper.make_graph([yes, node], "g", [x], [y])
    elif place == "sparse":
        sparse = onnx.SparseTensorProto(dims=[4])
        sparse.values.CopyFrom(outside())
        sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(4, dtype=np.int64)))
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y])
        graph.sparse_initializer.append(sparse)
    else:
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [outside()])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if place == "training":
        model.graph.ClearField("initializer")
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.float32), "w"))
        info = model.training_info.add()
        info.initialization.CopyFrom(helper.make_graph([], "i", [], [], [outside()]))
    return bytes(model.SerializeToString())
