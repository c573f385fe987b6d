"""Is the evidence that particles give unbiased? 200 runs on each of P1 to P3, each with its own y.

    python benchmarks/truth evidence [--runs 200] [--particles 64] [--steps 100]

The mean over runs of Z / p(y), with Z the estimate of p(y), is 1 for the prior as the steps
discretise it: the second-order steps of these methods are off by O(1 / steps^2). Its standard error
is that of the runs, which is honest unless few of them carry the mean: `largest` is the share of
the largest run. `spread` is that of log Z over runs, `stated` the error that a run gives of itself,
where it gives one (`known`, the share of runs; None if no run does). Where rare runs carry the
mean, more runs and more particles must bring it to 1 if it is unbiased: MORE. Summary:
benchmarks/results/evidence.json; three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from small_problems import PROBLEMS, Problem
from torch import Tensor

import inverse
from priors import Gaussian

RESULTS = Path(__file__).parents[1] / "results" / "evidence.json"
METHODS: dict[str, dict[str, Any]] = {
    "tds": {}, "bootstrap": {}, "mcgdiff": {}, "ddsmc": {}, "scg": {"greedy": False},
}  # fmt: skip
SMALL = ("P1", "P2", "P3")
MORE = {("P3", "mcgdiff"): ((64, 20_000), (512, 100), (4096, 50))}
"""Further particles and runs."""
BLOCK = 2000
"""Runs at a time."""


def log_evidence(problem: Problem, y: Tensor) -> Tensor:
    """log p(y) of each row of y (R, M), in closed form, (R,)."""
    exact, model = problem.exact, problem.model
    A = model.operator.matrix  # type: ignore[attr-defined]
    noise = model.sigma**2 * torch.eye(len(A), dtype=A.dtype)  # type: ignore[attr-defined]
    if isinstance(exact, Gaussian):
        mean, covariance = exact.moments()
        weights, means, covariances = torch.ones(1, dtype=A.dtype), mean[None], covariance[None]
    else:
        weights, means = exact.weights, exact.means
        covariances = torch.stack([C.dense() for C in exact.C])
    of_y = torch.distributions.MultivariateNormal(means @ A.mT, A @ covariances @ A.mT + noise)
    return (of_y.log_prob(y[:, None]) + weights.log()).logsumexp(1)


def runs(
    problem: Problem, method: str, count: int, particles: int, steps: int, seed: int = 0
) -> tuple[Tensor, list[float | None]]:
    """log Z - log p(y) of each run, (R,), and the error that it states of itself."""
    if count > BLOCK:
        parts = [
            runs(problem, method, min(BLOCK, count - start), particles, steps, seed + start)
            for start in range(0, count, BLOCK)
        ]
        return torch.cat([off for off, _ in parts]), [e for _, stated in parts for e in stated]
    truths = problem.prior.sample(count, torch.Generator().manual_seed(seed))
    y = problem.model.simulate(truths, torch.Generator().manual_seed(seed + 1))
    posterior = inverse.condition(problem.prior, problem.model, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = inverse.sample(
            posterior, count * particles, method=method, steps=steps, seed=seed + 2,
            **METHODS[method],
        ).diagnostics  # fmt: skip
    estimate = torch.tensor(found["log_evidence"], dtype=y.dtype)
    return estimate - log_evidence(problem, y), found["log_evidence_error"]


def figures(off: Tensor, stated: list[float | None]) -> dict[str, float | None]:
    ratio = off.exp()
    known = torch.tensor([e for e in stated if e is not None])
    own = float(known.square().mean().sqrt()) if len(known) else None
    return {
        "mean": float(ratio.mean()), "error": float(ratio.std() / len(ratio) ** 0.5),
        "largest": float(ratio.max() / ratio.sum()), "spread": float(off.std()),
        "stated": own, "known": len(known) / len(stated),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.runs < 2:
        raise SystemExit(f"--runs {options.runs}: must be at least 2, to have a spread")
    torch.set_num_threads(1)
    told: dict[str, Any] = {k: getattr(options, k) for k in ("runs", "particles", "steps", "seed")}
    for label in SMALL:
        problem = PROBLEMS[label]()
        for method in METHODS:
            sizes = [(options.particles, options.runs), *MORE.get((label, method), ())]
            for particles, count in sizes:
                own = runs(problem, method, count, particles, options.steps, options.seed)
                one = figures(*own)
                usual = (particles, count) == (options.particles, options.runs)
                name = method if usual else f"{method}, {particles} particles, {count} runs"
                told.setdefault(label, {})[name] = one
                shown = [f"{k} {'none' if v is None else f'{v:.3f}'}" for k, v in one.items()]
                print(f"{label} {name}: {', '.join(shown)}", flush=True)
    options.out.write_text(json.dumps({"torch": torch.__version__, **told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
