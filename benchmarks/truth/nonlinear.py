"""Models that are not linear, or that are black boxes, and their posteriors by importance.

Prior: four Gaussians in three dimensions. Measurements, all drawn by the seed:

    ring     the distance from the origin
    tanh     two saturating values
    moduli   the moduli of three linear values: phase retrieval
    counts   Poisson counts
    rounded  two values rounded to halves, known by evaluation alone
    class    a class, by a linear softmax

The posterior is that of draws of the prior weighted by p(y | x0), 500 000 at a time until they are
worth 20 000 exact ones, so that the 3000 that samples are compared with are hardly ever the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from posed import Family, Modes, Posed
from small_problems import Denoiser
from torch import Tensor

import priors
from forward_models import ForwardModel, Gaussian, Poisson, from_simulator

D, DRAWS, ENOUGH = 3, 500_000, 20_000


class Class(ForwardModel):
    """p(class | x) of a linear softmax, no observation of a noise model."""

    event_shape, measurement_shape = (D,), ()

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def check_measurement(self, y: Tensor) -> Tensor:
        return torch.as_tensor(y).reshape(-1)

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        logits = (x @ self.weights.T.to(x)).log_softmax(-1)
        return logits[torch.arange(len(x)), y.long().expand(len(x))]

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        p = (x @ self.weights.T).softmax(-1)
        return torch.multinomial(p, 1, generator=generator)[:, 0]


class Importance:
    """Draws of a posterior, found when the first is asked for."""

    def __init__(self, prior: priors.Mixture, model: ForwardModel, y: Tensor, seed: int) -> None:
        self.prior, self.model, self.y, self.seed = prior, model, y, seed
        self.x = self.w = torch.empty(0)

    def find(self) -> None:
        if len(self.x):
            return
        source = torch.Generator().manual_seed(10_000 + self.seed)
        parts, logs, most = [], [], -math.inf
        while not len(self.w) or float(1 / self.w.square().sum()) < ENOUGH:
            x = self.prior.sample(DRAWS, source)
            log = torch.cat([self.model.log_likelihood(self.y, part) for part in x.split(50_000)])
            most = max(most, float(log.max()))
            near = log > most - 30  # the others weigh nothing
            parts.append(x[near])
            logs.append(log[near])
            self.w = torch.cat(logs).softmax(0)
        self.x = torch.cat(parts)

    def draws(self, n: int, generator: torch.Generator) -> Tensor:
        self.find()
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        edges = self.w.double().cumsum(0)
        return self.x[torch.searchsorted(edges / edges[-1], u)]

    def modes(self) -> Modes:
        """The prior's components: p(y | x0) is common to them."""
        self.find()
        belong = partial(self.prior.responsibilities, sigma=0.0)
        return Modes(belong, self.w @ belong(self.x))


def models(B: Tensor) -> dict[str, Callable[[], ForwardModel]]:
    def seen(x: Tensor, rows: int) -> Tensor:
        return x @ B[:rows].T.to(x)

    return {
        "ring": lambda: from_simulator(lambda x: x.norm(dim=-1, keepdim=True), Gaussian(0.2), (D,)),
        "tanh": lambda: from_simulator(lambda x: seen(x, 2).tanh(), Gaussian(0.1), (D,)),
        "moduli": lambda: from_simulator(lambda x: seen(x, 3).abs(), Gaussian(0.2), (D,)),
        "counts": lambda: from_simulator(
            lambda x: 20 * seen(x, 2).sigmoid() + 0.5, Poisson(), (D,)
        ),
        "rounded": lambda: from_simulator(
            lambda x: (2 * seen(x, 2)).round() / 2, Gaussian(0.2), (D,), differentiable=False
        ),
        "class": lambda: Class(2 * B),
    }


def pose(kind: str, seed: int) -> Posed:
    g = torch.Generator().manual_seed(seed)
    means = 6 * torch.rand(4, D, generator=g, dtype=torch.float64) - 3
    weights = torch.rand(4, generator=g, dtype=torch.float64) + 0.3
    prior = priors.Mixture(means, 0.3, weights / weights.sum())
    model = models(torch.randn(3, D, generator=g, dtype=torch.float64))[kind]()
    y = model.simulate(prior.sample(1, g).double(), g)
    truth = Importance(prior, model, y, seed)
    return Posed(Denoiser(prior), model, y, truth.draws, truth.modes)


KINDS = ("ring", "tanh", "moduli", "counts", "rounded", "class")
FAMILY = Family({f"nonlinear {kind}": partial(pose, kind) for kind in KINDS}, n=1000, seeds=10)
