"""Projection of noisy states on a measurement that is noised alike."""

from __future__ import annotations

from torch import Tensor

from forward_models import LinearGaussian
from priors import VP, geometric
from priors.grids import unit_of

from ..likelihoods import Likelihood, NormalizedPlugIn
from ..posterior import Posterior
from ..samplers import Ancestral, EulerMaruyama, PredictorCorrector, TimeTravel
from ..splitting import Projected
from . import applies
from .lifts import lift_of, vp_levels
from .recipe import Method, Recipe

NEVER = "never: y is believed, noise and all, and the unmeasured part follows no posterior score"
HELD = (
    "What limits noise behind an ill-conditioned A is not in the paper: `cutoff` where A has an "
    "SVD, else A x_y in place of y, x_y explaining y to its noise by conjugate gradients"
)
SOLVED = "A^+ by at most `iterations` conjugate gradients where A has no SVD. " + HELD


def _score_sde(
    posterior: Posterior,
    steps: int,
    *,
    snr: float = 0.16,
    iterations: int = 50,
    cutoff: float = 0.03,
) -> Recipe:
    walked = PredictorCorrector(EulerMaruyama(geometric(steps, posterior.sigma_range)), snr=snr)
    return Recipe(posterior, Projected(walked, iterations=iterations, cutoff=cutoff))


def _medical(
    posterior: Posterior,
    steps: int,
    *,
    relaxation: float = 0.72,
    snr: float = 0.4,
    iterations: int = 10,
    cutoff: float = 0.03,
) -> Recipe:
    levels = geometric(steps, posterior.sigma_range)
    walked = PredictorCorrector(EulerMaruyama(levels), snr=snr)
    return Recipe(posterior, Projected(walked, relaxation, iterations=iterations, cutoff=cutoff))


def _ilvr(
    posterior: Posterior, steps: int, *, iterations: int = 50, cutoff: float = 0.03
) -> Recipe:
    walked = Ancestral(vp_levels(posterior, steps))
    return Recipe(posterior, Projected(walked, iterations=iterations, cutoff=cutoff))


def _repaint(
    posterior: Posterior,
    steps: int,
    *,
    jumps: int = 10,
    repeats: int = 10,
    iterations: int = 50,
    cutoff: float = 0.03,
) -> Recipe:
    walked = Ancestral(vp_levels(posterior, steps))
    projected = Projected(walked, iterations=iterations, cutoff=cutoff)
    return Recipe(posterior, TimeTravel(projected, jumps=jumps, repeats=repeats))


def _mcg(
    posterior: Posterior,
    steps: int,
    *,
    zeta: float = 1.0,
    iterations: int = 50,
    cutoff: float = 0.03,
) -> Recipe:
    schedule, unit = VP(), unit_of(posterior.prior)

    def linear(model: LinearGaussian, y: Tensor) -> Likelihood:
        return NormalizedPlugIn(model, y, zeta=zeta, schedule=schedule, steps=steps, unit=unit)

    walked = Ancestral(vp_levels(posterior, steps))
    projected = Projected(walked, guided=True, iterations=iterations, cutoff=cutoff)
    return Recipe(posterior.lifted(lift_of(linear)), projected)


PROJECTION = (
    Method(
        name="score-sde",
        family="splitting",
        asks="adjoint",
        needs="linear-Gaussian factors, meant for masks and colour with little noise",
        jacobian=False,
        cost="2 network calls a step",
        exact_when=NEVER,
        believes_y=True,
        paper="Song et al. 2021, Score-Based Generative Modeling through SDEs, "
        "https://arxiv.org/abs/2011.13456",
        steps=1000,
        applies=applies.split_linear,
        build=_score_sde,
        deviates=SOLVED,
    ),
    Method(
        name="medical-projection",
        family="splitting",
        asks="adjoint",
        needs="linear-Gaussian factors; made for undersampled k-space and sinograms (relaxation "
        "and snr there: 0.72 and 0.4 for CT, 1 and 0.517 for MRI)",
        jacobian=False,
        cost="2 network calls a step",
        exact_when=NEVER,
        believes_y=True,
        paper="Song et al. 2022, Solving Inverse Problems in Medical Imaging with Score-Based "
        "Generative Models, https://arxiv.org/abs/2111.08005",
        steps=1000,
        applies=applies.split_linear,
        build=_medical,
        deviates="A^+ by at most `iterations` conjugate gradients for an inverse transform. For "
        "complex k-space it is the inverse FFT; real images agree with every line after 2, "
        "where the FFT's real part leaves 28 % of the residual. One merge of a 128 x 128 CT slice "
        "(relaxation 0.72) leaves 41 % of it at 23 views and 54 % at 90 degrees, filtered "
        "back-projection over all angles 84 and 86 %. " + HELD,
    ),
    Method(
        name="ilvr",
        family="splitting",
        asks="adjoint",
        needs="linear-Gaussian factors, meant for low-pass filters with little noise",
        jacobian=False,
        cost="1 network call a step",
        exact_when=NEVER,
        believes_y=True,
        paper="Choi et al. 2021, ILVR: Conditioning Method for Denoising Diffusion Probabilistic "
        "Models, https://arxiv.org/abs/2108.02938",
        steps=250,
        applies=applies.split_linear,
        build=_ilvr,
        deviates=SOLVED,
    ),
    Method(
        name="repaint",
        family="splitting",
        asks="adjoint",
        needs="linear-Gaussian factors, meant for masks with little noise",
        jacobian=False,
        cost="1 network call a step, each taken `repeats` times",
        exact_when=NEVER,
        believes_y=True,
        paper="Lugmayr et al. 2022, RePaint: Inpainting using Denoising Diffusion Probabilistic "
        "Models, https://arxiv.org/abs/2201.09865",
        steps=250,
        applies=applies.split_linear,
        build=_repaint,
        deviates=SOLVED,
    ),
    Method(
        name="mcg",
        family="splitting",
        asks="adjoint",
        needs="linear-Gaussian factors with little noise",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step",
        exact_when=NEVER,
        believes_y=True,
        paper="Chung et al. 2022, Improving Diffusion Models for Inverse Problems using Manifold "
        "Constraints, https://arxiv.org/abs/2206.00941",
        steps=1000,
        applies=applies.split_linear,
        build=_mcg,
        deviates=SOLVED,
    ),
)
