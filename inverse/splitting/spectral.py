"""Data step and noise at once, direction by direction of the singular value decomposition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..spectral import not_spectral, white_sigma
from .updates import Split, Update


@final
@dataclass(frozen=True)
class Spectral(Update):
    """In the basis of A = U diag(s) V^T, with ybar = U^T y / s and e = (x - x0) / sigma:

        s = 0                  x0 + sqrt(1 - eta^2) sigma' e + eta sigma' z
        sigma' < sigma_y / s   x0 + sqrt(1 - eta_low^2) sigma' s (ybar - x0) / sigma_y
                                  + eta_low sigma' z
        else                   (1 - eta_b) x0 + eta_b ybar
                                  + sqrt(sigma'^2 - (eta_b sigma_y / s)^2) z

    so that the noise of the measurement counts as part of the noise of the state: with eta_b = 1
    the state is y itself, noised further, wherever y is the less noisy of the two. DDRM has
    eta_low = eta. DDNM+ has eta_b = 1 and eta_low = 0: its x0 is moved by the share
    min(1, sigma' s / sigma_y) of A^+ (y - A x0), and what noise that leaves room for is added.
    A last step to level 0 returns x0.

    Args:
        eta, eta_b: in [0, 1]; 0.85 and 1 in DDRM.
        eta_low: in [0, 1]; None for eta.
    Raises:
        TypeError: forward models that are not one linear-Gaussian one; ValueError: no SVD, or a
        sigma_y that differs from entry to entry.

    Papers: Kawar et al., "Denoising Diffusion Restoration Models", 2022,
    https://arxiv.org/abs/2201.11793; Wang, Yu and Zhang, "Zero-Shot Image Restoration Using
    Denoising Diffusion Null-Space Model", 2023, https://arxiv.org/abs/2212.00490
    """

    eta: float = 0.85
    eta_b: float = 1.0
    eta_low: float | None = None

    draws = 1

    def __post_init__(self) -> None:
        for name, value in {"eta": self.eta, "eta_b": self.eta_b, "eta_low": self.eta_low}.items():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")

    def __call__(self, split: Split) -> tuple[Tensor, Tensor]:
        if split.sigma_next == 0:
            return split.x0, split.x0
        measured = split.problem.linear()
        why = not_spectral(measured.model)
        if why is not None:
            raise ValueError(why)
        svd, level = measured.model.operator.svd, white_sigma(measured.model)
        assert svd is not None
        assert level is not None
        x0, ahead, z = split.x0, split.sigma_next, split.eps()
        s = svd.singular_values.to(x0)
        seen = s > 0
        s = torch.where(seen, s, 1)
        y = svd.to_spectral_y(measured.y) / s
        noise = level / s
        high = noise <= ahead
        low_eta = self.eta if self.eta_low is None else self.eta_low
        gain = torch.where(high, self.eta_b, math.sqrt(1 - low_eta**2) * ahead / noise)
        left = (ahead**2 - (self.eta_b * noise) ** 2).clamp(min=0).sqrt()
        fresh = torch.where(high, left, low_eta * ahead)

        unseen = (
            x0
            + math.sqrt(1 - self.eta**2) * ahead / split.sigma * (split.x - x0)
            + self.eta * ahead * z
        )
        moved = gain * (y - svd.to_spectral_x(x0))
        both = svd.to_spectral_x(x0) + moved + fresh * svd.to_spectral_x(z)
        change = both - svd.to_spectral_x(unseen)
        x = unseen + svd.from_spectral_x(torch.where(seen, change, 0))
        return x, x0 + svd.from_spectral_x(torch.where(seen, moved, 0))
