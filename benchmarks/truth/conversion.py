"""How near each likelihood comes to p_sigma(y | x), by noise level, where that is known.

    python benchmarks/truth conversion [--cells 8,1 8,4 80,2] [--seeds 20] [--learned 4]

The mixture of 25 Gaussians of mixture_problem.py, d values of which m are measured. Relative error
of the score and error of the log likelihood in nats, by `inverse.diagnostics.conversion_errors`, at
draws of the posterior's path and of the prior's: median and quartiles over the instances, 20 but
for "learned", which has 4. The summary goes to benchmarks/results/conversion.json, the picture
beside it, where errors below 0.001 are drawn there; six minutes on one core.

Likelihoods that are one of these here are left out: LinearisedLift of a linear model is MMPS, the
plug-in's bound and so TrainingFree with rho = 1 change nothing. The reverse runs take 480 network
calls a state, all others one; they run for d = 8. The pool takes 512 draws of the prior by 50 calls
each, and one more at each of its 16 levels, once for all states and measurements.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from mixture_problem import Cell, Problem, parse_cell, problem
from torch import Tensor

import inverse
from forward_models import Gaussian, LinearGaussian, Observation
from inverse.diagnostics.conversion import PATHS, Conversion, conversion_errors
from inverse.lift import Lift
from inverse.likelihoods import (
    Absorbed,
    AssumedCovariance,
    DiagonalTweedie,
    FixedPrior,
    GaussianLift,
    Isotropic,
    Likelihood,
    Moments,
    MonteCarloLift,
    NormalizedPlugIn,
    PlugIn,
    PooledLift,
    ReverseRunLift,
    ScoreALD,
    SigmaPointLift,
    Tabulated,
    Tweedie,
)
from inverse.pool import Pool
from priors import VP, Mixture, geometric

RESULTS = Path(__file__).parents[1] / "results" / "conversion.json"
SIGMAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
CELLS: tuple[Cell, ...] = ((8, 1), (8, 4), (80, 2))
FIGURES = ("score", "log")
LEAST = 1e-3
LEARNING = 2000
LEARNED = f"learned, {LEARNING} steps"
Row = dict[str, list[list[float]]]


def observed(model: LinearGaussian) -> Observation:
    return Observation(model.operator, Gaussian(model.sigma))


def gaussian(covariance: AssumedCovariance) -> Lift:
    return lambda model, y: GaussianLift(model, y, covariance)  # type: ignore[arg-type]


class Normalised(Likelihood):
    """A learned likelihood, which is up to log p(y), with that added; such use no covariance."""

    def __init__(self, likelihood: Likelihood, log_evidence: Tensor) -> None:
        self.likelihood, self.log_evidence = likelihood, log_evidence

    def shift(self, moments: Moments) -> Tensor:
        return self.likelihood.shift(moments)

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.likelihood.log_likelihood(moments) + self.log_evidence


def learned(p: Problem) -> Lift:
    prior = p.prior.mixture
    lift, evidence = inverse.learn(prior, p.model, steps=LEARNING), prior.log_evidence(p.model, p.y)
    return lambda model, y: Normalised(lift(model, y), evidence)


def lifts(prior: Mixture) -> dict[str, Lift]:
    """s is the standard deviation within a component (1), or that of the whole prior (`scale`)."""
    scale = prior.scale
    table = Tabulated.measure(
        prior, geometric(20, (0.05, 60.0))[:-1].flip(0), generator=torch.Generator().manual_seed(0)
    )
    pool = Pool(prior)
    found: dict[str, Any] = {
        "plug-in": lambda m, y: PlugIn(m, y, bounded=False),
        "DPS as published": lambda m, y: NormalizedPlugIn(
            m, y, zeta=1.0, schedule=VP(), steps=1000
        ),
        "PiGDM, s = 1": gaussian(Isotropic(s=1.0)),
        "PiGDM, s = scale": gaussian(Isotropic(s=scale)),
        "optimal covariance": gaussian(table),
        "JFPS, scale^2 I": gaussian(FixedPrior(scale**2)),
        "JFPS, Cov[x0]": gaussian(FixedPrior(prior.moments()[1])),
        "TMPD, row sums": gaussian(DiagonalTweedie()),
        "TMPD, MMPS": gaussian(Tweedie()),
        "pooled, 512 draws": lambda m, y: PooledLift(m, y, pool),
        "MMPS, 1 iteration": gaussian(Tweedie(iterations=1, dense=0)),
        "unscented": lambda m, y: SigmaPointLift(observed(m), y),
        "LGD-MC16, s = 1": lambda m, y: MonteCarloLift(m, y, scale=1.0, draws=16, bounded=False),
        "LGD-MC16, bounded": lambda m, y: MonteCarloLift(m, y, scale=scale, draws=16),
        "score-ALD": ScoreALD,
        "absorbed": lambda m, y: Absorbed(GaussianLift(m, y, Tweedie())),
    }
    if prior.size <= 8:
        found["reverse runs, 32"] = lambda m, y: ReverseRunLift(m, y, runs=32)
    return found


def measured(cell: Cell, seed: int, draws: int, learns: bool) -> Conversion:
    p = problem(cell, seed)
    prior = p.prior.mixture
    found = lifts(prior) | ({LEARNED: learned(p)} if learns else {})
    return conversion_errors(prior, p.model, p.y, found, SIGMAS, draws=draws, seed=seed)


def summary(runs: list[Conversion]) -> dict[str, dict[str, Row]]:
    """path -> lift -> figure -> for each level [median, lower quartile, upper quartile], over the
    instances that the lift was tried on, the first one among them."""
    names = list(dict.fromkeys(e.lift for e in runs[0].errors))
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


def compact(found: dict[str, Any]) -> str:
    """JSON with each list of numbers on one line."""
    text = json.dumps(found, indent=1)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda m: re.sub(r"\s+", " ", m.group()), text)
    return text + "\n"


def shown(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2g}" if value < 100 else f"{value:.0f}"


def draw(results: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cells = results["cells"]
    columns = [(cell, "posterior") for cell in cells] + [(next(iter(cells)), "prior")]
    fig, axes = plt.subplots(
        2, len(columns), figsize=(3.1 * len(columns) + 1.6, 6), sharex=True, sharey="row",
        squeeze=False, layout="constrained",
    )  # fmt: skip
    colours = plt.get_cmap("tab20")
    names = list(dict.fromkeys(n for cell in cells.values() for n in cell["posterior"]))
    for column, (cell, path) in enumerate(columns):
        for row, figure in enumerate(FIGURES):
            axis = axes[row][column]
            for k, name in enumerate(names):
                found = cells[cell][path].get(name)
                if found is not None:
                    least = [max(v[0], LEAST) for v in found[figure]]
                    marker = "os^vDP"[k % 6]
                    axis.plot(
                        SIGMAS, least, marker + "-", ms=3.5, lw=1, color=colours(k), label=name
                    )
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.grid(lw=0.2)
        d, m = cell.split(",")[:2]
        axes[0][column].set_title(f"d = {d}, {m} measured, {path}'s path", fontsize=9)
        axes[1][column].set_xlabel("noise level")
    axes[0][0].set_ylabel("relative error of the score")
    axes[1][0].set_ylabel("error of the log likelihood, nats")
    # The first column has all of them.
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right center", fontsize=7)
    fig.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", type=parse_cell, default=CELLS, help="d,m[,sigma_y]")
    parser.add_argument("--seeds", type=int, default=20, help="seeds 0 to this")
    parser.add_argument("--draws", type=int, default=100, help="states on each path and level")
    parser.add_argument("--learned", type=int, default=4, help="instances with a learned lift")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the summary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {
        "torch": torch.__version__, "seeds": options.seeds, "draws": options.draws,
        "learned": min(options.learned, options.seeds),
        "sigmas": SIGMAS, "figures": "median, lower and upper quartile over seeds", "cells": {},
    }  # fmt: skip
    for cell in options.cells:
        runs = [
            measured(cell, seed, options.draws, seed < options.learned)
            for seed in range(options.seeds)
        ]
        name = ",".join(map(str, cell))
        found["cells"][name] = summary(runs)
        for path in PATHS:
            print(f"\nd, m = {name}, {path}'s path: score, log\n")
            print(table(found["cells"][name][path]), flush=True)
    options.out.write_text(compact(found))
    draw(found, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
