"""DMPlug: the noise of a DDIM map of a few steps, by Adam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from priors import Prior

from .initial_noise import InitialNoise
from .misfit import Misfit
from .optimisers import Adam


@final
class DMPlug(InitialNoise):
    """min over z of |y - A(R(z))|^2, with R the DDIM map of a few steps

        x' = D(x, sigma) + (sigma' / sigma) (x - D(x, sigma)),

    by Adam from z ~ N(0, I). The loss is `Misfit`'s, -log p(y | R(z)) up to a factor, which Adam
    does not see. Nothing holds z to the noise that R was made for, and the paper stops early, by a
    rule on the variance of its iterates, before the noise of y is fitted: here the number of steps
    is what there is to choose. Published images are clipped to their range, here they are not.

    As many network calls and vector-Jacobian products a step as the map has steps.

    Args:
        levels, steps, recompute: see `InitialNoise`.
        rate: of Adam, in units of z.

    Paper: Wang et al., "DMPlug: A Plug-in Method for Solving Inverse Problems with Diffusion
    Models", 2024, https://arxiv.org/abs/2405.16749
    """

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        steps: int,
        rate: float = 0.01,
        recompute: bool = False,
    ) -> None:
        super().__init__(levels, steps, recompute)
        self.optimiser = Adam(rate)

    @property
    def map_calls(self) -> int:
        return len(self.levels) - 1

    def _advance(self, prior: Prior, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        x0 = prior.denoise(x, sigma)
        return x0 + sigma_next / sigma * (x - x0)

    def _loss(self, misfit: Misfit, x: Tensor, z: Tensor) -> Tensor:
        return misfit(x)
