"""The noise-absorbed likelihood: the measurement's noise explains the noise of the state.

y = A x0 + N(0, S) says of the noisy x = x0 + sigma eps, as long as sigma^2 A A^T < S,

    h_sigma(y | x) = N(y; A x, S - sigma^2 A A^T),      E[h_sigma(y | x) | x0] = p(y | x0),

since noise of covariance sigma^2 A A^T comes with x. So nu_sigma(x) ~ p_sigma(x) h_sigma(y | x)
satisfies, for whatever prior,

    int p(x0 | x) nu_sigma(x) dx ~ p(x0) E[h_sigma(y | x) | x0] = p(x0) p(y | x0):

draws from nu_sigma are carried to the exact posterior by *unconditional* reverse steps.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from forward_models import LinearGaussian, conjugate_gradients

from .likelihood import Cost, Likelihood, Moments
from .linear_system import Measured


class Pulled(NamedTuple):
    """sigma^2 A^T T^-1 r, (B, *event), and r^T T^-1 r, (B,)."""

    pulled: Tensor
    quadratic: Tensor


@final
class Absorbed(Likelihood):
    """Any lift of a LinearGaussian model, with h_sigma(y | x) in its place at small noise levels.

    Below `threshold` = fraction / |S^(-1/2) A|, with T = S - sigma^2 A A^T,

        log density = log N(y; A x, T),      shift = sigma^2 A^T T^-1 (y - A x),

    no derivative of the network; above it the wrapped lift. One threshold serves all directions.

    What it is for. h_sigma is **not** p_sigma(y | x), the posterior seen through noise: without
    prior knowledge and for A = I, S = s^2 I, nu_sigma has variance s^2 - sigma^2 where p_sigma(x |
    y) has s^2 + sigma^2.

    * As the twist of particles it is exact: at any level below the threshold weigh the particles by
      p_sigma(x) h_sigma(y | x) and carry them on by unguided, unweighted steps. `exact_at` says
      from where.
    * So it is as the target of Langevin steps at one level: grad log p_sigma + shift / sigma^2 is
      the exact score of nu_sigma; unguided steps take its draws to the posterior.
    * As the drift of a sampler that walks the path p_sigma(x | y) it is **wrong** for sigma > 0: it
      pulls by 1 / (s^2 - sigma^2) where that path needs 1 / (s^2 + sigma^2), and a reverse SDE that
      adds it at every level ends with a third of the variance in the example above.

    The switch. T is singular at fraction 1, and going over to nu_sigma asks of each measured
    direction, if it is known from y alone, a reweighting from N(0, 1 + f^2) to N(0, 1 - f^2). This
    leaves a share sqrt((1 - f^2) (1 + 3 f^2)) / (1 + f^2) of the particles: .92 at f = .5, .75 at
    .7, .45 at .9, to the power of the number of such directions. Against that a larger f saves
    guided steps between f = .5 and 1 only: log 2 in log sigma. By default .5.

    Args:
        lift: the likelihood above the threshold, of a LinearGaussian model; it has a `model` and
            a `y`, as all of this room.
        fraction: f in (0, 1).

    Exact below the threshold, in the sense above, for states that come there by the right law:
    errors of the guidance above it are only as far mended as Langevin steps at the threshold reach,
    see `samplers.Absorbing`. Where |S^(-1/2) A| is not known in closed form it
    is found from below by Lanczos steps, far closer than the fraction leaves room for. Costs
    nothing below the threshold, beside the network call that Posterior makes anyway: conjugate
    gradients with A A^T, of condition number at most 1 / (1 - f^2), so about ten iterations.

    Raises TypeError for a lift of another model, ValueError for another fraction.

    Papers: Bruna and Han, "Provable Posterior Sampling with Denoising Oracles via Tilted
    Transport", 2024, https://arxiv.org/abs/2407.00745; Cardoso et al., "Monte Carlo guided
    Diffusion for Bayesian linear inverse problems", 2024, https://arxiv.org/abs/2308.07983
    """

    def __init__(self, lift: Likelihood, fraction: float = 0.5) -> None:
        model = getattr(lift, "model", None)
        if not isinstance(model, LinearGaussian):
            raise TypeError(
                "Absorbed needs a lift of a LinearGaussian model, got "
                f"{type(lift).__name__} of {type(model).__name__}"
            )
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
        self.lift, self.fraction, self.model = lift, fraction, model
        self.measured = Measured(model, lift.y)  # type: ignore[attr-defined]
        self.y = self.measured.y
        self.needs_covariance = lift.needs_covariance

    @cached_property
    def threshold(self) -> float:
        """The largest noise level, data units, at which the noise is absorbed."""
        largest = self.measured.spectrum.largest
        return self.fraction / math.sqrt(largest) if largest > 0 else math.inf

    def exact_at(self, sigma: float) -> bool:
        return sigma <= self.threshold or self.lift.exact_at(sigma)

    def needs_covariance_at(self, sigma: Tensor) -> bool:
        above = bool((sigma > self.threshold).any())
        return above and self.lift.needs_covariance_at(sigma)

    @property
    def weighs_with_covariance(self) -> bool:
        return self.lift.weighs_with_covariance

    @property
    def cost(self) -> Cost:
        """That of the wrapped lift, above the threshold; nothing below it."""
        return self.lift.cost

    @property
    def density_cost(self) -> Cost:
        return self.lift.density_cost

    @property
    def prepared_calls(self) -> int:
        return self.lift.prepared_calls

    def shift(self, moments: Moments) -> Tensor:
        below = moments.sigma <= self.threshold
        if bool(below.all()):
            return self._absorbed(moments).pulled
        lifted = self.lift.shift(moments)
        if not bool(below.any()):
            return lifted
        return torch.where(below, self._absorbed(moments).pulled, lifted)

    def log_likelihood(self, moments: Moments) -> Tensor:
        below = moments.sigma.flatten() <= self.threshold
        if bool(below.all()):
            return self._density(moments, self._absorbed(moments))
        lifted = self.lift.log_likelihood(moments)
        if not bool(below.any()):
            return lifted
        return torch.where(below, self._density(moments, self._absorbed(moments)), lifted)

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        below = moments.sigma <= self.threshold
        if not bool(below.any()):
            return self.lift.evaluate(moments)
        absorbed = self._absorbed(moments)
        log_h = self._density(moments, absorbed)
        if bool(below.all()):
            return absorbed.pulled, log_h
        shift, log_p = self.lift.evaluate(moments)
        return (
            torch.where(below, absorbed.pulled, shift),
            torch.where(below.flatten(), log_h, log_p),
        )

    def _variance(self, moments: Moments) -> Tensor:
        """sigma^2, (B, 1), at most the threshold's: beyond it T need not be positive."""
        return moments.sigma.flatten()[:, None].clamp(max=self.threshold) ** 2

    def _absorbed(self, moments: Moments) -> Pulled:
        """w with T w = y - A x, and sigma^2 A^T w."""
        r, s2 = self.measured.residual(moments.x), self._variance(moments)
        system = self.measured.system(r)
        root = system.noise.sqrt()

        def whitened(u: Tensor) -> Tensor:
            return u - s2 * system.apply(system.adjoint(u / root)) / root

        w = conjugate_gradients(whitened, r / root)[0] / root
        pulled = moments.sigma**2 * system.adjoint(w)
        return Pulled(pulled, (r * w).sum(1))

    def _density(self, moments: Moments, absorbed: Pulled) -> Tensor:
        log_det = self.measured.log_det(-self._variance(moments)[:, 0])
        size = self.measured.size
        return -(absorbed.quadratic + log_det + size * math.log(2 * math.pi)) / 2
