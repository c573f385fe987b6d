"""How much the denoising error at each noise level counts.

With d the standard deviation of the data, the loss is w(sigma) |D(x, sigma) - x0|^2 per value:

    uniform      w = 1                      the error of D itself, in squared data units
    score        w = 1 / sigma^2            the error of eps, or of the score times sigma
    edm          w = 1 / sigma^2 + 1 / d^2  the error of F, whose target has unit variance; with d
                                            one network unit also the error of v
    flow         w = (1 / sigma + 1 / d)^2  the error of the velocity eps - x0, d one network unit
    min-snr      w = min(1 / sigma^2, gamma / d^2)   as score, but bounded at small noise
    likelihood   w = 1 / (sigma^3 p(sigma))          a bound on the log-likelihood, see below

All but the first are pure numbers. The best denoiser is E[x0 | x] under each.

Likelihood weighting divides by the density p of the levels drawn, so that the expected loss is an
integral over noise levels which does not depend on p:

    E loss = (1/n) int |D - x0|^2 / sigma^3 d sigma.

For data p and a model q_0 whose own denoiser is D, the loss of D exceeds that of the data's
denoiser by (KL(p_low || q_low) - KL(p_high || q_high)) / n, nats per value, with low and high the
ends of the range. Where high is far above the data's scale, it bounds the log-likelihood:

    E[-log q_low(x0 + low eps)] / n  <=  E loss + log(low) + log(2 pi e) / 2   + O(d^2 / high^2),

an equality where D is the denoiser of a density.

Papers: Karras et al. 2022, https://arxiv.org/abs/2206.00364 (edm); Ho et al., "Denoising Diffusion
Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239 (score); Salimans and Ho,
"Progressive Distillation", 2022, https://arxiv.org/abs/2202.00512 (v); Lipman et al., "Flow
Matching for Generative Modeling", 2023, https://arxiv.org/abs/2210.02747 (flow); Hang et al.,
"Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023,
https://arxiv.org/abs/2303.09556 (min-snr); Song et al., "Maximum Likelihood Training of
Score-Based Diffusion Models", 2021, https://arxiv.org/abs/2101.09258 (likelihood)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast, final

import torch
from torch import Tensor

from ..noise_levels import NoiseLevels


@final
class Weighting:
    """w(sigma) by name; see the table above.

    Args:
        name: uniform, score, edm, flow, min-snr or likelihood.
        sigma_data: d, the standard deviation of one value of x0 in the prior's units; None takes
            the prior's `scale`, which for a NetworkPrior is one network unit.
        gamma: of min-snr alone.
        levels: the density from which the noise levels are drawn; of likelihood alone.

    Raises:
        ValueError: an unknown name, likelihood without levels, sigma_data or gamma not positive.
    """

    def __init__(
        self,
        name: str,
        *,
        sigma_data: float | None = None,
        gamma: float = 5.0,
        levels: NoiseLevels | None = None,
    ) -> None:
        if name not in _FORMULAS:
            raise ValueError(f"unknown weighting {name!r}; known: {', '.join(_FORMULAS)}")
        if sigma_data is not None and not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data must be positive and finite, got {sigma_data}")
        if not 0 < gamma < math.inf:
            raise ValueError(f"gamma must be positive and finite, got {gamma}")
        if name == "likelihood" and levels is None:
            raise ValueError(
                "likelihood weighting divides by the density of the noise levels; give levels="
            )
        self.name, self.sigma_data, self.gamma = name, sigma_data, float(gamma)
        self.levels = levels

    def __call__(self, sigma: Tensor, scale: float) -> Tensor:
        """w (B,) at levels sigma (B,) > 0; scale stands in for sigma_data where that is None.

        Raises ValueError for likelihood at a level that `levels` never gives.
        """
        weight = _FORMULAS[self.name](self, sigma, self.sigma_data or scale)
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(
                f"the {self.name} weight is not finite at some noise level between "
                f"{float(sigma.min()):.4g} and {float(sigma.max()):.4g}; are these drawn from the "
                "levels of the weighting?"
            )
        return weight


def _likelihood(weighting: Weighting, sigma: Tensor, d: float) -> Tensor:
    levels = cast(NoiseLevels, weighting.levels)
    return (-levels.log_density(sigma) - 3 * sigma.log()).exp()


_FORMULAS: dict[str, Callable[[Weighting, Tensor, float], Tensor]] = {
    "uniform": lambda w, sigma, d: torch.ones_like(sigma),
    "score": lambda w, sigma, d: sigma**-2,
    "edm": lambda w, sigma, d: sigma**-2 + d**-2,
    "flow": lambda w, sigma, d: (1 / sigma + 1 / d) ** 2,
    "min-snr": lambda w, sigma, d: (sigma**-2).clamp(max=w.gamma / d**2),
    "likelihood": _likelihood,
}
