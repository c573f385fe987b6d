"""Denoising PSNR of a prior and of non-local means, per noise level, on development images.

    python benchmarks/denoising.py --data FOLDER [--prior digits ...]

A prior that denoises worse than a classical filter would only get in the way of a measurement.
Non-local means (scikit-image, fast mode) is told the noise level; of three filter strengths
h / sigma the best on these very images is reported, in its favour. FOLDER: see train_priors.py.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from skimage.restoration import denoise_nl_means
from torch import Tensor

from priors import NetworkPrior, load

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Noise levels as shares of the peak."""
STRENGTHS = (0.6, 0.8, 1.0)
PEAK = {"digits": 1.0, "fashion": 1.0, "brain": 1.0, "ct": 2048.0, "photographs": 1.0}
"""What PSNR and the levels refer to; for CT 2048 HU, from air to dense bone."""


def development(name: str, data: Path, count: int) -> Tensor:
    """`count` development images or centre crops (N, C, H, W), data units."""
    from cards import read

    _, images = read(name, data)
    if name in ("digits", "fashion", "brain"):
        return torch.stack(images[:count])
    side, crops = 128, []
    for k in range(count):
        image = images[k * len(images) // count]
        if name == "ct":  # 256 x 256 slices at half their resolution, as a whole
            crops.append(torch.nn.functional.avg_pool2d(image[None], 2)[0])
        else:
            top, left = (97 * k) % (image.shape[1] - side), (61 * k) % (image.shape[2] - side)
            crops.append(image[:, top : top + side, left : left + side])
    return torch.stack(crops)


def psnr(estimate: Tensor, truth: Tensor, peak: float) -> float:
    """Mean over images of the peak signal to noise ratio in dB."""
    errors = (estimate - truth).double().square().flatten(1).mean(1)
    return float((10 * torch.log10(peak**2 / errors)).mean())


def non_local_means(x: Tensor, sigma: float, strength: float) -> Tensor:
    rows = []
    for image in x:
        array = image.permute(1, 2, 0).numpy().astype(np.float64)
        clean = denoise_nl_means(
            array, patch_size=5, patch_distance=6, h=strength * sigma, sigma=sigma,
            fast_mode=True, channel_axis=-1,
        )  # fmt: skip
        clean = clean.reshape(array.shape)  # a lone channel is dropped
        rows.append(torch.from_numpy(clean).permute(2, 0, 1).float())
    return torch.stack(rows)


@torch.no_grad()
def compare(
    prior: NetworkPrior, images: Tensor, peak: float, levels: Sequence[float] = LEVELS
) -> list[dict[str, float]]:
    """One row per noise level: PSNR of the noisy image, of non-local means and of the prior."""
    table = []
    for share in levels:
        sigma = share * peak
        generator = torch.Generator().manual_seed(0)
        x = images + sigma * torch.randn(images.shape, generator=generator)
        denoised = torch.cat([prior.denoise(part, sigma) for part in x.split(16)])
        classical = max(
            psnr(non_local_means(x / peak, share, h) * peak, images, peak) for h in STRENGTHS
        )
        error = (denoised - images).double().square().mean()
        table.append(
            {
                "sigma": sigma,
                "rmse": math.sqrt(float(error)),
                "psnr_noisy": psnr(x, images, peak),
                "psnr_nlm": classical,
                "psnr_prior": psnr(denoised, images, peak),
            }
        )
    return table


def markdown(table: list[dict[str, float]]) -> str:
    """The table of a model card."""
    head = "| sigma | held-out RMSE | PSNR noisy | non-local means | this prior |\n"
    head += "|---|---|---|---|---|"
    rows = [
        f"| {r['sigma']:g} | {r['rmse']:.4g} | {r['psnr_noisy']:.2f} | {r['psnr_nlm']:.2f} | "
        f"{r['psnr_prior']:.2f} |"
        for r in table
    ]
    return "\n".join([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prior", nargs="*", default=list(PEAK), help="bundled names")
    parser.add_argument("--folder", type=Path, help="load the priors from here instead")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    report = {}
    for name in args.prior:
        prior = load(args.folder / name if args.folder else name)
        images = development(name, args.data, args.count)
        report[name] = compare(prior.resized(tuple(images.shape[1:])), images, PEAK[name])
        print(f"{name}\n{markdown(report[name])}\n", flush=True)
    (args.out / "denoising.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
