"""Hostile and damaged network files: refused, by name, and nothing in them runs."""

import builtins
import copyreg
import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from portrait_core.generators import StyleGAN2Generator, TriPlaneGenerator, load_published
from portrait_core.weights.readers.legacy_pickle import (
    ModuleRecord,
    plain_data,
    read_legacy_pickle,
    read_network,
)
from tests import published_pickle

Refusal = Callable[[bytes], str]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def refusal(tmp_path: Path, canary: Path) -> Refusal:
    """``refusal(data)``: what is said of a file with these bytes. It must be refused, and nothing run."""
    path = tmp_path / "hostile.pkl"

    def refuse(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"cannot read .* safely") as caught:
            read_legacy_pickle(path)
        assert not canary.exists()
        return str(caught.value)

    return refuse


def short(text: str) -> bytes:
    data = text.encode()
    return b"\x8c" + bytes([len(data)]) + data


def stack_global(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


def program(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def touch(canary: Path) -> bytes:
    """Argument tuple of a shell command that makes the canary."""
    command = f"touch {canary}".encode()
    return b"X" + struct.pack("<I", len(command)) + command + b"\x85"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("numpy", "load"),
        ("copyreg", "_reconstructor"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch.storage", "os.system"),
        ("training.evil", "os.system"),
        ("torch.nn.modules.module", "torch.os.system"),
        ("training", "anything"),
        ("torch_utils.persistence", "_src_to_module"),
    ],
)
def test_names_are_refused_whole(refusal: Refusal, canary: Path, module: str, name: str) -> None:
    call = touch(canary) + b"R"
    wanted = f"asks for {module}.{name}, which is not a name known as safe"
    assert wanted in refusal(program(stack_global(module, name), call))
    assert wanted in refusal(program(b"c" + f"{module}\n{name}\n".encode(), call))


def test_reduce_and_old_instances(refusal: Refusal, canary: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return exec, (f"open({str(canary)!r}, 'w')",)

    for protocol in range(6):
        said = refusal(pickle.dumps({"G_ema": Attack()}, protocol))
        assert "builtins.exec" in said or "__builtin__.exec" in said
    argument = touch(canary)[:-1]
    assert "INST" in refusal(program(b"(", argument, b"ios\nsystem\n"))
    assert "posix.system" in refusal(program(b"(", stack_global("posix", "system"), argument, b"o"))
    assert "instruction OBJ" in refusal(program(b"(", stack_global("training.a", "B"), argument, b"o"))


def test_extension_registry_is_not_asked(refusal: Refusal, canary: Path) -> None:
    code = 0x61
    copyreg.add_extension("builtins", "exec", code)
    try:
        copyreg._extension_cache[code] = exec  # type: ignore[attr-defined]  # as after some other pickle that used it
        for instruction in (b"\x82" + bytes([code]), b"\x83\x61\0", b"\x84\x61\0\0\0"):
            assert "instruction EXT" in refusal(program(instruction, touch(canary), b"R"))
    finally:
        copyreg.remove_extension("builtins", "exec", code)


@pytest.mark.parametrize("instruction", [b"Phello\n", b"X\1\0\0\0aQ"])
def test_persistent_ids(refusal: Refusal, instruction: bytes) -> None:
    assert "PERSID" in refusal(program(instruction))


def test_stand_ins_stay_data(tmp_path: Path, canary: Path, refusal: Refusal) -> None:
    evil = stack_global("training.networks", "state_dict")
    assert "sets attributes of a ClassName" in refusal(program(evil, b"}", short("a"), short("b"), b"sb"))
    assert "the state of a state_dict is a tuple" in refusal(program(evil, b")\x81", b"})\x86b"))
    state = {"__class__": "x", "state_dict": "x", "_parameters": "x", "_modules": ["x"], "_init_kwargs": 3}
    path = tmp_path / "odd.pkl"
    body = pickle.dumps(state, 4)[2:-1]
    path.write_bytes(program(b"}", short("G_ema"), evil, b")\x81", body, b"b", b"s"))
    record = read_network(path)
    assert type(record) is ModuleRecord
    assert (record.class_name, record.state) == ("state_dict", state)
    assert record.state_dict() == {}
    assert record.kwargs == {}
    # a stand-in called like a function gives another record, and what is in it is not called
    assert "is no constructor" in refusal(program(evil, b")\x81", touch(canary), b"R"))


def test_only_constructors_are_called(refusal: Refusal, canary: Path) -> None:
    assert "calls a str, which is no constructor" in refusal(program(short("eval"), touch(canary), b"R"))
    assert "calls a dict" in refusal(program(b"}", touch(canary), b"R"))
    assert "without a tuple" in refusal(program(stack_global("builtins", "set"), b"]R"))
    keywords = program(stack_global("dnnlib.util", "EasyDict"), b")}", short("a"), b"Ns\x92")
    assert "keyword arguments" in refusal(keywords)


def test_only_containers_are_filled(refusal: Refusal) -> None:
    ordered = stack_global("collections", "OrderedDict")
    assert "fills a function as if it were a dict" in refusal(program(ordered, short("a"), b"Ns"))
    assert "fills a str as if it were a list" in refusal(program(short("a"), b"Na"))
    assert "sets attributes of a list" in refusal(program(b"]", b"}b"))


def tensor(storage: bytes, offset: Any, size: Any, stride: Any) -> bytes:
    parts = [pickle.dumps(part, 4)[2:-1] for part in (offset, size, stride)]
    rebuild = stack_global("torch._utils", "_rebuild_tensor_v2")
    return rebuild + b"(" + storage + b"".join(parts) + b"\x89N" + b"tR"


def storage(payload: bytes) -> bytes:
    data = b"B" + struct.pack("<I", len(payload)) + payload
    return stack_global("torch.storage", "_load_from_bytes") + data + b"\x85R"


def saved(values: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(values.storage(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (13,), (1,)),
        (1, (12,), (1,)),
        (0, (3, 4), (5, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (2**40,), (0,)),
        (2**62, (1,), (1,)),
        (0, (2**62, 2**62), (1, 1)),
        (0, [2], [1]),
        (0, (True,), (1,)),
        (13, (1,), (1,)),
    ],
)
def test_tensors_stay_within_their_storage(refusal: Refusal, offset: Any, size: Any, stride: Any) -> None:
    data = storage(saved(torch.arange(12.0)))
    said = refusal(program(tensor(data, offset, size, stride)))
    assert "reaches beyond its storage" in said or "a tensor has size" in said


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_good_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tensors.pkl"
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool):
        values = torch.arange(24).to(dtype)
        views = [
            values,
            values.view(4, 6).t(),
            values[5:9],
            values[:0],
            values[3].reshape(()),
            torch.tensor(1),
        ]
        views.append(torch.nn.Parameter(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)))
        path.write_bytes(pickle.dumps(views, 4))
        for got, wanted in zip(read_legacy_pickle(path), views, strict=True):
            assert torch.equal(got, wanted)
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_tensors_from_a_gpu_are_read_anywhere(tmp_path: Path) -> None:
    path, data = tmp_path / "gpu.pkl", saved(torch.arange(12.0))
    place = b"X\3\0\0\0cpu"
    assert place in data
    data = data.replace(place, b"X\6\0\0\0cuda:0")
    path.write_bytes(program(tensor(storage(data), 2, (3,), (2,))))
    assert read_legacy_pickle(path).tolist() == [2.0, 4.0, 6.0]


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_hostile_storages(refusal: Refusal, canary: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return builtins.exec, (f"open({str(canary)!r}, 'w')",)

    good = saved(torch.arange(12.0))
    buffer = io.BytesIO()
    torch.save({"a": Attack()}, buffer, _use_new_zipfile_serialization=False)
    assert "asks for __builtin__.exec" in refusal(program(storage(buffer.getvalue())))
    assert "asks for __builtin__.exec" in refusal(program(storage(pickle.dumps(Attack(), 2))))
    assert "older format" in refusal(program(storage(pickle.dumps(1, 2) * 3 + good)))
    assert "a storage of 48 bytes has 44" in refusal(program(storage(good[:-4])))
    assert "states another number" in refusal(
        program(storage(good.replace(b"\x0c" + b"\0" * 7, b"\x0d" + b"\0" * 7)))
    )
    plain = stack_global("torch.storage", "_load_from_bytes") + short("text") + b"\x85R"
    assert "storage is a str" in refusal(program(plain))
    assert "storage is a int" in refusal(program(tensor(b"K\1", 0, (1,), (1,))))
    parameter = stack_global("torch._utils", "_rebuild_parameter") + short("x") + b"\x89N\x87R"
    assert "a parameter holds a str" in refusal(program(parameter))


def test_sizes_that_the_file_does_not_have(refusal: Refusal) -> None:
    huge = struct.pack("<Q", 2**40)
    for instruction in (b"\x8e" + huge, b"\x8d" + huge, b"B\xff\xff\xff\x7f", b"\x95" + huge):
        assert "are left" in refusal(program(instruction, b"x"))
    assert "BYTEARRAY8" in refusal(program(b"\x96" + huge))
    assert "Memo value not found" in refusal(program(b"N", b"r\xff\xff\xff\xff", b"j\xfe\xff\xff\xff"))
    assert "it is no such pickle" in refusal(b"\x80\x04" + b"I" + b"9" * 10_000 + b"\n.")


@pytest.mark.parametrize(
    "data", [b"", b"junk", b"\x80\x09.", b"\x80\x04", b"\x80\x04.", b"\x80\x04e.", b"\x80\x04R."]
)
def test_what_is_no_pickle(refusal: Refusal, data: bytes) -> None:
    assert "expected the published network file" in refusal(data)


def test_every_cut_of_a_good_file(tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "good.pkl"
    published_pickle.write_stylegan2(path)
    data = path.read_bytes()
    for length in range(0, len(data), max(len(data) // 25, 1)):
        refusal(data[:length])


def test_deep_nesting_neither_crashes_nor_hangs(tmp_path: Path, refusal: Refusal) -> None:
    nested = b")" + b"\x85" * 100_000
    for data in (
        program(b"}" + nested + b"Ns"),
        program(b"\x8f(" + nested + b"\x90"),
        program(b"(" + nested + b"\x91"),
        program(stack_global("builtins", "set") + b"(" + nested + b"tR"),
    ):
        refusal(data)
    path = tmp_path / "deep.pkl"
    path.write_bytes(program(b"]" * 100_000 + b"a" * 99_999))
    assert isinstance(read_legacy_pickle(path), list)


def test_modules_that_contain_themselves() -> None:
    record = ModuleRecord("Loop")
    record.state = {"_modules": {"a": record}}
    with pytest.raises(ValueError, match="modules of this Loop contain each other"):
        record.state_dict()
    for _ in range(40):  # 2^40 paths through 40 records
        upper = ModuleRecord("Twice")
        upper.state = {"_modules": {"a": record, "b": record}}
        record = upper
    with pytest.raises(ValueError, match="contain each other, or are too many"):
        record.state_dict()
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested too deeply"):
        plain_data(endless)


def test_numpy_values(tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "numpy.pkl"
    arrays: list[Any] = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(3, dtype=">i2"),
        np.array(1.5),
        np.zeros((0, 4)),
        np.array([True, False]),
        np.float64(2.5),
        np.int32(7),
        np.bool_(True),
    ]
    for protocol in (2, 3, 4):
        data = pickle.dumps(arrays, protocol)
        # numpy 1's name; protocol 4 counts the letters of a name
        path.write_bytes(data.replace(b"numpy._core", b"numpy.core") if protocol == 3 else data)
        for got, wanted in zip(read_legacy_pickle(path), arrays, strict=True):
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == wanted.dtype.newbyteorder("=")
    encode = stack_global("_codecs", "encode")
    assert "encodes a str as 'unicode_escape'" in refusal(
        program(encode, short("a"), short("unicode_escape"), b"\x86R")
    )
    assert "encodes a int" in refusal(program(encode, b"K\1\x85R"))
    assert "only numbers are read" in refusal(pickle.dumps(np.array([{}], dtype=object), 3))
    assert "only numbers are read" in refusal(pickle.dumps(np.zeros(2, dtype=[("a", "i4")]), 3))
    good = pickle.dumps(np.arange(5, dtype=np.int64), 3)
    assert "5 numpy values" not in good.decode("latin1")
    assert "6 numpy values of int64 have 40 bytes" in refusal(good.replace(b"K\x05\x85", b"K\x06\x85"))


def test_what_networks_say_of_themselves_becomes_json() -> None:
    said = {
        "a": np.float64(0.5),
        "b": np.arange(2),
        "c": (None, "auto", True),
        "d": torch.ones(2),
        3: {"x"},
        "e": torch.float16,
        "f": OrderedDict(g=1),
    }
    wanted = {
        "a": 0.5,
        "b": [0, 1],
        "c": [None, "auto", True],
        "d": [1.0, 1.0],
        "3": ["x"],
        "e": "torch.float16",
        "f": {"g": 1},
    }
    assert plain_data(said) == wanted


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_networks_of_the_published_form(tmp_path: Path, protocol: int) -> None:
    """With a discriminator, plain torch modules and numpy 1 numbers beside the generator."""
    path = tmp_path / "network.pkl"
    for write, kind in (
        (published_pickle.write_stylegan2, StyleGAN2Generator),
        (published_pickle.write_eg3d, TriPlaneGenerator),
    ):
        written = write(path, protocol=protocol)
        loaded = load_published(path)
        assert type(loaded) is kind
        assert loaded.settings == written.settings
        for name, value in written.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name
    assert read_network(path, "D").class_name == "DualDiscriminator"
