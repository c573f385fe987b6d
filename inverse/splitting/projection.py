"""Projection on what was measured, of clean images and of noisy states.

    P(x; y) = x + relaxation A^+ (y - A x)

With relaxation 1 it is the nearest image to x whose A x is (as near as can be) y: the part of x in
the range of A^+ is replaced, its part in the null space of A stays. Noise of y grows by 1 / s in a
direction of singular value s. What limits it:

- A with an SVD in closed form: A^+ leaves open, as if unmeasured, what has s < cutoff max s.
- other A: y itself is replaced, once for all steps, by A x_y, x_y the image of `stopped_fit`, which
  explains y to its noise and no better; where A^+ multiplies all noise about alike, by all that an
  image can explain of y, as it is. `iterations` of one A^+ limit nothing, because those of the
  next step go on from there: without A x_y all noise would arrive in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import final

import torch
from torch import Tensor

from forward_models.linear import conjugate_gradients
from forward_models.linear.svd import divide
from priors import Prior

from ..checks import positive, whole
from ..likelihoods import Measured
from ..samplers.sampler import Noise, Past, Sampler
from .splitting import Splits
from .updates import DataStep, Split


@final
@dataclass(frozen=True)
class Projection(DataStep):
    """z = x0 + A^+ (y - A x0): the measurement is believed, noise and all (DDNM).

    Where A has no SVD in closed form, A x_y is believed in place of y: see above. Without noise
    that is y.

    Args:
        iterations: at most so many conjugate gradients on the normal equations for one A^+, where A
            has no SVD. Fewer are cheaper and agree with the measurement after more steps; what
            they agree with is the same.
        cutoff: in [0, 1), where A has an SVD: singular values below this share of the largest
            count as 0, exactly; the noise of no direction is then multiplied by more than
            1 / (cutoff max s). Of masks and averages, whose values are all equal, nothing is cut.
            0.03 is what the released code has for blurs of norm 1.

    Raises TypeError for forward models that are not linear with Gaussian noise.

    Paper: Wang, Yu and Zhang, "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space
    Model", 2023, https://arxiv.org/abs/2212.00490
    """

    iterations: int = 50
    cutoff: float = 0.03

    def __post_init__(self) -> None:
        whole(self.iterations, "iterations")
        _share(self.cutoff)

    def __call__(self, split: Split) -> Tensor:
        measured = split.problem.believed
        r = measured.residual(split.x0)
        return split.x0 + pseudo_inverse(measured, r, self.iterations, self.cutoff)


def pseudo_inverse(measured: Measured, r: Tensor, iterations: int, cutoff: float) -> Tensor:
    """A^+ r, (B, *event), for r (B, M); see Projection."""
    operator, r = measured.model.operator, measured.unpack(r)
    svd = operator.svd
    if svd is not None:
        s = svd.singular_values
        s = torch.where(s.abs() < cutoff * s.abs().max(), 0, s).to(r.real if r.is_complex() else r)
        return svd.from_spectral_x(divide(svd.to_spectral_y(r), s))
    b = operator.adjoint(r)
    x, _ = conjugate_gradients(operator.normal.apply, b, max_iterations=iterations)
    return x


@final
class Projected(Splits):
    """Any one-step sampler, each of whose states is projected on the measurement, noised alike:

        y' = y + sigma' A z,        x' <- x' + relaxation A^+ (y' - A x'),

    after predictors and correctors alike; at level 0 with y itself and relaxation 1. The state's
    noise in the measured directions is fresh at every step, so the network sees a state that is
    consistent with y, but whose unmeasured part knows of y only through x itself: the posterior
    score is not followed, at any number of steps. y is believed, noise and all, where A has an SVD
    in closed form; elsewhere A x_y in its place: see Projection.

    With Ancestral: ILVR for A a low-pass filter. With PredictorCorrector: score-SDE inpainting,
    colourisation, and with a relaxation the reconstruction of CT and MRI. Under TimeTravel:
    RePaint. With `guided` under a posterior of DPS: MCG.

    Args:
        sampler: of the posterior if `guided`, else of its prior; one-step, not adaptive.
        relaxation: in (0, 1].
        guided: whether the sampler sees the posterior.
        iterations, cutoff: see Projection.
    Raises:
        TypeError: another sampler; forward models that are not linear with Gaussian noise (when
        run). ValueError: a sampler that looks back, or chooses its own steps.

    Papers: Song et al., "Score-Based Generative Modeling through SDEs", 2021,
    https://arxiv.org/abs/2011.13456; Song et al., "Solving Inverse Problems in Medical Imaging with
    Score-Based Generative Models", 2022, https://arxiv.org/abs/2111.08005; Choi et al., "ILVR",
    2021, https://arxiv.org/abs/2108.02938; Lugmayr et al., "RePaint", 2022,
    https://arxiv.org/abs/2201.09865; Chung et al., "Improving Diffusion Models for Inverse Problems
    using Manifold Constraints", 2022, https://arxiv.org/abs/2206.00941
    """

    def __init__(
        self,
        sampler: Sampler,
        relaxation: float = 1.0,
        guided: bool = False,
        iterations: int = 50,
        cutoff: float = 0.03,
    ) -> None:
        if not isinstance(sampler, Sampler):
            raise TypeError(f"sampler must be a Sampler, got {type(sampler).__name__}")
        if sampler.memory or sampler.adaptive or sampler.splits:
            raise ValueError(
                f"{type(sampler).__name__} cannot be projected after each step: it looks back, "
                "chooses its own steps or splits itself; choose Ancestral, EulerMaruyama, Heun or "
                "PredictorCorrector"
            )
        self.sampler, self.levels, self.guided = sampler, sampler.levels, bool(guided)
        self.relaxation = positive(relaxation, "relaxation")
        if self.relaxation > 1:
            raise ValueError(f"relaxation must lie in (0, 1], got {relaxation}")
        self.iterations, self.cutoff = whole(iterations, "iterations"), _share(cutoff)
        self.draws = sampler.draws + 1

    @property
    def path(self) -> Tensor:
        return self.sampler.path

    def _calls(self, sigma: float, sigma_next: float) -> int:
        return self.sampler._calls(sigma, sigma_next)

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
        measured = problem.believed
        walked = prior if self.guided else problem.prior
        x, x0 = self.sampler._step(walked, x, sigma, sigma_next, partial(_after, eps), ())
        r = measured.residual(x)
        if sigma_next > 0:
            r = r + measured.system(x).apply(sigma_next * eps())
        share = self.relaxation if sigma_next > 0 else 1.0
        return x + share * pseudo_inverse(measured, r, self.iterations, self.cutoff), x0


def _share(cutoff: float) -> float:
    if isinstance(cutoff, bool) or not isinstance(cutoff, Real) or not 0 <= cutoff < 1:
        raise ValueError(f"cutoff must lie in [0, 1), got {cutoff!r}")
    return float(cutoff)


def _after(eps: Noise, which: int = 0, *shape: tuple[int, ...]) -> Tensor:
    return eps(which + 1, *shape)
