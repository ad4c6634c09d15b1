"""Reading attributes off a latent, to label a photograph's inversion before it is edited.

An edit needs the attributes that a picture has. Synthetic samples carry theirs, an inverted photograph does
not; w holds attributes nearly linearly (Shen et al. 2020, "Interpreting the latent space of GANs", section
3), so ridge regression on the flow's own samples reads them.
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
"""Penalty of the fit, as a share of the samples' number: an inverted w has noise in directions that samples
hardly have, which a fit without penalty would multiply."""
WEAK_R2 = 0.7
"""An attribute that is read with less than this is read weakly."""
_FLOOR = 1e-6


@dataclass(frozen=True)
class LatentReader:
    """``(w - mean) / scale @ weight + bias``, within ``low..high``; float32.

    Attributes:
        mean, scale: ``[D]`` of the samples' w.
        weight: ``[D,C]``; bias: ``[C]``.
        low, high: ``[C]`` least and greatest label of the samples. Readings are kept between: beyond, the
            flow has learnt nothing. That is wider than what can be asked for, because an edit starts from
            what the latent has.
        r2: of every attribute, on samples that did not take part: 1 reads exactly, 0 is no better than the
            mean, and so is an attribute that does not vary.
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
        """Least squares with a penalty.

        Args:
            samples: to learn from. Of several rows the mean counts.
            held_out: others, for :attr:`r2`.
            ridge: above 0.

        Raises:
            InputError: if both are not of the same widths, labels are not finite, or there are fewer than two
                samples of each.
        """
        _check(samples, held_out)
        x, y = samples.w.double().mean(1), samples.labels.double()
        mean, scale = x.mean(0), x.std(0).clamp_min(_FLOOR)
        bias, x = y.mean(0), (x - mean) / scale
        penalty = ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - bias))
        parts = (mean, scale, weight, bias, y.amin(0), y.amax(0))
        # contiguous, as a file gives them: the same bits are read
        kept = {name: part.float().contiguous() for name, part in zip(reader_names(), parts, strict=True)}
        made = cls.from_tensors(kept, ())
        truth = held_out.labels.double()
        error = (truth - made.read(held_out.w)).square().mean(0)
        variance = truth.var(0, correction=0)
        r2 = torch.where(variance > _FLOOR**2, 1 - error / variance.clamp_min(_FLOOR**2), 0.0)
        return cls.from_tensors(kept, r2.tolist())

    @torch.no_grad()
    def read(self, w: Float[Tensor, "b l d"]) -> Float[Tensor, "b context"]:
        """Attributes of latents, in their units; of several rows the mean is read.

        Raises:
            InputError: if w is not ``[B,L,D]``.
        """
        if w.ndim != 3 or w.shape[-1] != len(self.mean):
            raise InputError(
                f"latents have shape {list(w.shape)}, expected [batch, rows, {len(self.mean)}]; read latents "
                "of the generator that the flow is for"
            )
        own = self.to(w)
        read = (w.mean(1) - own.mean) / own.scale @ own.weight + own.bias
        return torch.clamp(read, own.low, own.high)

    def weakly_read(self, conditions: Conditions, least: float = WEAK_R2) -> tuple[str, ...]:
        """Names of the attributes that vary in ``conditions`` and are read with an R² below ``least``: give
        a photograph's yourself, if they matter.

        Raises:
            InputError: if the conditions are not as many as the reader's attributes.
        """
        self.check(len(self.mean), conditions)
        worth = dict(zip(conditions.names, self.r2, strict=True))
        return tuple(name for name in conditions.editable if worth[name] < least)

    def check(self, width: int, conditions: Conditions) -> None:
        """Raise InputError unless it reads latents of ``width`` as these attributes."""
        if len(self.mean) != width or len(self.bias) != len(conditions):
            raise InputError(
                f"the reader takes latents of width {len(self.mean)} to {len(self.bias)} attributes, the "
                f"flow has {width} and {len(conditions)}; fit it on the flow's samples"
            )

    def to(self, like: Tensor) -> LatentReader:
        """The same on another device or of another type."""
        return LatentReader.from_tensors(
            {name: value.to(like) for name, value in self.tensors().items()}, self.r2
        )

    def tensors(self) -> dict[str, Tensor]:
        """All but :attr:`r2`, by name."""
        return {name: getattr(self, name) for name in reader_names()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], r2: Iterable[float]) -> LatentReader:
        """From what :meth:`tensors` gave."""
        return cls(**{name: tensors[name] for name in reader_names()}, r2=tuple(r2))


def reader_names() -> tuple[str, ...]:
    """Names of a reader's tensors."""
    return tuple(field.name for field in fields(LatentReader) if field.name != "r2")


def reader_shapes(width: int, context: int) -> dict[str, tuple[int, ...]]:
    """Their shapes."""
    along = {"mean": (width,), "scale": (width,), "weight": (width, context)}
    return {name: along.get(name, (context,)) for name in reader_names()}


def _check(samples: LabelledLatents, held_out: LabelledLatents) -> None:
    if min(len(samples), len(held_out)) < 2:
        raise InputError(
            f"cannot fit on {len(samples)} samples and judge on {len(held_out)}; give two of each"
        )
    if samples.w.shape[1:] != held_out.w.shape[1:] or samples.labels.shape[1] != held_out.labels.shape[1]:
        raise InputError("samples and held-out ones are of different widths; split one set")
    if not (torch.isfinite(samples.labels).all() and torch.isfinite(held_out.labels).all()):
        raise InputError("labels have values that are not finite; label those pictures again")
