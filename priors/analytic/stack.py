"""K covariances of one size worked on together: those of a mixture's components."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .covariance import Covariance, Dense
from .parameters import Parameters
from .structured import LowRank


class Stack(Parameters, ABC):
    """C_k, each applied to vectors of its own: v (K, B, D), s2 (B, 1) or (1, 1)."""

    @abstractmethod
    def solve(self, v: Tensor, s2: Tensor) -> Tensor:
        """(C_k + s2 I)^-1 v_k."""

    @abstractmethod
    def shrink(self, v: Tensor, s2: Tensor) -> Tensor:
        """C_k (C_k + s2 I)^-1 v_k."""

    @abstractmethod
    def logdet(self, s2: Tensor) -> Tensor:
        """log det(C_k + s2 I), (K, B or 1)."""


SMALL = 64
"""Values up to which dense matrices are kept a second time, to be worked on together."""


def stack(covariances: Sequence[Covariance]) -> Stack:
    """All at once where they are of low rank or small matrices; one after the other if not."""
    low_rank = all(isinstance(C, LowRank) for C in covariances)
    shared = all(C is covariances[0] for C in covariances)
    dense = all(isinstance(C, Dense) and (shared or C.size <= SMALL) for C in covariances)
    return Together(covariances) if low_rank or dense else OneByOne(covariances)


class Together(Stack):
    """C_k = Q_k diag(c_k) Q_k^T + v_k (I - Q_k Q_k^T); a dense one has no v_k.

    Kept once where all K are the same object.
    """

    def __init__(self, covariances: Sequence[Covariance]) -> None:
        same = all(C is covariances[0] for C in covariances)
        parts = [_spectrum(C) for C in (covariances[:1] if same else covariances)]
        self.size = parts[0][0].shape[0]
        rank = max(c.numel() for _, c, _ in parts)
        # A direction too many, along no vector and of the variance elsewhere, changes nothing.
        pad = torch.nn.functional.pad
        self.basis = torch.stack([pad(Q, (0, rank - Q.shape[1])) for Q, _, _ in parts])
        padded = [torch.cat([c, v.expand(rank - c.numel())]) for _, c, v in parts]
        self.inside = torch.stack(padded).unsqueeze(1)
        self.outside = torch.stack([v for _, _, v in parts]).unsqueeze(1)

    def solve(self, v: Tensor, s2: Tensor) -> Tensor:
        return self._function(v, 1 / (self.inside + s2), 1 / (self.outside + s2))

    def shrink(self, v: Tensor, s2: Tensor) -> Tensor:
        inside, outside = self.inside, self.outside
        return self._function(v, inside / (inside + s2), outside / (outside + s2))

    def logdet(self, s2: Tensor) -> Tensor:
        rest = self.size - self.inside.shape[-1]
        return (self.inside + s2).log().sum(-1) + rest * (self.outside + s2).log().squeeze(-1)

    def _function(self, v: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
        if self.basis.shape[-1] == 0:
            return outside * v
        return outside * v + self._each((inside - outside) * self._each(v, False), True)

    def _each(self, v: Tensor, transposed: bool) -> Tensor:
        """v_k Q_k or v_k Q_k^T."""
        Q = self.basis.mT if transposed else self.basis
        return v @ (Q[0] if len(Q) == 1 else Q)


class OneByOne(Stack):
    """Any covariances, in a loop over the components."""

    def __init__(self, covariances: Sequence[Covariance]) -> None:
        self.covariances = tuple(covariances)

    def solve(self, v: Tensor, s2: Tensor) -> Tensor:
        return torch.stack([C._solve(u, s2) for C, u in zip(self.covariances, v, strict=True)])

    def shrink(self, v: Tensor, s2: Tensor) -> Tensor:
        return torch.stack([C._shrink(u, s2) for C, u in zip(self.covariances, v, strict=True)])

    def logdet(self, s2: Tensor) -> Tensor:
        return torch.stack([C._logdet(s2) for C in self.covariances])


def _spectrum(C: Covariance) -> tuple[Tensor, Tensor, Tensor]:
    """Q (D, R), c (R,) and v (1,)."""
    if isinstance(C, LowRank):
        return C.basis, C.variances, C.variance
    assert isinstance(C, Dense)
    # Nothing lies outside; the largest variance there lets rounding grow least.
    return C.basis, C.eigenvalues, C.eigenvalues.max().reshape(1)
