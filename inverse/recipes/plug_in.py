"""Plug-in guidance: p(y | x0) evaluated at the denoised image."""

from __future__ import annotations

from torch import Tensor

from forward_models import LinearGaussian, Observation, TimeDependent
from priors import VP, geometric
from priors.grids import unit_of

from ..checks import flag, positive
from ..lift import Model
from ..likelihoods import Exact, GaussianLift, Likelihood, NormalizedPlugIn, PlugIn, Zero
from ..likelihoods.normalized import has_norm
from ..posterior import Posterior
from ..samplers import Ancestral, Multistep
from . import applies
from .lifts import vp_levels
from .recipe import Method, Recipe

ZETA = 1.0
"""The step of `dps` by default. The paper has 0.3 for blurs and fewer pixels, 0.5 for masks and 1
for phase retrieval, on images of 256 x 256. On blurred and masked digits 0.3 leaves residuals of
1.4 and 1.9 sigma_y in 100 steps, 1 of 1.1 on both; 1 is nearer the truth in 1000 steps, too, and
nearer the exact posteriors of mixtures."""


def dps(
    posterior: Posterior, steps: int, *, zeta: float | None = None, bounded: bool = True
) -> Recipe:
    width, schedule = unit_of(posterior.prior), VP()
    if zeta is not None:
        positive(zeta, "zeta")
    flag(bounded, "bounded")

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, TimeDependent):
            return Exact(model, y)
        if not has_norm(model):
            return PlugIn(model, y, bounded)
        assert isinstance(model, LinearGaussian | Observation)
        return NormalizedPlugIn(
            model, y, zeta=ZETA if zeta is None else zeta, schedule=schedule, steps=steps,
            unit=width, bounded=bounded,
        )  # fmt: skip

    lifted = posterior.lifted(lift)
    if zeta is not None and not any(isinstance(li, NormalizedPlugIn) for li in lifted.likelihoods):
        kinds = ", ".join(type(model).__name__ for model, _ in posterior.factors)
        raise ValueError(
            f"dps has no use for zeta here: it scales a norm of y - A(x0), which {kinds} has not "
            "under the paper's Gaussian or Poisson noise; leave it out"
        )
    return Recipe(lifted, Ancestral(vp_levels(posterior, steps)))


def _plug_in(posterior: Posterior, steps: int, *, bounded: bool = True) -> Recipe:
    flag(bounded, "bounded")

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, TimeDependent):
            return Exact(model, y)
        if isinstance(model, LinearGaussian):
            return GaussianLift(model, y, Zero())
        return PlugIn(model, y, bounded)

    return Recipe(posterior.lifted(lift), Multistep(geometric(steps, posterior.sigma_range)))


PLUG_IN = (
    Method(
        name="dps",
        family="guidance",
        asks="gradient",
        needs="a differentiable forward model",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step",
        exact_when="never for linear-Gaussian factors (a normalised step, not a posterior score); "
        "time-dependent factors are exact",
        paper="Chung et al. 2023, Diffusion Posterior Sampling for General Noisy Inverse "
        "Problems, https://arxiv.org/abs/2209.14687",
        steps=1000,
        applies=applies.differentiable,
        build=dps,
        own_sampler=True,
        deviates="zeta = 1 for all kinds, where the paper has 0.3 (blurs, fewer pixels), 0.5 "
        "(masks) and 1 (phase retrieval); two bounds on the step (off: `bounded=False`); models "
        "without a residual of Gaussian or Poisson noise by the gradient of log p(y | D)",
    ),
    Method(
        name="plug-in",
        family="guidance",
        asks="gradient",
        needs="a differentiable forward model; stiff where its noise is small",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step",
        exact_when="never: the denoised image is taken for the truth, which over-fits y",
        paper="Chung et al. 2023, Diffusion Posterior Sampling for General Noisy Inverse "
        "Problems, https://arxiv.org/abs/2209.14687 (the step that its normalised one replaces)",
        steps=1000,
        applies=applies.differentiable,
        build=_plug_in,
        deviates="2M-SDE steps; the shift of models that are not linear is bounded "
        "(`bounded=False` takes that off)",
    ),
)
