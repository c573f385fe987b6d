"""Parallel-beam CT: time of one forward projection and of one exact adjoint, against peers.

    python benchmarks/tomography.py --size 256 --angles 60 180 --batch 1 8

Every figure is a median over interleaved repeats: each repeat runs every projector once, so that a
busy machine slows all of them alike. The ratios are of CPU time (all threads of the process), which
other processes disturb less than wall time; with one thread, the default, an idle machine shows the
same for both. scikit-image's back-projection (iradon without
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


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """CPU time and wall time of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def ours(size: int, angles: Tensor) -> tuple[float, fm.Tomography]:
    """CPU time in s to build the operator (the transpose included), and the operator."""
    start = time.process_time()
    A = fm.Tomography((size, size), angles, cache=False)
    A.adjoint(A(torch.zeros(1, 1, size, size)))
    return time.process_time() - start, A


def deepinv(size: int, angles: Tensor) -> tuple[float, Projector] | None:
    try:
        from deepinv.physics import Tomography
    except ImportError:
        return None
    start = time.process_time()
    other = Tomography(angles=angles, img_width=size, circle=False, normalize=False)
    other.A_adjoint(other.A(torch.zeros(1, 1, size, size)))
    return time.process_time() - start, (
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
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for repeat in range(repeats + 1):
            for name, (forward, adjoint) in projectors.items():
                for kind, run, value in (("forward", forward, x), ("adjoint", adjoint, y)):
                    spent = seconds(lambda run=run, value=value: run(value))
                    if repeat:  # the first round warms up
                        times.setdefault((name, kind), []).append(spent)
        for (name, kind), spent in times.items():
            cpu, wall = (statistics.median(column) for column in zip(*spent, strict=True))
            base = statistics.median(pair[0] for pair in times["ours", kind])
            row = {
                "size": size, "angles": count, "batch": batch, "projector": name, "kind": kind,
                "cpu_ms": round(1e3 * cpu, 2), "wall_ms": round(1e3 * wall, 2),
                "cpu_over_ours": round(cpu / base, 1),
                "build_cpu_s": round(builds[name], 2) if name in builds else None,
            }  # fmt: skip
            rows.append(row)
            print(
                f"{size}^2 x {count:3d}  batch {batch}  {kind:8s} {name:13s}"
                f" cpu {row['cpu_ms']:>8} ms  x{row['cpu_over_ours']:<6}"
                f" wall {row['wall_ms']:>8} ms",
                flush=True,
            )
    for name, value in builds.items():
        print(f"{size}^2 x {count:3d}  build {name}: {value:.2f} s of CPU time", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--angles", type=int, nargs="+", default=[60, 180])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
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
