"""Predictor-corrector: a step down to the next noise level, then Langevin steps at that level."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from priors import Prior
from priors.prior import event_size

from ..checks import positive, whole
from .langevin import langevin_step
from .sampler import Noise, Past, Sampler


@final
class PredictorCorrector(Sampler):
    """Any one-step sampler as predictor, and M Langevin steps to mend its error at each level.

    The size of a corrector's step follows the signal-to-noise ratio r of its parts, for each
    sample by itself: with g the score and D values in an event, so that E|z|^2 = D,

        x' = x + a g + sqrt(2 a) z,        a = 2 r^2 D / max(|g|^2, D / (scale^2 + sigma^2)).

    The paper divides by the mean |g|^2 of the batch; here a sample does not depend on its batch
    mates. The bound, |g|^2 of a Gaussian as wide as the whole prior, keeps the step finite where
    the score of a sample vanishes, which happens with few values (D below about 20).

    The corrector leaves a bias that does not fall with the number of levels: where p_sigma is
    N(m, v I), D large, its stationary variance is v (1 + r^2). One network call for each
    corrector step besides those of the predictor; none is spent at level 0.

    Args:
        predictor: a Sampler whose steps do not look back (not Multistep) and that is not itself a
            Langevin method; its levels are walked.
        corrections: M.
        snr: r, in (0, 1); 0.16 in the paper for VE and CIFAR-10.
    Raises:
        TypeError, ValueError: arguments of other kinds, or out of range.

    Paper: Song et al., "Score-Based Generative Modeling through SDEs", 2021,
    https://arxiv.org/abs/2011.13456 (Algorithms 2 to 5)
    """

    def __init__(self, predictor: Sampler, corrections: int = 1, snr: float = 0.16) -> None:
        if not isinstance(predictor, Sampler):
            raise TypeError(f"predictor must be a Sampler, got {type(predictor).__name__}")
        name = type(predictor).__name__
        if predictor.memory > 0 and not predictor.stationary:
            raise ValueError(
                f"{name} looks back at the step before, which a correction makes meaningless; "
                "choose Ancestral, EulerMaruyama or Heun as predictor"
            )
        if predictor.stationary or isinstance(predictor, PredictorCorrector):
            raise ValueError(
                f"{name} takes Langevin steps itself; choose Ancestral, EulerMaruyama or Heun as "
                "predictor"
            )
        if predictor.adaptive or len(predictor.path) != len(predictor.levels):
            raise ValueError(
                f"{name} does not take one step between two levels; choose Ancestral, "
                "EulerMaruyama or Heun as predictor"
            )
        self.predictor, self.levels = predictor, predictor.levels
        self.order = predictor.order
        self.corrections = whole(corrections, "corrections")
        self.snr = positive(snr, "snr")
        if self.snr >= 1:
            raise ValueError(f"snr must lie in (0, 1), got {snr}")

    @property
    def path(self) -> Tensor:
        held = self.levels[1:].repeat_interleave(1 + self.corrections)
        if float(self.levels[-1]) == 0:
            held = held[: -self.corrections]
        return torch.cat([self.levels[:1], held])

    def _calls(self, sigma: float, sigma_next: float) -> int:
        return self.predictor._calls(sigma, sigma_next) if sigma_next < sigma else 1

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        if sigma_next < sigma:
            return self.predictor._step(prior, x, sigma, sigma_next, eps, ())
        score = prior.score(x, sigma)
        size = event_size(prior.event_shape)
        widest = size / (prior.scale**2 + sigma**2)
        norm2 = score.reshape(len(x), -1).square().sum(1).clamp(min=widest)
        step_size = (2 * self.snr**2 * size / norm2).reshape(-1, *[1] * (x.ndim - 1))
        return langevin_step(x, score, step_size, eps()), x + sigma**2 * score
