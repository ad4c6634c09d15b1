"""Files of weights that announce more than they hold: refused before memory is taken, in a second at most.

Each file here is small. The readers run in this process below a limit of its address space.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from portrait_core.attribute_editing.styleflow_files import load_published_styleflow
from portrait_core.errors import ModelFileError
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators import load_generator
from portrait_core.inversion.chain import Anchor
from portrait_core.metrics.face_recognition import read_face_recognition
from portrait_core.metrics.identity import ArcFaceRecogniser
from portrait_core.model_files.needs import stated_licence
from portrait_core.settings.limits import Limits, current_limits, use_limits
from portrait_core.tracking.checkpoints import read_deca
from portrait_core.weights.readers.flame_files import read_flame
from portrait_core.weights.readers.legacy_pickle import plain_data, read_legacy_pickle
from portrait_core.weights.readers.mat_files import read_mat
from portrait_core.weights.readers.npy_files import read_npy
from portrait_core.weights.readers.onnx_files import read_arcface, read_onnx
from portrait_core.weights.readers.torch_files import read_styleflow, read_torch
from tests import official_files
from tests.old_pickles import Ch, stand_in

_ROOM = 1 << 30


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Allow this process a gigabyte of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _said(read: Callable[[Any], object], value: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is compared by the caller
        read(value)
    cause: BaseException | None = caught.value
    while cause is not None:
        assert not isinstance(cause, MemoryError), "refused by the machine, not by the reader"
        cause = cause.__cause__
    return str(caught.value)


def _saved(content: Any, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _rezipped(data: bytes, change: Callable[[str, bytes], bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", kind) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_repeats_its_values_is_not_copied(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "modellarge10k.pt"
    path.write_bytes(_saved({"a": torch.zeros(1).expand(1_000_000_000)}, zipped))
    assert path.stat().st_size < 2000
    assert "repeats its values" in _said(read_styleflow, path)
    # the same with many tensors of one storage, each of a size that could be a network's
    values = torch.zeros(1 << 18)
    views = {f"a{i}": values[i:].as_strided((1 << 24,), (0,)) for i in range(64)}
    path.write_bytes(_saved(views, zipped))
    assert "repeats its values" in _said(read_styleflow, path)


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_read_as_torch_reads_them(tmp_path: Path, zipped: bool) -> None:
    """Views, ties, types and everything that training keeps beside weights."""
    shared = torch.randn(4, 5)
    content = {
        "views": [shared.t(), shared[1:3], shared[2, 3]], "expanded": torch.ones(2, 1).expand(2, 3),
        "kinds": [torch.ones(3).to(kind) for kind in (torch.half, torch.bfloat16, torch.double, torch.int8)],
        "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(torch.ones(2)),
        "flags": torch.tensor([True]),
        "numbers": [1, -2.5, None, True, 1 << 70], "text": "é", "size": torch.Size([1, 2]), "set": {1},
    }  # fmt: skip
    path = tmp_path / "state.pt"
    path.write_bytes(_saved(content, zipped))
    found, wanted = read_torch(path), torch.load(path, weights_only=True)
    assert list(found) == list(wanted)
    for name in ("numbers", "text", "size", "set"):
        assert found[name] == wanted[name]
    pairs = [(found["views"], wanted["views"]), (found["kinds"], wanted["kinds"])]
    pairs += [([found[name]], [wanted[name]]) for name in ("expanded", "empty", "parameter", "flags")]
    for ours, theirs in pairs:
        for a, b in zip(ours, theirs, strict=True):
            assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
            assert torch.equal(a, b)
    assert found["views"][0].data_ptr() == found["views"][2].data_ptr() - 13 * 4


def test_storages_have_the_bytes_that_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "deca_model.tar"
    number, huge = b"K\x0a", b"J" + struct.pack("<i", 1 << 30)
    path.write_bytes(_saved({"E_flame": torch.ones(10)}, False).replace(number, huge))
    assert "a storage of 4294967296 bytes has" in _said(read_deca, path)
    good = _saved({"E_flame": torch.ones(10)}, True)
    changed = _rezipped(good, lambda name, data: data.replace(number, huge) if "data.pkl" in name else data)
    path.write_bytes(changed)
    assert "a storage of 4294967296 bytes has 40" in _said(read_deca, path)
    # values that no key announces would be memory of this process
    older = _saved({"E_flame": torch.ones(10)}, False)
    key = older.rindex(b"]q\x00X")
    path.write_bytes(older[:key] + b"]q\x00.")
    assert "other storages follow" in _said(read_deca, path)


def test_torch_archives_are_not_compressed(tmp_path: Path) -> None:
    path = tmp_path / "modellarge10k.pt"
    path.write_bytes(
        _rezipped(_saved({"a": torch.zeros(9)}, True), lambda _, data: data, zipfile.ZIP_DEFLATED)
    )
    assert "is compressed or encrypted" in _said(read_styleflow, path)


def test_members_of_archives_lie_apart_under_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "modellarge10k.pt"
    good = _rezipped(_saved({"a": torch.zeros(9)}, True), lambda _, data: data)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        first, second = archive.infolist()[:2]
    entry = good.rindex(second.filename.encode()) - 46
    place = slice(entry + 42, entry + 46)
    overlapping = bytearray(good)
    overlapping[place] = struct.pack("<I", first.header_offset)
    path.write_bytes(overlapping)
    assert "overlaps another one" in _said(read_styleflow, path)
    lying = bytearray(good)
    lying[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(lying)
    assert "beyond its end" in _said(read_styleflow, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/data.pkl", b"N.")
    assert "two members of one name" in _said(read_styleflow, path)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(45_000):
            archive.writestr(f"archive/data/a-long-name-of-a-member-{number:020d}", b"")
    assert "the archive's directory has more than" in _said(read_styleflow, path)


def test_a_pack_does_not_grow_out_of_proportion(tmp_path: Path) -> None:
    path = tmp_path / "buffalo_l.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w600k_r50.onnx", bytes(30_000_000))
    assert "would grow from" in _said(read_arcface, path)
    official_files.write_buffalo(path)
    assert read_arcface(path).outputs


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def test_matlab_variables_do_not_grow_out_of_proportion(tmp_path: Path) -> None:
    path, count = tmp_path / "similarity_Lm3D_all.mat", 3_000_000
    start = (
        _element(6, struct.pack("<II", 6, 0)) + _element(5, struct.pack("<ii", count, 1)) + _element(1, b"lm")
    )
    start += struct.pack("<II", 9, 8 * count)
    packed = zlib.compress(struct.pack("<II", 14, len(start) + 8 * count) + start + bytes(8 * count))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    said = _said(lambda path: read_mat(path, ["lm"]), path)
    assert "a compressed variable would grow from" in said
    path.write_bytes(header + _element(14, start))  # its values are not there at all
    assert "it is damaged" in _said(lambda path: read_mat(path, ["lm"]), path)
    # a small announcement with a long stream: no more than announced is decoded
    packed = zlib.compress(struct.pack("<II", 14, len(start) + 8) + start + bytes(8 * count))
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    assert "it is damaged" in _said(lambda path: read_mat(path, ["lm"]), path)


def test_numpy_headers_do_not_announce_more_than_follows() -> None:
    def file(header: str) -> bytes:
        text = header.encode().ljust(117) + b"\n"
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text

    for shape in ("(1000000000,)", "(-1,)", "(0, 1 << 40)", f"({'1, ' * 40})", "(1000000000, 1000000000)"):
        _said(read_npy, file(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"))
    for kind in ("'|O'", "'<U200000000'", "'|V2000000000'", "[('a', '<f4')]"):
        header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': (0,)}}"
        assert "expected numbers" in _said(read_npy, file(header))


def test_the_start_of_an_inversion_is_not_compressed() -> None:
    arrays = {"frame": np.array(3), "ws": np.ones((2, 4), np.float32), "appearance": np.zeros(3)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **(arrays | {"ws": np.zeros(6_000_000, np.float32)}))  # type: ignore[arg-type]
    assert "is compressed" in _said(lambda data: Anchor.from_bytes(data, "cpu"), buffer.getvalue())
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    found = Anchor.from_bytes(buffer.getvalue(), "cpu")
    assert found.frame == 3
    assert torch.equal(found.latent.ws, torch.ones(2, 4))


def _program(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def _long(text: int) -> bytes:
    return b"X" + struct.pack("<I", text) + b"a" * text


_ENCODE = b"\x8c\x07_codecs\x8c\x06encode\x93\x94"
_SET = b"\x8c\x08builtins\x8c\x03set\x93\x94"
_SIZE = b"\x8c\x05torch\x8c\x04Size\x93\x94"


_ITEMS = b"](" + b"K\1" * 10_000 + b"e\x85\x94"
_AGAIN = b"h\0h\1R"
_KEYS = [b"\x8a\x09" + (i * (2**61 - 1)).to_bytes(9, "little") for i in range(1, 9)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"\x8f" * 1_100_000, "millions of instructions", id="objects of 200 bytes"),
        pytest.param(_ENCODE + _long(1 << 20) + b"\x85\x94" + _AGAIN * 5000, "far more values", id="texts"),
        pytest.param(_SET + _ITEMS + _AGAIN * 100_000, "far more values", id="sets"),
        pytest.param(_SIZE + _ITEMS + _AGAIN * 100_000, "far more values", id="tuples"),
        pytest.param(b"K\1" + b"2\x86" * 60 + b"K\1R", "without a tuple", id="a message of 2^60 letters"),
        pytest.param(b"}(" + b"N".join(_KEYS) + b"Nu", "large number is the key", id="keys of one hash"),
    ],
)
def test_a_pickle_does_not_make_more_than_it_has_bytes_for(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(_program(data))
    said = _said(read_legacy_pickle, path)
    assert words in said
    assert len(said) < 1000


def test_tensors_of_millions_of_axes_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "modellarge10k.pt"
    data = _saved({"a": torch.ones(3)}, True)
    many = b"(" + b"J\xff\xff\xff\x7f" * 200_000 + b"t"

    def change(name: str, data: bytes) -> bytes:
        return (
            data.replace(b"K\x03\x85", many, 1).replace(b"K\x01\x85", many, 1) if "data.pkl" in name else data
        )

    path.write_bytes(_rezipped(data, change))
    assert "a tensor has size" in _said(read_styleflow, path)


def test_what_a_network_says_of_itself_is_bounded() -> None:
    value: Any = 1
    for _ in range(90):
        value = [value, value]
    assert "too large" in _said(plain_data, value)


def test_arrays_inside_themselves(tmp_path: Path) -> None:
    path = tmp_path / "generic_model.pkl"
    official_files.write_flame(path, v_template=stand_in(Ch, x=stand_in(Ch, x=np.zeros((3, 3)))))
    assert "J_regressor" in _said(read_flame, path)  # two levels are read
    inner: Any = np.zeros((3, 3))
    for _ in range(5000):
        inner = stand_in(Ch, x=inner)
    sys.setrecursionlimit(100_000)
    try:
        official_files.write_flame(path, v_template=inner)
    finally:
        sys.setrecursionlimit(1000)
    assert "too deeply" in _said(read_flame, path)


def _network(change: Callable[[Any], None]) -> bytes:
    model = onnx.load_model_from_string(official_files.arcface_network())
    change(model)
    return bytes(model.SerializeToString())


def _outside() -> TensorProto:
    tensor = TensorProto(name="t", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return tensor


def _sparse(tensor: TensorProto, size: int = 4) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.zeros(1, np.int64), "i"), [size])


def _in_function(model: Any) -> None:
    node = helper.make_node("Constant", [], ["y"], value=_outside())
    model.functions.append(helper.make_function("own", "F", [], ["y"], [node], [helper.make_opsetid("", 13)]))


def _in_branch(model: Any) -> None:
    inner = helper.make_graph([helper.make_node("Constant", [], ["y"], value=_outside())], "b", [], [])
    deeper = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=inner)], "b", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=deeper))


def _in_list(model: Any) -> None:
    node = helper.make_node("Anything", [], ["z"])
    node.attribute.append(
        onnx.AttributeProto(name="l", type=onnx.AttributeProto.TENSORS, tensors=[_outside()])
    )
    model.graph.node.append(node)


def _in_sparse(model: Any) -> None:
    model.graph.sparse_initializer.append(_sparse(_outside()))


def _in_sparse_attribute(model: Any) -> None:
    node = helper.make_node("Constant", [], ["z"])
    kind = onnx.AttributeProto.SPARSE_TENSOR
    node.attribute.append(
        onnx.AttributeProto(name="sparse_value", type=kind, sparse_tensor=_sparse(_outside()))
    )
    model.graph.node.append(node)


def _in_training(model: Any) -> None:
    model.training_info.add().initialization.initializer.append(_outside())


@pytest.mark.parametrize(
    "change", [_in_function, _in_branch, _in_list, _in_sparse, _in_sparse_attribute, _in_training]
)
def test_no_tensor_of_a_network_lies_in_another_file(tmp_path: Path, change: Callable[[Any], None]) -> None:
    path = tmp_path / "w600k_r50.onnx"
    path.write_bytes(_network(change))
    assert "asks for weights in other files" in _said(read_arcface, path)


def test_networks_do_not_announce_more_than_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"

    def large(model: Any) -> None:
        model.graph.initializer.append(TensorProto(name="t", data_type=1, dims=[1 << 30]))

    def sparse(model: Any) -> None:
        value = numpy_helper.from_array(np.ones(1, np.float32), "t")
        model.graph.sparse_initializer.append(_sparse(value, 1 << 30))

    def function(model: Any) -> None:
        node = helper.make_node("Identity", ["x"], ["y"])
        opset = [helper.make_opsetid("", 13)]
        model.functions.append(helper.make_function("own", "F", ["x"], ["y"], [node], opset))

    def loop(model: Any) -> None:
        body = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "b", [], [])
        model.graph.node.append(helper.make_node("Loop", ["n", "c"], ["z"], body=body))

    for change, words in (
        (large, "has values of 0 bytes"),
        (sparse, "sparse tensors"),
        (function, "functions of its own"),
        (loop, "graphs inside its graph"),
    ):
        path.write_bytes(_network(change))
        assert words in _said(read_onnx, path)
    parts = b"\x0a\x00" * 600_000  # empty nodes of a graph
    size = len(parts)
    length = bytes(((size >> shift) & 0x7F) | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21))
    path.write_bytes(b"\x3a" + length + parts)
    assert "more than 500,000 parts" in _said(read_onnx, path)


_RUN = """
import resource, sys
from portrait_core.errors import ModelFileError
from portrait_core.metrics.identity import ArcFaceRecogniser
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    ArcFaceRecogniser.load(sys.argv[1])
except ModelFileError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, error)
"""


def test_a_brought_network_runs_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "w600k_r50.onnx"

    def grow(model: Any) -> None:
        """Add the largest of two thousand million zeros to the answer."""
        graph, answer = model.graph, model.graph.output[0].name
        graph.node[-1].output[0] = "before"
        graph.initializer.append(numpy_helper.from_array(np.array([2_000_000_000], np.int64), "size"))
        graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["zeros"]))
        graph.node.append(helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0))
        graph.node.append(helper.make_node("Add", ["before", "zero"], [answer]))

    path.write_bytes(_network(grow))
    ran = subprocess.run([sys.executable, "-c", _RUN, str(path)], capture_output=True, text=True, check=True)
    grown, _, said = ran.stdout.partition(" ")
    assert "the network fails on a picture" in said
    assert int(grown) < 1000
    path.write_bytes(official_files.arcface_network())
    assert ArcFaceRecogniser.load(path).width == 512


def _described(path: Path, settings: dict[str, Any], kind: str = "stylegan2") -> Path:
    about = {"kind": kind, "settings": json.dumps(settings), "latent_layout": "{}"}
    tensors = {f"a{i}": torch.ones(1) for i in range(8)}
    save_file(tensors, path, metadata={"generator": json.dumps(about)})
    return path


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"z_dim": 100_000, "w_dim": 100_000, "mapping_layers": 2, "channels": {4: 2}}, "far more weights"),
        ({"mapping_layers": 10**9, "channels": {4: 2}}, "layers and holds 8 tensors"),
        ({"channels": {4 * 2**i: 1 for i in range(20)}}, "a picture or plane of its network"),
        ({"z_dim": 10**30, "channels": {4: 2}, "mapping_layers": 1}, "far more weights"),
    ],
)
def test_settings_do_not_ask_for_more_weights_than_their_file_holds(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    assert words in _said(
        lambda path: load_generator(path, kind=None), _described(tmp_path / "g.safetensors", settings)
    )


def test_headers_of_safetensors_files_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "face_recognition.safetensors"
    for size in (1 << 62, 1 << 23, 100, 0):
        path.write_bytes(struct.pack("<Q", size) + b"{}")
        assert "its header has" in _said(read_face_recognition, path)
    header = {"__metadata__": {"n_shape": "0"}, "shapedirs": {"dtype": "F32", "shape": [0, 3, 1 << 40],
              "data_offsets": [0, 0]}}  # fmt: skip
    arrays = {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
              for name in ("v_template", "J_regressor", "weights", "kintree_table", "f")}  # fmt: skip
    text = json.dumps(header | arrays).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert "no directions" in _said(MorphableHead.load, path)


def test_json_beside_weights_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    for text in ("[" * 100_000, " " * (2 << 20) + '{"licence": "MIT"}', "5", '{"licence": 5}', "{"):
        path.with_suffix(".json").write_text(text)
        assert stated_licence(path) is None
    path.with_suffix(".json").write_text('{"licence": "MIT"}')
    assert stated_licence(path) == "MIT"


READERS: dict[str, Callable[[Any], object]] = {
    "generic_model.pkl": read_flame,
    "deca_model.tar": read_deca,
    "network.pkl": read_legacy_pickle,
    "similarity_Lm3D_all.mat": lambda path: read_mat(path, ["lm"]),
    "w600k_r50.onnx": read_arcface,
    "a.onnx": read_onnx,
    "buffalo_l.zip": read_arcface,
    "face_recognition.safetensors": read_face_recognition,
    "g.safetensors": lambda path: load_generator(path, kind=None),
}


@pytest.mark.parametrize("name", READERS)
def test_pipes_folders_and_devices_are_refused_at_once(tmp_path: Path, name: str) -> None:
    path, pipe = tmp_path / name, tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, Path("/dev/zero")):
        path.symlink_to(target)
        with pytest.raises((ValueError, OSError), match=r"a pipe|a device"):
            READERS[name](path)
        path.unlink()


@pytest.mark.parametrize("name", READERS)
def test_files_are_not_larger_than_the_limit(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room
    assert "limits.weights_bytes" in _said(READERS[name], path)
    limits = current_limits()
    use_limits(Limits(weights_bytes=100))
    try:
        path.write_bytes(pickle.dumps(list(range(200))))
        assert "--set limits.weights_bytes=" in _said(READERS[name], path)
    finally:
        use_limits(limits)


def test_the_error_names_the_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "deca_model.tar")
    with pytest.raises(ModelFileError, match=r"deca_model\.tar .* is a pipe"):
        read_deca(tmp_path / "deca_model.tar")


@pytest.mark.parametrize("key", [1, (1, 2), None, "\x1b]52;c;eA==\x07", b"a"])
def test_a_state_of_odd_keys_is_refused_by_styleflow(key: object, tmp_path: Path) -> None:
    path = tmp_path / "modellarge10k.pt"
    torch.save({key: torch.zeros(1)}, path)
    with pytest.raises(ModelFileError):
        load_published_styleflow(path)


def test_the_runtime_prints_nothing_of_a_damaged_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Zzzz", ["x"], ["y"])], "g", [value], [out])
    data = helper.make_model(graph).SerializeToString().replace(b"Zzzz", b"\xe6\x1b[2")
    (tmp_path / "a.onnx").write_bytes(data)
    with pytest.raises(ValueError, match="no ONNX network that can be read"):
        read_onnx(tmp_path / "a.onnx")
    assert capsys.readouterr() == ("", "")
