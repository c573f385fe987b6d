"""How far samples are from the posterior they claim to be: figures with uncertainty, and plots.

Each diagnostic is a figure with its uncertainty and draws its plot.
"""

from .calibration import Calibration, calibrate
from .conversion import Conversion, conversion_errors
from .coverage import Coverage
from .estimate import Estimate, Null
from .kernel import KernelDiscrepancy, kernel_discrepancy, kernel_width
from .martingale import Martingale, martingale_test
from .modes import ModeWeights, mode_weights
from .quantities import Quantity, View
from .ranks import Ranks, band, rank, reached
from .residual import ResidualChi2, residual_chi2
from .sliced import SlicedWasserstein, Slices, sliced_wasserstein
from .verdict import Evidence
from .widths import Shift, Width
from .worth import EffectiveSize, effective_size

__all__ = [
    "Calibration",
    "Conversion",
    "Coverage",
    "EffectiveSize",
    "Estimate",
    "Evidence",
    "KernelDiscrepancy",
    "Martingale",
    "ModeWeights",
    "Null",
    "Quantity",
    "Ranks",
    "ResidualChi2",
    "Shift",
    "SlicedWasserstein",
    "Slices",
    "View",
    "Width",
    "band",
    "calibrate",
    "conversion_errors",
    "effective_size",
    "kernel_discrepancy",
    "kernel_width",
    "martingale_test",
    "mode_weights",
    "rank",
    "reached",
    "residual_chi2",
    "sliced_wasserstein",
]
