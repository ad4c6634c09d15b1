"""The reference folder: where it is, its arrays, its recipe for weights, and distances from its numbers.

Nothing in these tests may know a seed, a size or a count of one folder: another folder of the same form runs
through them (``tests.plain.folder`` writes one). Numbers that stay are the published systems' own.
"""

import importlib.util
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(os.environ.get("PORTRAIT_REFERENCE", Path(__file__).parents[2] / "../shared/reference"))


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip, and say why, where the reference folder lacks one of these files."""
    absent = [str(ROOT / name) for name in names if not (ROOT / name).exists()]
    reason = f"no reference numbers at {', '.join(absent)}; set PORTRAIT_REFERENCE to their folder"
    return pytest.mark.skipif(bool(absent), reason=reason)


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def tensors(path: Path) -> dict[str, Tensor]:
    """The same as tensors."""
    return {name: torch.from_numpy(value) for name, value in arrays(path).items()}


def named(names: Iterable[str], pattern: str) -> tuple[str, tuple[int, ...]]:
    """The one name that matches ``pattern`` as a whole, and the numbers that the pattern's groups hold:
    arrays are named after their stride or size (``planes_s8``), which another folder may choose otherwise."""
    found = [match for name in names if (match := re.fullmatch(pattern, name))]
    assert len(found) == 1, f"{len(found)} names match {pattern}"
    return found[0][0], tuple(int(number) for number in found[0].groups())


def thinned(maps: Tensor, step: int) -> Tensor:
    """Every ``step``-th pixel of ``[b,c,h,w]`` in both directions, from the middle of the first ``step``."""
    return maps[:, :, step // 2 :: step, step // 2 :: step]


def error(got: Tensor, wanted: Tensor) -> float:
    """The largest difference."""
    assert got.shape == wanted.shape
    return float((got - wanted).detach().abs().max())


def relative(got: Tensor | None, wanted: Tensor) -> float:
    """The difference over the size of what is wanted."""
    assert got is not None
    return float((got - wanted).norm() / wanted.norm())


def seeding() -> ModuleType:
    """The folder's own recipe for weights."""
    spec = importlib.util.spec_from_file_location("seeded_weights", ROOT / "seeded_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeded_state(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """The entries ``shapes`` names, drawn with ``seed``."""
    made = seeding().seeded_state_dict({name: tuple(shape) for name, shape in shapes.items()}, seed)
    return {name: torch.from_numpy(value) for name, value in made.items()}
