"""FID's Inception network, in the variant of pytorch-fid, whose file of weights the user brings.

Inception v3 (Szegedy et al. 2015) as TensorFlow's model of 2015-12-05 has it. It differs from torchvision's,
after which the file names its entries: 1008 outputs, average pools that leave their padding out of the mean,
and a max pool in the last block. Pictures enter as floats in 0..1, are resized to 299 x 299 (bilinear, not
antialiased, ``align_corners`` False) and scaled to -1..1. Tools that resize otherwise, such as clean-fid and
torch-fidelity, give other numbers, which must not be mixed with these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.tracking.encoders import build
from portrait_core.weights.file_checks import checking
from portrait_core.weights.locate import require
from portrait_core.weights.readers.torch_files import (
    Shapes,
    State,
    network_shapes,
    read_torch,
    select_tensors,
)

VARIANT = "FID, pytorch-fid"
"""Name of the Fréchet distance of this network's features, to stand beside every such number."""
KERNEL_VARIANT = "KID, features of pytorch-fid"
"""Name of the kernel distance of the same features."""
SIDE = 299
"""Side in pixels of what the network sees."""
FEATURES = 2048
OUTPUTS = 1008
_COUNTER = "num_batches_tracked"

Pair = tuple[int, int]


class _Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | Pair, stride: int = 1, padding: int | Pair = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _mean_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


class _Mixed35(nn.Module):
    """Mixed block on the grid of 35 x 35 (figure 5 of the paper)."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 64, 1)
        self.branch5x5_1 = _Conv(inputs, 48, 1)
        self.branch5x5_2 = _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        branches = [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double]
        return torch.cat([*branches, self.branch_pool(_mean_pool(x))], 1)


class _Shrink17(nn.Module):
    """From 35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class _Mixed17(nn.Module):
    """Mixed block on the grid of 17 x 17, with convolutions of 7 x 1 and 1 x 7 (figure 6)."""

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 192, 1)
        self.branch7x7_1 = _Conv(inputs, inner, 1)
        self.branch7x7_2 = _Conv(inner, inner, (1, 7), padding=(0, 3))
        self.branch7x7_3 = _Conv(inner, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = _Conv(inputs, inner, 1)
        self.branch7x7dbl_2 = _Conv(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = _Conv(inner, inner, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = _Conv(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = _Conv(inner, 192, (1, 7), padding=(0, 3))
        self.branch_pool = _Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_mean_pool(x))], 1)


class _Shrink8(nn.Module):
    """From 17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(inputs, 192, 1)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Conv(inputs, 192, 1)
        self.branch7x7x3_2 = _Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        branches = [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven)]
        return torch.cat([*branches, F.max_pool2d(x, 3, stride=2)], 1)


class _Mixed8(nn.Module):
    """Mixed block on the grid of 8 x 8, with widened banks of filters (figure 7)."""

    def __init__(self, inputs: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._pool = pool
        self.branch1x1 = _Conv(inputs, 320, 1)
        self.branch3x3_1 = _Conv(inputs, 384, 1)
        self.branch3x3_2a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        wide = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        wide += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *wide, self.branch_pool(self._pool(x))], 1)


class Inception(nn.Module):
    """FID's Inception v3 with the file's names; its classifier ``fc`` is kept, and not used."""

    feature_size = FEATURES
    variant = VARIANT

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b = _Mixed35(192, 32)
        self.Mixed_5c = _Mixed35(256, 64)
        self.Mixed_5d = _Mixed35(288, 64)
        self.Mixed_6a = _Shrink17(288)
        self.Mixed_6b = _Mixed17(768, 128)
        self.Mixed_6c = _Mixed17(768, 160)
        self.Mixed_6d = _Mixed17(768, 160)
        self.Mixed_6e = _Mixed17(768, 192)
        self.Mixed_7a = _Shrink8(768)
        self.Mixed_7b = _Mixed8(1280, _mean_pool)
        self.Mixed_7c = _Mixed8(2048, _max_pool)
        self.fc = nn.Linear(FEATURES, OUTPUTS)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Inception:
        """Take the published entries (:func:`read_inception`), all of them and no others.

        Raises:
            ValueError: if an entry is missing, unknown or misshaped.
        """
        return build(cls, state)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Inception:
        """Read the network from its file; None takes the one in the models folder.

        Raises:
            ModelFileError: if the file is missing, or is not pytorch-fid's.
        """
        return cls.from_state(read_inception(require(["inception"])["inception"] if path is None else path))

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048"]:
        """Return the pooled features of pictures in 0..1, of any size."""
        x = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False) * 2 - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


@cache
def inception_shapes() -> Shapes:
    """Return the shapes of the network's entries."""
    return network_shapes(Inception)


def read_inception(path: str | Path) -> State:
    """Read ``pt_inception-2015-12-05-6726825d.pth`` of pytorch-fid.

    Counters of batches, which older releases of PyTorch did not write, may be missing.

    Raises:
        ModelFileError: if it is missing, holds more than tensors, or lacks weights; torchvision's Inception
            v3, which is another network, is refused too.
    """
    with checking(path, "inception"):
        content, shapes = read_torch(path), inception_shapes()
        unknown = [name for name in content if name not in shapes] if isinstance(content, Mapping) else []
        if unknown:
            raise ValueError(
                f"it holds {unknown[0]!s:.60}, which FID's Inception has not; is it torchvision's network?"
            )
        wanted = {
            name: shape
            for name, shape in shapes.items()
            if not name.endswith(_COUNTER) or (isinstance(content, Mapping) and name in content)
        }
        state = select_tensors(content, wanted, "Inception")
        zero = {name: torch.zeros((), dtype=torch.int64) for name in shapes if name not in state}
        return {**zero, **state}
