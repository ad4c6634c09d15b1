"""The process's networks that look at pictures for an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import cached
from tasks.context import device_of

if TYPE_CHECKING:
    from torch import nn

    from portrait_core.metrics.identity import Recogniser


def recogniser(job: Job, threads: int) -> Recogniser:
    """Return the process's face-recognition network, the shipped one or the user's ArcFace."""
    from portrait_core.metrics.identity import load_recogniser

    name = "arcface" if job.settings.evaluation.identity == "arcface" else "face_recognition"
    path = weight_file(job.settings, name)
    device = device_of(job)

    def load() -> Recogniser:
        return load_recogniser(name, path, device, threads)

    return cached("recogniser", job.weights[name], load, device, threads)


def feature_network(job: Job) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return a function from pictures ``[n,H,W,3]`` to the features ``[n,D]`` of the Fréchet distance."""
    from portrait_core.metrics.embedded_features import EmbeddedFeatures
    from portrait_core.metrics.inception import Inception
    from portrait_core.metrics.picture_features import picture_features

    chosen, device = job.settings.evaluation.features, device_of(job)

    def load() -> nn.Module:
        if chosen == "inception":
            return Inception.load(weight_file(job.settings, "inception")).to(device)
        return EmbeddedFeatures().to(device)

    network = cached("features", f"{chosen}-{job.weights.get(chosen, '')}", load, device)
    batch = job.settings.evaluation.batch
    return lambda pictures: picture_features(pictures, network, batch, device)


def perceptual_networks(job: Job) -> dict[str, nn.Module]:
    """Return the process's networks of perceptual distances by the names of their variants.

    LPIPS is among them where the job has VGG16.
    """
    from portrait_core.metrics.picture_distances import EMBEDDED, LPIPS_VGG

    from portrait_core.inversion.features import build_features

    device, vgg16 = device_of(job), job.weights.get("phi")

    def load() -> dict[str, nn.Module]:
        networks = {EMBEDDED: build_features("efficientnet")}
        if vgg16 is not None:
            networks[LPIPS_VGG] = build_features("lpips", weight_file(job.settings, "phi"))
        return {name: network.to(device) for name, network in networks.items()}

    return cached("perceptual", vgg16 or "", load, device)
