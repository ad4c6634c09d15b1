"""Probes of files of weights: what they announce, ask for and lead to."""

from __future__ import annotations

import struct
from pathlib import Path

import torch

from tests.hostile import files_weights as weights
from tests.hostile.bench import MUCH_MB, Bench, Open, clean_text, in_order, refused, shown, small
from tests.hostile.capped import Ended
from tests.hostile.registry import probe


def check(bench: Bench, path: Path, seconds: float = 60.0) -> Ended:
    """Check a file of weights."""
    return bench.portrait("models", "check", path, seconds=seconds)


def bomb(bench: Bench, name: str, data: bytes, much_mb: float = MUCH_MB) -> str:
    """Check a hostile file: it is refused in little memory."""
    return _refused_small(bench, check(bench, bench.place(name, data)), much_mb)


def _refused_small(bench: Bench, ended: Ended, much_mb: float = MUCH_MB) -> str:
    small(ended, check(bench, bench.place("vgg.pth", b"x")), much_mb)
    return refused(ended)


# Rows of the table


@probe("weights21", "medium", 12)
def expanded_tensor(bench: Bench) -> str:
    """1.6 kB of checkpoint with a tensor that repeats one number a billion times."""
    return bomb(bench, "modellarge10k.pt", weights.saved({"a": torch.zeros(1).expand(10**9)}))


@probe("weights21", "medium", 12)
def deflated_checkpoint(bench: Bench) -> str:
    """A checkpoint whose archive is compressed: 2 MB of four gigabytes."""
    small_one = weights.saved({"features.0.weight": torch.zeros(1 << 28)})
    return bomb(bench, "vgg16-397923af.pth", weights.deflated(small_one))


@probe("weights21", "low", 18)
def external_data_in_a_function(bench: Bench) -> str:
    """An ONNX file asks for another file in a function's body, a branch, a sparse or a training tensor."""
    secret = bench.place("secret.bin", struct.pack("<4f", 1, 2, 3, 4))
    code = (
        "import sys; from portrait_core.weights.readers.onnx_files import read_onnx\n"
        "print(len(read_onnx(sys.argv[1]).data))"
    )
    for place in ("initializer", "subgraph", "function", "sparse", "training"):
        for location in (secret.name, str(secret)):
            path = bench.place("face_landmarks_468.onnx", weights.onnx_asking_for(location, place))
            ended = bench.python(code, path)
            if ended.code == 0:
                raise Open(f"{place}: accepted")
            if "other files" not in ended.output:
                raise Open(f"{place}: left to the runtime: {shown(ended.last_line)}")
    return shown(ended.last_line)


# Others: torch


@probe("weights21", "medium")
def many_views_of_a_storage(bench: Bench) -> str:
    """A checkpoint of 4,000 tensors that share one megabyte."""
    one = torch.zeros(1 << 18)
    state = {f"a{i}": one.view(512, 512) for i in range(4000)}
    return bomb(bench, "modellarge10k.pt", weights.saved(state))


@probe("weights21", "medium")
def expanded_in_the_old_format(bench: Bench) -> str:
    """The older format with a repeated tensor, in files whose shapes are not compared first."""
    content = weights.saved(
        {"net_recon": {"a": torch.zeros(1).expand(10**9)}, "x": torch.zeros(1).expand(10**9)}, False
    )
    for name in (
        "efficientnet-lite0-57934424.pth",
        "epoch_20.pth",
        "deca_model.tar",
        "00000189-checkpoint.pth.tar",
    ):
        said = bomb(bench, name, content)
    return said


@probe("weights21", "medium")
def deflated_pickle(bench: Bench) -> str:
    """A checkpoint whose data.pkl is compressed, a text of two gigabytes."""
    import io
    import zipfile

    plain = weights.saved({"a": torch.zeros(4)})
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(plain)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            if not info.filename.endswith("data.pkl"):
                new.writestr(info.filename, old.read(info))
                continue
            with new.open(info.filename, "w", force_zip64=True) as file:
                file.write(b"\x80\x02}q\0X\1\0\0\0aX" + struct.pack("<I", 2_000_000_000))
                for _ in range(200):
                    file.write(b"b" * 10_000_000)
                file.write(b"s.")
    return bomb(bench, "vgg16-397923af.pth", target.getvalue())


def _odd_tensors() -> dict[str, torch.Tensor]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = {
            "meta": torch.empty(3, device="meta"),
            "complex": torch.zeros(3, dtype=torch.complex64),
            "sparse": torch.zeros(3, 3).to_sparse(),
            "csr": torch.zeros(3, 3).to_sparse_csr(),
            "quantized": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
            "float8": torch.zeros(3).to(torch.float8_e4m3fn),
        }
        values["nested"] = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    return values


@probe("weights21", "medium-low")
def tensors_of_odd_kinds(bench: Bench) -> str:
    """Tensors without values, nested, sparse, complex and of eight bits: refused by our error."""
    said = ""
    for kind, value in _odd_tensors().items():
        for name, key in (("modellarge10k.pt", "a"), ("alexnet-owt-7be5be79.pth", "features.0.weight")):
            ended = check(bench, bench.place(name, weights.saved({key: value})))
            try:
                said = refused(ended)
            except Open as found:
                raise Open(f"{kind} in {name}: {found}") from None
    return said


@probe("weights21", "medium-low")
def state_of_odd_names(bench: Bench) -> str:
    """States with keys that are numbers, tuples and escapes, and values that are no tensors."""
    contents: tuple[object, ...] = (
        {1: torch.zeros(1)}, {(1, 2): torch.zeros(1)}, [torch.zeros(1)], torch.zeros(1),
        {"\x1b]52;c;eA==\x07": 1},
        {"a": {"b": torch.zeros(1)}}, {None: None}, "text", 5, {},
    )  # fmt: skip
    for content in contents:
        for name in (
            "modellarge10k.pt",
            "vgg16-397923af.pth",
            "deca_model.tar",
            "pt_inception-2015-12-05-6726825d.pth",
        ):
            ended = check(bench, bench.place(name, weights.saved(content)))
            try:
                refused(ended)
                clean_text(ended)
            except Open as found:
                raise Open(f"{content!r:.40} in {name}: {found}") from None
    return shown(ended.last_line)


@probe("weights21", "medium-low")
def names_in_pickles_with_escapes(bench: Bench) -> str:
    """Pickles that ask for names with terminal escapes: they do not reach the terminal."""
    data = b"\x80\x02cos\x1b]52;c;eA==\x07\nsys\x1b[31mtem\n(tR."
    for name in ("generic_model.pkl", "FLAME_masks.pkl", "vgg16-397923af.pth", "network.pkl"):
        ended = check(bench, bench.place(name, data))
        refused(ended)
        clean_text(ended)
    return shown(ended.last_line)


# Others: archives, mat, npy, ONNX, OBJ, safetensors


@probe("weights21", "medium")
def mat_of_a_gigabyte(bench: Bench) -> str:
    """1 MB of compressed MATLAB file of a gigabyte of zeros."""
    return bomb(bench, "similarity_Lm3D_all.mat", weights.mat_of_zeros("lm", 16384, 8191))


@probe("weights21", "medium")
def mat_that_lies(bench: Bench) -> str:
    """A MATLAB file that announces a petabyte, and one with a compressed variable that nobody asks for."""
    data = bytearray(weights.mat_of_zeros("lm", 4, 4))
    said = bomb(bench, "similarity_Lm3D_all.mat", bytes(data[:-20]))
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    flags = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, 2**31 - 1, 2**20)
    body = flags + struct.pack("<II", 1, 2) + b"lm".ljust(8, b"\0") + struct.pack("<II", 9, 2**32 - 8)
    bomb(bench, "similarity_Lm3D_all.mat", head + struct.pack("<II", 14, 2**32 - 8) + body)
    return said


@probe("weights21", "medium")
def zip_of_a_gigabyte(bench: Bench) -> str:
    """A pack of 1 MB whose network has a gigabyte of zeros."""
    return bomb(bench, "buffalo_l.zip", weights.zip_of_zeros("det_10g.onnx", (1 << 30) - (1 << 24)))


@probe("weights21", "medium")
def zip_of_another_kind(bench: Bench) -> str:
    """A pack compressed by bzip2 and LZMA, whose inside is a gigabyte."""
    import io
    import zipfile

    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", kind) as archive:
            archive.writestr("det_10g.onnx", bytes(900_000_000))
        said = bomb(bench, "buffalo_l.zip", target.getvalue())
    return said


@probe("weights21", "medium")
def onnx_that_announces(bench: Bench) -> str:
    """An ONNX file whose tensors announce ten billion numbers and hold none, and constants that grow."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[10**10])
    typed = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[10**5, 10**5], raw_data=b"1234")
    shape = numpy_helper.from_array(np.array([10**5, 10**4], np.int64), "s")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graphs = [
        helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
        for tensor in (huge, typed)
    ]
    grown = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    graphs.append(helper.make_graph(grown, "g", [x], [y], [shape]))
    sparse_w = helper.make_sparse_tensor(
        helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]), helper.make_tensor("i", TensorProto.INT64,
        [1], [0]),
        [30_000, 30_000],
    )  # fmt: skip
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y])
    graph.sparse_initializer.append(sparse_w)
    graphs.append(graph)
    for number, one in enumerate(graphs):
        data = helper.make_model(
            one, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()
        ended = check(bench, bench.place("face_landmarks_468.onnx", bytes(data)))
        try:
            in_order(ended)
            small(ended, check(bench, bench.place("vgg.pth", b"x")))
        except Open as found:
            raise Open(f"network {number}: {found}") from None
    return shown(ended.last_line)


@probe("weights21", "medium")
def npy_of_many_kinds(bench: Bench) -> str:
    """npy headers and pickles that announce arrays without end."""
    import pickle

    import numpy as np

    def header(text: str) -> bytes:
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()

    repeated = b"\x80\x02(" + b"]" + b"q\0" + b"(h\0h\0h\0h\0h\0h\0h\0h\0e" * 20 + b"t."
    big = np.lib.stride_tricks.as_strided(np.zeros(1), (10, 10), (0, 0))
    for data in (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        header("{'descr': '|S1000000000', 'fortran_order': False, 'shape': (), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (), }") + repeated,
        header("{'descr': '|O', 'fortran_order': False, 'shape': (), }") + pickle.dumps(big, 2),
        header("{'descr': '|O', 'fortran_order': False, 'shape': " + "(" * 200 + ")" * 200 + ", }"),
        header("{'descr': " + "-" * 5000 + "1}"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (), }")
        + b"\x80\x02"
        + b"L"
        + b"9" * 100_000
        + b"L\n.",
    ):
        said = bomb(bench, "landmark_embedding.npy", data)
    return said


@probe("weights21", "medium")
def pickles_that_grow(bench: Bench) -> str:
    """Pickles of chumpy whose memo grows, whose numbers have a million digits, and that nest without end."""
    long = b"\x80\x02\x8b" + struct.pack("<i", 50_000_000) + b"\xff" * 50_000_000 + b"."
    deep = b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b"."
    doubled = b"\x80\x02" + b"(K\x01t" + b"".join(b"2\x86" for _ in range(60)) + b"."
    text = b"\x80\x02X\x01\0\0\0aq\0" + b"h\0h\0\x86" * 10 + b"."
    put = b"\x80\x02K\x01r\xff\xff\xff\x7f."
    said = ""
    for data in (long, deep, doubled, text, put):
        for name in ("generic_model.pkl", "network.pkl"):
            said = bomb(bench, name, data)
    return said
