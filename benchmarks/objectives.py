"""Score matching in its kinds on mixtures whose score is known: error against steps, and cost.

    python benchmarks/objectives.py

The same network (from the same weights), draws and noise levels for every objective. The error is
E |s_theta - s|^2 / E |s|^2 of the averaged (EMA) weights, at each noise level in the file and its
mean over them in print. "Spread" is the standard deviation of one sample's loss in the last batch
(for the edm weighting of another loss). Times are processor time of a training step.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import TypedDict

import torch
from torch import Tensor, nn

from priors import Gaussian, Mixture, NetworkPrior
from priors.training import (
    DenoisingScoreMatching,
    ExactScoreMatching,
    LogNormal,
    Objective,
    SlicedScoreMatching,
    fisher_divergence,
)

LEVELS = (0.2, 0.4, 1.0, 2.0)
OBJECTIVES: dict[str, Objective] = {
    "denoising, edm": DenoisingScoreMatching("edm", sigma_data=0.6),
    "denoising, score": DenoisingScoreMatching("score"),
    "sliced": SlicedScoreMatching(False, 1, "gaussian"),
    "sliced, variance reduced": SlicedScoreMatching(True, 1, "gaussian"),
    "  with random signs": SlicedScoreMatching(True, 1, "rademacher"),
    "exact": ExactScoreMatching(),
}


class Row(TypedDict):
    """What one objective came to."""

    errors: dict[str, list[float]]
    milliseconds: float
    spread: float


class Perceptron(nn.Module):
    """(x (B, D), log sigma (B,)) -> (B, D), smooth."""

    def __init__(self, size: int, width: int = 96) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in pairwise((size + 1, width, width, size))
        )
        for layer in self.layers:
            with torch.no_grad():
                weight = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(weight / math.sqrt(layer.in_features))
                layer.bias.zero_()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = torch.cat([x, time.unsqueeze(-1)], -1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        return self.layers[-1](h)


def mixture(size: int) -> Mixture:
    """Five well separated components with covariances of their own."""
    generator = torch.Generator().manual_seed(size)
    means = torch.randn(5, size, generator=generator, dtype=torch.float64)
    means = 0.55 * means / means.square().mean(-1, keepdim=True).sqrt()
    roots = torch.randn(5, size, size, generator=generator, dtype=torch.float64)
    eye = torch.eye(size, dtype=torch.float64)
    covariances = 0.03 * (roots @ roots.mT / size + eye)
    return Mixture(means.float(), covariances, torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]))


def run(objective: Objective, truth: Mixture, steps: int, batch: int) -> Row:
    network = Perceptron(truth.size)
    prior = NetworkPrior(network, "edm", (truth.size,), sigma_data=0.6, time=torch.log)
    average = copy.deepcopy(network)
    averaged = NetworkPrior(average, "edm", (truth.size,), sigma_data=0.6, time=torch.log)
    levels = LogNormal(-0.9, 0.7, (0.15, 4.0))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.9, 0.99))
    source = torch.Generator().manual_seed(1)
    errors: dict[str, list[float]] = {}
    spent = 0.0
    for step in range(1, steps + 1):
        x0, sigma = truth.sample(batch, source), levels.sample(batch, source)
        noise = torch.Generator().manual_seed(step)
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        losses = objective(prior, x0, sigma, noise)
        losses.mean().backward()
        optimizer.step()
        spent += time.process_time() - start
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, 1 - 0.5 ** (10 / step))  # half-life: a tenth of the steps taken
        if steps % step == 0 and step * 16 >= steps:
            errors[str(step)] = relative(averaged, truth)
    return {
        "errors": errors,
        "milliseconds": 1e3 * spent / steps,
        "spread": float(losses.detach().std()),
    }


def relative(prior: NetworkPrior | Gaussian, truth: Mixture) -> list[float]:
    """Relative Fisher error at each of LEVELS."""
    generator = torch.Generator().manual_seed(9)
    return fisher_divergence(prior, truth, LEVELS, 4000, generator, relative=True).value.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--steps", type=int, default=1024, help="a multiple of 16")
    parser.add_argument("--batch", type=int, default=256)
    folder = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=folder / "objectives.json")
    options = parser.parse_args()
    results: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "levels": LEVELS,
        "batch": options.batch,
    }
    for size in options.sizes:
        truth = mixture(size)
        print(f"\n{size} values; mean relative Fisher error over sigma = {LEVELS} after steps:")
        fit = relative(Gaussian(*truth.moments()), truth)
        print(f"  {'Gaussian of the moments':26}", f"      {mean(fit):.4f}")
        rows: dict[str, Row] = {}
        for name, objective in OBJECTIVES.items():
            row = rows[name] = run(objective, truth, options.steps, options.batch)
            errors = "  ".join(f"{step:>5} {mean(e):.4f}" for step, e in row["errors"].items())
            cost = f"{row['milliseconds']:5.1f} ms, spread {row['spread']:5.2f}"
            print(f"  {name:26}", errors, cost, flush=True)
        results[str(size)] = {"gaussian": fit, "objectives": rows}
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
