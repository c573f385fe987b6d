"""Every method on images, beside classical answers and the peers, at equal network calls.

    python benchmarks/images.py [--setting full] [--problems "digits: HDR" ...] [--methods dps ...]

Small: every method on one picture of each problem, 4 samples at 100 network calls a sample for
digits, 2 at 30 for the others; three hours on one core. Full: the methods of most promise in small
(CHOSEN, unless --methods names others) on three pictures, digits and noises, 4 samples at 200 calls
for digits, 2 at 60 for photographs and MRI, 2 at 30 for CT; 95 minutes more. Each method takes as
many steps as spend the calls (methods that need more for a single step, or 20 Jacobian products a
step, are left out), its other defaults as they are; optimal-covariance, a table of the prior's
error, whose calls do not count. Peers (deepinv, azula, where they are installed) run wherever their
method applies, with the same network, measurement and number of calls; where it does not, the row
says why.

For each run: PSNR of the mean of the samples and of single ones (their mean), SSIM of the mean, the
residual in units of the noise, the share of true values inside 90 % intervals (mean +- t std
sqrt(1 + 1/n)), network calls, vector-Jacobian products, processor seconds. Runs are kept line by
line and skipped when there, unless they failed; the summary is benchmarks/results/images.json,
where a setting without runs in that file stays as it is. LPIPS takes weights that no package ships;
it is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peers_images
import torch
from images_problems import LABELS, ImageProblem, error_table, prior_of, problem
from peers_libraries import libraries
from peers_task import InapplicableError
from runs import Rows
from torch import Tensor

import inverse
from inverse.classical import psnr, ssim
from inverse.demo import coverage
from inverse.posterior import Posterior
from inverse.recipes import find
from inverse.result import Samples

RESULTS = Path(__file__).parent / "results" / "images.json"
PRODUCTS = 20
PICTURES = {"small": 1, "full": 3}
SPENT = {  # network calls a sample, and samples
    "small": {"digits": (100, 4), "photographs": (30, 2), "ct": (30, 2), "mri": (30, 2)},
    "full": {"digits": (200, 4), "photographs": (60, 2), "ct": (30, 2), "mri": (60, 2)},
}
CHOSEN = ("mmps", "pigdm", "jfps", "ddrm", "ddnm-plus", "dps", "dsg", "daps", "pnp-dm", "diffpir",
          "sitcom", "deepinv DDRM", "deepinv DiffPIR", "deepinv moment matching", "azula PGDM",
          "azula MMPS, 4 iterations")  # fmt: skip


def figures(problem: ImageProblem, samples: Samples) -> dict[str, float]:
    """What is reported of samples; weighted ones by their weights."""
    truth, mean = problem.truth[0], samples.mean
    if not bool(torch.isfinite(samples.x).all()):
        raise FloatingPointError("values that are not finite")
    weights = samples.weights
    each = torch.tensor([psnr(truth, x, problem.span) for x in samples.x], dtype=torch.float64)
    misfit = problem.model.misfit(problem.y, samples.x)
    assert misfit is not None
    w = torch.full_like(each, 1 / len(each)) if weights is None else weights.double()
    return {
        "psnr": psnr(truth, mean, problem.span),
        "psnr_sample": float(w @ each),
        "ssim": ssim(truth, mean, problem.span),
        "residual": float((w @ misfit.double().square()).sqrt()),
        "coverage": coverage(samples, truth) if len(samples) > 1 else math.nan,
    }


def ours(name: str, problem: ImageProblem, calls: int, n: int, seed: int) -> dict[str, Any]:
    posterior = inverse.condition(prior_of(problem.prior), problem.model, problem.y)
    method = find(name)
    options = {"table": error_table(problem.prior)} if name == "optimal-covariance" else {}
    why = method.refusal(posterior, **options)
    if why is not None:
        return {"refused": why}
    steps = method.steps_within(posterior, calls, **options)
    if steps is None:
        return {"refused": f"one step takes more than {calls} network calls"}
    walked = method.recipe(posterior, steps, **options).prior
    products = walked.cost.products if isinstance(walked, Posterior) else 0
    if products > PRODUCTS:
        return {"refused": f"{products} vector-Jacobian products a step"}
    start = time.process_time()
    samples = inverse.sample(posterior, n, method=name, steps=steps, seed=seed, **options)
    spent = {k: samples.diagnostics[k] for k in ("network_calls", "jacobian_products")}
    seconds = time.process_time() - start
    return {**figures(problem, samples), "steps": steps, **spent, "seconds": seconds}


def peer(
    module: Any, name: str, problem: ImageProblem, calls: int, n: int, seed: int
) -> dict[str, Any]:
    try:
        x, spent = peers_images.run(module, name, problem, calls, n, seed)
    except InapplicableError as why:
        return {"refused": str(why)}
    return {**figures(problem, Samples(x, {})), **spent}


def classic(problem: ImageProblem, answer: Tensor) -> dict[str, Any]:
    misfit = problem.model.misfit(problem.y, answer)
    assert misfit is not None
    truth = problem.truth[0]
    return {
        "psnr": psnr(truth, answer[0], problem.span),
        "ssim": ssim(truth, answer[0], problem.span),
        "residual": float(misfit),
        "network_calls": 0,
    }


def runs_of(
    name: str, problem: ImageProblem, modules: dict[str, Any], calls: int, n: int, seed: int
) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is run for a name of the list: one method, or all classical answers."""
    if name == "classical":
        answers = {k: partial(classic, problem, x) for k, x in problem.answers.items()}
        return {name: lambda: {"refused": "a heading"}, **answers}
    library, _, peers_name = name.partition(" ")
    if library not in modules:
        return {name: partial(ours, name, problem, calls, n, seed)}
    return {name: partial(peer, modules[library], peers_name, problem, calls, n, seed)}


def attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()
    except (ArithmeticError, ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}


def summarise(rows: list[dict[str, Any]], out: Path) -> None:
    """Means over the pictures, by setting, problem and method."""
    found: dict[str, Any] = {}
    for row in rows:
        cell = found.setdefault(row["setting"], {}).setdefault(row["problem"], {})
        cell.setdefault(row["method"], []).append(row)
    for cells in found.values():
        for methods in cells.values():
            for name, runs in methods.items():
                methods[name] = _mean(runs)
    kept = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(json.dumps({**kept, "torch": torch.__version__, **found}, indent=1) + "\n")


def _mean(runs: list[dict[str, Any]]) -> dict[str, Any]:
    good = [r for r in runs if "psnr" in r]
    if not good:
        return {k: runs[0][k] for k in ("refused", "error") if k in runs[0]}
    keys = [k for k in good[0] if isinstance(good[0][k], int | float) and k != "seed"]
    means = {k: round(sum(r[k] for r in good) / len(good), 4) for k in keys}
    failed = len(runs) - len(good)
    return {"pictures": len(good), **means, **({"failed": failed} if failed else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--setting", choices=PICTURES, default="small")
    parser.add_argument("--problems", nargs="+", choices=LABELS, default=LABELS, metavar="NAME")
    parser.add_argument("--methods", nargs="+", metavar="NAME")
    kept = Path(tempfile.gettempdir()) / "images.jsonl"
    parser.add_argument("--runs", type=Path, default=kept, help="the file of runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the summary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(options.runs, "setting", "problem", "method", "seed")

    modules = libraries()
    names = [m.name for m in inverse.methods()]
    names += [f"{lib} {name}" for lib, module in modules.items() for name in module.IMAGE_METHODS]
    chosen = options.methods or (names if options.setting == "small" else CHOSEN)
    for seed in range(PICTURES[options.setting]):
        for label in options.problems:
            todo = [m for m in names if m in chosen]
            todo = [m for m in todo if not rows.has(options.setting, label, m, seed)]
            if not rows.has(options.setting, label, "classical", seed):
                todo = ["classical", *todo]
            if not todo:
                continue
            posed = problem(label, seed)
            calls, n = SPENT[options.setting][label.partition(":")[0]]
            for name in todo:
                for method, run in runs_of(name, posed, modules, calls, n, seed).items():
                    key = {"setting": options.setting, "problem": label, "method": method}
                    row = {**key, "seed": seed, **attempt(run)}
                    rows.add(row)
                    shown = {k: round(v, 2) for k, v in row.items() if isinstance(v, float)}
                    said = shown or row.get("refused") or row.get("error")
                    print(label, method, said, flush=True)
    summarise([r for r in rows if r["method"] != "classical"], options.out)


if __name__ == "__main__":
    main()
