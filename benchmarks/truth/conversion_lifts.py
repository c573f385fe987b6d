"""Likelihoods at every noise level, those that the toolkit has, by name.

s is the standard deviation within a component of the mixture (1), or that of the whole prior
(`scale`). Those that are one of these are left out: LinearisedLift of a linear model is MMPS, the
plug-in's bound and so TrainingFree with rho = 1 change nothing. The reverse runs take 480 network
calls a state, all others one; they run for up to 8 values, but not of stored draws. The pool takes
512 draws of the prior by 50 calls each, and one more at each of its 16 levels, once for all states
and measurements; it runs where it bears the measured values.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from conversion_problems import PROBLEMS, Case
from torch import Tensor

import inverse
from forward_models import Gaussian, LinearGaussian, Observation
from inverse.lift import Lift
from inverse.likelihoods import (
    Absorbed,
    AssumedCovariance,
    DiagonalTweedie,
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
    PooledLift,
    ReverseRunLift,
    ScoreALD,
    SigmaPointLift,
    Tabulated,
    Tweedie,
)
from inverse.likelihoods.pooled_lift import bears
from inverse.pool import Pool
from priors import VP, Empirical, Prior, geometric
from priors.prior import event_size

LEARNING = 2000
LEARNED = f"learned, {LEARNING} steps"
SMALL, LEARNABLE = 8, 80
"""Values up to which reverse runs are made, and a likelihood is learned."""


def observed(model: LinearGaussian) -> Observation:
    return Observation(model.operator, Gaussian(model.sigma))


def gaussian(covariance: AssumedCovariance) -> Lift:
    return lambda model, y: GaussianLift(model, y, covariance)  # type: ignore[arg-type]


def lifts(case: Case) -> dict[str, Lift]:
    """All that the model can have, but for what is learned."""
    prior, found = case.prior, any_model(case.prior)
    if isinstance(case.model, LinearGaussian):
        found |= of_linear_models(prior)
        pool = Pool(prior)
        if bears(pool, Measured(case.model, case.y).size):
            found["pooled, 512 draws"] = lambda m, y: PooledLift(m, y, pool)
    else:
        found["linearised, MMPS"] = LinearisedLift  # type: ignore[assignment]
        found["unscented"] = SigmaPointLift  # type: ignore[assignment]
    if event_size(prior.event_shape) <= SMALL and not isinstance(prior, Empirical):
        found["reverse runs, 32"] = lambda m, y: ReverseRunLift(m, y, runs=32)
    return found


def any_model(prior: Prior) -> dict[str, Lift]:
    scale = prior.scale
    found: dict[str, Any] = {
        "plug-in": lambda m, y: PlugIn(m, y, bounded=False),
        "DPS as published": lambda m, y: NormalizedPlugIn(
            m, y, zeta=1.0, schedule=VP(), steps=1000
        ),
        "LGD-MC16, s = 1": lambda m, y: MonteCarloLift(m, y, scale=1.0, draws=16, bounded=False),
        "LGD-MC16, bounded": lambda m, y: MonteCarloLift(m, y, scale=scale, draws=16),
    }
    return found


def of_linear_models(prior: Any) -> dict[str, Lift]:
    scale = prior.scale
    table = Tabulated.measure(
        prior, geometric(20, (0.05, 60.0))[:-1].flip(0), generator=torch.Generator().manual_seed(0)
    )
    found: dict[str, Any] = {
        "PiGDM, s = 1": gaussian(Isotropic(s=1.0)),
        "PiGDM, s = scale": gaussian(Isotropic(s=scale)),
        "optimal covariance": gaussian(table),
        "JFPS, scale^2 I": gaussian(FixedPrior(scale**2)),
        "JFPS, Cov[x0]": gaussian(FixedPrior(prior.moments()[1])),
        "TMPD, row sums": gaussian(DiagonalTweedie()),
        "TMPD, MMPS": gaussian(Tweedie()),
        "MMPS, 1 iteration": gaussian(Tweedie(iterations=1, dense=0)),
        "unscented": lambda m, y: SigmaPointLift(observed(m), y),
        "score-ALD": ScoreALD,
        "absorbed": lambda m, y: Absorbed(GaussianLift(m, y, Tweedie())),
    }
    return found


class Normalised(Likelihood):
    """A learned likelihood, which is up to log p(y), with that added; such use no covariance."""

    def __init__(self, likelihood: Likelihood, log_evidence: Tensor) -> None:
        self.likelihood, self.log_evidence = likelihood, log_evidence

    def shift(self, moments: Moments) -> Tensor:
        return self.likelihood.shift(moments)

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.likelihood.log_likelihood(moments) + self.log_evidence


def learned(label: str, seed: int) -> Lift:
    """Of one instance; where prior and model are the same at all seeds, trained once."""
    case = PROBLEMS[label](seed)
    lift = _trained(label, 0 if case.fixed else seed)
    evidence = case.prior.log_evidence(case.model, case.y)  # type: ignore[arg-type]
    return lambda model, y: Normalised(lift(model, y), evidence)


@cache
def _trained(label: str, seed: int) -> Lift:
    case = PROBLEMS[label](seed)
    return inverse.learn(case.prior, case.model, steps=LEARNING)
