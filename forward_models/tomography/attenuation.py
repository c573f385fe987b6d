"""Hounsfield units to attenuation as an operator, to put before a projector."""

from __future__ import annotations

from ..affine import Affine
from ..checks import check_positive
from .hounsfield import WATER


def attenuation_operator(mu_water: float = WATER) -> Affine:
    """mu = mu_water (1 + HU / 1000), of images in Hounsfield units, (B, *event), in 1/mm.

    `tomography @ attenuation_operator()` measures an image in Hounsfield units: affine, exact, and
    with the cost of `tomography`. See `hounsfield_to_attenuation` for the units and their source.

    Args:
        mu_water: attenuation of water in 1/mm.

    Raises:
        TypeError, ValueError: mu_water is no number, or not positive and finite.
    """
    value = check_positive("mu_water", mu_water)
    return Affine(value / 1000, value)
