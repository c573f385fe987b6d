"""Draws Bayes' rule for scores: two Gaussians, a measurement, and their sum at three noise levels.

    python benchmarks/score_field.py            writes benchmarks/results/score_field.png

The prior is a mixture of two Gaussians over a point (x_1, x_2); the measurement is of x_1 + x_2 / 2
with noise. All three columns are exact at every noise level.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

import forward_models
import inverse
import priors

RESULT = Path(__file__).parent / "results" / "score_field.png"


def main() -> None:
    prior = priors.Mixture(
        torch.tensor([[-1.5, -0.6], [1.3, 1.0]]),
        torch.tensor([[[0.35, 0.15], [0.15, 0.5]], [[0.4, -0.15], [-0.15, 0.25]]]),
        torch.tensor([0.6, 0.4]),
    )
    model = forward_models.LinearGaussian(
        forward_models.MatrixOperator(torch.tensor([[1.0, 0.5]])), sigma=0.6
    )
    posterior = prior.condition(model, torch.tensor([[0.9]]))
    figure = inverse.plots.bayes_rule(
        prior, posterior, (0.1, 0.5, 1.5), extent=(-3.6, 3.6, -3.0, 3.0)
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    # Smooth colours compress badly; 256 of them, dithered, look the same.
    Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
        RESULT, optimize=True
    )
    print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
