"""Parallel- and fan-beam CT: time of a forward projection and of its exact adjoint, against peers.

    python benchmarks/tomography.py --size 256 --angles 60 180 --batch 1 8 --beam parallel fan

Every figure is a median over interleaved repeats: each repeat runs every projector once, so that a
busy machine slows all of them alike. Both CPU time (all threads of the process), which other
processes disturb less, and wall time are given. Every projector sees the same views, the same
number of bins and the same distances; the fan has its source at two image sides from the axis, its
detector at four from the source, and bins of two pixels. deepinv's fan turns with a lag of 90
degrees. scikit-image's back-projection (iradon without a filter) is not the adjoint of its
projection; it is listed as such, and has no fan. Peers that are not installed are left out:
deepinv, scikit-image, ASTRA (its CPU line projectors, batch by loop).

Memory, in MiB: of our matrices, both directions; and how far the peak resident size of a fresh
process grows while a projector is built and used in both directions, at batch 1.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import forward_models as fm

Run = Callable[[Tensor], object]


class Projector(NamedTuple):
    """A projector and how to hand it our sinograms (B, 1, A, J)."""

    forward: Run
    adjoint: Run
    matrix_mib: float | None = None


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """CPU time and wall time of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def fan_options(size: int) -> dict[str, float]:
    return {
        "source_origin": 2.0 * size, "source_detector": 4.0 * size, "detector_spacing": 2.0,
        "detectors": math.ceil(math.sqrt(2) * size),
    }  # fmt: skip


def ours(beam: str, size: int, angles: Tensor) -> Projector:
    A: fm.LinearOperator
    if beam == "fan":
        A = fm.FanBeam((size, size), angles, cache=False, **fan_options(size))
    else:
        A = fm.Tomography((size, size), angles, cache=False)
    # Both directions in single precision, values and columns, beside the master in double.
    return Projector(A, A.adjoint, A.matrix.values.numel() * 24 / 2**20)


def deepinv(beam: str, size: int, angles: Tensor) -> Projector:
    from deepinv.physics import Tomography

    if beam == "fan":
        options = fan_options(size)
        other = Tomography(
            angles=angles + 90, img_width=size, fan_beam=True, normalize=False,
            fan_parameters={
                "pixel_spacing": 1.0, "source_radius": options["source_origin"],
                "detector_radius": options["source_detector"] - options["source_origin"],
                "n_detector_pixels": options["detectors"],
                "detector_spacing": options["detector_spacing"],
            },
        )  # fmt: skip
    else:
        other = Tomography(angles=angles, img_width=size, circle=False, normalize=False)
    return Projector(lambda x: other.A(x), lambda y: other.A_adjoint(y.mT.contiguous()))


def scikit_image(beam: str, size: int, angles: Tensor) -> Projector:
    from skimage.transform import iradon, radon

    if beam == "fan":
        raise ImportError("scikit-image has no fan beam")
    theta = angles.numpy()
    return Projector(
        lambda x: [radon(v[0], theta, circle=False) for v in x.numpy()],
        lambda y: [
            iradon(v[0].T, theta, filter_name=None, circle=False, output_size=size)
            for v in y.numpy()
        ],
    )


def astra(beam: str, size: int, angles: Tensor) -> Projector:
    import astra as toolbox

    theta = torch.deg2rad(angles).double().numpy()
    options = fan_options(size)
    if beam == "fan":
        R, D = options["source_origin"], options["source_detector"]
        rays = toolbox.create_proj_geom(
            "fanflat", options["detector_spacing"], options["detectors"], theta, R, D - R
        )
    else:
        rays = toolbox.create_proj_geom("parallel", 1.0, options["detectors"], theta)
    pixels = toolbox.create_vol_geom(size, size)
    kind = "line_fanflat" if beam == "fan" else "line"
    A = toolbox.optomo.OpTomo(toolbox.create_projector(kind, rays, pixels))
    return Projector(
        lambda x: [A.FP(v[0]) for v in x.numpy()], lambda y: [A.BP(v[0]) for v in y.numpy()]
    )


MAKERS = {"ours": ours, "deepinv": deepinv, "scikit-image": scikit_image, "astra": astra}


def bins(size: int) -> int:
    return int(fan_options(size)["detectors"])


def peak_kib() -> int:
    """Largest resident size of this process; getrusage would count that of its parent, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def peak_growth(name: str, beam: str, size: int, count: int) -> int | None:
    """In MiB, for a process that has done nothing else; None where the system does not tell."""
    if not Path("/proc/self/status").exists():
        return None
    torch.set_grad_enabled(False)
    x, y = torch.zeros(1, 1, size, size), torch.zeros(1, 1, count, bins(size))
    small = MAKERS[name](beam, 8, view_angles(beam, 2))  # imports
    small.forward(torch.zeros(1, 1, 8, 8))
    before = peak_kib()
    projector = MAKERS[name](beam, size, view_angles(beam, count))
    projector.forward(x)
    projector.adjoint(y)
    return round((peak_kib() - before) / 1024)


def view_angles(beam: str, count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32) * (360 if beam == "fan" else 180) / count


def measure(
    beam: str, size: int, count: int, batches: list[int], repeats: int
) -> list[dict[str, object]]:
    angles = view_angles(beam, count)
    projectors: dict[str, Projector] = {}
    facts: dict[str, dict[str, object]] = {}
    for name, maker in MAKERS.items():
        cpu = time.process_time()
        try:
            projector = maker(beam, size, angles)
        except ImportError:
            continue
        projector.forward(torch.zeros(1, 1, size, size))
        projector.adjoint(torch.zeros(1, 1, count, bins(size)))
        cpu = time.process_time() - cpu
        projectors[name] = projector
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            growth = fresh.apply(peak_growth, (name, beam, size, count))
        facts[name] = {
            "build_cpu_s": round(cpu, 2),
            "matrix_mib": projector.matrix_mib and round(projector.matrix_mib),
            "peak_growth_mib": growth,
        }
        print(f"{beam} {size}^2 x {count}  {name}: {facts[name]}", flush=True)
    rows: list[dict[str, object]] = []
    for batch in batches:
        x = torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(0))
        y = torch.rand(batch, 1, count, bins(size), generator=torch.Generator().manual_seed(1))
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for repeat in range(repeats + 1):
            for name, projector in projectors.items():
                for kind, run, value in (
                    ("forward", projector.forward, x), ("adjoint", projector.adjoint, y)
                ):  # fmt: skip
                    spent = seconds(lambda run=run, value=value: run(value))
                    if repeat:  # the first round warms up
                        times.setdefault((name, kind), []).append(spent)
        medians = {
            key: [statistics.median(column) for column in zip(*spent, strict=True)]
            for key, spent in times.items()
        }
        for (name, kind), (cpu, wall) in medians.items():
            base = medians["ours", kind]
            row = {
                "beam": beam, "size": size, "angles": count, "batch": batch, "projector": name,
                "kind": kind, "cpu_ms": round(1e3 * cpu, 2), "wall_ms": round(1e3 * wall, 2),
                "cpu_over_ours": round(cpu / base[0], 1),
                "wall_over_ours": round(wall / base[1], 1),
                **facts[name],
            }  # fmt: skip
            rows.append(row)
            print(
                f"{beam} {size}^2 x {count:3d}  batch {batch}  {kind:8s} {name:13s}"
                f" cpu {row['cpu_ms']:>8} ms  x{row['cpu_over_ours']:<6}"
                f" wall {row['wall_ms']:>8} ms  x{row['wall_over_ours']}",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[256])
    parser.add_argument("--angles", type=int, nargs="+", default=[60, 180])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--beam", nargs="+", choices=["parallel", "fan"], default=["parallel", "fan"]
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with torch.no_grad():
        for beam in options.beam:
            for size in options.size:
                for count in options.angles:
                    rows += measure(beam, size, count, options.batch, options.repeats)
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
