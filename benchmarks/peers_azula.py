"""azula's guidance methods on a Task, each with its own defaults.

Data in [-1, 1] and its VPSchedule(). Denoisers that are guided (TMPD, MMPS, JFPS, DiffPIR) are
walked by its DDPMSampler. Its DPS takes one norm over the whole batch, so that a sample's guidance
shrinks as the batch grows. RePaint takes a mask, so a dense matrix does not run.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance.diffpir import DiffPIRDenoiser
from azula.guidance.dps import DPSSampler
from azula.guidance.jfps import JFPSDenoiser
from azula.guidance.mmps import MMPSDenoiser
from azula.guidance.pgdm import PGDMSampler
from azula.guidance.tds import TDSSampler
from azula.guidance.tmpd import TMPDenoiser
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import VPSchedule
from azula.sample import DDPMSampler, Sampler
from peers_task import Task
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


Build = Callable[[Task, Denoiser, Callable[[Tensor], Tensor]], Sampler]


def _guided(make: Callable[[Task, Denoiser, Callable[[Tensor], Tensor]], Denoiser]) -> Build:
    return lambda task, network, A: DDPMSampler(make(task, network, A), **_grid(task))


def _grid(task: Task) -> dict[str, object]:
    return {"steps": task.steps, "silent": True, "dtype": task.y.dtype}


def _pgdm(task: Task, network: Denoiser, A: Callable[[Tensor], Tensor]) -> Sampler:
    inverse = torch.linalg.pinv(task.A).to(task.y)

    def A_inv(y: Tensor) -> Tensor:
        return (y @ inverse.mT).reshape(-1, *task.shape)

    return PGDMSampler(network, task.y, A, A_inv, **_grid(task))


def _tds(task: Task, network: Denoiser, A: Callable[[Tensor], Tensor]) -> Sampler:
    largest = float(torch.linalg.matrix_norm(task.A, 2)) ** 2

    def twist(x_hat: Tensor, level: Tensor) -> Tensor:
        variance = task.sigma**2 + largest * level**2 / (1 + level**2)
        return -((task.y - A(x_hat)).square() / variance + variance.log()).sum(-1) / 2

    return TDSSampler(network, twist, **_grid(task))


def _isotropic(variance: float, task: Task) -> IsotropicCovariance:
    return IsotropicCovariance(torch.tensor(variance, dtype=task.y.dtype))


METHODS: dict[str, tuple[Build, str]] = {
    "DPS": (
        lambda t, network, A: DPSSampler(network, t.y, A, **_grid(t)),
        "zeta 1, one norm over the batch",
    ),
    "PGDM": (_pgdm, "eta 0"),
    "TMPD": (
        _guided(lambda t, network, A: TMPDenoiser(network, t.y, A, t.sigma**2)),
        "diagonal by row sums",
    ),
    "MMPS": (
        _guided(lambda t, network, A: MMPSDenoiser(network, t.y, A, _isotropic(t.sigma**2, t))),
        "1 iteration of GMRES",
    ),
    "MMPS, 4 iterations": (
        _guided(
            lambda t, network, A: MMPSDenoiser(
                network, t.y, A, _isotropic(t.sigma**2, t), iterations=4
            )
        ),
        "4 iterations of GMRES",
    ),
    "JFPS": (
        _guided(
            lambda t, network, A: JFPSDenoiser(
                network, t.y, A, _isotropic(t.sigma**2, t), _isotropic(t.scale**2, t)
            )
        ),
        "the prior's mean variance, 1 iteration of conjugate gradients",
    ),
    "DiffPIR": (
        _guided(lambda t, network, A: DiffPIRDenoiser(network, t.y, A, t.sigma**2)),
        "lambda 10, 1 iteration of GMRES",
    ),
    "TDS": (_tds, "twist N(y; A x0, sigma_y^2 + |A|^2 sigma^2 / (1 + sigma^2)), 1000 particles"),
}


def run(name: str, task: Task) -> Tensor:
    """n images in data units, (n, *shape)."""
    torch.manual_seed(task.seed)
    inner = task.in_range(-1.0, 1.0)
    matrix = inner.A.to(inner.y)

    def A(x: Tensor) -> Tensor:
        return x.flatten(1) @ matrix.mT

    inner = Task(**{**vars(inner), "y": inner.y.expand(task.n, -1)})
    sampler = METHODS[name][0](inner, Network(inner), A)
    x = sampler(sampler.init((task.n, *task.shape), dtype=inner.y.dtype)).detach()
    return task.low + (x + 1) / 2 * (task.high - task.low)
