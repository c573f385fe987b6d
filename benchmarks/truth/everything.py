"""All parts, some at a time, each in a process of its own: the figures of benchmarks/results.

    python benchmarks/truth [--jobs 2] [--runs FOLDER] [--complete] [--only NAME ...]

Every run is kept in FOLDER: what was interrupted goes on where it stopped, by the same command, and
what is there is not run again unless it failed. Logs and summaries are in FOLDER, too. When all is
done the summaries of distances and calibration take the place of those in benchmarks/results; with
--only those are brought up to date. Evidence and power, ten minutes at most each, begin anew and
write theirs at once, conversion problem by problem. Peers are run where deepinv and azula are
installed.

Instances of the mixture of 25 Gaussians: 20, but 6 of the reference settings with other steps; at
d = 80 five of DEAR; at d = 800 one of all but NEAR. With --complete 20 at d = 80 and 800, too, but
one of DEAR at d = 800; calibration by 500 simulations of all methods; conversion on all problems
instead of three; and power. "equal" takes 10, 3 and 2 for d = 8, 80 and 800, the digits 2.

On two cores 1 h 51 min, 3.6 hours of the processor, without learned lifts and the 20 000 runs of
evidence, which take some minutes more; --complete 4.8 hours of the processor more.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
SUMMARIES = {"distances": "distances.json", "calibration": "calibration.json"}
"""Of the parts that keep their runs."""
NEAR = ["tds", "auto", "ddsmc", "mcgdiff", "mmps", "tmpd", "reference: TMPD"]
"""Methods near the posterior of the mixture."""
AGAIN = ["tds, second run", "tds, third run"]
"""The same instances with other noise, where one value is measured."""
DEAR = ["tds, 4000 particles", "tds, pool"]
"""What takes many times longer than all else."""
DEAR_AGAIN = ["tds, pool, second run", "tds, pool, third run"]
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}  # fmt: skip
"""glibc keeps the memory of large arrays instead of asking the system for it at each operation:
d = 800 takes 1.4 to 2.9 times as long without (glibc 2.36). Elsewhere nothing reads these."""


def mixture(cell: str, complete: bool) -> list[list[str]]:
    """The commands of a cell."""
    d, m = cell.split(",")
    named = ["distances", "--problems", f"mixture {cell}"]
    again = m == "1"
    dear_again = DEAR_AGAIN if again else []
    dear = [*DEAR, *dear_again]
    if d == "8" or (d == "80" and complete):
        return [named]
    if d == "80":
        return [[*named, "--without", *dear], [*named, "--methods", *dear, "--seeds", "5"]]
    near = [*NEAR, *(AGAIN if again else [])]
    most = [*named, "--without", *dear] if complete else [*named, "--methods", *near]
    rest = ["--without", *dear_again] if again else []
    return [most, [*named, *rest, "--seeds", "1"]]


def equal(d: int) -> list[str]:
    """The problems of equal weights in d dimensions."""
    return [f"equal {d},{m},{sigma}" for m in (1, 2, 4) for sigma in (0.01, 0.1, 1.0)]


CELLS = ("800,1", "800,2", "800,4", "80,1", "80,2", "80,4", "8,1", "8,2", "8,4")
JOBS: dict[str, list[list[str]]] = {
    "calibration blur": [["calibration", "--problems", "P4 blur"]],
    **{f"mixture {cell}": mixture(cell, complete=False) for cell in CELLS},
    "calibration": [["calibration", "--problems", "P4 mask", "P1", "P2", "P3", "P5"]],
    **{name: [["distances", "--problems", name]] for name in ("nonlinear", "fields", "trap")},
    "equal 8": [["distances", "--problems", *equal(8)]],
    "digits": [["distances", "--problems", "digits", "--seeds", "2"]],
    "equal 80": [["distances", "--problems", *equal(80), "--seeds", "3"]],
    "equal 800": [["distances", "--problems", "equal 800,1,0.1", "equal 800,2,0.1",
                   "equal 800,4,0.1", "--methods", *NEAR, "--seeds", "2"]],
    "evidence": [["evidence"]],
    "conversion": [["conversion", "--problems", "mixture 8,1", "mixture 8,4", "mixture 80,2"]],
}  # fmt: skip
"""By name the commands of a job, one after the other; the longest ones first."""
COMPLETE = JOBS | {
    **{name: [[*JOBS[name][0], "--all"]] for name in ("calibration blur", "calibration")},
    **{f"mixture {cell}": mixture(cell, complete=True) for cell in CELLS},
    "conversion": [["conversion"]], "power": [["power"]],
}  # fmt: skip


class Runner:
    """Runs jobs, each a row of commands, some of them at the same time."""

    def __init__(self, folder: Path, jobs: dict[str, list[list[str]]], whole: bool) -> None:
        self.folder, self.jobs, self.whole, self.stopped = folder, jobs, whole, False
        self.running: set[subprocess.Popen[bytes]] = set()

    def stop(self, *_: object) -> None:
        """Ends what runs, and begins nothing more."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()
        raise KeyboardInterrupt

    def job(self, name: str) -> bool:
        """One job; its rows and its log are in the folder. Whether it went well."""
        start = time.perf_counter()
        stem = name.replace(" ", "-").replace(",", "-")
        status = 0
        with (self.folder / f"{stem}.log").open("a") as log:
            for command in self.jobs[name]:
                if self.stopped or status:
                    break
                status = self.command([*command, *self.kept(command[0], stem)], log)
        minutes = (time.perf_counter() - start) / 60
        said = "stopped" if self.stopped else f"failed, see {log.name}" if status else "done"
        print(f"{name}: {said} after {minutes:.0f} min", flush=True)
        return not status and not self.stopped

    def command(self, command: list[str], log: IO[str]) -> int:
        process = subprocess.Popen(
            [sys.executable, str(HERE), *command], stdout=log, stderr=log, env=MEMORY | os.environ
        )
        self.running.add(process)
        try:
            return process.wait()
        finally:
            self.running.discard(process)

    def kept(self, part: str, stem: str) -> list[str]:
        """Options: where a part keeps its runs, and its summary if all are made anew."""
        if part not in SUMMARIES:
            return []
        out = ["--out", str(self.folder / SUMMARIES[part])] if self.whole else []
        return ["--runs", str(self.folder / f"{stem}.jsonl"), *out]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--complete", action="store_true",
                        help="20 instances of all methods at d = 800, too")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=COMPLETE, metavar="NAME",
                        help=f"of {'; '.join(COMPLETE)}")  # fmt: skip
    kept = Path(tempfile.gettempdir()) / "truth"
    parser.add_argument("--runs", type=Path, default=kept, help="the folder of runs")
    options = parser.parse_args()
    jobs = COMPLETE if options.complete else JOBS
    unknown = [name for name in options.only or () if name not in jobs]
    if unknown:
        parser.error(f"{unknown[0]} is a job of --complete alone")
    options.runs.mkdir(parents=True, exist_ok=True)
    print(f"runs and logs: {options.runs}", flush=True)
    runner = Runner(options.runs, jobs, whole=options.only is None)
    signal.signal(signal.SIGTERM, runner.stop)
    signal.signal(signal.SIGINT, runner.stop)
    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            went = list(pool.map(runner.job, options.only or jobs))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{(spent.ru_utime + spent.ru_stime) / 3600:.1f} hours of the processor", flush=True)
    if not all(went):
        sys.exit(1)
    if runner.whole:
        for name in SUMMARIES.values():
            shutil.copyfile(options.runs / name, RESULTS / name)
    for part in ("labels", "table", "mixture_figure"):
        subprocess.run([sys.executable, str(HERE), part], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
