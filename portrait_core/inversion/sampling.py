"""Ray sampling and resolution of a generator while it is inverted or tuned."""

from __future__ import annotations

from portrait_core.generators import ImageGenerator, RaySampling, VolumeGenerator
from portrait_core.settings import GeneratorChoice


def fitting_samples(generator: ImageGenerator, choice: GeneratorChoice) -> RaySampling | None:
    """Return the samples per ray while fitting; near and far are the generator's own.

    It is None for a generator without a volume.
    """
    if not isinstance(generator, VolumeGenerator):
        return None
    own = generator.settings.sampling
    return RaySampling(
        near=own.near,
        far=own.far,
        n_coarse=choice.samples,
        n_fine=choice.importance_samples,
        coarse_grad=choice.coarse_gradient,
    )


def fitting_resolution(generator: ImageGenerator, choice: GeneratorChoice) -> int:
    """Return the side of the grid that patches are cut from while fitting, in rays."""
    return choice.neural_resolution or generator.settings.neural_resolution
