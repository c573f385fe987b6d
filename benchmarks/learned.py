"""What learning gives beside formulas: an h-transform and a distilled classifier, on digits.

    python benchmarks/learned.py [--full] [--out FOLDER]

The prior is the bundled `digits-mixture`, under which exact posteriors are known. Trained here, on
its own draws and on the CPU:

1.  a lift by `inverse.learn` for digits of which 70 % of the pixels are missing, noise 0.1. For
    held-out draws, measured: PSNR of the posterior mean, its root mean square distance to the exact
    posterior mean, the residual in units of the noise, seconds; for deft, for particles over the
    learned twist, and for methods that learn nothing.
2.  a noise-conditional classifier by `inverse.distil` from the bundled clean one. The truth is
    E[p(class | x0) | x], the clean classifier's mean over exact draws of x0 given x; measured: the
    mean Kullback-Leibler divergence from it, in nats, of the distilled classifier, of the bundled
    `digits-noisy`, which learned from labels of real digits, and of the clean one at E[x0 | x].

Written to benchmarks/results/learned.json and .png, or to the folder of --out. The small setting
takes minutes on one core, --full longer.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import inverse
import priors
from forward_models import Identity, Inpainting, LinearGaussian, load_classifier
from inverse.classifier_training import Levels

RESULTS = Path(__file__).parent / "results"
NOISE, SEEN = 0.1, 0.3
LEVELS = (0.1, 0.2, 0.5, 1.0)

Row = dict[str, Any]


def inpainting(prior: priors.Prior, full: bool) -> tuple[list[Row], dict[str, Tensor], float]:
    """Rows by method, pictures of the first digit, and the seconds that training took."""
    g = torch.Generator().manual_seed(1)
    mask = (torch.rand(28, 28, generator=g) < SEEN).float()
    model = LinearGaussian(Inpainting(mask), NOISE)
    began = time.perf_counter()
    learned = inverse.learn(
        prior,
        model,
        steps=3000 if full else 300,
        batch=64 if full else 24,
        widths=(32, 64),
        patch=2,
    )
    trained = time.perf_counter() - began
    count, n = (16, 32) if full else (3, 8)
    x0 = prior.sample(count, torch.Generator().manual_seed(2))  # type: ignore[attr-defined]
    y = model.simulate(x0, g)
    exact = torch.stack([prior.condition(model, row[None]).mean for row in y])  # type: ignore[attr-defined]
    runs: dict[str, dict[str, Any]] = {
        "exact": {"n": n},
        "deft": {"n": n, "steps": 100},
        "deft, eta=1": {"n": n, "steps": 100, "eta": 1.0},
        "tds, learned twist": {"n": n, "steps": 100},
        "mmps": {"n": n, "steps": 100},
        "dps": {"n": n, "steps": 1000 if full else 100},
    }
    if full:  # Tweedie's twist takes 11 products a step and particle
        runs["tds"] = {"n": n, "steps": 100}
    rows, pictures = [], {"truth": x0[0], "measured": (mask * y[0]), "exact mean": exact[0]}
    for label, options in runs.items():
        means, fits, seconds = [], [], 0.0
        for row in y:
            own = {"lift": learned} if "deft" in label or "learned" in label else {}
            posterior = inverse.condition(prior, model, row[None], **own)
            found = inverse.sample(posterior, method=label.split(",")[0], seed=0, **options)
            means.append(found.mean)
            fits.append(found.diagnostics["reduced_chi2"] ** 0.5)
            seconds += found.diagnostics["seconds"]
        mean = torch.stack(means).float()
        mse = (mean - x0).square().flatten(1).mean(1)
        apart = (mean - exact).square().flatten(1).mean(1).sqrt()
        rows.append({
            "method": label, **options, "psnr": round(float(-10 * mse.log10().mean()), 2),
            "rms_to_exact_mean": round(float(apart.mean()), 4),
            "residual_sigma": round(math.fsum(fits) / count, 3),
            "seconds": round(seconds / count, 2),
        })  # fmt: skip
        pictures[label] = mean[0]
        print(rows[-1], flush=True)
    return rows, pictures, trained


def classes(prior: priors.Prior, full: bool) -> tuple[list[Row], float]:
    """Divergences by noise level, and the seconds that training took."""
    clean, noisy = load_classifier("digits"), load_classifier("digits-noisy")
    draw = prior.sample  # type: ignore[attr-defined]
    images = draw(20000 if full else 4000, torch.Generator().manual_seed(3))
    began = time.perf_counter()
    distilled = inverse.distil(
        clean, images, steps=3000 if full else 400, batch=128 if full else 64,
        channels=(16, 32, 64), levels=Levels("geometric", (0.05, 10.0)),
    )  # fmt: skip
    trained = time.perf_counter() - began
    g, rows = torch.Generator().manual_seed(4), []
    count, draws = (200, 256) if full else (40, 64)
    for sigma in LEVELS:
        x0 = draw(count, g)
        x = x0 + sigma * torch.randn(x0.shape, generator=g)
        seen = LinearGaussian(Identity(), sigma)
        with torch.no_grad():
            given = [prior.condition(seen, row[None]).sample(draws, g).float() for row in x]  # type: ignore[attr-defined]
            truth = torch.stack([clean.logits(d).softmax(1).mean(0) for d in given])
            guesses = {
                "distilled": distilled.logits(x, sigma),
                "labels": noisy.logits(x, sigma),
                "clean at the denoised image": clean.logits(prior.denoise(x, sigma)),
            }
        row: Row = {"sigma": sigma}
        for name, logits in guesses.items():
            apart = truth * (truth.clamp(min=1e-12).log() - logits.log_softmax(1))
            row[name] = round(float(apart.sum(1).mean()), 4)
        rows.append(row)
        print(row, flush=True)
    return rows, trained


def figure(pictures: dict[str, Tensor], rows: list[Row], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(13, 4.2), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(1, 1.4))
    for axis, (name, image) in zip(top.subplots(1, len(pictures)), pictures.items(), strict=True):
        axis.imshow(image.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
        axis.set_title(name, fontsize=8)
        axis.axis("off")
    axis = bottom.subplots()
    for name in [key for key in rows[0] if key != "sigma"]:
        axis.loglog([r["sigma"] for r in rows], [r[name] for r in rows], "o-", label=name)
    axis.set_xlabel("noise level")
    axis.set_ylabel("KL to E[p(class | x0) | x], nats")
    axis.legend()
    fig.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    prior = priors.load("digits-mixture")
    digits, distilling = classes(prior, args.full)
    rows, pictures, learning = inpainting(prior, args.full)
    found = {
        "setting": "full" if args.full else "small",
        "prior": "digits-mixture", "noise": NOISE, "seen": SEEN,
        "seconds_learning": round(learning, 1), "seconds_distilling": round(distilling, 1),
        "threads": torch.get_num_threads(), "inpainting": rows, "classifiers": digits,
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "learned.json").write_text(json.dumps(found, indent=1) + "\n")
    figure(pictures, digits, args.out / "learned.png")


if __name__ == "__main__":
    main()
