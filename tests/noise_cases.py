"""Noise models that the contract of test_noise_models.py runs over: a new one is one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import forward_models as fm

DOUBLE = torch.float64
N = 100_000


def interval(low: float, high: float, count: int = 3000) -> tuple[Tensor, Tensor]:
    """Nodes and weights on (low, high): Gauss-Legendre on 100 equal panels."""
    from numpy.polynomial.legendre import leggauss

    nodes, weights = (torch.from_numpy(v) for v in leggauss(count // 100))
    edges = torch.linspace(low, high, 101, dtype=DOUBLE)
    half = (edges[1] - edges[0]) / 2
    y = edges[:-1, None] + half * (1 + nodes)
    return y.flatten(), (half * weights).expand(100, -1).flatten()


def atoms(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.double(), torch.ones(len(values), dtype=DOUBLE)


@dataclass(frozen=True)
class Case:
    """A noise model, clean values z (K,), and z -> all y with their weights in a sum over y.

    Attributes:
        bound: the stated information is a lower bound, not the exact value.
    """

    make: Callable[[], fm.IndependentNoise]
    z: tuple[float, ...]
    grid: Callable[[float], tuple[Tensor, Tensor]]
    bound: bool = False


def lognormal_grid(z: float) -> tuple[Tensor, Tensor]:
    u, weights = interval(-8, 8)
    y = z * (0.5 * u).exp()
    return y, weights * 0.5 * y


def ends(low: float, high: float, *, low_atom: bool = True) -> tuple[Tensor, Tensor]:
    """Nodes and weights between low and high, and the ends as atoms."""
    y, weights = interval(low, high)
    edges = torch.tensor([low, high] if low_atom else [high], dtype=DOUBLE)
    return torch.cat([y, edges]), torch.cat([weights, torch.ones(len(edges), dtype=DOUBLE)])


CASES: dict[str, Case] = {
    "gaussian": Case(
        lambda: fm.Gaussian(0.3), (-2.0, 0.0, 1.5), lambda z: interval(z - 4, z + 4)
    ),
    "poisson": Case(
        lambda: fm.Poisson(), (0.01, 0.7, 12.0, 300.0), lambda z: atoms(torch.arange(600))
    ),
    "poisson-gain": Case(
        lambda: fm.Poisson(0.05, 0.2), (-0.1, 0.0, 0.4, 3.0),
        lambda z: atoms(0.05 * torch.arange(400, dtype=DOUBLE)),
    ),
    "transmission": Case(
        lambda: fm.Transmission(200.0), (-0.5, 0.0, 1.0, 6.0), lambda z: atoms(torch.arange(600))
    ),
    "transmission-background": Case(
        lambda: fm.Transmission(50.0, 3.0), (0.0, 1.0, 8.0), lambda z: atoms(torch.arange(300))
    ),
    "rician": Case(
        lambda: fm.Rician(0.5), (-1.0, 0.0, 0.2, 4.0), lambda z: interval(0, abs(z) + 6)
    ),
    "laplace": Case(
        # Panels end at the kink.
        lambda: fm.Laplace(0.2), (-1.0, 0.0, 3.0), lambda z: interval(z - 6, z + 6)
    ),
    "lognormal": Case(lambda: fm.LogNormal(0.5), (0.1, 1.0, 40.0), lognormal_grid),
    "lognormal-unit": Case(
        lambda: fm.LogNormal(0.5, unit_mean=True), (0.1, 1.0, 40.0), lognormal_grid
    ),
    "speckle": Case(
        lambda: fm.GammaSpeckle(3.5), (0.1, 1.0, 40.0), lambda z: interval(0, 16 * z)
    ),
    "speckle-1": Case(
        lambda: fm.GammaSpeckle(1), (0.1, 1.0, 40.0), lambda z: interval(0, 40 * z)
    ),
    "poisson-gaussian": Case(
        lambda: fm.PoissonGaussian(0.5, 0.2), (0.01, 1.0, 6.0), lambda z: interval(-2, 26),
        bound=True,
    ),
    "poisson-gaussian-sharp": Case(
        lambda: fm.PoissonGaussian(1.0, 0.1, 0.5), (0.0, 3.0), lambda z: interval(-1, 25),
        bound=True,
    ),
    "poisson-gaussian-wide": Case(
        lambda: fm.PoissonGaussian(1.0, 20.0), (5.0, 300.0), lambda z: interval(-200, 600),
        bound=True,
    ),
    "heteroscedastic": Case(
        lambda: fm.HeteroscedasticGaussian(0.5, 0.2), (0.0, 1.0, 6.0),
        lambda z: interval(z - 20, z + 20),
    ),
    "quantised": Case(
        lambda: fm.Quantised(0.25, 0.1), (-0.7, 0.0, 0.12, 5.0),
        lambda z: atoms(0.25 * torch.arange(-40, 60, dtype=DOUBLE)),
    ),
    "quantised-fine": Case(
        lambda: fm.Quantised(0.02, 0.3), (-0.7, 0.0, 2.0),
        lambda z: atoms(0.02 * torch.arange(-300, 300, dtype=DOUBLE)),
    ),
    "saturated": Case(
        lambda: fm.Saturated(0.2, 0.1, 1.3), (-0.3, 0.1, 0.6, 1.25, 1.8),
        lambda z: ends(0.1, 1.3),
    ),
    "saturated-above": Case(
        lambda: fm.Saturated(0.2, -math.inf, 1.3), (-0.3, 1.25, 1.8),
        lambda z: ends(z - 3, 1.3, low_atom=False),
    ),
}  # fmt: skip


def expectations(case: Case, z: float):
    """E over y of 1, y, y^2, score, score^2, by summing over all y; and z like y."""
    noise = case.make()
    y, weights = case.grid(z)
    clean = torch.full_like(y, z)
    p = weights * noise.log_prob(y[:, None], clean[:, None]).exp()
    score = noise.score(y[:, None], clean[:, None])[:, 0]
    mean = (p * y).sum()
    values = (p.sum(), mean, (p * (y - mean) ** 2).sum(), (p * score).sum(), (p * score**2).sum())
    return noise, torch.full((1, 1), z, dtype=DOUBLE), [float(v) for v in values]
