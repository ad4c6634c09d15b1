"""The process's networks that look at pictures for an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import cached
from tasks.context import device_of, recogniser

if TYPE_CHECKING:
    from torch import nn

    from portrait_core.metrics.identity import Recogniser
    from portrait_core.metrics.picture_features import PooledNetwork


def identity_network(job: Job, threads: int) -> Recogniser:
    """Return the process's face-recognition network: the user's ArcFace, or the one that ships."""
    if job.settings.evaluation.identity == "shipped":
        return recogniser(job)
    from portrait_core.metrics.identity import ArcFaceRecogniser

    path = weight_file(job.settings, "arcface")
    return cached("arcface", job.weights["arcface"], lambda: ArcFaceRecogniser.load(path, threads), threads)


def feature_network(job: Job) -> PooledNetwork:
    """Return the process's network whose features the Fréchet distance compares."""
    from portrait_core.metrics.embedded_features import EmbeddedFeatures
    from portrait_core.metrics.inception import Inception

    chosen, device = job.settings.evaluation.features, device_of(job)

    def load() -> PooledNetwork:
        if chosen == "inception":
            return Inception.load(weight_file(job.settings, "inception")).to(device)
        return EmbeddedFeatures().to(device)

    return cached("features", f"{chosen}-{job.weights.get(chosen, '')}", load, device)


def distance_networks(job: Job) -> dict[str, nn.Module]:
    """Return the process's networks of perceptual distances by the names of their variants.

    LPIPS is among them on the networks that ``evaluation.lpips`` names, and on VGG16 where the job has it.
    """
    from portrait_core.metrics.picture_distances import perceptual_networks

    device = device_of(job)
    purposes = {"phi": "vgg16", "lpips_vgg16": "vgg16", "lpips_alexnet": "alexnet"}
    used = {model: purpose for purpose, model in purposes.items() if purpose in job.weights}
    files = {model: weight_file(job.settings, purpose) for model, purpose in used.items()}
    digests = "-".join(job.weights[purpose] for purpose in used.values())
    return cached("perceptual", digests, lambda: perceptual_networks(device, files), device)
