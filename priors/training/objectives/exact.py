"""Exact (implicit) score matching: the divergence of the score, one derivative for each value.

Integration by parts removes the unknown score of the data from the Fisher divergence,

    E |s_D - s|^2 = E [ |s_D|^2 + 2 tr ds_D/dx ] + E |s|^2,

and in terms of the denoising error (Stein's unbiased risk estimate)

    E |D - x0|^2 = E [ sigma^4 (|s_D|^2 + 2 tr ds_D/dx) + n sigma^2 ],    s_D = (D - x) / sigma^2.

Only the noisy x enters on the right: nobody has to know x0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...prior import Prior, event_size
from ..noise_levels import NoiseLevels
from .objective import Objective, squared_norm

Terms = Callable[[Tensor, Callable[[Tensor], Tensor]], tuple[Tensor, Tensor]]
"""(s, v -> (ds/dx)^T v) -> estimates (B,) of |s|^2 and of tr ds/dx."""


@final
class ExactScoreMatching(Objective):
    """w(sigma) [ sigma^4 (|s_D|^2 + 2 tr ds_D/dx) + n sigma^2 ] / n, with the trace exact.

    Its expectation is that of denoising score matching with the same weighting; single losses may
    be negative. x0 is used to draw x and not otherwise.

    Costs one network call and n derivatives of it, n the number of values in a sample, each
    differentiated again in training: for small problems.

    Args:
        weighting: score by default, sigma^2 (|s_D|^2 + 2 tr ds_D/dx) / n + 1; see `Weighting`.
        max_size: the largest n that is served.
        sigma_data, gamma, levels: as in `Objective`.

    Raises:
        ValueError: at the call, an event of more than max_size values.

    Paper: Hyvarinen, "Estimation of Non-Normalized Statistical Models by Score Matching", 2005,
    https://jmlr.org/papers/v6/hyvarinen05a.html
    """

    def __init__(
        self,
        weighting: str = "score",
        *,
        max_size: int = 64,
        sigma_data: float | None = None,
        gamma: float = 5.0,
        levels: NoiseLevels | None = None,
    ) -> None:
        super().__init__(weighting, sigma_data=sigma_data, gamma=gamma, levels=levels)
        if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
            raise ValueError(f"max_size must be an integer >= 1, got {max_size!r}")
        self.max_size = max_size

    def _error(
        self, prior: Prior, x0: Tensor, x: Tensor, sigma: Tensor, generator: torch.Generator
    ) -> Tensor:
        size = event_size(tuple(x.shape[1:]))
        if size > self.max_size:
            raise ValueError(
                f"exact score matching takes {size} derivatives for events of shape "
                f"{tuple(x.shape[1:])}, more than max_size = {self.max_size}; use "
                "SlicedScoreMatching or DenoisingScoreMatching"
            )

        def terms(score: Tensor, vjp: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
            units = torch.eye(size, dtype=x.dtype, device=x.device)
            rows = [vjp(unit.reshape(1, *x.shape[1:]).expand_as(x)) for unit in units]
            diagonal = [row.reshape(len(x), -1)[:, i] for i, row in enumerate(rows)]
            return squared_norm(score), torch.stack(diagonal, -1).sum(-1)

        return risk(prior, x, sigma, terms)


def risk(prior: Prior, x: Tensor, sigma: Tensor, terms: Terms) -> Tensor:
    """sigma^4 (|s|^2 + 2 tr ds/dx) + n sigma^2, (B,), from one network call and `terms`.

    Differentiable once more where grad is on; works where it is off, the caller's sum then being
    free of the graph.
    """
    training = torch.is_grad_enabled()
    # The fused attention kernels have no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        leaf = x.detach().requires_grad_()
        score = prior.score(leaf, sigma.flatten())

        def vjp(v: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(
                score, leaf, v, retain_graph=True, create_graph=training
            )
            return product

        square, trace = terms(score, vjp)
        s2 = sigma.flatten() ** 2
        return s2**2 * (square + 2 * trace) + event_size(tuple(x.shape[1:])) * s2
