"""Structured covariances of images: stationary fields, separable ones and low-rank factors.

Each is the covariance of a Gaussian prior too large for a dense matrix; see `Covariance` for what
all of them offer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .covariance import Covariance, Spectral, check_nonnegative, eigendecomposition, rounding
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


class Kronecker(Spectral):
    """A separable covariance, one factor for each axis of the event, and white noise:

        C = A_1 (x) A_2 (x) ... + variance I,   Cov[x_ij, x_kl] = (A_1)_ik (A_2)_jl for images.

    Its eigenvectors are the products of the factors' eigenvectors, its eigenvalues the products
    of theirs plus the variance.

    Args:
        factors: symmetric positive semidefinite (N_i, N_i), in the order of the event's axes:
            (H, W) or (C, H, W); the identity for an axis whose values are independent.
        variance: >= 0, of white noise on every value.

    One eigendecomposition of each factor, O(N_i^3), at construction; operations
    O(B D (N_1 + N_2 + ...)).

    Paper: Van Loan, "The ubiquitous Kronecker product", 2000,
    https://doi.org/10.1016/S0377-0427(00)00393-9
    """

    def __init__(self, *factors: Tensor, variance: Tensor | float = 0.0) -> None:
        if not factors:
            raise ValueError("Kronecker needs one factor for each axis of the event, got none")
        for i, factor in enumerate(factors):
            if torch.as_tensor(factor).ndim != 2:
                raise ValueError(
                    f"factor {i} must be a matrix (N, N), got shape {tuple(factor.shape)}"
                )
        noise = constant(variance, "the variance")
        if noise.numel() != 1:
            raise ValueError(f"Kronecker takes one variance, got {noise.numel()}")
        check_nonnegative(noise, "the variance")
        self.factors = tuple(constant(factor, "a factor") for factor in factors)
        self.variance = noise.reshape(())
        values, self.bases = zip(*map(eigendecomposition, factors), strict=True)
        self.shape = tuple(v.numel() for v in values)
        products = values[0]
        for v in values[1:]:
            products = torch.outer(products, v).reshape(-1)
        self._set_eigenvalues(products + self.variance)

    def _function(self, f: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        waves = self._along_axes(v, [Q.mT for Q in self.bases])
        return self._along_axes(f(self.eigenvalues) * waves, self.bases)

    def _along_axes(self, v: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """(M_1 (x) M_2 (x) ...) v, one axis at a time."""
        image = v.reshape(-1, *self.shape)
        for axis, M in enumerate(matrices, 1):
            image = (image.movedim(axis, -1) @ M.mT).movedim(-1, axis)
        return image.flatten(1)


class LowRank(Spectral):
    """C = F F^T + variance I for a factor F (D, R): probabilistic principal components.

    Kept as C = Q diag(c) Q^T + variance (I - Q Q^T) with Q (D, R) of orthonormal columns: one
    singular value decomposition, O(D R^2), at construction; operations O(B D R). Singular where
    variance = 0 and R < D.

    Paper: Tipping and Bishop, "Probabilistic Principal Component Analysis", 1999,
    https://doi.org/10.1111/1467-9868.00196
    """

    def __init__(self, factor: Tensor, variance: Tensor | float = 0.0) -> None:
        noise = constant(variance, "the variance").reshape(-1)
        if noise.numel() != 1:
            raise ValueError(
                f"LowRank takes one variance, got {noise.numel()}; "
                "FactorAnalysis takes one for each value"
            )
        check_nonnegative(noise, "a variance")
        basis, scale, _ = torch.linalg.svd(_check_factor(factor), full_matrices=False)
        self._set(basis, scale**2 + noise, noise)

    @classmethod
    def from_basis(cls, basis: Tensor, variances: Tensor, variance: Tensor) -> LowRank:
        """Q (D, R) with orthonormal columns, c (R,) along them and the variance (1,) elsewhere.

        All float64; unlike in F F^T + variance I, c may lie below the variance.

        Raises:
            ValueError: shapes that do not fit, columns not orthonormal (within 1e-6), a negative
                variance.
        """
        shape = tuple(basis.shape)
        if len(shape) != 2 or tuple(variances.shape) != shape[1:] or variance.numel() != 1:
            raise ValueError(
                "LowRank takes a basis (D, R), variances (R,) and one variance, got "
                f"{shape}, {tuple(variances.shape)} and {tuple(variance.shape)}"
            )
        check_nonnegative(torch.cat([variances, variance.reshape(1)]), "a variance")
        gram = basis.mT @ basis
        error = (gram - torch.eye(shape[1], dtype=gram.dtype, device=gram.device)).abs()
        if shape[1] and float(error.max()) > 1e-6:
            raise ValueError(
                "the columns of a LowRank basis must be orthonormal; their products are off by "
                f"{float(error.max()):.3g}"
            )
        covariance = cls.__new__(cls)
        covariance._set(basis, variances, variance)
        return covariance

    def _set(self, basis: Tensor, variances: Tensor, variance: Tensor) -> None:
        self.basis, self.variances, self.variance = basis, variances, variance
        rest = variance.expand(basis.shape[0] - variances.numel())
        self._set_eigenvalues(torch.cat([variances, rest]))

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

    def _explained(self, v: Tensor, s2: Tensor) -> Tensor:
        """F h with h = K^-1 F^T N^-1 v, the mean of the factors given v."""
        root, G, gram = self._whitened(s2)
        L = torch.linalg.cholesky(_plus_one(gram))
        if len(root) == 1:
            h = torch.cholesky_solve((v / root @ G[0]).mT, L[0]).mT
        else:
            h = torch.cholesky_solve(G.mT @ (v / root).unsqueeze(-1), L).squeeze(-1)
        return h @ self.factor.mT

    def _matvec(self, v: Tensor) -> Tensor:
        return self.diagonal * v + (v @ self.factor) @ self.factor.mT

    def _shrink(self, v: Tensor, s2: Tensor) -> Tensor:
        # Each value's own part is shrunk alone, once the factors' part is known.
        common = self._explained(v, s2)
        return common + self.diagonal / (self.diagonal + s2) * (v - common)

    def _solve(self, v: Tensor, s2: Tensor) -> Tensor:
        return (v - self._explained(v, s2)) / (self.diagonal + s2)

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
