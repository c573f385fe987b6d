"""Bits per dimension of held-out digits and clothes under the priors of digits.

    python benchmarks/log_likelihood.py --data FOLDER [--prior digits-mixture digits ...]

FOLDER holds mnist/mnist.npz and fashion_mnist/fashion_mnist.npz, as for train_priors.py. Images are
dequantised, (k + u) / 256, and seen through noise of the level --sigma, the smallest of the ODE: it
is the density of noisy images that a network knows. At sigma = 0 mixtures alone have one.
Written to benchmarks/results/log_likelihood.json: mean over images and its standard error, the
mean standard error of the trace's estimate, and how often a digit is more probable than a piece of
clothing (the area under the ROC curve).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import priors

RESULTS = Path(__file__).parent / "results" / "log_likelihood.json"
SETS = {"digits": "mnist", "clothes": "fashion_mnist"}


def held_out(data: Path, name: str, count: int, sigma: float) -> Tensor:
    stored = np.load(data / name / f"{name}.npz")["x_dev"][:count]
    k = torch.from_numpy(stored).float().unsqueeze(1)
    generator = torch.Generator().manual_seed(0)
    clean = (k + torch.rand(k.shape, generator=generator)) / 256
    return clean + sigma * torch.randn(k.shape, generator=generator)


def log_density(
    prior: priors.Prior, x: Tensor, sigma: float, probes: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    if isinstance(prior, priors.Mixture):
        log_p = torch.cat([prior.log_density(part.double(), sigma) for part in x.split(250)])
        return log_p, torch.zeros_like(log_p)
    return priors.log_prob(
        prior, x, sigma_range=(sigma, prior.sigma_range[1]), probes=probes,
        tolerance=tolerance, return_error=True,
    )  # fmt: skip


def compare(prior: priors.Prior, args: argparse.Namespace, count: int) -> dict[str, Any]:
    row: dict[str, Any] = {"images": count, "sigma": args.sigma}
    found = {}
    for what, name in SETS.items():
        start = time.process_time()
        x = held_out(args.data, name, count, args.sigma)
        log_p, error = log_density(prior, x, args.sigma, args.probes, args.tolerance)
        bits = priors.bits_per_dim(log_p, prior)
        found[what] = log_p
        row[what] = {
            "bits_per_dim": float(bits.mean()),
            "standard_error": float(bits.std()) / math.sqrt(count),
            "trace_error": float(error.mean()) / math.log(2) / x[0].numel(),
            "processor_seconds": time.process_time() - start,
        }
    above = found["digits"].unsqueeze(1) > found["clothes"]
    row["digit_above_clothing"] = float(above.double().mean())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prior", nargs="+", default=["digits-mixture", "digits"])
    parser.add_argument("--images", type=int, default=500, help="of each set, under mixtures")
    parser.add_argument("--network-images", type=int, default=6, help="under networks")
    parser.add_argument("--sigma", type=float, default=0.1)
    parser.add_argument("--probes", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=0.03)
    args = parser.parse_args()
    results = {}
    for name in args.prior:
        prior = priors.load(name)
        count = args.images if isinstance(prior, priors.Mixture) else args.network_images
        results[name] = compare(prior, args, count)
        print(name, json.dumps(results[name], indent=2), flush=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
