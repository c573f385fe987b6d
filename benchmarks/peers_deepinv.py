"""deepinv's diffusion methods on a Task, each as its own documentation builds it.

Images in [0, 1], its range; the denoiser, the measurement's matrix and sigma_y are the task's. The
methods of `PosteriorDiffusion` walk the variance-preserving SDE with its DDPM solver, which are the
defaults of its `DPS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepinv
import torch
from deepinv import sampling
from peers_task import Task
from torch import Tensor

VERSION = f"deepinv {deepinv.__version__}"


class Network(deepinv.models.Denoiser):
    """The task's denoiser, for deepinv's images (B, 1, 1, D) of vectors or (B, *shape)."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, x: Tensor, sigma: Any, *args: Any, **kwargs: Any) -> Tensor:
        level = torch.as_tensor(sigma).flatten().to(x)
        level = level.expand(len(x)) if level.numel() == 1 else level
        return self.task.denoise(x.reshape(-1, *self.task.shape), level).reshape(x.shape)


def physics(task: Task, dtype: torch.dtype) -> Any:
    """A by its singular values; what they multiply is padded with zeros to D values."""
    U, s, V = (part.to(dtype) for part in task.svd())
    D, M = V.shape[0], len(s)
    image = task.shape if len(task.shape) == 3 else (1, 1, D)
    mask = torch.zeros(1, *image, dtype=dtype)
    mask.reshape(-1)[:M] = s

    def padded(y: Tensor) -> Tensor:
        seen = y.reshape(len(y), M).to(dtype) @ U
        return torch.cat([seen, seen.new_zeros(len(y), D - M)], 1).reshape(-1, *image)

    return deepinv.physics.DecomposablePhysics(
        U=lambda z: (z.reshape(len(z), D)[:, :M].to(dtype) @ U.mT).reshape(-1, 1, 1, M),
        U_adjoint=padded,
        V=lambda z: (z.reshape(len(z), D).to(dtype) @ V).reshape(-1, *image),
        V_adjoint=lambda x: (x.reshape(len(x), D).to(dtype) @ V.mT).reshape(-1, *image),
        mask=mask,
        noise_model=deepinv.physics.GaussianNoise(task.sigma),
    )


def _posterior(fidelity: Callable[[], Any]) -> Callable[[Task], Tensor]:
    def run(task: Task) -> Tensor:
        generator = torch.Generator().manual_seed(task.seed)
        times = torch.linspace(1, 0, task.steps + 1, dtype=torch.float64)
        model = sampling.PosteriorDiffusion(
            data_fidelity=fidelity(),
            denoiser=Network(task),
            sde=sampling.VariancePreservingDiffusion(alpha=1.0),
            solver=sampling.DDPMSolver(timesteps=times, rng=generator),
        )
        return _call(model, task)

    return run


def _dps(task: Task) -> Tensor:
    generator = torch.Generator().manual_seed(task.seed)
    return _call(sampling.DPS(Network(task), num_steps=task.steps + 1, rng=generator), task)


def _call(model: Any, task: Task) -> Tensor:
    image = task.shape if len(task.shape) == 3 else (1, 1, task.A.shape[1])
    y = task.y.reshape(1, 1, 1, -1).float().expand(task.n, -1, -1, -1)
    start = (task.n, *image)
    return model(y, physics(task, torch.float32), x_init=start)


def _ddrm(task: Task) -> Tensor:
    torch.manual_seed(task.seed)
    y = task.y.reshape(1, 1, 1, -1).float().expand(task.n, -1, -1, -1)
    model = sampling.DDRM(Network(task), sigmas=torch.linspace(1, 0, task.steps).numpy())
    return model(y, physics(task, torch.float32))


def _diffpir(task: Task) -> Tensor:
    torch.manual_seed(task.seed)
    y = task.y.reshape(1, 1, 1, -1).float().expand(task.n, -1, -1, -1)
    fidelity = deepinv.optim.data_fidelity.L2()
    model = sampling.DiffPIR(Network(task), fidelity, sigma=task.sigma, max_iter=task.steps)
    return model(y, physics(task, torch.float32))


METHODS: dict[str, tuple[Callable[[Task], Tensor], str]] = {
    "DPS": (_dps, "DPS(), weight 1"),
    "DPS annealed": (
        _posterior(lambda: sampling.DPSDataFidelity(guidance="annealed")),
        "DPSDataFidelity(guidance='annealed'), weight 1",
    ),
    "PiGDM": (_posterior(sampling.PiGDMDataFidelity), "PiGDMDataFidelity()"),
    "moment matching": (
        _posterior(sampling.MomentMatchingDataFidelity),
        "MomentMatchingDataFidelity(), 3 iterations of conjugate gradients",
    ),
    "ALD": (_posterior(sampling.ALDDataFidelity), "ALDDataFidelity()"),
    "score-SDE": (_posterior(sampling.ScoreSDEDataFidelity), "ScoreSDEDataFidelity()"),
    "ILVR": (_posterior(sampling.ILVRDataFidelity), "ILVRDataFidelity()"),
    "DDRM": (_ddrm, "DDRM(), eta 0.85, etab 1, levels linear from 1 to 0"),
    "DiffPIR": (_diffpir, "DiffPIR(), zeta 0.1, lambda 7"),
}


def run(name: str, task: Task) -> Tensor:
    """n images in data units, (n, *shape)."""
    width = task.high - task.low
    u = METHODS[name][0](task.in_range(0.0, 1.0))
    return (task.low + width * u.detach()).reshape(task.n, *task.shape)
