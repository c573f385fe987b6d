"""What the calibration benchmark found of each method, as `inverse methods` tells it.

    python benchmarks/truth labels

reads benchmarks/results/calibration.json and writes inverse/recipes/measured.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration import RESULTS, SLOW
from small_problems import PROBLEMS

import inverse

OUT = Path(inverse.__file__).parent / "recipes" / "measured.py"

HEAD = '''\
"""What simulations found of each method, written by `python benchmarks/truth labels`.

500 simulated truths{fewer} are ranked among 49 draws, or
particles, of about 100 network calls each under the exact denoiser. Figures:
benchmarks/results/calibration.json.

{problems}
"""

from __future__ import annotations

PROBLEMS: dict[str, str] = {{
{names}
}}
"""What each problem is, in words."""

MEASURED: dict[str, dict[str, str]] = {{
{rows}
}}
"""By method and problem the first fault that was found, "" where no test fails, "but ..." where no
test fails and a width is off on average, by few simulations; problems that a method was not run on
are left out."""

UNMEASURED: dict[str, str] = {{
{reasons}
}}
"""Why methods were run on none."""
'''

NAMES = {
    "P1": "P1 one mode", "P2": "P2 two modes", "P3": "P3 four modes in 8 values",
    "P4 mask": "P4 a field seen in part", "P4 blur": "P4 a blurred field", "P5": "P5 a ring",
}  # fmt: skip


def shortened(finding: str) -> str:
    """A finding without its errors and what it says of other truths."""
    finding = re.sub(r" \+- [\d.]+( %)?", "", finding)
    kept = re.split(r" \(and make| \(its |; for the others|: draws explain", finding)[0]
    return re.sub(
        r"the distance of truths from the middle of the draws is not that of the draws in (.*) \(D",
        r"spreads are uneven in \1 (D",
        kept,
    )


def fault(run: Mapping[str, Any]) -> str:
    """The first finding, or that the runs fail or decide nothing; "" and "but ...": MEASURED."""
    if "error" in run:
        return "runs diverge" if "diverge" in run["error"].lower() else "runs fail"
    if run["findings"]:
        return shortened(run["findings"][0])
    if not run["calibrated"]:
        return "undecided"
    widths = run["verdict"].partition("; but on average over them, by few of them, ")[2]
    if not widths:
        return ""
    off = re.findall(r"too (?:wide|narrow) by \d+ % \+- \d+ % in [a-z ]+", widths)
    worst = max(off, key=lambda width: int(re.findall(r"\d+", width)[0]))
    return f"but few simulations are {shortened(worst)}"


def label(name: str, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, str] | str:
    """The fault of a method on each problem, or why it was run on none."""
    runs = {p: cells[p][name] for p in PROBLEMS if name in cells.get(p, {})}
    judged = {p: fault(run) for p, run in runs.items() if "refused" not in run}
    if judged:
        return judged
    if name in SLOW:
        return "takes hundreds of network calls a draw at the least"
    reasons = [run["refused"] for run in runs.values()]
    return re.split(r"[:;]", reasons[0])[0] if reasons else "not run"


def fewer(cells: Mapping[str, Any]) -> str:
    """Which runs have less than 500 simulations."""
    few = [
        f"{run['n']} of {name} on {p}" for p, runs in cells.items() if p in NAMES
        for name, run in runs.items() if "verdict" in run and run["n"] < 500
    ]  # fmt: skip
    if len(few) > 2:
        return " (some runs fewer)"
    return f" ({', '.join(few)})" if few else ""


def source(cells: Mapping[str, Any]) -> str:
    """The text of measured.py."""
    found = {method.name: label(method.name, cells) for method in inverse.methods()}
    rows = []
    for name, faults in found.items():
        if isinstance(faults, dict):
            inner = [f'        "{p}": "{said}",' for p, said in faults.items()]
            rows.append("\n".join([f'    "{name}": {{', *inner, "    },"]))
    reasons = [f'    "{name}": "{why}",' for name, why in found.items() if isinstance(why, str)]
    import small_problems

    problems = (small_problems.__doc__ or "").partition("\n\n")[2].strip()
    return HEAD.format(
        problems=problems, fewer=fewer(cells), rows="\n".join(rows), reasons="\n".join(reasons),
        names="\n".join(f'    "{p}": "{words}",' for p, words in NAMES.items()),
    )  # fmt: skip


def main() -> None:
    OUT.write_text(source(json.loads(RESULTS.read_text())))
    print(f"{OUT.name}: {len(inverse.methods())} methods")


if __name__ == "__main__":
    main()
