"""Draw the mixture benchmark: excess of each method's distance over the floor, by dimension.

    python benchmarks/truth mixture_figure

Of the first protocol. Reads benchmarks/results/distances.json, writes mixture.png beside it.
Excesses below 0.01 are drawn there; methods by their mean in the smallest dimension.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib
from distance_summary import RESULTS

LEAST = 0.01
COLOURS = {"reference": "tab:gray", "deepinv": "tab:orange", "azula": "tab:green"}
OURS = "tab:blue"


def excess(cell: dict[str, Any], name: str) -> float | None:
    found = cell.get(name, {})
    return None if "excess" not in found else max(found["excess"][0], LEAST)


def draw(results: dict[str, Any], path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells = {
        key.removeprefix("mixture "): cell
        for key, cell in results["problems"].items()
        if key.startswith("mixture ")
    }
    dimensions = sorted({int(key.split(",")[0]) for key in cells})
    first = [cell for key, cell in cells.items() if key.startswith(f"{dimensions[0]},")]
    mean = {}
    for name in {name for cell in first for name in cell} - {"floor"}:
        values = [math.log(v) for v in (excess(cell, name) for cell in first) if v is not None]
        if values:
            mean[name] = sum(values) / len(values)
    order = sorted(mean, key=lambda name: -mean[name])
    figure, panels = plt.subplots(
        1, len(dimensions), sharex=True, sharey=True, squeeze=False,
        figsize=(3 + 3.2 * len(dimensions), 1.2 + 0.2 * len(order)),
    )  # fmt: skip
    for panel, d in zip(panels[0], dimensions, strict=True):
        for marker, m in zip("os^", (1, 2, 4), strict=True):
            cell = cells.get(f"{d},{m}", {})
            for row, name in enumerate(order):
                value = excess(cell, name) if cell else None
                if value is not None:
                    colour = COLOURS.get(name.split()[0].rstrip(":"), OURS)
                    panel.plot(value, row, marker, color=colour, ms=5, mfc="none")
            panel.plot([], [], marker, color="black", mfc="none", label=f"{m} measured")
        panel.set_xscale("log")
        panel.set_title(f"d = {d}")
        panel.set_xlabel("sliced W1 above the floor")
        panel.axvline(0.15, color="black", lw=0.6, ls=":")
        panel.grid(axis="y", lw=0.3)
    panels[0][0].set_yticks(range(len(order)), order, fontsize=7)
    panels[0][-1].legend(fontsize=7, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text()), RESULTS.with_name("mixture.png"))
