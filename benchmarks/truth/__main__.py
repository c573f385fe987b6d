"""How near samples come to the exact posterior: problems whose posteriors are known.

python benchmarks/truth PART [options of the part; --help lists them]

mixture         every method on a mixture of 25 Gaussians, by sliced Wasserstein distance
mixture_peers   deepinv's and azula's methods on the same
mixture_figure  the picture of both
nonlinear       every method on measurements that are not linear
calibration     is each method calibrated?
conversion      each likelihood at every noise level against p_sigma(y | x)
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

PARTS = ("mixture", "mixture_peers", "mixture_figure", "nonlinear", "calibration", "conversion")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(__doc__)
    here = Path(__file__).parent
    sys.path[:0] = [str(here), str(here.parent)]
    part = sys.argv.pop(1)
    sys.argv[0] += f" {part}"
    runpy.run_path(str(here / f"{part}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
