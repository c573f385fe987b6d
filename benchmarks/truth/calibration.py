"""Is each method calibrated? 500 simulated measurements of each problem, 49 draws of each.

    python benchmarks/truth calibration [--problems P1 ...] [--methods mmps ...] [--n 500] [--all]

Problems: small_problems.py. Every method that can sample a problem, its defaults, as many steps as
spend about 100 network calls a draw; particle methods with 49 particles. False alarms: 1e-3 for
each method and problem. A verdict "calibrated" says that no fault was found, and what would have
been.

On P4, where runs take minutes, 500 simulations for the methods in NEAR, among them all that pass
there, and 200 or 100 for the others: as each has 64 or 256 measured values, they show smaller
errors of width than 500 of the small problems; with --all 500, too, 85 minutes more.
Every row says its `n`; rows with more stand.

Every run is a line of a JSON file, skipped when present unless it failed; the summary goes to
benchmarks/results/calibration.json, where cells that were not run stay as they are; a table and
what all cells together took are printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from runs import Rows, locked, replace
from small_problems import PROBLEMS, Problem

import inverse
from forward_models import Blur
from inverse.recipes import Method

RESULTS = Path(__file__).parents[1] / "results" / "calibration.json"
CALLS = 100
SLOW = ("reverse-runs", "dmplug", "d-flow")
"""Methods of hundreds of network calls a draw at the least."""
NEAR = ("exact", "mmps", "unscented", "pigdm", "jfps", "optimal-covariance", "dps", "mcgdiff",
        "ddsmc")  # fmt: skip
"""Methods of all simulations on P4."""
DEAR = ("tds", "tmpd")
"""Methods of 200."""
DENSE = ("tds", "bootstrap", "tmpd")
"""Methods with a matrix of all measured values a draw, which is fastest in small batches."""


def names() -> list[str]:
    return [m.name for m in inverse.methods() if m.name not in SLOW]


def judge(problem: Problem, method: Method, n: int, seed: int) -> dict[str, Any]:
    prior = problem.exact if method.name == "exact" else problem.prior
    model = problem.model
    y = model.simulate(prior.sample(1, torch.Generator().manual_seed(seed)))
    posterior = inverse.condition(prior, model, y)
    why = method.refusal(posterior)
    if why is not None:
        return {"refused": why}
    if method.name in ("tds", "bootstrap") and isinstance(model.operator, Blur):
        return {"refused": f"a matrix of {y.numel()}^2 entries a particle and step takes hours"}
    steps = method.steps_within(posterior, CALLS)
    if steps is None:
        return {"refused": f"one step takes more than {CALLS} network calls"}
    start = time.process_time()
    more = {"batch": 49} if method.name in DENSE else {}
    found = inverse.calibrate(prior, model, method.name, n=n, steps=steps, seed=seed, **more)
    summary = found.summary()
    keep = (
        "verdict",
        "calibrated",
        "decided",
        "findings",
        "widths",
        "truths_far_outside",
        "coverage",
    )
    worst = max(summary["quantities"].items(), key=lambda item: item[1]["D"])
    return {
        "steps": steps, **{k: summary[k] for k in keep}, "worst": [worst[0], worst[1]["D"]],
        "log_likelihood": summary["quantities"]["log p(y|x)"], "n": n,
        "seconds": time.process_time() - start,
    }  # fmt: skip


def attempt(problem: Problem, method: Method, n: int, seed: int) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return judge(problem, method, n, seed)
    except (ArithmeticError, ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}


def cell(row: dict[str, Any]) -> str:
    """Widths over the posterior's, in what is measured and in the rest; bold: no test fails."""
    if "widths" not in row:
        return "–" if "refused" in row else "error"
    widths = row["widths"]
    rest = widths.get("unmeasured") or widths["values"]
    shown = f"{widths['measured']['ratio']:.2f}, {rest['ratio']:.2f}"
    return f"**{shown}**" if row["calibrated"] else shown


def table(found: dict[str, Any]) -> str:
    """The summary as Markdown, methods by problems."""
    labels = [label for label in PROBLEMS if label in found]
    lines = [f"| | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
    for name in names():
        cells = [cell(found[label].get(name, {"refused": ""})) for label in labels]
        if set(cells) != {"–"}:
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def summarise(rows: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Write all cells by problem and method: those of the rows, and those that were there."""
    with locked(out):
        kept = json.loads(out.read_text()) if out.exists() else {}
        cells = {label: dict(kept.get(label, {})) for label in PROBLEMS}
        for row in rows:
            own = {k: v for k, v in row.items() if k not in ("problem", "method")}
            old = cells[row["problem"]].get(row["method"], {})
            if own.get("n", 0) >= old.get("n", 0):
                cells[row["problem"]][row["method"]] = own
        seconds = sum(run.get("seconds", 0) for runs in cells.values() for run in runs.values())
        found = {
            "torch": torch.__version__, "setting": f"49 draws, about {CALLS} network calls a draw",
            "cost": f"one core, {seconds / 60:.0f} minutes",
            **{label: cell for label, cell in cells.items() if cell},
        }  # fmt: skip
        replace(out, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=names(), default=names(), metavar="NAME")
    parser.add_argument("--n", type=int, default=500, help="simulations, 20 or more")
    parser.add_argument("--all", action="store_true", help="as many of every method on P4, too")
    parser.add_argument("--seed", type=int, default=0)
    kept = Path(tempfile.gettempdir()) / "calibration.jsonl"
    parser.add_argument("--runs", type=Path, default=kept, help="the file of runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the summary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(options.runs, "problem", "method", "seed", "n")
    for label in options.problems:
        problem = PROBLEMS[label]()
        for method in inverse.methods():
            most = options.n
            if label.startswith("P4") and method.name not in NEAR and not options.all:
                most = 200 if method.name in DEAR else 100
            n = min(options.n, most)
            known = rows.has(label, method.name, options.seed, n)
            if known or method.name not in options.methods:
                continue
            head = {"problem": label, "method": method.name, "seed": options.seed, "n": n}
            row = {**head, **attempt(problem, method, n, options.seed)}
            rows.add(row)
            said = row.get("verdict") or row.get("refused") or row.get("error")
            print(f"{label} {method.name} ({row.get('seconds', 0):.0f} s): {said}", flush=True)
    found = summarise(rows, options.out)
    print(table(found))
    print(f"{found['cost']}; {found['setting']}")


if __name__ == "__main__":
    main()
