"""What a peer is given: a denoiser, a measurement with Gaussian noise, and a data range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


class InapplicableError(ValueError):
    """The peer's method has no answer to this task, and why."""


@dataclass(frozen=True)
class SVD:
    """A = U diag(s) V^T with s >= 0, (R,), and V V^T = I: V may have more columns than rows.

    White noise in the R coordinates is then white in the image, as with an orthogonal V.
    """

    s: Tensor
    U: Function
    Ut: Function
    V: Function
    Vt: Function


@dataclass(frozen=True)
class Map:
    """f: images (B, *shape) to real vectors (B, M).

    Attributes:
        apply: f.
        norm: the largest singular value of A, or of a nonlinear f's Jacobian.
        adjoint: A^T, (B, M) to (B, *shape); None for what is not linear.
        inverse: A^+, likewise; None where there is none to be had.
        svd: in single precision; None where it is not known.
        mask: bool, *shape, for A that picks these entries.
    """

    apply: Function
    norm: Callable[[], float]
    adjoint: Function | None = None
    inverse: Function | None = None
    svd: Callable[[], SVD] | None = None
    mask: Tensor | None = None


def matrix(A: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Map:
    """A (M, D) on flattened images; M <= D."""
    (M, D), cast = A.shape, A.to(dtype)

    @cache
    def pseudo_inverse() -> Tensor:
        return torch.linalg.pinv(A).to(dtype)

    def svd() -> SVD:
        U, s, V = (part.float() for part in torch.linalg.svd(A, full_matrices=True))
        return SVD(
            torch.cat([s, s.new_zeros(D - M)]),
            lambda z: z[:, :M] @ U.mT,
            lambda y: torch.cat([y @ U, y.new_zeros(len(y), D - M)], 1),
            lambda z: (z @ V).reshape(-1, *shape),
            lambda x: x.flatten(1) @ V.mT,
        )

    picks = bool(((A == 0) | (A == 1)).all()) and bool((A.sum(1) == 1).all())
    return Map(
        lambda x: x.flatten(1) @ cast.mT,
        lambda: float(torch.linalg.matrix_norm(A, 2)),
        lambda y: (y @ cast).reshape(-1, *shape),
        lambda y: (y @ pseudo_inverse().mT).reshape(-1, *shape),
        svd,
        A.any(0).reshape(shape) if picks else None,
    )


@dataclass(frozen=True)
class Task:
    """Draw n images (n, *shape) given y = f(x) + sigma eps, in `steps` network calls.

    Attributes:
        denoise: (x (B, *shape), sigma (B,)) -> E[x0 | x], data units, differentiable.
        f: what is measured. y: (1, M).
        low, high: the data range; peers are run in the ranges their documentation names.
        scale: standard deviation of one value, data units.
    """

    shape: tuple[int, ...]
    denoise: Callable[[Tensor, Tensor], Tensor]
    f: Map
    sigma: float
    y: Tensor
    low: float
    high: float
    scale: float
    n: int
    steps: int
    seed: int

    def in_range(self, low: float, high: float) -> Task:
        """The same task for x' = a x + b, with [low, high] the new data range, and y in its unit.

        a y + A b = A x' + a sigma eps for a linear f; else a y = a f((x' - b) / a) + a sigma eps.
        """
        a = (high - low) / (self.high - self.low)
        b = low - a * self.low
        f, y = self.f, a * self.y

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return a * self.denoise((x - b) / a, sigma / a) + b

        if f.adjoint is None:
            f = replace(f, apply=lambda x: a * self.f.apply((x - b) / a))
        else:
            y = y + f.apply(y.new_full((1, *self.shape), b))
        return replace(
            self, denoise=denoise, f=f, sigma=a * self.sigma, y=y, low=low, high=high,
            scale=a * self.scale,
        )  # fmt: skip
