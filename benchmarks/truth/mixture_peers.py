"""deepinv's and azula's methods on the mixture benchmark, in the file of runs of mixture.py.

    python benchmarks/truth mixture_peers [--cells 8,1 ...] [--methods "azula MMPS" ...]

The same instances, exact denoiser, matrix, noise and number of network calls (100), each method in
its library's own data range and with its own defaults (peers_deepinv.py, peers_azula.py). Needs
deepinv and azula: pip install deepinv azula. A library that is not there is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType

from mixture_problem import HALF_WIDTH, Problem
from mixture_runs import Drawn, Entry, main
from peers_libraries import libraries
from peers_task import Task, matrix
from torch import Tensor

N, STEPS = 1000, 100


def peers() -> dict[str, Entry]:
    known = {}
    for library, module in libraries().items():
        for name, (_, settings) in module.METHODS.items():
            facts = {"library": module.VERSION, "settings": settings}
            known[f"{library} {name}"] = Entry(_runner(module, name), facts)
    return known


def _runner(module: ModuleType, name: str) -> Callable[[Problem], Drawn]:
    def run(p: Problem) -> Drawn:
        calls, seconds = 0, 0.0

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls, seconds
            calls += 1
            start = time.process_time()
            x0 = p.prior._denoise(x, sigma.unsqueeze(-1))
            seconds += time.process_time() - start
            return x0

        task = Task(
            (p.d,), denoise, matrix(p.A, (p.d,), p.y.dtype), p.sigma_y, p.y, -HALF_WIDTH,
            HALF_WIDTH, p.prior.scale, N, STEPS, p.seed,
        )  # fmt: skip
        start = time.process_time()
        x = module.run(name, task)
        return Drawn(x, None, calls, 0, time.process_time() - start, seconds)

    return run


if __name__ == "__main__":
    main(peers(), __doc__.partition("\n")[0])
