"""What the calibration benchmark found of each method, as `inverse methods` tells it.

    python benchmarks/truth labels

reads benchmarks/results/calibration.json and writes inverse/recipes/measured.py.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration import RESULTS, SLOW
from small_problems import PROBLEMS

import inverse

OUT = Path(inverse.__file__).parent / "recipes" / "measured.py"
SMALL = ("P1", "P2", "P3")

HEAD = '''\
"""What simulations found of each method, written by `python benchmarks/truth labels`.

500 simulated truths (of some methods 100 or 200 on P4, with 64 or 256 measured values each) are
ranked among 49 draws, or particles, of about 100 network calls each under the exact denoiser.
Figures: benchmarks/results/calibration.json.

{problems}
"""

from __future__ import annotations

MEASURED: dict[str, tuple[str, str]] = {{
{rows}
}}
"""The problems on which no test fails, and the worst fault and where; of methods that were not run
the reason alone."""
'''


def shortened(finding: str) -> str:
    """A finding without its errors and what it says of other truths."""
    finding = re.sub(r" \+- [\d.]+( %)?", "", finding)
    kept = re.split(r" \(and make| \(its |; for the others|: draws explain", finding)[0]
    return re.sub(
        r"the distance of truths from the middle of the draws is not that of the draws in (.*) \(D",
        r"spreads are uneven in \1 (D",
        kept,
    )


def fault(run: Mapping[str, Any]) -> tuple[float, str]:
    """The largest error of a width, as |log|, and the first finding; or that the runs fail."""
    if "error" in run:
        return math.inf, "runs diverge" if "diverge" in run["error"].lower() else "runs fail"
    ratios = [max(width["ratio"], 1e-6) for width in run["widths"].values()]
    return max(abs(math.log(ratio)) for ratio in ratios), shortened(run["findings"][0])


def label(name: str, cells: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """(problems on which it passes, worst fault) of a method.

    Passed everywhere is passed on all of P1 to P3 and every other problem that it can sample and
    that was run.
    """
    runs = {p: cells[p][name] for p in PROBLEMS if name in cells.get(p, {})}
    judged = {p: run for p, run in runs.items() if "refused" not in run}
    if not judged:
        if name in SLOW:
            return "", "takes hundreds of network calls a draw at the least"
        reasons = [run["refused"] for run in runs.values()]
        return "", re.split(r"[:;]", reasons[0])[0] if reasons else "not run"
    passed = [p for p, run in judged.items() if run.get("calibrated")]
    failed = [p for p in judged if p not in passed]
    if not failed:
        missing = [p for p in SMALL if p not in judged]
        return ", ".join(passed), f"not run on {', '.join(missing)}" if missing else ""
    worst = max(failed, key=lambda p: fault(judged[p])[0])
    return ", ".join(passed), f"{fault(judged[worst])[1]} ({worst})"


def source(cells: Mapping[str, Any]) -> str:
    """The text of measured.py."""
    rows = []
    for method in inverse.methods():
        passed, wrong = label(method.name, cells)
        row = f'    "{method.name}": ("{passed}", "{wrong}"),'
        if len(row) > 100:
            row = f'    "{method.name}": (\n        "{passed}",\n        "{wrong}",\n    ),'
        rows.append(row)
    import small_problems

    problems = (small_problems.__doc__ or "").partition("\n\n")[2].strip()
    return HEAD.format(problems=problems, rows="\n".join(rows))


def main() -> None:
    OUT.write_text(source(json.loads(RESULTS.read_text())))
    print(f"{OUT.name}: {len(inverse.methods())} methods")


if __name__ == "__main__":
    main()
