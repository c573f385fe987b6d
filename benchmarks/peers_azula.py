"""azula's guidance methods on a Task, each with its own defaults.

Data in [-1, 1] and its VPSchedule(). Denoisers that are guided (TMPD, MMPS, JFPS, DiffPIR) are
walked by its DDPMSampler. Its DPS takes one norm over the whole batch, so that a sample's guidance
shrinks as the batch grows. DPS, MMPS, JFPS and TDS take any differentiable operator, the others a
linear one: PGDM with its pseudo-inverse, RePaint a mask; both believe the measurement, noise and
all. RePaint runs on images alone; its 3 iterations a step are network calls of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance.diffpir import DiffPIRDenoiser
from azula.guidance.dps import DPSSampler
from azula.guidance.jfps import JFPSDenoiser
from azula.guidance.mmps import MMPSDenoiser
from azula.guidance.pgdm import PGDMSampler
from azula.guidance.repaint import RePaintSampler
from azula.guidance.tds import TDSSampler
from azula.guidance.tmpd import TMPDenoiser
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import VPSchedule
from azula.sample import DDPMSampler, Sampler
from peers_task import InapplicableError, Task
from torch import Tensor

VERSION = f"azula {version('azula')}"


class Network(Denoiser):
    """The task's denoiser."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task, self.schedule = task, VPSchedule()

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> DiracPosterior:
        alpha, sigma = self.schedule(t)
        level = (sigma / alpha).to(x_t).expand(len(x_t))
        return DiracPosterior(self.task.denoise(x_t / alpha, level))


Build = Callable[[Task, Denoiser], Sampler]


def _guided(make: Build) -> Build:
    return lambda task, network: DDPMSampler(make(task, network), **_grid(task))


def _grid(task: Task) -> dict[str, object]:
    return {"steps": task.steps, "silent": True, "dtype": task.y.dtype}


def _pgdm(task: Task, network: Denoiser) -> Sampler:
    if task.f.inverse is None:
        raise InapplicableError("it takes a pseudo-inverse, and none is at hand")
    return PGDMSampler(network, task.y, task.f.apply, task.f.inverse, **_grid(task))


def _repaint(task: Task, network: Denoiser) -> Sampler:
    if task.f.mask is None or task.f.adjoint is None:
        raise InapplicableError("it takes a mask")
    grid = {**_grid(task), "steps": task.steps // 3}
    return RePaintSampler(network, task.f.adjoint(task.y), task.f.mask, **grid)


def _tds(task: Task, network: Denoiser) -> Sampler:
    largest = task.f.norm() ** 2

    def twist(x_hat: Tensor, level: Tensor) -> Tensor:
        variance = task.sigma**2 + largest * level**2 / (1 + level**2)
        return -((task.y - task.f.apply(x_hat)).square() / variance + variance.log()).sum(-1) / 2

    return TDSSampler(network, twist, **_grid(task))


def _isotropic(variance: float, task: Task) -> IsotropicCovariance:
    return IsotropicCovariance(torch.tensor(variance, dtype=task.y.dtype))


METHODS: dict[str, tuple[Build, str]] = {
    "DPS": (
        lambda t, network: DPSSampler(network, t.y, t.f.apply, **_grid(t)),
        "zeta 1, one norm over the batch",
    ),
    "PGDM": (_pgdm, "eta 0"),
    "TMPD": (
        _guided(lambda t, network: TMPDenoiser(network, t.y, t.f.apply, t.sigma**2)),
        "diagonal by row sums",
    ),
    "MMPS": (
        _guided(
            lambda t, network: MMPSDenoiser(network, t.y, t.f.apply, _isotropic(t.sigma**2, t))
        ),
        "1 iteration of GMRES",
    ),
    "MMPS, 4 iterations": (
        _guided(
            lambda t, network: MMPSDenoiser(
                network, t.y, t.f.apply, _isotropic(t.sigma**2, t), iterations=4
            )
        ),
        "4 iterations of GMRES",
    ),
    "JFPS": (
        _guided(
            lambda t, network: JFPSDenoiser(
                network, t.y, t.f.apply, _isotropic(t.sigma**2, t), _isotropic(t.scale**2, t)
            )
        ),
        "the prior's mean variance, 1 iteration of conjugate gradients",
    ),
    "DiffPIR": (
        _guided(lambda t, network: DiffPIRDenoiser(network, t.y, t.f.apply, t.sigma**2)),
        "lambda 10, 1 iteration of GMRES",
    ),
    "TDS": (
        _tds,
        "twist N(y; f(x0), sigma_y^2 + |A|^2 sigma^2 / (1 + sigma^2)), a particle a sample",
    ),
}
IMAGE_METHODS = {**METHODS, "RePaint": (_repaint, "3 iterations a step, eta 0")}
LINEAR = ("PGDM", "TMPD", "DiffPIR", "RePaint")


def run(name: str, task: Task) -> Tensor:
    """n images in data units, (n, *shape). Raises InapplicableError."""
    if task.f.adjoint is None and name in LINEAR:
        raise InapplicableError("it takes linear operators only")
    torch.manual_seed(task.seed)
    inner = task.in_range(-1.0, 1.0)
    inner = replace(inner, y=inner.y.expand(task.n, -1))
    sampler = IMAGE_METHODS[name][0](inner, Network(inner))
    x = sampler(sampler.init((task.n, *task.shape), dtype=inner.y.dtype)).detach()
    return task.low + (x + 1) / 2 * (task.high - task.low)
