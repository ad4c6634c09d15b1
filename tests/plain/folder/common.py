"""What the parts of the folder share: arrays of single precision, smooth pictures, the recipe for weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tests.official_files import Shapes, seeded

Arrays = dict[str, Any]


def write_arrays(path: Path, arrays: Mapping[str, Any], exact: tuple[str, ...] = ()) -> None:
    """Write an ``.npz``: tensors and doubles as float32, but those named in ``exact`` as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made: dict[str, Any] = {}
    for name, value in arrays.items():
        array = np.asarray(value.detach() if isinstance(value, Tensor) else value)
        made[name] = array.astype(np.float32) if array.dtype == np.float64 and name not in exact else array
    np.savez_compressed(path, **made)


def write_json(path: Path, content: Any) -> None:
    """Write ``content``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def picture(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """A smooth coloured picture ``[height,width,3]``."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40 + 3, width // 40 + 3, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The doubles that a float32 file holds: results must be those of what is stored."""
    return values.astype(np.float32).astype(np.float64)


def generator_weights(seed: int) -> Callable[[torch.nn.Module], None]:
    """A function that fills a generator by the recipe of ``full512.json``, with ``seed``."""

    def fill(network: torch.nn.Module) -> None:
        state = network.state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        network.load_state_dict(state | recipe(shapes, seed))

    return fill


def recipe(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """The values that the recipe gives entries of a generator's state; filters are left out."""
    made = {}
    for name, shape in shapes.items():
        value = seeded(name, shape, seed).numpy()
        if name.endswith("resample_filter"):
            continue
        if name.endswith("w_avg"):
            value = np.float32(3) * (value - np.float32(1))
        elif name.endswith("affine.bias"):
            value = value + np.float32(1)
        elif "mapping.fc" in name and name.endswith(".bias"):
            value = np.float32(100) * value
        elif name == "decoder.net.2.bias":
            value[0] += np.float32(3)
        elif value.ndim >= 2:
            value = value * np.sqrt(np.prod(shape[1:])).astype(np.float32)
            if "mapping.fc" in name:
                value = value * np.float32(100)
            if name == "decoder.net.2.weight":
                value[0] = np.float32(10) * (value[0] - value[0].mean())
        made[name] = torch.from_numpy(np.asarray(value, np.float32))
    return made
