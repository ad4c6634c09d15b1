"""A clip whose frames are ready to be inverted or rendered: what the stages before would have left."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.face_model.directions import direction_names
from portrait_core.generators.prepared import generator_bytes
from portrait_core.generators.scene_latents import UNITS
from portrait_core.inversion.chain import Anchor
from portrait_core.inversion.latent import FirstLatent
from portrait_core.pipeline import Job
from portrait_core.settings import Settings
from portrait_core.tracking.array_names import MOUTH
from portrait_core.tracking.mouth_inside import LIGHT_SIZE
from tasks.context import TRACK_ARRAYS, FrameArrays, head
from tasks.stages.inversion import FIRST
from tasks.stages.pose import CAMERAS
from tasks.stages.tuning import TUNED
from tests.portrait_core import tiny
from tests.simulation.stub import stub_job


def ready_clip(
    store: str,
    name: str,
    frames: int,
    settings: Settings,
    seed: int = 0,
    crop: NDArray[np.uint8] | None = None,
) -> Job:
    """A clip with a tuned generator of its own (``tiny``), whose picture is ``crop [S,S,3]`` or noise."""
    job = stub_job(store, name, frames, settings)
    size, model = settings.template.size, tiny.generator(seed)
    if crop is None:
        crop = np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)
    track = _still_track(size)
    shape = np.zeros((1, head(job).n_shape), np.float32)
    kept = track | {"shape": shape, "crop": crop[None], "photograph": crop[None]}
    job.output("portrait").write_whole(kept)
    flat = {"foreground": crop[None], "plate": np.zeros_like(crop)[None]}
    job.output("layers").write_note("person", {"found": True})
    job.output("layers").write_whole(flat | {"coverage": np.full((1, size, size), 255, np.uint8)})
    with torch.no_grad():
        ws = model.mapping(torch.randn(frames, model.settings.z_dim), None)
    moves, made = _frames(track, crop, ws.numpy())
    job.output("retarget").write_whole({name: _repeated(rows, frames) for name, rows in moves.items()})
    job.output("inversion").put_bytes(
        FIRST, Anchor(0, FirstLatent(ws[:1], np.zeros(0, np.float32), [])).to_bytes()
    )
    for stage, arrays in made.items():
        FrameArrays(job, stage).keep(0, {name: _repeated(rows, frames) for name, rows in arrays.items()})
    cameras = io.BytesIO()
    np.save(cameras, np.repeat(track["cameras"], frames, 0))
    for stage, name, content in (
        ("tuning", TUNED, generator_bytes(model)),
        ("pose", CAMERAS, cameras.getvalue()),
    ):
        job.output(stage).put_bytes(name, content)
    for stage in ("retarget", "tuning", "pose"):
        job.output(stage).commit()
    return job


def _repeated(rows: NDArray[Any], frames: int) -> NDArray[Any]:
    """Rows of all frames, of one frame's or of all."""
    return np.broadcast_to(rows, (frames, *rows.shape[1:]))


def _still_track(size: int) -> dict[str, NDArray[Any]]:
    """Of one frame, in which nothing moves: the crop is the whole photograph of ``size`` pixels."""
    track = {
        "expression": np.zeros((1, len(UNITS) + len(direction_names())), np.float32),
        "jaw": np.zeros((1, 3), np.float32),
        "rotation": np.eye(3, dtype=np.float32)[None],
        "crop_center_px": np.full((1, 2), size / 2, np.float32),
        "crop_side_px": np.full(1, size, np.float32),
        "cameras": tiny.CAMERA.numpy().astype(np.float32).reshape(1, 25),
        "fit_error": np.zeros(1, np.float32),
        "ok": np.ones(1, np.bool_),
    }
    return {name: track[name] for name in TRACK_ARRAYS}


def _frames(
    track: dict[str, NDArray[Any]], crop: NDArray[np.uint8], ws: NDArray[np.float32]
) -> tuple[dict[str, NDArray[Any]], dict[str, dict[str, NDArray[Any]]]]:
    """What ``retarget`` made, and by stage what those made that do frames; of one frame or of all."""
    side = np.linspace(-1, 1, crop.shape[0])
    disc = ((side[:, None] ** 2 + side**2 < 0.36) * 255).astype(np.uint8)[None]
    teeth, light = np.zeros((1, 3), np.float32), np.zeros((1, *LIGHT_SIZE), np.float32)
    closed = dict(zip(MOUTH, (teeth, light), strict=True))
    return {name: track[name] for name in ("expression", "jaw")} | closed, {
        "template": {
            "template": crop[None],
            "face_mask": disc,
            "mouth_mask": disc // 4,
            "uncovered": 0 * disc,
        },
        "inversion": {"latents": ws, "inversion": crop[None], "inversion_loss": np.zeros((1, 1), np.float32)},
    }
