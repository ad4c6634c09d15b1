"""What the generator benchmark measures: configurations, inputs and operations, for both implementations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from portrait_core.cameras import orbit_labels
from portrait_core.generators import (
    GeneratorSettings,
    TriPlaneGenerator,
    at_precision,
    compiled,
    load_generator,
)
from portrait_core.runtime.matrix_precision import matrix_precision
from portrait_core.runtime.package_files import data_file
from tests.benchmarks.tf32 import emulated
from tests.plain.eg3d import PlainGenerator

Implementation = Literal["plain", "ours"]
Operation = Literal["forward", "to-w", "to-parameters"]
EMULATED = "tf32-emulated"
"""A precision for accuracy alone: TF32's rounding in float32 arithmetic (``tests/benchmarks/tf32.py``)."""
OPERATIONS: dict[str, str] = {
    "forward": "image, without gradients",
    "to-w": "image, and the gradient of its mean square to ws (generator frozen)",
    "to-parameters": "the same, to every parameter (ws fixed)",
}

_RENDERING: dict[str, Any] = {
    "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC",
    "c_scale": 1.0,
    "sr_antialias": True,
    "depth_resolution": 48,
    "depth_resolution_importance": 48,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
}
_FFHQ512: dict[str, Any] = {
    "z_dim": 512,
    "w_dim": 512,
    "c_dim": 25,
    "sr_num_fp16_res": 4,
    "mapping_kwargs": {"num_layers": 2},
    "channel_base": 32768,
    "channel_max": 512,
    "rendering_kwargs": _RENDERING,
}
_SMALL: dict[str, Any] = _FFHQ512 | {
    "channel_base": 1024,
    "channel_max": 16,
    "rendering_kwargs": _RENDERING
    | {
        "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
        "depth_resolution": 12,
        "depth_resolution_importance": 12,
    },
}
CONFIGS: dict[str, str] = {
    "ffhq512": "the published FFHQ architecture: planes of 256, 128x128 rays of 48+48 samples, 512x512",
    "small": "the same with 16 channels, 32x32 rays of 12+12 samples, 128x128; to try the benchmark out",
    "embedded": "the generator in data/; its own settings, so there is no plain side",
}


@dataclass(frozen=True)
class Job:
    """One measurement, made in a process of its own."""

    implementation: Implementation
    operation: str
    """One of ``OPERATIONS``, or ``accuracy``."""
    config: str
    device: str = "cpu"
    precision: str = "fp32"
    """fp32, tf32, bf16, or ``EMULATED``."""
    batch: int = 1
    compile: bool = False
    threads: int = 1
    warmup: int = 1
    """Untimed calls before the timed ones."""
    iterations: int = 1
    """Timed calls."""


def build(config: str) -> TriPlaneGenerator:
    """The configuration's generator: with seeded random weights, or the one in ``data/``."""
    if config == "embedded":
        return load_generator(data_file("models/embedded_generator.safetensors"))
    kwargs, resolution = {"ffhq512": (_FFHQ512, 128), "small": (_SMALL, 32)}[config]
    torch.manual_seed(0)
    generator = TriPlaneGenerator(GeneratorSettings.from_published(kwargs, resolution)).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("noise_strength", ".bias")):  # they start at special values
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return generator.requires_grad_(False)


def inputs(settings: GeneratorSettings, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Seeded ``ws [b,num_ws,d]`` and camera labels ``[b,25]``."""
    source = torch.Generator().manual_seed(1)
    ws = torch.randn(batch, settings.num_ws, settings.w_dim, generator=source)
    labels = [torch.from_numpy(orbit_labels(0.3 - 0.1 * i, 0.1)) for i in range(batch)]
    return ws.to(device), torch.cat(labels).float().to(device)


def arithmetic(job: Job) -> Any:
    """The precision that PyTorch is told."""
    return "fp32" if job.precision == EMULATED else job.precision


def autocast(job: Job) -> AbstractContextManager[Any]:
    """The plain side gets its bf16 from autocast, which belongs around the forward pass alone."""
    wanted = job.implementation == "plain" and job.precision == "bf16"
    return torch.autocast(torch.device(job.device).type, dtype=torch.bfloat16, enabled=wanted)


def rounding(job: Job) -> AbstractContextManager[Any]:
    """What rounds factors where TF32 is emulated."""
    return emulated() if job.precision == EMULATED else nullcontext()


def our_model(job: Job, generator: TriPlaneGenerator) -> TriPlaneGenerator:
    """Ours as the job wants it: in its precision, compiled if asked for."""
    generator = at_precision(generator, arithmetic(job))
    return compiled(generator) if job.compile else generator


def prepare(job: Job) -> Callable[[], tuple[Tensor, Tensor | None]]:
    """A call that does the job's operation once and returns the image ``[b,3,s,s]`` and the gradient to ws
    ``[b,num_ws,d]``, where the operation has one."""
    generator = build(job.config).to(job.device)
    settings = generator.settings
    model: Any
    if job.implementation == "plain":
        model = PlainGenerator.of(generator, settings, grad=job.operation == "to-parameters")
        parameters = [value for value in model.params.values() if value.requires_grad]
        del generator  # or its weights would count as the plain side's
    else:
        model = our_model(job, generator.requires_grad_(job.operation == "to-parameters"))
        parameters = list(model.parameters())
    ws, cameras = inputs(settings, job.batch, job.device)
    ws.requires_grad_(job.operation == "to-w")

    def call() -> tuple[Tensor, Tensor | None]:
        ws.grad = None
        for parameter in parameters:
            parameter.grad = None
        grad = torch.set_grad_enabled(job.operation in ("to-w", "to-parameters"))
        with grad, rounding(job), matrix_precision(arithmetic(job)):
            with autocast(job):
                image = model.synthesis(ws, cameras)["image"]
            image = image.float()
            loss = image.square().mean()
            if loss.requires_grad:
                loss.backward()
        return image.detach(), ws.grad

    return call
