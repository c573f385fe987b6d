"""A prior as a mixture of K narrow Gaussians, N(D_k, C_k) for draws x_k of p_s, behind one A."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from .draws import Draws
from .linear_system import Measured
from .spectrum import random_signs


class Told(NamedTuple):
    """What the mixture says of states x that enough draws speak for.

    Attributes:
        rows: (R,) which states.
        shift: E[x0 | x, y] - E[x0 | x], (R, N).
        log_likelihood: log p(y | x), (R,).
        variance: of the shift, over other draws, E |error|^2, (R,).
    """

    rows: Tensor
    shift: Tensor
    log_likelihood: Tensor
    variance: Tensor


@final
@dataclass(frozen=True)
class NarrowLaws:
    """p(x0 | x_k) ~ N(D_k, C_k) of K draws x_k at one level s, flat images of N values; float64.

    Attributes:
        centre: (N,) mean of the D_k, which is taken off all images here.
        D: (K, N). CA: C_k A^T, (K, M, N). a: A D_k, (K, M). V: A C_k A^T, (K, M, M).
        c: mean variance of a value under the C_k.
    """

    centre: Tensor
    D: Tensor
    CA: Tensor
    a: Tensor
    V: Tensor
    c: float

    @cached_property
    def square(self) -> Tensor:
        """|D_k|^2, (K,)."""
        return self.D.square().sum(1)

    @cached_property
    def CAD(self) -> Tensor:
        """(C_k A^T)^T D_k, (K, 1, M)."""
        return (self.CA @ self.D[:, :, None]).mT

    @cached_property
    def gram(self) -> Tensor:
        """(C_k A^T)^T C_k A^T, (K, M, M)."""
        return self.CA @ self.CA.mT

    @classmethod
    @torch.no_grad()
    def of(cls, pool: Draws, j: int, measured: Measured, like: Tensor) -> NarrowLaws:
        """Of the pool's j-th level; one network call and M + 1 products for each draw."""
        x, M = pool.states(like)[j], measured.size
        K, event, system = len(x), tuple(x.shape[1:]), measured.system(x)
        eye = torch.eye(M, dtype=x.dtype, device=x.device)
        signs = random_signs(K, x, x[0].numel()).reshape(x.shape)
        parts = []
        for part, z in zip(x.split(pool.batch), signs.split(pool.batch), strict=True):
            x0, product = pool.prior.covariance(part, pool.levels[j])
            columns = [product(system.adjoint(row.expand(len(part), M))) for row in eye]
            parts.append((x0, torch.stack(columns, 1), z * product(z)))
        pool.spent += K
        D, CA, traces = (torch.cat(each) for each in zip(*parts, strict=True))
        c = float(traces.double().mean().clamp(min=0))
        V = system.apply(CA.flatten(0, 1)).reshape(K, M, M).double()
        flat = D.flatten(1).double()
        centre = flat.mean(0)
        a = system.apply(D - centre.to(D).reshape(event))
        return cls(centre, flat - centre, CA.flatten(2).double(), a.double(), _positive(V), c)

    def tell(self, x: Tensor, r: Tensor, noise: Tensor, sigma: float, least: float) -> Told:
        """Of states x (B, N) with residuals r = y - A E[x0 | x] (B, M), noise variances (M,).

        Given x and k, x0 ~ N(m_k, h C_k) with m_k = h D_k + (1 - h) x, h = sigma^2/(sigma^2 + c);
        the m_k are moved together until their mean is E[x0 | x]. `least`: the effective number of
        draws below which nothing is said of a state, before y and after it.
        """
        x = x.double() - self.centre
        h, square = sigma**2 / (sigma**2 + self.c), self.square
        log_p = ((x @ self.D.mT - square / 2) / (sigma**2 + self.c)).log_softmax(1)
        rows = (effective(log_p) >= least).nonzero().flatten()
        log_p, r = log_p[rows].mT, r[rows].double()  # draws first, from here: (K, R)
        p = log_p.exp()
        L = torch.linalg.cholesky(h * self.V + torch.diag(noise.double().expand(r.shape[1])))
        e = r.mT - h * (self.a[:, :, None] - (self.a.mT @ p))  # y - A m_k, (K, M, R)
        half = torch.linalg.solve_triangular(L, e, upper=False)
        u = torch.linalg.solve_triangular(L.mT, half, upper=True)
        log_y = -half.square().sum(1) / 2 - L.diagonal(dim1=1, dim2=2).log().sum(1)[:, None]
        log_w = log_p + log_y
        log = log_w.logsumexp(0)
        w = (log_w - log).exp()
        # Of draw k: z_k = D_k + C_k A^T u_k, both over h.
        rowwise = self.CA.flatten(0, 1)
        mean_z = w.mT @ self.D + (w[:, None] * u).flatten(0, 1).mT @ rowwise
        mean_D = p.mT @ self.D
        D_mean_z, D_mean_D = self.D @ mean_z.mT, self.D @ mean_D.mT

        def further(v: Tensor) -> Tensor:
            """(z_k - D_k) . v, (K, R), for v (R, N)."""
            return (u * (rowwise @ v.mT).unflatten(0, u.shape[:2])).sum(1)

        z_D = square[:, None] + (self.CAD @ u)[:, 0]
        z_z = 2 * z_D - square[:, None] + (u * (self.gram @ u)).sum(1)
        far_z = z_z - 2 * (D_mean_z + further(mean_z)) + mean_z.square().sum(1)
        far_D = square[:, None] - 2 * D_mean_D + mean_D.square().sum(1)
        both = z_D - D_mean_D - further(mean_D) - D_mean_z + (mean_z * mean_D).sum(1)
        influence = w**2 * far_z + p**2 * far_D - 2 * w * p * both
        variance = h**2 * influence.sum(0).clamp(min=0)
        kept = effective(log_w.mT - log[:, None]) >= least
        log = log - r.shape[1] / 2 * math.log(2 * math.pi)
        return Told(rows[kept], (h * (mean_z - mean_D))[kept], log[kept], variance[kept])


def effective(log_p: Tensor) -> Tensor:
    """1 / sum_k p_k^2, (B,), of log probabilities (B, K)."""
    return 1 / log_p.exp().square().sum(1)


def _positive(V: Tensor) -> Tensor:
    """The symmetric part, its eigenvalues not below 0: a network's Jacobian is neither quite."""
    values, vectors = torch.linalg.eigh((V + V.mT) / 2)
    return vectors @ (values.clamp(min=0)[:, :, None] * vectors.mT)
