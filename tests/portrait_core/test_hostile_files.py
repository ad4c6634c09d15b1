"""Hostile, cut and damaged files of every format: refused with our error, and nothing in them runs."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from portrait_core.baselines.facevid2vid_checkpoint import read_facevid2vid
from portrait_core.baselines.pirenderer_files import read_pirenderer
from portrait_core.errors import ModelFileError
from portrait_core.metrics.inception import read_inception
from portrait_core.tracking.checkpoints import read_deca, read_deep3d
from portrait_core.weights.file_checks import checking
from portrait_core.weights.readers.flame_files import read_flame, read_flame_masks, read_landmark_embedding
from portrait_core.weights.readers.mat_files import read_bfm, read_similarity_landmarks
from portrait_core.weights.readers.onnx_files import read_arcface
from portrait_core.weights.readers.torch_files import (
    read_alexnet,
    read_lpips,
    read_lpips_alex,
    read_styleflow,
    read_vgg16,
)
from tests import official_files
from tests.old_pickles import Ch, csc_matrix, numpy1_object_npy, python2_pickle, stand_in

Refusal = Callable[[Callable[[Path], Any], str], str]


class Attack:
    """Runs a shell command when an ordinary reader meets it."""

    def __init__(self, canary: Path) -> None:
        self.command = f"touch {canary}"

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def refusal(tmp_path: Path, canary: Path) -> Refusal:
    """``refusal(read, name)``: what is said of the file. It must be refused, and nothing run."""

    def refuse(read: Callable[[Path], Any], name: str) -> str:
        with pytest.raises(ModelFileError, match=name) as caught:
            read(tmp_path / name)
        assert not canary.exists()
        return str(caught.value)

    return refuse


def test_the_attack_works(canary: Path) -> None:
    """Else the other tests would show nothing."""
    pickle.loads(pickle.dumps(Attack(canary)))
    assert canary.exists()


@pytest.mark.parametrize("layout", official_files.FLAME_LAYOUTS)
def test_flame(tmp_path: Path, canary: Path, refusal: Refusal, layout: str) -> None:
    path = tmp_path / "generic_model.pkl"
    for name in ("bs_style", "v_template", "more"):
        changes: dict[str, Any] = {name: Attack(canary)}
        official_files.write_flame(path, layout, **changes)
        assert "asks for posix.system, which is not a name known as safe" in refusal(read_flame, path.name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("__builtin__", "eval"),
        ("chumpy.ch", "os"),
        ("chumpy.utils", "Ch"),
        ("scipy.sparse.csc", "os"),
        ("numpy.core.multiarray", "fromfile"),
        ("copy_reg", "__newobj__"),
        ("torch.storage", "_load_from_bytes"),
        ("training.networks", "Generator"),
    ],
)
def test_flame_knows_few_names(tmp_path: Path, refusal: Refusal, module: str, name: str) -> None:
    (tmp_path / "generic_model.pkl").write_bytes(f"c{module}\n{name}\n(tR.".encode())
    assert f"asks for {module}.{name}" in refusal(read_flame, "generic_model.pkl")


def test_objects_of_flame_stay_data(tmp_path: Path, canary: Path, refusal: Refusal) -> None:
    path = tmp_path / "generic_model.pkl"
    for value in (stand_in(Ch, x=Attack(canary)), stand_in(csc_matrix, data=Attack(canary))):
        official_files.write_flame(path, v_template=value)
        assert "asks for posix.system" in refusal(read_flame, path.name)
    for state in ({"x": "text"}, {"y": 1}):
        official_files.write_flame(path, v_template=stand_in(Ch, **state))
        assert "v_template: expected an array" in refusal(read_flame, path.name)
    head = b"ccopy_reg\n_reconstructor\n"
    path.write_bytes(head + b"(c__builtin__\nobject\nc__builtin__\nobject\nNtR.")
    assert "makes an object of" in refusal(read_flame, path.name)
    path.write_bytes(head + b"(S'eval'\nc__builtin__\nobject\nNtR.")
    assert "makes an object of 'eval'" in refusal(read_flame, path.name)
    path.write_bytes(b"cchumpy.ch\nCh\n(tR(S'x'\ntb.")
    assert "state is a tuple" in refusal(read_flame, path.name)
    path.write_bytes(pickle.dumps({"v_template": np.array([Attack(canary)], dtype=object)}, 4))
    assert "only numbers are read" in refusal(read_flame, path.name)


def test_flame_masks(tmp_path: Path, canary: Path, refusal: Refusal) -> None:
    for data in (pickle.dumps({"face": Attack(canary)}), python2_pickle({"face": Attack(canary)})):
        (tmp_path / "FLAME_masks.pkl").write_bytes(data)
        assert "asks for posix.system" in refusal(read_flame_masks, "FLAME_masks.pkl")


class _Storage:
    """A tensor whose storage is this pickle."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return torch.storage._load_from_bytes, (self.data,)


@pytest.mark.parametrize("protocol", [3, 4])
def test_landmark_embedding(tmp_path: Path, canary: Path, refusal: Refusal, protocol: int) -> None:
    path = tmp_path / "landmark_embedding.npy"
    nested = io.BytesIO()
    torch.save({"a": Attack(canary)}, nested, _use_new_zipfile_serialization=False)
    for attack, words in (
        (Attack(canary), "asks for posix.system"),
        (_Storage(nested.getvalue()), "asks for posix.system"),
        (_Storage(pickle.dumps(Attack(canary), 2)), "asks for posix.system"),
        (np.array([Attack(canary)] * 2, dtype=object), "asks for posix.system"),
        (np.array([1, "a"], dtype=object), "holds several objects"),
    ):
        official_files.write_landmark_embedding(path, protocol=protocol, more=attack)
        assert words in refusal(read_landmark_embedding, path.name)
    for content in (Attack(canary), [Attack(canary)]):
        numpy1_object_npy(path, content, protocol=protocol)
        assert "asks for posix.system" in refusal(read_landmark_embedding, path.name)
    np.save(path, np.array([Attack(canary)] * 3, dtype=object), allow_pickle=True)
    assert "expected one object" in refusal(read_landmark_embedding, path.name)


def test_headers_of_npy_files(tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "landmark_embedding.npy"
    for header in ("{'descr': __import__('os')}", "{" * 5000, "{'descr': '|O'}", "x" * 60_000):
        path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())
        assert "no .npy file, or is damaged" in refusal(read_landmark_embedding, path.name)
    path.write_bytes(b"\x93NUMPY\x09\x00")
    assert "format version" in refusal(read_landmark_embedding, path.name)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (read_deca, "deca_model.tar"),
        (read_deep3d, "epoch_20.pth"),
        (read_vgg16, "vgg16-397923af.pth"),
        (read_lpips, "vgg.pth"),
        (read_alexnet, "alexnet-owt-7be5be79.pth"),
        (read_lpips_alex, "alex.pth"),
        (read_inception, "pt_inception-2015-12-05-6726825d.pth"),
        (read_styleflow, "modellarge10k.pt"),
        (read_pirenderer, "epoch_00190_iteration_000400000_checkpoint.pt"),
        (read_facevid2vid, "00000189-checkpoint.pth.tar"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints(
    tmp_path: Path, canary: Path, refusal: Refusal, read: Any, name: str, zipped: bool
) -> None:
    for content in ({"opt": Attack(canary)}, Attack(canary), {"E_flame": _Storage(pickle.dumps(1))}):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        said = refusal(read, name)
        assert "no checkpoint that can be read safely" in said
        assert "asks for posix.system" in said or "asks for torch.storage._load_from_bytes" in said
    (tmp_path / name).write_bytes(pickle.dumps(Attack(canary), 2))
    refusal(read, name)


def test_a_real_tar_archive_is_not_unpacked(tmp_path: Path, canary: Path, refusal: Refusal) -> None:
    path = tmp_path / "deca_model.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("pickle", "storages", "tensors", "../canary"):
            data = pickle.dumps(Attack(canary), 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    refusal(read_deca, path.name)


def _mat(kind: int, name: str = "lm") -> bytes:
    """A MATLAB 5 file with one variable of a kind: 16 is a function, 17 opaque, 3 an object."""

    def element(number: int, data: bytes) -> bytes:
        return struct.pack("<II", number, len(data)) + data + b"\0" * (-len(data) % 8)

    flags, label = element(6, struct.pack("<II", kind, 0)), element(1, name.encode())
    inner = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"")
    inner += element(9, struct.pack("<d", 1.0))
    if kind == 17:
        parts = [flags, label, element(1, b"java"), element(1, b"java.lang.Runtime"), element(14, inner)]
    else:
        parts = [flags, element(5, struct.pack("<ii", 1, 1)), label, element(14, inner)]
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    return header + element(14, b"".join(parts))


@pytest.mark.parametrize(
    ("read", "file"),
    [(read_similarity_landmarks, "similarity_Lm3D_all.mat"), (read_bfm, "BFM_model_front.mat")],
)
@pytest.mark.parametrize(
    ("kind", "words"),
    [(16, "is of MATLAB's kind function"), (17, "or holds objects"), (3, "is of MATLAB's kind object")],
)
def test_matlab_functions_and_objects(
    tmp_path: Path, refusal: Refusal, read: Any, file: str, kind: int, words: str
) -> None:
    path = tmp_path / file
    path.write_bytes(_mat(kind))
    assert words in refusal(read, file)
    official_files.write_similarity_landmarks(path)
    path.write_bytes(path.read_bytes() + _mat(kind, "more")[128:])
    assert words in refusal(read, file)


def test_matlab_files_of_other_kinds(tmp_path: Path, canary: Path, refusal: Refusal) -> None:
    from scipy.io import savemat

    path = tmp_path / "similarity_Lm3D_all.mat"
    for content in (
        {"lm": np.array([["a", 1]], dtype=object)},
        {"lm": "text"},
        {"lm": {"a": 1}},
        {"x": 1},
        {"lm": np.zeros((68, 2))},
    ):
        savemat(path, content)
        refusal(read_similarity_landmarks, path.name)
    savemat(path, {"lm": np.zeros((68, 3))}, format="4")
    assert "no MATLAB 5 file" in refusal(read_similarity_landmarks, path.name)
    path.write_bytes(pickle.dumps(Attack(canary)))
    assert "no MATLAB 5 file" in refusal(read_similarity_landmarks, path.name)


def test_onnx(tmp_path: Path, canary: Path, refusal: Refusal) -> None:
    path = tmp_path / "w600k_r50.onnx"
    model = onnx.load_model_from_string(official_files.arcface_network())
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "6144")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    assert "asks for weights in other files" in refusal(read_arcface, path.name)
    model = onnx.load_model_from_string(official_files.arcface_network())
    model.graph.node[0].op_type = "PyOp"
    path.write_bytes(model.SerializeToString())
    assert "no ONNX network that can be read" in refusal(read_arcface, path.name)
    path.write_bytes(official_files.detector_network())
    assert "it gives 9 arrays, expected 1" in refusal(read_arcface, path.name)
    path.write_bytes(pickle.dumps(Attack(canary)))
    refusal(read_arcface, path.name)


def test_packs(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "buffalo_l.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../w600k_r50.onnx", official_files.arcface_network())
    assert read_arcface(path).outputs  # read in memory: a path in the archive means nothing
    assert sorted(found.name for found in tmp_path.iterdir()) == [path.name]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("w600k_r50.onnx", official_files.arcface_network())
    with pytest.raises(ModelFileError, match=r"expected one w600k_r50\.onnx in it"):
        read_arcface(path)


def _read_any(path: Path) -> Any:
    with checking(path, "styleflow"):
        return read_styleflow(path)


def _write_checkpoint(path: Path, zipped: bool) -> None:
    content = {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.arange(5), "c": torch.ones(2).half()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


FORMATS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], Any]]] = {
    "chumpy": ("generic_model.pkl", lambda p: official_files.write_flame(p), read_flame),
    "embedding": ("landmark_embedding.npy", official_files.write_landmark_embedding, read_landmark_embedding),
    "masks": ("FLAME_masks.pkl", official_files.write_flame_masks, read_flame_masks),
    "torch, zip": ("modellarge10k.pt", lambda p: _write_checkpoint(p, True), _read_any),
    "torch, old": ("modellarge10k.pt", lambda p: _write_checkpoint(p, False), _read_any),
    "matlab": ("BFM_model_front.mat", official_files.write_bfm, read_bfm),
    "onnx": (
        "w600k_r50.onnx",
        lambda p: p.write_bytes(official_files.arcface_network()),
        read_arcface,
    ),
    "pack": ("buffalo_l.zip", official_files.write_buffalo, read_arcface),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_give_only_our_error(tmp_path: Path, kind: str) -> None:
    """Cut anywhere, bytes changed anywhere, most of them where the structure is."""
    name, write, read = FORMATS[kind]
    path = tmp_path / name
    write(path)
    data, rng, refused = path.read_bytes(), random.Random(0), 0
    read(path)
    for turn in range(60):
        changed = bytearray(data)
        if turn % 4 == 0:
            del changed[rng.randrange(len(data)) :]
        for _ in range(rng.choice([1, 2, 8]) if turn % 4 else 0):
            changed[rng.randrange(min(len(data), 4000) if turn % 3 else len(data))] = rng.randrange(256)
        path.write_bytes(changed)
        try:
            read(path)
        except ModelFileError:
            refused += 1
    assert refused >= 15
