"""Splitting: denoise, a data step, renoise."""

from __future__ import annotations

import torch

from forward_models import LinearGaussian
from priors import geometric

from ..checks import positive
from ..posterior import Posterior
from ..splitting import (
    Mean,
    Partly,
    Projection,
    ProximalMap,
    Renewed,
    Slack,
    Spectral,
    Splitting,
)
from . import applies
from .lifts import vp_levels
from .recipe import Method, Recipe


def _diffpir(posterior: Posterior, steps: int, *, lam: float = 8.0, zeta: float = 0.3) -> Recipe:
    data = ProximalMap(Slack(1 / positive(lam, "lam")))
    update = Renewed(data, Partly(zeta=zeta, seen_from="data"))
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior, Splitting(levels, Mean(), update))


def _dds(
    posterior: Posterior, steps: int, *, gamma: float = 5.0, iterations: int = 5, eta: float = 0.85
) -> Recipe:
    # (gamma A^T A + 1) z = x0 + gamma A^T y, so that v = gamma sigma_y^2.
    noise = [torch.as_tensor(m.noise_variance, dtype=torch.float64).mean()
             for m, _ in posterior.factors if isinstance(m, LinearGaussian)]  # fmt: skip
    data = ProximalMap(
        Slack(fixed=positive(gamma, "gamma") * float(sum(noise) / len(noise))), iterations
    )
    return Recipe(
        posterior, Splitting(vp_levels(posterior, steps), Mean(), Renewed(data, Partly(eta)))
    )


def _ddnm(
    posterior: Posterior,
    steps: int,
    *,
    eta: float = 0.85,
    iterations: int = 50,
    cutoff: float = 0.03,
) -> Recipe:
    update = Renewed(Projection(iterations, cutoff), Partly(eta))
    return Recipe(posterior, Splitting(vp_levels(posterior, steps), Mean(), update))


def _ddnm_plus(posterior: Posterior, steps: int, *, eta: float = 0.85) -> Recipe:
    update = Spectral(eta, eta_low=0.0)
    return Recipe(posterior, Splitting(vp_levels(posterior, steps), Mean(), update))


def _ddrm(posterior: Posterior, steps: int, *, eta: float = 0.85, eta_b: float = 1.0) -> Recipe:
    update = Spectral(eta, eta_b)
    return Recipe(posterior, Splitting(vp_levels(posterior, steps), Mean(), update))


SPLITTING = (
    Method(
        name="ddrm",
        family="splitting",
        asks="SVD",
        needs="linear-Gaussian factors with one SVD and white noise",
        jacobian=False,
        cost="1 network call a step",
        exact_when="never: measured directions follow y alone, noised",
        paper="Kawar et al. 2022, Denoising Diffusion Restoration Models, "
        "https://arxiv.org/abs/2201.11793",
        steps=20,
        applies=applies.split_spectral,
        build=_ddrm,
    ),
    Method(
        name="ddnm",
        family="splitting",
        asks="adjoint",
        needs="linear-Gaussian factors with little noise",
        jacobian=False,
        cost="1 network call a step",
        exact_when="never; y is believed, noise and all",
        believes_y=True,
        paper="Wang, Yu and Zhang 2023, Zero-Shot Image Restoration Using Denoising Diffusion "
        "Null-Space Model, https://arxiv.org/abs/2212.00490",
        steps=100,
        applies=applies.split_linear,
        build=_ddnm,
        deviates="`eta` is DDIM's; in the released code eta sigma' is the fresh noise of each "
        "level. What limits the noise behind an ill-conditioned A is not in the paper: `cutoff` "
        "of singular values where A has an SVD, else A x_y in place of y, x_y found from y by "
        "conjugate gradients to its noise",
    ),
    Method(
        name="ddnm-plus",
        family="splitting",
        asks="SVD",
        needs="linear-Gaussian factors with one SVD and white noise",
        jacobian=False,
        cost="1 network call a step",
        exact_when="never: measured directions follow y alone, noised",
        paper="Wang, Yu and Zhang 2023, Zero-Shot Image Restoration Using Denoising Diffusion "
        "Null-Space Model, https://arxiv.org/abs/2212.00490",
        steps=100,
        applies=applies.split_spectral,
        build=_ddnm_plus,
        deviates="the paper's rule for denoising, lambda = min(1, ...), in all directions; the "
        "released code leaves the noise eta there, too",
    ),
    Method(
        name="diffpir",
        family="splitting",
        asks="gradient",
        needs="any differentiable forward model; linear-Gaussian ones in closed form or by "
        "conjugate gradients",
        jacobian=False,
        cost="1 network call a step",
        exact_when="never; a point estimate with spread, best judged by its mean",
        paper="Zhu et al. 2023, Denoising Diffusion Models for Plug-and-Play Image Restoration, "
        "https://arxiv.org/abs/2305.08995",
        steps=100,
        applies=applies.split,
        build=_diffpir,
        deviates="a geometric grid for every second of VP's; of models that are not linear the "
        "proximal map by conjugate gradients, for one gradient step",
    ),
    Method(
        name="dds",
        family="splitting",
        asks="adjoint",
        needs="linear-Gaussian factors; |A| and the unit of y near 1, or another `gamma`",
        jacobian=False,
        cost="1 network call a step",
        exact_when="never; a point estimate with spread",
        paper="Chung et al. 2024, Decomposed Diffusion Sampler for Accelerating Large-Scale "
        "Inverse Problems, https://arxiv.org/abs/2303.05754",
        steps=50,
        applies=applies.split_linear,
        build=_dds,
        deviates="`eta` is DDIM's; in the released code eta sigma' is the fresh noise of each "
        "level",
    ),
)
