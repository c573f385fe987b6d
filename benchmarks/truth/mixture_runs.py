"""Runs of the mixture benchmark: kept line by line, judged, and summarised in a table."""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from mixture_problem import CELLS, Cell, Problem, judge, problem
from torch import Tensor

RESULTS = Path(__file__).parents[1] / "results" / "mixture.json"


@dataclass(frozen=True)
class Drawn:
    """What a method returned and cost: samples (n, d), weights (n,) or None, processor seconds."""

    x: Tensor
    weights: Tensor | None
    calls: int = 0
    products: int = 0
    seconds: float = 0.0
    network_seconds: float = 0.0


def parse_cell(text: str) -> Cell:
    d, m, *sigma_y = text.split(",")
    return (int(d), int(m), float(sigma_y[0])) if sigma_y else (int(d), int(m))


def cell_of(row: dict[str, Any]) -> Cell:
    both = row["d"], row["m"]
    return (*both, row["sigma_y"]) if "sigma_y" in row else both


class Runs:
    """One JSON line per cell, method and seed; a run that is there is not run again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._done = {(cell_of(r), r["method"], r["seed"]) for r in self.rows}
        self._problem: Problem | None = None

    def add(
        self, cell: Cell, method: str, seed: int, run: Callable[[Problem], Drawn], **facts: str
    ) -> None:
        if (cell, method, seed) in self._done:
            return
        p = self._problem
        if p is None or (p.cell, p.seed) != (cell, seed):
            p = self._problem = problem(cell, seed)
        where = dict(zip(("d", "m", "sigma_y"), cell, strict=False))
        row: dict[str, Any] = {**where, "method": method, "seed": seed, **facts}
        try:
            found = run(p)
        except (ArithmeticError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            row["error"] = f"{type(error).__name__}: {error}"[:200]
        else:
            row |= judge(p, found.x, found.weights)
            row |= {
                "calls": found.calls, "products": found.products,
                "seconds": found.seconds, "network_seconds": found.network_seconds,
            }  # fmt: skip
        self.rows.append(row)
        self._done.add((cell, method, seed))
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def cell(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """Summary of each method in a cell; excess: of sw over the floor of the same seed."""
        rows = [r for r in self.rows if cell_of(r) == cell]
        names = dict.fromkeys(r["method"] for r in rows)
        floor = {r["seed"]: r["sw"] for r in rows if r["method"] == "floor"}
        rows = [
            r | {"excess": r["sw"] - floor[r["seed"]]} if "sw" in r and r["seed"] in floor else r
            for r in rows
        ]
        return {name: summary([r for r in rows if r["method"] == name]) for name in names}

    def summarise(self, out: Path) -> None:
        cells = dict.fromkeys(cell_of(r) for r in self.rows)
        found = {
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "samples": 1000,
            "cells": {",".join(map(str, cell)): self.cell(cell) for cell in sorted(cells)},
        }
        out.write_text(json.dumps(found, indent=1) + "\n")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the seeds that ran, and 1.96 standard errors of the mean."""
    facts = {k: rows[0][k] for k in ("library", "settings") if k in rows[0]}
    failed = [r["error"] for r in rows if "error" in r]
    ran = [r for r in rows if "error" not in r]
    lost = [r for r in ran if math.isnan(r["sw"])]
    good = [r for r in ran if not math.isnan(r["sw"])]
    found: dict[str, Any] = {**facts, "seeds": len(good)}
    if failed:
        found |= {"failed": len(failed), "error": failed[0]}
    if lost:
        found["not_finite"] = len(lost)
    if not good:
        return found
    for key in ("sw", "excess", "tv", "coverage"):
        values = torch.tensor([r[key] for r in good if key in r], dtype=torch.float64)
        if not len(values):
            continue
        spread = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        found[key] = [round(float(values.mean()), 4), round(1.96 * spread, 4)]
    for key in ("chi2", "ess", "calls", "products", "seconds", "network_seconds"):
        found[key] = round(median(r[key] for r in good), 4)
    return found


def report(runs: Runs, cell: Cell) -> str:
    """The table of a cell, as Markdown; seconds are of the processor, per network call."""
    d, m, *sigma_y = cell
    lines = [
        f"\nd = {d}, {m} values measured{f', sigma_y = {sigma_y[0]}' if sigma_y else ''}\n",
        "| method | seeds | SW1 | mode TV | chi2 | 90 % holds | calls | s | ms / call |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, f in runs.cell(cell).items():
        if "sw" not in f:
            lines.append(f"| {name} | 0 | {f.get('error', 'not finite')} | | | | | | |")
            continue
        per_call = 1e3 * f["seconds"] / f["calls"] if f["calls"] else 0.0
        sw, tv, hold = (f"{f[k][0]:.2f}±{f[k][1]:.2f}" for k in ("sw", "tv", "coverage"))
        lines.append(
            f"| {name} | {f['seeds']} | {sw} | {tv} | {f['chi2']:.3g} | {hold} "
            f"| {f['calls']:.0f} | {f['seconds']:.2f} | {per_call:.2f} |"
        )
    return "\n".join(lines)


class Entry(NamedTuple):
    """A method of the benchmark, and what its row says of it."""

    run: Callable[[Problem], Drawn]
    facts: dict[str, str]


def main(known: dict[str, Entry], description: str) -> None:
    """Runs what the command line asks for, prints a table a cell, and writes the summary."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cells", nargs="+", type=parse_cell, default=CELLS, help="d,m[,sigma_y]")
    parser.add_argument("--methods", nargs="+", choices=known, metavar="NAME", default=list(known))
    parser.add_argument("--seeds", type=int, default=20, help="seeds 0 to this")
    kept = Path(tempfile.gettempdir()) / "mixture.jsonl"
    parser.add_argument("--runs", type=Path, default=kept, help="the file of runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the summary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(options.runs)
    for cell in options.cells:
        for seed in range(options.seeds):
            for name in options.methods:
                runs.add(cell, name, seed, known[name].run, **known[name].facts)
        print(report(runs, cell), flush=True)
    runs.summarise(options.out)
