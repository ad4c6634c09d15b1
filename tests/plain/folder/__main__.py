"""Write another reference folder: ``python -m tests.plain.folder FOLDER [--seed N] [--published-flow]``."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

from portrait_core.attribute_editing.settings import StyleFlowArchitecture
from tests import official_files
from tests.plain.folder import cameras, faces, flow, generators

RECIPE = '''"""The recipe for weights, as the published folder has it."""

import zlib

import numpy as np
import torch


{seeded}

def seeded_array(name, shape, seed):
    """Return the float32 array of an entry."""
    return seeded(name, shape, seed).numpy()


def seeded_state_dict(shapes, seed):
    """Return one array for every name and shape."""
    return {{name: seeded_array(name, shape, seed) for name, shape in shapes.items()}}
'''


def main(arguments: list[str] | None = None) -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--published-flow", action="store_true", help="the flow in its published size")
    given = parser.parse_args(arguments)
    folder, seed = given.folder, 1000 * given.seed
    generators.eg3d(folder / "eg3d", seed + 1)
    generators.full512(folder / "eg3d", seed + 2)
    generators.stylegan(folder / "stylegan2", seed + 3)
    faces.write_flame(folder / "flame", seed + 4)
    faces.write_deca_encoder(folder / "deca_encoder", seed + 5)
    faces.write_deca_decode(folder / "deca_decode", seed + 8)
    faces.write_deep3dface(folder / "deep3dface", seed + 9)
    cameras.write(folder / "eg3d_camera", seed + 10)
    architecture = StyleFlowArchitecture() if given.published_flow else flow.NARROW
    flow.write(folder / "styleflow", seed + 11, architecture)
    source = (
        inspect.getsource(official_files.seeded)
        .replace("shape: Sequence[int]", "shape")
        .replace(" -> Tensor", "")
    )
    (folder / "seeded_weights.py").write_text(RECIPE.format(seeded=source))
    for system in ("flame", "deca_encoder", "deep3dface"):
        (folder / system / "README.md").write_text("Written by tests/plain/folder.\n")


if __name__ == "__main__":
    main()
