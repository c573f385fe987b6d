"""How near each likelihood comes to p_sigma(y | x), by noise level, where that is known.

    python benchmarks/truth conversion [--problems "mixture 8,1" P2 ...] [--learned 4]

Problems: conversion_problems.py; likelihoods: conversion_lifts.py. Relative error of the score and
error of the log likelihood in nats, by `inverse.diagnostics.conversion_errors`, at draws of the
posterior's path and of the prior's: median and quartiles over the instances; of "learned" on the
mixture there are 4, each with a training of its own. benchmarks/results/conversion.json is brought
up to date, problem by problem, and the pictures beside it, where errors below 0.001 are drawn
there.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from conversion_lifts import LEARNABLE, LEARNED, learned, lifts
from conversion_problems import PROBLEMS, seeds
from runs import locked, replace

from inverse.diagnostics.conversion import PATHS, Conversion, conversion_errors
from priors.prior import event_size

RESULTS = Path(__file__).parents[1] / "results" / "conversion.json"
SIGMAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
FIGURES = ("score", "log")
LEAST = 1e-3
MAIN = {
    "plug-in": "black", "JFPS, Cov[x0]": "#ff7f0e", "TMPD, MMPS": "#d62728",
    "linearised, MMPS": "#8c564b", "unscented": "#9467bd", "pooled, 512 draws": "#1f77b4",
    LEARNED: "#2ca02c",
}  # fmt: skip
"""Drawn in colours."""
Row = dict[str, list[list[float]]]


def measured(label: str, seed: int, draws: int, learns: int) -> Conversion:
    case = PROBLEMS[label](seed)
    found = lifts(case)
    if event_size(case.prior.event_shape) <= LEARNABLE and (case.fixed or seed < learns):
        found[LEARNED] = learned(label, seed)
    known: Any = case.prior
    return conversion_errors(known, case.model, case.y, found, SIGMAS, draws=draws, seed=seed)


def summary(runs: list[Conversion]) -> dict[str, dict[str, Row]]:
    """path -> lift -> figure -> for each level [median, lower quartile, upper quartile], over the
    instances that the lift was tried on, the first one among them; without those refused there."""
    names = dict.fromkeys(e.lift for e in runs[0].errors if not e.reason)
    found: dict[str, dict[str, Row]] = {}
    for path in PATHS:
        found[path] = {}
        for name in names:
            tried = [run for run in runs if any(e.lift == name for e in run.errors)]
            each = [run.of(name, path) for run in tried]
            found[path][name] = {
                figure: [
                    quartiles([getattr(errors[k], figure).value for errors in each])
                    for k in range(len(SIGMAS))
                ]
                for figure in FIGURES
            }
    return found


def quartiles(values: list[float]) -> list[float]:
    q = torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)
    found = torch.tensor(values, dtype=torch.float64).nanquantile(q)
    return [float(f"{v:.4g}") for v in found.tolist()]


def table(rows: dict[str, Row]) -> str:
    head = " | ".join(f"{sigma:g}" for sigma in SIGMAS)
    lines = [f"| sigma | {head} |", "|---" * (len(SIGMAS) + 1) + "|"]
    for name, row in rows.items():
        cells = [
            f"{shown(score[0])}, {shown(log[0])}"
            for score, log in zip(row["score"], row["log"], strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2g}" if value < 100 else f"{value:.0f}"


def draw(found: dict[str, Any], file: Path) -> None:
    """A column a problem; medians, and the quartiles of those in MAIN."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [(figure, path) for figure in FIGURES for path in PATHS]
    fig, axes = plt.subplots(
        len(rows), len(found), figsize=(2.5 * len(found) + 2, 11), sharex=True, sharey="row",
        squeeze=False, layout="constrained",
    )  # fmt: skip
    lines = {}
    for column, (label, one) in enumerate(found.items()):
        axes[0][column].set_title(label, fontsize=10)
        axes[-1][column].set_xlabel("noise level", fontsize=10)
        for axis, (figure, path) in zip(axes[:, column], rows, strict=True):
            for name, row in one[path].items():
                median, low, high = ([max(v[k], LEAST) for v in row[figure]] for k in range(3))
                main = name in MAIN
                style = (
                    {"color": MAIN[name], "lw": 1.8} if main else {"color": "#bbbbbb", "lw": 0.7}
                )
                (line,) = axis.plot(SIGMAS, median, zorder=2 + main, marker=".", ms=4, **style)
                lines[name if main else "all others"] = line
                if main:
                    axis.fill_between(SIGMAS, low, high, color=MAIN[name], alpha=0.12, lw=0)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.grid(lw=0.2)
    what = {"score": "relative error of the score", "log": "error of log likelihood, nats"}
    for axis, (figure, path) in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(f"{what[figure]}\n{path}'s path", fontsize=10)
    listed = [name for name in (*MAIN, "all others") if name in lines]
    fig.legend(
        [lines[name] for name in listed], listed, loc="outside upper center", ncols=len(listed),
        title="median and quartiles over instances; errors below 0.001 are drawn there",
    )  # fmt: skip
    fig.savefig(file, dpi=80, metadata={"Software": None})
    plt.close(fig)


def keep(label: str, row: dict[str, Any], out: Path) -> None:
    """Brings the summary and the pictures up to date."""
    with locked(out):
        known = json.loads(out.read_text())["problems"] if out.exists() else {}
        known[label] = row
        known = {name: known[name] for name in PROBLEMS if name in known}
        replace(out, {
            "sigmas": SIGMAS, "figures": "median, lower and upper quartile over seeds",
            "problems": known,
        })  # fmt: skip
        of_mixture = {name: one for name, one in known.items() if name.startswith("mixture")}
        others = {name: one for name, one in known.items() if name not in of_mixture}
        for stem, some in ((out.stem, of_mixture), (f"{out.stem}_others", others)):
            if some:
                draw(some, out.with_name(f"{stem}.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS),
                        metavar="LABEL", help=f"of {'; '.join(PROBLEMS)}")  # fmt: skip
    parser.add_argument("--seeds", type=int, help="how many, from 0; by default 3 to 20")
    parser.add_argument("--draws", type=int, default=100, help="states on each path and level")
    parser.add_argument("--learned", type=int, default=4,
                        help="instances of the mixture with a learned likelihood")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="the summary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for label in options.problems:
        start = time.process_time()
        count = options.seeds or seeds(label)
        runs = [measured(label, seed, options.draws, options.learned) for seed in range(count)]
        found = summary(runs)
        tried = sum(any(e.lift == LEARNED for e in run.errors) for run in runs)
        spent = {"torch": torch.__version__, "seeds": count, "learned": tried,
                 "draws": options.draws, "seconds": round(time.process_time() - start)}  # fmt: skip
        keep(label, spent | found, options.out)
        for path in PATHS:
            print(f"\n{label}, {path}'s path: score, log\n")
            print(table(found[path]), flush=True)


if __name__ == "__main__":
    main()
