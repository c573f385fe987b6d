"""Simulation-based calibration: does a method draw from the posterior it claims to?

    x0* ~ p(x0),   y ~ p(y | x0*),   x0_1 ... x0_L ~ method(y),

many times over. If the method is exact, the truth x0* is one more draw, and nothing can tell it
from the others: its rank is uniform in every quantity, its distance from their mean as theirs is.

Paper: Talts et al. 2018, Validating Bayesian Inference Algorithms with Simulation-Based
Calibration, https://arxiv.org/abs/1804.06788
"""

from __future__ import annotations

import io
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from forward_models import ForwardModel
from priors import Prior

from ..checkpoint import Checkpoint
from ..checks import usable, whole
from ..randomness import check_seed
from ..result import write_bytes
from .coverage import Coverage
from .draws import by_function, by_method, check_problem, draw_truths, label_of, probe
from .quantities import Quantity, View, private, quantities, views
from .ranks import TESTS, Ranks, reached
from .simulations import Experiment, Progress, SamplerFunction
from .verdict import Evidence, weigh

POOL = 32
"""Truths that tell which values vary, and of which a reference is chosen where A is not linear."""


@final
@dataclass(frozen=True, repr=False)
class Calibration:
    """What `calibrate` found.

    Attributes:
        method: its name.
        n, draws, seed: simulations, draws for each, and the seed that decides them.
        truths: where the truths come from, in words.
        evidence: figures and tests, see `diagnostics.Evidence`.
        coverage: of the intervals of each view's values, by name; `Coverage`.
        settings: of the run: model, prior, steps, options, seconds.

    `print(calibration)` gives a table, `.verdict` one line, `.plot(path)` a figure.
    """

    method: str
    n: int
    draws: int
    seed: int
    truths: str
    evidence: Evidence
    coverage: Mapping[str, Coverage]
    settings: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """One line: calibrated, and what could have been seen, or what is wrong, or undecided."""
        return self.evidence.verdict

    @property
    def calibrated(self) -> bool:
        """Whether no test fails (`evidence.faults`) of those that could (`evidence.decided`)."""
        return self.evidence.decided and not self.evidence.faults

    @property
    def ranks(self) -> Mapping[str, Ranks]:
        """Of each quantity by name."""
        return self.evidence.ranks

    def __repr__(self) -> str:
        return f"Calibration({self.method!r}, n={self.n}, draws={self.draws}: {self.verdict})"

    def __str__(self) -> str:
        found, wide = self.evidence, max(map(len, self.ranks))
        lines = [
            f"{self.method}: {self.verdict}",
            f"{self.n} simulations of {self.draws} draws, truths {self.truths}, seed {self.seed}",
            f"{'quantity':<{wide}}      D        p  rank of the truth (exact: 0.500)",
        ]
        for name, r in self.ranks.items():
            mark = "  FAULT" if r.p_value < found.threshold else ""
            mean = "{:.3f} +- {:.3f}".format(*r.mean)
            lines.append(f"{name:<{wide}}  {r.distance:.3f}  {r.p_value:7.2g}  {mean}{mark}")
        most = reached(found.threshold / len(TESTS), self.n)
        lines.append(
            f"exact draws exceed D = {most:.3f} or fall below p = {found.threshold:.2g} anywhere "
            f"with probability {found.level:g} at most"
        )
        for name, w in found.widths.items():
            cover, error = self.coverage[name].at(0.9)
            lines.append(
                f"{w.words}: width {w.value:.3f} +- {w.error:.3f} of the posterior's, 90 % "
                f"intervals hold {100 * cover:.1f} % +- {100 * error:.1f} %"
            )
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """All figures, for JSON."""
        cover = {
            name: {"level": 0.9, "inside": c.at(0.9)[0], "error": c.at(0.9)[1],
                   "curve": c.mean.tolist()}
            for name, c in self.coverage.items()
        }  # fmt: skip
        head = {"method": self.method, "n": self.n, "draws": self.draws, "seed": self.seed}
        return {
            **head, "truths": self.truths, **self.evidence.summary(), "coverage": cover,
            "settings": dict(self.settings),
        }  # fmt: skip

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Write a PNG: of every quantity the ECDF of its ranks less uniform, with the band that
        holds 95 % of exact ones, and the coverage curves."""
        from matplotlib.figure import Figure

        columns = 4
        rows = math.ceil((len(self.ranks) + 1) / columns)
        figure = Figure(figsize=(2.6 * columns, 2.3 * rows + 0.5), dpi=130, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        for ax, ranks in zip(axes, self.ranks.values(), strict=False):
            ranks.plot(ax)
        last = axes[len(self.ranks)]
        last.plot([0, 1], [0, 1], color="#888888", lw=0.7)
        colors = ("#1f4e79", "#c55a11", "#548235", "#7f6000")
        for cover, color in zip(self.coverage.values(), colors, strict=False):
            cover.plot(last, color)
        last.set_title("coverage", fontsize=8)
        last.legend(fontsize=6, frameon=False)
        for ax in axes[len(self.ranks) + 1 :]:
            ax.set_axis_off()
        figure.suptitle(_wrapped(f"{self.method}: {self.verdict}"), fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        write_bytes(path, buffer.getbuffer())
        return Path(path)


def calibrate(
    prior: Prior,
    model: ForwardModel,
    method: str | SamplerFunction | None = None,
    *,
    n: int = 200,
    draws: int = 49,
    steps: int | None = None,
    quantities: Mapping[str, Any] | None = None,
    images: Tensor | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    callback: Progress | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Calibration:
    """Whether a method's samples follow the posterior, found on n simulated measurements.

    Ranks of the truth among the draws are tested in log p(y | x), log p(x | y) where the prior has
    a density, distances from the middle, single values, random projections and the distance to a
    reference that depends on y (TARP). The chance that exact draws are called not calibrated is
    1e-3 over all of them; on a doubt run a second seed. A calibrated method is one in which no
    fault was found: the verdict says how large an error of width would have shown, and is
    "undecided" where one by half would not have.

    Args:
        prior: truths are its exact draws, where it has those (`sample`), else draws by its own
            sampler (`inverse.sample(prior)`): then faults of that sampler show as well.
        model: p(y | x0), with `simulate`.
        method: a name from `inverse.methods()`, or a function (y (1, *measurement), n, seed) -> n
            draws (n, *event), or `Samples`. By default what `inverse.sample` takes.
        n: simulations, at least 20. draws: L, for each, at least 9; particles of a particle
            method, which keep their weights.
        steps: noise levels; by default the method's.
        quantities: further ones to test, name -> function (x0 (B, *event), y (1, *measurement)) ->
            (B,).
        images: truths instead of the prior's draws, (M, *event), M >= n: n of them, by chance.
            They test prior and method together: a prior that is not that of the images shows.
        seed: decides truths, noise, draws and ranks.
        checkpoint: a folder in which finished simulations, and the state of the running ones, are
            kept; the same call goes on.
        callback: called with (simulations done, n); (0, n) while truths are sampled.
        device: where prior, model and images live.
        options: of the method, and `absorb`, `sampler` and `batch` of `inverse.sample`; the result
            does not depend on `batch`, up to rounding.
    Cost: n (draws + 1 where truths are sampled) times what one sample costs.
    Raises:
        TypeError, ValueError: bad arguments, a model that cannot simulate, a method that cannot
        sample these posteriors. FloatingPointError: draws that are not finite.
    """
    whole(n, "n", 20)
    whole(draws, "draws", 9)
    seed, device = check_seed(seed), usable(device)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of (done, n), got {callback!r}")
    began = time.perf_counter()
    folder = None if checkpoint is None else Path(checkpoint)
    named = None if callable(method) else method
    prior = check_problem(prior, model, method, steps, options)
    truths, origin = draw_truths(prior, images, n, seed, folder, device, callback)
    pool = truths[:POOL]
    seen = views(prior, model, pool, seed)
    tested = _quantities(prior, model, pool, seen, seed, quantities)
    if callable(method):
        draw, label = by_function(method, draws, seed, truths[0]), label_of(method)
    else:
        y = model.simulate(truths[:1], private(seed, "y/0"))
        label = label_of(named, prior, model, y, options, draws)
        settings = {**options, "method": named, "steps": steps, "device": device}
        walks = None if folder is None else folder / "draws"
        draw = by_method(prior, model, draws, seed, settings, walks)
    experiment = Experiment(model, truths, draw, draws, tested, seen, seed)
    store = None
    if folder is not None:
        told = {"method": label, "n": n, "draws": draws, "seed": seed, "steps": steps}
        told |= {"model": repr(model), "quantities": ", ".join(tested), "truths": origin}
        told |= {f"option {k}": v for k, v in sorted(options.items()) if k != "batch"}
        store = Checkpoint(folder, told, probe(prior, truths, experiment.measurement(0)))
    found = experiment.run(store, callback)
    if folder is not None:
        shutil.rmtree(folder / "draws", ignore_errors=True)
    evidence, coverage = weigh(found, list(tested), seen, seed)
    settings = {
        "model": repr(model), "prior": repr(prior), "steps": steps,
        "options": {k: repr(v) for k, v in sorted(options.items())},
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    return Calibration(label, n, draws, seed, origin, evidence, coverage, settings)


def _quantities(
    prior: Prior,
    model: ForwardModel,
    pool: Tensor,
    seen: tuple[View, ...],
    seed: int,
    more: Mapping[str, Any] | None,
) -> dict[str, Quantity]:
    found = quantities(prior, model, pool, seen, seed)
    for name, function in (more or {}).items():
        if not callable(function) or name in found:
            raise ValueError(
                f"quantities must be new names with functions (x, y) -> (B,), got {name!r}: "
                f"{function!r}"
            )
        found[name] = lambda x, y, i, f=function: f(x, y)  # type: ignore[misc]
    return found


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 130))
