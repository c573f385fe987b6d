"""The published methods by name, each a short recipe of a likelihood and a sampler."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from forward_models import ForwardModel, Identity, Inpainting, LinearGaussian, TimeDependent
from priors import VP, Empirical, Gaussian, Prior, geometric
from priors.analytic.covariance import Diagonal
from priors.analytic.linear_gaussian import LIMIT
from priors.prior import event_size

from .likelihoods import (
    Exact,
    GaussianLift,
    Isotropic,
    Likelihood,
    NormalizedPlugIn,
    PlugIn,
)
from .posterior import Lift, Model, Posterior, default_lift, linearisable
from .samplers import Ancestral, Multistep, Sampler


@dataclass(frozen=True)
class Recipe:
    """What a method runs: a sampler on a posterior, or exact draws where `sampler` is None."""

    prior: Prior
    sampler: Sampler | None


@dataclass(frozen=True)
class Method:
    """A published method.

    Attributes:
        name: what `inverse.sample(method=...)` takes.
        family: guidance, splitting, particles, variational; or exact.
        needs: what it asks of the forward model and the prior.
        jacobian: whether it differentiates through the network.
        cost: network calls and vector-Jacobian products per step.
        exact_when: where its samples follow the posterior, as steps grow.
        paper: title and address.
        steps: the default number of steps.
    """

    name: str
    family: str
    needs: str
    jacobian: bool
    cost: str
    exact_when: str
    paper: str
    steps: int
    applies: Callable[[Posterior], str | None]
    build: Callable[[Posterior, int], Recipe]

    def refusal(self, posterior: Posterior) -> str | None:
        """Why this method cannot sample this posterior, or None."""
        return moving(posterior) or self.applies(posterior)


def moving(posterior: Posterior) -> str | None:
    """Why steps that hold y fixed do not sample this posterior, or None."""
    for model, _ in posterior.factors:
        if isinstance(model, TimeDependent) and model.augmented:
            return (
                f"{type(model).__name__} moves with the noise level: Langevin steps sample its "
                "posterior, a reverse SDE or ODE does not"
            )
    return None


def methods() -> tuple[Method, ...]:
    """All named methods, in the order of the README's table."""
    return _METHODS


def find(name: str) -> Method:
    """The method called `name`; an unknown name is refused with the known ones."""
    for method in _METHODS:
        if method.name == name:
            return method
    known = [m.name for m in _METHODS]
    close = difflib.get_close_matches(str(name), known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown method {name!r}; known: {', '.join(known)}{hint}")


def choose(posterior: Posterior) -> Method:
    """The documented default: exact where it can be, mmps where it applies, else dps."""
    for name in ("exact", "mmps", "dps"):
        method = find(name)
        reason = method.refusal(posterior)
        if reason is None:
            return method
    raise ValueError(f"no method samples this posterior: {reason}")


def exact_posterior(posterior: Posterior) -> Prior | None:
    """The posterior in closed form, where the prior and every factor allow it."""
    prior = posterior.prior
    for model, y in posterior.factors:
        if not (isinstance(model, LinearGaussian) and hasattr(prior, "condition")):
            return None
        if y.shape[0] != 1:
            return None
        prior = prior.condition(model, y)
    return prior


def _build_exact(posterior: Posterior, steps: int) -> Recipe:
    closed = exact_posterior(posterior)
    if closed is not None:
        return Recipe(closed, None)
    # Time-dependent factors are exact at every noise level; closed-form ones join the prior.
    prior, rest = posterior.prior, []
    for model, y in posterior.factors:
        if isinstance(model, TimeDependent):
            rest.append((model, y))
        else:
            prior = prior.condition(model, y)  # type: ignore[attr-defined]
    exact = Posterior(prior, tuple(rest), Exact)  # type: ignore[arg-type]
    return Recipe(exact, Multistep(geometric(steps, exact.sigma_range)))


def _exact_applies(posterior: Posterior) -> str | None:
    closed = hasattr(posterior.prior, "condition")
    for model, y in posterior.factors:
        if isinstance(model, TimeDependent):
            continue
        if not isinstance(model, LinearGaussian):
            return f"{type(model).__name__} is not known at every noise level"
        if not closed:
            return (
                f"p_sigma(y | x) of {type(model).__name__} has no closed form under "
                f"{type(posterior.prior).__name__}: that takes a Gaussian or Mixture prior"
            )
        if y.shape[0] != 1:
            return "the closed form takes one measurement, not one for each sample"
        largest = event_size(posterior.event_shape) * max(
            event_size(posterior.event_shape), y[0].numel()
        )
        if not _diagonal(posterior.prior, model) and largest > LIMIT:
            return f"the closed form needs a matrix of {largest} entries, more than {LIMIT}"
    return None


def _diagonal(prior: Prior, model: LinearGaussian) -> bool:
    """Whether conditioning needs no matrix: a mask over independent values, or stored samples."""
    if isinstance(prior, Empirical):
        return True
    independent = isinstance(prior, Gaussian) and isinstance(prior.C, Diagonal)
    return independent and isinstance(model.operator, Inpainting | Identity)


def _linear_applies(posterior: Posterior) -> str | None:
    for model, _ in posterior.factors:
        if isinstance(model, LinearGaussian) and posterior.decoder is not None:
            return f"{type(model).__name__} follows a decoder, so it is not linear in the latents"
        if not isinstance(model, LinearGaussian | TimeDependent):
            return f"{type(model).__name__} is not linear with Gaussian noise"
    return None


def _gradient_applies(posterior: Posterior) -> str | None:
    for model, _ in posterior.factors:
        if isinstance(model, ForwardModel) and not model.differentiable:
            return f"{type(model).__name__} is a black box: its likelihood has no gradient"
    return None


def _gaussian_applies(posterior: Posterior) -> str | None:
    why = _gradient_applies(posterior)
    if why is not None:
        return why
    for model, _ in posterior.factors:
        if isinstance(model, ForwardModel) and not (
            isinstance(model, LinearGaussian) or linearisable(model)
        ):
            return (
                f"{type(model).__name__} cannot be expanded as a Gaussian: that takes a "
                "differentiable Observation with independent noise"
            )
    return None


def _lift(linear: Callable[[LinearGaussian, Tensor], Likelihood]) -> Lift:
    """Exact for time-dependent models, `linear` for linear-Gaussian ones, else plug-in."""

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, TimeDependent):
            return Exact(model, y)
        if isinstance(model, LinearGaussian):
            return linear(model, y)
        return PlugIn(model, y)

    return lift


def _unit(prior: Prior) -> float:
    """Half the width of the data range: the unit in which papers state their constants."""
    if prior.data_range is None:
        return 1.0
    return (prior.data_range[1] - prior.data_range[0]) / 2


def _build_dps(posterior: Posterior, steps: int) -> Recipe:
    unit, schedule = _unit(posterior.prior), VP()

    def linear(model: LinearGaussian, y: Tensor) -> Likelihood:
        return NormalizedPlugIn(model, y, zeta=1.0, schedule=schedule, steps=steps, unit=unit)

    low, high = (s / unit for s in posterior.sigma_range)
    high = min(high, float(schedule.sigma(1.0)))
    levels = schedule.levels(steps, (low, high)) * unit
    return Recipe(posterior.lifted(_lift(linear)), Ancestral(levels, eta=1.0))


def _build_pigdm(posterior: Posterior, steps: int) -> Recipe:
    scale = posterior.prior.scale
    lift = _lift(lambda model, y: GaussianLift(model, y, Isotropic(s=scale)))
    return Recipe(posterior.lifted(lift), Multistep(geometric(steps, posterior.sigma_range)))


def _build_mmps(posterior: Posterior, steps: int) -> Recipe:
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior.lifted(default_lift), Multistep(levels))


def _build_diffpir(posterior: Posterior, steps: int) -> Recipe:
    lift = _lift(lambda model, y: GaussianLift(model, y, Isotropic(scale=1 / 8), jacobian=False))
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior.lifted(lift), Ancestral(levels, zeta=0.3))


_METHODS = (
    Method(
        name="exact",
        family="exact",
        needs="time-dependent factors; or linear-Gaussian ones under a Gaussian or Mixture prior",
        jacobian=False,
        cost="1 network call a step; none in closed form",
        exact_when="always",
        paper="Song et al. 2021, Score-Based Generative Modeling through SDEs, "
        "https://arxiv.org/abs/2011.13456",
        steps=100,
        applies=_exact_applies,
        build=_build_exact,
    ),
    Method(
        name="dps",
        family="guidance",
        needs="a differentiable forward model",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step",
        exact_when="never for linear-Gaussian factors (a normalised step, not a posterior score); "
        "time-dependent factors are exact",
        paper="Chung et al. 2023, Diffusion Posterior Sampling for General Noisy Inverse "
        "Problems, https://arxiv.org/abs/2209.14687",
        steps=1000,
        applies=_gradient_applies,
        build=_build_dps,
    ),
    Method(
        name="pigdm",
        family="guidance",
        needs="linear-Gaussian factors; fast with an SVD or a closed-form solve",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step",
        exact_when="the prior is Gaussian with covariance scale^2 I",
        paper="Song et al. 2023, Pseudoinverse-Guided Diffusion Models for Inverse Problems, "
        "https://openreview.net/forum?id=9_gsMA8MRKQ",
        steps=100,
        applies=_linear_applies,
        build=_build_pigdm,
    ),
    Method(
        name="mmps",
        family="guidance",
        needs="linear-Gaussian factors, or others that are differentiable with independent noise, "
        "which are expanded around the denoised image",
        jacobian=True,
        cost="1 network call and up to 3 vector-Jacobian products a step; M for M <= 32 values",
        exact_when="the prior is Gaussian, the factors are linear-Gaussian, the solve converged",
        paper="Rozet et al. 2024, Learning Diffusion Priors from Observations by Expectation "
        "Maximization, https://arxiv.org/abs/2405.13712",
        steps=100,
        applies=_gaussian_applies,
        build=_build_mmps,
    ),
    Method(
        name="diffpir",
        family="splitting",
        needs="linear-Gaussian factors; fast with an SVD or a closed-form solve",
        jacobian=False,
        cost="1 network call a step",
        exact_when="never; a point estimate with spread, best judged by its mean",
        paper="Zhu et al. 2023, Denoising Diffusion Models for Plug-and-Play Image Restoration, "
        "https://arxiv.org/abs/2305.08995",
        steps=100,
        applies=_linear_applies,
        build=_build_diffpir,
    ),
)
