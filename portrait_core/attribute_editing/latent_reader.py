"""A linear reader of attributes from latents, to label a photograph's inversion before it is edited.

An edit needs the attributes that a picture has. Synthetic samples carry theirs, an inverted photograph does
not; w holds attributes nearly linearly (Shen et al. 2020, "Interpreting the latent space of GANs", section
3), so ridge regression on the StyleFlow's own samples reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from portrait_core.attribute_editing.conditions import Conditions
from portrait_core.attribute_editing.styleflow_training import LabelledLatents
from portrait_core.errors import InputError

RIDGE = 0.01
"""Penalty of the fit per sample. An inverted w has noise in directions in which samples hardly vary, which a
fit without penalty would amplify."""
WEAK_R2 = 0.7
"""R² below which an attribute counts as weakly read."""
_FLOOR = 1e-6
"""Minimum deviation by which values are divided."""


@dataclass(frozen=True)
class LatentReader:
    """Computes ``(w - mean) / scale @ weight + bias``, clamped to ``low..high``.

    Attributes:
        mean, scale: ``[D]`` mean and deviation of the samples' w.
        weight: ``[D,C]``; bias: ``[C]``.
        low, high: ``[C]`` minimum and maximum of the samples' labels, to which readings are clamped, since
            the StyleFlow has learnt nothing beyond. This range is wider than that of edits, because an edit
            starts from the latent's own value.
        r2: R² of every attribute on held-out samples: 1 is exact, 0 is no better than the mean, which
            includes an attribute that does not vary.
    """

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    weight: Float[Tensor, "d context"]
    bias: Float[Tensor, " context"]
    low: Float[Tensor, " context"]
    high: Float[Tensor, " context"]
    r2: tuple[float, ...]

    @classmethod
    def fit(cls, samples: LabelledLatents, held_out: LabelledLatents, ridge: float = RIDGE) -> LatentReader:
        """Fit by least squares with a penalty.

        Args:
            samples: samples to learn from. Of several rows the mean is used.
            held_out: other samples, for :attr:`r2`.
            ridge: penalty per sample, above 0.

        Raises:
            InputError: the samples differ in width, labels are not finite, or there are fewer than two
                samples of each.
        """
        _check(samples, held_out)
        x, y = samples.w.double().mean(1), samples.labels.double()
        mean, scale = x.mean(0), x.std(0).clamp_min(_FLOOR)
        bias, x = y.mean(0), (x - mean) / scale
        penalty = ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - bias))
        fitted = (mean, scale, weight, bias, y.amin(0), y.amax(0))
        # contiguous, as after loading, so that readings are equal bit for bit
        tensors = {name: t.float().contiguous() for name, t in zip(reader_names(), fitted, strict=True)}
        reader = cls.from_tensors(tensors, ())
        truth = held_out.labels.double()
        error = (truth - reader.read(held_out.w)).square().mean(0)
        variance = truth.var(0, correction=0)
        r2 = torch.where(variance > _FLOOR**2, 1 - error / variance.clamp_min(_FLOOR**2), 0.0)
        return cls.from_tensors(tensors, r2.tolist())

    @torch.no_grad()
    def read(self, w: Float[Tensor, "b l d"]) -> Float[Tensor, "b context"]:
        """Read attributes ``[B,C]`` of latents, in their units; of several rows the mean is read.

        Raises:
            InputError: w is not ``[B,L,D]``.
        """
        if w.ndim != 3 or w.shape[-1] != len(self.mean):
            raise InputError(
                f"latents have shape {list(w.shape)}, expected [batch, rows, {len(self.mean)}]; read latents "
                "of the StyleFlow's own generator"
            )
        own = self.to(w)
        values = (w.mean(1) - own.mean) / own.scale @ own.weight + own.bias
        return torch.clamp(values, own.low, own.high)

    def weakly_read(self, conditions: Conditions, least: float = WEAK_R2) -> tuple[str, ...]:
        """Return the attributes that vary in ``conditions`` and are read with an R² below ``least``.

        Label a photograph by other means if these attributes matter.

        Raises:
            InputError: the number of conditions differs from that of the reader's attributes.
        """
        self.check(len(self.mean), conditions)
        scores = dict(zip(conditions.names, self.r2, strict=True))
        return tuple(name for name in conditions.editable if scores[name] < least)

    def check(self, width: int, conditions: Conditions) -> None:
        """Raise InputError unless the reader takes latents of ``width`` to these attributes."""
        if len(self.mean) != width or len(self.bias) != len(conditions):
            raise InputError(
                f"the reader takes latents of width {len(self.mean)} to {len(self.bias)} attributes, the "
                f"StyleFlow has {width} and {len(conditions)}; fit it on the StyleFlow's samples"
            )

    def to(self, like: Tensor) -> LatentReader:
        """Return the reader on the device and with the type of ``like``."""
        return LatentReader.from_tensors(
            {name: value.to(like) for name, value in self.tensors().items()}, self.r2
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; :attr:`r2` is not among them."""
        return {name: getattr(self, name) for name in reader_names()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], r2: Iterable[float]) -> LatentReader:
        """Make a reader from what :meth:`tensors` returned."""
        return cls(**{name: tensors[name] for name in reader_names()}, r2=tuple(r2))


def reader_names() -> tuple[str, ...]:
    """Return the names of a reader's tensors."""
    return tuple(field.name for field in fields(LatentReader) if field.name != "r2")


def reader_shapes(width: int, context: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a reader's tensors, by name."""
    along = {"mean": (width,), "scale": (width,), "weight": (width, context)}
    return {name: along.get(name, (context,)) for name in reader_names()}


def _check(samples: LabelledLatents, held_out: LabelledLatents) -> None:
    if min(len(samples), len(held_out)) < 2:
        raise InputError(
            f"cannot fit on {len(samples)} samples and evaluate on {len(held_out)}; give two of each"
        )
    if samples.w.shape[1:] != held_out.w.shape[1:] or samples.labels.shape[1] != held_out.labels.shape[1]:
        raise InputError("samples and held-out samples differ in width; split one set")
    if not (torch.isfinite(samples.labels).all() and torch.isfinite(held_out.labels).all()):
        raise InputError("labels have values that are not finite; label those pictures again")
