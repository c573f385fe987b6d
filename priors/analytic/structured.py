"""Structured covariances of images: stationary fields and low-rank factors.

Each is the covariance of a Gaussian prior too large for a dense matrix; see `Covariance` for what
all of them offer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .covariance import Covariance, Spectral, check_nonnegative, rounding
from .parameters import constant


class Circulant(Spectral):
    """The covariance of a stationary field on a torus: diagonal in the Fourier basis.

        C = F^* diag(S) F,   F the orthonormal FFT over the last two axes.

    Args:
        spectrum: power S (H, W), or one for each channel (C, H, W); in the order of torch.fft,
            >= 0 and even, S(k) = S(-k). It is the FFT of the autocovariance.
        event_shape: (..., H, W), by default the spectrum's shape; a spectrum (H, W) then serves
            every channel.

    Exact, every operation O(B D log D).
    """

    def __init__(self, spectrum: Tensor, event_shape: tuple[int, ...] | None = None) -> None:
        power = constant(spectrum, "the spectrum")
        shape = tuple(power.shape if event_shape is None else event_shape)
        if power.ndim < 2 or shape[len(shape) - power.ndim :] != tuple(power.shape):
            raise ValueError(
                f"the spectrum must have shape (..., H, W) and end the event shape {shape}, "
                f"got {tuple(power.shape)}"
            )
        check_nonnegative(power, "a power")
        odd = float((power - power.flip(-2, -1).roll((1, 1), (-2, -1))).abs().max())
        if odd > rounding(spectrum) * float(power.max()):
            raise ValueError(
                f"the spectrum of a real field is even, S(k) = S(-k); it differs by up to {odd:.3g}"
            )
        power = power.expand(shape)
        self.shape = shape
        self._set_eigenvalues(power.reshape(-1))
        # A real field has half the coefficients; the others are their conjugates.
        self.half = power[..., : shape[-1] // 2 + 1].reshape(-1)

    def _function(self, f: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        waves = torch.fft.rfft2(v.reshape(-1, *self.shape))
        scaled = (waves.flatten(1) * f(self.half)).reshape(waves.shape)
        return torch.fft.irfft2(scaled, s=self.shape[-2:]).flatten(1)


class LowRank(Spectral):
    """C = F F^T + variance I for a factor F (D, R): probabilistic principal components.

    One singular value decomposition, O(D R^2), at construction; operations O(B D R). Singular
    where variance = 0 and R < D.

    Paper: Tipping and Bishop, "Probabilistic Principal Component Analysis", 1999,
    https://doi.org/10.1111/1467-9868.00196
    """

    def __init__(self, factor: Tensor, variance: Tensor | float = 0.0) -> None:
        self.variance = constant(variance, "the variance").reshape(-1)
        if self.variance.numel() != 1:
            raise ValueError(
                f"LowRank takes one variance, got {self.variance.numel()}; "
                "FactorAnalysis takes one for each value"
            )
        check_nonnegative(self.variance, "a variance")
        self.basis, scale, _ = torch.linalg.svd(_check_factor(factor), full_matrices=False)
        self.variances = scale**2 + self.variance
        rest = self.variance.expand(self.basis.shape[0] - scale.numel())
        self._set_eigenvalues(torch.cat([self.variances, rest]))

    def _function(self, f: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        inside = v @ self.basis
        rest = v - inside @ self.basis.mT
        return f(self.variance) * rest + (f(self.variances) * inside) @ self.basis.mT


class FactorAnalysis(Covariance):
    """C = F F^T + diag(d) for a factor F (D, R) and variances d > 0 of the event's shape.

    By Woodbury's identity with N = diag(d) + s2 I and K = I + F^T N^-1 F,

        (C + s2 I)^-1 = N^-1 - N^-1 F K^-1 F^T N^-1,    log det = log det N + log det K.

    Exact; O(B (D R^2 + R^3)) where each sample has its own noise level, O(D R^2 + B D R) where
    they share one.
    """

    def __init__(self, factor: Tensor, diagonal: Tensor) -> None:
        self.factor = _check_factor(factor)
        self.diagonal = constant(diagonal, "the diagonal").reshape(-1)
        self.size = self.factor.shape[0]
        if self.diagonal.numel() != self.size:
            raise ValueError(
                f"the diagonal needs {self.size} values, as the factor has rows, "
                f"got {self.diagonal.numel()}"
            )
        self.smallest = float(self.diagonal.min())
        if self.smallest <= 0:
            raise ValueError(
                f"the diagonal must be > 0, got {self.smallest:.3g}; LowRank takes a variance of 0"
            )

    def std_range(self) -> tuple[float, float]:
        """Bounds: the smallest d, and the largest d with the factor's largest direction."""
        top = float(torch.linalg.matrix_norm(self.factor, 2)) ** 2
        return math.sqrt(self.smallest), math.sqrt(float(self.diagonal.max()) + top)

    def trace(self) -> float:
        return float(self.diagonal.sum() + self.factor.square().sum())

    def _whitened(self, s2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sqrt(N) (B, D), G = N^(-1/2) F (B, D, R) and G^T G."""
        root = (self.diagonal + s2).sqrt()
        G = self.factor / root.unsqueeze(-1)
        return root, G, G.mT @ G

    def _matvec(self, v: Tensor) -> Tensor:
        return self.diagonal * v + (v @ self.factor) @ self.factor.mT

    def _shrink(self, v: Tensor, s2: Tensor) -> Tensor:
        return self._matvec(self._solve(v, s2))

    def _solve(self, v: Tensor, s2: Tensor) -> Tensor:
        root, G, gram = self._whitened(s2)
        white = (v / root).unsqueeze(-1)
        inner = torch.cholesky_solve(G.mT @ white, torch.linalg.cholesky(_plus_one(gram)))
        return (white - G @ inner).squeeze(-1) / root

    def _sqrt(self, eps: Tensor, s2: Tensor) -> Tensor:
        # N^(1/2) (I + G G^T)^(1/2), whose root differs from I only in the range of G.
        root, G, gram = self._whitened(s2)
        power, V = torch.linalg.eigh(gram)
        inner = V.mT @ (G.mT @ eps.unsqueeze(-1))
        inner = inner / (1 + (1 + power.clamp(min=0)).sqrt()).unsqueeze(-1)
        return root * (eps + (G @ (V @ inner)).squeeze(-1))

    def _logdet(self, s2: Tensor) -> Tensor:
        root, _, gram = self._whitened(s2)
        return 2 * root.log().sum(-1) + torch.logdet(_plus_one(gram))


def _check_factor(factor: Tensor) -> Tensor:
    if torch.as_tensor(factor).ndim != 2:
        raise ValueError(f"the factor must have shape (D, R), got {tuple(factor.shape)}")
    return constant(factor, "the factor")


def _plus_one(gram: Tensor) -> Tensor:
    return gram + torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
