"""Fit the bundled digits-mixture, and say how good it is on images that the fit did not see.

    python benchmarks/fit_mixture.py --data FOLDER --work FOLDER

FOLDER holds mnist/mnist.npz, as for train_priors.py. The prior and figures.json go to the work
folder: held-out log-likelihood beside that of scikit-learn's Gaussian mixture on principal
components with an isotropic rest, denoising errors, time, and a picture of samples.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from priors import Mixture, bits_per_dim, fit_mixture, save_analytic

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
COMPONENTS, RANK, ITERATIONS, SEED = 30, 16, 6, 0


def read(data: Path, part: str, count: int, seed: int) -> Tensor:
    """(k + u) / 256 for the stored values k: (count, 1, 28, 28) in [0, 1]."""
    stored = np.load(data / "mnist" / "mnist.npz")[f"x_{part}"][:count]
    k = torch.from_numpy(stored).float().unsqueeze(1)
    return (k + torch.rand(k.shape, generator=torch.Generator().manual_seed(seed))) / 256


def bits(log_p: Tensor, prior: Mixture) -> dict[str, float]:
    values = bits_per_dim(log_p, prior)
    return {
        "bits_per_dim": float(values.mean()),
        "standard_error": float(values.std()) / math.sqrt(len(values)),
    }


def principal_components_log_density(images: Tensor, held_out: Tensor, directions: int) -> Tensor:
    """Of scikit-learn's mixture on principal components and an isotropic rest, (N,), nats."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    train, test = (part.flatten(1).numpy().astype(np.float64) for part in (images, held_out))
    pca = PCA(directions, random_state=SEED).fit(train)
    inside = pca.transform(train)
    mixture = GaussianMixture(COMPONENTS, random_state=SEED, max_iter=30, reg_covar=1e-4)
    mixture.fit(inside)
    rest, variance = train.shape[1] - directions, float(pca.noise_variance_)
    coordinates = pca.transform(test)
    left = np.square(test - pca.inverse_transform(coordinates)).sum(-1)
    outside = -(left / variance + rest * math.log(2 * math.pi * variance)) / 2
    return torch.from_numpy(mixture.score_samples(coordinates) + outside)


def denoising(prior: Mixture, images: Tensor) -> list[dict[str, float]]:
    rows = []
    for sigma in LEVELS:
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
        wrong = (prior.denoise(images + sigma * noise, sigma) - images).flatten(1).square().mean(1)
        rows.append(
            {
                "sigma": sigma,
                "rmse": float(wrong.mean().sqrt()),
                "psnr_noisy": -20 * math.log10(sigma),
                "psnr": float((-10 * wrong.log10()).mean()),
            }
        )
    return rows


def picture(prior: Mixture, path: Path) -> None:
    from PIL import Image

    draws = prior.sample(64, torch.Generator().manual_seed(2)).clamp(0, 1)[:, 0]
    grid = draws.reshape(8, 8, 28, 28).permute(0, 2, 1, 3).reshape(224, 224)
    Image.fromarray((255 * grid).round().byte().numpy()).resize((448, 448), 0).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=12000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--compare", action="store_true", help="with scikit-learn's mixture too")
    args = parser.parse_args()
    images = read(args.data, "train", args.images, seed=0)
    held_out = read(args.data, "dev", args.held_out, seed=1)
    wall, cpu = time.time(), time.process_time()
    prior = fit_mixture(
        images, COMPONENTS, RANK, seed=SEED, iterations=ITERATIONS,
        data_range=(0.0, 1.0), sigma_range=(0.0025, 20.0),
    )  # fmt: skip
    figures: dict[str, object] = {
        "seconds": time.time() - wall,
        "processor_seconds": time.process_time() - cpu,
    }
    save_analytic(prior, args.work, factor_dtype=torch.float16)
    log_p = torch.cat([prior.log_density(part.double()) for part in held_out.split(250)])
    figures["held_out"] = bits(log_p, prior)
    figures["denoising"] = denoising(prior, held_out[:12])
    picture(prior, args.work / "samples.png")
    (args.work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    if args.compare:
        other = principal_components_log_density(images, held_out, 2 * RANK)
        figures["principal_components"] = bits(other, prior)
        (args.work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
