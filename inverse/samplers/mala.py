"""Metropolis-adjusted Langevin dynamics: Langevin steps, each accepted or refused."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from priors import Prior

from ..checks import positive, whole
from .langevin import langevin_step
from .sampler import Noise, Past, Sampler


@final
class MALA(Sampler):
    """Langevin steps at one noise level with Metropolis and Hastings' correction.

        x^ = x + a s(x) + sqrt(2 a) z,               s = score(., sigma),
        accepted with probability min(1, p(x^) q(x | x^) / (p(x) q(x^ | x))),
        log q(b | a') = -|b - a' - a s(a')|^2 / (4 a)    for a step from a' to b,

    each sample by itself. p_sigma is the stationary law, whatever the step size, where the ratio
    of densities is exact: for a prior with `log_density(x, sigma)`, and for any Gaussian. Elsewhere

        log p(x^) - log p(x) = (s(x) + s(x^)) . (x^ - x) / 2,

    the trapezoidal rule along the line between them, is wrong by |x^ - x|^3 / 12 times the third
    derivative of log p_sigma along it, so by O(a^(3/2)) for one step. Like Langevin it does not
    mix between separated modes. One network call for each proposal, and one for the start.

    `acceptance` holds each sample's share of accepted proposals in the last run (of the last batch
    in `inverse.sample`; since the restart in a resumed run); about 0.57 is best in many dimensions.

    Args:
        sigma: the noise level, data units, > 0; the samples follow p_sigma, noise included.
        step_size: a, data units squared, > 0.
        steps: how many proposals.

    Papers: Roberts and Tweedie, "Exponential Convergence of Langevin Distributions and Their
    Discrete Approximations", 1996, https://doi.org/10.2307/3318418; Roberts and Rosenthal,
    "Optimal Scaling of Discrete Approximations to Langevin Diffusions", 1998,
    https://doi.org/10.1111/1467-9868.00123
    """

    order = 1
    stationary = True
    memory = 1
    draws = 2

    def __init__(self, sigma: float, step_size: float, steps: int) -> None:
        self.sigma, self.step_size = positive(sigma, "sigma"), positive(step_size, "step_size")
        self.steps = whole(steps, "steps")
        self.levels = torch.tensor([self.sigma], dtype=torch.float64)
        self._accepted: Tensor | None = None
        self._made = 0

    @property
    def path(self) -> Tensor:
        return self.levels.expand(self.steps + 1)

    @property
    def network_calls(self) -> int:
        return self.steps + 1

    @property
    def acceptance(self) -> Tensor | None:
        """(n,) share of accepted proposals in the last run; None before one."""
        return None if self._accepted is None else self._accepted / max(self._made, 1)

    def _begin(self, n: int) -> None:
        self._accepted, self._made = torch.zeros(n, dtype=torch.float64), 0

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        x0 = past[0][1] if past else prior.denoise(x, sigma)
        score = (x0 - x) / sigma**2
        x_new = langevin_step(x, score, self.step_size, eps())
        x0_new = prior.denoise(x_new, sigma)
        score_new = (x0_new - x_new) / sigma**2
        log_ratio = (
            _log_density_ratio(prior, x, score, x_new, score_new, sigma)
            + _log_transition(x_new, score_new, x, self.step_size)
            - _log_transition(x, score, x_new, self.step_size)
        )
        u = torch.special.ndtr(eps(1).reshape(len(x), -1)[:, 0].double())
        accepted = u.log() < log_ratio
        self._accepted = (0 if self._accepted is None else self._accepted) + accepted.double().cpu()
        self._made += 1
        rows = accepted.reshape(-1, *[1] * (x.ndim - 1))
        x_next, x0_next = torch.where(rows, x_new, x), torch.where(rows, x0_new, x0)
        # A ratio that is not a number must stop the run, not pass for a refusal.
        broken = log_ratio.isnan().reshape(rows.shape)
        return x_next.masked_fill(broken, torch.nan), x0_next


def _log_density_ratio(
    prior: Prior, x: Tensor, score: Tensor, x_new: Tensor, score_new: Tensor, sigma: float
) -> Tensor:
    """log p_sigma(x_new) - log p_sigma(x), (B,), float64."""
    density = getattr(prior, "log_density", None)
    if density is not None:
        ratio: Tensor = density(x_new, sigma).double() - density(x, sigma).double()
        return ratio
    return _rows((score + score_new).double() * (x_new - x).double()).sum(1) / 2


def _log_transition(x: Tensor, score: Tensor, x_new: Tensor, step_size: float) -> Tensor:
    """log q(x_new | x) up to a constant, (B,), float64."""
    ahead = (x_new - x).double() - step_size * score.double()
    return -_rows(ahead).square().sum(1) / (4 * step_size)


def _rows(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1)
