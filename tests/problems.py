"""Small problems whose posteriors are known in closed form, shared by the tests."""

from __future__ import annotations

import torch

import priors
from forward_models import LinearGaussian, MatrixOperator, TimeDependent

DOUBLE = torch.float64


def problem(seed: int = 0, isotropic: bool = False, size: int = 6, rows: int = 4):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=g, dtype=DOUBLE)
    covariance = 0.7 * torch.eye(size, dtype=DOUBLE)
    if not isotropic:
        covariance = root @ root.T / size + 0.1 * torch.eye(size, dtype=DOUBLE)
    prior = priors.Gaussian(torch.randn(size, generator=g, dtype=DOUBLE), covariance)
    model = LinearGaussian(MatrixOperator(torch.randn(rows, size, generator=g, dtype=DOUBLE)), 0.2)
    y = torch.randn(1, rows, generator=g, dtype=DOUBLE)
    x = torch.randn(3, size, generator=g, dtype=DOUBLE) * 2
    return prior, model, y, x


class Component(TimeDependent):
    """Which component of a mixture a noisy x came from: a classifier known at every level."""

    def __init__(self, mixture: priors.Mixture) -> None:
        self.mixture = mixture
        self.event_shape = mixture.event_shape

    def check_measurement(self, y):
        return torch.as_tensor(y).reshape(-1)

    def log_likelihood(self, y, x, sigma):
        return self.mixture.responsibilities(x, sigma).clamp(min=1e-300).log()[:, int(y)]
