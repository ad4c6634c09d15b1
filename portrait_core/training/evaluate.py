r"""Quality of generators on people they were not trained on.

    uv run python -m portrait_core.training.evaluate --shards build/shards/shard_0000.npz \
        --weights first.safetensors second.safetensors

prints a table with one column per weights file: PSNR of the pictures that z alone gives, depth error, and
the opening of mouth and eyes as the tracker measures it, compared with the true pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from portrait_core.generators import TriPlaneGenerator, load_generator
from portrait_core.metrics.motion import correlation_and_slope
from portrait_core.runtime.package_files import data_folder
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.measure import measure
from portrait_core.training import losses
from portrait_core.training.shards import ViewBatch, load_views

Pictures = NDArray[np.uint8]
Tracker = Callable[[Pictures], dict[str, NDArray[np.floating]]]
"""Function that measures pictures ``[n,H,W,3]``: ``lip_gap`` and ``eye_opening [n]``, NaN where there is no
face."""

REGIONS = {"mouth": (0, 0.075, 0.09), "eyes": (1, 0.045, 0.06)}
"""Key point, half height and half width of a region, relative to the picture's side."""


@torch.no_grad()
def evaluate(generator: TriPlaneGenerator, view: ViewBatch) -> tuple[dict[str, float], Tensor]:
    """Measure PSNR and depth error on held-out heads.

    Returns:
        PSNR of whole picture, mouth and eyes and mean depth error inside the head; and the pictures
        ``[B,3,H,W]``.
    """
    pictures, errors = [], []
    for i in range(len(view.camera)):
        ws = generator.mapping(view.z[i // view.views][None], None)
        out = generator.synthesis(ws, view.camera[i : i + 1])
        pictures.append(out["image"].clamp(-1, 1))
        inside = (view.depth[i] > 0) & (view.alpha_half[i, 0] > losses.SOLID)
        errors.append(float((out["image_depth"][0, 0] - view.depth[i]).abs()[inside].mean()))
    images = torch.cat(pictures)
    squared = ((images - view.image) / 2).square().mean(1)
    report = {"psnr": float(-10 * squared.mean((1, 2)).log10().mean()), "depth_mae": float(np.mean(errors))}
    for name, (point, half_height, half_width) in REGIONS.items():
        report[f"psnr_{name}"] = _region_psnr(squared, view.key_points[:, point], half_height, half_width)
    return report, images


def _region_psnr(squared: Tensor, centre: Tensor, half_height: float, half_width: float) -> float:
    size, values = squared.shape[-1], []
    for error, (x, y) in zip(squared, (centre * squared.shape[-1]).tolist(), strict=True):
        top, left = max(0, int(y - half_height * size)), max(0, int(x - half_width * size))
        region = error[top : int(y + half_height * size), left : int(x + half_width * size)]
        if region.numel():
            values.append(float(-10 * region.mean().log10()))
    return float(np.mean(values))


def comparison_sheet(truth: Tensor, images: Tensor, columns: int = 8) -> Image.Image:
    """Draw true pictures above the generator's, row by row; both ``[B,3,H,W]`` in [-1,1]."""
    rows, missing = [], -len(images) % columns
    black = torch.full((missing, *images.shape[1:]), -1.0)
    padded = torch.cat([truth, black]), torch.cat([images, black])
    for start in range(0, len(padded[0]), columns):
        for pictures in padded:
            row = torch.cat(list(pictures[start : start + columns]), dim=2)
            rows.append(to_pictures(row[None])[0])
    return Image.fromarray(np.concatenate(rows))


def embedded_tracker() -> Tracker:
    """Return the tracker of ``data/models``."""
    landmarker = FaceLandmarker.from_models(data_folder() / "models")
    return lambda pictures: {**measure(landmarker.detect(pictures).points)}


def to_pictures(images: Tensor) -> Pictures:
    """Convert ``[B,3,H,W]`` in [-1,1] to ``[B,H,W,3]`` uint8."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255).byte()
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


def amplitude(tracker: Tracker, truth: Tensor, images: Tensor) -> dict[str, float]:
    """Compare lip gap and eye opening measured on the generator's pictures and on the true ones.

    Returns:
        Correlation and slope of both over the pictures where both have a face, and the fraction of such
        pictures.
    """
    target, measured = tracker(to_pictures(truth)), tracker(to_pictures(images))
    both = np.isfinite(target["lip_gap"]) & np.isfinite(measured["lip_gap"])
    report = {"faces": float(both.mean())}
    for name in ("lip_gap", "eye_opening"):
        pair = correlation_and_slope(target[name][both], measured[name][both])
        report[f"{name}_correlation"], report[f"{name}_slope"] = pair
    return report


def table(names: Sequence[str], reports: Sequence[dict[str, float]]) -> str:
    """Format a Markdown table with one row per number and one column per weights file."""
    rows = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key in reports[0]:
        digits = 4 if key == "depth_mae" else 2
        cells = [f"{report[key]:.{digits}f}" for report in reports]
        rows.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate the weights files that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="held-out shards")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="generator files")
    parser.add_argument("--count", type=int, default=100, help="number of people per shard")
    parser.add_argument("--views", type=int, default=1, help="number of views per person")
    parser.add_argument("--sheet", type=Path, help="folder for one comparison sheet per shard and file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    tracker = embedded_tracker()
    for shard in args.shards:
        view, reports = load_views(shard, args.count, args.views), []
        for path in args.weights:
            report, images = evaluate(load_generator(path), view)
            reports.append(report | amplitude(tracker, view.image, images))
            if args.sheet:
                args.sheet.mkdir(parents=True, exist_ok=True)
                comparison_sheet(view.image, images).save(args.sheet / f"{shard.stem}_{path.stem}.png")
        print(
            f"{shard.name}: {len(view.camera)} pictures\n\n{table([p.stem for p in args.weights], reports)}\n"
        )


if __name__ == "__main__":
    main()
