"""Every method on nonlinear and black-box forward models, beside the posterior by importance.

    python benchmarks/truth nonlinear [--problems ring ...] [--methods NAME ...] [--seeds 10]

Prior: four Gaussians in three dimensions. Measurements: the distance from the origin ("ring"), two
saturating values ("tanh"), three moduli of linear values ("moduli"), Poisson counts ("counts"), two
values rounded to halves, known by evaluation alone ("rounded"), and a class ("class"). The
posterior is known by 400 000 draws of the prior weighted by p(y | x0), of which 2000 are drawn.
1000 samples (or particles, weighted) at about 100 network calls a sample; the denoiser is that of
the mixture, wrapped so that no method can know it is one. Sliced W1 over 500 directions, and the
share of the posterior's mass in the samples' 90 % intervals, mean over coordinates. Runs are kept
line by line; the summary goes to benchmarks/results/nonlinear.json.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mixture_problem import SlicedWasserstein
from runs import Rows
from torch import Tensor

import inverse
import priors
from forward_models import ForwardModel, Gaussian, Poisson, from_simulator
from inverse.recipes import find

RESULTS = Path(__file__).parents[1] / "results" / "nonlinear.json"
N, D, DRAWS, CALLS = 1000, 3, 400_000, 100


class Opaque(priors.Prior):
    """A prior known by its denoiser alone."""

    def __init__(self, prior: priors.Mixture) -> None:
        self.inner = prior
        self.event_shape, self.sigma_range = prior.event_shape, prior.sigma_range
        self.scale = prior.scale

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.inner.denoise(x, sigma.flatten())


class Class(ForwardModel):
    """p(class | x) of a linear softmax, no observation of a noise model."""

    event_shape, measurement_shape = (D,), ()

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def check_measurement(self, y: Tensor) -> Tensor:
        return torch.as_tensor(y).reshape(-1)

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        logits = (x @ self.weights.T).log_softmax(-1)
        return logits[torch.arange(len(x)), y.long().expand(len(x))]

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        p = (x @ self.weights.T).softmax(-1)
        return torch.multinomial(p, 1, generator=generator)[:, 0]


def posed(kind: str, seed: int) -> tuple[priors.Mixture, ForwardModel, Tensor]:
    g = torch.Generator().manual_seed(seed)
    means = 6 * torch.rand(4, D, generator=g, dtype=torch.float64) - 3
    weights = torch.rand(4, generator=g, dtype=torch.float64) + 0.3
    prior = priors.Mixture(means, 0.3, weights / weights.sum())
    B = torch.randn(3, D, generator=g, dtype=torch.float64)
    models: dict[str, Callable[[], ForwardModel]] = {
        "ring": lambda: from_simulator(lambda x: x.norm(dim=-1, keepdim=True), Gaussian(0.2), (D,)),
        "tanh": lambda: from_simulator(lambda x: (x @ B[:2].T.to(x)).tanh(), Gaussian(0.1), (D,)),
        "moduli": lambda: from_simulator(lambda x: (x @ B.T.to(x)).abs(), Gaussian(0.2), (D,)),
        "counts": lambda: from_simulator(
            lambda x: 20 * (x @ B[:2].T.to(x)).sigmoid() + 0.5, Poisson(), (D,)
        ),
        "rounded": lambda: from_simulator(
            lambda x: (2 * x @ B[:2].T.to(x)).round() / 2, Gaussian(0.2), (D,),
            differentiable=False,
        ),
        "class": lambda: Class(2 * B),
    }  # fmt: skip
    model = models[kind]()
    x0 = prior.sample(1, g).double()
    return prior, model, model.simulate(x0, g)


KINDS = ("ring", "tanh", "moduli", "counts", "rounded", "class")


class Truth:
    """Draws of the posterior by importance, and what samples are judged by."""

    def __init__(self, prior: priors.Mixture, model: ForwardModel, y: Tensor, seed: int) -> None:
        g = torch.Generator().manual_seed(10_000 + seed)
        x = prior.sample(DRAWS, g).double()
        parts = [model.log_likelihood(y, part) for part in x.split(50_000)]
        w = torch.cat(parts).softmax(0)
        self.ess = float(1 / w.square().sum())
        chosen = torch.multinomial(w, 2000 + N, True, generator=g)
        self.x, self.floor = x[chosen[:2000]], x[chosen[2000:]]
        self.distance = SlicedWasserstein(self.x, seed)

    def judge(self, x: Tensor, weights: Tensor | None) -> dict[str, float]:
        x = x.double()
        if not bool(torch.isfinite(x).all()):
            return {"sw": math.nan, "coverage": math.nan}
        w = x.new_full((len(x),), 1 / len(x)) if weights is None else weights.double()
        values, order = x.sort(0)
        below = w[order].cumsum(0)
        low, high = (
            values.gather(0, (below < mass).sum(0).clamp(max=len(x) - 1)[None])[0]
            for mass in (0.05, 0.95)
        )
        inside = ((self.x >= low) & (self.x <= high)).double().mean()
        return {"sw": self.distance(x, weights), "coverage": float(inside)}


def run(name: str, prior: priors.Prior, model: ForwardModel, y: Tensor, seed: int) -> Any:
    posterior = inverse.condition(prior, model, y)
    steps = find(name).steps_within(posterior, CALLS)
    if steps is None:
        raise ValueError(f"one step takes more than {CALLS} network calls")
    return inverse.sample(posterior, N, method=name, steps=steps, seed=seed, dtype=torch.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--methods", nargs="+", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=10)
    kept = Path(tempfile.gettempdir()) / "nonlinear.jsonl"
    parser.add_argument("--runs", type=Path, default=kept, help="the file of runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the summary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(options.runs, "problem", "method", "seed")
    warnings.simplefilter("ignore")
    for kind in options.problems:
        for seed in range(options.seeds):
            known, model, y = posed(kind, seed)
            prior = Opaque(known)
            able = [m.name for m in inverse.methods()
                    if m.refusal(inverse.condition(prior, model, y)) is None]  # fmt: skip
            chosen = [n for n in able if options.methods is None or n in options.methods]
            todo = [n for n in ("floor", *chosen) if not rows.has(kind, n, seed)]
            if not todo:
                continue
            truth = Truth(known, model, y, seed)
            for name in todo:
                row: dict[str, Any] = {"problem": kind, "method": name, "seed": seed}
                start = time.process_time()
                try:
                    if name == "floor":
                        row |= truth.judge(truth.floor, None)
                    else:
                        found = run(name, prior, model, y, seed)
                        row |= truth.judge(found.x, found.weights)
                        row["calls"] = found.diagnostics["network_calls"]
                except (ArithmeticError, ValueError, RuntimeError, TypeError) as error:
                    row["error"] = f"{type(error).__name__}: {error}"[:200]
                row["seconds"] = round(time.process_time() - start, 3)
                rows.add(row)
        print(table(rows, kind), flush=True)
    summary = {kind: cell(rows, kind) for kind in dict.fromkeys(r["problem"] for r in rows)}
    options.out.write_text(json.dumps({"torch": torch.__version__, **summary}, indent=1) + "\n")


def cell(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Mean and 1.96 standard errors of each method over the seeds that ran."""
    found = {}
    for name in dict.fromkeys(r["method"] for r in rows if r["problem"] == kind):
        mine = [r for r in rows if (r["problem"], r["method"]) == (kind, name)]
        good = [r for r in mine if not math.isnan(r.get("sw", math.nan))]
        entry: dict[str, Any] = {"seeds": len(good), "lost": len(mine) - len(good)}
        for key in ("sw", "coverage") if good else ():
            values = torch.tensor([r[key] for r in good], dtype=torch.float64)
            error = 1.96 * float(values.std()) / len(good) ** 0.5 if len(good) > 1 else 0.0
            entry[key] = [round(float(values.mean()), 4), round(error, 4)]
        if good and "calls" in good[0]:
            entry["calls"] = good[0]["calls"]
        found[name] = entry
    return found


def table(rows: list[dict[str, Any]], kind: str) -> str:
    lines = [f"\n{kind}\n", "| method | seeds | lost | SW1 | 90 % holds |", "|---|---|---|---|---|"]
    ranked = sorted(cell(rows, kind).items(), key=lambda item: item[1].get("sw", [math.inf])[0])
    for name, f in ranked:
        shown = [f"{f[k][0]:.2f}±{f[k][1]:.2f}" if k in f else "-" for k in ("sw", "coverage")]
        lines.append(f"| {name} | {f['seeds']} | {f['lost']} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
