"""Sliced score matching: the divergence of the score along random directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from ...analytic.parameters import unit_noise
from ...prior import Prior
from ..noise_levels import NoiseLevels
from .exact import risk
from .objective import Objective, inner, squared_norm

SLICES = ("gaussian", "rademacher")


@final
class SlicedScoreMatching(Objective):
    """Exact score matching with |s_D|^2 and tr ds_D/dx seen along M random slices v.

        tr ds_D/dx  ~  mean_v  v . (ds_D/dx) v,        E v v^T = I
        |s_D|^2     ~  mean_v  (v . s_D)^2,    or |s_D|^2 itself (variance reduced)

    Its expectation is that of exact and of denoising score matching with the same weighting;
    single losses may be negative. x0 is used to draw x and not otherwise.

    Costs one network call and M derivatives of it, each differentiated again in training, at any
    size of the event.

    Args:
        variance_reduced: take |s_D|^2 as it is instead of along the slices.
        projections: M, slices for each sample.
        slices: their law, gaussian or rademacher (random signs; no noise from the diagonal of
            ds_D/dx).
        weighting: score by default, sigma^2 (|s_D|^2 + 2 tr ds_D/dx) / n + 1; see `Weighting`.
        sigma_data, gamma, levels: as in `Objective`.

    Raises:
        ValueError: projections < 1, an unknown law.

    Paper: Song et al., "Sliced Score Matching: A Scalable Approach to Density and Score
    Estimation", 2019, https://arxiv.org/abs/1905.07088
    """

    def __init__(
        self,
        variance_reduced: bool = True,
        projections: int = 1,
        slices: str = "rademacher",
        weighting: str = "score",
        *,
        sigma_data: float | None = None,
        gamma: float = 5.0,
        levels: NoiseLevels | None = None,
    ) -> None:
        super().__init__(weighting, sigma_data=sigma_data, gamma=gamma, levels=levels)
        if isinstance(projections, bool) or not isinstance(projections, int) or projections < 1:
            raise ValueError(f"projections must be an integer >= 1, got {projections!r}")
        if slices not in SLICES:
            raise ValueError(f"unknown law of the slices {slices!r}; known: {', '.join(SLICES)}")
        self.variance_reduced = bool(variance_reduced)
        self.projections, self.slices = projections, slices

    def _error(
        self, prior: Prior, x0: Tensor, x: Tensor, sigma: Tensor, generator: torch.Generator
    ) -> Tensor:
        directions = [self._slice(x, generator) for _ in range(self.projections)]

        def terms(score: Tensor, vjp: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
            trace = torch.stack([inner(v, vjp(v)) for v in directions]).mean(0)
            if self.variance_reduced:
                return squared_norm(score), trace
            return torch.stack([inner(v, score) ** 2 for v in directions]).mean(0), trace

        return risk(prior, x, sigma, terms)

    def _slice(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """v of the shape of x, with independent values of mean 0 and variance 1."""
        noise = unit_noise(tuple(x.shape), generator, x)
        return noise if self.slices == "gaussian" else torch.where(noise < 0, -1.0, 1.0).to(x)
