"""Published checkpoints at their real sizes: random weights in the published layout, loaded, and
the denoiser beside an independent evaluation in float64.

    PYTHONPATH=.:tests python benchmarks/pretrained_score_sde.py [NAME ...]

Prints for every configuration its millions of weights, the seconds that `load` takes, and the
relative difference of D - x, which is all that the network adds. 256 x 256 images take minutes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from published import record
from published_score_sde import Published, images, save
from test_score_sde import expected

import priors
from priors.pretrained.score_sde_settings import PUBLISHED


@torch.no_grad()
def score_sde(name: str, config: dict[str, Any]) -> None:
    """One configuration of score_sde_pytorch, by its published name."""
    with tempfile.TemporaryDirectory() as folder:
        path, weights = save(config, Path(folder))
        start = time.perf_counter()
        prior = priors.load(path, settings=name)
        seconds = time.perf_counter() - start
        sigma, x, D = expected(config, Published(config, weights), images(config, 1), 0.5)
        found = prior.denoise(x.float(), sigma).double()
    error = float((found - D).norm() / (D - x).norm())
    row = {
        "parameters": sum(value.numel() for value in weights.values()),
        "load_seconds": round(seconds, 2),
        "relative_difference": float(f"{error:.2g}"),
    }
    record("score_sde_pytorch", name, row)


if __name__ == "__main__":
    for name in sys.argv[1:] or PUBLISHED:
        score_sde(name, PUBLISHED[name])
