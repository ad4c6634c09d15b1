"""Readers of files of weights: pickles of every kind, archives, MATLAB, numpy, safetensors and ONNX."""

from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from scipy.io import savemat

from portrait_core.errors import ModelFileError
from portrait_core.generators import StyleGAN2Generator, save_generator
from portrait_core.generators.io import load_generator
from portrait_core.generators.published import read_published
from portrait_core.generators.stylegan2 import StyleGAN2Settings
from portrait_core.weights.readers.archives import Archive
from portrait_core.weights.readers.array_pickle import read_array_pickle
from portrait_core.weights.readers.flame_files import read_flame, read_landmark_embedding
from portrait_core.weights.readers.matlab import read_arrays
from portrait_core.weights.readers.npy_files import read_npy, read_npz
from portrait_core.weights.readers.onnx_checks import check_onnx
from portrait_core.weights.readers.onnx_files import read_onnx
from portrait_core.weights.readers.safetensors_files import open_safetensors
from portrait_core.weights.readers.torch_files import read_torch_file, select_tensors
from tests import official_files, published_pickle
from tests.fuzz.harness import Target, from_file

_CALLS = (
    *(
        b"cos\nsystem\n",
        b"\x8c\x05posix\x8c\x06system\x93",
        b"cbuiltins\neval\n",
        b"(lp0\n",
        b"h\0",
        b"j\0\0\0\0",
    ),
    *(
        b"\x81",
        b"R",
        b"b",
        b"2",
        b"\x85",
        b"\x86",
        b"(",
        b"t",
        b"u",
        b"e",
        b"\x90",
        b"Q",
        b"\x94",
        b"0",
        b".",
    ),
    *(b"ccollections\nOrderedDict\n", b"c__builtin__\nset\n", b"cnumpy.core.multiarray\n_reconstruct\n"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"\x8a\x08" + b"\x7f" * 8, b"\x8f"),
    *(b"\x8e" + b"\xff" * 7 + b"\x7f", b"X\xff\xff\xff\x7f", b"c_codecs\nencode\n", b"cnumpy\ndtype\n"),
)


def _written(write: Callable[[Path], Any], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _pickles() -> Sequence[bytes]:
    content = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": [1, "x", None, 2.5, (3, b"y")],
        "d": np.float32(3),
    }
    return [pickle.dumps(content, protocol) for protocol in range(5)]


def _saved(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    state = {
        "w": torch.arange(12.0).view(3, 4).t(), "h": torch.ones(2).half(), "n": torch.tensor(3),
        "p": torch.nn.Parameter(torch.ones(2)), "e": torch.ones(1).expand(4),
    }  # fmt: skip
    content = {
        "state": state,
        "size": torch.Size([1]),
        3: [1.5, None, "x", {2}, b"y", 1 << 70, torch.float32],
    }
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _read_state(data: bytes) -> object:
    content = read_torch_file(io.BytesIO(data))
    state = content.get("state") if isinstance(content, dict) else content
    return select_tensors(state, {}, "the network", keep_others=True)


@cache
def _members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(_saved(True))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _in_archive(data: bytes) -> object:
    """Read a checkpoint whose pickle was changed inside an archive that is sound."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in _members().items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)
    return _read_state(buffer.getvalue())


def _read_members(data: bytes) -> object:
    archive = Archive(io.BytesIO(data), compressed=True)
    return [archive.read(name) for name in archive.members]


def _zips() -> Sequence[bytes]:
    seeds = []
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", kind) as archive:
            archive.writestr("a/data.pkl", b"N." * 40)
            with archive.open("b.npy", "w", force_zip64=True) as member:
                member.write(b"numbers " * 30)
        seeds.append(buffer.getvalue())
    return seeds


def _mats() -> Sequence[bytes]:
    faces = np.array([[1, 2]], np.int32)
    content = {"lm": np.arange(24.0).reshape(8, 3), "tri": faces, "t": "text", "s": {"x": 1.0}}
    seeds = []
    for packed in (False, True):
        buffer = io.BytesIO()
        savemat(buffer, content, do_compression=packed)
        seeds.append(buffer.getvalue())
    return seeds


def _arrays() -> Sequence[bytes]:
    seeds = []
    arrays = (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 2), np.int16)), np.float32(1))
    for array in arrays:
        buffer = io.BytesIO()
        np.save(buffer, array)
        seeds.append(buffer.getvalue())
    return seeds


def _packs() -> Sequence[bytes]:
    buffer = io.BytesIO()
    np.savez(buffer, frame=np.array(3), ws=np.zeros((2, 4), np.float32))
    return [buffer.getvalue()]


def _tensors(path: Path) -> object:
    with open_safetensors(path) as file:
        return file.metadata(), [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - not a dict


def _safetensors() -> Sequence[bytes]:
    return [
        save(
            {"a": torch.ones(2, 3), "b": torch.zeros(0, 4), "c": torch.tensor(1.5).half()}, {"settings": "{}"}
        )
    ]


def _generators() -> Sequence[bytes]:
    generator = StyleGAN2Generator(StyleGAN2Settings(z_dim=2, w_dim=2, mapping_layers=1, channels={4: 2}))
    return [_written(lambda path: save_generator(generator, path), "g.safetensors")]


def _networks() -> Sequence[bytes]:
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    constant = helper.make_node(
        "Constant", [], ["c"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in (("x", 3), ("y", 2))
    ]
    graph = helper.make_graph([constant, node], "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return [model.SerializeToString()]


TARGETS = (
    Target("array-pickle", _pickles, lambda data: read_array_pickle(io.BytesIO(data)), (ValueError,), _CALLS),
    Target("torch-older", lambda: [_saved(False)], _read_state, (ValueError,), _CALLS),
    Target("torch-zip", lambda: [_saved(True)], _read_state, (ValueError,)),
    Target(
        "torch-zip-pickle",
        lambda: [data for name, data in _members().items() if name.endswith("data.pkl")],
        _in_archive,
        (ValueError,),
        _CALLS,
    ),
    Target(
        "zip",
        _zips,
        _read_members,
        (ValueError,),
        (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"\1\0\x10\0"),
    ),
    Target("matlab", _mats, lambda data: read_arrays(io.BytesIO(data), ["lm", "tri"]), (ValueError,)),
    Target(
        "npy",
        _arrays,
        read_npy,
        (ValueError,),
        (b"'|O'", b"'<U99999'", b"[('a','<f8')]", b"1_000_000", b"(((("),
    ),
    Target("npz", _packs, read_npz, (ValueError,)),
    Target(
        "npy-object",
        lambda: [_written(official_files.write_landmark_embedding, "landmark_embedding.npy")],
        from_file("landmark_embedding.npy", read_landmark_embedding),
        (ModelFileError,),
        _CALLS,
        examples=40,
    ),
    Target(
        "flame",
        lambda: [_small_flame(layout) for layout in official_files.FLAME_LAYOUTS],
        from_file("generic_model.pkl", read_flame),
        (ModelFileError,),
        _CALLS,
        examples=40,
    ),
    Target(
        "network-pickle",
        lambda: [_written(published_pickle.write_stylegan2, "network.pkl")],
        from_file("network.pkl", read_published),
        (ValueError,),
        _CALLS,
        examples=40,
    ),
    Target(
        "safetensors",
        _safetensors,
        from_file("a.safetensors", _tensors),
        (ValueError,),
        (b'"F64"', b"[[", b"{"),
    ),
    Target(
        "generator",
        _generators,
        from_file("g.safetensors", lambda path: load_generator(path, kind=None)),
        (ValueError,),
        (b"triplane", b"1e9", b"[[[[", b'\\"mapping_layers\\":99999999', b'\\"4\\":4,\\"8\\":'),
        examples=60,
    ),
    Target("onnx-bytes", _networks, check_onnx, (ValueError,)),
    Target("onnx", _networks, from_file("a.onnx", read_onnx), (ValueError,), examples=60),
)
"""All targets of this module."""


def _small_flame(layout: str) -> bytes:
    return _written(
        lambda path: official_files.write_flame(path, layout, official_files.flame_arrays(rings=1)),
        "generic_model.pkl",
    )
