"""How far samples are from the posterior they claim to be: figures with uncertainty, and plots.

Each diagnostic is a figure with its uncertainty and draws its plot.
"""

from .calibration import Calibration, calibrate
from .coverage import Coverage
from .quantities import Quantity, View
from .ranks import Ranks, band, rank, reached
from .verdict import Evidence
from .widths import Shift, Width

__all__ = [
    "Calibration",
    "Coverage",
    "Evidence",
    "Quantity",
    "Ranks",
    "Shift",
    "View",
    "Width",
    "band",
    "calibrate",
    "rank",
    "reached",
]
