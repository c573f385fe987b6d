"""MRI: classical reconstructions of measured k-space, as a floor for every posterior.

    python benchmarks/brain.py --data FOLDER [--pictures FOLDER]

FOLDER holds kspace_brain8_bart_us_ref.npz (8 coils, 7.9 times undersampled when it was measured,
with the image of the full data as reference), kspace_head16_96x96_full.npz (16 coils) and
kspace_single_rad229.npz (one coil); the latter two are fully sampled, and undersampled here.
Sensitivities come from the sampled centre alone by ESPIRiT.

Figures compare magnitudes |x|, after the one real factor that brings them closest to the magnitude
of the reference: NRMSE = |s |x| - |r|| / |r|, PSNR and SSIM with the largest |r| as data range. The
penalty of CG-SENSE is the one that predicts best a tenth of the samples outside the calibration
region, held out; the reference plays no part in it. Times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

import forward_models as fm

PENALTIES = [10 ** (0.5 * e) for e in range(-8, 1)]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def figures(image: Tensor, reference: Tensor) -> dict[str, float]:
    """NRMSE, PSNR in dB and SSIM of the magnitude after the best real scale."""
    x, r = (v.abs().squeeze().double().numpy() for v in (image, reference))
    x = x * (x * r).sum() / (x * x).sum()
    error = float(np.linalg.norm(x - r) / np.linalg.norm(r))
    psnr = float(20 * np.log10(r.max() / np.sqrt(np.mean((x - r) ** 2))))
    return {
        "nrmse": round(error, 4),
        "psnr": round(psnr, 2),
        "ssim": round(float(structural_similarity(r, x, data_range=float(r.max()))), 4),
    }


def held_out_penalty(mask: Tensor, maps: Tensor, y: Tensor, center: int) -> float:
    """The penalty whose image predicts best a tenth of the samples outside the centre."""
    plane = mask.expand(y.shape[-2:]).clone()
    outside = plane.clone()
    top, left = (n // 2 - center // 2 for n in plane.shape)
    outside[top : top + center, left : left + center] = False
    tested = outside & (torch.rand(plane.shape, generator=rng(1)) < 0.1)
    A = fm.MultiCoilMRI(plane & ~tested, maps)
    test = fm.MultiCoilMRI(tested, maps)
    errors = []
    for penalty in PENALTIES:
        prediction = test(fm.cg_sense(A, y, penalty))
        errors.append(float((prediction - torch.where(tested, y, 0)).norm()))
    return PENALTIES[int(np.argmin(errors))]


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = run()
    return result, round(time.process_time() - start, 2)


def parallel_imaging(
    kspace: Tensor, mask: Tensor, center: int, reference: Tensor | None
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Every reconstruction of undersampled multi-coil k-space (C, H, W)."""
    y = torch.where(mask, kspace, 0)[None]
    (maps, _), seconds = timed(lambda: fm.espirit(y[0], center))
    A = fm.MultiCoilMRI(mask, maps)
    if reference is None:
        full = fm.espirit(kspace, center).maps
        everything = torch.ones(kspace.shape[1:], dtype=torch.bool)
        reference = fm.MultiCoilMRI(everything, full).adjoint(kspace[None])
    penalty = held_out_penalty(mask, maps, y, center)
    sense, sense_seconds = timed(lambda: fm.cg_sense(A, y, penalty))
    images = {
        "reference": reference,
        "root sum of squares": fm.root_sum_of_squares(fm.to_image(y)),
        "zero-filled": A.adjoint(y),
        "CG-SENSE": sense,
    }
    noise = float((A(sense) - y).norm() / y.norm())
    report: dict[str, object] = {
        "acceleration": round(fm.acceleration(mask), 2),
        "penalty": penalty,
        "relative residual of CG-SENSE": round(noise, 4),
        "seconds": {"ESPIRiT": seconds, "CG-SENSE": sense_seconds},
        "pixels with a map": round(float((maps.abs().sum(0) > 0).double().mean()), 3),
    }
    for name, image in images.items():
        if name != "reference":
            report[name] = figures(image, reference)
    return report, images


def single_coil(kspace: Tensor, mask: Tensor) -> tuple[dict[str, object], dict[str, Tensor]]:
    A = fm.MRI(mask)
    reference = fm.to_image(kspace[None, None])
    image = A.adjoint(A(reference))
    report: dict[str, object] = {
        "acceleration": round(fm.acceleration(mask), 2),
        "zero-filled": figures(image, reference),
    }
    return report, {"reference": reference, "zero-filled": image}


def draw(path: Path, images: dict[str, Tensor]) -> None:
    """Magnitudes in one row, their phases below."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(images), figsize=(4 * len(images), 8), squeeze=False)
    for (name, image), column in zip(images.items(), axes.T, strict=True):
        plane = image.squeeze()
        column[0].imshow(plane.abs(), cmap="gray", vmin=0)
        column[0].set_title(name)
        column[1].imshow(torch.angle(plane + 0j), cmap="twilight", vmin=-np.pi, vmax=np.pi)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the k-space files")
    parser.add_argument("--pictures", type=Path, help="folder for pictures; default none")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/brain.json")
    args = parser.parse_args()
    torch.set_num_threads(1)

    def load(name: str) -> dict[str, Tensor]:
        path = args.data / name
        if not path.is_file():
            parser.error(f"{path} is missing")
        with np.load(path) as file:
            return {key: torch.from_numpy(file[key]) for key in file}

    brain = load("kspace_brain8_bart_us_ref.npz")
    head = load("kspace_head16_96x96_full.npz")["kspace"]
    runs = {
        "brain, 8 coils, as measured": lambda: parallel_imaging(
            brain["kspace"], brain["mask"], 20, brain["ref_image"]
        ),
        "head, 16 coils, Poisson disc": lambda: parallel_imaging(
            head, fm.poisson_disc_mask((96, 96), 6, 20, generator=rng()), 20, None
        ),
        "head, 16 coils, every third line": lambda: parallel_imaging(
            head, fm.equispaced_lines(96, 3, 20), 20, None
        ),
    }
    single = load("kspace_single_rad229.npz")
    for name in ("brain512", "knee256"):
        kspace = single[name]
        lines = fm.gaussian_lines(kspace.shape[1], 4, 24, generator=rng())
        runs[f"{name}, one coil, Gaussian lines"] = lambda kspace=kspace, lines=lines: single_coil(
            kspace, lines
        )
    reports = {}
    for name, run in runs.items():
        reports[name], images = run()
        print(name, json.dumps(reports[name], indent=1))
        if args.pictures is not None:
            args.pictures.mkdir(parents=True, exist_ok=True)
            draw(args.pictures / f"{name.replace(', ', '_').replace(' ', '-')}.png", images)
    args.output.write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
