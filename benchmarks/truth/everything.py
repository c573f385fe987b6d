"""All parts, some at a time, each in a process of its own: the figures of benchmarks/results.

    python benchmarks/truth [--jobs 2] [--runs FOLDER] [--only NAME ...]

Every run is kept in FOLDER: what was interrupted goes on where it stopped, by the same command, and
what is there is not run again unless it failed. The logs of the parts are in FOLDER, too. Peers are
run where deepinv and azula are installed.

Instances: of the mixture 20 at d = 8; at d = 80 methods near the posterior 20 and all others 5; at
d = 800 tds and auto 20, methods near them 5 and all others one. "equal" takes 10, 3 and 2 for
d = 8, 80 and 800, the digits 2.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
PARTICLES = ["tds", "auto"]
AGAIN = ["tds, second run", "tds, third run"]
NEAR = ["ddsmc", "mcgdiff", "mmps", "tmpd"]
REFERENCES = ["tds, 4000 particles", "reference: TDS prototype", "reference: TMPD"]


def mixture(cell: str) -> list[list[str]]:
    """The commands of a cell, of fewer and fewer instances of more and more methods."""
    d, m = cell.split(",")
    again = AGAIN if m == "1" else []
    most = {
        "8": [(None, 20)],
        "80": [([*PARTICLES, *again, *NEAR, *REFERENCES], 20), (None, 5)],
        "800": [([*PARTICLES, *again], 20), (NEAR, 5), (None, 1)],
    }[d]
    named = ["distances", "--problems", f"mixture {cell}"]
    return [
        [*named, *(["--methods", *methods] if methods else []), "--seeds", str(seeds)]
        for methods, seeds in most
    ]


def equal(d: int) -> list[str]:
    """The problems of equal weights in d dimensions."""
    return [f"equal {d},{m},{sigma}" for m in (1, 2, 4) for sigma in (0.01, 0.1, 1.0)]


JOBS: dict[str, list[list[str]]] = {
    "calibration blur": [["calibration", "--problems", "P4 blur"]],
    **{f"mixture {cell}": mixture(cell)
       for cell in ("800,1", "800,2", "800,4", "80,1", "80,2", "80,4", "8,1", "8,2", "8,4")},
    "calibration": [["calibration", "--problems", "P4 mask", "P1", "P2", "P3", "P5"]],
    **{name: [["distances", "--problems", name]] for name in ("nonlinear", "fields", "trap")},
    "equal 8": [["distances", "--problems", *equal(8)]],
    "digits": [["distances", "--problems", "digits", "--seeds", "2"]],
    "equal 80": [["distances", "--problems", *equal(80), "--seeds", "3"]],
    "equal 800": [["distances", "--problems", "equal 800,1,0.1", "equal 800,2,0.1",
                   "equal 800,4,0.1", "--methods", *PARTICLES, *NEAR, "--seeds", "2"]],
    "evidence": [["evidence"]],
    "conversion": [["conversion"]],
}  # fmt: skip
"""By name the commands of a job, one after the other; the longest ones first."""


def run(name: str, commands: list[list[str]], folder: Path) -> bool:
    """One job; its rows and its log are in the folder. Whether it went well."""
    start = time.perf_counter()
    stem = name.replace(" ", "-").replace(",", "-")
    with (folder / f"{stem}.log").open("a") as log:
        for command in commands:
            keeps = command[0] in ("distances", "calibration")
            kept = ["--runs", str(folder / f"{stem}.jsonl")] if keeps else []
            done = subprocess.run(
                [sys.executable, str(HERE), *command, *kept], stdout=log, stderr=log, check=False
            )
            if done.returncode:
                break
    minutes = (time.perf_counter() - start) / 60
    said = "done" if not done.returncode else f"failed, see {log.name}"
    print(f"{name}: {said} in {minutes:.0f} min", flush=True)
    return not done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS), metavar="NAME")
    kept = Path(tempfile.gettempdir()) / "truth"
    parser.add_argument("--runs", type=Path, default=kept, help="the folder of runs")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"runs and logs: {options.runs}", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        went = list(pool.map(lambda name: run(name, JOBS[name], options.runs), options.only))
    for part in ("labels", "table", "mixture_figure"):
        subprocess.run([sys.executable, str(HERE), part], stdout=subprocess.DEVNULL, check=True)
    if not all(went):
        sys.exit(1)


if __name__ == "__main__":
    main()
