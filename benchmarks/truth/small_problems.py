"""Small problems with known posteriors, P1 to P5, as a solver sees them: a denoiser and no more.

P1  a Gaussian in 2 dimensions, condition 9, one value measured
P2  three Gaussians in 2 dimensions, one value measured: two modes remain
P3  four Gaussians in 8 dimensions, four values measured
P4  a stationary Gaussian field of 16 x 16, a quarter of it seen ("mask"), or blurred ("blur")
P5  a Gaussian in 2 dimensions, |x| measured: a ring, which is not linear
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from forward_models import (
    Blur,
    ForwardModel,
    Inpainting,
    LinearGaussian,
    MatrixOperator,
    from_simulator,
    gaussian_kernel,
    random_mask,
)
from forward_models import Gaussian as Noise
from priors import Circulant, Gaussian, Mixture, Prior
from priors.prior import CovarianceProduct


class Denoiser(Prior):
    """The exact denoiser of an analytic prior, and its Jacobian; solvers cannot tell of what.

    `sample` and `log_density` are for whoever judges: methods look for the classes of analytic
    priors, and optimal-covariance alone takes draws, as it would take images.
    """

    exact_covariance = True

    def __init__(self, exact: Gaussian | Mixture) -> None:
        self.exact = exact
        self.event_shape, self.sigma_range = exact.event_shape, exact.sigma_range
        self.scale, self.data_range = exact.scale, exact.data_range

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.exact.initial(eps, sigma)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.exact._denoise(x, sigma)

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        return self.exact._covariance(x, sigma)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.exact.sample(n, generator)

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        return self.exact.log_density(x, sigma)

    def __repr__(self) -> str:
        return f"Denoiser({self.exact!r})"


@dataclass(frozen=True)
class Problem:
    """A prior, which a solver may see as `prior` alone, and a forward model."""

    exact: Gaussian | Mixture
    model: ForwardModel

    @property
    def prior(self) -> Denoiser:
        return Denoiser(self.exact)


def gaussian() -> Gaussian:
    return Gaussian(
        torch.tensor([1.0, -1.0]).double(), torch.tensor([[2.5, 2.0], [2.0, 2.5]]).double()
    )


def seen(rows: list[list[float]], sigma: float) -> LinearGaussian:
    return LinearGaussian(MatrixOperator(torch.tensor(rows).double()), sigma)


def three() -> Mixture:
    means = torch.tensor([[-3.0, 0.0], [3.0, 1.0], [0.0, -3.0]]).double()
    return Mixture(
        means, torch.tensor([0.5, 0.8, 0.3]).double(), torch.tensor([0.3, 0.5, 0.2]).double()
    )


def four() -> Mixture:
    generator = torch.Generator().manual_seed(3)
    means = 2.5 * torch.randn(4, 8, generator=generator, dtype=torch.float64)
    return Mixture(means, 0.5, torch.tensor([0.4, 0.3, 0.2, 0.1]).double())


def four_measured() -> LinearGaussian:
    generator = torch.Generator().manual_seed(4)
    return LinearGaussian(
        MatrixOperator(torch.randn(4, 8, generator=generator, dtype=torch.float64)), 0.5
    )


def field() -> Gaussian:
    """Power falls with the frequency k as 1 / (1 + (k / 2)^2)^2, variance 1."""
    k = torch.fft.fftfreq(16, dtype=torch.float64) * 16
    power = (1 + (k[:, None].square() + k.square()) / 4) ** -2
    return Gaussian(torch.zeros(1, 16, 16).double(), Circulant(power / power.mean()))


def quarter() -> LinearGaussian:
    mask = random_mask((16, 16), 0.25, torch.Generator().manual_seed(5))
    return LinearGaussian(Inpainting(mask.expand(1, 16, 16)), 0.1)


def blurred() -> LinearGaussian:
    return LinearGaussian(Blur(gaussian_kernel(1.0), "circular", image_shape=(1, 16, 16)), 0.1)


def radius(x: Tensor) -> Tensor:
    return x.norm(dim=1, keepdim=True)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "P1": lambda: Problem(gaussian(), seen([[1.0, 0.5]], 0.5)),
    "P2": lambda: Problem(three(), seen([[0.4, 1.0]], 0.4)),
    "P3": lambda: Problem(four(), four_measured()),
    "P4 mask": lambda: Problem(field(), quarter()),
    "P4 blur": lambda: Problem(field(), blurred()),
    "P5": lambda: Problem(gaussian(), from_simulator(radius, Noise(0.2), (2,))),
}
