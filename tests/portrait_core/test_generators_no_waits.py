"""Nothing in the generators makes the host wait for a device: no value is read, no constant is copied there.

The operations are recorded on a CPU, where the path of other devices is taken, and run once more on ``meta``,
a device whose values cannot be read and whose tensors meet no others.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from portrait_core.cameras import orbit_labels
from portrait_core.generators import (
    GeneratorSettings,
    RaySampling,
    StyleGAN2Generator,
    StyleGAN2Settings,
    TriPlaneGenerator,
    at_precision,
    cpu,
)
from portrait_core.generators.settings import PUBLISHED_SUPERRESOLUTION
from tests.portrait_core.test_generators import SMALL as EMBEDDED

_READS = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::item",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::cumprod",  # its backward pass reads a value, though not while a mode records it
}
_FROM_HOST = {"aten::lift_fresh", "aten::lift"}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Waits(TorchDispatchMode):
    """Records every operation that would make the host wait for the device, or copy to it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.found: list[str] = []
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name
        self.operations += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        by_mask = name in _INDEXING and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])
        if name in _READS | _FROM_HOST or by_mask:
            self.found.append(name)
        if len({tensor.device for tensor in tensors if tensor.dim() > 0}) > 1:
            self.found.append(f"{name} between devices")
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def _path_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "suits", lambda *_: False)


def embedded() -> TriPlaneGenerator:
    """With a wall, a flow, base planes, planes beyond the last block, and an open top."""
    return TriPlaneGenerator(
        GeneratorSettings.model_validate(EMBEDDED | {"flow": {16: 3}, "open_top": True, "use_noise": True})
    )


def published() -> TriPlaneGenerator:
    """EG3D's kind, clamped, at a neural resolution that super-resolution resizes."""
    sr = PUBLISHED_SUPERRESOLUTION["SuperresolutionHybrid8XDC"].model_copy(
        update={"channels": (5, 4), "input_resolution": 16, "conv_clamp": 256.0}
    )
    return TriPlaneGenerator(
        GeneratorSettings(
            z_dim=6,
            w_dim=8,
            channels={4: 6, 8: 5, 16: 4},
            plane_channels=4,
            feature_channels=6,
            decoder_hidden=8,
            sampling=RaySampling(n_coarse=6, n_fine=5),
            neural_resolution=12,
            superresolution=sr,
        )
    )


def inputs(generator: TriPlaneGenerator, device: str) -> tuple[Tensor, Tensor]:
    s = generator.settings
    ws = torch.randn(2, s.num_ws, s.w_dim, device=device, requires_grad=True)
    camera = torch.from_numpy(orbit_labels(0.2, 0.1)).expand(2, -1).to(device)
    return ws, camera


def step(model: TriPlaneGenerator, ws: Tensor, camera: Tensor, **options: Any) -> None:
    out = model.synthesis(ws, camera, **options)
    (out["image"].square().mean() + out["image_depth"].mean() + out["image_raw"].mean()).backward()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("chunk", [None, 50])
@pytest.mark.parametrize("build", [embedded, published])
def test_images_and_gradients(build: Any, chunk: int | None, jitter: bool, precision: Any) -> None:
    generator = at_precision(build(), precision)
    generator.ray_chunk = chunk
    ws, camera = inputs(generator, "cpu")
    rng = torch.Generator().manual_seed(0) if jitter else None
    noise = "random" if jitter else "const"
    with Waits() as waits:
        step(generator, ws, camera, jitter=jitter, rng=rng, noise_mode=noise)
        with torch.no_grad():
            generator.synthesis(ws, camera, jitter=jitter, rng=rng, noise_mode=noise)
    assert waits.operations > 500
    assert waits.found == []
    assert ws.grad is not None


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("chunk", [None, 50])
@pytest.mark.parametrize("build", [embedded, published])
def test_a_device_without_readable_values(build: Any, chunk: int | None, jitter: bool) -> None:
    generator = build().to("meta")
    generator.ray_chunk = chunk
    ws, camera = inputs(generator, "meta")
    step(generator, ws, camera, jitter=jitter, noise_mode="random" if jitter else "const")
    assert ws.grad is not None
    assert ws.grad.device.type == "meta"


def test_mapping_and_the_2d_generator() -> None:
    settings = StyleGAN2Settings(
        z_dim=6, w_dim=8, c_dim=3, mapping_layers=2, channels={4: 6, 8: 5}, conv_clamp=256.0
    )
    generator = StyleGAN2Generator(settings)
    z, labels = torch.randn(2, 6), torch.eye(3)[:2]
    with Waits() as waits:
        for noise in ("const", "random", "none"):
            generator(z, labels, 0.7, 2, noise_mode=noise).square().mean().backward()
    assert waits.found == []


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda x: torch.cumprod(x, -1), "aten::cumprod"),
        (lambda x: float(x.detach().sum()), "aten::_local_scalar_dense"),
        (lambda x: x[x > 0], "aten::index"),
        (lambda x: x * torch.tensor([1.0, 2.0, 3.0]), "aten::lift_fresh"),
        (lambda x: x * torch.ones(3, device="meta"), "between devices"),
    ],
)
def test_what_would_wait_is_noticed(operation: Any, name: str) -> None:
    x = nn.Parameter(torch.rand(2, 3))
    # operations between devices are refused after they are recorded
    with Waits() as waits, suppress(RuntimeError):
        operation(x)
    assert any(name in found for found in waits.found)
