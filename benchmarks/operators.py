"""Every operator against its peers: time of one forward and one adjoint product, and memory.

    python benchmarks/operators.py --size 256 512 --batch 1 8

The list of operators and peers is `operator_pairs.py`; CT has a benchmark of its own,
`tomography.py`. Times are medians over interleaved repeats (each repeat runs ours and every peer
once, so that a busy machine slows all alike), on one thread unless --threads says otherwise.
"Memory" is how far the peak of the process rises above its level before the call, ours and peers
each in a process of its own whose allocator gives freed memory back at once. For nonlinear
operators "adjoint" is the gradient of |f(x)|^2, evaluation included. Peers that are not installed
are left out. Ratios are peer over ours: above 1 ours is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from operator_pairs import PAIRS, Pair, Projector, with_gradient
from torch import Tensor

from forward_models import LinearOperator

HERE = Path(__file__).parent


def contender(pair: Pair, who: str, size: int) -> Projector | None:
    """Ours or a peer's, None where that is not installed."""
    ours = pair.make(size)
    if who == "ours":
        linear = isinstance(ours, LinearOperator)
        return (ours, ours.adjoint) if linear else with_gradient(ours)
    try:
        return pair.peers[who](size, ours)
    except ImportError:
        return None


def inputs(pair: Pair, size: int, batch: int) -> tuple[Tensor, Tensor]:
    """An image, and what the second product is taken of: our measurement, or the image again."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.complex64 if pair.complex else torch.float32
    shape = pair.shape(size)
    x = torch.randn(batch, *shape, generator=generator, dtype=dtype)
    ours = pair.make(size)
    return x, ours(x) if isinstance(ours, LinearOperator) else x


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(pair: Pair, size: int, batch: int, repeats: int) -> list[dict[str, object]]:
    found = {who: contender(pair, who, size) for who in ("ours", *pair.peers)}
    everyone = {who: projector for who, projector in found.items() if projector is not None}
    x, y = inputs(pair, size, batch)
    times: dict[tuple[str, str], list[float]] = {}
    for repeat in range(repeats + 1):
        for name, (forward, adjoint) in everyone.items():
            for kind, run, value in (("forward", forward, x), ("adjoint", adjoint, y)):
                if run is None:
                    continue
                spent = timed(partial(run, value))
                if repeat:  # the first round warms up
                    times.setdefault((name, kind), []).append(spent)
    rows: list[dict[str, object]] = []
    for kind in ("forward", "adjoint"):
        row: dict[str, object] = {
            "operator": pair.name, "size": size, "batch": batch, "kind": kind,
        }  # fmt: skip
        base = statistics.median(times["ours", kind])
        for name in everyone:
            if (name, kind) not in times:
                continue
            value = statistics.median(times[name, kind])
            row[f"{name}_ms"] = round(1e3 * value, 3)
            if name != "ours":
                row[f"{name}_over_ours"] = round(value / base, 2)
        rows.append(row)
    return rows


def peak_rise(run: Callable[[], object]) -> float:
    """MiB by which the resident memory rises above its level before the call."""

    def status(field: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        raise RuntimeError(f"this system does not report {field}")

    run()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024


def report_memory(name: str, who: str, sizes: list[int], batches: list[int]) -> None:
    """Print the rise for every size, batch and kind of product, as JSON; run in its own process."""
    pair = next(p for p in PAIRS if p.name == name)
    rise: dict[str, float] = {}
    for size in sizes:
        projector = contender(pair, who, size)
        if projector is None:
            break
        forward, adjoint = projector
        for batch in batches:
            x, y = inputs(pair, size, batch)
            rise[f"{size} {batch} forward"] = round(peak_rise(partial(forward, x)), 1)
            if adjoint is not None:
                rise[f"{size} {batch} adjoint"] = round(peak_rise(partial(adjoint, y)), 1)
    print(json.dumps(rise))


def memory(pair: Pair, sizes: list[int], batches: list[int], rows: list[dict[str, object]]) -> None:
    """Add the memory of ours and every peer to the rows of this pair."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    for who in ("ours", *pair.peers):
        command = [sys.executable, __file__, "--memory-of", pair.name, who]
        command += ["--size", *map(str, sizes), "--batch", *map(str, batches)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"  memory of {who}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            continue
        rise = json.loads(done.stdout.strip().splitlines()[-1])
        for row in rows:
            key = f"{row['size']} {row['batch']} {row['kind']}"
            if key in rise:
                row[f"{who}_mib"] = rise[key]


def show(row: dict[str, object]) -> None:
    peers = [key[: -len("_over_ours")] for key in row if key.endswith("_over_ours")]
    line = f"{row['operator']!s:26s} {row['size']}^2 x{row['batch']} {row['kind']!s:8s}"
    line += f" {row['ours_ms']:>9} ms {row.get('ours_mib', ''):>7} MiB"
    for peer in peers:
        line += f"   {peer} {row[peer + '_over_ours']:>6}x {row.get(peer + '_mib', ''):>7} MiB"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--only", nargs="+", help="names of operators, or beginnings of them")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    if options.memory_of:
        report_memory(*options.memory_of, options.size, options.batch)
        return
    chosen = [p for p in PAIRS if not options.only or p.name.startswith(tuple(options.only))]
    rows: list[dict[str, object]] = []
    for pair in chosen:
        added = []
        for size in options.size:
            for batch in options.batch:
                added += measure(pair, size, batch, options.repeats)
        if not options.no_memory:
            memory(pair, options.size, options.batch, added)
        for row in added:
            show(row)
        rows += added
    report = {
        "torch": torch.__version__, "threads": options.threads, "repeats": options.repeats,
        "machine": platform.machine(), "cores": os.cpu_count(),
        "load_average": [round(v, 2) for v in os.getloadavg()],
        "notes": {pair.name: pair.note for pair in chosen if pair.note}, "rows": rows,
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.only:
        path = options.out / "operators.json"
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
