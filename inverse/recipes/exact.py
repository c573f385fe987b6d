"""The posterior itself, where it is known: closed forms, and factors given at every noise level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from forward_models import Identity, Inpainting, LinearGaussian, TimeDependent
from priors import Empirical, Gaussian, Prior, geometric
from priors.analytic.covariance import Diagonal
from priors.analytic.linear_gaussian import LIMIT
from priors.prior import event_size

from ..likelihoods import Exact
from ..posterior import Posterior
from ..samplers import Multistep
from .recipe import Method, Recipe


@final
class RowByRow(Prior):
    """The closed forms of posteriors whose y has a row for each sample, one after the other.

    Equal neighbouring rows share one, which is made when its samples are drawn or denoised and
    not kept: a dense one holds a matrix.

    Args:
        posterior: of linear-Gaussian factors under a prior with `condition`, y of B rows.
    """

    def __init__(self, posterior: Posterior) -> None:
        self.posterior, prior = posterior, posterior.prior
        self.event_shape, self.data_range = prior.event_shape, prior.data_range
        self.sigma_range, self.scale = prior.sigma_range, prior.scale
        count = max(y.shape[0] for _, y in posterior.factors)
        several = [y for _, y in posterior.factors if y.shape[0] > 1]
        starts = [
            i for i in range(count) if i == 0 or any(not y[i].equal(y[i - 1]) for y in several)
        ]
        self.rows = [slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]

    def transform(self, eps: Tensor, u: Tensor) -> Tensor:
        """Unit noise eps (B, *event) and uniform u (B,) as exact draws, row by row."""
        return torch.cat(list(self.draws(eps, u)))

    def draws(self, eps: Tensor, u: Tensor) -> Iterator[Tensor]:
        """Those of `transform`, of one closed form after the other."""
        self._check(eps)
        for r in self.rows:
            yield self._closed(r).transform(eps[r], u[r])  # type: ignore[attr-defined]

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self._check(x)
        level = sigma.flatten().expand(len(x))
        return torch.cat([self._closed(r).denoise(x[r], level[r]) for r in self.rows])

    def _closed(self, rows: slice) -> Prior:
        closed = exact_posterior(self.posterior.paired([rows.start]))
        assert closed is not None
        return closed

    def _check(self, x: Tensor) -> None:
        if len(x) != self.rows[-1].stop:
            raise ValueError(f"y has {self.rows[-1].stop} rows, one for each x; got {len(x)} of x")


def exact_posterior(posterior: Posterior) -> Prior | None:
    """The posterior in closed form, where the prior and every factor allow it."""
    prior = posterior.prior
    for model, _ in posterior.factors:
        if not (isinstance(model, LinearGaussian) and hasattr(prior, "condition")):
            return None
    if any(y.shape[0] > 1 for _, y in posterior.factors):
        return RowByRow(posterior)
    for model, y in posterior.factors:
        prior = prior.condition(model, y)  # type: ignore[attr-defined]
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
    moving_too = any(isinstance(model, TimeDependent) for model, _ in posterior.factors)
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
        if y.shape[0] != 1 and moving_too:
            return (
                "the closed form of several measurements does not go with a time-dependent factor"
            )
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
