"""The folder's conditional flow: ``styleflow``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.attribute_editing.settings import SolverSettings, StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow_training import negative_log_likelihood, published_offset
from tests.official_flow import filled, flow_state
from tests.plain import styleflow
from tests.plain.folder.common import rounded, write_arrays, write_json

NARROW = StyleFlowArchitecture(width=96, hidden=(80, 112, 96, 72))
"""For haste; ``StyleFlowArchitecture()`` is the published one."""
KINDS = {"wplus18": (1, 18), "ws14": (3, 9), "single": (2, 1)}
"""Batch and rows of each kind; the table of edits is one of 18 rows."""
SLIDERS = (
    (0, 1.5, (0, 8)),
    (2, 1.0, (0, 4)),
    (7, 1.0, (4, 6)),
    (6, 0.93, (4, 8)),
    (99, 1.0, (7, 12)),
    (1, 2.5, (2, 4)),
    (3, 1.0, (0, 4)),
    (4, 2.0, (0, 6)),
    (5, 1.7, (5, 10)),
)
"""Index, degree and changed rows of nine edits (the README's table); 99 is the lighting."""
Array = NDArray[np.float64]


def conditions(rng: np.random.Generator, count: int) -> Array:
    """Attributes ``[count,17]`` in their units."""
    light = rng.normal(size=(count, 9)) * 0.2
    switches = rng.integers(0, 2, (count, 2))
    angles = rng.normal(size=(count, 2)) * [11, 7]
    others = rng.uniform(size=(count, 4)) * [1, 0.9, 60, 1]
    return rounded(np.concatenate([light, switches, angles, others], 1))


def rows_of(
    params: styleflow.Params, x: Array, cond: Array, noise: Array, reverse: bool
) -> tuple[Array, Array]:
    """The plain flow of every row of ``x [b,l,d]`` under ``cond [b,17]``."""
    out, change = np.zeros_like(x), np.zeros((*x.shape[:2], 1))
    for b, row in np.ndindex(*x.shape[:2]):
        found = styleflow.flow(params, x[b, row], cond[b], noise[b, row], reverse=reverse)
        out[b, row], change[b, row, 0] = found
    return out, change


def both_ways(params: styleflow.Params, rng: np.random.Generator, width: int) -> dict[str, Array]:
    """Each kind of batch to z, and back under other conditions."""
    out: dict[str, Array] = {}
    for kind, (batch, rows) in KINDS.items():
        w, noise = (rounded(rng.normal(size=(batch, rows, width))) for _ in range(2))
        cond, target = conditions(rng, batch), conditions(rng, batch)
        z, dlogp = rows_of(params, w, cond, noise, False)
        back, dlogp_back = rows_of(params, z, target, noise, True)
        found = {"w": w, "noise": noise, "z": z, "dlogp": dlogp, "w_target": back, "dlogp_target": dlogp_back}
        found |= {"cond": cond[:, :, None, None], "cond_target": target[:, :, None, None]}
        out |= {f"{kind}_{name}": value for name, value in found.items()}
    exact = [
        styleflow.flow(params, w[0], c.ravel())[1]
        for w, c in zip(out["single_w"], out["single_cond"], strict=True)
    ]
    return out | {"single_dlogp_exact": np.array(exact)[:, None, None]}


def edits(params: styleflow.Params, rng: np.random.Generator, w: Array, cond: Array) -> dict[str, Any]:
    """Nine edits in a row of ``w [18,d]``, as the published interface makes them."""
    light, silent = rounded(rng.normal(size=9) * 0.2), np.ones_like(w)

    def moved(x: Array, under: Array, reverse: bool) -> Array:
        return rows_of(params, x[None], under[None], silent[None], reverse)[0][0]

    start, target, z = cond.copy(), cond.copy(), moved(w, cond, False)
    values, after, labels = [], [], []
    for index, degree, (first, end) in SLIDERS:
        if index == 99:
            value, target[:9] = np.nan, light
        else:
            value = float(rng.uniform(0, 10) if index in (2, 3, 6) else rng.uniform())
            target[9 + index] = degree * (value - start[9 + index]) + start[9 + index]
        edited = moved(z, target, True)
        w = np.concatenate([w[:first], edited[first:end], w[end:]])
        z = moved(w, target, False)
        values.append(value)
        after.append(w)
        labels.append(target.copy())
    found = {"index": np.array([s[0] for s in SLIDERS]), "slider": np.array(values), "light": light}
    found |= {"w_after": np.stack(after), "cond_after": np.stack(labels), "z_after_last": z[None]}
    return {f"edit_{name}": value for name, value in found.items()}


def trained(
    settings: StyleFlowArchitecture, seed: int, rng: np.random.Generator
) -> tuple[dict[str, Any], Any]:
    """One training step's terms, gradients and statistics: ours in double precision, at fine tolerances."""
    batch, rows, last = 4, 3, len(settings.hidden)
    w, noise = (rounded(rng.normal(size=(batch, rows, settings.width))) for _ in range(2))
    cond = conditions(rng, batch)
    flow = filled(settings, flow_state(settings, seed)).double().requires_grad_(True).train()
    x, labels, e = (torch.from_numpy(value) for value in (w, cond, noise))
    before = float(flow.get_buffer("chain.0.step"))
    found = negative_log_likelihood(flow, x, labels, e, SolverSettings(rtol=1e-9, atol=1e-9))
    found.loss.backward()
    offset = published_offset(settings.width, rows)
    grads = {name: p.grad for name, p in flow.named_parameters() if p.grad is not None}
    layers = "chain.1.odefunc.diffeq.layers"
    kept = {
        "sqrt_end_time": grads["chain.1.sqrt_end_time"],
        "layer0_hyper_bias": grads[f"{layers}.0._hyper_bias.weight"],
        f"layer{last}_bias": grads[f"{layers}.{last}._layer.bias"],
        "first_gain": grads["chain.0.weight"],
    }
    out: dict[str, Any] = {
        "w": w,
        "cond": cond[:, :, None, None],
        "noise": noise,
        "loss": found.loss + offset,
    }
    out |= {"prior": (found.prior - offset)[:, None], "delta": found.delta[:, None]}
    out |= {f"grad_{name}": value for name, value in kept.items()}
    for i, place in ((0, "first"), (2, "last")):
        out |= {
            f"running_{kind}_{place}": flow.get_buffer(f"chain.{i}.running_{kind}")
            for kind in ("mean", "var")
        }
    norms = {name: float(grad.norm()) for name, grad in grads.items()}
    measured = {
        "gradient_l2": norms,
        "step_before": before,
        "step_after": float(flow.get_buffer("chain.0.step")),
    }
    return {f"train_{name}": value for name, value in out.items()}, measured


def write(folder: Path, seed: int, settings: StyleFlowArchitecture = NARROW) -> None:
    """``state_dict.json``, ``fixture.npz`` and ``measured.json``."""
    rng, state = np.random.default_rng(seed), flow_state(settings, seed)
    shapes = {name: list(value.shape) for name, value in state.items()}
    write_json(folder / "state_dict.json", {"seed": seed, "state_dict": shapes})
    params = {name: value.double().numpy() for name, value in state.items()}
    out: dict[str, Any] = both_ways(params, rng, settings.width)
    out |= edits(params, rng, out["wplus18_w"][0], out["wplus18_cond"].ravel())
    training, measured = trained(settings, seed, rng)
    write_arrays(folder / "fixture.npz", out | training, exact=("train_prior", "train_delta", "train_loss"))
    # what the published code took on the published folder; it is not here to be counted
    write_json(
        folder / "measured.json", {kind: {"nfe_float32": 20.0} for kind in KINDS} | {"train": measured}
    )
