"""Rician noise: the magnitude of a signal with complex Gaussian noise, as in MRI."""

from __future__ import annotations

import functools
import math
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, check_finite
from .noise import IndependentNoise, check_possible, standard_normal
from .parameter import PerEntry
from .quadrature import legendre


@final
class Rician(IndependentNoise):
    """y = |z + sigma (eps1 + i eps2)|, eps ~ N(0, 1): the magnitude of a noisy complex signal.

    With a = |z|, for y > 0,

        log p(y | z) = log(y / sigma^2) - (y^2 + a^2) / (2 sigma^2) + log I0(y a / sigma^2),

    exact for every z, real of any sign or complex: only the magnitude is seen. It is a smooth
    function of z with slope 0 at z = 0. With q = a^2 / (4 sigma^2)

        E[y] = sigma sqrt(pi / 2) exp(-q) [(1 + 2 q) I0(q) + 2 q I1(q)],
        Var[y] = 2 sigma^2 + a^2 - E[y]^2.

    The information on a, sigma^-4 (E[(y I1 / I0)^2] - a^2), has no closed form; it is read from a
    table made by quadrature, to 1e-7 / sigma^2. y and z in any one unit. Cost: two Bessel functions
    for each entry.

    Args:
        sigma: standard deviation of either part of the complex noise, in the unit of y, a positive
            number, or one for each entry.

    Raises:
        TypeError: sigma is no real number or tensor.
        ValueError: it is not positive; at use, y is not positive.

    Paper: Gudbjartsson and Patz, The Rician distribution of noisy MRI data,
    https://doi.org/10.1002/mrm.1910340618
    """

    field: Field = "any"

    def __init__(self, sigma: float | Tensor) -> None:
        self._sigma = PerEntry("sigma", sigma)
        self._table = Constant(_information_table())

    def _log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        sigma, a = self._sigma.like(z), z.abs()
        # exp(-|x|) I0(x) neither overflows nor cancels against (y - a)^2.
        bessel = torch.special.i0e(y * a / sigma.square()).log()
        return (y / sigma.square()).log() - 0.5 * ((y - a) / sigma).square() + bessel

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        sigma = self._sigma.like(z)
        return z.sgn() * _radial_score(y / sigma, z.abs() / sigma) / sigma

    def information(self, z: Tensor) -> Tensor:
        sigma, table = self._sigma.like(z), self._table.like(z)
        square = (z.abs() / sigma).square()
        place = square / (1 + square) * (len(table) - 1)
        left = place.floor().clamp(max=len(table) - 2)
        index = left.long()
        value = torch.lerp(table[index], table[index + 1], place - left)
        parts = 2 if z.is_complex() else 1
        return value / sigma.square() / parts

    def mean(self, z: Tensor) -> Tensor:
        sigma, a = self._sigma.like(z), z.abs()
        q = (a / sigma).square() / 4
        laguerre = (1 + 2 * q) * torch.special.i0e(q) + 2 * q * torch.special.i1e(q)
        return sigma * math.sqrt(math.pi / 2) * laguerre

    def variance(self, z: Tensor) -> Tensor:
        sigma = self._sigma.like(z)
        s = z.abs() / sigma
        exact = 2 + s.square() - (self.mean(z) / sigma).square()
        # Two terms of a large s cancel; there the series is good to s^-6.
        far = s > 30
        inverse = 1 / torch.where(far, s, 30).square()
        series = 1 - inverse / 2 - inverse.square() / 2
        return sigma.square() * torch.where(far, series, exact)

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        complex_like = torch.empty((), dtype=z.dtype.to_complex(), device=z.device).expand(z.shape)
        return (z + self._sigma.like(z) * standard_normal(complex_like, generator)).abs()

    def check_recorded(self, y: Tensor) -> Tensor:
        check_finite("y", y)
        expected = "y > 0: a magnitude is never exactly 0; hide empty entries behind a mask"
        check_possible("y", y, y > 0, expected)
        return y


def _radial_score(r: Tensor, s: Tensor) -> Tensor:
    """d/ds of the log density of r = |s + eps1 + i eps2|."""
    x = r * s
    return r * torch.special.i1e(x) / torch.special.i0e(x) - s


@functools.cache
def _information_table() -> Tensor:
    """sigma^2 times the information on a, on an even grid of v = s^2 / (1 + s^2), s = a / sigma.

    It is smooth in v from 0 at v = 0 to 1 at v = 1. Gauss-Legendre, 64 nodes over s +- 9.
    """
    v = torch.linspace(0, 1, 4097, dtype=torch.float64)
    s = (v[:-1] / (1 - v[:-1])).sqrt()
    nodes, weights = legendre(64)
    low = (s - 9).clamp(min=0)
    half = (s + 9 - low) / 2
    r = low + half * (1 + nodes[:, None])
    density = r * (-0.5 * (r - s).square()).exp() * torch.special.i0e(r * s)
    values = (weights[:, None] * density * _radial_score(r, s).square()).sum(0) * half
    return torch.cat([values, values.new_ones(1)])
