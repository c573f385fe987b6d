"""deepinv's diffusion methods on a Task, each as its own documentation builds it.

Images in [0, 1], its range; the denoiser, the measurement's operator and sigma_y are the task's:
a `DecomposablePhysics` where the singular values are known, which DDRM needs, else a
`LinearPhysics` with the adjoint, which solves by iterations, or for a nonlinear operator a
`Physics`, which only its DPS takes. The methods of `PosteriorDiffusion` walk the
variance-preserving SDE with its DDPM solver, which are the defaults of its `DPS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepinv
import torch
from deepinv import sampling
from peers_task import InapplicableError, Task
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


def image_shape(task: Task) -> tuple[int, ...]:
    return task.shape if len(task.shape) == 3 else (1, 1, *task.shape)


def physics(task: Task) -> Any:
    """The measurement, in single precision; y and singular directions are (B, 1, 1, M)."""
    f, image = task.f, image_shape(task)
    noise = deepinv.physics.GaussianNoise(task.sigma)

    def vector(x: Tensor) -> Tensor:
        return x.reshape(len(x), -1).float()

    def row(y: Tensor) -> Tensor:
        return y.reshape(len(y), 1, 1, -1)

    def A(x: Tensor) -> Tensor:
        return row(f.apply(x.reshape(-1, *task.shape).float()))

    if f.adjoint is None:
        return deepinv.physics.Physics(A=A, noise_model=noise)
    if f.svd is None:
        transposed = f.adjoint
        return deepinv.physics.LinearPhysics(
            A=A, A_adjoint=lambda y: transposed(vector(y)).reshape(-1, *image), noise_model=noise
        )
    svd = f.svd()
    return deepinv.physics.DecomposablePhysics(
        U=lambda z: row(svd.U(vector(z))),
        U_adjoint=lambda y: row(svd.Ut(vector(y))),
        V=lambda z: svd.V(vector(z)).reshape(-1, *image),
        V_adjoint=lambda x: row(svd.Vt(x.reshape(-1, *task.shape).float())),
        mask=svd.s.reshape(1, 1, 1, -1),
        noise_model=noise,
    )


def _posterior(fidelity: Callable[[], Any]) -> Callable[[Task], Tensor]:
    def run(task: Task) -> Tensor:
        generator = torch.Generator().manual_seed(task.seed)
        torch.manual_seed(task.seed)  # of the terms that draw noise of their own
        times = torch.linspace(1, 0, task.steps + 1, dtype=torch.float64)
        model = sampling.PosteriorDiffusion(
            data_fidelity=fidelity(),
            denoiser=Network(task),
            sde=sampling.VariancePreservingDiffusion(alpha=1.0),
            solver=sampling.DDPMSolver(timesteps=times, rng=generator),
        )
        return _call(model, task, x_init=(task.n, *image_shape(task)))

    return run


def _dps(task: Task) -> Tensor:
    generator = torch.Generator().manual_seed(task.seed)
    model = sampling.DPS(Network(task), num_steps=task.steps + 1, rng=generator)
    return _call(model, task, x_init=(task.n, *image_shape(task)))


def _call(model: Any, task: Task, **start: Any) -> Tensor:
    y = task.y.reshape(1, 1, 1, -1).float().expand(task.n, -1, -1, -1)
    return model(y, physics(task), **start)


def _ddrm(task: Task) -> Tensor:
    if task.f.svd is None:
        raise InapplicableError(
            "it takes a singular value decomposition, and none is known in closed form"
        )
    torch.manual_seed(task.seed)
    levels = torch.linspace(1, 0, task.steps).numpy()
    return _call(sampling.DDRM(Network(task), sigmas=levels), task)


def _diffpir(task: Task) -> Tensor:
    torch.manual_seed(task.seed)
    fidelity = deepinv.optim.data_fidelity.L2()
    model = sampling.DiffPIR(Network(task), fidelity, sigma=task.sigma, max_iter=task.steps)
    return _call(model, task)


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
IMAGE_METHODS = METHODS
NONLINEAR = ("DPS", "DPS annealed")


def run(name: str, task: Task) -> Tensor:
    """n images in data units, (n, *shape). Raises InapplicableError."""
    if task.f.adjoint is None and name not in NONLINEAR:
        raise InapplicableError("it takes linear operators only")
    width = task.high - task.low
    u = METHODS[name][0](task.in_range(0.0, 1.0))
    return (task.low + width * u.detach()).reshape(task.n, *task.shape)
