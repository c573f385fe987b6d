"""deepinv's and azula's methods on the mixture, each in its library's own data range.

The same instances, exact denoiser, matrix, noise and number of network calls (100), the libraries'
own defaults (peers_deepinv.py, peers_azula.py): pip install deepinv azula. A library that is not
there is left out.
"""

from __future__ import annotations

from functools import cache, partial
from types import ModuleType

from mixture_problem import HALF_WIDTH, Problem
from peers_libraries import libraries
from peers_task import Task, matrix
from posed import Other, Weighted
from torch import Tensor

from priors import Prior

N, STEPS = 1000, 100
installed = cache(libraries)


def peers(p: Problem) -> dict[str, Other]:
    return {
        f"{library} {name}": Other(
            partial(run, module, name, p), {"library": module.VERSION, "settings": settings}
        )
        for library, module in installed().items()
        for name, (_, settings) in module.METHODS.items()
    }


def run(module: ModuleType, name: str, p: Problem, prior: Prior) -> Weighted:
    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return prior._denoise(x, sigma.unsqueeze(-1))

    task = Task(
        (p.d,), denoise, matrix(p.A, (p.d,), p.y.dtype), p.sigma_y, p.y, -HALF_WIDTH, HALF_WIDTH,
        p.prior.scale, N, STEPS, p.seed,
    )  # fmt: skip
    return module.run(name, task), None
