"""Measured fan-beam data: the classical reconstructions against hand-checked segmentations.

    python benchmarks/helsinki.py --data FOLDER --pictures OTHER_FOLDER

FOLDER holds htc2022_fanbeam.npz: sinograms of the Helsinki Tomography Challenge 2022
(https://zenodo.org/records/8041800, CC BY 4.0) and segmentations of 512 x 512 pixels of 0.14832 mm.
Target ta is seen over 151 degrees, tc, td and the solid disc over 30 degrees: sparse data and
limited-angle data. Score: that of the challenge, the Matthews correlation of the reconstruction,
thresholded by Otsu's method, with the segmentation; 1 is perfect. The disc comes without one.

The matrix of 512^2 pixels has about 1.3 * 512^2 entries per view and needs up to 28 bytes for
each. Where that exceeds --budget, pixels are twice as large, and the segmentation is halved.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import forward_models as fm

SCANS = ("ta", "tc", "td", "disc")
FULL, PIXEL = 512, 0.14832
GEOMETRY = {
    "source_origin": 410.66, "source_detector": 553.74, "detectors": 560, "detector_spacing": 0.2
}  # fmt: skip


def image_size(views: int, budget: float) -> int:
    """Pixels along a side: 512, or 256 if the matrix would not fit into the budget in bytes."""
    ray_spacing = GEOMETRY["detector_spacing"] * (
        GEOMETRY["source_origin"] / GEOMETRY["source_detector"]
    )
    entries = 4 / np.pi * views * FULL**2 * PIXEL / ray_spacing
    return FULL if 28 * entries <= budget else FULL // 2


def score(reconstruction: NDArray, segmentation: NDArray) -> float:
    """Matthews correlation of what lies above Otsu's threshold with the segmentation."""
    from skimage.filters import threshold_otsu

    found = reconstruction > threshold_otsu(reconstruction)
    both, neither = np.sum(found & segmentation), np.sum(~found & ~segmentation)
    extra, missed = np.sum(found & ~segmentation), np.sum(~found & segmentation)
    sides = (both + extra, both + missed, neither + extra, neither + missed)
    return float((both * neither - extra * missed) / np.sqrt(np.prod(np.array(sides, float))))


def reconstruct(A: fm.FanBeam, y: Tensor) -> dict[str, tuple[Tensor, float]]:
    """Every method's image and its CPU time in s; the matrix and its transpose are ready before."""
    A.adjoint(A(torch.zeros(1, *A.event_shape)))
    methods = {
        "FBP, ramp": lambda: fm.fbp(A, y),
        "FBP, Hann": lambda: fm.fbp(A, y, "hann"),
        "CGLS, 20 iterations": lambda: fm.cgls(A, y, 20)[0],
        "SIRT, 200 iterations": lambda: fm.sirt(A, y, 200)[0],
        "SIRT >= 0, 200 iterations": lambda: fm.sirt(A, y, 200, nonnegative=True)[0],
    }
    found = {}
    for name, method in methods.items():
        start = time.process_time()
        image = method()
        found[name] = (image, time.process_time() - start)
    return found


def picture(path: Path, images: dict[str, NDArray], segmentation: NDArray | None) -> None:
    from matplotlib.figure import Figure

    columns = len(images) + (segmentation is not None)
    figure = Figure(figsize=(3 * columns, 3.3), layout="constrained")
    axes = figure.subplots(1, columns)
    top = max(float(np.percentile(image, 99.5)) for image in images.values())
    for axis, (name, image) in zip(axes, images.items(), strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=top)
        axis.set_title(name, fontsize=9)
    if segmentation is not None:
        axes[-1].imshow(segmentation, cmap="gray")
        axes[-1].set_title("segmentation", fontsize=9)
    for axis in axes:
        axis.axis("off")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of htc2022_fanbeam.npz")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures; none without it")
    parser.add_argument("--budget", type=float, default=3.0, help="memory in GB; default 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = options.data / "htc2022_fanbeam.npz"
    if not path.is_file():
        parser.error(f"{path} is missing; --data names the folder that holds it")
    rows = []
    with np.load(path, allow_pickle=False) as data, torch.no_grad():
        for scan in SCANS:
            y = torch.from_numpy(data[f"{scan}_sino"]).float()[None, None]
            side = image_size(y.shape[2], 1e9 * options.budget)
            A = fm.FanBeam(
                (side, side), data[f"{scan}_ang"], pixel_spacing=PIXEL * FULL / side,
                cache=False, **GEOMETRY,
            )  # fmt: skip
            truth = data.get(f"{scan}_seg")
            if truth is not None:
                blocks = truth.reshape(side, FULL // side, side, FULL // side)
                truth = blocks.mean((1, 3)) >= 0.5
            found = reconstruct(A, y)
            for name, (image, spent) in found.items():
                row = {
                    "scan": scan, "views": y.shape[2], "size": side, "method": name,
                    "score": None if truth is None else round(score(image[0, 0].numpy(), truth), 4),
                    "residual": round(float((y - A(image)).norm() / y.norm()), 4),
                    "cpu_s": round(spent, 2), "entries": A.matrix.values.numel(),
                }  # fmt: skip
                rows.append(row)
                print(
                    f"{scan:4s} {side}^2 x {y.shape[2]:3d}  {name:26s} score {row['score']!s:7s}"
                    f" residual {row['residual']:.4f}  {row['cpu_s']:.2f} s of CPU time",
                    flush=True,
                )
            if options.pictures is not None:
                options.pictures.mkdir(parents=True, exist_ok=True)
                images = {name: image[0, 0].numpy() for name, (image, _) in found.items()}
                picture(options.pictures / f"helsinki_{scan}.png", images, truth)
    options.out.mkdir(parents=True, exist_ok=True)
    report = {
        "torch": torch.__version__, "threads": options.threads, "cores": os.cpu_count(),
        "load_average": [round(v, 2) for v in os.getloadavg()], "rows": rows,
    }  # fmt: skip
    text = json.dumps(report, indent=1) + "\n"
    (options.out / "helsinki.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
