"""Any recipe, with the measurement absorbed by the state's noise at small noise levels."""

from __future__ import annotations

from torch import Tensor

from forward_models import LinearGaussian

from ..lift import Model
from ..likelihoods import Absorbed, Likelihood
from ..particles import AbsorbingParticles, ParticleMethod
from ..posterior import Posterior
from ..samplers import Absorbing, Sampler
from ..variational import VariationalMethod
from .recipe import Recipe


def absorbed(recipe: Recipe) -> Recipe:
    """The recipe with `Absorbed` around its likelihood, and unguided steps below the threshold.

    Samplers walk under `Absorbing`, particle methods that do not know `Absorbed` likelihoods under
    `AbsorbingParticles`.

    Raises ValueError where that has no meaning: exact draws; splitting methods and optimised
    images, which follow no likelihood at noise levels; factors that are not linear with Gaussian
    noise; a decoder; a sampler whose steps cannot be left to the prior.
    """
    posterior, sampler = recipe.prior, recipe.sampler
    why = _refusal(recipe)
    if why is not None:
        raise ValueError(f"absorb=True cannot be used here: {why}")
    assert isinstance(posterior, Posterior)
    inner = posterior.lift

    def lift(model: Model, y: Tensor) -> Likelihood:
        return Absorbed(inner(model, y))

    lifted = posterior.lifted(lift)
    threshold = min(li.threshold for li in lifted.likelihoods if isinstance(li, Absorbed))
    if isinstance(sampler, ParticleMethod):
        knows = sampler.absorbs
        return Recipe(lifted, sampler if knows else AbsorbingParticles(sampler, threshold))
    assert isinstance(sampler, Sampler)
    try:
        return Recipe(lifted, Absorbing(sampler, threshold))
    except ValueError as error:
        raise ValueError(f"absorb=True cannot be used here: {error}") from None


def _refusal(recipe: Recipe) -> str | None:
    if recipe.sampler is None or not isinstance(recipe.prior, Posterior):
        return "the posterior is drawn exactly"
    if isinstance(recipe.sampler, Sampler) and recipe.sampler.splits:
        return f"{type(recipe.sampler).__name__} uses p(y | x0) alone, at no noise level"
    if isinstance(recipe.sampler, VariationalMethod):
        return f"{type(recipe.sampler).__name__} optimises a clean image"
    if recipe.prior.decoder is not None:
        return "measurements follow a decoder, so they are not linear in the latents"
    for model, _ in recipe.prior.factors:
        if not isinstance(model, LinearGaussian):
            return f"{type(model).__name__} is not linear with Gaussian noise"
    return None
