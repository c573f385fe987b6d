"""The posterior itself, where it is known: closed forms, and factors given at every noise level."""

from __future__ import annotations

from forward_models import Identity, Inpainting, LinearGaussian, TimeDependent
from priors import Empirical, Gaussian, Prior, geometric
from priors.analytic.covariance import Diagonal
from priors.analytic.linear_gaussian import LIMIT
from priors.prior import event_size

from ..likelihoods import Exact
from ..posterior import Posterior
from ..samplers import Multistep
from .recipe import Method, Recipe


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


def _build(posterior: Posterior, steps: int) -> Recipe:
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


def _applies(posterior: Posterior) -> str | None:
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


EXACT = Method(
    name="exact",
    family="exact",
    asks="closed form",
    needs="time-dependent factors; or linear-Gaussian ones under a Gaussian or Mixture prior",
    jacobian=False,
    cost="1 network call a step; none in closed form",
    exact_when="always",
    paper="Song et al. 2021, Score-Based Generative Modeling through SDEs, "
    "https://arxiv.org/abs/2011.13456",
    steps=100,
    applies=_applies,
    build=_build,
)
