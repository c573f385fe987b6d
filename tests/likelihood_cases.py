"""The likelihoods that the contract is run over, and the small problems it is run on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from problems import DOUBLE

import priors
from forward_models import Gaussian, LinearGaussian, Observation, TimeDependent
from inverse.likelihoods import (
    Absorbed,
    DiagonalTweedie,
    Exact,
    FixedPrior,
    GaussianLift,
    Isotropic,
    Likelihood,
    LinearisedLift,
    Measured,
    Moments,
    MonteCarloLift,
    NormalizedPlugIn,
    PlugIn,
    ReverseRunLift,
    Scaled,
    ScoreALD,
    SigmaPointLift,
    Tabulated,
    TrainingFree,
    Tweedie,
    Zero,
)
from inverse.likelihoods.loss_guidance import constant


@dataclass(frozen=True)
class Case:
    """A likelihood and what is claimed of it.

    Attributes:
        make: (LinearGaussian, y) -> the likelihood.
        gradient: where the shift is sigma^2 times the gradient of the log density: "always", on
            "gaussian" priors (where Cov[x0 | x] does not depend on x), or "never", and why; "none"
            where no gradient is kept.
        exact: whether it is exact for Gaussian priors.
        tolerance: how far two evaluations that should agree may be apart, relatively.
        power: of the likelihood that it tends to; not normalised unless 1.
        limit: how near it comes to that at sigma = 1e-4, log density and shift, relatively.
    """

    make: Callable[[LinearGaussian, torch.Tensor], Likelihood]
    gradient: str = "always"
    why: str = ""
    exact: bool = False
    tolerance: float = 1e-9
    power: float = 1.0
    limit: tuple[float, float] = (1e-5, 1e-4)


def observed(model: LinearGaussian) -> Observation:
    return Observation(model.operator, Gaussian(model.sigma))


def _fixed(model: LinearGaussian, y: torch.Tensor, jacobian: bool) -> Likelihood:
    return GaussianLift(model, y, FixedPrior(0.5), jacobian)


class Widened(TimeDependent):
    """N(y; A x, S + sigma^2 A A^T): what y says of x without prior knowledge, at every level."""

    def __init__(self, model: LinearGaussian, y: torch.Tensor) -> None:
        self.measured = Measured(model, y)

    def check_measurement(self, y):
        return y

    def log_likelihood(self, y, x, sigma):
        r, c = self.measured.residual(x), sigma.square()
        quadratic = (r * self.measured.solve(r, c)).sum(1)
        size = self.measured.size
        return -(quadratic + self.measured.log_det(c) + size * math.log(2 * math.pi)) / 2


TABLE = Tabulated(torch.tensor([0.1, 1.0, 10.0]), torch.tensor([0.01, 0.4, 0.8]))
S = math.sqrt(0.7)
ASSUMED = "K = C is not the derivative of the denoiser"

CASES = {
    "zero": Case(lambda m, y: GaussianLift(m, y, Zero())),
    "plug-in": Case(PlugIn),
    "isotropic": Case(lambda m, y: GaussianLift(m, y, Isotropic(s=S))),
    "isotropic, wide": Case(lambda m, y: GaussianLift(m, y, Isotropic())),
    "isotropic, no Jacobian": Case(
        lambda m, y: GaussianLift(m, y, Isotropic(s=S), jacobian=False), "never", ASSUMED
    ),
    "tabulated": Case(lambda m, y: GaussianLift(m, y, TABLE)),
    "tabulated, no Jacobian": Case(
        lambda m, y: GaussianLift(m, y, TABLE, jacobian=False), "never", ASSUMED
    ),
    "fixed prior": Case(lambda m, y: _fixed(m, y, False), "never", ASSUMED),
    "fixed prior, Jacobian": Case(lambda m, y: _fixed(m, y, True)),
    "tweedie": Case(
        lambda m, y: GaussianLift(m, y, Tweedie()),
        "gaussian", "the derivative of C is left out", exact=True,
    ),
    "tweedie, Krylov": Case(
        lambda m, y: GaussianLift(m, y, Tweedie(iterations=40, dense=0, probes=8, steps=20)),
        "gaussian", "the derivative of C is left out",
    ),
    "diagonal": Case(
        lambda m, y: GaussianLift(m, y, DiagonalTweedie()),
        "gaussian", "the derivative of the row sums is left out",
    ),
    "linearised": Case(
        lambda m, y: LinearisedLift(observed(m), y),
        "gaussian", "the derivatives of C and of the expansion are left out", exact=True,
    ),
    "sigma points": Case(
        lambda m, y: SigmaPointLift(observed(m), y),
        "gaussian", "a Kalman update, and the points move with x", exact=True,
    ),
    "absorbed": Case(
        lambda m, y: Absorbed(GaussianLift(m, y, Tweedie())),
        "gaussian", "above the threshold, that of the wrapped lift",
    ),
    "normalized": Case(
        lambda m, y: NormalizedPlugIn(m, y, zeta=1.0, schedule=priors.VP(), steps=1000),
        "never", "a normalised step, not a likelihood's",
        tolerance=1e-3,  # |A| from a power iteration, known to a few digits
    ),
    "normalized, observed": Case(
        lambda m, y: NormalizedPlugIn(
            observed(m), y, zeta=1.0, schedule=priors.VP(), steps=1000
        ),
        "never", "a normalised step, not a likelihood's",
    ),
    "monte carlo": Case(
        lambda m, y: MonteCarloLift(m, y, scale=S, draws=400),
        "never", "the shift is of bounded length",
    ),
    "training-free": Case(
        lambda m, y: TrainingFree(m, y, rho=constant(1.0)),
        "never", "the shift is of bounded length",
    ),
    "score-ald": Case(ScoreALD, tolerance=1e-3),
    "reverse runs": Case(
        lambda m, y: ReverseRunLift(m, y, runs=32, steps=3),
        "none",
        limit=(1e-2, 1.0),  # a mean over 32 draws that are 1e-4 apart
    ),
    "scaled, 1": Case(lambda m, y: Scaled(GaussianLift(m, y, Isotropic(s=S)), 1.0)),
    "scaled, 3": Case(lambda m, y: Scaled(PlugIn(m, y), 3.0), power=3.0),
    "exact": Case(lambda m, y: Exact(Widened(m, y), y)),
}  # fmt: skip


def moments(prior: priors.Prior, x: torch.Tensor, sigma: float) -> Moments:
    x0, product = prior.covariance(x, sigma)
    level = torch.full((x.shape[0], *[1] * (x.ndim - 1)), sigma, dtype=x.dtype)
    return Moments(x, level, x0, product, exact=prior.exact_covariance, prior=prior)


class AsNetwork(priors.Prior):
    """A prior whose denoiser alone is known, as that of a network; it counts what is asked of it.

    Attributes:
        calls: images that were denoised. products: products with its Jacobian.
    """

    def __init__(self, prior: priors.Prior) -> None:
        self.prior, self.event_shape, self.sigma_range = (
            prior, prior.event_shape, prior.sigma_range,
        )  # fmt: skip
        self.calls = self.products = 0

    def _denoise(self, x, sigma):
        self.calls += len(x)
        return self.prior.denoise(x, sigma.flatten())

    def _covariance(self, x, sigma):
        x0, product = super()._covariance(x, sigma)

        def counted(v):
            self.products += 1
            return product(v)

        return x0, counted


def mixture(size: int = 6) -> priors.Mixture:
    g = torch.Generator().manual_seed(7)
    means = 2 * torch.randn(3, size, generator=g, dtype=DOUBLE)
    return priors.Mixture(means, 0.3, torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE))
