"""Which faults does calibration find, and in how many simulations? Samplers with known faults.

    python benchmarks/truth power [--seeds 10] [--n 200 500]

P1 to P3 (small_problems.py), 49 draws a simulation, by samplers that draw from the exact posterior
but for one fault:

    exact           none: what is found here is a false alarm
    ignores y       draws of the prior
    sigma_y x 1.2   the noise of y believed larger by 20 %
    sigma_y / 1.2   the same, smaller
    one mode        the heaviest component of the posterior alone
    shifted         the first value moved by .2 of the prior's scale

Of so many seeds the share in which the verdict is "not calibrated", and the first finding of one of
these. The summary goes to benchmarks/results/power.json; about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_problems import PROBLEMS, Problem
from torch import Tensor

import inverse
from forward_models import LinearGaussian
from priors import Gaussian, Mixture

RESULTS = Path(__file__).parents[1] / "results" / "power.json"
DRAWS = 49
LEAST = 20
"""Simulations that `calibrate` takes."""
SMALL = ("P1", "P2", "P3")
Sampler = Callable[[Tensor, int, int], Tensor]


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def believing(problem: Problem, factor: float) -> Sampler:
    """Exact draws were sigma_y as many times as large."""
    assert isinstance(problem.model, LinearGaussian)
    model = LinearGaussian(problem.model.operator, factor * problem.model.sigma)
    return lambda y, n, seed: problem.exact.condition(model, y).sample(n, rng(seed))


def ignoring(problem: Problem) -> Sampler:
    return lambda y, n, seed: problem.exact.sample(n, rng(seed))


def dropping(problem: Problem) -> Sampler | None:
    prior, model = problem.exact, problem.model
    if not isinstance(prior, Mixture):
        return None

    def sample(y: Tensor, n: int, seed: int) -> Tensor:
        posterior = prior.condition(model, y)
        k = int(posterior.weights.argmax())
        return Gaussian(posterior.means[k], posterior.C[k]).sample(n, rng(seed))

    return sample


def shifting(problem: Problem) -> Sampler:
    def sample(y: Tensor, n: int, seed: int) -> Tensor:
        x = problem.exact.condition(problem.model, y).sample(n, rng(seed))
        x[:, 0] += 0.2 * problem.exact.scale
        return x

    return sample


FAULTS: dict[str, Callable[[Problem], Sampler | None]] = {
    "exact": lambda p: believing(p, 1.0),
    "ignores y": ignoring,
    "sigma_y x 1.2": lambda p: believing(p, 1.2),
    "sigma_y / 1.2": lambda p: believing(p, 1 / 1.2),
    "one mode": dropping,
    "shifted": shifting,
}


def figures(problem: Problem, sampler: Sampler, n: int, seeds: int) -> dict[str, Any]:
    found = [
        inverse.calibrate(
            problem.exact, problem.model, sampler, n=n, draws=DRAWS, seed=seed
        ).evidence
        for seed in range(seeds)
    ]
    caught = [evidence.findings[0] for evidence in found if evidence.faults]
    return {"caught": len(caught), "of": seeds, "finding": caught[0] if caught else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 (%(default)s)")
    parser.add_argument(
        "--n",
        type=int,
        nargs="+",
        default=[200, 500],
        help="simulations of each, 20 or more (%(default)s)",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the summary (%(default)s)")
    options = parser.parse_args()
    if options.seeds < 1:
        raise SystemExit(f"--seeds {options.seeds}: must be at least 1")
    if min(options.n) < LEAST:
        raise SystemExit(f"--n {min(options.n)}: must be at least {LEAST}")
    torch.set_num_threads(1)
    told: dict[str, Any] = {"torch": torch.__version__, "draws": DRAWS}
    for label in SMALL:
        problem = PROBLEMS[label]()
        for fault, build in FAULTS.items():
            sampler = build(problem)
            if sampler is None:
                continue
            for n in options.n:
                one = figures(problem, sampler, n, options.seeds)
                told.setdefault(label, {}).setdefault(fault, {})[str(n)] = one
                shown = f"{one['caught']} of {one['of']} caught, {one['finding']}"
                print(f"{label} {fault}, {n}: {shown}", flush=True)
    options.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
