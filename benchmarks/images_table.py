"""The figures of images.py as a table in Markdown: methods by kinds of problems.

    python benchmarks/images_table.py [--setting full] [--all]

PSNR (dB) of the mean of the samples, averaged over the problems of a kind; then, over the linear
problems of the digits, whose truths are draws of the prior: coverage of 90 % intervals and seconds
over those of `mpgd` (of `ddrm` in the full setting, which has no `mpgd`). Of the classical answers,
and of each peer's methods, the best in each problem, by the truth. By default the methods that are
among the best five of some kind.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from images import RESULTS

KINDS = {
    "digits: inpainting": ["digits: inpainting, box", "digits: inpainting, random"],
    "deblurring": ["digits: deblurring, Gaussian", "digits: deblurring, motion"],
    "x4": ["digits: super-resolution x4"],
    "photographs: inpainting": ["photographs: inpainting, box", "photographs: inpainting, random"],
    "deblurring ": ["photographs: deblurring, Gaussian", "photographs: deblurring, motion"],
    "x4 ": ["photographs: super-resolution x4"],
    "CT": ["ct: 23 views", "ct: 90 degrees", "ct: low dose"],
    "MRI": ["mri: x4"],
    "HDR": ["digits: HDR", "photographs: HDR"],
    "phase": ["digits: phase retrieval", "photographs: phase retrieval"],
}
CLASSICAL = {"FBP", "TV", "Wiener", "bicubic", "biharmonic", "zero-filled", "clipped / 2"}
LINEAR_DIGITS = [p for kind in list(KINDS)[:3] for p in KINDS[kind]]

Cells = dict[str, dict[str, dict[str, Any]]]


def mean(cells: Cells, problems: list[str], method: str, figure: str) -> float:
    """NaN unless the method ran on all of the problems."""
    runs = [cells.get(p, {}).get(method, {}) for p in problems]
    values = [run.get(figure, math.nan) for run in runs]
    return math.nan if any(run.get("failed") for run in runs) else sum(values) / len(values)


def with_best(cells: Cells, name: str, methods: set[str]) -> Cells:
    """Cells in which `name` is the best of the methods, problem by problem."""
    found = {}
    for problem, runs in cells.items():
        known = [runs[m] for m in methods if "psnr" in runs.get(m, {})]
        best = max(known, key=lambda run: float(run["psnr"]), default={})
        found[problem] = {**runs, name: best}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--setting", choices=("small", "full"), default="small")
    parser.add_argument("--all", action="store_true", help="every method")
    options = parser.parse_args()
    cells: Cells = json.loads(RESULTS.read_text())[options.setting]
    names = {m for runs in cells.values() for m in runs} - CLASSICAL
    peers = {m for m in names if m.startswith(("deepinv", "azula"))}
    cells = with_best(cells, "best classical", CLASSICAL)
    for library in ("deepinv", "azula"):
        cells = with_best(cells, f"best of {library}", {m for m in peers if library in m})
    table = {m: [mean(cells, p, m, "psnr") for p in KINDS.values()]
             for m in names - (set() if options.all else peers)}  # fmt: skip
    shown = set(table)
    if not options.all:
        best = [sorted((m for m in table if not math.isnan(table[m][i])),
                       key=lambda m: -table[m][i])[:5] for i in range(len(KINDS))]  # fmt: skip
        shown = {m for names in best for m in names}
    order = sorted(shown, key=lambda m: -sum(v for v in table[m] if not math.isnan(v)))
    rows = ["best classical", *order, *(f"best of {x}" for x in ("deepinv", "azula"))]
    heads = ["", *KINDS, "coverage", "time"]
    print("| " + " | ".join(h.strip() for h in heads) + " |")
    print("|" + "---|" * len(heads))
    unit = "mpgd" if options.setting == "small" else "ddrm"
    pace = mean(cells, LINEAR_DIGITS, unit, "seconds")
    for row in rows:
        values = [mean(cells, p, row, "psnr") for p in KINDS.values()]
        texts = ["–" if math.isnan(v) else f"{v:.1f}" for v in values]
        for figure, unit in (("coverage", 1.0), ("seconds", pace)):
            value = mean(cells, LINEAR_DIGITS, row, figure) / unit
            texts.append("–" if math.isnan(value) else f"{value:.2f}".lstrip("0"))
        name = row if row.startswith("best") else f"`{row}`"
        print(f"| {name} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    main()
