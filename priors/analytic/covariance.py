"""Covariance matrices C whose shifts C + s2 I are cheap to invert: the structure of a Gaussian.

A Gaussian seen through noise of variance s2 has covariance C + s2 I, so that everything a prior
needs is a function of that sum. Vectors are batches v (B, *event) with D values each; s2 is a
scalar or (B,), in squared data units, and 0 where the matrix allows it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from .parameters import Parameters, constant

RELEVANT = 1e-8
"""Eigenvalues below this share of the largest do not widen the range of noise levels."""


class Covariance(Parameters, ABC):
    """A symmetric positive semidefinite (D, D) matrix C.

    Attributes:
        size: D.
        smallest: a lower bound of the eigenvalues; 0 where C is singular.
    """

    size: int
    smallest: float

    def matvec(self, v: Tensor) -> Tensor:
        """C v for v (B, *event)."""
        return self.like(v)._matvec(self._flat(v)).reshape(v.shape)

    def shrink(self, v: Tensor, s2: Tensor | float) -> Tensor:
        """C (C + s2 I)^-1 v; its limit from full rank, v, where s2 = 0."""
        return self.like(v)._shrink(self._flat(v), _shift(s2, v)).reshape(v.shape)

    def solve(self, v: Tensor, s2: Tensor | float = 0.0) -> Tensor:
        """(C + s2 I)^-1 v; refused where that matrix is singular."""
        shift = _shift(s2, v)
        self.check_invertible(shift)
        return self.like(v)._solve(self._flat(v), shift).reshape(v.shape)

    def sqrt(self, eps: Tensor, s2: Tensor | float = 0.0) -> Tensor:
        """R eps with R R^T = C + s2 I: unit noise (B, *event) becomes a draw of N(0, C + s2 I)."""
        return self.like(eps)._sqrt(self._flat(eps), _shift(s2, eps)).reshape(eps.shape)

    def logdet(self, s2: Tensor | float = 0.0) -> Tensor:
        """log det(C + s2 I): (B,) for s2 (B,), a scalar for a scalar."""
        level = s2 if isinstance(s2, Tensor) else torch.tensor(s2, dtype=torch.float64)
        shift = level.reshape(-1, 1)
        self.check_invertible(shift)
        return self.like(level)._logdet(shift).reshape(level.shape)

    def dense(self) -> Tensor:
        """C as (D, D), float64 unless cast."""
        eye = torch.eye(self.size, dtype=self._tensor().dtype, device=self._tensor().device)
        return self.matvec(eye)

    def check_invertible(self, s2: Tensor) -> None:
        """Refuse C + s2 I with an eigenvalue that is zero."""
        if self.smallest + float(s2.min()) <= 0:
            raise ValueError(
                "the covariance is singular (smallest eigenvalue 0), so its inverse and its "
                "density exist only with noise added: give a variance or sigma > 0"
            )

    @abstractmethod
    def std_range(self) -> tuple[float, float]:
        """(smallest, largest) standard deviation over all directions that are not flat."""

    @abstractmethod
    def trace(self) -> float:
        """The sum of the variances of all D values."""

    @abstractmethod
    def _matvec(self, v: Tensor) -> Tensor:
        """C v for v (B, D)."""

    @abstractmethod
    def _shrink(self, v: Tensor, s2: Tensor) -> Tensor:
        """C (C + s2 I)^-1 v for v (B, D) and s2 (B, 1) or (1, 1)."""

    @abstractmethod
    def _solve(self, v: Tensor, s2: Tensor) -> Tensor:
        """(C + s2 I)^-1 v."""

    @abstractmethod
    def _sqrt(self, eps: Tensor, s2: Tensor) -> Tensor:
        """R eps with R R^T = C + s2 I."""

    @abstractmethod
    def _logdet(self, s2: Tensor) -> Tensor:
        """log det(C + s2 I), (B,) or (1,)."""

    def _tensor(self) -> Tensor:
        """Any of the matrix's tensors: where and how it is kept."""
        return next(value for value in self.__dict__.values() if isinstance(value, Tensor))

    def _flat(self, v: Tensor) -> Tensor:
        if v.ndim < 1 or not v.is_floating_point() or math.prod(v.shape[1:]) != self.size:
            raise ValueError(
                f"this covariance takes floating batches (B, ...) of {self.size} values each, "
                f"got {tuple(v.shape)} of {v.dtype}"
            )
        return v.reshape(v.shape[0], self.size)


class Spectral(Covariance):
    """A covariance with its eigenvectors at hand, and so every function f(C) of it."""

    def _set_eigenvalues(self, eigenvalues: Tensor) -> None:
        """Keep all D eigenvalues (with multiplicity)."""
        self.eigenvalues = eigenvalues
        self.size = eigenvalues.numel()
        self.smallest = float(eigenvalues.min())

    @abstractmethod
    def _function(self, f: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        """f(C) v, where f maps a row of eigenvalues to factors (1 or B, as many)."""

    def std_range(self) -> tuple[float, float]:
        largest = self.eigenvalues.max()
        relevant = self.eigenvalues[self.eigenvalues >= RELEVANT * largest]
        return math.sqrt(float(relevant.min())), math.sqrt(float(largest))

    def trace(self) -> float:
        return float(self.eigenvalues.sum())

    def _matvec(self, v: Tensor) -> Tensor:
        return self._function(lambda c: c, v)

    def _shrink(self, v: Tensor, s2: Tensor) -> Tensor:
        return self._function(lambda c: shrinkage(c, s2), v)

    def _solve(self, v: Tensor, s2: Tensor) -> Tensor:
        return self._function(lambda c: 1 / (c + s2), v)

    def _sqrt(self, eps: Tensor, s2: Tensor) -> Tensor:
        return self._function(lambda c: (c + s2).sqrt(), eps)

    def _logdet(self, s2: Tensor) -> Tensor:
        return (self.eigenvalues + s2).log().sum(-1)


class Diagonal(Spectral):
    """C = diag(d) for variances d of the event's shape, or one variance for all `size` values.

    Every operation costs O(D).
    """

    def __init__(self, variance: Tensor | float, size: int | None = None) -> None:
        variances = constant(variance, "the variance").reshape(-1)
        check_nonnegative(variances, "a variance")
        self._set_eigenvalues(variances if size is None else variances.expand(size).clone())

    def _function(self, f: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return f(self.eigenvalues) * v


class Dense(Spectral):
    """Any symmetric positive semidefinite matrix (D, D).

    One eigendecomposition, O(D^3), at construction; every operation then costs O(B D^2).
    Refused where asymmetric or where an eigenvalue is negative beyond rounding.
    """

    def __init__(self, matrix: Tensor) -> None:
        eigenvalues, self.basis = eigendecomposition(matrix)
        self._set_eigenvalues(eigenvalues)

    def _function(self, f: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return (v @ self.basis * f(self.eigenvalues)) @ self.basis.mT


def as_covariance(
    covariance: Covariance | Tensor | float, event_shape: tuple[int, ...]
) -> Covariance:
    """A variance, a diagonal (*event), a matrix (D, D) or a Covariance, as a Covariance."""
    size = math.prod(event_shape)
    if isinstance(covariance, Covariance):
        if covariance.size != size:
            raise ValueError(
                f"the covariance is for {covariance.size} values, an event {event_shape} has {size}"
            )
        return covariance
    shape = tuple(torch.as_tensor(covariance).shape)
    if shape == ():
        return Diagonal(covariance, size)
    tensor = torch.as_tensor(covariance)
    if shape == tuple(event_shape):
        return Diagonal(tensor)
    if shape == (size, size):
        return Dense(tensor)
    raise ValueError(
        f"the covariance must be a variance, a tensor of the event's shape {event_shape}, a matrix "
        f"({size}, {size}) or a Covariance; got shape {shape}"
    )


def eigendecomposition(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., D) >= 0 and eigenvectors (..., D, D) of covariances, in float64.

    Raises:
        ValueError: not square, asymmetric, or an eigenvalue negative beyond rounding (a share
            1e-10 of the largest for float64 input, 1e-5 otherwise).
    """
    full = constant(matrix, "the covariance")
    if full.ndim < 2 or full.shape[-1] != full.shape[-2]:
        raise ValueError(f"a covariance must be square, got shape {tuple(full.shape)}")
    tolerance = rounding(matrix)
    asymmetry = float((full - full.mT).abs().max())
    if asymmetry > tolerance * float(full.abs().max()):
        raise ValueError(
            f"a covariance must be symmetric; entries differ from the transpose by {asymmetry:.3g}"
        )
    values, basis = torch.linalg.eigh((full + full.mT) / 2)
    largest = values.abs().amax(-1, keepdim=True)
    if bool((values < -tolerance * largest).any()):
        raise ValueError(
            "a covariance must have no negative eigenvalue; the smallest is "
            f"{float(values.min()):.3g}, the largest {float(values.max()):.3g}"
        )
    noise = full.shape[-1] * torch.finfo(torch.float64).eps * largest
    return torch.where(values > noise, values, torch.zeros_like(values)), basis


def shrinkage(c: Tensor, s2: Tensor) -> Tensor:
    """c / (c + s2), and 1 where both are 0."""
    total = c + s2
    positive = total > 0
    one = torch.ones_like(total)
    return torch.where(positive, c, one) / torch.where(positive, total, one)


def noise_range(smallest: float, largest: float) -> tuple[float, float]:
    """Noise levels from a thousandth of the smallest scale to a hundred times the largest."""
    largest = largest or 1.0
    return 1e-3 * (smallest or largest), 100.0 * largest


def noise_variance(sigma: Tensor) -> Tensor:
    """sigma^2 (B,), or (1,) where sigma is one value seen B times: work on it is done once."""
    level = sigma.flatten() ** 2
    return level[:1] if sigma.stride(0) == 0 else level


def _shift(s2: Tensor | float, v: Tensor) -> Tensor:
    shift = torch.as_tensor(s2, dtype=v.dtype, device=v.device)
    if shift.ndim > 1 or (shift.ndim == 1 and shift.shape[0] not in (1, v.shape[0])):
        raise ValueError(
            f"s2 must be a scalar or have shape ({v.shape[0]},), got {tuple(shift.shape)}"
        )
    if bool((shift < 0).any()):
        raise ValueError(f"s2 must be >= 0, got {float(shift.min()):.3g}")
    return shift.reshape(-1, 1)


def check_nonnegative(values: Tensor, what: str) -> None:
    """Refuse an empty tensor and values below 0, with the figure."""
    if values.numel() == 0 or bool((values < 0).any()):
        found = f"{float(values.min()):.3g}" if values.numel() else "none at all"
        raise ValueError(f"{what} must be >= 0, got {found}")


def rounding(given: Tensor) -> float:
    """The share of the largest value that counts as zero in a tensor as it was given."""
    return 1e-10 if given.dtype == torch.float64 else 1e-5
