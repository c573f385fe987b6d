"""Splitting by draws: a clean image from the prior alone, one from the measurement around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priors import karras
from priors.grids import unit_of

from ..checks import flag, positive, whole
from ..posterior import Posterior
from ..splitting import (
    ConditionalDraw,
    DataStep,
    FlowODE,
    Fresh,
    GaussianDraw,
    HamiltonianChain,
    LangevinChain,
    Mean,
    MetropolisChain,
    Optimised,
    Problem,
    ProximalMap,
    Renewed,
    ReverseSDE,
    Slack,
    Splitting,
    Unmoved,
    Without,
)
from . import applies
from .lifts import vp_levels
from .recipe import Method, Recipe

CHAINS = {"langevin": LangevinChain, "hmc": HamiltonianChain, "metropolis": MetropolisChain}
LENGTHS = {"langevin": 100, "hmc": 10, "metropolis": 200}


def draw(posterior: Posterior, slack: Slack, inner: str | None, length: int | None) -> DataStep:
    """A draw of p(y | z) N(z; x0, v I): exact where that is a Gaussian, else by a chain."""
    if length is not None:
        whole(length, "length")
    linear = Problem(posterior).measured is not None
    if inner is None:
        gradient = applies.differentiable(posterior) is None
        inner = "exact" if linear else "langevin" if gradient else "metropolis"
    if inner == "exact":
        if not linear:
            raise ValueError(
                "inner='exact' takes linear measurements with Gaussian noise and no decoder; "
                f"choose one of {', '.join(CHAINS)}, or None"
            )
        if length is not None:
            raise ValueError(
                "length is that of a chain, and the draw is exact here; give inner='langevin', "
                "'hmc' or 'metropolis' too"
            )
        return GaussianDraw(slack)
    if inner not in CHAINS:
        known = ", ".join(["exact", *CHAINS])
        raise ValueError(f"inner must be one of {known}, or None, got {inner!r}")
    return CHAINS[inner](slack, LENGTHS[inner] if length is None else length)


def _fewer(steps: int, inner: int, of: int) -> int:
    """Network calls in a step: the paper's `inner` at its number of steps `of`, fewer below it.

    By the cube of their share, which spends few calls on many steps: on Gaussians and on images
    alike the levels of noise that are passed by count more than the calls at each.
    """
    return max(1, math.floor(inner * min(1.0, steps / of) ** 3))


def _daps(
    posterior: Posterior,
    steps: int,
    *,
    inner: str | None = None,
    length: int | None = None,
    ode_steps: int | None = None,
    sde: bool = False,
    end: float = 0.1,
) -> Recipe:
    if ode_steps is not None:
        whole(ode_steps, "ode_steps")
    levels = karras(steps, annealed_range(posterior, 100.0, end))
    if not flag(sde, "sde"):
        each = _fewer(steps, 5, 200) if ode_steps is None else ode_steps
        update = Renewed(draw(posterior, Slack(), inner, length), Fresh(), _end(posterior))
        return Recipe(posterior, Splitting(levels, FlowODE(each), update))
    if not (inner is None and length is None) or Problem(posterior).measured is None:
        raise ValueError(
            "sde=True takes linear measurements with Gaussian noise, and no `inner` or `length`: "
            "the SDE's draw is conditioned on y in closed form"
        )
    update = Renewed(ConditionalDraw(Slack()), Fresh())
    each = 5 if ode_steps is None else ode_steps  # of one step nothing would be drawn
    return Recipe(posterior, Splitting(levels, ReverseSDE(each), update))


def annealed_range(posterior: Posterior, start: float, end: float) -> tuple[float, float]:
    """(end, start) in the unit of the prior's network, within the noise levels of the prior."""
    unit, (lowest, highest) = unit_of(posterior.prior), posterior.sigma_range
    high = min(highest, positive(start, "start") * unit)
    low = max(lowest, positive(end, "end") * unit)
    if low >= high:
        raise ValueError(
            f"end must be below the level that is started from, {high / unit:.4g} units of the "
            f"network here, got {end}"
        )
    return low, high


def _end(posterior: Posterior) -> DataStep | None:
    """The last data step of DAPS, which leaves no noise of its level where nothing is measured."""
    if Problem(posterior).measured is not None:
        return ConditionalDraw(Slack())
    return ProximalMap(Slack()) if applies.differentiable(posterior) is None else None


def _pnp_dm(
    posterior: Posterior,
    steps: int,
    *,
    inner: str | None = None,
    length: int | None = None,
    sde_steps: int | None = None,
    start: float = 10.0,
    decay: float = 0.9,
    end: float = 0.3,
) -> Recipe:
    if not 0 < positive(decay, "decay") < 1:
        raise ValueError(f"decay must lie in (0, 1), got {decay}")
    update = Renewed(draw(posterior, Slack(ahead=True), inner, length), Without())
    low, high = annealed_range(posterior, start, end)
    levels, held = _annealed(steps, high, decay, low)
    each = _fewer(steps, 20, 100) if sde_steps is None else whole(sde_steps, "sde_steps")
    return Recipe(posterior, Splitting(levels, ReverseSDE(each), update, held))


def _annealed(steps: int, start: float, decay: float, end: float) -> tuple[Tensor, int]:
    """max(end, start decay^k) for as many k as there are steps, then 0; the last is held."""
    # Less a rounding error, so that a whole number of steps does not end at `end` twice.
    falling = min(steps, 1 + math.ceil(math.log(end / start) / math.log(decay) - 1e-9))
    k = torch.arange(falling, dtype=torch.float64)
    levels = (start * decay**k).clamp(min=end)
    if falling == steps and steps > 1:  # too few steps for this decay: a faster one
        levels = start * (end / start) ** (k / (steps - 1))
    return torch.cat([levels, levels.new_zeros(1)]), steps - falling


def _sitcom(
    posterior: Posterior,
    steps: int,
    *,
    iterations: int | None = None,
    lam: float = 1.0,
    rate: float | None = None,
) -> Recipe:
    each = min(20, steps) if iterations is None else whole(iterations, "iterations")
    # As far to go as by the paper's 20 x 20 iterations of 0.01, in fewer of them.
    reach = 0.01 * min(10.0, max(1.0, 400 / (steps * each))) if rate is None else rate
    denoiser = Optimised(each, lam, reach)
    update = Renewed(Unmoved(), Fresh())
    return Recipe(posterior, Splitting(vp_levels(posterior, steps), denoiser, update))


def _dcdp(posterior: Posterior, steps: int, *, iterations: int = 10) -> Recipe:
    data = ProximalMap(Slack(fixed=math.inf), iterations)
    levels = vp_levels(posterior, steps)
    return Recipe(posterior, Splitting(levels, Mean(), Renewed(data, Fresh())))


DECOUPLED = (
    Method(
        name="daps",
        family="splitting",
        asks="black box",
        needs="any forward model; draws of the measurement are exact for linear-Gaussian ones, by "
        "Langevin steps for differentiable ones, by Metropolis steps for black boxes (`inner`)",
        jacobian=False,
        cost="`ode_steps` network calls a step, and for chains `length` gradients or values of "
        "p(y | x0), with inner='hmc' 10 times that",
        exact_when="for linear-Gaussian factors with sde=True, as steps and `ode_steps` grow and "
        "the last level falls; with the ODE unmeasured directions tend to twice the variance of "
        "a Gaussian, but with `ode_steps` of 1 to its own. The defaults are far from that limit: "
        "on a Gaussian of 4 values with sde=True the variances are .71 to .87 of the exact ones, "
        "with ode_steps=20 .91 to 1.09, without sde .72 to 1.39",
        paper="Zhang et al. 2024, Improving Diffusion Inverse Problem Solving with Decoupled Noise "
        "Annealing, https://arxiv.org/abs/2407.01521",
        steps=200,
        applies=applies.measures_clean_images,
        build=_daps,
        deviates="below 200 steps fewer ODE steps in each, by default 5 (steps / 200)^3, of the "
        "paper's 5; exact draws under sigma_y for linear factors, chains with steps by the "
        "curvature for others, where the released code has a rate for each task and a noise of "
        "0.01; the last draw has no noise where nothing is measured (with a black box it has)",
    ),
    Method(
        name="pnp-dm",
        family="splitting",
        asks="black box",
        needs="as `daps`",
        jacobian=False,
        cost="`sde_steps` network calls a step, and for chains `length` gradients or values of "
        "p(y | x0), with inner='hmc' 10 times that",
        exact_when="as steps and `sde_steps` grow and `end` falls to 0. The defaults are far from "
        "that limit where measured values are known better than to `end`: on a Gaussian of 4 "
        "values, 2 of them measured to 0.3, they have up to 8.4 times the exact variance, with "
        "end=0.1 1.9 times, with end=0.05 .93 to 1.21 times",
        paper="Wu et al. 2024, Principled Probabilistic Imaging using Diffusion Models as "
        "Plug-and-Play Priors, https://arxiv.org/abs/2405.18782",
        steps=100,
        applies=applies.measures_clean_images,
        build=_pnp_dm,
        deviates="20 SDE steps in each step, below 100 steps 20 (steps / 100)^3, for 100; of one "
        "or two its draws are too narrow where nothing is measured; starts at most at the prior's "
        "largest noise level",
    ),
    Method(
        name="sitcom",
        family="splitting",
        asks="gradient",
        needs="a differentiable forward model",
        jacobian=True,
        cost="`iterations` network calls and vector-Jacobian products a step, and one more call",
        exact_when="never; a point estimate with spread",
        paper="Alkhouri et al. 2024, SITCOM: Step-wise Triple-Consistent Diffusion Sampling for "
        "Inverse Problems, https://arxiv.org/abs/2410.04479",
        steps=20,
        applies=applies.split,
        build=_sitcom,
        deviates="below 20 steps as many iterations as steps by default, with rate up to 0.1 so "
        "that iterations * steps * rate is the paper's 20 * 20 * 0.01; `lam` weighs the distance "
        "to x beside the log likelihood by 1 / (2 sigma^2), the paper beside |y - A x|^2 by 1",
    ),
    Method(
        name="dcdp",
        family="splitting",
        asks="gradient",
        needs="a differentiable forward model",
        jacobian=False,
        cost="1 network call a step, and `iterations` gradients of p(y | x0)",
        exact_when="never; a point estimate with spread, which fits the noise, too",
        believes_y=True,
        paper="Li et al. 2024, Decoupled Data Consistency with Diffusion Purification for Image "
        "Restoration, https://arxiv.org/abs/2403.06054",
        steps=50,
        applies=applies.split,
        build=_dcdp,
    ),
)
