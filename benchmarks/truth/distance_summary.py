"""Runs of distances.py as means over seeds: the entries of the results, and a table a problem."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from statistics import median
from typing import Any

import torch
from runs import locked, replace

RESULTS = Path(__file__).parents[1] / "results" / "distances.json"
MEANS = {
    "sw": "SW1", "excess": "excess", "tv": "mode TV", "coverage": "90 % holds", "rmse": "RMSE",
    "ksd": "KSD", "mean_error": "mean error", "variance": "variance",
}  # fmt: skip
"""Figures of which the mean over seeds counts, and their names in tables."""
MEDIANS = ("chi2", "ess", "calls", "products", "seconds", "network_seconds")
LEGEND = """\
Means over seeds, +- 1.96 standard errors (of one seed unknown). SW1: sliced W1 distance to exact
draws; excess: over that of as many exact draws (floor). Mode TV: total variation of the modes'
weights, 0 to 1. 90 % holds: exact draws within the samples' 90 % intervals. KSD: kernel score
discrepancy. Medians: chi2, the mean squared residual in units of the noise, about 1 for exact
draws; calls, network calls a sample; s, seconds of the processor for all samples."""
Row = dict[str, Any]


def entries(rows: list[Row], label: str) -> dict[str, Row]:
    """Summary of each method on a problem; excess: of sw over the floor of the same seed."""
    mine = [r for r in rows if r["problem"] == label]
    floor = {r["seed"]: r["sw"] for r in mine if r["method"] == "floor"}
    mine = [
        r | {"excess": r["sw"] - floor[r["seed"]]} if "sw" in r and r["seed"] in floor else r
        for r in mine
    ]
    names = dict.fromkeys(r["method"] for r in mine)
    return {name: entry([r for r in mine if r["method"] == name]) for name in names}


def entry(rows: list[Row]) -> Row:
    """Mean over the seeds that ran, and 1.96 standard errors of the mean."""
    failed = [r["error"] for r in rows if "error" in r]
    good = [r for r in rows if not math.isnan(r.get("sw", math.nan))]
    lost = len(rows) - len(failed) - len(good)
    found: Row = {k: rows[0][k] for k in ("library", "settings") if k in rows[0]}
    found["seeds"] = len(good)
    if failed:
        found |= {"failed": len(failed), "error": failed[0]}
    if lost:
        found["not_finite"] = lost
    for key in MEANS:
        values = torch.tensor([r[key] for r in good if key in r], dtype=torch.float64)
        if len(values):
            error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            found[key] = [round(float(values.mean()), 4), round(1.96 * error, 4)]
    for key in MEDIANS:
        values = [r[key] for r in good if key in r]
        if values:
            found[key] = round(median(values), 4)
    return found


def tried(found: Row) -> int:
    """Seeds of an entry, those that failed included."""
    return found["seeds"] + found.get("failed", 0) + found.get("not_finite", 0)


def keep(rows: list[Row], out: Path) -> None:
    """Brings the summary up to date with these runs; entries of more seeds stay."""
    with locked(out):
        known = json.loads(out.read_text()) if out.exists() else {"problems": {}}
        for label in dict.fromkeys(r["problem"] for r in rows):
            old = known["problems"].setdefault(label, {})
            for name, new in entries(rows, label).items():
                if name not in old or tried(new) >= tried(old[name]):
                    old[name] = new
        made = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        replace(out, {**made, "problems": known["problems"]})


def report(rows: list[Row], label: str) -> str:
    """The table of a problem as Markdown, nearest first; seconds are of the processor."""
    found = entries(rows, label)
    shown = [key for key in MEANS if any(key in f for f in found.values())]
    heads = ["method", "seeds", *(MEANS[key] for key in shown), "chi2", "calls", "s"]
    lines = [f"\n{label}\n", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, f in sorted(found.items(), key=lambda item: item[1].get("sw", [math.inf])[0]):
        if "sw" not in f:
            lines.append(f"| {name} | 0 | {f.get('error', 'not finite')} |")
            continue
        form = "{:.2f}±{:.2f}" if f["seeds"] > 1 else "{:.2f}"  # one seed tells no error
        cells = [form.format(*f[key]) if key in f else "–" for key in shown]
        chi2 = f"{f['chi2']:.3g}" if "chi2" in f else "–"
        cells += [chi2, f"{f['calls']:.0f}", f"{f['seconds']:.2f}"]
        lines.append(f"| {name} | {f['seeds']} | {' | '.join(cells)} |")
    return "\n".join(lines)
