"""Splitting methods: denoise, make the clean image agree with y, put noise back.

One loop for all of them. At level sigma, with x the noisy state,

    x0 = denoiser(x)            the mean E[x0 | x], an ODE's end, or a draw of p(x0 | x)
    z  = data step(x0)          towards p(y | z) N(z; x0, v I): projected, maximised or drawn
    x' = noise(z)               at the next level sigma'

The forward model never sees noise: p(y | x0) is used as it is, whatever its kind, and no
p_sigma(y | x) is needed. Nor is the prior differentiated, but by `Optimised`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor

from priors import Prior

from ..posterior import Posterior
from ..samplers.sampler import Noise, Past, Sampler
from .denoisers import Denoiser
from .problem import Problem
from .updates import Split, Update, later


class Splits(Sampler):
    """A sampler that takes a posterior apart. `order` 0: no discretisation of an exact process."""

    order = 0
    splits = True
    _known: Problem | None = None

    def _problem(self, prior: Prior) -> Problem:
        """The problem of this posterior, made once for a run of it; TypeError for other priors."""
        if not isinstance(prior, Posterior):
            raise TypeError(
                f"{type(self).__name__} splits a Posterior from inverse.condition, got "
                f"{type(prior).__name__}"
            )
        if self._known is None or self._known.posterior is not prior:
            self._known = Problem(prior)
        return self._known


@final
class Splitting(Splits):
    """One denoiser and one update, at every noise level.

    Args:
        levels: see Sampler.
        denoiser: `Mean`, `FlowODE`, `ReverseSDE` or `Optimised`.
        update: `Renewed(data step, noise)`, or a spectral one, which does both at once.
        held: how many further steps stay at the last positive level, for methods that sample there
            rather than pass by.

    Walks a Posterior only. Network calls of the denoiser at each step. The order of convergence is
    0 unless a method's own text says more: most are no discretisation of any exact process.

    Raises TypeError for a prior that is no Posterior.
    """

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        denoiser: Denoiser,
        update: Update,
        held: int = 0,
    ) -> None:
        super().__init__(levels)
        if isinstance(held, bool) or not isinstance(held, int) or held < 0:
            raise ValueError(f"held must be an integer >= 0, got {held!r}")
        self.held = held
        self.denoiser, self.update = denoiser, update
        self.draws = max(1, denoiser.draws + update.draws)
        self.memory = 1 if update.warm else 0

    @property
    def path(self) -> Tensor:
        last = int((self.levels > 0).nonzero()[-1])
        stay = self.levels[last].repeat(self.held)
        return torch.cat([self.levels[: last + 1], stay, self.levels[last + 1 :]])

    def _calls(self, sigma: float, sigma_next: float) -> int:
        return self.denoiser.calls

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        problem = self._problem(prior)
        x0 = self.denoiser(problem, x, sigma, eps)
        if not bool(torch.isfinite(x0).all()):  # nothing can be solved for; the run says where
            return x0, x0
        split = Split(
            problem, x, x0, sigma, sigma_next,
            eps=partial(later, eps, self.denoiser.draws),
            index=int((self.levels > sigma).sum()),
            before=past[0][1] if past else None,
        )  # fmt: skip
        return self.update(split)
