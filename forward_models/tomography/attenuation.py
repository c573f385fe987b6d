"""Hounsfield units to attenuation as an operator, to put before a projector."""

from __future__ import annotations

from ..affine import Affine
from ..checks import check_positive
from .hounsfield import WATER


def attenuation_operator(mu_water: float = WATER) -> Affine:
    """mu = mu_water (1 + HU / 1000), in 1/mm: `tomography @ attenuation_operator()` takes HU.

    Raises ValueError if mu_water, the attenuation of water in 1/mm, is not positive.
    """
    value = check_positive("mu_water", mu_water)
    return Affine(value / 1000, value)
