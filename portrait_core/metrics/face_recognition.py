"""dlib's face-recognition network, whose gradients reach the picture.

A residual network of 29 convolutions with half the channels of ResNet-34 (He et al. 2016; King 2017), trained
by Euclidean distance: pictures of one person are to lie nearer than 0.6, those of two people farther. Its
weights come with the program (``data/README.md``), in the 8 bits of the package that they are taken from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.tracking.encoders import build
from portrait_core.weights.file_checks import checking
from portrait_core.weights.readers.safetensors_files import open_safetensors

SIDE = 150
"""Side of a face in pixels."""
WIDTH = 128
"""Numbers of a vector."""
MEAN_RGB = (122.782, 117.001, 104.298)
"""Mean that is subtracted from levels 0..255; the difference is divided by 256."""
STEM = "conv32_down"
BLOCKS = (
    *(("conv32_1", 32, False), ("conv32_2", 32, False), ("conv32_3", 32, False)),
    *(("conv64_down", 64, True), ("conv64_1", 64, False), ("conv64_2", 64, False), ("conv64_3", 64, False)),
    *(("conv128_down", 128, True), ("conv128_1", 128, False), ("conv128_2", 128, False)),
    *(("conv256_down", 256, True), ("conv256_1", 256, False), ("conv256_2", 256, False)),
    ("conv256_down_out", 256, True),
)
"""Residual blocks in order: name, channels, and whether it halves the picture."""
RANGE = ".range"
"""End of the name under which the scale and the minimum ``[2]`` of an array of 8 bits are stored."""
_MODEL = "face_recognition"


class _Convolution(nn.Module):
    """A convolution, then one scale and shift per channel: batch normalisation at rest."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        # the published network pads only where it keeps the size
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0)
        self.scale, self.shift = nn.Parameter(torch.ones(outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.conv(x) * self.scale[:, None, None] + self.shift[:, None, None]
        return scaled


class _Block(nn.Module):
    """Two convolutions with a way around them; where the block halves the picture, a mean of 2 by 2 pixels.

    Of both sums' terms the smaller one is filled up with zeros, in channels and at the right and lower edge.
    """

    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1 = _Convolution(inputs, outputs, 3, 2 if halves else 1)
        self.conv2 = _Convolution(outputs, outputs, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x).relu())
        if not self.halves:
            return (out + x).relu()
        around = F.avg_pool2d(x, 2)
        sizes = tuple(map(max, zip(out.shape[1:], around.shape[1:], strict=True)))
        return (_filled_up(out, sizes) + _filled_up(around, sizes)).relu()


def _filled_up(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    missing = [wanted - size for wanted, size in zip(sizes, x.shape[1:], strict=True)]
    return F.pad(x, [amount for size in reversed(missing) for amount in (0, size)]) if any(missing) else x


class FaceRecognition(nn.Module):
    """The network; see :func:`load_face_recognition`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 7, 2)
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 32
        for name, outputs, halves in BLOCKS:
            blocks[name] = _Block(inputs, outputs, halves)
            inputs = outputs
        self.blocks = nn.Sequential(blocks)
        self.fc = nn.Linear(inputs, WIDTH, bias=False)

    def forward(self, faces: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Return the vectors of faces ``[n,3,150,150]`` RGB in [-1,1], cut as dlib does; not of length 1.

        Raises:
            ValueError: for another shape.
        """
        if faces.ndim != 4 or faces.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(
                f"faces are {list(faces.shape)}, expected [n,3,{SIDE},{SIDE}]; cut_faces cuts them"
            )
        # channel by channel, with plain numbers: nothing is copied to the device
        channels = zip(faces.unbind(1), MEAN_RGB, strict=True)
        levels = torch.stack([(x * 127.5 + (127.5 - mean)) / 256 for x, mean in channels], 1)
        x = F.max_pool2d(self.stem(levels).relu(), 3, 2)
        vectors: Tensor = self.fc(self.blocks(x).mean((2, 3)))
        return vectors


def face_recognition_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the network's weights by name."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in FaceRecognition().state_dict().items()}


def read_face_recognition(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of the network.

    Each is stored as float32, or as uint8 beside a ``.range`` of scale and minimum (float64): its values are
    ``stored * scale + minimum``, rounded to float32.

    Returns:
        float32 tensors by the names of :class:`FaceRecognition`.

    Raises:
        ModelFileError: the file is missing, damaged or another network's.
    """
    with checking(path, _MODEL), open_safetensors(path) as file:
        return _read(file, face_recognition_shapes())


def _read(file: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    names = set(file.keys())
    unknown = sorted(name for name in names if name.removesuffix(RANGE) not in shapes)
    missing = sorted(shapes.keys() - names)
    if unknown or missing:
        wrong = [f"{name} is unknown" for name in unknown[:2]] + [
            f"{name} is missing" for name in missing[:2]
        ]
        raise ValueError(f"these are no weights of the face-recognition network: {', '.join(wrong)}")
    return {name: _value(file, name, shape, name + RANGE in names) for name, shape in shapes.items()}


def _value(file: Any, name: str, shape: tuple[int, ...], coded: bool) -> Tensor:
    stored = file.get_slice(name)
    kind, expected = stored.get_dtype(), "U8" if coded else "F32"
    if tuple(stored.get_shape()) != shape or kind != expected:
        raise ValueError(f"{name} is {kind} {list(stored.get_shape())}, expected {expected} {list(shape)}")
    value: Tensor = file.get_tensor(name)
    if coded:
        about = file.get_slice(name + RANGE)
        if about.get_dtype() != "F64" or about.get_shape() != [2]:
            raise ValueError(f"{name}{RANGE} is {about.get_dtype()} {about.get_shape()}, expected F64 [2]")
        scale, minimum = file.get_tensor(name + RANGE)
        value = (value.double() * scale + minimum).float()
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} has values that are not finite")
    return value


def load_face_recognition(path: str | Path, device: str | torch.device = "cpu") -> FaceRecognition:
    """Load the network in evaluation mode, its weights without gradients.

    Args:
        path: ``face_recognition.safetensors``.
        device: where it computes.

    Raises:
        ModelFileError: as :func:`read_face_recognition`.
    """
    return build(FaceRecognition, read_face_recognition(path)).to(device)
