"""Seconds a step over the network calls it needs: ours and the peers' on the network of digits.

    python benchmarks/peers_timing.py [--batch 4] [--steps 4] [--repeats 3]

Half the pixels of images 28 x 28, measured. A call costs the difference of runs over twice `steps`
levels and over `steps`, by the network calls that the longer run makes more: processor seconds of
one thread, the least of the repeats. It is divided by the cost of what the method cannot do
without: one denoised batch, and where it differentiates through the network one vector-Jacobian
product with it. All methods of ours that can, and all of the peers. Written to
benchmarks/results/peers_timing.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from peers_libraries import libraries
from peers_task import Task, matrix
from torch import Tensor

import inverse
import priors
from forward_models import Inpainting, LinearGaussian

WITHOUT_JACOBIAN = ("DiffPIR", "DDRM", "ALD", "score-SDE", "ILVR", "JFPS")
SIGMA = 0.05


def cost(run: Callable[[int], int], steps: int, repeats: int) -> float:
    """Processor seconds of one network call and of what a method does beside it.

    `run` takes the number of steps and returns that of network calls.
    """

    def least(count: int) -> tuple[float, int]:
        taken, calls = [], 0
        for _ in range(repeats):
            start = time.process_time()
            calls = run(count)
            taken.append(time.process_time() - start)
        return min(taken), calls

    (long, many), (short, few) = least(2 * steps), least(steps)
    return (long - short) / (many - few)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    folder = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=folder / "peers_timing.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = priors.load("digits")
    shape, n = prior.event_shape, options.batch
    source = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=source) < 0.5
    x0 = torch.rand(n, *shape, generator=source)
    model = LinearGaussian(Inpainting(mask), SIGMA)
    y = model.simulate(x0[:1], source)
    rows = torch.eye(mask.numel(), dtype=torch.float64)[mask.flatten()]
    seen, level = y.flatten(1)[:, mask.flatten()], torch.full((n,), 0.3)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return prior.denoise(x.float(), sigma.float()).to(x)

    def forward(count: int) -> int:
        with torch.no_grad():
            for _ in range(count):
                denoise(x0, level)
        return count

    def backward(count: int) -> int:
        for _ in range(count):
            x0_hat, product = prior.covariance(x0, level)
            product(x0_hat)
        return count

    calls = {"forward": cost(forward, options.steps, options.repeats),
             "forward and vjp": cost(backward, options.steps, options.repeats)}  # fmt: skip
    print({k: f"{1e3 * v:.1f} ms" for k, v in calls.items()}, flush=True)
    posterior = inverse.condition(prior, model, y)
    tasks: dict[str, tuple[Callable[[int], int], bool]] = {}

    def ours(name: str, count: int) -> int:
        found = inverse.sample(posterior, n, method=name, steps=count, seed=0)
        return int(found.diagnostics["network_calls"])

    def peers(module: ModuleType, name: str, count: int) -> int:
        f = matrix(rows, shape, seen.dtype)
        module.run(name, Task(shape, denoise, f, SIGMA, seen, 0.0, 1.0, 0.3, n, count, 0))
        return count

    for method in inverse.methods(posterior):
        tasks[f"inverse {method.name}"] = (partial(ours, method.name), method.jacobian)
    for library, module in libraries().items():
        for name in module.METHODS:
            jacobian = not any(word.lower() in name.lower() for word in WITHOUT_JACOBIAN)
            tasks[f"{library} {name}"] = (partial(peers, module, name), jacobian)
    results: dict[str, object] = {"batch": n, "torch": torch.__version__, "seconds": calls}
    methods = {}
    for name, (run, jacobian) in tasks.items():
        needed = calls["forward and vjp" if jacobian else "forward"]
        try:
            each = cost(run, options.steps, options.repeats)
        except (ArithmeticError, ValueError, RuntimeError, TypeError) as error:
            print(f"{name:28} {type(error).__name__}: {error}"[:120], flush=True)
            continue
        methods[name] = {"seconds": round(each, 5), "over needed": round(each / needed, 3)}
        print(
            f"{name:28} {1e3 * each:7.1f} ms a call, {each / needed:5.2f} of its calls", flush=True
        )
    options.out.write_text(json.dumps({**results, "methods": methods}, indent=1) + "\n")


if __name__ == "__main__":
    main()
