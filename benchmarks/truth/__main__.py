"""How near samples come to the exact posterior: problems whose posteriors are known.

    python benchmarks/truth          all of it, restartable: see everything.py
    python benchmarks/truth PART     one part; --help lists its options

distances       every method on every problem, by sliced Wasserstein distance and mode weights
table           methods by families of problems: distances and calibration, and the picture
mixture_figure  the picture of the mixture of 25 Gaussians, peers included
calibration     is each method calibrated?
power           which faults does calibration find?
labels          what it found, as `inverse methods` tells it
evidence        is the evidence that particles give unbiased?
conversion      each likelihood at every noise level against p_sigma(y | x)
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

PARTS = (
    "distances", "table", "mixture_figure", "calibration", "power", "labels", "evidence",
    "conversion",
)  # fmt: skip


def main() -> None:
    here = Path(__file__).parent
    sys.path[:0] = [str(here), str(here.parent)]
    part = "everything"
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        part = sys.argv.pop(1)
        sys.argv[0] += f" {part}"
    if part not in ("everything", *PARTS) or sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
    if part not in ("everything", *PARTS):
        sys.exit(f"no part {part!r}")
    runpy.run_path(str(here / f"{part}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
