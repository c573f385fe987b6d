"""Parallel-beam CT: time of one forward projection and of one exact adjoint, against peers.

    python benchmarks/tomography.py --size 256 --angles 60 180 --batch 1 8

Every figure is the median wall time over interleaved repeats: each repeat runs every projector
once, so that a busy machine slows all of them alike. scikit-image's back-projection (iradon without
a filter) is not the adjoint of its projection; it is listed as such. Peers that are not installed
are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import forward_models as fm

Projector = tuple[Callable[[Tensor], object], Callable[[Tensor], object]]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ours(size: int, angles: Tensor) -> tuple[float, fm.Tomography]:
    """Build time in s of the operator (the transpose included), and the operator."""
    start = time.perf_counter()
    A = fm.Tomography((size, size), angles, cache=False)
    A.adjoint(A(torch.zeros(1, 1, size, size)))
    return time.perf_counter() - start, A


def deepinv(size: int, angles: Tensor) -> tuple[float, Projector] | None:
    try:
        from deepinv.physics import Tomography
    except ImportError:
        return None
    start = time.perf_counter()
    other = Tomography(angles=angles, img_width=size, circle=False, normalize=False)
    other.A_adjoint(other.A(torch.zeros(1, 1, size, size)))
    return time.perf_counter() - start, (
        lambda x: other.A(x),
        lambda y: other.A_adjoint(y.mT.contiguous()),
    )


def scikit_image(size: int, angles: Tensor) -> Projector:
    from skimage.transform import iradon, radon

    theta = angles.numpy()
    return (
        lambda x: [radon(v[0], theta, circle=False) for v in x.numpy()],
        lambda y: [
            iradon(v[0].T, theta, filter_name=None, circle=False, output_size=size)
            for v in y.numpy()
        ],
    )


def measure(size: int, count: int, batches: list[int], repeats: int) -> list[dict[str, object]]:
    angles = torch.arange(count, dtype=torch.float64) * 180 / count
    build, A = ours(size, angles.float())
    projectors: dict[str, Projector] = {"ours": (A, A.adjoint)}
    builds = {"ours": build}
    peer = deepinv(size, angles.float())
    if peer is not None:
        builds["deepinv"], projectors["deepinv"] = peer
    projectors["scikit-image"] = scikit_image(size, angles.float())
    rows: list[dict[str, object]] = []
    for batch in batches:
        x = torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(0))
        y = A(x)
        times: dict[tuple[str, str], list[float]] = {}
        for repeat in range(repeats + 1):
            for name, (forward, adjoint) in projectors.items():
                for kind, run, value in (("forward", forward, x), ("adjoint", adjoint, y)):
                    spent = seconds(lambda run=run, value=value: run(value))
                    if repeat:  # the first round warms up
                        times.setdefault((name, kind), []).append(spent)
        for (name, kind), spent in times.items():
            median = statistics.median(spent)
            base = statistics.median(times["ours", kind])
            row = {
                "size": size, "angles": count, "batch": batch, "projector": name, "kind": kind,
                "median_ms": round(1e3 * median, 2), "fastest_ms": round(1e3 * min(spent), 2),
                "times_ours": round(median / base, 1),
                "times_ours_fastest": round(min(spent) / min(times["ours", kind]), 1),
                "build_s": round(builds[name], 2) if name in builds else None,
            }  # fmt: skip
            rows.append(row)
            print(
                f"{size}^2 x {count:3d}  batch {batch}  {kind:8s} {name:13s}"
                f" {row['median_ms']:>9} ms  x{row['times_ours']:<7}"
                f" (fastest {row['fastest_ms']:>8} ms, x{row['times_ours_fastest']})",
                flush=True,
            )
    for name, value in builds.items():
        print(f"{size}^2 x {count:3d}  build {name}: {value:.2f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--angles", type=int, nargs="+", default=[60, 180])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with torch.no_grad():
        for count in options.angles:
            rows += measure(options.size, count, options.batch, options.repeats)
    report = {
        "torch": torch.__version__, "threads": options.threads, "repeats": options.repeats,
        "machine": platform.machine(), "cores": os.cpu_count(),
        "load_average": [round(v, 2) for v in os.getloadavg()], "rows": rows,
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "tomography.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
