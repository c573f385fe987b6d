"""A linear Gaussian measurement in real coordinates: y = A x0 + N(0, S) with y in R^M.

Only measured values count, and a complex value is two real ones. What the Gaussian lifts compute
is then a matter of vectors (B, M) and of the whitened matrix

    G = S^(-1/2) A C A^T S^(-1/2),     log det(S + A C A^T) = log det S + log det(I + G).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from forward_models import LinearGaussian

from .spectrum import Spectrum, spectrum_of


@dataclass(frozen=True)
class LinearSystem:
    """A and S in real coordinates.

    Attributes:
        apply: A, (B, *event) to (B, M).
        adjoint: A^T, (B, M) to (B, *event).
        noise: S > 0, (M,) or (1,).
        size: M.
    """

    apply: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    noise: Tensor
    size: int

    def log_det_noise(self) -> Tensor:
        """log det S, a scalar."""
        return self.noise.log().expand(self.size).sum()


@final
class Measured:
    """A LinearGaussian model and its measurement, in real coordinates.

    Args:
        model, y: the model and y (1 or B, *measurement).
    Attributes:
        size: M, the real numbers that one measurement holds as data.
    Raises: as `model.check_measurement`.
    """

    def __init__(self, model: LinearGaussian, y: Tensor) -> None:
        self.model, self.y = model, model.check_measurement(y)
        self.size = model.count(self.y)
        self._shape, self._complex = tuple(self.y.shape[1:]), self.y.is_complex()
        self._kept: Tensor | None = None
        measured = model.operator.measured
        if measured is not None:
            kept = measured.to(self.y.device).expand(self._shape).flatten()
            kept = kept.repeat_interleave(2) if self._complex else kept
            self._kept = kept.nonzero().flatten()
        S = torch.as_tensor(model.noise_variance, dtype=torch.float64, device=self.y.device)
        if S.ndim:
            S = S.expand(self._shape)
            S = self.pack((torch.complex(S, S) if self._complex else S)[None])[0]
        self._noise = S.reshape(-1)

    def system(self, like: Tensor) -> LinearSystem:
        """A and S in the precision of `like`."""
        operator = self.model.operator
        return LinearSystem(
            lambda x: self.pack(operator.apply(x)),
            lambda u: operator.adjoint(self.unpack(u)),
            self._noise.to(like),
            self.size,
        )

    def residual(self, x0: Tensor) -> Tensor:
        """r = y - A x0, (B, M)."""
        return self.pack(self.model.residual(self.y, x0))

    def solve(
        self,
        r: Tensor,
        covariance: Tensor | Callable[[Tensor], Tensor],
        start: Tensor | None = None,
    ) -> Tensor:
        """(S + A C A^T)^-1 r for C = c I with c (B,), or a function of images; by the operator.

        `start` is where iterations begin, (B, M).
        """
        S = self.model.noise_variance
        begin = None if start is None else self.unpack(start)
        return self.pack(self.model.operator.solve(self.unpack(r), covariance, S, start=begin))

    def log_det(self, c: Tensor) -> Tensor:
        """log det(S + c A A^T), (B,), for c (B,); c may be negative while that is positive."""
        return (self._noise.log().expand(self.size).sum() + self.spectrum.log_det(c)).to(c)

    @cached_property
    def spectrum(self) -> Spectrum:
        """The eigenvalues of S^(-1/2) A A^T S^(-1/2), found once; see `spectrum_of`."""
        with torch.no_grad():
            like = self._noise
            svd = self.model.operator.svd
            if svd is not None and len(like) == 1:
                s = svd.singular_values.to(like)
                z = svd.to_spectral_y(self.unpack(like.new_zeros(1, self.size)))
                return Spectrum(s**2 / like, torch.full_like(s, 2 if z.is_complex() else 1))
            system, root = self.system(like), like.sqrt()
            return spectrum_of(
                lambda u: system.apply(system.adjoint(u / root)) / root, self.size, like
            )

    def pack(self, y: Tensor) -> Tensor:
        """(B, *measurement) to (B, M)."""
        flat = (torch.view_as_real(y.resolve_conj()) if self._complex else y).reshape(len(y), -1)
        return flat if self._kept is None else flat[:, self._kept]

    def unpack(self, u: Tensor) -> Tensor:
        """(B, M) to (B, *measurement), 0 where nothing is measured."""
        parts = (2,) if self._complex else ()
        if self._kept is not None:
            empty = u.new_zeros(len(u), math.prod(self._shape + parts))
            u = empty.index_copy(1, self._kept, u)
        u = u.reshape(len(u), *self._shape, *parts)
        return torch.view_as_complex(u.contiguous()) if self._complex else u
