"""Denoising score matching: the error of the denoiser itself."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ...prior import Prior
from ..noise_levels import NoiseLevels
from .objective import Objective, squared_norm


@final
class DenoisingScoreMatching(Objective):
    """w(sigma) |D(x0 + sigma eps, sigma) - x0|^2 per value.

    Costs one network call, and one backward pass where it is trained.

    Args:
        weighting: edm by default; see `Weighting` for each formula and paper.
        sigma_data, gamma, levels: as in `Objective`.

    Paper: Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011,
    https://doi.org/10.1162/NECO_a_00142
    """

    def __init__(
        self,
        weighting: str = "edm",
        *,
        sigma_data: float | None = None,
        gamma: float = 5.0,
        levels: NoiseLevels | None = None,
    ) -> None:
        super().__init__(weighting, sigma_data=sigma_data, gamma=gamma, levels=levels)

    def _error(
        self, prior: Prior, x0: Tensor, x: Tensor, sigma: Tensor, generator: torch.Generator
    ) -> Tensor:
        return squared_norm(prior.denoise(x, sigma.flatten()) - x0)
