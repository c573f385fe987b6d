"""How near each method's samples come to the exact posterior: one runner for all problems.

    python benchmarks/truth distances [--problems trap "fields CT" ...]
        [--methods tds ...] [--without NAME ...]

Problems (a family's name stands for all of it):

    mixture    25 Gaussians, d values of which m are measured ("mixture 8,1"), and peers
    equal      the same with equal weights and noise sigma_y ("equal 8,1,0.1")
    trap       two unmeasured values of two modes beside measured ones ("trap A1, 0.2")
    fields     a stationary Gaussian field, 16 x 16: a few pixels, coarse pixels, blur, CT
    digits     a mixture of 30 Gaussians of digits, 28 x 28: the same
    nonlinear  four Gaussians in three dimensions and models that are not linear

Every method of `inverse.methods()` that can sample a problem, its defaults, as many steps as spend
about 100 network calls a sample, and what a family has beside them; the denoiser is exact, and no
method can know of what. Figures: see `posed.Judge`; excess is that of sw over the floor, as many
exact draws, of the same seed; calls count the 19 of optimal-covariance's table of the prior, and
those of a pool of 512 draws.

Every run is a line of a JSON file, skipped when present unless it failed. The summary, means over
seeds and 1.96 standard errors, goes to benchmarks/results/distances.json, where an entry that no
run, or runs of fewer seeds, would replace stays as it is.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import digits
import fields
import mixture
import nonlinear
import torch
import trap
from distance_summary import LEGEND, RESULTS, keep, report
from posed import Clock, Family, Judge, Posed, Weighted, named
from runs import Rows

import inverse
from priors import Prior

CALLS = 100
FAMILIES: dict[str, Family] = {
    "mixture": mixture.FAMILY, "equal": mixture.EQUAL, "trap": trap.FAMILY,
    "fields": fields.FAMILY, "digits": digits.FAMILY, "nonlinear": nonlinear.FAMILY,
}  # fmt: skip
NAMED = ("auto", *(method.name for method in inverse.methods()))
FAULTS = (ArithmeticError, ValueError, RuntimeError, TypeError, AttributeError)


def measure(run: Callable[[Prior], Weighted], posed: Posed, judge: Judge) -> dict[str, Any]:
    """The figures of one run and what it cost, or what went wrong."""
    clock = Clock(posed.prior)
    start = time.process_time()
    try:
        x, weights = run(clock)
    except FAULTS as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    seconds = time.process_time() - start
    return judge(x, weights) | {
        "calls": clock.calls, "products": clock.products,
        "seconds": round(seconds, 4), "network_seconds": round(clock.seconds, 4),
    }  # fmt: skip


def runs_of(
    posed: Posed, judge: Callable[[], Judge], n: int, seed: int, wanted: Callable[[str], bool]
) -> dict[str, tuple[Callable[[], Callable[[Prior], Weighted] | None], dict[str, str]]]:
    """All that can be run on an instance, by name, and the facts of each."""
    known: dict[str, Any] = {
        "floor": (lambda: lambda prior: (judge().exact(n, stream=2), None), {}),
        **{name: (partial(named, posed, name, n, CALLS, seed), {}) for name in NAMED},
        **{name: (lambda run=other.run: run, other.facts) for name, other in posed.others.items()},
    }  # fmt: skip
    return {k: v for k, v in known.items() if k == "floor" or wanted(k)}


def run_instance(
    rows: Rows, label: str, posed: Posed, n: int, seed: int, wanted: Callable[[str], bool]
) -> None:
    judges: list[Judge] = []

    def judge() -> Judge:
        if not judges:
            judges.append(Judge(posed, seed))
        return judges[0]

    for name, (build, facts) in runs_of(posed, judge, n, seed, wanted).items():
        if rows.has(label, name, seed):
            continue
        run = build()
        if run is None:
            continue
        head = {"problem": label, "method": name, "seed": seed, "n": n, **facts}
        rows.add(head | measure(run, posed, judge()))


def chosen(asked: list[str]) -> list[str]:
    """Labels of the families and problems asked for."""
    labels = [label for family in FAMILIES.values() for label in family.problems]
    found = []
    for name in asked:
        matching = [label for label in labels if name in (label, label.partition(" ")[0])]
        if not matching:
            raise SystemExit(f"no problem {name!r}; known: {'; '.join([*FAMILIES, *labels])}")
        found += matching
    return found


def check(methods: list[str], labels: list[str]) -> None:
    """Refuse names that none of these problems knows."""
    unknown = [name for name in methods if name not in ("floor", *NAMED)]
    if not unknown:
        return
    beside = {other for label in labels for other in family_of(label).problems[label](0).others}
    unknown = [name for name in unknown if name not in beside]
    if unknown:
        known = "; ".join(["floor", *NAMED, *sorted(beside)])
        raise SystemExit(f"no method {unknown[0]!r} of these problems; known: {known}")


def family_of(label: str) -> Family:
    return FAMILIES[label.partition(" ")[0]]


def asked(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, checked, with the problems' labels in full."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--problems", nargs="+", default=list(FAMILIES), metavar="LABEL",
        help=f"families ({', '.join(FAMILIES)}) or single problems, such as 'trap A1, 0.2'; by "
        "default all",
    )  # fmt: skip
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="by default all that can sample a problem; "
        "the floor is always run",
    )  # fmt: skip
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="leave these out")
    parser.add_argument("--seeds", type=int, help="how many, from 0; by default the family's")
    kept = Path(tempfile.gettempdir()) / "distances.jsonl"
    parser.add_argument(
        "--runs", type=Path, default=kept, help="the file of runs (%(default)s); its folder exists"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS,
        help="the summary, brought up to date (benchmarks/results/distances.json)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    for path in (options.runs, options.out):
        if not path.parent.is_dir():
            raise SystemExit(f"{path}: there is no folder {path.parent}")
    if options.seeds is not None and options.seeds < 1:
        raise SystemExit(f"--seeds {options.seeds}: must be at least 1")
    options.problems = chosen(options.problems)
    check([*(options.methods or ()), *options.without], options.problems)
    if "floor" in options.without:
        raise SystemExit("--without floor: the floor is always run")
    return options


def main() -> None:
    options = asked()

    def wanted(name: str) -> bool:
        asked = options.methods is None or name in options.methods
        return asked and name not in options.without

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = Rows(options.runs, "problem", "method", "seed")
    print(LEGEND)
    for label in options.problems:
        family = family_of(label)
        for seed in range(options.seeds or family.seeds):
            posed = family.problems[label](seed)
            run_instance(rows, label, posed, family.n, seed, wanted)
        keep(rows, options.out)
        print(report(rows, label), flush=True)


if __name__ == "__main__":
    main()
